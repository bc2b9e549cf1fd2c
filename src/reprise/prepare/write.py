"""Tokenize and write rows in one pass, with at most one batch in memory."""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value
from tqdm import tqdm
from transformers import BatchEncoding, PreTrainedTokenizerBase

from reprise.core.display import echo
from reprise.data.labels import label_array
from reprise.data.mmap import drop_mapped_pages
from reprise.data.text import hash_texts, normalize
from reprise.data.tokenization import tokenize
from reprise.data.windows import tokenize_windows
from reprise.prepare.columns import TEXT_COLUMNS
from reprise.tasks.kind import TaskKind
from reprise.tasks.token_classification import Words

BATCH_ROWS = 1000  # rows per tokenizer call and per record batch of the Arrow file
WINDOW_CHARS = 2**20  # characters per tokenizer call in windows, since texts may be of any length
DROP_PAGES_EVERY_BATCHES = 50
LOG_EVERY_S = 10  # seconds between progress lines without a terminal
# The columns that `tokenize` adds to the standard ones.
TOKENIZED_COLUMNS = {"input_ids": List(Value("int32")), "token_type_ids": List(Value("int8")), "length": Value("int64")}


def write_tokenized(
    rows: Dataset, file: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, *, name: str
) -> dict[str, npt.NDArray[Any]]:
    """Write rows with their tokens as an Arrow stream, the format of `Dataset.from_file`.

    Args:
        rows: Rows with the standard columns of `prepare/columns.py`.
        file: The file to write.
        tokenizer: The model's tokenizer.
        max_length: Maximum number of tokens of a row.
        name: Name of the rows in progress messages.

    Returns:
        Arrays of shape [rows]: lengths and full_lengths, the tokens of each row and those before truncation (int32);
        labels, as `TaskKind.label_feature` says, of any number of them [rows, labels]; exact and normalized, hashes of
        the texts as written, and without differences of case and white space (uint64). And unknown, the number of
        unknown tokens of each batch.
    """
    used = {*tokenizer.model_input_names, "length"}
    features = Features(
        {**rows.features, **{column: feature for column, feature in TOKENIZED_COLUMNS.items() if column in used}}
    )
    schema = features.arrow_schema
    texts = [column for column in TEXT_COLUMNS if column in rows.column_names]
    parts: list[dict[str, npt.NDArray[Any]]] = []
    unknown = unknown_token_id(tokenizer)
    # Not `save_to_disk`, which would add a fingerprint to the files.
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in iter_batches(rows, name):
            values = [batch[column].to_pylist() for column in texts]
            encoded = tokenize(tokenizer, values, max_length)
            columns = {column: pa.array(encoded[column], schema.field(column).type) for column in encoded}
            table = pa.table({**dict(zip(batch.column_names, batch.columns, strict=True)), **columns}, schema=schema)
            writer.write_table(table.combine_chunks())
            ids = table["input_ids"].combine_chunks().flatten().to_numpy()
            parts.append(
                {
                    "lengths": table["length"].to_numpy().astype(np.int32),
                    "full_lengths": _full_lengths(tokenizer, encoded, values, max_length),
                    "labels": label_array(table["label"].combine_chunks()),
                    "exact": hash_texts(values),
                    "normalized": hash_texts([[normalize(text) for text in column] for column in values]),
                    "unknown": np.array([0 if unknown is None else np.count_nonzero(ids == unknown)]),
                }
            )
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@dataclass(frozen=True)
class WindowFile:
    """Where the windows of a file of examples go.

    Attributes:
        file: Arrow file.
        stride: tokens that neighbouring windows share.
        kind: of the task.
        first: index in the split of the file's first example.
    """

    file: Path
    stride: int
    kind: TaskKind
    first: int


