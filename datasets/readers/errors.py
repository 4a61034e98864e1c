"""Errors that users can fix; commands show them as one line, without a traceback."""


class UserError(ValueError):
    """Something that the user passed cannot be used: "name: got X, expected Y; remedy"."""


class NotFiniteError(UserError, FloatingPointError):
    """NaN or infinite numbers came out of a training step or a generation."""
