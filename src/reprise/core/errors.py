"""What goes wrong by the user's hand: bad input, told in one line."""


class UserError(Exception):
    """Bad input. The message is one line that names file, key and what was expected; the command exits with 2."""
