"""Numbers of each prepared example, read in batches."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from reprise.check_data import examples as module
from reprise.check_data.examples import Scripts, iter_texts, read_examples, read_rows


def scripts_of(scripts: Scripts, text: str) -> set[str]:
    (mask,) = scripts.masks([text])
    return {name for number, name in enumerate(scripts.names) if int(mask) >> number & 1}


def test_the_scripts_of_letters_are_named_as_unicode_names_them() -> None:
    scripts = Scripts()
    assert scripts_of(scripts, "A café, 100 %!") == {"Latin"}
    assert scripts_of(scripts, "Привет, world") == {"Cyrillic", "Latin"}
    assert scripts_of(scripts, "日本語のテキスト") == {"CJK"}  # three scripts, one writing system
    assert scripts_of(scripts, "한국어") == {"Hangul"}
    assert scripts_of(scripts, "12 :-) 🎬") == set()
    assert scripts.masks(["", "a", ""]).tolist() == [0, 1, 0]


def test_letters_beyond_the_last_bit_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SCRIPTS", 2)
    scripts = Scripts()
    assert [int(mask) for mask in scripts.masks(["a", "я", "ب", "ab"])] == [1, 2, 2, 1]


def test_a_split_is_read_from_all_its_files_and_batches(tmp_path: Path) -> None:
    texts = ["One film.", "one  FILM.", "", "Zwei"]
    table = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "text": texts,
            "text_pair": ["x", "X", "", "y z"],
            "label": [0, 1, 1, 0],
            "input_ids": pa.array([[1, 2], [1, 2], [3], [4, 5, 6]], pa.list_(pa.int32())),
        }
    )
    for number, part in enumerate((table[:3], table[3:])):
        file = str(tmp_path / f"train-{number:05d}-of-00002.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(part, max_chunksize=2)
    found = read_examples("train", Scripts(), tmp_path)
    assert found.ids.tolist() == ["a", "b", "c", "d"]
    assert found.labels.tolist() == [0, 1, 1, 0]
    assert found.lengths.tolist() == [2, 2, 1, 3]
    assert found.tokens.tolist() == [1, 2, 1, 2, 3, 4, 5, 6]
    assert found.empty.tolist() == [False, False, True, False]
    assert found.texts[0] == found.texts[1] != found.texts[3]
    assert found.first_words[0] == found.first_words[1]
    assert list(iter_texts("train", tmp_path)) == ["One film.\nx", "one  FILM.\nX", "\n", "Zwei\ny z"]
    assert read_rows("train", np.array([3, 0, 3]), tmp_path) == {
        0: {"id": "a", "text": "One film.", "text_pair": "x"},
        3: {"id": "d", "text": "Zwei", "text_pair": "y z"},
    }
