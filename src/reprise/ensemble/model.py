"""Ask the members of an ensemble as one model."""

from collections.abc import Sequence

from reprise.ensemble.average import averaged_logits, scores_of_logits
from reprise.modeling.inputs import TextModel, Texts
from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.token_classification import Words


def ensemble_model(members: Sequence[TextModel], kind: TaskKind) -> TextModel:
    """Return a model whose answers are the averages of its members'.

    Args:
        members: each tokenizes on its own.
        kind: of the task.
    """

    def text_model(texts: Sequence[Texts]) -> tuple[Logits, list[Words]]:
        return averaged_logits([scores_of_logits(member(texts)[0], kind) for member in members], kind), []

    return text_model
