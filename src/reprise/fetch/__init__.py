"""The stage fetch: download pinned, hash-checked sources. The only stage that uses the network."""
