"""Three ways to run the same training loop: Accelerate, plain PyTorch, and transformers' Trainer."""
