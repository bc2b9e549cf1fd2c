"""Table readers, tokenization and the format of prepared data, shared by several stages."""
