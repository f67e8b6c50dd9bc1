"""Which fonts draw a text, and what is drawn where no installed font has a character."""

import textwrap
import unicodedata
from functools import cache
from pathlib import Path

from matplotlib.font_manager import findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

DEFAULT = "DejaVu Sans"  # comes with matplotlib

_families: dict[str, str | None] = {}
"""The font of each character looked for so far; None if no font has it."""


@cache
def font_files() -> list[str]:
    """Return matplotlib's default font, and then the installed ones, regular fonts without serifs first."""
    installed = [path for path in findSystemFonts() if "LastResort" not in path]  # which has a box for everything

    def order(path: str) -> tuple[bool, bool, str]:
        return "Regular" not in Path(path).stem, "Sans" not in Path(path).stem, path

    return [findfont(DEFAULT), *sorted(installed, key=order)]


def families(text: str) -> list[str]:
    """Return the names of fonts that together have all characters of a text that any installed font has."""
    wanted = set(text) - _families.keys()
    for path in font_files():
        if not wanted:
            break
        try:
            font = FT2Font(path)
        except (OSError, RuntimeError):  # removed, damaged, or of an unknown kind
            continue
        drawn = {one for one in wanted if font.scalable and font.get_char_index(ord(one))}
        if drawn and font.family_name not in fontManager.get_font_names():  # installed after matplotlib looked
            fontManager.addfont(path)
        _families.update(dict.fromkeys(drawn, font.family_name))
        wanted -= drawn
    _families.update(dict.fromkeys(wanted))
    return list(dict.fromkeys([DEFAULT, *(name for one in text if (name := _families[one]))]))


def printable(token: str, *, named: bool = False) -> str:
    r"""Return a token as it can be drawn: a space as ␣, a character that no font has as its code point.

    Args:
        token: The token.
        named: Whether the name of a single such character is added, in a second line.

    Example:
        >>> [printable(token, named=True) for token in ("a", " ", "\ue000", "\ue000b", "\u200d")]
        ['a', '␣', 'U+E000', 'U+E000b', 'U+200D\nzero width joiner']
    """
    if token == " ":
        return "␣"
    families(token)
    drawn = [one if one.isprintable() and _families[one] else f"U+{ord(one):04X}" for one in token]
    if named and len(token) == 1 and drawn != [token]:
        name = unicodedata.name(token, "").lower().replace(" letter", "")
        drawn += ["\n" + textwrap.shorten(name, 22, placeholder="…")] * bool(name)
    return "".join(drawn).replace("$", r"\$")  # a lone dollar would start a formula
