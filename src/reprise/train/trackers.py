"""Trackers: who else is told of a run's figures while it trains, TensorBoard and the like. They change none of them.

    tracking/tensorboard/20251126-125800-a1150aa6/    a run: when it began, and its checkpoints' folder

These are Accelerate's tracker classes, taken without an `Accelerator` around them: it would choose a precision for the
whole process, which the engines do in their own ways, and ending its trackers ends the process group, which is
worker.py's. All engines fill the same record, and the record tells the trackers.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
    get_available_trackers,
)

from reprise.core.config import Recipe, Run, to_dict
from reprise.core.errors import UserError

TRACKING = Path("tracking")
PROJECT = "reprise"


def check_trackers(run: Run) -> None:
    """Raise an UserError where a tracker of the recipe is not installed: none of them is in the locks."""
    installed = {str(kind) for kind in get_available_trackers()}
    for name in run.trackers:
        if name not in installed:
            raise UserError(
                f"params.yaml: run.trackers: {name}: not installed; expected it beside the locked software: "
                f"pip install {name}"
            )


class Trackers:
    """The trackers of one run. The first process has those of the recipe, the others none."""

    def __init__(self, recipe: Recipe, run: str, *, first: bool) -> None:
        """`run` is the name of the folder in which its checkpoints lie."""
        self.names = recipe.run.trackers if first else []
        self.recipe, self.run = recipe, run
        self.active: dict[str, GeneralTracker] = {}

    def start(self, began: str, from_step: int) -> None:
        """Follow a run that began at this time (ISO 8601), or go on with it after so many steps. Again: nothing."""
        for name in self.names:
            if name in self.active:
                continue
            run = f"{datetime.fromisoformat(began):%Y%m%d-%H%M%S}-{self.run[:8]}"
            with wrap_tracker_errors(name):
                tracker = make_tracker(name, run, from_step)
                tracker.start()
                if not from_step:
                    tracker.store_init_configuration(flat_config(self.recipe))
            self.active[name] = tracker

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Tell of figures as they were after an optimizer step, counted from 1."""
        for name, tracker in self.active.items():
            with wrap_tracker_errors(name):
                tracker.log(dict(figures), step=step)

    def close(self) -> None:
        """Have everything written that was told."""
        for name, tracker in self.active.items():
            with wrap_tracker_errors(name):
                tracker.finish()


def make_tracker(name: str, run: str, from_step: int) -> GeneralTracker:
    """A tracker of a run, not yet started, that goes on after so many steps.

    Nothing leaves tracking/ unless the tracker's own environment variables say so.
    """
    mine = TRACKING / name
    mine.mkdir(parents=True, exist_ok=True)
    match name:
        case "tensorboard":
            # What was told after the last checkpoint is told again: hide the first time.
            return TensorBoardTracker(run, TRACKING / name, purge_step=from_step + 1 if from_step else None)
        case "mlflow":
            os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{mine}/mlflow.db")
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            return MLflowTracker(PROJECT, run_name=run, run_id=mlflow_id(run) if from_step else None)
        case "wandb":
            os.environ.setdefault("WANDB_DIR", str(TRACKING))
            os.environ.setdefault("WANDB_MODE", "online" if "WANDB_API_KEY" in os.environ else "offline")
            return WandBTracker(os.environ.get("WANDB_PROJECT", PROJECT), id=run, name=run, resume="allow")
        case _:
            os.environ.setdefault("TRACKIO_DIR", str(mine.absolute()))
            return TrackioTracker(PROJECT, name=run, resume="allow")


def mlflow_id(run: str) -> str | None:
    """What MLflow calls the run of this name, None where it has none."""
    import mlflow

    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    found = mlflow.search_runs(
        experiment_names=[experiment], filter_string=f"attributes.run_name = '{run}'", output_format="list"
    )
    return found[0].info.run_id if found else None


def flat_config(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a tracker takes it: a number, a text or None for each dotted key, and lists as JSON."""
    (flat,) = pd.json_normalize(to_dict(recipe)).to_dict("records")
    return {str(key): json.dumps(value) if isinstance(value, list) else value for key, value in flat.items()}


@contextmanager
def wrap_tracker_errors(name: str) -> Iterator[None]:
    """Turn whatever a tracker fails with into an UserError, any password in an address left out."""
    try:
        yield
    except Exception as error:
        said = str(error).strip() or type(error).__name__
        problem = re.sub(r"://[^/@\s]*@", "://…@", said.splitlines()[0])
        raise UserError(
            f"params.yaml: run.trackers: {name}: {problem}; expected it to take the run's figures; "
            "`dvc repro` goes on from the last checkpoint"
        ) from None
