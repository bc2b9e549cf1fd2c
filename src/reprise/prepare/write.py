"""Tokenize and write rows in one pass, with at most one batch in memory."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from datasets import Dataset, Features, List, Value
from tqdm import tqdm
from transformers import BatchEncoding, PreTrainedTokenizerBase

from reprise.core.display import echo
from reprise.data.mmap import drop_mapped_pages
from reprise.data.tokenization import tokenize
from reprise.prepare.columns import TEXT_COLUMNS

BATCH_ROWS = 1000  # rows per tokenizer call and per record batch of the Arrow file
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
        labels (int64; float64 for regression); exact and normalized, hashes of the texts as written, and without
        differences of case and white space (uint64). And unknown, the number of unknown tokens of each batch.
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
                    "labels": table["label"].to_numpy(),
                    "exact": _hash_rows(values),
                    "normalized": _hash_rows([[normalize(text) for text in column] for column in values]),
                    "unknown": np.array([0 if unknown is None else np.count_nonzero(ids == unknown)]),
                }
            )
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def normalize(text: str) -> str:
    """Return the text without differences of case and white space."""
    return " ".join(text.casefold().split())


def _hash_rows(texts: list[list[str]]) -> npt.NDArray[np.uint64]:
    rows = np.array(["\x1f".join(row) for row in zip(*texts, strict=True)], dtype=object)
    return pd.util.hash_array(rows, categorize=False)


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
