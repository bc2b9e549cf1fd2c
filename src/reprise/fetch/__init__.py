"""Fetch: the raw data and the pretrained model, pinned and hash-checked. The only stage that uses the network."""
