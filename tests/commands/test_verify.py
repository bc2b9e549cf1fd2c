"""`reprise verify`: reproduces a commit in a worktree and gives each of the four verdicts."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from interrupts import Running, set_processes
from reprise.core.dvc_lock import locked_outputs, read_stages
from reprise.results.integrity import cached_files, object_path
from tiny import NO_NETWORK, OWNER, Run, flip_a_bit, write_params

LEARNED = {"train.epochs": 4}  # as in the fixture `measured`
WORKTREES = Path(".dvc/tmp/verify")
MODEL, TRAIN_METRICS, EVALUATION = "models/final", "metrics/train.json", "metrics/evaluate.json"


def commit(folder: Path, run: Run) -> None:
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "Change it")


def verdicts(output: str) -> dict[str, str]:
    """Parse the verdict of each output from the table."""
    rows = re.findall(
        r"^│ [\w-]+ +│ (\S+/\S+|predictions) +│ ([a-z ]+?) +│$",
        output,
        re.MULTILINE,
    )
    return dict(rows)


def state(folder: Path, run: Run) -> tuple[str, str, list[str]]:
    """Return what must not change: uncommitted changes, worktrees and the files of DVC's cache."""
    cache = sorted(str(file) for file in (folder / ".dvc/cache").rglob("*"))
    changes = run(folder, "git", "status", "--porcelain").stdout
    return changes, run(folder, "git", "worktree", "list").stdout, cache


