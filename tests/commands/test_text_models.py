"""Which model is asked, and how it is run."""

import pytest

from reprise.commands.text_models import for_this_processor, open_model
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.modeling import portable
from reprise.modeling.recipe import model_recipe
from tiny import tiny_recipe


def test_predict_uses_fp32_where_the_processor_cannot_compute_a_portable_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("this processor has no avx2")

    recipe = model_recipe(check_recipe(tiny_recipe(**{"train.precision": "fp32-portable", "train.threads": 2}), "test"))
    assert for_this_processor(recipe) == recipe
    monkeypatch.setattr(portable, "check_processor", refuse)
    assert for_this_processor(recipe).train.precision == "fp32"
    assert "the last bits may differ" in capsys.readouterr().err


def test_threads_are_of_models_in_onnx_only() -> None:
    with pytest.raises(UserError) as refused:
        open_model(None, threads=2)
    assert (refused.value.key, refused.value.expected) == (
        "--threads",
        "a model in ONNX; the threads of others are their recipe's",
    )
