"""`reprise serve`: answer HTTP requests with an exported model, without importing torch or transformers."""
