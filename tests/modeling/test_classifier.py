"""Classifiers have a head from the seed and pretrained weights, and load neither pickles nor foreign code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    MambaConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLNetConfig,
)

from reprise.core.errors import UserError
from reprise.modeling.classifier import Pretrained, load_classifier, load_pretrained
from reprise.tasks.registry import task_kind

LABELS = ["bad", "fair", "good"]


def head(model: PreTrainedModel) -> torch.Tensor:
    weight: torch.Tensor = model.classifier.weight.detach()
    return weight


@pytest.fixture
def pickled(model: PreTrainedModel, tmp_path: Path) -> Path:
    """A folder with a complete model, but with pickled weights."""
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    return tmp_path


def test_a_new_head_is_initialized_from_the_seed(tiny_model: Path) -> None:
    heads = []
    for seed in 1, 1, 2:
        torch.manual_seed(seed)
        heads.append(head(load_classifier(tiny_model, task_kind(LABELS))))
    assert heads[0].shape == (3, 32)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_encoder_has_the_pretrained_weights(tiny_model: Path) -> None:
    torch.manual_seed(1)
    one = load_classifier(tiny_model, task_kind(LABELS)).bert.state_dict()
    torch.manual_seed(2)
    other = load_classifier(tiny_model, task_kind(LABELS)).bert.state_dict()
    assert {name for name in one if not torch.equal(one[name], other[name])} == set()
    assert one["embeddings.word_embeddings.weight"][5, :8].mean() > 0.9  # the first word of GOOD, see conftest.py


def test_the_configuration_names_the_label_of_each_output(model: PreTrainedModel) -> None:
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert model.config.label2id == {"bad": 0, "fair": 1, "good": 2}
    assert model.config.problem_type == "single_label_classification"


def test_a_head_for_regression_has_one_output(tiny_model: Path) -> None:
    model = load_classifier(tiny_model, task_kind([]))
    assert head(model).shape == (1, 32)
    assert model.config.problem_type == "regression"


def test_a_trained_head_is_loaded_unchanged(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    torch.manual_seed(99)
    again = load_classifier(tmp_path)
    assert torch.equal(head(again), head(model))
    assert again.config.id2label == {0: "bad", 1: "fair", 2: "good"}


def test_a_trained_head_of_another_size_is_replaced_by_a_new_one(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    heads = []
    for seed in 1, 1, 2:
        torch.manual_seed(seed)
        heads.append(head(load_classifier(tmp_path, task_kind(["rotten", "fresh"]))))
    assert heads[0].shape == (2, 32)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_half_precision_weights_are_loaded_in_fp32(model: PreTrainedModel, tmp_path: Path) -> None:
    model.bfloat16().save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load_classifier(tmp_path).parameters()} == {torch.float32}


def test_pickled_weights_are_refused(pickled: Path) -> None:
    with pytest.raises(OSError, match="safetensors"):
        load_classifier(pickled)
    # Only the pickle is the reason: transformers itself would load it.
    assert AutoModelForSequenceClassification.from_pretrained(pickled).config.num_labels == 3


def test_code_beside_the_weights_is_not_run(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "foreign.Foreign"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "foreign.py").write_text("raise SystemExit('foreign code was run')\n")
    assert type(load_classifier(tmp_path)) is type(model)


# Weights and config.json that do not belong together.

SIZES = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
FAMILIES: dict[str, PretrainedConfig] = {
    "bert": BertConfig(vocab_size=40, **SIZES),
    "roberta": RobertaConfig(vocab_size=40, **SIZES),
    "distilbert": DistilBertConfig(vocab_size=40, n_layers=2, dim=16, n_heads=2, hidden_dim=32),
    "electra": ElectraConfig(vocab_size=40, embedding_size=8, **SIZES),
    "albert": AlbertConfig(vocab_size=40, embedding_size=8, **SIZES),
    "deberta-v2": DebertaV2Config(vocab_size=40, **SIZES),
    "modernbert": ModernBertConfig(vocab_size=60_000, **SIZES),
    "xlnet": XLNetConfig(vocab_size=40, d_model=16, n_layer=2, n_head=2, d_inner=32),
    "gpt2": GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1),
    "bart": BartConfig(
        vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
    ),
}  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a model of a family that was trained to tell three labels apart."""
    config = FAMILIES[request.param]
    config.id2label, config.label2id = {0: "bad", 1: "fair", 2: "good"}, {"bad": 0, "fair": 1, "good": 2}
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    return tmp_path


def test_another_dropout_is_that_of_all_modules_and_of_the_configuration(family: Path) -> None:
    found = load_pretrained(family, task_kind(LABELS), dropout=0.35)
    assert {part.p for part in found.model.modules() if isinstance(part, torch.nn.Dropout)} == {0.35}
    options = {
        name: p for name, p in found.model.config.to_dict().items() if "drop" in name and "layerdrop" not in name
    }
    assert set(options.values()) - {None} == {0.35}
    (note,) = (note for note in found.notes if "dropout" in note)
    assert all(f" {name} " in note for name, p in options.items() if p is not None)


