"""The report: results in, report.md, report.html and their plots out, in English and Chinese. Trains nothing.

source.py      what it is made from: result folders, or the file of a published report
view.py        what it tells, as plain data
words.py       the texts in templates/words.*.yaml, and what Markdown they need
sentences.py   the data in the texts' places
templates/     how the Markdown is arranged, and how a page looks
page.py        a page from the Markdown
check.py       are the files as the results say?
"""

import base64
import functools
import io
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from labkit.report.page import page
from labkit.report.sentences import Say
from labkit.report.source import FILE, Source, from_file, from_folders, to_publish
from labkit.report.view import Found, view
from labkit.report.words import LANGUAGES, TEMPLATES, Words, plain, table
from labkit.rows import params
from labkit.rows.fields import SpecError, nearest
from labkit.system.files import write_whole

FORMATS = ("md", "html")
COLOURS = 128  # of a picture in a page


def write_report(
    profile: str = "quick",
    overrides: dict[str, Any] | None = None,
    path: Path | None = None,
    languages: Iterable[str] = LANGUAGES,
    publish: bool = False,
    classic: bool = False,
) -> list[Path]:
    """Write report.md and report.html, in Chinese report.zh.md and report.zh.html, and plots/ beside them, from what lies in
    the profile's result folders. Returns the files' paths, without the plots'.

    The same folders give the same bytes. `path` is where report.md goes, or would go (see `report_path`). Each file is replaced
    whole or not at all. `publish`: the results are written beside the report too, and its links lead there (see `source`).
    `classic`: report.classic.md and so on, with the three sections of the published report alone; where no row has a result, from
    the repository's published report.

    Raises SpecError for an unknown profile or language, or a bad override; OSError where no row has a result, and there is a report
    that shows some, or one is to be published or to be classic."""
    from labkit.plots.overviews import save_plots  # late: keeps matplotlib out of a process that does not need it

    languages, source = checked(languages), from_folders(profile, overrides or {})
    path = path.absolute() if path else report_path(source.folder, publish)
    if not source.has_results:
        if classic and (params.ROOT / FILE).exists():
            source = published_source(params.ROOT / FILE, source.settings)
        elif publish or classic:
            raise OSError(f"{source.folder}: holds no results; `labkit report {source.settings}` trains the rows")
        elif not classic:
            keep_results(path, source.folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    if publish:
        write_whole(path.with_name(FILE), to_publish(source).encode())
        source = from_file(path.with_name(FILE))
    found = Found(source, path.parent)
    save_plots(found.rows, path.parent / "plots", source.rounds)
    files = texts(Content(found, path), languages, classic)
    for file, text in files.items():
        write_whole(file, text.encode())
    return list(files)


def report_path(folder: Path, publish: bool = False) -> Path:
    """Where report.md goes if nobody says: beside the results in `folder`, a profile's result folders; published, into the
    repository."""
    return params.ROOT / "report.md" if publish else folder / "report" / "report.md"


def published_source(file: Path, settings: str) -> Source:
    """What the report beside this file was made from. Raises OSError if it is not the one of these settings."""
    source = from_file(file)
    if source.settings != settings:
        raise OSError(f"{file.parent}: holds the report of {source.settings}, not of {settings}; ask for it by these words")
    return source


def check_place(path: Path, publish: bool = False) -> None:
    """Raise OSError unless a report and its plots can be written there. Call it before the training."""
    folder = path.absolute().parent
    if not publish and (folder == params.ROOT or (folder / FILE).exists()):
        raise OSError(f"{folder}: holds the published report; add --publish to replace it, or name another folder")
    for place in (folder, folder / "plots"):
        try:
            place.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            remedy = "make it writable, or write the report elsewhere: `labkit report --folder DIR`"
            raise OSError(f"{place}: the report cannot be written there ({error.strerror}); {remedy}") from error


def keep_results(path: Path, runs: Path) -> None:
    """Raise OSError if a report with results would be replaced by one without."""
    for language in LANGUAGES:
        for ending in FORMATS:
            file, nothing = file_of(path, language, ending), Words(language)("results.none")
            if file.exists() and str(nothing) not in file.read_text(encoding="utf-8"):
                raise OSError(
                    f"{file}: this report shows results, but {runs} has none; the report was not changed. "
                    "Set LABKIT_RUNS to the folder of the results, or delete the report to write an empty one"
                )


def checked(languages: Iterable[str]) -> tuple[str, ...]:
    """The languages that were asked for. Raises SpecError for an unknown one."""
    for language in (asked := tuple(languages)):
        if language not in LANGUAGES:
            raise SpecError(f"language {language!r}: the report has none of it{nearest(language, LANGUAGES)}")
    return asked


def file_of(path: Path, language: str, ending: str) -> Path:
    """report.md, report.html, report.zh.md, report.zh.html"""
    return path.with_name(f"{path.stem}{'' if language == 'en' else f'.{language}'}.{ending}")


class Content:
    """What all files of a report have in common: the view, and the plots that lie in plots/ beside them."""

    def __init__(self, found: Found, path: Path):
        self.found, self.path, self.view = found, path, view(found)
        self.overviews, self.figures = pictures(self.view, path.parent / "plots")
        paths = [f"plots/{stem}.png" for stem in [*self.overviews, *self.figures.values()]]
        self.inlined = {plot: inlined(path.parent / plot) for plot in paths}


def texts(content: Content, languages: tuple[str, ...], classic: bool = False) -> dict[Path, str]:
    """What belongs into each file. `classic`: into those with the published sections alone, where names are no links."""
    path, view, template = content.path, content.view, "report.md.j2"
    if classic:
        path = path.with_name(f"{path.stem}.classic.md")
        view = view | {"links": {}, "results": [line | {"stands_for": False} for line in view["results"]]}
        template = "opening.md.j2"
    written: dict[Path, str] = {}
    for language in languages:
        t = Words(language)
        ways = {ending: navigation(path, languages, t, ending) for ending in FORMATS}
        text = (
            environment()
            .get_template(template)
            .render(
                t=t,
                v=view,
                say=Say(view, t),
                language=language,
                navigation=ways["md"],
                overviews=content.overviews,
                figures=content.figures,
            )
        )
        text = re.sub(r"\n\s*\n+", "\n\n", text).strip() + "\n"
        written[file_of(path, language, "md")] = text
        # The page is made from the same text. Only the line of links to the other files is its own.
        written[file_of(path, language, "html")] = page(text.replace(ways["md"], ways["html"]), t, content.inlined)
    return written


@functools.cache
def environment() -> Any:
    """Jinja2 set up for Markdown: whatever a template writes is escaped, unless it is set already; a missing value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # late: keeps jinja2 out of a process that does not need it

    loader = FileSystemLoader(TEMPLATES)
    made = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=plain)
    made.globals["table"] = table
    return made


def navigation(path: Path, languages: tuple[str, ...], t: Words, ending: str) -> Markup:
    """The same report in the other languages, and in the other format."""
    parts = []
    for language in languages:
        name, href = Words(language)("language"), file_of(path, language, ending).name
        parts.append(name if language == t.language else t.link(name, href))
    (other,) = set(FORMATS) - {ending}
    parts.append(t.link(t(f"nav.{other}"), file_of(path, t.language, other).name))
    return Markup(" · ".join(parts))


def pictures(view: dict[str, Any], folder: Path) -> tuple[list[str], dict[int, str]]:
    """The plots that show these results: the names of the overviews, and of each group's figure by the group's number."""
    from labkit.plots.overviews import PLOTS  # late: keeps matplotlib out of a process that does not need it

    overviews = list(PLOTS) if view["results"] else []
    groups = {group["number"]: f"group_{group['number']:02}" for group in view["groups"] if group["rows"]}
    return (
        [name for name in overviews if (folder / f"{name}.png").exists()],
        {number: name for number, name in groups.items() if (folder / f"{name}.png").exists()},
    )


def inlined(picture: Path) -> str:
    """A PNG as a data URI, with a palette: a third of the bytes."""
    from PIL import Image  # late: keeps PIL out of a process that does not need it

    small = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG")
    return f"data:image/png;base64,{base64.b64encode(small.getvalue()).decode()}"
