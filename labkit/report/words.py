"""The report's texts: all words of a language lie in templates/words.<language>.yaml; here they are set in Markdown or HTML.

A text is Markdown with {places} for values. Values are escaped for the format, unless they are set already (`Markup`); so
what a machine said, or a file's name, can break neither a table nor a page.
"""

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from labkit.report.markdown import plain
from labkit.rows.yaml_files import read_yaml

TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Style:
    """How a format writes things: `escape` shows text as it is, `inline` sets the Markdown of our own texts."""

    name: str
    escape: Callable[[Any], str]
    inline: Callable[[str], str]
    code: str  # with {} for the text
    link: str  # with {href} and {text}


def inline_html(text: str) -> str:
    """The few marks that our texts use: **bold**, *emphasis*, `code`."""
    text = str(escape(text))
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"\*(.+?)\*", r"<em>\1</em>", text)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


MARKDOWN = Style("md", plain, str, "`{}`", "[{text}]({href})")
HTML = Style("html", escape, inline_html, "<code>{}</code>", '<a href="{href}">{text}</a>')


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
    """`t(key, **values)` is a text of one language, set in one format. `t(key, n=1)` takes the form for one, if there is one."""

    def __init__(self, language: str, style: Style):
        self.language, self.style, self.texts = language, style, texts(language)

    def __call__(self, key: str, **values: Any) -> Markup:
        """The text of this key with its values, set in the format. `n` chooses between the forms for one and for more."""
        text = self.texts[key]
        if isinstance(text, dict):
            text = text["one" if str(values["n"]) == "1" else "other"]
        return Markup(self.style.inline(text).format(**{name: self.set(value) for name, value in values.items()}))

    def known(self, key: str, otherwise: Any) -> Markup:
        """The text of this key; `otherwise` as it stands if there is none (a status that is new)."""
        return self(key) if key in self.texts else Markup(self.set(otherwise))

    def set(self, value: Any) -> str:
        """A value, escaped for the format unless it is set already."""
        return value if isinstance(value, Markup) else Markup(self.style.escape(value))

    def listed(self, items: Iterable[Any], separator: str = "separator.list") -> Markup:
        """Items with a separator of this language between them."""
        return Markup(str(self.texts[separator]).join(self.set(item) for item in items))

    def code(self, text: str) -> Markup:
        """A name or a command. In Markdown it stands as it is: names and settings hold no backtick."""
        return Markup(self.style.code.format(text if self.style is MARKDOWN else escape(text)))

    def link(self, text: Any, href: str) -> Markup:
        """A link of the format."""
        return Markup(self.style.link.format(text=self.set(text), href=escape(href)))