@pytest.fixture
def referenced(measured: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the repository with measured seed noise, for the test to change."""
    return Path(shutil.copytree(measured[0], tmp_path / "repo", symlinks=True))


def test_equal_bits_are_identical_and_the_checkout_is_neither_used_nor_changed(repo_copy: Path, run: Run) -> None:
    (repo_copy / "README.md").write_text("My own words.\n", encoding="utf-8")
    before = state(repo_copy, run)
    done = run(repo_copy, *NO_NETWORK, "reprise", "verify", "--strict", env=OWNER)  # also without a network
    assert set(verdicts(done.stdout).values()) == {"identical"}
    assert {"data/raw", "data/prepared", MODEL, TRAIN_METRICS, EVALUATION, "predictions"} <= verdicts(
        done.stdout
    ).keys()
    assert done.stdout.endswith("Verdict: identical\n")
    assert "verify: uncommitted changes are ignored and left untouched" in done.stdout
    # Training really ran instead of coming from DVC's run cache, and nothing was fetched.
    assert "train: tiny on 144 examples" in done.stdout
    assert "Stage 'fetch-data' didn't change, skipping" in done.stdout
    assert "Stage 'fetch-model' didn't change, skipping" in done.stdout
    assert state(repo_copy, run) == before
    assert not list((repo_copy / WORKTREES).iterdir())


@pytest.mark.full
def test_data_missing_from_the_cache_is_fetched_again(repo_copy: Path, run: Run) -> None:
    shutil.rmtree(repo_copy / ".dvc/cache")
    done = run(repo_copy, "reprise", "verify", "HEAD")
    assert "restored from the DVC cache" not in done.stdout
    assert done.stdout.endswith("Verdict: identical\n")


@pytest.mark.full
def test_another_number_of_threads_is_equivalent(repo_copy: Path, run: Run) -> None:
    done = run(repo_copy, "reprise", "verify", env={"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"})
    assert verdicts(done.stdout)[MODEL] == "equivalent"
    assert done.stdout.endswith("Verdict: equivalent\n")
    assert "Differs: environment: threads: 1 → 2" in done.stdout


@pytest.mark.full
def test_another_order_of_summation_is_equivalent(repo_copy: Path, run: Run) -> None:
    write_params(repo_copy, **{"train.micro_batch_size": 4})
    set_processes(repo_copy, 3)
    run(repo_copy, "dvc", "repro")
    commit(repo_copy, run)
    set_processes(repo_copy, 1)
    commit(repo_copy, run)
    done = run(repo_copy, "reprise", "verify")
    found = verdicts(done.stdout)
    assert found["data/prepared"] == "identical"
    assert found[MODEL] == "equivalent"
    assert done.stdout.endswith("Verdict: equivalent\n")
    assert re.search(
        r"The 18 losses diverge at step \d+, by at most [\d.]+e-0\d % of their mean \(tolerance in fp32: 0.1 %\)",
        done.stdout,
    )
    assert "Differs: environment: processes: 3 → 1" in done.stdout
    run(repo_copy, "reprise", "verify", "--strict", code=1)


@pytest.mark.full
@pytest.mark.timeout(600)  # the fixture runs five seeds, one after another
def test_another_seed_is_within_seed_noise(referenced: Path, run: Run) -> None:
    folder = referenced
    write_params(folder, seed=50, **LEARNED)  # not a seed of the reference
    commit(folder, run)
    done = run(folder, "reprise", "verify")
    assert verdicts(done.stdout)[MODEL] == verdicts(done.stdout)[EVALUATION] == "within seed noise"
    assert done.stdout.endswith("Verdict: within seed noise\n")
    assert "The 36 losses diverge at step 1, " in done.stdout
    assert "Differs: parameter: seed: 42 → 50" in done.stdout
    run(folder, "reprise", "verify", "--strict", code=1)


@pytest.mark.full
def test_another_learning_rate_is_different_and_losses_diverge_at_its_first_effect(referenced: Path, run: Run) -> None:
    folder = referenced
    write_params(folder, **LEARNED, **{"train.learning_rate": 5e-4})
    commit(folder, run)
    done = run(folder, "reprise", "verify", code=1)
    assert verdicts(done.stdout)["data/prepared"] == "identical"
    assert verdicts(done.stdout)[MODEL] == verdicts(done.stdout)[EVALUATION] == "different"
    assert done.stdout.endswith("Verdict: different\n")
    # The schedule warms up from zero: the second step is the first to change the weights, the third loss to differ.
    assert "The 36 losses diverge at step 3, " in done.stdout
    assert "Differs: parameter: train.learning_rate: 0.005 → 0.0005" in done.stdout


@pytest.mark.full
def test_an_edited_metric_is_the_only_different_output(repo_copy: Path, run: Run) -> None:
    file = repo_copy / EVALUATION
    edited = re.sub(r'"accuracy": [\d.]+', '"accuracy": 0.995', file.read_text(encoding="utf-8"), count=1)
    file.write_text(edited, encoding="utf-8")
    commit(repo_copy, run)
    done = run(repo_copy, "reprise", "verify", code=1)
    found = verdicts(done.stdout)
    assert found.pop(EVALUATION) == "different"
    assert set(found.values()) == {"identical"}
    assert re.search(r"│ evaluate │ accuracy │ +0.9950 │ +1.0000 │", done.stdout)
    assert "All 18 losses are bit-identical." in done.stdout
    assert "No seed noise was measured for this recipe on this hardware" in done.stdout


@pytest.mark.full
def test_an_earlier_commit_is_verified_by_its_own_code(repo_copy: Path, run: Run) -> None:
    earlier = run(repo_copy, "git", "rev-parse", "HEAD").stdout.strip()
    loop = repo_copy / "src/reprise/train/engines/accelerate.py"
    loop.write_text(loop.read_text(encoding="utf-8") + "\nraise RuntimeError\n", encoding="utf-8")
    commit(repo_copy, run)
    assert run(repo_copy, "reprise", "verify", earlier).stdout.endswith("Verdict: identical\n")
    failed = run(repo_copy, "reprise", "verify", code=2)
    assert re.search(
        rf"^reprise: error: {WORKTREES}/\w+: the pipeline failed, see above; ", failed.stderr, re.MULTILINE
    )


@pytest.mark.full
def test_an_interrupted_verification_resumes(repo_copy: Path, run: Run) -> None:
    write_params(repo_copy, **{"train.epochs": 60, "run.save_steps": 5})
    run(repo_copy, "dvc", "repro")
    commit(repo_copy, run)
    before = state(repo_copy, run)
    with Running(repo_copy, "reprise", "verify") as verifying:
        verifying.until(lambda: "train: epoch 5/60" in verifying.stdout)
        os.killpg(verifying.process.pid, signal.SIGINT)  # Ctrl-C signals every process of the terminal
        verifying.end(130)
        assert verifying.stderr.endswith("reprise verify: interrupted; earlier results are kept\n")
    (worktree,) = (repo_copy / WORKTREES).iterdir()
    assert list(worktree.glob("checkpoints/*/step-*"))
    done = run(repo_copy, "reprise", "verify")
    assert f"verify: resuming in {worktree.relative_to(repo_copy)}" in done.stdout
    assert "train: resuming from step" in done.stdout
    assert done.stdout.endswith("Verdict: identical\n")
    assert state(repo_copy, run) == before


@pytest.mark.parametrize(
    ("revision", "parts"),
    [("nowhere", "nowhere: expected a commit"), ("HEAD", "HEAD: dvc.lock: not found; expected ")],
    ids=["no commit", "no results"],
)
def test_a_commit_that_cannot_be_verified_is_refused_in_one_line(
    repo: Path, reprise: Run, revision: str, parts: str
) -> None:
    (line,) = reprise(repo, "verify", revision, code=2).stderr.splitlines()
    assert line.startswith(f"reprise: error: {parts}")


@pytest.mark.parametrize("path", ["data/raw", pytest.param("models/pretrained", marks=pytest.mark.full)])
def test_a_flipped_bit_in_the_cache_is_never_identical_and_the_object_is_named(
    repo_copy: Path, run: Run, path: str
) -> None:
    cache = repo_copy / ".dvc/cache"
    listed = cached_files(cache, locked_outputs(read_stages((repo_copy / "dvc.lock").read_bytes()))[path].md5)
    assert listed
    rotten = object_path(cache, next(iter(listed.values())))
    before = state(repo_copy, run)
    flip_a_bit(rotten)
    failed = run(repo_copy, "reprise", "verify", code=2)
    assert "Verdict" not in failed.stdout
    (line,) = failed.stderr.splitlines()
    assert line.startswith(f"reprise: error: {rotten}: damaged: {path} is not as dvc.lock records it; expected ")
    assert "`reprise fsck`" in line
    assert state(repo_copy, run) == before


def test_a_project_in_a_folder_of_another_repository_is_refused(tmp_path: Path, run: Run) -> None:
    run(tmp_path, "git", "init", "-q")
    (tmp_path / "project/.dvc").mkdir(parents=True)
    failed = run(tmp_path / "project", "reprise", "verify", code=2)
    (line,) = failed.stderr.splitlines()
    assert line.startswith("reprise: error: project/: expected ")
    assert not failed.stdout


def test_a_folder_outside_a_repository_is_refused_in_one_line(tmp_path: Path, reprise: Run) -> None:
    failed = reprise(tmp_path, "verify", code=2)
    (line,) = failed.stderr.splitlines()
    assert line.startswith("reprise: error: HEAD: expected a commit")
