"""Train: the launcher (stage.py), one worker per rank (worker.py), and the training loop (engines/)."""
