"""Widgets for JupyterLab: choose rows and run them, commit a guess, compare results. Each has a static form for other places.

The callbacks of a widget run on another thread than the cells. So nothing here uses pyplot or `display`, and a run that a button
starts has its own widget for the live view.
"""

import html
import threading
from typing import Any

from labkit.notebook.cells import Grid, Picture, interactive
from labkit.notebook.guesses import Guesses
from labkit.notebook.live import Live
from labkit.results.metrics import METRIC, METRICS
from labkit.results.table import good, here_text, kept_lines, read_results
from labkit.rows import params
from labkit.rows.fields import SpecError
from labkit.runs.plan import plan
from labkit.runs.train import get_ready, train_rows

CHOOSE = "choose ..."
HEADINGS = {"name": "row", "groups": "groups", "here": "on this machine", "cost": "time"}


def rows_table(profile: str = "quick", names: Any = None) -> Grid:
    """A table of every row (or of `names`): its groups, whether it runs on this machine, and how long it took last time."""
    lines = kept_lines(plan(list(names) if names else "all", profile))
    for line in lines:
        line["groups"] = ", ".join(str(g.number) for g in params.groups() if {line["name"], *line["stands_for"]} & set(g.rows))
        line["cost"] = cost_text(line)
        line["here"] = here_text(line, f"{line['status']}: {line['reason']}")
        if line["stands_for"]:
            line["here"] += f"; on gloo also for {', '.join(line['stands_for'])}"
    return Grid(lines, HEADINGS)


def cost_text(line: dict[str, Any]) -> str:
    """How long a row took last time, as text. `line`: a line of `labkit.results.table`."""
    if line["total_time_s"] is not None:
        return f"{line['total_time_s']:.0f} s last time"
    if line["status"] == "needs":
        return "–"
    return "not known: never run here"


def explorer(profile: str = "quick") -> Any:
    """A widget to choose rows and a profile, to see their times, and to run them. Without JupyterLab: `rows_table`."""
    if not interactive():
        return rows_table(profile)
    import ipywidgets as w  # late: keeps ipywidgets out of a process that does not need it

    profiles = w.Dropdown(options=params.profile_names(), value=profile, description="profile")
    rows = w.SelectMultiple(options=params.all_names(), rows=10, description="rows", layout=w.Layout(width="640px"))
    run = w.Button(description="Run the chosen rows", button_style="primary", layout={"width": "auto"})
    stop = w.Button(description="Stop", disabled=True)
    about, table, live = w.HTML(), w.HTML(), w.HTML()
    stopping = threading.Event()

    def look(_change: Any = None) -> None:
        about.value = params.profile(profiles.value).about
        table.value = rows_table(profiles.value, rows.value).html()

    def work() -> None:
        def on_progress(*what: Any) -> None:
            if stopping.is_set():
                raise KeyboardInterrupt
            view(*what)

        try:
            planned = get_ready(list(rows.value), profiles.value)
            view = Live("Row explorer", planned, show=lambda what: setattr(live, "value", what.html))
            train_rows(planned, 1, False, on_progress)
            live.value += "<p>done</p>"
        except KeyboardInterrupt:
            live.value += "<p>stopped; finished runs are kept</p>"
        except Exception as error:
            live.value += Grid([{"error": f"{type(error).__name__}: {error}"}], {"error": "did not run"}).html()
        finally:
            run.disabled, stop.disabled = False, True
            look()

    def start(_button: Any) -> None:
        if rows.value:
            stopping.clear()
            run.disabled, stop.disabled = True, False
            threading.Thread(target=work, name="row explorer").start()

    run.on_click(start)
    stop.on_click(lambda _button: stopping.set())
    profiles.observe(look, "value")
    rows.observe(look, "value")
    look()
    return w.VBox([w.HBox([profiles, about]), rows, w.HBox([run, stop]), live, table])


def prediction_card(guesses: Guesses) -> Any:
    """The questions of a lesson as a widget. It starts empty. `lesson.predict` shows it; `lesson.outcome` compares the guesses with
    the run."""
    import ipywidgets as w  # late: keeps ipywidgets out of a process that does not need it

    wide, texts = w.Layout(width="94%", max_width="900px"), []
    fields: dict[str, Any] = {}
    for key, question in guesses.questions.items():
        given = guesses.values.get(key)
        if question.of:
            hint = "a number, such as -2.5" if question.points else "a number, such as 1.5"
            fields[key] = w.Text(value="" if given is None else f"{given:g}", placeholder=hint, layout=wide)
        else:
            fields[key] = w.Dropdown(
                options=[(CHOOSE, ""), *((name, name) for name in guesses.choices)], value=given or "", layout=wide
            )
        texts += [w.HTML(html.escape(question.text)), fields[key]]
    why = w.Text(value=guesses.why, placeholder="because ...", layout=wide)
    commit = w.Button(description="Commit my guess", button_style="primary")
    state = w.HTML("<i>Not committed yet. You may leave a question open.</i>")

    def committed(_button: Any) -> None:
        answers = {key: field.value.strip() for key, field in fields.items() if field.value.strip()}
        if not answers:
            state.value = "<b>Nothing is answered yet: answer at least one question.</b>"
            return
        try:
            for key, answer in answers.items():
                guesses.commit(key, as_number(answer) if guesses.questions[key].of else answer)
        except SpecError as error:
            state.value = f"<b>{html.escape(str(error))}</b>"
            return
        guesses.why = why.value.strip()
        for one in (*fields.values(), why, commit):
            one.disabled = True
        state.value = "<b>Committed.</b> Now run the rows."

    commit.on_click(committed)
    return w.VBox([*texts, w.HTML("Why do you think so?"), why, w.HBox([commit, state])])


def as_number(text: str) -> float | str:
    """The number that a text is (with a point, or a comma in its place); else the text."""
    try:
        return float(text.replace("\N{MINUS SIGN}", "-").replace(",", "."))
    except ValueError:
        return text


def comparison(label: str = "quick", x: str = "max_mem_mib", y: str = "images_per_s") -> Any:
    """A widget that shows two figures of a profile's results against each other. Without JupyterLab: one picture.

    `label`: the name of the results folder, such as "quick" or "quick+epochs=1". `x`, `y`: keys of METRIC."""
    from labkit.plots.lessons import comparison_figure  # here, so that a process without pictures does not import matplotlib

    def comparison_picture(names: Any, across: str, up: str) -> Picture:
        chosen = {name: results for name, results in good(read_results(label)).items() if name in names}
        return Picture(comparison_figure(chosen, across, up), f"{METRIC[up].heading['en']} over {METRIC[across].heading['en']}")

    everything = sorted(read_results(label))
    if not interactive():
        return comparison_picture(everything, x, y)
    import ipywidgets as w  # late: keeps ipywidgets out of a process that does not need it

    options = [(metric.heading["en"], metric.key) for metric in METRICS]
    across, up = (
        w.Dropdown(options=options, value=x, description="x axis"),
        w.Dropdown(options=options, value=y, description="y axis"),
    )
    rows = w.SelectMultiple(options=everything, value=everything, rows=8, description="rows", layout=w.Layout(width="640px"))
    image = w.Image(format="png", layout=w.Layout(max_width="900px"))

    def draw(_change: Any = None) -> None:
        image.value = comparison_picture(rows.value, across.value, up.value)._repr_mimebundle_()[0]["image/png"]

    for one in (across, up, rows):
        one.observe(draw, "value")
    draw()
    return w.VBox([w.HBox([across, up]), rows, image])
