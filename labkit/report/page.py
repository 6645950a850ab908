"""The report as a page that needs no network: its Markdown as HTML, with the style sheet and the pictures in it."""

import functools
import itertools
from typing import Any

from markupsafe import escape

from labkit.report.words import TEMPLATES, Words

SECTIONS = (  # the first three are as published; the others are ours
    "results", "groups", "plots", "about", "overviews", "beside", "absent", "agreement", "time", "meaning", "notebooks", "run", "again",
)  # fmt: skip


def page(markdown: str, t: Words, pictures: dict[str, str]) -> str:
    """The page of a report that was written with these words. `pictures`: a data URI for each path of a picture."""
    parser = markdown_parser()
    tokens = parser.parse(markdown)
    name_elements(tokens, t)
    set_tables(tokens)
    body = parser.renderer.render(tokens, parser.options, pictures)
    # The contents stand below the links to the other files. That is the only </nav>: in a text, "<" is escaped.
    body = body.replace("</nav>\n", f"</nav>\n{contents(tokens, t)}\n")
    return f"""<!DOCTYPE html>
<html lang="{t("code")}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(t("title"))}</title>
<style>
{(TEMPLATES / "report.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""


@functools.cache
def markdown_parser() -> Any:
    """Markdown with tables. HTML in it is shown as text. Our own rules write text, code, pictures and the frame of a table."""
    from markdown_it import MarkdownIt  # late: keeps markdown-it out of a process that does not need it

    parser = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable("table")
    parser.add_render_rule("text", text)
    parser.add_render_rule("code_inline", lambda *its: f"<code>{text(*its)}</code>")
    parser.add_render_rule("image", picture)
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


def text(renderer: Any, tokens: list[Any], n: int, options: Any, pictures: dict[str, str]) -> str:
    """Text, escaped. A row's name is long: a new line may begin after each `_`."""
    return str(escape(tokens[n].content)).replace("_", "_<wbr>")


def picture(renderer: Any, tokens: list[Any], n: int, options: Any, pictures: dict[str, str]) -> str:
    """A picture, in the page itself. It is a link to the same plot as SVG."""
    path = tokens[n].attrs["src"]
    tokens[n].attrs["src"] = pictures[path]
    return f'<a href="{escape(path.removesuffix("png"))}svg">{renderer.image(tokens, n, options, pictures)}</a>'


def name_elements(tokens: list[Any], t: Words) -> None:
    """Give elements the ids that links lead to, and the names and classes that report.css knows."""
    sections = {t(f"{section}.heading"): section for section in SECTIONS}
    for n, line in enumerate(tokens):
        if line.type != "inline":
            continue
        before, opening, closing = tokens[n - 2], tokens[n - 1], tokens[n + 1]
        if opening.tag == "h2":
            opening.attrs["id"] = sections[line.content]
        elif opening.tag == "h3":
            opening.attrs["id"] = f"group-{number(line)}"
        elif [part.type for part in line.children] == ["image"]:
            opening.tag = closing.tag = "figure"
        elif before.type == "blockquote_open" and line.content.startswith("**"):
            before.attrs["class"] = "note"
        if tokens[n - 4].attrs.get("id") == "about":  # the first line below that heading: links to the other files
            opening.tag = closing.tag = "nav"
            opening.attrs["class"] = "languages"


def set_tables(tokens: list[Any]) -> None:
    """Mark the cells of numbers. Write each row of a table on one line: `labkit check` tells by the line which row differs."""
    for token in tokens:
        if token.attrs.pop("style", None) == "text-align:right":
            token.attrs["class"] = "number"
        if token.type in ("tr_open", "th_open", "th_close", "td_open", "td_close"):
            token.block = False


def number(heading: Any) -> str:
    """A group's number: its heading begins with it."""
    return str(heading.content.partition(".")[0])


def contents(tokens: list[Any], t: Words) -> str:
    """The list of contents: links to all sections and groups."""
    links = []
    for opening, line in itertools.pairwise(tokens):
        if opening.tag in ("h2", "h3") and line.type == "inline":
            shown = escape(line.content) if opening.tag == "h2" else t("groups.name", number=number(line))
            links.append(f'<a href="#{opening.attrs["id"]}">{shown}</a>')
    return f'<nav class="contents">{t("nav.contents")}{t("colon")}{"".join(links)}</nav>'
