"""The report's sentences and cells: the view's data put into the places of one language's texts. The templates arrange them.

Cells and sentences are set in the format already, and safe in it.
"""

from typing import Any

from markupsafe import Markup

from labkit.report.words import HTML, Words
from labkit.results.metrics import COMPARED, METRIC, PUBLISHED, Metric, memory_is
from labkit.results.table import TIMES
from labkit.results.verdict import KINDS, short_name

Cells = list[list[Markup]]


class Say:
    def __init__(self, view: dict[str, Any], words: Words):
        self.view, self.t, self.html = view, words, words.style is HTML
        self.nothing = words("nothing")

    # -- small parts ------------------------------------------------------------------------------------------------

    def name(self, name: str, shown: str | None = None) -> Markup:
        """A row's name. In a page its line may be broken after any `_`; in a Markdown sentence it stands as code."""
        if self.html:
            return Markup(str(self.t.set(shown or name)).replace("_", "_<wbr>"))
        return self.t.code(shown) if shown else Markup(self.t.set(name))

    def row(self, name: str, shown: str | None = None) -> Markup:
        """A row's name, or the short one for a sentence, as a link to its results, if it has any."""
        links, text = self.view["links"], self.name(name, shown)
        return self.t.link(text, links[name]) if name in links else text

    def figure(self, text: str | None, row: str) -> Markup:
        """A number of a row. In a page it is a link to where it comes from; in Markdown the row's name is."""
        if text is None:
            return self.nothing
        links = self.view["links"]
        return self.t.link(text, links[row]) if self.html and row in links else Markup(self.t.set(text))

    def sentences(self, *parts: Markup) -> Markup:
        return self.t.listed((part for part in parts if part), "separator.sentence")

    def header(self, section: str, keys: list[str]) -> list[Markup]:
        return [self.t(f"{section}.{key}") for key in keys]

    def codes(self, names: list[str]) -> Markup:
        return self.t.listed(self.t.code(name) for name in names)

    def links(self, names: list[str]) -> Markup:
        return self.t.listed(self.row(name) for name in names)

    def picture(self, stem: str, alt: Markup) -> Markup:
        return Markup(f"![{alt}](plots/{stem}.png)")

    # -- section by section -----------------------------------------------------------------------------------------

    def opening(self) -> Markup:
        v, t = self.view, self.t
        rows, file = len(v["results"]), v["file"]
        where = t("opening.file", file=t.link(file, file)) if file else t("opening.folders")
        ran = t("opening.ran", n=rows, where=where) if rows else t("opening.nothing")
        scale = t("opening.profile", profile=v["profile"], about=v["about"][t.language])
        return self.sentences(ran, scale, t("opening.changed", values=t.listed(v["changed"])) if v["changed"] else Markup())

    def notes(self) -> list[Markup]:
        said = []
        for note in self.view["notes"]:
            values = {key: value for key, value in note.items() if key not in ("kind", "names")}
            said.append(self.t(f"note.{note['kind']}", names=self.codes(note.get("names", [])), **values))
        return said

    def results_header(self) -> list[Markup]:
        first = [Markup(self.t.set(heading)) for heading in ("Experiment", "Model", "Batch Size")]
        return first + [self.published_heading(metric) for metric in PUBLISHED]

    def published_heading(self, metric: Metric) -> Markup:
        """The published heading; of memory that was measured on a CPU, what it is."""
        if metric.key != "max_mem_mib" or self.view["devices"] in ([], ["cuda"]):
            return Markup(self.t.set(metric.heading_as_published))
        return self.t("results.memory", what=memory_is(self.view["devices"], self.t.language))

    def title_of(self, key: str) -> Markup:
        """A metric in a word."""
        return Markup(self.t.set(METRIC[key].title[self.t.language]))

    def results(self) -> Cells:
        lines = []
        for line in self.view["results"]:
            name = self.row(line["name"]) + (" †" if line["stands_for"] else "")
            about = [Markup(self.t.set(line["model"])), Markup(line["batch_size"])]
            lines.append([name, *about, *(self.figure(line[metric.key], line["name"]) for metric in PUBLISHED)])
        return lines

    def groups(self) -> Cells:
        lines = []
        for group in self.view["groups"]:
            name = self.t("groups.name", number=group["number"])
            if self.html and self.view["links"]:
                name = self.t.link(name, f"#group-{group['number']}")
            lines.append([name, *(Markup(self.t.set(group[key][self.t.language])) for key in ("title", "compares"))])
        return lines

    def title(self, group: dict[str, Any]) -> Markup:
        titles = {f"title_{language}": title for language, title in group["title"].items()}
        return self.t("beside.group", number=group["number"], **titles)

    def ratios_header(self) -> list[Markup]:
        pairs = [
            (self.t(f"beside.{one.compared}", figure=self.title_of(one.key)), self.t("beside.published")) for one in COMPARED
        ]
        return [self.t("beside.row"), *(heading for pair in pairs for heading in pair)]

    def ratios(self, group: dict[str, Any]) -> Cells:
        lines = []
        for row in group["rows"]:
            cells = [self.row(row["name"]) + (" †" if row["stands_for"] else "")]
            for ratio in row["ratios"]:
                there = Markup(self.t.set(ratio["published"])) if ratio["published"] else self.nothing
                nccl = self.t("beside.nccl_mark", number=there) if ratio["nccl"] else there
                cells += [self.figure(ratio["here"], row["name"]), nccl]
            lines.append(cells)
        return lines

    def verdict(self, verdict: dict[str, Any]) -> Markup:
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
        one, two = (self.row(pair[key], short_name(pair[key])) for key in ("one", "two"))
        measured = self.t("pair.ratio" if pair["ratio"] else "pair.points", number=pair["measured"])
        there = Markup(self.t.set(pair["published"]))
        there = self.t("pair.published_equal", published=there) if pair["kind"] == "tie_only_published" else there
        key = "indistinguishable" if pair["kind"] in ("equal", "tie_only_here") else figure
        return self.t(f"pair.{key}", one=one, two=two, measured=measured, published=there)

    def unanswered(self, group: dict[str, Any]) -> Markup:
        nobody, folded = group["nobody"], group["folded"]
        pairs = (self.t("beside.against", one=self.t.code(one), two=self.t.code(two)) for one, two in folded)
        return self.sentences(
            self.t("beside.nobody", names=self.codes(nobody)) if nobody else Markup(),
            self.t("beside.folded", pairs=self.t.listed(pairs, "beside.folded_separator")) if folded else Markup(),
        )

    def absent(self) -> Cells:
        lines = []
        for line in self.view["absent"]:
            name = self.t.link(self.name(line["name"]), line["href"]) if line["href"] else self.name(line["name"])
            status = self.t.known(f"status.{line['status']}", line["status"])
            if line["repeat"]:
                status = self.t("absent.repeat", status=status, n=line["repeat"])
            reason = self.t.code(line["command"]) if line["command"] else Markup(self.t.set(line["reason"]))
            lines.append([name, status, reason])
        return lines

    def agreement_header(self) -> list[Markup]:
        return self.header("agreement", ["figure", "n", "spearman", "kendall", "pairs", *KINDS])

    def agreement(self) -> Cells:
        lines = []
        for line in self.view["agreement"]:
            figures = [line["n"], line["spearman"], line["kendall"], line["pairs"], *line["kinds"].values()]
            cells = [self.nothing if figure is None else Markup(self.t.set(figure)) for figure in figures]
            lines.append([self.title_of(line["figure"]), *cells])
        return lines

    def agreed(self, line: dict[str, Any]) -> Markup:
        figure = self.title_of(line["figure"])
        if line["level"] == "unknown":
            return self.t("agreement.unknown", figure=figure, n=line["n"])
        counts = {kind: line["kinds"][kind] for kind in ("same", "opposite")}
        return self.t(f"agreement.{line['level']}", figure=figure, n=line["n"], pairs=line["pairs"], **counts)

    def time_header(self) -> list[Markup]:
        return self.header("time", ["row", *TIMES])

    def time(self) -> Cells:
        lines = []
        for line in self.view["time"]["rows"]:
            waiting = self.t("time.waiting", seconds=line["data_wait_s"], percent=line["waiting_pct"])
            cells = [self.figure(waiting if key == "data_wait_s" else line[key], line["name"]) for key in TIMES]
            lines.append([self.row(line["name"]), *cells])
        return lines

    def time_sums(self) -> Markup:
        time = self.view["time"]
        shares = {key.removesuffix("_s"): time["shares_pct"][key] for key in ("train_s", "eval_s", "startup_s", "rest_s")}
        return self.t("time.sums", total=time["total_s"], n=time["runs"], **shares)

    def meaning(self) -> list[Markup]:
        said = self.header("meaning", [*(metric.key for metric in PUBLISHED), "parts", "batch_size"])
        for line in self.view["staleness"]:
            counts = self.t.listed(self.t("meaning.staleness_count", **count) for count in line["counts"])
            said.append(self.t("meaning.staleness_row", row=self.row(line["name"]), counts=counts))
        return said + ([self.t("meaning.staleness")] if self.view["staleness"] else [])

    def notebooks_header(self) -> list[Markup]:
        return self.header("notebooks", ["name", "status", "seconds", *([] if self.view["file"] else ["files"]), "reason"])

    def notebooks(self) -> Cells:
        lines = []
        for line in self.view["notebooks"]:
            files = self.t.listed(self.t.link(self.t(f"notebooks.{ending}"), href) for ending, href in line["files"].items())
            status = self.t.known(f"status.{line['status']}", line["status"])
            name, seconds, reason = (Markup(self.t.set(line[key])) for key in ("name", "seconds", "reason"))
            name = self.t.link(name, line["href"]) if line["href"] else name
            lines.append([name, status, seconds, *([] if self.view["file"] else [files]), reason])
        return lines

    def facts(self) -> list[Markup]:
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
        devices = self.t.listed(machine["cuda"]) if machine["cuda"] else self.t("run.no_cuda")
        about = {key: machine[key] for key in ("cpu", "cores", "system")}
        return self.t("run.one_machine", memory=machine["memory_gib"], devices=devices, **about)

    def data(self, data: dict[str, Any]) -> Markup:
        return self.t("run.one_data", **data | {"epochs": self.t("run.epochs", n=data["epochs"])})

    def again(self) -> Markup:
        name, settings = self.view["profile"], self.view["settings"]
        changed = settings.removeprefix(f"--profile {name}").strip()
        make = "make report" + f" PROFILE={name}" * (name != "quick") + f' ARGS="{changed}"' * bool(changed)
        report, check = (f"labkit {word} {settings}" for word in ("report", "check"))
        return self.t("again.text", make=self.t.code(make), command=self.t.code(report), check=self.t.code(check))
