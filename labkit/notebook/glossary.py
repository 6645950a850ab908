"""The lab's terms in English and Chinese, from params/glossary.yaml."""

import functools

from labkit.notebook.cells import Grid
from labkit.rows.fields import SpecError, nearest
from labkit.rows.params import folder
from labkit.rows.yaml_files import read_yaml


@functools.cache
def terms() -> dict[str, tuple[str, str]]:
    """{English term: (Chinese term, one sentence)}."""
    return {term: (words[0], words[1]) for term, words in read_yaml(folder() / "glossary.yaml").items()}


def glossary(*asked: str) -> Grid:
    """A table of these terms, or of all terms. Raises SpecError for a term that is not in the glossary."""
    for term in asked:
        if term not in terms():
            raise SpecError(f"glossary: '{term}' is not in params/glossary.yaml{nearest(term, terms())}")
    lines = [{"term": term, "zh": terms()[term][0], "means": terms()[term][1]} for term in asked or terms()]
    return Grid(lines, {"term": "term", "zh": "中文", "means": "meaning"})
