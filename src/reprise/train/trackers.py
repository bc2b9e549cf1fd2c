"""Experiment trackers such as TensorBoard. They receive metrics and change no result.

    tracking/tensorboard/20251126-125800-a1150aa6/    a run: its start time, and the name of its checkpoint directory

These are Accelerate's tracker classes without an `Accelerator`, which would set the precision of the process and end
the process group together with its trackers. The recorder logs to them, the same for all engines.
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
)

from reprise.core.config import PARAMS, Recipe, to_dict
from reprise.core.errors import UserError

TRACKING = Path("tracking")
PROJECT = "reprise"


class Trackers:
    """The trackers of one run; only the main process has any."""

    def __init__(self, recipe: Recipe, run: str, *, is_main_process: bool) -> None:
        """Create no tracker yet; `run` is the name of the checkpoint directory."""
        self.names = recipe.run.trackers if is_main_process else []
        self.recipe, self.run = recipe, run
        self.active: dict[str, GeneralTracker] = {}

    def start(self, started: str, from_step: int) -> None:
        """Start or resume trackers that are not active yet.

        Args:
            started: start of the run's first session, ISO 8601.
            from_step: steps that were done before this session.
        """
        for name in self.names:
            if name in self.active:
                continue
            run = f"{datetime.fromisoformat(started):%Y%m%d-%H%M%S}-{self.run[:8]}"
            with wrap_tracker_errors(name):
                tracker = make_tracker(name, run, from_step)
                tracker.start()
                if not from_step:
                    tracker.store_init_configuration(flat_config(self.recipe))
            self.active[name] = tracker

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of an optimizer step, counted from 1."""
        for name, tracker in self.active.items():
            with wrap_tracker_errors(name):
                tracker.log(dict(metrics), step=step)

    def close(self) -> None:
        """Write everything that was logged."""
        for name, tracker in self.active.items():
            with wrap_tracker_errors(name):
                tracker.finish()


def make_tracker(name: str, run: str, from_step: int) -> GeneralTracker:
    """Create a tracker that is not started yet and resumes from a step.

    It writes to tracking/ only, unless its own environment variables configure a server.
    """
    folder = TRACKING / name
    folder.mkdir(parents=True, exist_ok=True)
    match name:
        case "tensorboard":
            # Steps after the last checkpoint are logged again: hide the first values.
            return TensorBoardTracker(run, folder, purge_step=from_step + 1 if from_step else None)
        case "mlflow":
            os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            return MLflowTracker(PROJECT, run_name=run, run_id=mlflow_id(run) if from_step else None)
        case "wandb":
            os.environ.setdefault("WANDB_DIR", str(TRACKING))
            os.environ.setdefault("WANDB_MODE", "online" if "WANDB_API_KEY" in os.environ else "offline")
            return WandBTracker(os.environ.get("WANDB_PROJECT", PROJECT), id=run, name=run, resume="allow")
        case _:
            os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))
            return TrackioTracker(PROJECT, name=run, resume="allow")


def mlflow_id(run: str) -> str | None:
    """Return MLflow's id of the run with this name; None if there is none."""
    import mlflow

    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    found = mlflow.search_runs(
        experiment_names=[experiment], filter_string=f"attributes.run_name = '{run}'", output_format="list"
    )
    return found[0].info.run_id if found else None


def flat_config(recipe: Recipe) -> dict[str, Any]:
    """Flatten the recipe to dotted keys with numbers, strings or None; lists become JSON."""
    (flat,) = pd.json_normalize(to_dict(recipe)).to_dict("records")
    return {str(key): json.dumps(value) if isinstance(value, list) else value for key, value in flat.items()}


@contextmanager
def wrap_tracker_errors(name: str) -> Iterator[None]:
    """Turn any error of a tracker into a UserError, without passwords in URLs.

    Raises:
        UserError: the tracker failed.
    """
    try:
        yield
    except Exception as error:
        message = str(error).strip() or type(error).__name__
        problem = re.sub(r"://[^/@\s]*@", "://…@", message.splitlines()[0])
        expected = "it to accept the run's metrics; `dvc repro` resumes from the last checkpoint"
        raise UserError(f"{name}: {problem}", file=PARAMS, key="run.trackers", expected=expected) from None
