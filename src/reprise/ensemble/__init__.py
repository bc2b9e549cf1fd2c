"""Several trained models as one: their answers are averaged, or their weights."""
