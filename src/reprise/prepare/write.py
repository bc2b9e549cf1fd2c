"""Tokenize and write rows in one pass, with at most one batch in memory."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset, Features, List, Value
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

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
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Write rows with their tokens as an Arrow stream, the format of `Dataset.from_file`.

    Args:
        rows: Rows with the standard columns of `prepare/columns.py`.
        file: The file to write.
        tokenizer: The model's tokenizer.
        max_length: Maximum number of tokens of a row.
        name: Name of the rows in progress messages.

    Returns:
        The number of tokens (int64) and the label (int64; float64 for regression) of each row, both of shape [rows].
    """
    used = {*tokenizer.model_input_names, "length"}
    features = Features(
        {**rows.features, **{column: feature for column, feature in TOKENIZED_COLUMNS.items() if column in used}}
    )
    schema = features.arrow_schema
    texts = [column for column in TEXT_COLUMNS if column in rows.column_names]
    lengths, labels = [], []
    # Not `save_to_disk`, which would add a fingerprint to the files.
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in iter_batches(rows, name):
            encoded = tokenize(tokenizer, [batch[column].to_pylist() for column in texts], max_length)
            columns = {column: pa.array(encoded[column], schema.field(column).type) for column in encoded}
            table = pa.table({**dict(zip(batch.column_names, batch.columns, strict=True)), **columns}, schema=schema)
            writer.write_table(table.combine_chunks())
            lengths.append(table["length"].to_numpy())
            labels.append(table["label"].to_numpy())
    return np.concatenate(lengths), np.concatenate(labels)


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
                print(f"prepare: {name}: {done} of {len(rows)} rows, {left} left", flush=True)
