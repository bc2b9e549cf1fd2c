"""The stages that fetch: download pinned, hash-checked sources. The only stages that use the network."""
