"""A result that others can check: the record in an exported folder, signed verdicts, and standard forms of both."""
