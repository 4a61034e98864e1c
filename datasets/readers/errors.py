"""Errors that users can fix; commands show them as one line, without a traceback."""


class UserError(ValueError):
    """Invalid input of the user: "name: got X, expected Y; remedy"."""


class NotFiniteError(UserError, FloatingPointError):
    """A training step or a generation gave NaN or infinite numbers."""
