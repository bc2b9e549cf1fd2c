"""What does not fit a GPU is one line; the driver's answers are replaced, because the tests have none."""

import ctypes
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.gpus import (
    Driver,
    Gpu,
    check_architecture,
    check_compiler,
    check_driver,
    check_gpus,
    check_selection,
    read_driver,
)
from reprise.hardware import check_device, require_device
from reprise.train.distributed.launch_config import LaunchConfig
from reprise.train.stage import check_launch
from tiny import ROOT, tiny_recipe

T4 = Gpu("Tesla T4", (7, 5), 15_828_320_256)
L4 = Gpu("NVIDIA L4", (8, 9), 23_580_639_232)
A100 = Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 42_400_000_000)
MIG = Gpu("NVIDIA A100-SXM4-40GB MIG 1g.5gb", (8, 0), 5_100_000_000)
NUMBERS = "the variable unset, or numbers below 2, each once"
BUILT_FOR = [f"sm_{number}" for number in sorted(torch.cuda.PYTORCH_RELEASES_CODE_CC["13.0"]["x86_64"])]


def driver(*gpus: Gpu, version: str = "580.65.06", cuda: tuple[int, int] = (13, 0), installed: int = 0) -> Driver:
    return Driver(version, cuda, installed or len(gpus), gpus)


class FakeLibrary:
    """Stands for libcuda.so.1 and libnvidia-ml.so.1: writes to the pointers that it is passed."""

    def __init__(self, gpus: list[Gpu], failing: str = "") -> None:
        self.gpus, self.failing = gpus, failing

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self.failing:
                return 100
            first = arguments[0] if arguments else None
            if name == "cuDriverGetVersion":
                first._obj.value = 12080
            elif name in ("cuDeviceGetCount", "nvmlDeviceGetCount_v2"):
                first._obj.value = len(self.gpus)
            elif name == "cuDeviceGet":
                first._obj.value = arguments[1]
            elif name == "cuDeviceGetName":
                first.value = self.gpus[arguments[2].value].name.encode()
            elif name == "cuDeviceTotalMem_v2":
                first._obj.value = self.gpus[arguments[1].value].memory
            elif name == "cuDeviceGetAttribute":
                first._obj.value = self.gpus[arguments[2].value].capability[arguments[1] - 75]
            elif name == "nvmlSystemGetDriverVersion":
                first.value = b"570.86.15"
            return 0

        return call


def test_the_driver_is_asked_for_its_versions_and_gpus() -> None:
    found = read_driver(lambda _: FakeLibrary([T4, L4]))
    assert found == Driver("570.86.15", (12, 8), 2, (T4, L4))


def test_a_machine_without_a_driver_or_its_management_library_is_described() -> None:
    def load(name: str) -> FakeLibrary:
        if "nvidia-ml" in name:
            raise OSError
        return FakeLibrary([L4])

    assert read_driver(load) == Driver("", (12, 8), 0, (L4,))
    assert read_driver(lambda _: FakeLibrary([L4], failing="cuInit")) == Driver("570.86.15", (12, 8), 1, ())

    def no_library(_: str) -> ctypes.CDLL:
        raise OSError

    assert read_driver(no_library) is None


@pytest.mark.parametrize(
    ("newest", "image"), [((13, 0), "13.0"), ((13, 2), "13.0"), ((12, 2), "12.6"), ((14, 0), "13.0")]
)
def test_a_driver_supports_every_version_of_its_cuda(newest: tuple[int, int], image: str) -> None:
    check_driver(driver(L4, cuda=newest), image, "580", "cuda")


def test_a_driver_that_is_too_old_is_named_with_the_one_that_is_needed() -> None:
    with pytest.raises(UserError) as refused:
        check_driver(driver(L4, version="570.86.15", cuda=(12, 8)), "13.0", "580", "cuda")
    assert str(refused.value) == (
        "cuda: the NVIDIA driver 570.86.15 supports CUDA up to 12.8, and PyTorch here needs CUDA 13.0; expected driver "
        "580 or newer"
    )


