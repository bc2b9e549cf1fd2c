"""`reprise fsck`: whatever is damaged is named, and the printed command restores it."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from reprise.commands import fsck as module
from reprise.commands.fsck import fsck, leftovers, model_finding, package_findings
from reprise.core.dvc_lock import locked_outputs, read_stages
from reprise.results.integrity import cached_files, object_path
from tiny import Run, flip_a_bit

WEIGHTS = Path("models/final/model.safetensors")
EVALUATION = Path("metrics/evaluate.json")
CACHE = Path(".dvc/cache")


@pytest.fixture
def workdir(repo_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the trained repository; the packages are not checked."""
    monkeypatch.chdir(repo_copy)
    monkeypatch.setattr(module, "package_findings", lambda _: iter(()))
    return repo_copy


def weights_object() -> Path:
    """Return the object of the weights in DVC's cache."""
    listed = cached_files(CACHE, locked_outputs(read_stages())["models/final"].md5)
    assert listed is not None
    return object_path(CACHE, listed["model.safetensors"])


def findings(capsys: pytest.CaptureFixture[str]) -> tuple[bool, list[str]]:
    """Run fsck; return whether all is well, and the lines of what is not."""
    well = fsck()
    return well, [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("ok ", "fsck: "))]


def test_an_edited_provenance_is_named_and_restored(
    workdir: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path("metrics/provenance.json")
    before = file.read_bytes()
    file.write_bytes(before.replace(b'"threads": 1', b'"threads": 9'))
    well, (line,) = findings(capsys)
    assert not well
    item, restore = line.split("; restore: ")
    assert item.startswith("damaged  metrics/provenance.json is not as its run wrote it")
    run(workdir, "bash", "-c", restore)
    assert file.read_bytes() == before


def test_all_outputs_and_the_model_of_a_run_are_ok(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fsck()
    lines = capsys.readouterr().out.splitlines()
    assert {"ok       models/final", "ok       models/final in DVC's cache", "ok       metrics/evaluate.json"} <= set(
        lines
    )
    assert "ok       models/final as a model: complete, with finite weights" in lines
    assert lines[-1] == f"fsck: {len(lines) - 1} ok"


@pytest.mark.parametrize(
    ("rotten", "states"),
    [
        ("workspace", ["damaged  models/final: models/final/model.safetensors; "]),
        ("cache", ["damaged  models/final in DVC's cache: "]),
        pytest.param(
            "both", ["damaged  models/final: ", "damaged  models/final in DVC's cache: "], marks=pytest.mark.full
        ),
        ("missing object", ["missing  models/final in DVC's cache: "]),
        pytest.param("missing folder", ["missing  models/final; "], marks=pytest.mark.full),
        pytest.param("missing file", ["damaged  models/final: models/final/tokenizer.json; "], marks=pytest.mark.full),
        ("metrics", ["damaged  metrics/evaluate.json; "]),
    ],
)
def test_rot_is_named_and_the_printed_command_restores_it(
    workdir: Path, run: Run, capsys: pytest.CaptureFixture[str], rotten: str, states: list[str]
) -> None:
    before = {path: Path(path).read_bytes() for path in (WEIGHTS, EVALUATION, weights_object())}
    if rotten in ("workspace", "both"):
        flip_a_bit(WEIGHTS)
    if rotten in ("cache", "both"):
        flip_a_bit(weights_object())
    if rotten == "missing object":
        weights_object().unlink()
    if rotten == "missing folder":
        shutil.rmtree(WEIGHTS.parent)
    if rotten == "missing file":
        WEIGHTS.with_name("tokenizer.json").unlink()
    if rotten == "metrics":
        flip_a_bit(EVALUATION)
    well, lines = findings(capsys)
    assert not well
    assert [line.startswith(state) for line, state in zip(lines, states, strict=True)] == [True] * len(states)
    if "cache" in rotten:
        assert str(weights_object()) in lines[0]
    run(workdir, "bash", "-c", lines[-1].partition("; restore: ")[2])
    assert findings(capsys) == (True, [])
    assert {path: path.read_bytes() for path in before} == before


def test_leftovers_are_named_and_an_earlier_output_is_moved_back_where_there_is_no_other(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    assert list(leftovers(path)) == []
    for name in (".raw.partial", ".raw.earlier.partial"):
        (tmp_path / name).mkdir()
    assert [(finding.state, finding.restore.split()[0]) for finding in leftovers(path)] == [
        ("leftover", "rm"), ("leftover", "mv")
    ]  # fmt: skip
    path.mkdir()
    assert [finding.restore.split()[0] for finding in leftovers(path)] == ["rm", "rm"]


def test_the_exit_code_is_one_for_damage_and_two_without_results(repo_copy: Path, reprise: Run) -> None:
    flip_a_bit(repo_copy / "plots/train.csv")
    assert "damaged  plots/train.csv; restore: " in reprise(repo_copy, "fsck", code=1).stdout
    (repo_copy / "dvc.lock").unlink()
    (line,) = reprise(repo_copy, "fsck", code=2).stderr.splitlines()
    assert line.startswith("reprise: error: dvc.lock: not found; expected ")


def test_weights_that_are_nan_are_named(workdir: Path) -> None:
    weights = load_file(WEIGHTS)
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, WEIGHTS, metadata={"format": "pt"})
    finding = model_finding()
    assert (finding.state, finding.restore) == ("damaged", "dvc repro --force train")
    assert "models/final: classifier.bias: " in finding.item


def test_every_damaged_package_is_named(installed_package: Path) -> None:
    assert [finding.state for finding in package_findings("abacus")] == ["ok"]
    installed_package.write_text("VALUE = 2\n")
    (finding,) = package_findings("abacus")
    assert (finding.state, finding.item) == ("damaged", f"package locked: {installed_package}")
    assert "make setup" in finding.restore
    installed_package.unlink()
    (finding,) = package_findings("abacus")
    assert finding.state == "missing"
