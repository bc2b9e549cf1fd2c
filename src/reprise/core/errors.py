"""Errors that the user can correct, reported in one line."""


class UserError(Exception):
    """Bad input; the command exits with code 2.

    The message is one line that names the file, the key and what was expected.
    """
