"""The live view of a search: fits 80 columns, obeys no name, lines where there is no terminal, outlives its reader."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from mcutune.cli.progress import Estimate, View, shown_trials
from mcutune.cli.render import SearchView, drawing
from mcutune.cli.screen import console
from mcutune.cli.text import count, duration, score, value
from mcutune.inert import inert
from mcutune.search.progress import TrialView

KEYS = ("rank", "beta", "sensitivity", "encoder_kind", "range")
HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]x[/red]\u202e\n"


def row(number: int, state: str = "finished", mark: float | None = 0.6, epoch: int = 30, fold: str = "3") -> TrialView:
    settings = {"rank": 8, "beta": 1.234567e-05, "sensitivity": 0.0125, "encoder_kind": "dialogue", "range": 0.2}
    return TrialView(fold, number, state, epoch, 30, mark, settings)


def view(**changes: Any) -> View:
    trials = [*(row(n, mark=0.6 + n / 1000) for n in range(12)), *(row(n, "running", None, n) for n in range(12, 28))]
    counts = {"finished": 12, "pruned": 80, "running": 16}
    base = View(
        run="full-a_dataset_with_a_long_name", wanted=320, share=0.31, counts=counts,
        best=[row(11, mark=0.611), row(5, mark=0.7, fold="speaker_12_session_4")], trials=trials, keys=KEYS,
        baseline={"3": 0.6}, packs=2, lanes=30, places=32, epochs_per_second=812.4, dashboard="http://127.0.0.1:8265",
    )  # fmt: skip
    return replace(base, **changes)


def drawn(shown: View) -> list[str]:
    out = io.StringIO()
    console(file=out, width=80).print(drawing(shown, 100.0, 222.0))
    return out.getvalue().splitlines()


def test_the_drawing_fits_a_small_terminal() -> None:
    lines = drawn(view())
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 22
    text = "\n".join(lines)
    for wanted in ("full-a_dataset", "31%", "3 min 42 s left", "92/320 trials", "16 running", "2 packs, 30/32 lanes",
                   ".611", "trial 11 (trial 0 .600)", "812 epochs/s", "http://127.0.0.1:8265", "1.23e-05"):  # fmt: skip
        assert wanted in text


def test_no_name_is_obeyed() -> None:
    hostile = TrialView(HOSTILE, 1, HOSTILE, 1, 2, 0.5, {HOSTILE: HOSTILE})
    shown = view(run=HOSTILE, best=[hostile], trials=[hostile], keys=[HOSTILE], note=HOSTILE, dashboard=HOSTILE)
    out = io.StringIO()
    with SearchView(plain_lines=True, out=console(file=out, width=80)) as draw:
        draw(replace(shown, trials=[]))
        draw(shown)
    for text in ("\n".join(drawn(shown)), out.getvalue()):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        assert "[red]" in text


def test_plain_lines_tell_each_end_once_and_the_best() -> None:
    out = io.StringIO()
    with SearchView(plain_lines=True, out=console(file=out, width=80)) as draw:
        draw(view(trials=[row(0)]))
        for _ in range(3):
            draw(view(trials=[row(0), row(11, mark=0.611), row(12, "pruned", 0.55)]))
    lines = out.getvalue().splitlines()
    assert [line for line in lines if "trial 0 " in line] == []  # ended before this process began
    (best,) = [line for line in lines if "trial 11 finished" in line]
    assert ".611 (best so far)" in best
    assert "rank=8 beta=1.23e-05" in best
    assert sum("trial 12 pruned" in line for line in lines) == 1
    assert sum("92 of 320 trials ended" in line for line in lines) == 1


def test_a_closed_output_does_not_end_the_search() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with SearchView(plain_lines=True, out=console(file=Closed())) as draw:
        draw(view())
        draw(view())


def test_the_estimate_counts_from_where_a_resumed_run_stood() -> None:
    estimate = Estimate()
    assert estimate.left(0.5, 100.0) is None
    assert estimate.left(0.5, 140.0) is None  # packs start; that is no pace
    assert estimate.left(0.75, 150.0) == pytest.approx(10.0)
    assert estimate.elapsed(150.0) == 50.0


def test_the_best_finished_and_the_furthest_running_are_shown() -> None:
    rows = shown_trials(view(), 10)
    assert [one.number for one in rows] == [11, 10, 9, 8, 7, 27, 26, 25, 24, 23]
    few = shown_trials(view(trials=[row(n) for n in range(12)]), 10)
    assert len(few) == 10


def test_texts() -> None:
    assert (duration(42), duration(185), duration(7620), duration(3 * 86400 + 4 * 3600)) == (
        "42 s", "3 min 05 s", "2 h 07 min", "3 d 04 h",
    )  # fmt: skip
    assert (score(0.6621), score(1.2), score(-0.031), score(None), score(1.0)) == (
        ".662",
        "1.200",
        "-.031",
        "–",
        "1.000",
    )
    assert (count(1, "trial"), count(12000, "row"), count(2, "class", "classes")) == (
        "1 trial",
        "12,000 rows",
        "2 classes",
    )
    assert (value(None), value(1e-5), value(True), value([1, 0.5]), value("a\x1bb")) == (
        "none",
        "1e-05",
        "yes",
        "1, 0.5",
        "a\\x1bb",
    )
    assert inert("x" * 50, limit=10) == "xxxxxxxxx…"
    assert inert("a\u2028b\ud800c\u200b") == "a\\u2028b\\ud800c\\u200b"
