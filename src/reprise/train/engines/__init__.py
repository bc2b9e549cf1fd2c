"""Three ways to run the same training: Accelerate, plain PyTorch, transformers' Trainer."""
