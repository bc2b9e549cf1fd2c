"""Read a prepared split once, batch by batch, and keep numbers of each example instead of its texts."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reprise.core.paths import PREPARED
from reprise.data.format import split_shards
from reprise.data.labels import label_array
from reprise.data.mmap import drop_mapped_pages
from reprise.data.text import hash_texts, normalize

TEXT_COLUMNS = ("text", "text_pair")
DROP_PAGES_EVERY_BATCHES = 50
PUNCTUATION = re.compile(r"\W+")
# First words of Unicode's names that count as one script, since a text in Chinese or Japanese mixes them.
CJK = {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "BOPOMOFO", "HALFWIDTH"}
MAX_SCRIPTS = 63  # bits of a mask; Unicode has some 170, so the last bit may stand for several


@dataclass(frozen=True)
class Examples:
    """Numbers of each example of a split, each array of shape [examples] unless noted.

    Attributes:
        ids: the identifiers, as text.
        labels: as prepared.
        texts: a hash of the texts without differences of case and white space.
        words: a hash of their words alone, without punctuation.
        empty: whether there is no text.
        scripts: a bit for each script that has letters in it; `Scripts` names them.
        lengths: tokens, after truncation; where windows hold them, words.
        first_words: a hash of the first word.
        last_words: a hash of the last word.
        tokens: of all examples, one after the other, or hashes of their words; int32, shape [sum of lengths].
    """

    ids: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    texts: npt.NDArray[np.uint64]
    words: npt.NDArray[np.uint64]
    empty: npt.NDArray[np.bool_]
    scripts: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.int64]
    first_words: npt.NDArray[np.uint64]
    last_words: npt.NDArray[np.uint64]
    tokens: npt.NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.texts)


class Scripts:
    """Numbers the scripts of letters as they appear; looks each character up once in Unicode's names."""

    def __init__(self) -> None:
        """Know no character yet."""
        self.names: list[str] = []
        self._bits = np.full(0x110000, 255, dtype=np.uint8)  # 255: not looked up, 254: no letter

    def masks(self, texts: list[str]) -> npt.NDArray[np.uint64]:
        """Return for each text a bit for each script that has a letter in it."""
        lengths = np.array([len(text) for text in texts])
        points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        bits = self._bits[points]
        for point in np.unique(points[bits == 255]):
            self._bits[point] = self._look_up(chr(point))
        bits = self._bits[points]
        values = np.where(bits < 254, np.uint64(1) << bits.astype(np.uint64), np.uint64(0))
        masks = np.zeros(len(texts), dtype=np.uint64)
        filled = np.flatnonzero(lengths)
        if len(filled):
            masks[filled] = np.bitwise_or.reduceat(values, (np.cumsum(lengths) - lengths)[filled])
        return masks

    def _look_up(self, char: str) -> int:
        if not char.isalpha():
            return 254
        word = unicodedata.name(char, "UNNAMED").split()[0]
        name = "CJK" if word in CJK else word.title()
        if name not in self.names:
            if len(self.names) == MAX_SCRIPTS:
                return MAX_SCRIPTS - 1
            self.names.append(name)
        return self.names.index(name)


def read_examples(split: str, scripts: Scripts, prepared: Path = PREPARED) -> Examples:
    """Read a prepared split in batches."""
    parts = [_numbers(batch, scripts) for batch in iter_batches(split, prepared)]
    return Examples(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Examples)})


def iter_batches(split: str, prepared: Path = PREPARED) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a prepared split, memory-mapped."""
    for file in split_shards(split, prepared):
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            for number, batch in enumerate(stream):
                yield batch
                if number % DROP_PAGES_EVERY_BATCHES == 0:
                    drop_mapped_pages()


def iter_texts(split: str, prepared: Path = PREPARED) -> Iterator[str]:
    """Yield the text of each example; of a pair, both on a line each."""
    for batch in iter_batches(split, prepared):
        yield from map("\n".join, zip(*_columns(batch), strict=True))


def read_rows(split: str, rows: npt.NDArray[np.int64], prepared: Path = PREPARED) -> dict[int, dict[str, Any]]:
    """Return id and texts of a few examples, by index."""
    wanted, found, start = np.unique(rows), {}, 0
    for batch in iter_batches(split, prepared):
        names = [name for name in ("id", *TEXT_COLUMNS) if name in batch.schema.names]
        for row in wanted[(wanted >= start) & (wanted < start + len(batch))]:
            found[int(row)] = {name: batch[name][int(row) - start].as_py() for name in names}
        start += len(batch)
    return found


def _columns(batch: pa.RecordBatch) -> list[list[str]]:
    return [batch[name].to_pylist() for name in TEXT_COLUMNS if name in batch.schema.names]


def hashed_words(words: list[list[str]]) -> pa.Array:
    """Return a hash of each word of each text, int32, where the tokens are those of windows."""
    hashes = hash_texts([[word for row in words for word in row]]).astype(np.uint32).view(np.int32)
    return pa.ListArray.from_arrays(np.cumsum([0, *map(len, words)], dtype=np.int32), hashes)


def _numbers(batch: pa.RecordBatch, scripts: Scripts) -> Examples:
    texts = _columns(batch)
    normalized = [[normalize(text) for text in column] for column in texts]
    joined = ["\n".join(row) for row in zip(*texts, strict=True)]
    words = [row.split() or [""] for row in map(" ".join, zip(*normalized, strict=True))]
    tokens = batch["input_ids"] if "input_ids" in batch.schema.names else hashed_words(words)
    return Examples(
        ids=np.array(batch["id"].to_pylist(), dtype=object),
        labels=label_array(batch["label"]),
        texts=hash_texts(normalized),
        words=hash_texts([[PUNCTUATION.sub(" ", text).strip() or text for text in column] for column in normalized]),
        empty=np.array([not any(row) for row in zip(*normalized, strict=True)], dtype=bool),
        scripts=scripts.masks(joined),
        lengths=np.diff(tokens.offsets.to_numpy()).astype(np.int64),
        first_words=hash_texts([[row[0] for row in words]]),
        last_words=hash_texts([[row[-1] for row in words]]),
        tokens=tokens.flatten().to_numpy().astype(np.int32),
    )
