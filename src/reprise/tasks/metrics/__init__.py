"""The metrics that a recipe may name."""
