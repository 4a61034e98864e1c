"""Check of texts from JSON, which can hold lone surrogates that no encoding has."""

from weftwork.datasets.readers.errors import UserError


def check_characters(text: str) -> str:
    """Returns the text if all its characters are whole.

    Raises:
        ValueError: halves of characters, such as a lone "\\ud83d", which JSON can hold and nothing else can.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"got {text!a}, with half a character at {error.start + 1}; write it again") from error
    return text
