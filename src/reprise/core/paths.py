"""Paths of what each stage writes; the outputs are the same as in dvc.yaml."""

from pathlib import Path

SOURCES = Path("data/sources.json")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
DATA_CHECKS = Path("data/checks")
TEACHER = Path("data/teacher")
PRETRAINED = Path("models/pretrained")
FINAL_MODEL = Path("models/final")
METRICS = Path("metrics")
PREFLIGHT = METRICS / "preflight.json"
# Of a session on a machine: git has these two, dvc.yaml does not.
SPEED = METRICS / "speed.json"
PROVENANCE = METRICS / "provenance.json"
PLOTS = Path("plots")
PREDICTIONS = Path("predictions")
# Locks, which git ignores: of all outputs in this folder, and of the experiments that commands run by name.
WORKSPACE_LOCK = Path(".reprise.lock")
EXPERIMENTS_LOCK = Path(".reprise-experiments.lock")


def experiment_root(folder: Path) -> Path | None:
    """Return the repository that DVC copied to a folder for `dvc exp run --temp` or `--queue`, else None."""
    for parent in folder.parents:
        if parent.name == "exps" and parent.parent.parts[-2:] == (".dvc", "tmp"):
            return parent.parents[2]
    return None
