"""Train: the fine-tuning loop (loop.py), the plan of its batches (plan.py), its optimizer (optimizer.py)."""
