"""Load a tokenizer and tokenize texts, without importing the code of any model."""

from pathlib import Path

from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer in `folder` without network access and without remote code."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[list[str]], max_length: int) -> BatchEncoding:
    """Tokenize texts or text pairs without padding.

    Args:
        tokenizer: The model's tokenizer.
        texts: One list of texts, or two of the same length for pairs.
        max_length: Maximum number of tokens. Longer texts are truncated; in a pair, the longer text first.

    Returns:
        Columns input_ids, token_type_ids (if the model uses them) and length, the number of tokens of each text.
    """
    encoded = tokenizer(*texts, truncation=True, max_length=max_length, padding=False, return_attention_mask=False)
    encoded["length"] = [len(ids) for ids in encoded["input_ids"]]
    return encoded
