"""Check of texts from JSON, which can hold lone surrogates that no encoding has."""

from weftwork.datasets.readers.errors import UserError


def check_characters(text: str, name: str = "") -> str:
    """Returns the text, by name in errors; `ValueError` for halves of characters, which only JSON can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        prefix = f"{name}: " if name else ""
        raise UserError(f"{prefix}got {text!a}, with half a character at {error.start + 1}; write it again") from error
    return text
