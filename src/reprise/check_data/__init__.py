"""The stage check-data: what may be wrong with the prepared data, and how far a linear model gets with it."""
