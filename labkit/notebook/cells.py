"""What a notebook cell shows: a picture, a text, a table. Each has a plain-text twin, for a terminal and for a reader.

No pyplot (widgets call back on other threads), no scripts, nothing from the network: what is shown is what is saved.
"""

from __future__ import annotations

import html
import io
import os
from dataclasses import dataclass, field
from typing import Any

Bundle = dict[str, Any]


@dataclass(frozen=True)
class Text:
    """Markdown."""

    markdown: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return {"text/markdown": self.markdown, "text/plain": self.markdown}

    def __str__(self) -> str:
        return self.markdown


@dataclass(frozen=True)
class Html:
    """HTML, and the same in words."""

    html: str = field(repr=False)
    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return {"text/html": self.html, "text/plain": self.text}

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure made without pyplot, and what it shows in a sentence."""

    figure: Any = field(repr=False)
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[Bundle, Bundle]:
        from labkit.plots.style import styled

        png = io.BytesIO()
        styled(self.figure.savefig)(png, format="png", metadata={"Software": None})
        return {"image/png": png.getvalue(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}

    def __str__(self) -> str:
        return self.alt


@dataclass(frozen=True)
class Grid:
    """A table: `lines` are dicts, `headings` say which of their keys are shown, in which order, and under which name."""

    lines: list[dict[str, Any]] = field(repr=False)
    headings: dict[str, str] = field(repr=False)
    note: str = ""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return {"text/html": self.html(), "text/plain": str(self)}

    def html(self) -> str:
        numeric = {key for key in self.headings if any(isinstance(line.get(key), (int, float)) for line in self.lines)}

        def cell(tag: str, key: str, value: Any) -> str:
            align = "right" if key in numeric else "left"
            shown, wrap = told(value), "nowrap"  # a figure is never broken into lines,
            if len(shown) > 30:  # a sentence is between words, and a row's name after its underscores
                wrap = "normal;min-width:16em;overflow-wrap:anywhere"
            elif tag == "th":
                wrap = "normal"
            text = html.escape(shown).replace("_", "_<wbr>")
            return f'<{tag} style="text-align:{align};padding:2px 10px;white-space:{wrap}">{text}</{tag}>'

        head = "".join(cell("th", key, heading) for key, heading in self.headings.items())
        rows = "".join(f"<tr>{''.join(cell('td', key, line.get(key)) for key in self.headings)}</tr>" for line in self.lines)
        note = f'<p style="color:#555;margin:4px 10px">{html.escape(self.note)}</p>' if self.note else ""
        return f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}</div>'

    def __str__(self) -> str:
        """Every cell to the right of its column. (Not by pandas, whose import takes longer than all tables of a notebook.)"""
        columns = [[heading, *(told(line.get(key)) for line in self.lines)] for key, heading in self.headings.items()]
        padded = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns]
        return "\n".join(["  ".join(row) for row in zip(*padded, strict=True)] + [self.note] * bool(self.note))


def told(value: Any) -> str:
    """A cell's words: numbers with three or four digits that count, a dash for nothing."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.4g}"
    return str(value)


def say(*cases: tuple[Any, str] | str) -> Text:
    """The first text whose condition holds: what a notebook says is chosen by what was measured, not written beforehand.

    A case is (condition, text), or at the end a text for every other outcome. A condition of None means that the figure
    is not there (a row that did not run): the case is passed over, and so is the text for every other outcome, since
    nothing was measured that it could be chosen by.
    """
    unmeasured = False
    for case in cases:
        condition, text = (not unmeasured, case) if isinstance(case, str) else case
        if condition is None:
            unmeasured = True
        elif condition:
            return Text(text)
    if unmeasured:
        return Text("*Not measured here: a row that this sentence needs did not run on this machine.*")
    raise ValueError("say: no case holds; end with a text for every other outcome")


def tell(ratio: float | None, *, more: str, less: str, same: str, within: float = 0.05) -> Text:
    """One of three texts, by how a ratio stands to 1: beyond 1 + within, below 1 / (1 + within), or the same.

    In the texts, {times} is the ratio and {percent} how far it is from 1. None: a row that is needed did not run here.
    """
    if ratio is None:
        return say((None, ""))
    text = more if ratio > 1 + within else less if ratio < 1 / (1 + within) else same
    return Text(text.format(times=f"{ratio:.2f}", percent=f"{100 * abs(ratio - 1):.0f} %"))


def over(one: float | None, other: float | None) -> float | None:
    """one / other, or None where either is missing."""
    return one / other if one is not None and other else None


def interactive() -> bool:
    """Is somebody there to press a button? Jupyter's server names the session to its kernels; papermill has none. But a papermill
    that was started from a cell has inherited that cell's, and its kernel from it: then the parent process has the same.

    LABKIT_WIDGETS=0 or 1 decides otherwise.
    """
    asked, session = os.environ.get("LABKIT_WIDGETS"), os.environ.get("JPY_SESSION_NAME")
    if asked in ("0", "1"):
        return asked == "1"
    return session is not None and session != _of_parent("JPY_SESSION_NAME")


def _of_parent(variable: str) -> str | None:
    """What a variable was when our parent process started; None if it was not set, or may not be read."""
    import psutil

    try:
        return psutil.Process(os.getppid()).environ().get(variable)
    except (psutil.Error, OSError):
        return None
