"""The little Markdown that the report needs. Columns are not padded: the width of Chinese text is the reader's font's affair."""

import html
import re
from typing import Any


def table(header: list[str], rows: list[list[str]], right_from: int = 1) -> str:
    """A table, its columns from `right_from` on aligned right. Cells are Markdown already; none can break the table."""
    rule = ["---" if column < right_from else "---:" for column in range(len(header))]
    lines = [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in [header, rule, *rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: Any) -> str:
    """Text as Markdown that shows it as it is, on one line."""
    escaped = html.escape(" ".join(str(text).split()), quote=False).replace("\\", "&#92;")
    return re.sub(r"[*`\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", escaped)  # within a word, _ means nothing
