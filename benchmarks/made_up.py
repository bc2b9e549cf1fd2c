"""Made-up pairs of texts as long as MRPC's, and models with random weights that read them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from folders import PAIRS, Recipe

BATCH_SIZE, LONGEST = 32, 128  # pairs of a step, tokens of a pair
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MODEL = Path("data/own/random")  # where the recipe says that the model comes from

TINY_BERT = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)


def made_up(recipe: Recipe) -> Recipe:
    """The recipe for made-up texts and a model with random weights."""
    train = {"batch_size": BATCH_SIZE, "micro_batch_size": None, "max_length": LONGEST, "buckets": "auto"}
    model = {"name": "random", "source": {"kind": "files", "path": str(MODEL)}}
    return recipe | {"task": PAIRS, "model": model, "train": recipe["train"] | train}


def write_model(config: BertConfig, model: Path, tokenizer: Path) -> list[str]:
    """Write random weights of this shape and a tokenizer for them; return the words that it knows, a token each."""
    words = [f"w{number}" for number in range(config.vocab_size - len(SPECIAL))]
    torch.manual_seed(0)
    BertModel(config).save_pretrained(model)
    config.save_pretrained(tokenizer)
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    BertTokenizer(vocab=vocabulary, model_max_length=config.max_position_embeddings).save_pretrained(tokenizer)
    return words


def random_pairs(words: Sequence[str], rows: int) -> Iterator[tuple[str, str, str]]:
    """Pairs of texts of random words with a random label each, always the same ones.

    Where a word is a token, a pair has 53 tokens on average (standard deviation 17, 16 to 128), as MRPC's.
    """
    random = np.random.default_rng(0)
    lengths = random.normal(53, 17, rows).clip(16, LONGEST).astype(int) - 3  # [CLS] and twice [SEP] are added
    labels = random.choice(PAIRS["labels"], rows)
    for length, label in zip(lengths.tolist(), labels.tolist(), strict=True):
        text = [words[number] for number in random.integers(0, len(words), length).tolist()]
        yield " ".join(text[: length // 2]), " ".join(text[length // 2 :]), label
