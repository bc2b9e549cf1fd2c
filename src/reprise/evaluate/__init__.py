"""The stage evaluate: metrics, plots and predictions of the final model on the evaluation split."""
