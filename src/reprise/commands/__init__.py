"""The commands besides the stages, one module each."""
