"""Train: the fine-tuning loop (engines/), the plan of its batches (sampler.py), its optimizer (optimizer.py)."""
