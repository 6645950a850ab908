"""Tables of a notebook: each figure stands under its heading, with the digits that count."""

from __future__ import annotations

from types import SimpleNamespace

from labkit.notebook.cells import cell_text as as_shown
from labkit.notebook.figures import agreement


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
