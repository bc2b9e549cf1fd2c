"""Predict with an exported model in onnxruntime; imports neither torch nor transformers, so it starts in a second."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.data.tokenizer_file import FileTokenizer
from reprise.data.windows import join_windows
from reprise.modeling.inputs import Texts, model_inputs
from reprise.modeling.recipe import read_model_recipe
from reprise.onnx.files import FILES
from reprise.tasks.kind import Logits
from reprise.tasks.labels import ragged
from reprise.tasks.token_classification import Words

# Rows of a run. A run has one thread, and runs are in parallel: on small batches, more threads wait for each other.
# In int8, the scale of the activations is of a whole run: only a row alone has the same answer in any company.
ROWS_PER_RUN = 8
ALONE = {FILES["int8"]}

Row = dict[str, Sequence[int]]  # what the model reads of a text or a window of one, by the name of the input


class OnnxModel:
    """A function from texts to logits.

    Attributes:
        recipe: what the model was trained for.
        threads: runs in parallel.
    """

    def __init__(self, file: Path, threads: int | None = None) -> None:
        """Load a model in the folder `onnx` of an exported one.

        Args:
            file: the model.
            threads: runs in parallel; None for one on each processor that this process may use.

        Raises:
            UserError: it or a file beside it is missing or damaged.
        """
        folder = file.parent.parent
        self.recipe = read_model_recipe(folder)
        self.tokenizer = FileTokenizer(folder)
        self.threads = threads or len(os.sched_getaffinity(0))
        self.rows_per_run = 1 if file.name in ALONE else ROWS_PER_RUN
        # By which a model such as RoBERTa tells padding.
        self.pad_token_id: int = read_json(folder / "config.json").get("pad_token_id") or 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's classes have no common base
            reason = " ".join(str(error).split())[:200]
            expected = "a model that `reprise export --format onnx` wrote"
            raise UserError(f"cannot be loaded: {reason}", file=file, expected=expected) from None
        self.inputs = {each.name for each in self.session.get_inputs()}

    def __call__(self, texts: Sequence[Texts]) -> tuple[Logits, list[Words]]:
        """Compute logits.

        Args:
            texts: at least one.

        Returns:
            The logits, as `load_predictor` computes them; and the words of each text, if labels are of words.
        """
        columns, words = self.tokenize(texts)
        return self.logits(columns), words

    def tokenize(self, texts: Sequence[Texts]) -> tuple[dict[str, Any], list[Words]]:
        """Return the columns of the rows that the model reads, and the words of each text, as `model_inputs` does."""
        return model_inputs(self.recipe, self.tokenizer, texts)

    def fits(self, texts: Sequence[Texts]) -> bool:
        """Return whether the model reads all of these texts, without cutting one."""
        if self.recipe.data.windows:
            return True
        columns, limit = [list(column) for column in zip(*texts, strict=True)], self.recipe.train.max_length
        rows = self.tokenizer(*columns, max_length=limit, return_overflowing_tokens=True)["overflow_to_sample_mapping"]
        return len(rows) == len(texts)

    def logits(self, columns: dict[str, Any]) -> Logits:
        """Compute the logits of the rows in columns of `tokenize`, and join those of windows."""
        rows = self.rows(columns)
        order = np.argsort([-len(row["input_ids"]) for row in rows], kind="stable").tolist()
        parts = [order[start : start + self.rows_per_run] for start in range(0, len(order), self.rows_per_run)]

        def run(part: list[int]) -> npt.NDArray[np.float32]:
            return self.run([rows[row] for row in part])

        if len(parts) == 1:
            found = [run(parts[0])]
        else:
            with ThreadPoolExecutor(min(self.threads, len(parts))) as pool:
                found = list(pool.map(run, parts))
        outputs: list[Any] = [None] * len(rows)
        for part, logits in zip(parts, found, strict=True):
            for row, values in zip(part, logits, strict=True):
                outputs[row] = values
        return self.join(columns, outputs)

    def rows(self, columns: dict[str, Any]) -> list[Row]:
        """Return the rows in columns of `tokenize`, each by itself: `run` takes rows of any texts together."""
        names = [name for name in columns if name in self.inputs]
        return [dict(zip(names, row, strict=True)) for row in zip(*(columns[name] for name in names), strict=True)]

    def run(self, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
        """Compute at most `rows_per_run` rows in one thread, padded to the longest.

        Returns:
            [rows, outputs]; [rows, length, outputs] if labels are of words.
        """
        size = max(len(row["input_ids"]) for row in rows)
        batch = {name: np.zeros((len(rows), size), np.int64) for name in self.inputs}
        batch["input_ids"] += self.pad_token_id
        for place, row in enumerate(rows):
            length = len(row["input_ids"])
            for name in self.inputs:
                batch[name][place, :length] = 1 if name == "attention_mask" else row[name]
        outputs: list[npt.NDArray[np.float32]] = self.session.run(["logits"], batch)
        return outputs[0]

    def join(self, columns: dict[str, Any], outputs: Sequence[npt.NDArray[np.float32]]) -> Logits:
        """Make the logits of texts from the outputs of their rows, in the order of `rows`."""
        chosen = columns.get("word_tokens")
        if chosen is None:
            logits: Logits = np.asarray(outputs, np.float32)
        else:
            picked = zip(outputs, chosen, strict=True)
            logits = ragged([values[np.asarray(tokens, np.int64)] for values, tokens in picked])
        windows = self.recipe.data.windows
        return join_windows(columns.get("example"), logits, windows.pooling if windows else None)
