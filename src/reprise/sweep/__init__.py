"""Hyperparameter search: the space, the trials that Optuna proposes, and the test of the best against the recipe."""