def test_a_family_without_dropout_is_refused(tmp_path: Path) -> None:
    MambaConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError) as refused:
        load_pretrained(tmp_path, task_kind(LABELS), dropout=0.1)
    assert (refused.value.file, refused.value.key, refused.value.expected) == ("params.yaml", "train.dropout", "null")


def rename_weights(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Rename the weights of a file; those that become None are left out."""
    file = folder / "model.safetensors"
    renamed = {rename(name): weight for name, weight in load_file(file).items()}
    save_file({name: weight for name, weight in renamed.items() if name}, file, {"format": "pt"})


def output_weight(pretrained: Pretrained) -> torch.Tensor:
    head = [part for name, part in pretrained.model.named_modules() if getattr(part, "out_features", 0) == 3]
    weight: torch.Tensor = head[-1].weight.detach()
    return weight


def test_only_head_and_pooler_are_new(family: Path) -> None:
    config = AutoConfig.from_pretrained(family)
    AutoModel.from_config(config).save_pretrained(family)
    pretrained = load_pretrained(family, task_kind(LABELS))
    prefix = pretrained.model.base_model_prefix
    encoder = {name for name in pretrained.new_parameters if name.startswith(f"{prefix}.") and ".pooler." not in name}
    assert encoder == set()
    assert pretrained.new_parameters
    assert pretrained.notes == ["the output layer is new: the pretrained one has the labels bad, fair, good"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_a_prefix_of_all_names_is_removed_and_reported(family: Path, prefix: str) -> None:
    expected = load_pretrained(family, task_kind(LABELS)).model.state_dict()
    rename_weights(family, lambda name: f"{prefix}{name}")
    pretrained = load_pretrained(family, task_kind(LABELS))
    found = pretrained.model.state_dict()
    assert {name for name in expected if not torch.equal(expected[name], found[name])} == set()
    assert pretrained.new_parameters == []
    assert prefix in pretrained.notes[0]


def test_weights_of_other_names_are_refused(family: Path) -> None:
    rename_weights(family, lambda name: name.replace("layer", "block") + ".x")
    with pytest.raises(UserError) as caught:
        load_pretrained(family, task_kind(LABELS))
    assert caught.value.file == str(family)
    assert "the file has no" in caught.value.problem


def test_a_missing_weight_of_the_encoder_is_refused_by_name(family: Path) -> None:
    names = sorted(load_file(family / "model.safetensors"))
    lost = next(name for name in names if name.endswith("weight") and any(part.isdigit() for part in name.split(".")))
    rename_weights(family, lambda name: None if name == lost else name)
    with pytest.raises(UserError) as caught:
        load_pretrained(family, task_kind(LABELS))
    assert f"1 weight without a match: the file has no {lost}" == caught.value.problem


def test_a_config_of_fewer_layers_than_the_weights_is_refused(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    edit_config(tmp_path, num_hidden_layers=1)
    with pytest.raises(UserError) as caught:
        load_pretrained(tmp_path, task_kind(LABELS))
    assert "has no encoder.layer.1." in caught.value.problem


def test_a_config_of_another_size_is_refused(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    edit_config(tmp_path, intermediate_size=48)
    with pytest.raises(UserError) as caught:
        load_pretrained(tmp_path, task_kind(LABELS))
    assert "intermediate.dense.bias is [64] in the file and [48] by config.json" in caught.value.problem


def test_a_trained_model_with_a_missing_head_is_refused(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    rename_weights(tmp_path, lambda name: None if name == "classifier.weight" else name)
    with pytest.raises(UserError) as caught:
        load_classifier(tmp_path)
    assert "the file has no classifier.weight" in caught.value.problem


# A source model that already has a head.


def test_the_outputs_of_equal_labels_follow_the_recipe_s_order(family: Path) -> None:
    before = output_weight(load_pretrained(family, task_kind(LABELS)))
    pretrained = load_pretrained(family, task_kind(["good", "bad", "fair"]))
    assert torch.equal(output_weight(pretrained), before[[2, 0, 1]])
    assert pretrained.new_parameters == []
    assert "is kept" in pretrained.notes[0]


def test_an_output_layer_of_other_labels_is_new_even_if_it_has_the_same_size(family: Path) -> None:
    kept = output_weight(load_pretrained(family, task_kind(LABELS)))
    pretrained = load_pretrained(family, task_kind(["red", "green", "blue"]))
    assert not torch.equal(output_weight(pretrained), kept)
    assert {name.split(".")[-1] for name in pretrained.new_parameters} <= {"weight", "bias"}
    assert 1 <= len(pretrained.new_parameters) <= 2
    assert pretrained.model.config.id2label == {0: "red", 1: "green", 2: "blue"}
    assert "is new" in pretrained.notes[0]


def test_a_configuration_that_returns_tuples_is_overridden(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    edit_config(tmp_path, return_dict=False, output_hidden_states=True, output_attentions=True)
    logits = load_classifier(tmp_path)(input_ids=torch.tensor([[2, 5, 3]])).logits
    assert logits.shape == (1, 3)


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
