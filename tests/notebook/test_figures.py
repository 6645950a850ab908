"""Tables of a notebook: each figure stands under its heading, with the digits that count."""

from __future__ import annotations

from types import SimpleNamespace

from labkit.notebook import figures
from labkit.notebook.cells import cell_text as as_shown
from labkit.notebook.figures import PARTS, agreement, exchange, latency, sent
from labkit.probes.parts import EXCHANGE, Waited
from labkit.rows.spec import Spec
from labkit.runs.result import RankFigures


def test_agreement_is_counted_under_its_heading(monkeypatch):
    kinds = {"same": 7, "equal": 2, "opposite": 1, "tie_only_here": 4, "tie_only_published": 3, "untold": 5}
    line = {
        "figure": "images_per_s",
        "n": 5,
        "level": "partly",
        "spearman": "+0.50",
        "kendall": "+0.40",
        "pairs": 22,
        "kinds": kinds,
    }
    monkeypatch.setattr("labkit.notebook.figures.ranks", lambda rows: [line])
    shown = agreement(SimpleNamespace(rows=list))
    told = {heading: shown.lines[0][key] for key, heading in shown.headings.items()}
    assert told == {"figure": "Images/s", "rows": 5, "order": "partly the same order", "Spearman": "+0.50", "Kendall": "+0.40",
                    "pairs of rows": 22, "as published": 7, "indistinguishable in both": 2, "in the opposite order": 1,
                    "different as published, indistinguishable here": 4, "too noisy to tell here": 5,
                    "indistinguishable as published, different here": 3}  # fmt: skip


def test_a_cell_has_the_digits_that_count():
    told = {
        1234.5: "1,234",
        12345.6: "12,346",
        123.45: "123.5",
        12.346: "12.35",
        0.98765: "0.9877",
        None: "–",
        True: "yes",
        7: "7",
    }
    assert {value: as_shown(value) for value in told} == told


def a_trace(moving, peer, step=10.0):
    flat = dict.fromkeys(EXCHANGE, [0.0] * len(moving))
    seconds = {"step": [step] * len(moving), **flat, "moving": moving, "peer": peer}
    return SimpleNamespace(waited=lambda: Waited(seconds))


def test_a_faster_link_is_advised_only_where_bytes_are_the_time():
    text = str(exchange(a_trace([0.0040, 0.0042, 0.0041], [0.0010, 0.0011, 0.0010])))
    assert "The largest part, beyond the spread, is moving bytes. A faster link, or fewer bytes, would help." in text
    assert "moving bytes 4.1 ms (4.0 to 4.2); waiting for a slower rank 1.0 ms (1.0 to 1.1)" in text
    late = str(exchange(a_trace([0.001] * 3, [0.0050, 0.0051, 0.0052], step=0.02)))
    assert "waiting for a slower rank. Ranks that come at the same time would help; a faster link would not." in late
    assert late.endswith("Moving the bytes is 5.0 to 5.0 % of a step; a faster link cannot save more.")
    noisy = str(exchange(a_trace([0.001, 0.004, 0.001], [0.004, 0.001, 0.004])))
    assert "Which part decides: too noisy to tell" in noisy and "would help" not in noisy
    assert (
        str(exchange({"one": a_trace([0.003] * 3, [0.0] * 3), "two": None}))
        .splitlines()[1]
        .startswith("- **two**: *Not measured")
    )
    assert PARTS.keys() == set(EXCHANGE)
    assert [part for part, (_, advice) in PARTS.items() if "faster link" in advice and "would not" not in advice] == ["moving"]


def test_what_a_rank_sends_stands_under_its_heading():
    """A worker's rank, and one whose bytes the kernel did not count."""
    spec = Spec(strategy="parameter_server", world_size=2, backend="gloo", device="cpu")
    of_a_rank = {"max_mem_mib": 1.0, "images_timed": 1, "timed_s": 1.0, "images_per_s": 1.0, "train_s": 1.0, "eval_s": 1.0}
    of_a_rank |= {"data_wait_s": 0.0, "steps": 1, "first_step_at": 1.0, "strategy": {}}
    worker = RankFigures(
        0, (0, 2), messages_per_step={"send": [1, 2048], "recv": [1, 1024]}, sent_bytes_per_step=2560.0, **of_a_rank
    )
    server = RankFigures(2, None, messages_per_step={"broadcast": [2, 2048]}, sent_bytes_per_step=None, **of_a_rank)
    ran = SimpleNamespace(
        results={"ps": [SimpleNamespace(spec=spec, ranks=[worker, server, RankFigures(1, (1, 2), **of_a_rank)])]}
    )
    shown = sent(ran)
    first, second, old = ({heading: line.get(key) for key, heading in shown.headings.items()} for line in shown.lines)
    assert first == {"row": "ps", "rank": 0, "messages in a step": "1 send, 1 recv", "their payload (KiB)": 3.0,
                     "sent, by the formula (KiB)": 2.0, "sent, counted by the kernel (KiB)": 2.5}  # fmt: skip
    assert second["rank"] == "server" and second["sent, by the formula (KiB)"] is None
    assert second["sent, counted by the kernel (KiB)"] is None
    assert [*old.values()] == ["ps", 1, None, None, None, None], "a result of before messages were counted"


def test_a_latency_is_called_longer_only_beyond_its_spread(monkeypatch):
    def line(before, low, median, high):
        seconds = {"low_s": low, "median_s": median, "high_s": high, "min_s": low, "max_s": high}
        return {"before": before} | {key: value / 1e6 for key, value in seconds.items()}

    lines = [
        line("message", 80, 100, 120),
        line("pause", 130, 300, 400),
        line("cache", 390, 900, 999),
        line("memory", 1000, 1100, 1200),
    ]
    monkeypatch.setattr(figures, "waits", lambda ranks: lines)
    note = latency(SimpleNamespace(link={"group": (0.002, 1.0)}, spec=SimpleNamespace(name="a row"))).note
    assert "Threads that sleep must be woken by the kernel: 300 µs after a pause of 20 ms, 100 after other messages" in note
    assert "After 20 ms of computing in the caches it is not longer, beyond the spread, than after a pause of 20 ms." in note
    assert "What a message needs is no longer in the caches: 1,100 µs" in note
    assert latency(SimpleNamespace(link={"group": (0.002, 1.0)}, spec=SimpleNamespace(name="a row"))).lines[-1]["median"] == 2000
