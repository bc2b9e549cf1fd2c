"""Prepared rows are written batch by batch, in order, as `datasets` itself would write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, Features, Value
from transformers import BatchEncoding, PreTrainedTokenizerBase

from reprise.data.tokenization import load_tokenizer, tokenize
from reprise.prepare import write
from reprise.prepare.write import write_tokenized
from tiny import BAD, FILLER, GOOD

ROWS = 23
BATCH = 10


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "BATCH_ROWS", BATCH)


@pytest.fixture
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_model)


def standard_rows(*, pairs: bool = False, label: str = "int64") -> Dataset:
    """Return rows with the standard columns and texts of 1 to 9 words."""
    draw, words = np.random.default_rng(0), GOOD + BAD + FILLER
    texts = ["text", "text_pair"] if pairs else ["text"]
    columns: dict[str, Any] = {"id": [f"review {number}" for number in range(ROWS)]}
    columns |= {name: [" ".join(draw.choice(words, draw.integers(1, 10))) for _ in range(ROWS)] for name in texts}
    columns["label"] = draw.integers(0, 2, ROWS).tolist()
    return Dataset.from_dict(
        columns, Features({name: Value("string") for name in ["id", *texts]} | {"label": Value(label)})
    )


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("segments", [False, True], ids=["no segments", "segments"])
def test_the_file_equals_the_result_of_datasets_map(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, pairs: bool, segments: bool
) -> None:
    if not segments:  # as for RoBERTa
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    rows = standard_rows(pairs=pairs)
    texts = ["text", "text_pair"] if pairs else ["text"]
    mapped = rows.map(lambda batch: tokenize(tokenizer, [batch[name] for name in texts], 12), batched=True)
    write_tokenized(rows, tmp_path / "rows.arrow", tokenizer, 12, name="train")
    written = Dataset.from_file(str(tmp_path / "rows.arrow"))
    assert written.features == mapped.features
    assert written.to_dict() == mapped.to_dict()
    assert ("token_type_ids" in written.column_names) == segments


def test_rows_are_tokenized_and_written_in_batches(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def recording_tokenize(
        tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], max_length: int
    ) -> BatchEncoding:
        sizes.append(len(texts[0]))
        return tokenize(tokenizer, texts, max_length)

    monkeypatch.setattr(write, "tokenize", recording_tokenize)
    write_tokenized(standard_rows(), tmp_path / "rows.arrow", tokenizer, 12, name="train")
    with pa.memory_map(str(tmp_path / "rows.arrow")) as mapped, pa.ipc.open_stream(mapped) as stream:
        batches = [batch.num_rows for batch in stream]
    assert sizes == batches == [BATCH, BATCH, ROWS - 2 * BATCH]


def test_selected_rows_keep_their_order_and_ids(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows, chosen = standard_rows(), [1, 2, 5, 7, 8, 9, 11, 12, 15, 17, 20, 22]
    write_tokenized(rows.select(chosen), tmp_path / "rows.arrow", tokenizer, 12, name="train")
    written = Dataset.from_file(str(tmp_path / "rows.arrow"))
    assert written["id"][:] == [f"review {number}" for number in chosen]
    assert written["text"][:] == [rows["text"][number] for number in chosen]
    assert written["input_ids"][:] == [tokenizer(rows["text"][number]).input_ids for number in chosen]


@pytest.mark.parametrize("kind", ["int64", "float64"])
def test_the_returned_lengths_and_labels_are_those_of_the_file(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, kind: str
) -> None:
    columns = write_tokenized(standard_rows(label=kind), tmp_path / "rows.arrow", tokenizer, 8, name="train")
    lengths, labels = columns["lengths"], columns["labels"]
    written = Dataset.from_file(str(tmp_path / "rows.arrow"))
    assert lengths.tolist() == written["length"][:] == [len(ids) for ids in written["input_ids"]]
    assert lengths.max() == 8
    assert (labels.dtype, labels.tolist()) == (kind, written["label"][:])


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_the_lengths_before_truncation_are_those_of_whole_texts(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, pairs: bool
) -> None:
    rows = standard_rows(pairs=pairs)
    columns = write_tokenized(rows, tmp_path / "rows.arrow", tokenizer, 6, name="train")
    whole = tokenizer(*(rows[name][:] for name in (["text", "text_pair"] if pairs else ["text"])))
    assert columns["full_lengths"].tolist() == [len(ids) for ids in whole.input_ids]
    assert columns["full_lengths"].max() > columns["lengths"].max() == 6


def test_texts_are_compared_as_written_and_without_case_and_white_space(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    pairs = [("a b", "c"), ("a b", "c"), ("A  b ", "c"), ("a", "b c"), ("a b c", "")]
    rows = Dataset.from_dict(
        {"id": list("12345"), "text": [a for a, _ in pairs], "text_pair": [b for _, b in pairs], "label": [0] * 5}
    )
    columns = write_tokenized(rows, tmp_path / "rows.arrow", tokenizer, 12, name="train")
    assert pd.factorize(columns["exact"])[0].tolist() == [0, 0, 1, 2, 3]
    assert pd.factorize(columns["normalized"])[0].tolist() == [0, 0, 0, 1, 2]


def test_unknown_tokens_are_counted(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = Dataset.from_dict({"id": ["1", "2"], "text": ["the 電影 is good", "電影 電影"], "label": [0, 0]})
    columns = write_tokenized(rows, tmp_path / "rows.arrow", tokenizer, 12, name="train")
    ids = [number for each in Dataset.from_file(str(tmp_path / "rows.arrow"))["input_ids"] for number in each]
    assert columns["unknown"].sum() == ids.count(tokenizer.unk_token_id) > 0


def test_progress_lines_have_the_number_of_rows(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(write, "LOG_EVERY_S", 0)
    write_tokenized(standard_rows(), tmp_path / "rows.arrow", tokenizer, 12, name="train")
    progress = [line.rsplit(",", 1)[0] for line in capsys.readouterr().out.splitlines()]
    assert progress == [f"prepare: train: {done} of 23 rows" for done in (10, 20, 23)]
