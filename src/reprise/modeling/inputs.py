"""What the model reads of texts, made as prepare makes it; imports neither torch nor transformers."""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from reprise.data.tokenization import tokenize
from reprise.data.windows import tokenize_windows
from reprise.modeling.recipe import ModelRecipe
from reprise.tasks.kind import Logits
from reprise.tasks.token_classification import Words, find_words

Texts = tuple[Any, ...]  # one text, or two for a sentence pair; a list of words if labels are of words
# From at least one text to the logits, and to the words of each text if labels are of words.
TextModel = Callable[[Sequence[Texts]], tuple[Logits, list[Words]]]


def model_inputs(
    recipe: ModelRecipe, tokenizer: Callable[..., MutableMapping[str, Any]], texts: Sequence[Texts]
) -> tuple[dict[str, Any], list[Words]]:
    """Tokenize texts as prepare does.

    Args:
        recipe: what the model was trained for.
        tokenizer: the model's, of transformers or a `FileTokenizer`.
        texts: at least one.

    Returns:
        The columns of the rows that the model reads; and, if labels are of words, those of each text that have a token.
    """
    kind, windows, max_length = recipe.kind, recipe.data.windows, recipe.train.max_length
    if windows is None:
        columns = tokenize(tokenizer, [list(column) for column in zip(*texts, strict=True)], max_length)
        return {**columns, "label": [kind.placeholder_label] * len(texts)}, []
    words = [find_words(text) for (text,) in texts] if kind.per_token else []
    rows, kept = tokenize_windows(
        tokenizer,
        [each.text for each in words] if words else [text for (text,) in texts],
        max_length=max_length,
        stride=windows.stride,
        kind=kind,
        labels=[[0] * len(each.starts) for each in words] or [kind.placeholder_label] * len(texts),
        words=words or None,
    )
    return rows, [Words(each.text, each.starts[own], each.ends[own]) for each, own in zip(words, kept, strict=True)]
