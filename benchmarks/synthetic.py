"""Synthetic pairs with MRPC's length distribution, and models with random weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from workspaces import PAIRS, Recipe

BATCH_SIZE, LONGEST = 32, 128  # pairs per step, maximum tokens per pair
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MODEL = Path("data/own/random")  # the model source of the recipe

TINY_BERT = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)


def synthetic_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe with synthetic texts and a model with random weights."""
    train = {"batch_size": BATCH_SIZE, "micro_batch_size": None, "max_length": LONGEST, "bucket_lengths": "auto"}
    model = {"name": "random", "source": {"kind": "local", "path": str(MODEL)}}
    return recipe | {"task": PAIRS, "model": model, "train": recipe["train"] | train}


def write_model(config: BertConfig, model: Path, tokenizer: Path) -> list[str]:
    """Write a random model and a tokenizer; return the tokenizer's words, one token each."""
    words = [f"w{number}" for number in range(config.vocab_size - len(SPECIAL))]
    torch.manual_seed(0)
    BertModel(config).save_pretrained(model)
    config.save_pretrained(tokenizer)
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    BertTokenizer(vocab=vocabulary, model_max_length=config.max_position_embeddings).save_pretrained(tokenizer)
    return words


def random_pairs(words: Sequence[str], rows: int) -> Iterator[tuple[str, str, str]]:
    """Yield pairs of random texts with a random label, from a fixed seed.

    With one token per word, a pair has 53 tokens on average (standard deviation 17, 16 to 128), like MRPC.
    """
    random = np.random.default_rng(0)
    lengths = random.normal(53, 17, rows).clip(16, LONGEST).astype(int) - 3  # the tokenizer adds [CLS] and two [SEP]
    labels = random.choice(PAIRS["labels"], rows)
    for length, label in zip(lengths.tolist(), labels.tolist(), strict=True):
        text = [words[number] for number in random.integers(0, len(words), length).tolist()]
        yield " ".join(text[: length // 2]), " ".join(text[length // 2 :]), label
