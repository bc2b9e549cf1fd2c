"""Tokenize without transformers, as exported models do."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from reprise.core.errors import UserError
from reprise.core.files import read_json


class FileTokenizer:
    """The fast tokenizer of a tokenizer.json. Importing transformers would take seconds.

    A call takes the options of transformers' tokenizers that are used here, and gives the same tokens.
    """

    def __init__(self, folder: Path) -> None:
        """Read tokenizer.json, and from tokenizer_config.json the side that is truncated.

        Raises:
            UserError: there is none, as for a tokenizer that is written in Python, or it is damaged.
        """
        file, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
        expected = "the file of a fast tokenizer"
        if not file.is_file():
            raise UserError("not found", file=file, expected=expected)
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises no other class
            raise UserError(f"damaged: {str(error)[:200]}", file=file, expected=expected) from None
        self._tokenizer.no_padding()
        self._side = read_json(config).get("truncation_side", "right") if config.is_file() else "right"
        self._limits: tuple[int, int] | None = None  # tokens, and those that windows share

    def __call__(
        self,
        texts: list[str],
        pairs: list[str] | None = None,
        *,
        max_length: int,
        stride: int = 0,
        return_overflowing_tokens: bool = False,
        return_offsets_mapping: bool = False,
        return_special_tokens_mask: bool = False,
        **_: Any,  # truncation without padding is all that there is
    ) -> dict[str, list[Any]]:
        """Tokenize texts or pairs, truncated and without padding.

        Returns:
            input_ids, token_type_ids and what is asked for, each with a list per text, or per window of a text.
        """
        if self._limits != (max_length, stride):
            self._tokenizer.enable_truncation(max_length, stride=stride, direction=self._side)
            self._limits = max_length, stride
        found = self._tokenizer.encode_batch(texts if pairs is None else list(zip(texts, pairs, strict=True)))
        rows = [
            (number, part)
            for number, first in enumerate(found)
            for part in (first, *(first.overflowing if return_overflowing_tokens else ()))
        ]
        encoded = {
            "input_ids": [part.ids for _, part in rows],
            "token_type_ids": [part.type_ids for _, part in rows],
        }
        if return_overflowing_tokens:
            encoded["overflow_to_sample_mapping"] = [number for number, _ in rows]
        if return_offsets_mapping:
            encoded["offset_mapping"] = [part.offsets for _, part in rows]
        if return_special_tokens_mask:
            encoded["special_tokens_mask"] = [part.special_tokens_mask for _, part in rows]
        return encoded
