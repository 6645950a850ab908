"""The report's texts: all words of a language lie in templates/words.<language>.yaml; here values are put into their places.

A text is Markdown with {places} for values. Values are escaped, unless they are set already (`Markup`); so what a machine said,
or a file's name, can break neither a table nor a page.
"""

import functools
import html
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from labkit.rows.yaml_files import read_yaml

TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("en", "zh")


def plain(text: Any) -> Markup:
    """Text as Markdown that shows it as it is, on one line. Text that is set already (`Markup`) stays as it stands."""
    if isinstance(text, Markup):
        return text
    escaped = html.escape(" ".join(str(text).split()), quote=False).replace("\\", "&#92;")
    return Markup(re.sub(r"[*`\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", escaped))  # within a word, _ means nothing


def table(header: list[str], rows: list[list[str]], right_from: int = 1) -> Markup:
    """A table, its columns from `right_from` on aligned right. Cells are Markdown already; none can break the table. Columns are not
    padded: the width of Chinese text depends on the font."""
    rule = ["---" if column < right_from else "---:" for column in range(len(header))]
    lines = [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in [header, rule, *rows]]
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in lines))


@functools.cache
def texts(language: str) -> dict[str, Any]:
    """Every text of a language by its dotted key. A text that depends on a number is a mapping of `one` and `other`."""

    def flat(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in tree.items():
            inner = isinstance(value, dict) and value.keys() != {"one", "other"}
            found |= flat(value, f"{before}{key}.") if inner else {f"{before}{key}": value}
        return found

    return flat(read_yaml(TEMPLATES / f"words.{language}.yaml"))


class Words:
    """`t(key, **values)` is a text of one language, in Markdown. `t(key, n=1)` takes the form for one, if there is one."""

    def __init__(self, language: str):
        self.language, self.texts = language, texts(language)

    def __call__(self, key: str, **values: Any) -> Markup:
        """The text of this key with its values. `n` chooses between the forms for one and for more."""
        text = self.texts[key]
        if isinstance(text, dict):
            text = text["one" if str(values["n"]) == "1" else "other"]
        return Markup(text.format(**{name: plain(value) for name, value in values.items()}))

    def known(self, key: str, otherwise: Any) -> Markup:
        """The text of this key; `otherwise` as it stands if there is none (a status that is new)."""
        return self(key) if key in self.texts else plain(otherwise)

    def header(self, section: str, keys: Iterable[str]) -> list[Markup]:
        """Texts of a section: the headings of a table's columns, or the lines of a list."""
        return [self(f"{section}.{key}") for key in keys]

    def listed(self, items: Iterable[Any], separator: str = "separator.list") -> Markup:
        """Items with a separator of this language between them."""
        return Markup(str(self.texts[separator]).join(map(plain, items)))

    def sentences(self, *parts: Markup) -> Markup:
        """Sentences one after the other. An empty one is left out."""
        return self.listed((part for part in parts if part), "separator.sentence")

    def code(self, text: str) -> Markup:
        """A name or a command. It stands as it is: names and settings hold no backtick."""
        return Markup(f"`{text}`")

    def codes(self, names: Iterable[str]) -> Markup:
        """A list of names or commands."""
        return self.listed(map(self.code, names))

    def link(self, text: Any, href: str) -> Markup:
        """A link that shows the text and leads to `href`."""
        return Markup(f"[{plain(text)}]({escape(href)})")