def test_the_facts_of_cuda_are_those_of_its_locks() -> None:
    facts = YAML(typ="safe").load((ROOT / "docker/cuda/hardware.yaml").read_text())
    assert f"cuda-toolkit=={facts['cuda']}." in (ROOT / "docker/cuda/requirements.txt").read_text()
    for page in ("docker/README.md", "docker/cuda/README.md", "docs/guides/gpus.md"):
        assert f"version {facts['driver']} or newer" in (ROOT / page).read_text()


@pytest.mark.parametrize("selected", [None, "0", "1,0", "0,1", "GPU-4af9c5d8", "0,-1,1"])
def test_a_selection_of_gpus_that_are_there_passes(selected: str | None) -> None:
    chosen = [name for name in (selected or "0,1").split(",-1")[0].split(",") if name]
    check_selection(selected, driver(*[L4] * len(chosen), installed=2))


@pytest.mark.parametrize(
    ("selected", "offered", "line"),
    [
        ("", 0, f"got '', with which CUDA offers 0 GPUs; expected {NUMBERS}"),
        ("-1", 0, f"got '-1', with which CUDA offers 0 GPUs; expected {NUMBERS}"),
        ("0,2", 1, f"got '0,2', with which CUDA offers 1 GPUs; expected {NUMBERS}"),
        ("0,0", 0, f"got '0,0', with which CUDA offers 0 GPUs; expected {NUMBERS}"),
        (
            "MIG-a,MIG-b", 1,
            "got 'MIG-a,MIG-b', with which CUDA offers 1 GPUs; expected one MIG instance: a process can use no more",
        ),
    ],
)  # fmt: skip
def test_a_selection_of_gpus_that_are_not_there_is_one_line(selected: str, offered: int, line: str) -> None:
    with pytest.raises(UserError) as refused:
        check_selection(selected, driver(*[A100] * offered, installed=2))
    assert str(refused.value) == f"CUDA_VISIBLE_DEVICES: {line}"


@pytest.mark.parametrize(
    ("gpus", "processes", "nodes", "precision"),
    [
        ([T4], 1, 1, "fp32"), ([L4], 1, 1, "bf16"), ([L4, L4], 2, 2, "bf16"), ([L4, T4], 1, 1, "bf16"),
        ([MIG], 1, 1, "bf16"),
    ],
)  # fmt: skip
def test_gpus_that_fit_the_recipe_pass(gpus: list[Gpu], processes: int, nodes: int, precision: str) -> None:
    check_gpus(gpus, processes, nodes, precision)


@pytest.mark.parametrize(
    ("gpus", "processes", "nodes", "precision", "line"),
    [
        (
            [T4], 1, 1, "bf16",
            "params.yaml: train.precision: Tesla T4 (compute capability 7.5, 16 GB) has no bf16 arithmetic, which "
            "PyTorch would emulate slowly; expected fp32, or compute capability 8.0 or newer",
        ),
        ([L4], 2, 1, "bf16", "--processes: got 2; expected at most one per GPU, here 1"),
        (
            [A100, L4], 2, 1, "fp32",
            "--processes: NVIDIA A100-SXM4-40GB (compute capability 8.0, 42 GB) and NVIDIA L4 (compute capability 8.9, "
            "24 GB) in one run: the bits would depend on which rank gets which; expected GPUs of one kind, selected by "
            "GPUS or CUDA_VISIBLE_DEVICES",
        ),
        (
            [MIG], 2, 1, "bf16",
            "--processes: got 2 processes, and NVIDIA A100-SXM4-40GB MIG 1g.5gb is an instance of a partitioned GPU "
            "(MIG); expected one process: it can use one instance, and NCCL does not connect several",
        ),
        (
            [MIG], 1, 2, "bf16",
            "--nodes: got 2 processes, and NVIDIA A100-SXM4-40GB MIG 1g.5gb is an instance of a partitioned GPU "
            "(MIG); expected one process: it can use one instance, and NCCL does not connect several",
        ),
    ],
)  # fmt: skip
def test_gpus_that_do_not_fit_are_one_line(
    gpus: list[Gpu], processes: int, nodes: int, precision: str, line: str
) -> None:
    with pytest.raises(UserError) as refused:
        check_gpus(gpus, processes, nodes, precision)
    assert str(refused.value) == line


