"""The train stage: launcher (stage.py), one worker per rank (worker.py) and engines."""
