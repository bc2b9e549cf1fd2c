"""Model, batches and forward passes, shared by train, evaluate and predict."""
