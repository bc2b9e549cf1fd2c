"""Rows in standard columns, tokenized and written in one pass: no more than a batch of them is in memory."""

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

BATCH_ROWS = 1000  # rows that the tokenizer's threads share, and that are mapped together later
DROP_PAGES_EVERY_BATCHES = 50  # batches
LOG_EVERY_S = 10  # between two lines that say how far it has come, where there is no terminal
# What `encode` gives: the columns of prepared rows beside the standard ones.
TOKENIZED_COLUMNS = {"input_ids": List(Value("int32")), "token_type_ids": List(Value("int8")), "length": Value("int64")}


def write_tokenized(
    rows: Dataset, file: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, *, name: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Write the rows with what the model reads of them, as an Arrow stream, which `Dataset.from_file` maps.

    Args:
        rows: in standard columns, see `standardise`.
        file: to write.
        tokenizer: the model's; its threads keep the order of the rows.
        max_length: tokens at most.
        name: what progress calls the rows.

    Returns:
        The tokens of each row (int64), and its label (int64, fp64 in regression): shape [rows].
    """
    known = {*tokenizer.model_input_names, "length"}
    features = Features(
        {**rows.features, **{column: kind for column, kind in TOKENIZED_COLUMNS.items() if column in known}}
    )
    schema = features.arrow_schema
    texts = [column for column in TEXT_COLUMNS if column in rows.column_names]
    lengths, labels = [], []
    # `save_to_disk` would add a fingerprint of its own.
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
    """The rows in batches, while a bar in a terminal, or now and then a line, says how far they are."""
    began = shown = time.perf_counter()
    with tqdm(total=len(rows), desc=f"prepare: {name}", unit="row", disable=not sys.stderr.isatty()) as bar:
        for number, batch in enumerate(rows.with_format("arrow").iter(batch_size=BATCH_ROWS)):
            yield batch
            bar.update(len(batch))
            if number % DROP_PAGES_EVERY_BATCHES == 0:
                drop_mapped_pages()
            done, now = number * BATCH_ROWS + len(batch), time.perf_counter()
            if bar.disable and now - shown > LOG_EVERY_S:
                shown = now
                left = tqdm.format_interval((now - began) / done * (len(rows) - done))
                print(f"prepare: {name}: {done} of {len(rows)} rows, {left} left", flush=True)
