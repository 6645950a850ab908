"""The page of an executed notebook: HTML that needs no network, with folded code, and without the solutions of its exercises."""

import copy
import html
import re
from pathlib import Path
from typing import Any

from labkit.batch.notebooks import import_jsonschema
from labkit.system.files import write_whole

# Text that a cell prints is shown as in a terminal. Long lines scroll: nothing is cut off, or broken in the middle of a word.
TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block html_head_css %}{{ super() }}
<style>
.jp-OutputArea-output pre, .jp-RenderedMarkdown pre, .jp-RenderedMarkdown pre code { font-family: var(--jp-code-font-family); }
.jp-OutputArea-output pre, .jp-RenderedMarkdown pre, .jp-InputArea-editor .highlight pre {
  white-space: pre; word-break: normal; overflow-wrap: normal; overflow-x: auto; }
.jp-RenderedMarkdown code, .jp-RenderedHTMLCommon code { word-break: normal; overflow-wrap: break-word; }
.jp-InputArea-editor, .jp-OutputArea-output { overflow-x: auto; }
details.labkit-code > summary { cursor: pointer; color: #616161; font-size: 13px; padding: 2px 0 2px 64px; }
</style>
{% endblock %}
{% block input_group %}{% if cell.metadata.get('jupyter', {}).get('source_hidden') %}
<details class="labkit-code"><summary>code of this cell</summary>{{ super() }}</details>
{% else %}{{ super() }}{% endif %}{% endblock %}
"""
NO_SOLUTION = (
    "*Here is a solution. This page does not show it. In JupyterLab, open the hidden cell at this place of the notebook.*"
)


def publish(executed: Path, status: str, reason: str) -> None:
    """Write the real status into an executed notebook, and make a page of it beside it: HTML that needs no network."""
    import_jsonschema()
    import nbformat  # late: keeps nbformat out of a process that does not need it

    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("widgets", None)
    if status != "ok":
        tell(notebook, status, reason)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = readable(cell.source)
            cell.metadata.setdefault("jupyter", {})["source_hidden"] = True
    write_whole(executed, nbformat.writes(notebook).encode())
    write_whole(executed.with_suffix(".html"), page(notebook, executed.stem).encode())


def page(notebook: Any, name: str) -> str:
    """A notebook as HTML. Code that JupyterLab hides is folded; a cell tagged `solution` is left out, with what it printed."""
    import nbformat  # late: keeps nbformat out of a process that does not need it
    from nbconvert import HTMLExporter  # late: keeps nbconvert out of a process that does not need it

    shown = copy.deepcopy(notebook)
    shown.cells = [
        nbformat.v4.new_markdown_cell(NO_SOLUTION, id=cell.id) if "solution" in cell.metadata.get("tags", []) else cell
        for cell in shown.cells
    ]
    exporter = HTMLExporter(template_name="lab", raw_template=TEMPLATE, embed_images=True)
    for trait in exporter.trait_names():
        if trait.endswith("_url"):  # where the page would fetch MathJax, RequireJS, Mermaid and widgets from
            setattr(exporter, trait, "")
    text, _ = exporter.from_notebook_node(shown, {"metadata": {"name": name}})
    return str(text)


def readable(source: str) -> str:
    r"""Python source with the characters themselves in place of their escapes: papermill writes Chinese as \u7f13\u5b58."""

    def character(found: re.Match[str]) -> str:
        letter = chr(int(found[1], 16)) if found[1] else ""
        return letter if letter.isprintable() and letter else found[0]

    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|.)", character, source)  # a backslash takes the character after it along


def tell(notebook: Any, status: str, reason: str) -> None:
    """Say at the top of a notebook that it did not end well. papermill calls it completed after a time-out, a dead kernel or an
    interrupt, with every cell that never ran."""
    import nbformat  # late: keeps nbformat out of a process that does not need it

    for cell in notebook.cells:
        if not cell.metadata.get("papermill", {}).get("start_time"):
            cell.metadata.setdefault("papermill", {})["status"] = "pending"
    notebook.metadata.setdefault("papermill", {})["exception"] = True
    words = f"**This notebook did not end well: {status}.** {html.escape(reason)}"
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(words, id="labkit-status"))