def write_windows(
    rows: Dataset, file: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, windows: WindowFile, *, name: str
) -> dict[str, npt.NDArray[Any]]:
    """Write rows as they are, and beside them the windows that the model reads.

    The arguments are those of `write_tokenized`.

    Returns:
        What `write_tokenized` does, where nothing is truncated; `windows` and `window_tokens`, of each row the number
        of its windows and their tokens (int64); and `lost_words`, the words without any token (int64).
    """
    kind = windows.kind
    row_schema = Features({name: rows.features[name] for name in rows.features}).arrow_schema
    used = {*tokenizer.model_input_names, "length"}
    features = {column: feature for column, feature in TOKENIZED_COLUMNS.items() if column in used}
    own = {"word_tokens": List(Value("int32"))} if kind.per_token else {"weight": Value("float32")}
    schema = Features({**features, "example": Value("int64"), "label": kind.label_feature, **own}).arrow_schema
    special, unknown = tokenizer.num_special_tokens_to_add(), unknown_token_id(tokenizer)
    parts: list[dict[str, npt.NDArray[Any]]] = []
    done = windows.first
    with (
        pa.OSFile(str(file), "wb") as row_sink,
        pa.ipc.new_stream(row_sink, row_schema) as row_writer,
        pa.OSFile(str(windows.file), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
    ):
        for batch in split_batches(iter_batches(rows, name)):
            texts, labels = batch["text"].to_pylist(), label_array(batch["label"].combine_chunks())
            words = None
            if kind.per_token:
                spans = (label_array(batch[column].combine_chunks()) for column in ("word_starts", "word_ends"))
                words = list(map(Words, texts, *spans))
            columns, kept = tokenize_windows(
                tokenizer, texts, max_length=max_length, stride=windows.stride, kind=kind, labels=labels, words=words
            )
            lost = sum(int((~each).sum()) for each in kept)
            if lost:
                batch, labels = drop_words(batch, kept)
            row_writer.write_table(batch.cast(row_schema).combine_chunks())
            example = np.asarray(columns["example"])
            columns["example"] = (example + done).tolist()
            table = pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}, schema=schema)
            writer.write_table(table.combine_chunks())
            done += len(texts)
            ids = table["input_ids"].combine_chunks().flatten().to_numpy()
            sizes = np.asarray(columns["length"], np.int64)
            tokens, counts = np.bincount(example, sizes).astype(np.int64), np.bincount(example)
            lengths = (tokens - (counts - 1) * (windows.stride + special)).astype(np.int32)
            parts.append(
                {
                    "lengths": lengths,
                    "full_lengths": lengths,
                    "labels": labels,
                    "exact": hash_texts([texts]),
                    "normalized": hash_texts([[normalize(text) for text in texts]]),
                    "unknown": np.array([0 if unknown is None else np.count_nonzero(ids == unknown)]),
                    "windows": counts.astype(np.int64),
                    "window_tokens": tokens,
                    "lost_words": np.array([lost]),
                }
            )
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def split_batches(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Split batches so that each has at most WINDOW_CHARS characters, or one text."""
    for batch in batches:
        sizes = np.cumsum(pc.utf8_length(batch["text"]).to_numpy())
        start = 0
        while start < len(batch):
            before = sizes[start - 1] if start else 0
            stop = max(int(np.searchsorted(sizes, before + WINDOW_CHARS, side="right")), start + 1)
            yield batch.slice(start, stop - start)
            start = stop


def drop_words(batch: pa.Table, kept: list[npt.NDArray[np.bool_]]) -> tuple[pa.Table, npt.NDArray[Any]]:
    """Remove the words that are not kept, and their tags; return the table and the tags."""
    for name in ("word_starts", "word_ends", "label"):
        values = label_array(batch[name].combine_chunks())
        left = [value[keep].tolist() for value, keep in zip(values, kept, strict=True)]
        index = batch.column_names.index(name)
        batch = batch.set_column(index, name, pa.array(left, batch.schema.field(name).type))
    return batch, label_array(batch["label"].combine_chunks())


def _full_lengths(
    tokenizer: PreTrainedTokenizerBase, encoded: BatchEncoding, texts: list[list[str]], max_length: int
) -> npt.NDArray[np.int32]:
    """Return the numbers of tokens before truncation, shape [rows]."""
    lengths = np.array(encoded["length"], dtype=np.int32)
    cut = np.flatnonzero(lengths >= max_length)
    if encoded.encodings and len(texts) == 1:  # the tokenizer keeps what it cut, again with special tokens
        for row in cut:
            for part in encoded.encodings[row].overflowing:
                lengths[row] += len(part) - sum(part.special_tokens_mask)
    elif len(cut):
        whole = tokenizer(
            *([column[row] for row in cut] for column in texts), return_attention_mask=False, verbose=False
        )
        lengths[cut] = [len(ids) for ids in whole["input_ids"]]
    return lengths


def unknown_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the token of unknown words; None if the tokenizer has none, as byte-level ones."""
    unknown = tokenizer.unk_token_id
    special = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return None if unknown in special else unknown


def iter_batches(rows: Dataset, name: str) -> Iterator[pa.Table]:
    """Yield the rows in batches with a progress bar, or with progress lines without a terminal."""
    start = last_line = time.perf_counter()
    with tqdm(total=len(rows), desc=f"prepare: {name}", unit="row", disable=not sys.stderr.isatty()) as bar:
        for index, batch in enumerate(rows.with_format("arrow").iter(batch_size=BATCH_ROWS)):
            yield batch
            bar.update(len(batch))
            if index % DROP_PAGES_EVERY_BATCHES == 0:
                drop_mapped_pages()
            done, now = index * BATCH_ROWS + len(batch), time.perf_counter()
            if bar.disable and now - last_line > LOG_EVERY_S:
                last_line = now
                left = tqdm.format_interval((now - start) / done * (len(rows) - done))
                echo(f"prepare: {name}: {done} of {len(rows)} rows, {left} left")
