"""What a notebook looks up: the real source of strategies, the difference between two of them, and the lab's terms in two languages."""

import ast
import difflib
import functools
import html
import textwrap
from pathlib import Path
from typing import Any

from labkit.notebook.cells import Grid, Html
from labkit.rows.fields import SpecError, nearest
from labkit.rows.kinds import STRATEGIES, own_strategies, strategies
from labkit.rows.params import folder
from labkit.rows.yaml_files import read_yaml

# Long lines scroll: JupyterLab would break them in the middle of a word.
BOX = "font-family:var(--jp-code-font-family,monospace);font-size:13px;line-height:1.35;padding:6px 10px;margin:0;overflow-x:auto;white-space:pre;word-break:normal"
PACKAGE = Path(__file__).parents[1]
COLOURS = {"+": ("#e6f4ea", "#137333"), "-": ("#fce8e6", "#a50e0e"), " ": ("transparent", "inherit")}


def diff(one: str, other: str) -> Html:
    """The difference between two strategy files, line by line: "-" only in `one`, "+" only in `other`.

    Raises SpecError for a name that is not a strategy."""
    before, after = (strategy_file(name).read_text(encoding="utf-8").splitlines() for name in (one, other))
    lines = [line for line in difflib.ndiff(before, after) if not line.startswith("?")]
    added, removed = (len([line for line in lines if line.startswith(sign)]) for sign in "+-")
    title = f"from strategies/{one}.py to strategies/{other}.py: {removed} lines removed, {added} lines added"
    spans = []
    for line in lines:
        ground, ink = COLOURS[line[0]]
        spans.append(f'<span style="display:block;background:{ground};color:{ink}">{html.escape(line) or " "}</span>')
    source = f'<div style="display:inline-block;min-width:100%">{"".join(spans)}</div>'  # as wide as the longest line
    box = f'<pre style="{BOX};border-left:3px solid #bbb">{source}</pre>'
    return Html(f"<p><b>{html.escape(title)}</b></p>{box}", "\n".join([title, *lines]))


def code(name: str) -> Html:
    """The source of a strategy ("ddp"), of a part of it ("collective.Collective.flat"), or of anything in labkit
    ("data.batches.Draws").

    Raises SpecError for a name that labkit does not have."""
    if name in strategies():
        shown = f"labkit/strategies/{name}.py" if name in STRATEGIES else f"{strategy_file(name)}"
        return fenced(shown, strategy_file(name).read_text(encoding="utf-8"))
    parts = ["strategies", *name.split(".")] if name.partition(".")[0] in STRATEGIES else name.split(".")
    files = (PACKAGE.joinpath(*parts[:n]).with_suffix(".py") for n in range(1, len(parts) + 1))
    file = next((file for file in files if file.is_file()), None)
    source = file.read_text(encoding="utf-8") if file else ""
    inner = parts[len(file.relative_to(PACKAGE).parts) :] if file else []
    node: Any = ast.parse(source)  # not imported, so that no notebook waits for torch only to show a function
    for part in inner:
        node = next((one for one in getattr(node, "body", ()) if getattr(one, "name", None) == part), None)
    if file is None or node is None:
        raise SpecError(f"code '{name}': labkit has nothing with this name{nearest(name, STRATEGIES)}")
    if inner:
        first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        source = textwrap.dedent("\n".join(source.splitlines()[first - 1 : node.end_lineno]))
    return fenced(f"labkit/{file.relative_to(PACKAGE).as_posix()}", source)


def fenced(title: str, source: str) -> Html:
    """Python source in colours, with its file as the title. Its text is Markdown."""
    from pygments import highlight  # late: keeps pygments out of a process that does not need it
    from pygments.formatters import HtmlFormatter  # late: as above
    from pygments.lexers import PythonLexer  # late: as above

    coloured = highlight(source.strip(), PythonLexer(), HtmlFormatter(noclasses=True, nowrap=True))
    box = f'<pre style="{BOX};background:#f8f8f8;color:#1a1a1a">{coloured}</pre>'
    return Html(f"<p><code>{html.escape(title)}</code></p>{box}", f"`{title}`\n\n```python\n{source.strip()}\n```")


def strategy_file(name: str) -> Path:
    """The file of a strategy. Raises SpecError if there is none."""
    if name not in (known := strategies()):
        raise SpecError(f"strategy '{name}': there is no file with this name{nearest(name, known)}")
    return PACKAGE / "strategies" / f"{name}.py" if name in STRATEGIES else own_strategies()[name]


@functools.cache
def terms() -> dict[str, tuple[str, str]]:
    """The lab's terms, from params/glossary.yaml: {English term: (Chinese term, one sentence)}."""
    return {term: (words[0], words[1]) for term, words in read_yaml(folder() / "glossary.yaml").items()}


def glossary(*asked: str) -> Grid:
    """A table of these terms, or of all terms. Raises SpecError for a term that is not in the glossary."""
    for term in asked:
        if term not in terms():
            raise SpecError(f"glossary: '{term}' is not in params/glossary.yaml{nearest(term, terms())}")
    lines = [{"term": term, "zh": terms()[term][0], "means": terms()[term][1]} for term in asked or terms()]
    return Grid(lines, {"term": "term", "zh": "中文", "means": "meaning"})
