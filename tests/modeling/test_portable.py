"""Kernels that are replaced stay replaced, so each test uses them in a process of its own."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reprise.core.config import Train
from reprise.core.errors import UserError
from reprise.core.files import read_json, sha256
from reprise.core.validation import check_recipe
from reprise.modeling.portable import check_processor, library_caps, restart_with_caps, set_up_cpu
from tiny import Run, tiny_recipe, write_params

PORTABLE = {"train.precision": "fp32-portable", "train.threads": 2}

# Runs in a process of its own: `train` is the section of a portable recipe with one thread.
PRELUDE = """
import json, warnings
warnings.simplefilter("error")
from types import SimpleNamespace
from reprise.modeling.portable import set_up_cpu
set_up_cpu(SimpleNamespace(precision="fp32-portable", threads=1))
import torch
from torch.nn import functional as F
torch.manual_seed(0)
"""


@pytest.fixture
def portable(tmp_path: Path, run: Run):  # type: ignore[no-untyped-def]
    """Return a function that runs code with portable kernels and returns what it assigns to `result`."""

    def portable(code: str) -> object:
        script = tmp_path / "script.py"
        script.write_text(f"{PRELUDE}{code}\nprint(json.dumps(result))\n")
        return json.loads(run(tmp_path, sys.executable, str(script), env=library_caps(1)).stdout.splitlines()[-1])

    return portable


def train_section(**changes: object) -> Train:
    return replace(check_recipe(tiny_recipe(**PORTABLE), "test").train, **changes)  # type: ignore[arg-type]


def test_products_and_roots_agree_with_double_precision(portable) -> None:  # type: ignore[no-untyped-def]
    errors = portable("""
a, b, c = torch.randn(3, 7, 5), torch.randn(3, 5, 9), torch.randn(9)
layer, x = torch.nn.Linear(5, 9), torch.randn(2, 7, 5)
output = layer(x)
output.pow(2).sum().backward()
product = lambda a, b: (a.double()[..., None] * b.double()[..., None, :, :]).sum(-2)  # no operator that is replaced
error = lambda found, exact: float((found.detach() - exact).abs().max() / exact.abs().max())
linear = product(x, layer.weight.detach().T) + layer.bias.detach()
scores = (product(a, a.mT) / 5**0.5).softmax(-1)
positive = a.abs()
result = {
    "bmm": error(a @ b, product(a, b)),
    "transposed": error(b.mT @ a.mT, product(a, b).mT),
    "mm": error(a[0] @ b[0], product(a[0], b[0])),
    "addmm": error(torch.addmm(c, a[0], b[0], beta=2, alpha=3), 2 * c.double() + 3 * product(a[0], b[0])),
    "without the added": error(torch.addmm(c * torch.nan, a[0], b[0], beta=0), product(a[0], b[0])),
    "baddbmm": error(torch.baddbmm(c, a, b), c.double() + product(a, b)),
    "empty sum": float((torch.empty(2, 0) @ torch.empty(0, 3)).abs().max()),
    "linear": error(output, linear),
    "gradient": error(layer.weight.grad, 2 * (linear[..., None] * x.double()[..., None, :]).sum((0, 1))),
    "attention": error(F.scaled_dot_product_attention(a, a, a), product(scores, a)),
    "sqrt": error(positive.sqrt(), positive.double() ** torch.tensor(0.5)),
    "sqrt_": error(positive.clone().sqrt_(), positive.double() ** torch.tensor(0.5)),
    "pow(0.5)": error(positive.pow(0.5), positive.double() ** torch.tensor(0.5)),
    "pow(3)": error(a.pow(3), a.double() * a.double() * a.double()),
    "pow(-1.5)": error(positive.pow(-1.5), positive.double() ** torch.full_like(positive, -1.5)),
}""")
    assert {name for name, error in errors.items() if not error < 1e-6} == set()


def test_whole_numbers_have_roots_and_powers_as_in_torch(portable) -> None:  # type: ignore[no-untyped-def]
    assert portable("""
numbers = torch.tensor([4, 9])
result = [numbers.sqrt().tolist(), str(numbers.sqrt().dtype), numbers.pow(2).tolist(), str(numbers.pow(2).dtype),
          numbers.pow(4).tolist(), str(numbers.pow(4).dtype), numbers.pow(0.5).tolist()]
