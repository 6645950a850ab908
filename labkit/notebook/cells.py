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

from labkit.runs.spread import NOISY, SMALLEST, Difference, Measured, measured

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
        number = (int, float, Measured, Difference)
        numeric = {key for key in self.headings if any(isinstance(line.get(key), number) for line in self.lines)}

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
    """The text of a cell: measured figures with least and most, numbers with three or four significant digits, "–" for None and NaN, yes or no for booleans."""
    if value is None or value != value:
        return "–"
    if isinstance(value, (Measured, Difference)):
        return str(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if abs(value) >= 1000:
            return f"{value:,.0f}"
        return f"{value:.1f}" if abs(value) >= 100 else f"{value:.4g}"
    return str(value)


UNMEASURED = "*Not measured here: this sentence needs a row that did not run on this machine.*"
UNTOLD = "**Too noisy to tell** (噪声过大，无法判断): {figure}. Reason: {why}."


def say(*cases: tuple[Any, str] | str) -> Text:
    """The text of the first case whose condition is true, so that measured figures choose what a notebook says.

    A case is (condition, text). The last case may be a text alone, for every other outcome. A condition is None if a figure that
    it needs is missing, because a row did not run. Such a case is skipped, and then the text for every other outcome is not used
    either; the result says that this was not measured. A condition is NOISY (`Measured.above`, `Measured.below`) where the spread
    of a figure does not answer it; the result then says that it is too noisy to tell. Raises ValueError if no case fits, and for a
    figure as a condition."""
    unmeasured = False
    for case in cases:
        condition, text = (not unmeasured, case) if isinstance(case, str) else case
        if isinstance(condition, (Measured, Difference)):
            raise ValueError(f"say: {condition} is a figure, not a condition; ask it .above(1) or .below(1), or use tell")
        if condition == NOISY:
            return Text(
                UNTOLD.format(figure="the figures above", why="they spread more than they differ, or others used the cores")
            )
        if condition is None:
            unmeasured = True
        elif condition:
            return Text(text)
    if unmeasured:
        return Text(UNMEASURED)
    raise ValueError("say: no condition is true; add a last text for every other outcome")


def tell(figure: Measured | Difference | float | None, *, more: str, less: str, same: str, within: float = SMALLEST) -> Text:
    """One of three texts, by the spread of a ratio (or of a difference of accuracies): `more` if it is above 1 (0), `less` if it is
    below, `same` if it is equal as far as can be seen. A smaller difference than `within` is never told.

    In the texts, {times} becomes the ratio with least and most, {percent} its distance from 1; of accuracies, {points} becomes their
    difference, and {chance} what may be chance. None means that a row that is needed did not run here; the result says so. Where the
    spread allows no answer, or there are fewer than three measurements, it says that it is too noisy to tell; so of a plain number,
    which has no spread."""
    if figure is None:
        return Text(UNMEASURED)
    if isinstance(figure, (int, float)):
        figure = measured([figure])
    order = figure.order(within=within) if isinstance(figure, Difference) else figure.order(1.0, within)
    if order is None:
        return Text(
            UNTOLD.format(figure=f"{figure} {'points' if isinstance(figure, Difference) else 'times'}", why=figure.why_untold())
        )
    return Text((more, same, less)[1 - order].format(**figure.words()))


def over(one: Measured | float | None, other: Measured | float | None) -> Any:
    """one / other; None if either is None, or if `other` is 0."""
    if one is None or other is None or (isinstance(other, (int, float)) and other == 0):
        return None
    return one / other


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


def panel(head: str, times: str, parts: list[str]) -> str:
    """HTML: a heading with times, and below it parts that are HTML already."""
    return (
        f'<div style="font-size:13px;line-height:1.4;color:inherit"><div><b>{html.escape(head)}</b> '
        f'<span style="opacity:.75">{html.escape(times)}</span></div>{"".join(parts)}</div>'
    )


def yellow(warning: str) -> str:
    """HTML: a warning on yellow; "" if there is none."""
    look = "background:#fff3b0;color:#222;border-left:4px solid #e0a800;padding:2px 8px;margin:4px 0"
    return f'<div style="{look}">{html.escape(warning)}</div>' if warning else ""
