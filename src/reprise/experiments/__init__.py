"""Many cookings beside each other: found, compared, repeated with other seeds, and cleared away."""
