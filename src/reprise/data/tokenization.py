"""Texts as the model reads them, as prepare and predict need them: no model is imported for it."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`: a local one, no code from a repository."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], max_length: int) -> dict[str, Any]:
    """Texts as the model reads them, not padded.

    Args:
        tokenizer: the model's.
        texts: one list, or two of the same length for sentence pairs.
        max_length: tokens at most; longer texts are truncated, of a pair the longer one first.

    Returns:
        Columns input_ids, token_type_ids (where the model has them) and length, the tokens of each text.
    """
    encoded = tokenizer(*texts, truncation=True, max_length=max_length, padding=False, return_attention_mask=False)
    return {**encoded, "length": [len(ids) for ids in encoded["input_ids"]]}