""") == [[2.0, 3.0], "torch.float32", [16, 81], "torch.int64", [256, 6561], "torch.int64", [2.0, 3.0]]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("torch.nn.Conv1d(2, 2, 1)(torch.ones(1, 2, 3))", "convolution"),
        ("torch.eye(3) @ torch.ones(3)", "mv"),
        ("torch.ones(3) @ torch.ones(3)", "dot"),
        ("torch.ones(3).atan()", "atan"),
        ("torch.mm(torch.eye(2), torch.eye(2), out=torch.empty(2, 2))", "mm"),
    ],
)
def test_an_operator_that_differs_between_processors_is_refused(portable, code: str, name: str) -> None:  # type: ignore[no-untyped-def]
    file, key, problem = portable(f"""
from reprise.core.errors import UserError
try:
    {code}
    result = ["", "", "no error"]
except UserError as error:
    result = [str(error.file), error.key, str(error)]
""")
    assert (file, key) == ("params.yaml", "train.precision")
    assert name in problem.replace("_slow_conv2d_forward", "convolution")


FAMILIES = "albert bert camembert deberta-v2 distilbert electra gpt2 modernbert mpnet roberta xlm-roberta"


@pytest.mark.full
def test_encoders_of_eleven_families_use_no_refused_operator(portable) -> None:  # type: ignore[no-untyped-def]
    failed = portable(f"""
from transformers import AutoConfig, AutoModelForSequenceClassification
result = {{}}
for family in "{FAMILIES}".split():
    sizes = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                 embedding_size=32, pad_token_id=0, cls_token_id=1, sep_token_id=2, eos_token_id=1, bos_token_id=1)
    config = AutoConfig.for_model(family, **sizes)
    config.pad_token_id = 0
    model = AutoModelForSequenceClassification.from_config(config)
    ids = torch.randint(3, 64, (2, 8))
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([0, 1])).loss.backward()
    except Exception as error:
        result[family] = str(error)
""")
    assert failed == {}


def test_a_library_without_its_cap_is_an_error(tmp_path: Path, run: Run) -> None:
    script = tmp_path / "script.py"
    script.write_text(PRELUDE)
    caps = {**library_caps(1), "ATEN_CPU_CAPABILITY": "default"}
    assert (
        "RuntimeError: fp32-portable: the libraries use"
        in run(tmp_path, sys.executable, str(script), code=1, env=caps).stderr
    )


def test_a_processor_without_avx2_is_refused(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu sse2 fma\n")
    with pytest.raises(UserError) as error:
        check_processor(train_section(), "cpu", cpuinfo)
    assert (error.value.key, "no avx2" in str(error.value)) == ("train.precision", True)
    check_processor(train_section(precision="fp32"), "cpu", cpuinfo)
    cpuinfo.write_text("flags\t\t: fpu sse2 avx2 fma\n")
    check_processor(train_section(), "cpu", cpuinfo)


@pytest.mark.parametrize("device", ["cuda", "xla"])
def test_another_device_than_the_cpu_is_refused(device: str) -> None:
    with pytest.raises(UserError) as error:
        check_processor(train_section(), device)
    assert f"fp32-portable on {device}" in str(error.value)


def test_another_precision_starts_nothing_again_and_pins_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started again"))
    restart_with_caps(train_section(precision="fp32"))
    set_up_cpu(train_section(precision="fp32", threads=None))


@pytest.mark.full
def test_one_and_two_cores_give_the_same_bits_and_the_recipe_sets_the_threads(
    tmp_path: Path, prepared_dir: Path, run: Run
) -> None:
    digests = set()
    for cores in (1, 2):
        folder = tmp_path / str(cores)
        (folder / "models").mkdir(parents=True)
        for name in ("data", "docker", "models/pretrained"):
            (folder / name).symlink_to(prepared_dir / name)
        write_params(folder, **PORTABLE, **{"train.epochs": 1})
        allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
        for stage in ("train", "evaluate"):
            run(folder, "taskset", "-c", allowed, sys.executable, "-m", "reprise", stage, env={"OMP_NUM_THREADS": "1"})
        files = ("models/final/model.safetensors", "metrics/train.json", "metrics/evaluate.json")
        digests.add(tuple(sha256(folder / file) for file in files))
        (session,) = read_json(folder / "metrics/provenance.json")["sessions"]
        assert (session["threads"], session["cpu_capability"]) == (2, "AVX2")
    assert len(digests) == 1
