"""A model's folder is checked before it is copied: whole, safe, and of a family that can be loaded."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors.numpy import save, save_file
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from reprise.core.errors import UserError
from reprise.fetch.model_files import TOKENIZER_FILES, copy_model_files

PARTS = {"one": "model-00001-of-00002.safetensors", "other": "model-00002-of-00002.safetensors"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with the files of a model whose weights are in two shards."""
    folder = tmp_path / "source"
    folder.mkdir()
    write(folder, "config.json", {"model_type": "bert"})
    for name, file in PARTS.items():
        save_file({name: np.zeros(8, np.float32)}, folder / file)
    write(folder, "model.safetensors.index.json", {"weight_map": PARTS})
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    return folder


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def copy(source: Path) -> set[str]:
    target = source.parent / "target"
    target.mkdir()
    copy_model_files(source, target, "the source")
    return {str(file.relative_to(target)) for file in target.rglob("*") if file.is_file()}


def test_the_files_of_model_and_tokenizer_are_copied(source: Path) -> None:
    for useless in ("pytorch_model.bin", "modeling.py", "adapter.safetensors", "README.md"):
        (source / useless).write_bytes(b"content")
    assert copy(source) == {
        "model/config.json",
        *(f"model/{file}" for file in PARTS.values()),
        "model/model.safetensors.index.json",
        "tokenizer/config.json",
        "tokenizer/vocab.txt",
    }


def only(*suffixes: str) -> Callable[[Path], None]:
    """Make a change that removes every file of weights and writes one with each of these suffixes."""

    def change(folder: Path) -> None:
        for file in folder.glob("model*"):
            file.unlink()
        for suffix in suffixes:
            (folder / f"weights.{suffix}").write_bytes(b"content")

    return change


def cut(folder: Path) -> None:
    file = folder / PARTS["other"]
    file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("change", "file", "key", "problem"),
    [
        (lambda f: (f / "config.json").unlink(), "/config.json", "", "not found"),
        (lambda f: (f / "config.json").write_text("[1]"), "/config.json", "", ""),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), "/config.json", "", ""),
        (lambda f: write(f, "config.json", {"model_type": "brt"}), "/config.json", "model_type", "got 'brt'"),
        (lambda f: write(f, "config.json", {}), "/config.json", "model_type", "got None"),
        (
            lambda f: write(f, "config.json", {"model_type": "bert", "auto_map": {"AutoModel": "a.B"}}),
            "/config.json", "auto_map", "the model needs code of its own, which is never run",
        ),
        (
            lambda f: write(f, "config.json", {"model_type": "bert", "quantization_config": {"bits": 4}}),
            "/config.json", "quantization_config", "the weights are quantised, and cannot be trained",
        ),
        *(
            (
                partial(write, name="config.json", content={"model_type": "bert", key: size}),
                "/config.json", key, f"got {size!r}",
            )
            for key, size in (
                ("num_hidden_layers", 10**6), ("num_labels", 2**31), ("vocab_size", 2**70), ("hidden_size", 1e300),
                ("max_position_embeddings", 10**12), ("num_attention_heads", 10**9), ("intermediate_size", 10**9),
            )
        ),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "/config.json", "", ""),
        (lambda f: (f / "config.json").write_text('{"a": ' + "9" * 5000 + "}"), "/config.json", "", ""),
        (only(), "", "", "no weights; pickled ones are never loaded"),
        (only("bin"), "", "", "no weights but weights.bin; pickled ones are never loaded"),
        (only("safetensors"), "", "", "no weights but weights.safetensors; pickled ones are never loaded"),
        (lambda f: (f / "vocab.txt").unlink(), "", "", "no tokenizer"),
        (
            lambda f: (f / PARTS["one"]).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            f"/{PARTS['one']}", "", "a pointer of Git LFS, not the file",
        ),
        (
            lambda f: (f / "vocab.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "/vocab.txt", "", "a pointer of Git LFS, not the file",
        ),
        (cut, f"/{PARTS['other']}", "", None),
        (lambda f: (f / PARTS["other"]).write_bytes(b""), f"/{PARTS['other']}", "", None),
        (
            lambda f: (f / PARTS["other"]).unlink(),
            "/model.safetensors.index.json", "weight_map", f"no file {PARTS['other']!r}",
        ),
        (
            lambda f: (f / PARTS["other"]).write_bytes(save({"another": np.zeros(1)})),
            f"/{PARTS['other']}", "", "no weight other",
        ),
        (
            lambda f: write(f, "model.safetensors.index.json", {"weight_map": {"one": "../secret.safetensors"}}),
            "/model.safetensors.index.json", "weight_map", "no file '../secret.safetensors'",
        ),
        (
            lambda f: write(f, "model.safetensors.index.json", {"weight_map": [1]}),
            "/model.safetensors.index.json", "weight_map", "",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_refused(
    source: Path, change: Callable[[Path], object], file: str, key: str, problem: str | None
) -> None:
    (source.parent / "secret.safetensors").write_bytes(save({"one": np.zeros(1)}))
    change(source)
    with pytest.raises(UserError) as caught:
        copy(source)
    assert (caught.value.file, caught.value.key) == (f"the source{file}", key)
    if problem is None:
        assert caught.value.problem.startswith("damaged")
    else:
        assert caught.value.problem == problem
    assert not any((source.parent / "target").iterdir())


def test_the_files_of_every_tokenizer_of_a_text_classifier_are_known() -> None:
    names = {
        TOKENIZER_MAPPING_NAMES[family]
        for family in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
        if TOKENIZER_MAPPING_NAMES.get(family)
    }
    assert len(names) > 30
    needed = {file for name in names for file in getattr(transformers, name).vocab_files_names.values()}
    assert needed - set(TOKENIZER_FILES) == set()