@pytest.mark.parametrize(
    ("capability", "built_for"),
    [
        ((7, 5), BUILT_FOR), ((8, 0), BUILT_FOR), ((8, 9), BUILT_FOR), ((9, 0), BUILT_FOR), ((10, 3), BUILT_FOR),
        ((12, 1), BUILT_FOR), ((13, 0), [*BUILT_FOR, "compute_120"]), ((9, 0), ["sm_90a"]),
    ],
)  # fmt: skip
def test_an_architecture_that_torch_has_code_for_passes(capability: tuple[int, int], built_for: list[str]) -> None:
    check_architecture("GPU", capability, built_for)


@pytest.mark.parametrize(
    ("capability", "built_for"),
    [
        ((5, 2), BUILT_FOR), ((6, 1), BUILT_FOR), ((7, 0), BUILT_FOR), ((11, 0), BUILT_FOR), ((13, 0), BUILT_FOR),
        ((8, 0), ["sm_86"]), ((9, 0), ["compute_100"]),
    ],
)  # fmt: skip
def test_an_architecture_that_torch_has_no_code_for_is_one_line(
    capability: tuple[int, int], built_for: list[str]
) -> None:
    with pytest.raises(UserError) as refused:
        check_architecture("Tesla V100", capability, built_for)
    major, minor = capability
    assert str(refused.value) == (
        f"GPU: Tesla V100 has compute capability {major}.{minor}, and PyTorch here has no code for it; expected one of "
        f"those that it was built for: {', '.join(built_for)}"
    )


def test_our_rule_for_architectures_is_that_of_torch() -> None:
    for major in range(5, 13):
        for minor in range(10):
            try:
                check_architecture("GPU", (major, minor), BUILT_FOR)
                passes = True
            except UserError:
                passes = False
            numbers = [int(each.removeprefix("sm_")) for each in BUILT_FOR]
            here = 10 * major + minor
            if here not in (87, 101):  # of modules that are no cards: Orin, and Thor's old number
                assert passes == any(torch.cuda._code_compatible_with_device(here, built) for built in numbers)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "cuda: no GPU; expected one with its driver"),
        (driver(), "cuda: no GPU; expected one with its driver"),
        (driver(L4, cuda=(12, 4), version="550.54.14"), "driver 550.54.14 supports CUDA up to 12.4"),
    ],
)
def test_the_driver_is_checked_before_any_stage(
    found: Driver | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("reprise.hardware.read_driver", lambda: found)
    with pytest.raises(UserError, match=message):
        check_device("cuda", ROOT / "docker")


@pytest.mark.parametrize(
    ("gpus", "config", "precision", "key"),
    [
        ((T4,), LaunchConfig(), "bf16", "train.precision"),
        ((L4, T4), LaunchConfig(), "fp32", "--processes"),  # the profile starts one process per GPU
        ((L4,), LaunchConfig(processes=2), "fp32", "--processes"),
    ],
)
def test_the_gpus_are_checked_with_the_recipe_before_any_stage(
    gpus: tuple[Gpu, ...], config: LaunchConfig, precision: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for module in ("hardware", "train.stage"):
        monkeypatch.setattr(f"reprise.{module}.read_driver", lambda: driver(*gpus))
    recipe = check_recipe(tiny_recipe(**{"train.precision": precision}), "test")
    with pytest.raises(UserError) as refused:
        check_launch(recipe, "cuda", config)
    assert refused.value.key == key
    assert check_launch(check_recipe(tiny_recipe(), "test"), "cuda", LaunchConfig(processes=1)) == 1


def test_a_missing_c_compiler_is_one_line_before_any_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(UserError, match=r"PATH: no C compiler.*; expected gcc or clang, which the image has"):
        check_compiler(lambda _: None)
    check_compiler(lambda name: "/usr/bin/clang" if name == "clang" else None)
    monkeypatch.setenv("CC", "tcc")
    check_compiler(lambda _: None)


def test_the_architecture_is_checked_before_torch_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("reprise.hardware.read_driver", lambda: driver(T4))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: T4.name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: T4.capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])  # as on aarch64
    with pytest.raises(UserError, match="PyTorch here has no code for it"):
        require_device("cuda", ROOT / "docker")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: BUILT_FOR)
    assert require_device("cuda", ROOT / "docker") == "cuda"
