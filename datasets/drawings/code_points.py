"""Code points of emoji: one spelling, and the base that skin tones and genders share."""

import re
from typing import Final

TONES: Final = frozenset({"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"})
GENDERS: Final = frozenset({"2640", "2642"})
JOINED_PEOPLE: Final = "1F9D1-200D-1F91D-200D-1F9D1"
_NEUTRAL: Final = {
    **dict.fromkeys(("1F468", "1F469"), "1F9D1"),  # man, woman: person
    **dict.fromkeys(("1F466", "1F467"), "1F9D2"),  # boy, girl: child
    **dict.fromkeys(("1F474", "1F475"), "1F9D3"),  # old man, old woman: older person
    **dict.fromkeys(("1F934", "1F478"), "1FAC5"),  # prince, princess: person with crown
    **dict.fromkeys(("1F385", "1F936"), "1F9D1-200D-1F384"),  # Santa Claus, Mrs. Claus: Mx Claus
    **dict.fromkeys(("1F46B", "1F46C", "1F46D"), JOINED_PEOPLE),  # people holding hands
    "1F57A": "1F483",  # man dancing: woman dancing, there is no other
}


def normalized(code: str) -> str:
    """Hexadecimal code points in capitals, of four digits at least, without the emoji presentation selector."""
    parts = [part.upper().zfill(4) for part in code.split("-")]
    return "-".join(part for part in parts if part != "FE0F")


def base_of(code: str) -> str:
    """The code points that variants by skin tone and gender have in common."""
    parts = [part for part in normalized(code).split("-") if part not in TONES | GENDERS]
    return re.sub(r"(-200D)+$", "", "-".join(_NEUTRAL.get(part, part) for part in parts))
