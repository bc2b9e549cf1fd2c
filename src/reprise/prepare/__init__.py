"""The stage prepare: from raw tables to tokenized, split Arrow files, the same bytes on every machine."""
