"""The report's sentences and cells: the view's data put into the places of one language's texts. The templates arrange them.

Cells and sentences are Markdown already, and safe in it.
"""

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from labkit.report.words import Words, plain
from labkit.results.metrics import COMPARED, METRIC, PUBLISHED, Metric, memory_is
from labkit.results.table import TIMES
from labkit.results.verdict import KINDS, short_name

Cells = list[list[Markup]]


class Say:
    """What the templates say of the view's data, in the words of one language."""

    def __init__(self, view: dict[str, Any], words: Words):
        self.view, self.t, self.nothing = view, words, words("nothing")

    # -- small parts ------------------------------------------------------------------------------------------------

    def row(self, name: str, shown: str | None = None) -> Markup:
        """A row's name, or for a sentence the short one as code, as a link to its results, if it has any."""
        text, links = self.t.code(shown) if shown else plain(name), self.view["links"]
        return self.t.link(text, links[name]) if name in links else text

    def marked(self, line: dict[str, Any]) -> Markup:
        """The row's name of a line. † marks a row that stands for another one too."""
        return self.row(line["name"]) + (" †" if line["stands_for"] else "")

    def figures(self, figures: Iterable[Any]) -> list[Markup]:
        """A line's figures. A dash stands where there is none."""
        return [self.nothing if figure is None else plain(figure) for figure in figures]

    def title_of(self, key: str) -> Markup:
        """A metric in a word."""
        return plain(METRIC[key].title[self.t.language])

    # -- section by section -----------------------------------------------------------------------------------------

    def opening(self) -> Markup:
        """How many rows ran, where their results lie, at which scale, and which settings were changed."""
        v, t = self.view, self.t
        rows, file = len(v["results"]), v["file"]
        where = t("opening.file", file=t.link(file, file)) if file else t("opening.folders")
        ran = t("opening.ran", n=rows, where=where) if rows else t("opening.nothing")
        scale = t("opening.profile", profile=v["profile"], about=v["about"][t.language])
        return t.sentences(ran, scale, t("opening.changed", values=t.listed(v["changed"])) if v["changed"] else Markup())

    def notes(self) -> list[Markup]:
        """What a reader must know before the figures are compared."""
        notes = self.view["notes"]
        return [self.t(f"note.{note['kind']}", **note | {"names": self.t.codes(note.get("names", []))}) for note in notes]

    def links(self, names: list[str]) -> Markup:
        """A list of rows, each as a link to its results."""
        return self.t.listed(map(self.row, names))

    def results_header(self) -> list[Markup]:
        """The published headings."""
        return [*map(plain, ("Experiment", "Model", "Batch Size")), *map(self.published_heading, PUBLISHED)]

    def published_heading(self, metric: Metric) -> Markup:
        """The published heading; of memory that was measured on a CPU, what it is."""
        if metric.key != "max_mem_mib" or self.view["devices"] in ([], ["cuda"]):
            return plain(metric.heading_as_published)
        return self.t("results.memory", what=memory_is(self.view["devices"], self.t.language))

    def results(self) -> Cells:
        """The table of results in the published form."""
        keys = ["model", "batch_size", *(metric.key for metric in PUBLISHED)]
        return [[self.marked(line), *self.figures(line[key] for key in keys)] for line in self.view["results"]]

    def groups(self) -> Cells:
        """The table of the groups."""
        language = self.t.language
        return [
            [self.t("groups.name", number=group["number"]), plain(group["title"][language]), plain(group["compares"][language])]
            for group in self.view["groups"]
        ]

    def title(self, group: dict[str, Any]) -> Markup:
        """A group's heading."""
        titles = {f"title_{language}": title for language, title in group["title"].items()}
        return self.t("beside.group", number=group["number"], **titles)

    def ratios_header(self) -> list[Markup]:
        """The headings of a group's table: for each figure the ratio here, and beside it the published one."""
        said = [self.t("beside.row")]
        for one in COMPARED:
            said += [self.t(f"beside.{one.compared}", figure=self.title_of(one.key)), self.t("beside.published")]
        return said

    def ratios(self, group: dict[str, Any]) -> Cells:
        """A group's table."""
        lines = []
        for row in group["rows"]:
            cells = [self.marked(row)]
            for ratio in row["ratios"]:
                here, there = self.figures([ratio["here"], ratio["published"]])
                cells += [here, self.t("beside.nccl_mark", number=there) if ratio["nccl"] else there]
            lines.append(cells)
        return lines

    def rounds(self, group: dict[str, Any]) -> Markup:
        """In how many rounds a group's images/s were measured, and how its control came out."""
        rounds = group["rounds"]
        return (
            self.t(f"beside.{rounds['key']}", n=rounds["n"], control=rounds["control"]) if rounds else self.t("beside.no_rounds")
        )

    def verdict(self, verdict: dict[str, Any]) -> Markup:
        """Is the order of a group's rows by one figure the published one? With the pairs of rows that show it."""
        figure = self.title_of(verdict["figure"])
        if verdict["head"] is None:
            return self.t("verdict.line", figure=figure, verdict=self.t("verdict.none"))
        kinds, n, scope = verdict["kinds"], verdict["pairs"], Markup()
        if len(kinds) > 1:
            counts = self.t.listed(self.t(f"kind.{kind}", n=count) for kind, count in kinds.items())
            scope = self.t("verdict.some_pairs", n=n, counts=counts)
        elif n > 1:
            scope = self.t("verdict.all_pairs", n=n)
        told = self.t.listed((self.pair(verdict["figure"], pair) for pair in verdict["telling"]), "separator.clause")
        told = self.t("verdict.among_others", told=told) if verdict["more"] else told
        return self.t("verdict.line", figure=figure, verdict=self.t(f"verdict.{verdict['head']}", scope=scope, told=told))

    def pair(self, figure: str, pair: dict[str, Any]) -> Markup:
        """How two rows compare by a figure, here and as published."""
        one, two = (self.row(pair[key], short_name(pair[key])) for key in ("one", "two"))
        measured = self.t("pair.ratio" if pair["ratio"] else "pair.points", number=pair["measured"])
        there = plain(pair["published"])
        there = self.t("pair.published_equal", published=there) if pair["kind"] == "tie_only_published" else there
        key = {"equal": "indistinguishable", "tie_only_here": "indistinguishable", "untold": "untold"}.get(pair["kind"], figure)
        return self.t(f"pair.{key}", one=one, two=two, measured=measured, published=there)

    def unanswered(self, group: dict[str, Any]) -> Markup:
        """Which rows of a group did not run, and which comparisons are missing because of that."""
        nobody, folded = group["nobody"], group["folded"]
        pairs = (self.t("beside.against", one=self.t.code(one), two=self.t.code(two)) for one, two in folded)
        return self.t.sentences(
            self.t("beside.nobody", names=self.t.codes(nobody)) if nobody else Markup(),
            self.t("beside.folded", pairs=self.t.listed(pairs, "beside.folded_separator")) if folded else Markup(),
        )

    def absent(self) -> Cells:
        """The table of the rows that gave no result, with the reason or the command that runs them."""
        lines = []
        for line in self.view["absent"]:
            name = self.t.link(line["name"], line["href"]) if line["href"] else plain(line["name"])
            status = self.t.known(f"status.{line['status']}", line["status"])
            if line["repeat"]:
                status = self.t("absent.repeat", status=status, n=line["repeat"])
            lines.append([name, status, self.t.code(line["command"]) if line["command"] else plain(line["reason"])])
        return lines

    def agreement_header(self) -> list[Markup]:
        """The headings of the table of orders."""
        return self.t.header("agreement", ["figure", "n", "spearman", "kendall", "pairs", *KINDS[:-1], "kind_untold"])

    def agreement(self) -> Cells:
        """The table of orders: all rows together, a line for each figure."""
        lines = []
        for line in self.view["agreement"]:
            figures = [line["n"], line["spearman"], line["kendall"], line["pairs"], *line["kinds"].values()]
            lines.append([self.title_of(line["figure"]), *self.figures(figures)])
        return lines

    def agreed(self, line: dict[str, Any]) -> Markup:
        """A line of the table of orders as a sentence."""
        known = {key: line[key] for key in ("n", "pairs")} | {kind: line["kinds"][kind] for kind in ("same", "opposite")}
        return self.t(f"agreement.{line['level']}", figure=self.title_of(line["figure"]), **known)

    def time_header(self) -> list[Markup]:
        """The headings of the table of times."""
        return self.t.header("time", ["row", *TIMES])

    def time(self) -> Cells:
        """The table of times."""
        lines = []
        for line in self.view["time"]["rows"]:
            waiting = self.t("time.waiting", seconds=line["data_wait_s"], percent=line["waiting_pct"])
            lines.append([self.row(line["name"]), *self.figures(waiting if key == "data_wait_s" else line[key] for key in TIMES)])
        return lines

    def time_sums(self) -> Markup:
        """The time of all rows together, and the shares of its parts."""
        time = self.view["time"]
        shares = {key.removesuffix("_s"): time["shares_pct"][key] for key in ("train_s", "eval_s", "startup_s", "rest_s")}
        return self.t("time.sums", total=time["total_s"], n=time["runs"], **shares)

    def meaning(self) -> list[Markup]:
        """What the figures mean, a line each; and how old the gradients of the server rows were."""
        said = self.t.header("meaning", [*(metric.key for metric in PUBLISHED), "parts", "batch_size"])
        for line in self.view["staleness"]:
            counts = self.t.listed(self.t("meaning.staleness_count", **count) for count in line["counts"])
            said.append(self.t("meaning.staleness_row", row=self.row(line["name"]), counts=counts))
        return said + ([self.t("meaning.staleness")] if self.view["staleness"] else [])

    def notebooks_header(self) -> list[Markup]:
        """The headings of the table of notebooks. A published report brings no executed ones, and has no column for them."""
        return self.t.header("notebooks", ["name", "status", "seconds", *([] if self.view["file"] else ["files"]), "reason"])

    def notebooks(self) -> Cells:
        """The table of notebooks."""
        lines = []
        for line in self.view["notebooks"]:
            files = self.t.listed(self.t.link(self.t(f"notebooks.{ending}"), href) for ending, href in line["files"].items())
            status = self.t.known(f"status.{line['status']}", line["status"])
            name, seconds, reason = (plain(line[key]) for key in ("name", "seconds", "reason"))
            name = self.t.link(name, line["href"]) if line["href"] else name
            lines.append([name, status, seconds, *([] if self.view["file"] else [files]), reason])
        return lines

    def facts(self) -> list[Markup]:
        """On what, with what and when the rows ran."""
        facts, t = self.view["facts"], self.t
        commit, repeats = t.listed(facts["commits"]), t.listed(facts["repeats"])
        return [
            t("run.machine", text=t.listed(map(self.machine, facts["machines"]), "separator.clause")),
            t("run.data", text=t.listed(map(self.data, facts["data"]), "separator.clause")),
            t("run.versions", text=t.listed(facts["versions"], "separator.clause")),
            t("run.commit", text=t("run.uncommitted", text=commit) if facts["uncommitted"] else commit),
            t("run.seed", text=t.listed(facts["seeds"])),
            t("run.repeats_one" if facts["repeats"] == [1] else "run.repeats_more", text=repeats),
            t("run.minutes", text=t.listed(facts["minutes"], "separator.span")),
        ]

    def machine(self, machine: dict[str, Any]) -> Markup:
        """A machine: processor, memory, system and devices."""
        devices = self.t.listed(machine["cuda"]) if machine["cuda"] else self.t("run.no_cuda")
        cpu, cores, system, memory = (machine[key] for key in ("cpu", "cores", "system", "memory_gib"))
        return self.t("run.one_machine", cpu=cpu, cores=cores, system=system, memory=memory, devices=devices)

    def data(self, data: dict[str, Any]) -> Markup:
        """A data set, and how much of it was trained on."""
        return self.t("run.one_data", **data | {"epochs": self.t("run.epochs", n=data["epochs"])})

    def again(self) -> Markup:
        """The commands that make this report again, and that check it."""
        name, settings = self.view["profile"], self.view["settings"]
        changed = settings.removeprefix(f"--profile {name}").strip()
        make = "make report" + ("" if name == "quick" else f" PROFILE={name}") + (f' ARGS="{changed}"' if changed else "")
        report, check = (f"labkit {word} {settings}" for word in ("report", "check"))
        return self.t("again.text", make=self.t.code(make), command=self.t.code(report), check=self.t.code(check))
