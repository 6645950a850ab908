"""Does the report say what its results say? Its files are made again from the results, and compared with those on disk."""

import difflib
import html
import itertools
import re
from pathlib import Path
from typing import Any

from labkit.report.source import FILE, from_folders, settings_of
from labkit.report.view import Found
from labkit.report.words import LANGUAGES
from labkit.report.write import FORMATS, Content, file_of, published_source, report_path, texts
from labkit.rows import params
from labkit.system.files import write_whole

LONGEST = 160  # characters of a line that are shown


def report_files(path: Path) -> list[Path]:
    """The report's files that are there. `path`: of report.md, be it there or not."""
    files = [file_of(path.absolute(), language, ending) for language in LANGUAGES for ending in FORMATS]
    return [file for file in files if file.exists()]


def report_to_check(profile: str, overrides: dict[str, Any]) -> Path:
    """Where report.md of the report to check lies if nobody says: the user's own if the profile's folders hold results, else the
    published one of the repository."""
    source = from_folders(profile, overrides)
    return report_path(source.folder, publish=not source.has_results and (params.ROOT / FILE).exists())


def check_report(profile: str, overrides: dict[str, Any], path: Path, rewrite: bool = False) -> list[str]:
    """Where the report's files differ from what the results say: one line for each difference, an empty list if there is none. The results are those in the file
    beside a published report, else those in the profile's folders. Draws nothing: a page must show the pictures that lie in
    plots/. `rewrite`: replace each file that differs.

    Raises SpecError for an unknown profile or a bad override, Unreadable for results that were edited, OSError if there is no
    report, or no results."""
    path = path.absolute()
    if (path.parent / FILE).exists():
        source = published_source(path.parent / FILE, settings_of(profile, overrides))
    else:
        source = from_folders(profile, overrides)
    if not source.has_results:
        remedy = f"`labkit report {source.settings}` trains the rows, and with --publish keeps the results beside the report"
        raise OSError(f"{source.folder}: holds no results to check {path} with; {remedy}")
    if not (there := report_files(path)):
        raise OSError(
            f"{path}: there is no report to check; `labkit report {source.settings}` writes one. "
            "`labkit check --folder .` checks the committed one"
        )
    content = Content(Found(source, path.parent), path)
    # A report names its other language only if both were written together.
    possible = [texts(content, languages) for languages in [LANGUAGES, *((language,) for language in LANGUAGES)]]
    differences = []
    for file in there:
        text, right = file.read_text(encoding="utf-8"), [files[file] for files in possible if file in files]
        if text not in right:
            differences += [f"{file.name}, {told}" for told in compare(text, right[0])]
            if rewrite:
                write_whole(file, right[0].encode())
    return differences


def compare(text: str, right: str) -> list[str]:
    """Where a file is not what it should be: in a table by row and column, elsewhere by line."""
    here, there = text.splitlines(), right.splitlines()
    headers, told = headers_of(here), []
    for what, a, b, c, d in difflib.SequenceMatcher(None, here, there, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        for n, (line, expected) in enumerate(itertools.zip_longest(here[a:b], there[c:d]), a):
            if line is None:
                told.append(f"line {b + 1}: missing: {shown(expected)[:LONGEST]}")
            elif expected is None:
                told.append(f"line {n + 1}: should not be there: {shown(line)[:LONGEST]}")
            else:
                told += [
                    f"line {n + 1}{where}: has {x}, the results say {y}" for where, x, y in differing(line, expected, headers[n])
                ]
    return told


def cells(line: str) -> list[str]:
    """The cells of a table's line, in Markdown or in HTML; none for any other line."""
    if line.startswith("|"):
        return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    return re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line)


def headers_of(lines: list[str]) -> list[list[str]]:
    """For each line the first line of the table that it is in."""
    found, header = [], []
    for line in lines:
        if line not in ("</thead>", "<tbody>"):
            header = (header or row) if (row := cells(line)) else []
        found.append(header)
    return found


def differing(line: str, expected: str, header: list[str]) -> list[tuple[str, str, str]]:
    """Where two lines differ: (place, what is there, what should be)."""
    if "data:image" in line and "data:image" in expected:
        return [("", "a picture", "another one: that in plots/")]
    one, two = cells(line), cells(expected)
    if not one or len(one) != len(two) or len(one) != len(header):
        return [("", *around(shown(line), shown(expected)))]
    found = []
    for column, x, y in zip(header, one, two, strict=True):
        if x != y:
            same = shown(x) == shown(y)  # then only a link differs
            told = (x, y) if same else around(shown(x), shown(y))
            found.append((f", {shown(one[0])}, {shown(column)}", *told))
    return found


def shown(text: str) -> str:
    """As a reader sees it: without tags and links."""
    text = html.unescape(re.sub(r"<[^>]*>", "", text))
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).strip()


def around(one: str, two: str) -> tuple[str, str]:
    """Two texts, or if they are long the part in which they begin to differ."""
    if max(len(one), len(two)) <= LONGEST:
        return one, two
    at = next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    start = max(0, at - LONGEST // 2)
    cut = [text[start : start + LONGEST] for text in (one, two)]
    before = "…" if start else ""
    return before + cut[0], before + cut[1]
