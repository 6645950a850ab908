"""matplotlib as it is here: can it be imported, and which font can draw the Chinese titles, if any. Without such a font, plots have
English titles only, and never boxes for letters."""

import functools
import importlib
import os
from pathlib import Path

PLACES = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")


def check_backend() -> None:
    """Raise OSError where matplotlib cannot be imported for the backend that the environment names. Ours draw into files."""
    try:
        importlib.import_module("matplotlib")
    except ValueError as error:
        if not (named := os.environ.get("MPLBACKEND")):
            raise
        raise OSError(f"MPLBACKEND={named}: matplotlib has no such backend; unset MPLBACKEND, or set MPLBACKEND=agg") from error


def has_glyphs(path: str, letters: set[int]) -> bool:
    """Does the font in this file have all of these characters (Unicode numbers)? False for a file that cannot be read."""
    from matplotlib.ft2font import FT2Font  # late: keeps matplotlib out of a process that does not need it

    try:
        font = FT2Font(path)
        return all(font.get_char_index(letter) for letter in letters)
    except (OSError, RuntimeError):  # in matplotlib's list, but deleted or damaged
        return False


@functools.cache
def font_with(text: str) -> str:
    """The name of a font that matplotlib can use and that has every character of a text; "" if there is none.

    matplotlib makes its list of fonts once, and keeps it. A font that was installed later is not in the list, so we search
    the usual folders as well."""
    from matplotlib.font_manager import fontManager  # late: keeps matplotlib out of a process that does not need it

    letters = set(map(ord, text))
    for font in sorted(fontManager.ttflist, key=lambda font: (font.weight != 400, font.name, font.fname)):
        # matplotlib's own Last Resort font draws every letter as a box
        if "Last Resort" not in font.name and has_glyphs(font.fname, letters):
            return font.name
    known = {font.fname for font in fontManager.ttflist}
    files = [str(file) for place in PLACES for file in Path(os.path.expanduser(place)).rglob("*.[to]t[fc]")]
    for file in sorted(set(files) - known):
        if has_glyphs(file, letters):
            fontManager.addfont(file)
            return next(font.name for font in fontManager.ttflist if font.fname == file)
    return ""
