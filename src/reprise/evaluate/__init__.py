"""Evaluate: the final model against the evaluation split, in numbers, in pictures and row by row."""
