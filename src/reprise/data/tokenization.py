"""Load a tokenizer and tokenize texts, without importing the code of any model."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reprise.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encoded = TypeVar("Encoded", bound=MutableMapping[str, Any])


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer in `folder` without network access and without remote code.

    A tokenizer without a token for padding, as those of GPT's kind, pads with the one that ends a text. Attention and
    loss leave padding out, so its value has no effect.

    Raises:
        UserError: it cannot be loaded, has no vocabulary, or no token to pad with.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # of any of the libraries that read a dozen formats
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the tokenizer cannot be loaded: {type(error).__name__}: {reason}", file=folder, expected="tokenizer.json"
        ) from None
    added = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    if not any(any(map(str.isalnum, token)) for token in tokenizer.get_vocab().keys() - added):
        files = sorted(set(type(tokenizer).vocab_files_names.values()))
        raise UserError(
            f"the tokenizer has no vocabulary: {type(tokenizer).__name__} found no file of it",
            file=folder,
            expected=" or ".join(files),
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError("the tokenizer has no token to pad with", file=folder, expected="pad_token or eos_token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokenize(tokenizer: Callable[..., Encoded], texts: list[list[str]], max_length: int) -> Encoded:
    """Tokenize texts or text pairs without padding.

    Args:
        tokenizer: The model's tokenizer, of transformers or a `FileTokenizer`.
        texts: One list of texts, or two of the same length for pairs.
        max_length: Maximum number of tokens. Longer texts are truncated; in a pair, the longer text first.

    Returns:
        Columns input_ids, token_type_ids (if the model uses them) and length, the number of tokens of each text.
    """
    encoded = tokenizer(*texts, truncation=True, max_length=max_length, padding=False, return_attention_mask=False)
    encoded["length"] = [len(ids) for ids in encoded["input_ids"]]
    return encoded
