"""Made-up notebooks for the tests of the batch, and what an HTML page asks the network for."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

GIVEN = "profile = 'nothing'\nrepeats = 0\nfresh = None\noverrides = None\n"
GROUP = "group = 0\nrows = []\nclaim = ''\nclaim_zh = ''\ntitle_en = ''\ntitle_zh = ''\n"
SOURCES = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src", "object": "data"}


def write_notebook(
    folder: Path, name: str, *sources: str, parameters: str = GIVEN, tags: tuple[str, ...] = ("parameters",)
) -> Path:
    """A notebook of these code cells, after a heading and a cell with parameters."""
    cells = [{"cell_type": "markdown", "id": "heading", "metadata": {}, "source": f"# {name}"}]
    for number, source in enumerate((parameters, *sources)):
        code = {"cell_type": "code", "id": f"code-{number}", "execution_count": None, "outputs": [], "source": source}
        cells.append(code | {"metadata": {"tags": list(tags) if number == 0 else []}})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}}
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    return path


def fetched(page: str) -> list[str]:
    """What a browser would fetch for a page from elsewhere: scripts, pictures, styles, modules and what styles import."""
    found: list[str] = []

    class Finder(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            address = dict(attributes).get(SOURCES.get(tag, ""))
            if address and not address.startswith(("data:", "#")):
                found.append(f"{tag}: {address}")

    Finder().feed(page)
    style = "".join(re.findall(r"<style.*?</style>", page, re.DOTALL))
    found += re.findall(r"""(?:@import|url\()\s*["']?(?:https?:)?//[^"')]+""", style)
    scripts = "".join(re.findall(r"<script.*?</script>", page, re.DOTALL))
    found += re.findall(r"""(?:\bimport\b|\bfrom\b|fetch\(|importScripts\(|\.src\s*=)[^;\n]{0,40}["']https?://[^"']+""", scripts)
    return found


def outputs_of(executed: Path) -> list[str]:
    """What each code cell of an executed notebook printed or showed as text."""
    texts = []
    for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell["outputs"]]
            texts.append("".join("".join(part) for part in parts))
    return texts


def made_in(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    (folder / "notebooks").mkdir()
    patch.setenv("LABKIT_NOTEBOOKS", str(folder / "notebooks"))
    patch.setenv("LABKIT_RUNS", str(folder / "runs"))
    return folder
