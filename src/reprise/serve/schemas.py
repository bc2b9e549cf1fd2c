"""The requests and answers of /predict: those of the Hub's Inference API and of Text Embeddings Inference (TEI).

Requests have the same `inputs` in both. A request with one of TEI's keys is answered in TEI's shape, others in the
Hub's: they differ only in the answer to a single text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from reprise.core.display import printable
from reprise.modeling.inputs import Texts
from reprise.modeling.recipe import ModelRecipe
from reprise.tasks.formatting import shortest_float32
from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.token_classification import Words

MAX_SHOWN = 60  # characters of a key in a message

ErrorType = Literal["validation", "empty", "overloaded", "timeout", "unhealthy", "backend"]


class RequestError(Exception):
    """A request that is not answered with predictions."""

    def __init__(self, status: int, problem: str, error_type: ErrorType = "validation", **headers: str) -> None:
        """Take the status, the message and further headers, with `_` for `-`."""
        super().__init__(problem)
        self.status, self.problem, self.error_type = status, problem, error_type
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Parameters(BaseModel):
    """Options of the Hub's Inference API."""

    model_config = ConfigDict(extra="forbid", strict=True)

    top_k: Annotated[int, Field(ge=1)] | None = Field(None, description="List this many labels, best first.")


class PredictRequest(BaseModel):
    """Texts to predict, and how."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"inputs": "a moving story"}, {"inputs": ["a moving story", "a dull plot"]}]},
    )

    inputs: str | list[str] | list[list[str]] = Field(
        description="A text, or a list of texts. Of a model of sentence pairs: the two texts of a pair, or a list of "
        "pairs. As in TEI, a text may also be a list with one text."
    )
    parameters: Parameters | None = Field(None, description="Options of the Hub's Inference API.")
    raw_scores: bool = Field(False, description="Of TEI: answer with logits instead of probabilities.")
    truncate: bool = Field(
        True, description="Of TEI: cut texts that are too long for the model, as `reprise predict` does."
    )


class LabelScore(BaseModel):
    """A label and its probability."""

    label: str
    score: float
    predicted: bool | None = Field(
        None, description="Of a model with any number of labels: whether it assigns this one."
    )


class Entity(BaseModel):
    """A part of a text; `entity_group` is the label, by the name that clients of the Hub expect."""

    start: int
    end: int
    label: str
    entity_group: str
    score: float
    word: str


class Value(BaseModel):
    """The answer of a model that predicts a number."""

    value: float


class Error(BaseModel):
    """Why a request was not answered."""

    error: str
    error_type: ErrorType


@dataclass(frozen=True)
class Wanted:
    """What a valid request asks for.

    Attributes:
        texts: one or two of each row.
        flat: whether the answer is that of the only row, not a list of answers.
        top_k: labels to list; None for all.
        raw_scores: logits instead of probabilities.
        truncate: whether to cut texts that are too long.
    """

    texts: list[Texts]
    flat: bool
    top_k: int | None
    raw_scores: bool
    truncate: bool


def parse_request(body: bytes, recipe: ModelRecipe, *, max_rows: int, max_chars: int) -> Wanted:
    """Check a request.

    Args:
        body: JSON.
        recipe: what the model was trained for.
        max_rows: rows at most.
        max_chars: characters of a text at most.

    Raises:
        RequestError: it is not valid, or too large.
    """
    try:
        # Every number of a request is an integer, so NaN and Infinity, which are no JSON, are refused here.
        content = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError(400, f"malformed JSON: {_shown(error)}") from None
    request = _validate(content)
    kind, asked = recipe.kind, request.model_fields_set
    parameters = request.parameters or Parameters(top_k=None)
    if request.parameters and asked & {"raw_scores", "truncate"}:
        raise RequestError(422, "expected either `parameters` or `raw_scores` and `truncate`")
    if (kind.per_token or not kind.labels) and (parameters.top_k or request.raw_scores):
        found = "entities" if kind.per_token else "a number"
        raise RequestError(422, f"`top_k` and `raw_scores` are for models with labels; this one predicts {found}")
    texts, single = _split_inputs(request.inputs, recipe.task.text_columns)
    if len(texts) > max_rows:
        raise RequestError(413, f"{len(texts)} rows; expected at most {max_rows}")
    if any(len(text) > max_chars for row in texts for text in row):
        raise RequestError(413, f"a text is too long; expected at most {max_chars} characters")
    # The Hub answers a single text with a list of one answer, but if the answer is a list of entities, with that.
    flat = single and bool(kind.per_token or asked & {"raw_scores", "truncate"})
    return Wanted(texts, flat, parameters.top_k, request.raw_scores, request.truncate)


def _validate(content: Any) -> PredictRequest:
    """Check the keys and types of a request.

    Raises:
        RequestError: with the first problem.
    """
    if not isinstance(content, dict):
        raise RequestError(422, "expected an object with the key `inputs`")
    # Pydantic would list every unknown key and every wrong text: of a large body, hundreds of thousands.
    known = PredictRequest.model_fields
    for key in content.keys() - known.keys():
        raise RequestError(422, f"unknown key `{_shown(key)}`; expected {', '.join(known)}")
    if isinstance(parameters := content.get("parameters"), dict):
        for key in parameters.keys() - Parameters.model_fields.keys():
            raise RequestError(
                422, f"unknown key `parameters.{_shown(key)}`; expected {', '.join(Parameters.model_fields)}"
            )
    if "inputs" not in content:
        raise RequestError(422, "no key `inputs`")
    if not _is_texts(content["inputs"]):
        raise RequestError(422, "inputs: expected a text, a list of texts, or a list of lists of texts")
    try:
        return PredictRequest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise RequestError(422, f"{'.'.join(map(str, first['loc'][:2]))}: {first['msg']}") from None


def _is_texts(inputs: Any) -> bool:
    """Return whether inputs have one of the three types."""
    if isinstance(inputs, str):
        return True
    if not isinstance(inputs, list):
        return False
    if inputs and isinstance(inputs[0], list):
        return all(isinstance(row, list) and all(isinstance(text, str) for text in row) for row in inputs)
    return all(isinstance(text, str) for text in inputs)


def _split_inputs(inputs: str | list[str] | list[list[str]], columns: list[str]) -> tuple[list[Texts], bool]:
    """Return the texts of each row, and whether there was a row by itself instead of a list.

    Raises:
        RequestError: there are none, or a row has too few or too many.
    """
    if not inputs and isinstance(inputs, list):
        raise RequestError(400, "`inputs` is empty", "empty")
    single = isinstance(inputs, str) or (len(columns) == 2 and isinstance(inputs[0], str))
    rows: list[Any] = [inputs] if single else list(inputs)
    texts = [tuple(row) if isinstance(row, list) else (row,) for row in rows]
    for index, row in enumerate(texts):
        if len(row) != len(columns):
            wanted = "one text" if len(columns) == 1 else f"two texts ({', '.join(columns)})"
            raise RequestError(422, f"inputs: row {index} has {len(row)} texts; expected {wanted}")
    return texts, single


def format_answers(kind: TaskKind, wanted: Wanted, logits: Logits, words: Sequence[Words]) -> list[Any]:
    """Return the answer to a request: the numbers are those that `reprise predict` prints.

    Args:
        kind: of the task.
        wanted: the request.
        logits: of its rows.
        words: of its texts, if labels are of words.
    """
    if kind.per_token:
        answers = [[_entity(each) for each in row["entities"]] for row in kind.predictions(logits, None, words)]
    elif not kind.labels:
        answers = [[{"value": row["label"]}] for row in kind.predictions(logits)]
    else:
        top_k = min(wanted.top_k or len(kind.labels), len(kind.labels))
        answers = [_label_scores(row) for row in kind.predictions(logits, top_k)]
        if wanted.raw_scores:
            ids = {label: number for number, label in enumerate(kind.labels)}
            for row, answer in zip(logits, answers, strict=True):
                for each in answer:
                    each["score"] = shortest_float32(np.float32(row[ids[each["label"]]]))
    return answers[0] if wanted.flat else answers


def _label_scores(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the labels of a prediction, best first; of any number of labels, with those that are predicted."""
    listed = [{"label": each["label"], "score": each["probability"]} for each in row["top"]]
    if "labels" in row:
        return [each | {"predicted": each["label"] in row["labels"]} for each in listed]
    return listed


def _entity(found: dict[str, Any]) -> dict[str, Any]:
    """Return an entity with the names of the Hub and our own."""
    return {
        "start": found["start"],
        "end": found["end"],
        "label": found["label"],
        "entity_group": found["label"],
        "score": found["score"],
        "word": found["text"],
    }


def _shown(text: object) -> str:
    """Return the begin of what a client has sent, on one line."""
    line = printable(text)
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}…"
