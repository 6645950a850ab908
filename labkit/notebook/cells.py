"""What a notebook cell shows: a picture, a text, a table. Each also has a plain text, for terminals and for screen readers.

Without pyplot (callbacks of widgets run on other threads), without scripts, and without anything from the network, so that a
saved notebook shows the same.
"""

import html
import io
import os
from dataclasses import dataclass, field
from typing import Any

import psutil

Bundle = dict[str, Any]


@dataclass(frozen=True)
class Text:
    """A text in Markdown."""

    markdown: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return {"text/markdown": self.markdown, "text/plain": self.markdown}

    def __str__(self) -> str:
        return self.markdown


@dataclass(frozen=True)
class Html:
    """HTML, and its content as plain text."""

    html: str = field(repr=False)
    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return {"text/html": self.html, "text/plain": self.text}

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure made without pyplot, and a sentence that says what it shows."""

    figure: Any = field(repr=False)
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[Bundle, Bundle]:
        from labkit.plots.style import styled  # late: keeps matplotlib out of a process that does not need it

        png = io.BytesIO()
        styled(self.figure.savefig)(png, format="png", metadata={"Software": None})
        return {"image/png": png.getvalue(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}

    def __str__(self) -> str:
        return self.alt


@dataclass(frozen=True)
class Grid:
    """A table.

    `lines`: one dict for each line. `headings`: {key of the lines: heading of its column}, in the order of the columns."""

    lines: list[dict[str, Any]] = field(repr=False)
    headings: dict[str, str] = field(repr=False)
    note: str = ""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return {"text/html": self.html(), "text/plain": str(self)}

    def html(self) -> str:
        """The table as HTML. Columns with numbers are aligned at the right."""
        numeric = {key for key in self.headings if any(isinstance(line.get(key), (int, float)) for line in self.lines)}

        def cell(tag: str, key: str, value: Any) -> str:
            align = "right" if key in numeric else "left"
            plain = cell_text(value)
            if len(plain) > 30:  # sentences break between words, names of rows after an underscore
                wrap = "normal;min-width:12em;overflow-wrap:anywhere"
            elif tag == "th":
                wrap = "normal"
            else:  # a number is never broken into two lines
                wrap = "nowrap"
            text = html.escape(plain).replace("_", "_<wbr>")
            return f'<{tag} style="text-align:{align};padding:2px 8px;white-space:{wrap}">{text}</{tag}>'

        head = "".join(cell("th", key, heading) for key, heading in self.headings.items())
        rows = "".join(f"<tr>{''.join(cell('td', key, line.get(key)) for key in self.headings)}</tr>" for line in self.lines)
        note = f'<p style="color:#555;margin:4px 10px">{html.escape(self.note)}</p>' if self.note else ""
        return f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}</div>'

    def __str__(self) -> str:
        """The table as plain text, every column aligned at the right.

        Without pandas: its import takes longer than all tables of a notebook."""
        columns = [[heading, *(cell_text(line.get(key)) for line in self.lines)] for key, heading in self.headings.items()]
        padded = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns]
        lines = ["  ".join(row) for row in zip(*padded, strict=True)]
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)


def cell_text(value: Any) -> str:
    """The text of a cell: numbers with three or four significant digits, "–" for None and NaN, yes or no for booleans."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if abs(value) >= 1000:
            return f"{value:,.0f}"
        return f"{value:.1f}" if abs(value) >= 100 else f"{value:.4g}"
    return str(value)


def say(*cases: tuple[Any, str] | str) -> Text:
    """The text of the first case whose condition is true, so that measured figures choose what a notebook says.

    A case is (condition, text). The last case may be a text alone, for every other outcome. A condition is None if a figure that
    it needs is missing, because a row did not run. Such a case is skipped, and then the text for every other outcome is not used
    either; the result says that this was not measured. Raises ValueError if no case fits."""
    unmeasured = False
    for case in cases:
        condition, text = (not unmeasured, case) if isinstance(case, str) else case
        if condition is None:
            unmeasured = True
        elif condition:
            return Text(text)
    if unmeasured:
        return Text("*Not measured here: this sentence needs a row that did not run on this machine.*")
    raise ValueError("say: no condition is true; add a last text for every other outcome")


def tell(ratio: float | None, *, more: str, less: str, same: str, within: float = 0.05) -> Text:
    """One of three texts: `more` if the ratio is above 1 + within, `less` if it is below 1 / (1 + within), else `same`.

    In the texts, {times} becomes the ratio and {percent} its distance from 1. A ratio of None means that a row that is needed did
    not run here; the result says so."""
    if ratio is None:
        return say((None, ""))
    if ratio > 1 + within:
        text = more
    elif ratio < 1 / (1 + within):
        text = less
    else:
        text = same
    return Text(text.format(times=f"{ratio:.2f}", percent=f"{100 * abs(ratio - 1):.0f} %"))


def over(one: float | None, other: float | None) -> float | None:
    """one / other; None if either is None, or if `other` is 0."""
    return one / other if one is not None and other else None


def interactive() -> bool:
    """Can somebody press a button? True in a kernel that a Jupyter server started, False under papermill.

    The server names its session to its kernels. A papermill that was started from a cell inherits the name, and so does its
    kernel: then the parent process has the same name.

    The environment variable LABKIT_WIDGETS=0 or 1 overrides this."""
    asked, session = os.environ.get("LABKIT_WIDGETS"), os.environ.get("JPY_SESSION_NAME")
    if asked in ("0", "1"):
        return asked == "1"
    return session is not None and session != _of_parent("JPY_SESSION_NAME")


def _of_parent(variable: str) -> str | None:
    """What a variable was when our parent process started; None if it was not set, or may not be read."""
    try:
        return psutil.Process(os.getppid()).environ().get(variable)
    except (psutil.Error, OSError):
        return None
