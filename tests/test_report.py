"""`report.html`: what it says, and, in headless Chromium, that it works there and loads nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import journals
import pytest
from conftest import Command, Finished

from orchestrator import report
from orchestrator.record.events import (
    AttemptLost,
    Event,
    SweepEnded,
    SweepResumed,
    SweepStarted,
    TrialAttempt,
    TrialEnded,
    TrialEpoch,
    TrialFeatures,
    TrialProposed,
    parse,
)
from orchestrator.record.facts import Spec
from orchestrator.record.lanes import Span, lanes
from orchestrator.record.ranking import slot_use
from orchestrator.record.state import TrialRecord, replay
from orchestrator.report import __main__ as command_line
from orchestrator.report.confusions import ClassRow, by_class
from orchestrator.report.contact_sheet import ClassPictures, Sheet
from orchestrator.report.figures import chosen
from orchestrator.report.timeline import BINS, timeline, used
from trainables.config import TrialConfig
from trainables.datasets.inventory import Inventory, LeftOut

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TRIALS = 60


def proposed(events: list[Event]) -> list[Event]:
    """Return what a sweep has written when its first trials have begun."""
    return [event for event in events if event.t == 0]


def failing(events: list[Event], error: str = "RuntimeError: made up") -> list[Event]:
    """Return the same sweep, had every trial failed before its first epoch."""
    return [
        replace(event, status="failed", stop_reason="error", error=error) if isinstance(event, TrialEnded) else event
        for event in events
        if not isinstance(event, TrialEpoch)
    ]


def cut(events: list[Event], share: float = 0.5) -> list[Event]:
    """Return what a sweep had written when it was this far."""
    return events[: int(share * len(events))]


SEARCH = journals.sweep(TRIALS)
ONE = journals.sweep(1)
CONFIRMED = journals.confirm(journals.sweep(20, confirm=2, confirm_seeds=3))
CONDITIONAL = (("optimizer=choice(sgd,adamw)", "momentum=uniform(0.8,0.99) if optimizer=sgd"),)
STATES = {
    "nothing": SEARCH[:1],
    "proposed": proposed(SEARCH),
    "running": cut(SEARCH),
    "one trial": ONE,
    "all failed": failing(SEARCH),
    "unconfirmed": SEARCH,
    "conditional": journals.sweep(20, search=CONDITIONAL),
    "minimised": journals.sweep(20, metric="val_loss"),
    "interrupted": [*cut(SEARCH), SweepEnded("signal", t=1e4)],
}


def made(events: list[Event], folder: Path) -> str:
    """Return the report of a sweep with these events."""
    return report.write(journals.write(events, folder)).read_text()


def text_of(page: str) -> str:
    """Return the text of a page, without styles and scripts."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)))


def data_of(page: str, name: str = "columns") -> Any:
    """Return the data of the page's scripts: the leaderboard's columns, or the figures by name."""
    found = re.search(f'<script type="application/json" id="data-{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("nothing", ("Running, as of", "No trial has a score yet", "No trial has been proposed yet")),
        ("proposed", ("Running, as of", "No trial has a score yet", "8 running")),
        ("running", ("Running, as of", "best of the search", "python -m orchestrator.report")),
        ("one trial", ("best of the search", "Best model: trial 0", "How it was run")),
        ("all failed", ("No trial has a score", "60: 60 failed", "1 different error", "RuntimeError: made up")),
        ("unconfirmed", ("Not confirmed", "the test set is still sealed", "--confirm 3")),
        ("minimised", ("by val_loss: lower is better", "best of the search")),
        ("interrupted", ("Ended: interrupted", "It can go on where it was: python -m orchestrator.sweep")),
    ],
)
def test_what_it_says_of_a_sweep(state: str, told: tuple[str, ...], tmp_path: Path) -> None:
    text = text_of(made(STATES[state], tmp_path))
    assert [words for words in told if words not in text] == []


def test_a_confirmed_sweep_begins_with_what_is_to_be_expected(tmp_path: Path) -> None:
    text = text_of(made(CONFIRMED, tmp_path))
    found = re.search(
        r"best of the search (0\.\d{4}).* confirmed (0\.\d{4}) \[.*\].* on the test set (0\.\d{4}) \[", text
    )
    assert found is not None
    assert found[2] == "0.9450"  # the mean of 0.95, 0.945, 0.94
    assert found[3] == "0.9350"
    assert re.search(r"trial \d+, the winner: mean of 3 new seeds", text)
    assert re.search(r"Best model: trial \d+, run again as 21 ", text)  # the run with the median score
    assert "Confusion matrix, test: 2,000 rows" in text


def test_the_classes_that_are_recognized_least_come_first() -> None:
    confusion = [[8, 2, 0], [0, 5, 5], [0, 0, 0]]
    (part, rows) = by_class(of_best(confusion), ["cat", "dog"]) or ("", [])
    assert part == "validation"
    assert rows == [
        ClassRow("dog", 10, 5 / 7, 0.5, "class 2", 5),
        ClassRow("cat", 10, 1.0, 0.8, "dog", 2),
        ClassRow("class 2", 0, 0.0, None, "", 0),
    ]
    assert by_class(of_best(None), []) is None


def of_best(confusion: list[list[int]] | None) -> TrialRecord:
    """Return a trial of one epoch with this confusion matrix."""
    trial = TrialRecord(0, {}, TrialConfig().to_dict(), 0.0)
    trial.epochs.append({"epoch": 1, "val_confusion": confusion})
    trial.best_epoch = 1
    return trial


def test_class_by_class_and_calibration_are_those_of_the_test_set(tmp_path: Path) -> None:
    page = made(CONFIRMED, tmp_path)
    text = text_of(page)
    assert "Of the test rows, the class that is recognized least first" in text
    assert "class 02000.940.94class 1, 13 ×" in text  # rows, recall, precision
    assert data_of(page, "figures")["reliability"]["data"][1]["x"] == [0.5, 0.95]
    assert "reliability" not in data_of(made(SEARCH, tmp_path), "figures")


def test_the_data_section_begins_with_the_contact_sheet(tmp_path: Path) -> None:
    inventory = Inventory("class folders", {"train": {"cat": 5, "<dog>": 7}}, (LeftOut("hidden file", 2, (".a",)),))
    spec = replace(SEARCH[0].spec, inventory=inventory.to_dict())  # type: ignore[attr-defined]
    begun = [replace(SEARCH[0], spec=spec), *SEARCH[1:]]  # type: ignore[call-arg]
    text = text_of(made(begun, tmp_path))
    assert "classrows" in text
    assert "&lt;dog&gt;7" in text
    assert "2 classes of 5 to 7 rows. Pictures are added when the sweep ends." in text
    assert "left out2, hidden file: .a, …" in text
    sheet = Sheet(8, [ClassPictures("cat", ["data:image/webp;base64,AAAA"])])
    folder = tmp_path  # the report is written again
    (folder / "contact.json").write_text(json.dumps(asdict(sheet)))
    page = report.write(folder).read_text()
    assert '<img src="data:image/webp;base64,AAAA" alt="cat" class="pixels">' in page
    assert "Pictures are shown of the first class." in page
    (folder / "contact.json").write_text('{"side": 1')
    assert "Pictures are added" in report.write(folder).read_text()


def test_the_leaderboard_has_every_trial(tmp_path: Path) -> None:
    columns = {column["name"]: column["values"] for column in data_of(made(SEARCH, tmp_path))}
    assert sorted(columns["trial"]) == list(range(TRIALS))
    scores = [score for score, rank in zip(columns["score"], columns["rank"], strict=True) if rank is not None]
    assert scores == sorted(scores, reverse=True)
    assert {"lr", "dropout", "train_fraction", "status", "val_loss"} <= set(columns)


def test_what_labels_are_worth_is_shown_where_it_was_searched(tmp_path: Path) -> None:
    told = text_of(made(SEARCH, tmp_path))
    assert "What labels are worth train_fractionlabelstrialsin full" in told
    assert "medians are of survivors" in told
    fixed = journals.sweep(20, set=(("train_fraction=1",),))
    assert "What labels are worth" not in made(fixed, tmp_path)


def test_a_setting_that_was_not_drawn_has_no_value(tmp_path: Path) -> None:
    page = made(STATES["conditional"], tmp_path)
    columns = {column["name"]: column["values"] for column in data_of(page)}
    pairs = list(zip(columns["optimizer"], columns["momentum"], strict=True))
    assert {optimizer for optimizer, _ in pairs} == {"sgd", "adamw"}
    assert all((momentum is None) == (optimizer == "adamw") for optimizer, momentum in pairs)
    assert "uniform(0.8, 0.99) if optimizer=sgd" in text_of(page)


def test_how_it_was_run_and_is_run_again(tmp_path: Path) -> None:
    assert isinstance(SEARCH[0], SweepStarted)
    spec = replace(SEARCH[0].spec, command="sweep.py digits --name old --trials 60", git={"revision": "abc"})
    text = text_of(made([SweepStarted(spec), *SEARCH[1:]], tmp_path))
    assert "git checkout abc python -m orchestrator.sweep digits --trials 60 --seed 0" in text
    assert "sweep.py digits --name old --trials 60" in text


def test_text_of_the_record_cannot_leave_its_place(tmp_path: Path) -> None:
    error = "</script><script>alert(1)</script><img src=x>"
    page = made(failing(ONE, error), tmp_path)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert data_of(page)[-1]["values"] == [error]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "is not a sweep's folder: it has no journal.jsonl"),
        ("", "does not say how the sweep began"),
        ("not a journal\n\x00\x01", "none of its lines can be read"),
        ('{"v": 99, "n": 0}\n', "has schema 99, this version reads"),
        ('{"v": 3, "n": 0, "t": 0, "event": "sweep_started", "spec": {"plan": 5}}\n', "none of its lines can be read"),
        ('{"v": 3, "n": 0, "t": 0, "event": "trial_proposed", "trial": 1}\n', "none of its lines can be read"),
        ('{"v": 2, "n": 0, "t": 0, "event": "sweep_started", "spec": {"plan": 5}}\n', "none of its lines can be read"),
        ('{"v": 2, "n": 0, "t": 0, "event": "trial_proposed", "trial": 1}\n', "none of its lines can be read"),
    ],
)
def test_a_foreign_or_damaged_folder_is_refused(
    content: str | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "journal.jsonl").write_text(content)
    assert command_line.main([str(tmp_path)]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_the_command_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([]) == 2
    assert "no sweep is named: give the folder of one" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--all"])
    assert ended.value.code == 2
    assert "unknown option --all" in capsys.readouterr().err


def test_a_journal_that_changes_nothing_for_its_torn_end(tmp_path: Path) -> None:
    journals.write(SEARCH, tmp_path)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"v": 2, "n": 99999, "t"')
    before = (tmp_path / "journal.jsonl").read_bytes()
    assert report.write(tmp_path).is_file()
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_every_sweep_ends_with_one(finished: tuple[Finished, Path]) -> None:
    folder = finished[1]
    page = (folder / "report.html").read_text()
    best = finished[0].result["best"]
    assert f"{best['score']:.4f}" in text_of(page)
    pictures = list((folder / "confused").glob("*.webp")) if (folder / "confused").exists() else []
    of_classes = sum(len(one["pictures"]) for one in json.loads((folder / "contact.json").read_text())["classes"])
    assert page.count("data:image/webp;base64,") == len(pictures) + of_classes
    assert all(path.stat().st_size < 20_000 for path in pictures)
    assert bool(pictures) == (best["score"] < 1)


def test_it_can_be_made_again_without_the_data(
    finished: tuple[Finished, Path], command: Command, tmp_path: Path
) -> None:
    shutil.copytree(finished[1], folder := tmp_path / "again")
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    done = command("orchestrator.report", folder)
    assert done.code == 0, done.err
    assert done.out == f"{folder / 'report.html'}\n"
    after = (folder / "report.html").read_text()
    assert data_of(after) == data_of(before)
    assert data_of(after, "figures") == data_of(before, "figures")
    assert after.count("data:image") == before.count("data:image")


def test_a_report_that_cannot_be_made_costs_the_sweep_nothing(
    finished: tuple[Finished, Path], command: Command, tmp_path: Path
) -> None:
    shutil.copytree(finished[1], folder := tmp_path / "quick")
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    done = command("orchestrator.sweep", "--resume", "quick", "--results", tmp_path)
    assert done.code == 0, done.err
    assert "report.html could not be written" in done.err
    assert (folder / "leaderboard.parquet").is_file()


def test_a_large_sweep_is_drawn_from_its_best_trials_and_a_sample() -> None:
    trials = [TrialRecord(number, {}, TrialConfig().to_dict(), 0.0) for number in range(100)]
    drawn = [trial.number for trial in chosen(trials, 10, 20)]
    assert drawn[:10] == list(range(10))
    assert len(set(drawn)) == 30
    assert drawn == sorted(drawn) == [trial.number for trial in chosen(trials, 10, 20)]
    assert chosen(trials, 50, 50) == trials


def test_the_timeline_has_attempts_without_the_time_between_commands() -> None:
    config = TrialConfig().to_dict()
    events: list[Event] = [
        SweepStarted(Spec(), t=0), TrialProposed(0, {}, config, t=10), TrialAttempt(0, 0, t=10),
        AttemptLost(0, 0, "", t=15), TrialAttempt(0, 1, t=16), TrialProposed(1, {}, config, t=17),
        TrialAttempt(1, 0, t=17), SweepEnded("signal", t=20), SweepResumed(Spec(), t=1000), TrialAttempt(0, 2, t=1001),
        TrialEnded(0, 2, "completed", "budget", t=1005),
    ]  # fmt: skip
    found = timeline(events)
    assert found.spans == [Span(0, 0, 0, 5), Span(0, 1, 6, 10), Span(1, 0, 7, 10), Span(0, 2, 11, 15)]
    assert found.resumed == [10]
    assert found.end == 15
    assert timeline(events[:5]).spans[-1] == Span(0, 1, 6, 6)  # runs still


def test_lanes_are_as_many_as_run_at_a_time() -> None:
    spans = [Span(0, 0, 0, 4), Span(1, 0, 1, 2), Span(2, 0, 2, 6), Span(3, 0, 4, 5)]
    assert [lane for lane, _ in lanes(spans)] == [0, 1, 1, 0]


def test_slot_use_is_the_share_of_work() -> None:
    found = timeline(SEARCH)
    share = used(found, journals.SLOTS)
    expected = (journals.TRAIN_S + journals.EVAL_S) / journals.EPOCH_S
    assert sum(share[: BINS // 2]) / (BINS // 2) == pytest.approx(expected, abs=0.02)
    assert max(share) <= 1


def test_features_are_work() -> None:
    """Count the seconds of two workers that compute features before their first epochs, in the state and when drawn."""
    config = TrialConfig().to_dict()
    epoch = {"epoch": 1, "train_s": 1.0, "eval_s": 1.0, "val_accuracy": 0.5}
    events: list[Event] = [
        SweepStarted(Spec(slots=2), t=0),
        *(TrialProposed(number, {}, config, t=0) for number in (0, 1)),
        *(TrialAttempt(number, 0, t=0) for number in (0, 1)),
        TrialFeatures(0, 0, 64, 200, 3.0, t=4), TrialFeatures(1, 0, 128, 200, 2.0, t=4),
        TrialFeatures(0, 0, 200, 200, 4.0, t=8), TrialEpoch(0, 0, epoch, t=10),
        TrialEnded(0, 0, "completed", "budget", t=10), TrialEnded(1, 0, "stopped", "asha", t=10),
    ]  # fmt: skip
    state = replay(events)
    assert (state.trials[0].features, state.trials[0].worked_s) == ((200, 200), 9)
    assert slot_use(state) == pytest.approx((9 + 2) / 20)
    assert timeline(events).work == [(1, 4), (2, 4), (4, 8), (8, 10)]
    assert parse(events[5].content() | {"n": 0, "t": 4.0}) == replace(events[5], n=0)


# In a browser.


@dataclass
class Opened:
    """A page in Chromium, with what it complained of and asked for."""

    page: Any
    problems: list[str] = field(default_factory=list)

    def cells(self, column: str) -> list[str]:
        """Return the cells of a column of the leaderboard."""
        names = self.page.eval_on_selector_all("#trials thead th", "all => all.map(one => one.dataset.column)")
        place = names.index(column) + 1
        found = self.page.eval_on_selector_all(
            f"#trials tbody tr > :nth-child({place})", "all => all.map(o => o.textContent)"
        )
        return [str(text) for text in found]

    def scroll_through(self) -> None:
        """See every plot, which draws it."""
        for place in self.page.query_selector_all("[data-figure]"):
            place.scroll_into_view_if_needed()
            self.page.wait_for_function("place => place.querySelector('.main-svg') !== null", arg=place)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Yield a browser, if this machine has one."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Any]:
    """Open a report, and check at the end that it had no error and asked for nothing."""
    opened: list[Opened] = []

    def open_page(path: Path, **options: Any) -> Opened:
        page = chromium.new_page(**options)
        made = Opened(page)
        page.on("pageerror", lambda error: made.problems.append(str(error)))
        page.on("console", lambda line: made.problems.append(line.text) if line.type in ("error", "warning") else None)
        page.on("request", lambda asked: None if asked.url == path.as_uri() else made.problems.append(asked.url[:200]))
        page.goto(path.as_uri())
        page.wait_for_function("document.documentElement.dataset.plots === 'ready'")
        opened.append(made)
        return made

    yield open_page
    for one in opened:
        assert [problem for problem in one.problems if not problem.startswith("data:")] == []
        one.page.close()


@pytest.mark.browser
@pytest.mark.parametrize("state", [*STATES, "confirmed"])
def test_every_state_is_shown_without_an_error(state: str, visit: Any, tmp_path: Path) -> None:
    page = report.write(journals.write(STATES.get(state, CONFIRMED), tmp_path))
    opened = visit(page)
    opened.scroll_through()
    for choice in opened.page.query_selector_all("[data-shows] option"):
        choice.evaluate("one => { one.selected = true; one.parentElement.dispatchEvent(new Event('change')) }")


@pytest.mark.browser
def test_the_leaderboard_is_sorted_filtered_and_paged(visit: Any, tmp_path: Path) -> None:
    opened = visit(report.write(journals.write(SEARCH, tmp_path)))
    page = opened.page
    assert opened.cells("rank") == [str(rank) for rank in range(1, 51)]
    page.click("#next")
    assert len(opened.cells("rank")) == TRIALS - 50
    page.click("th[data-column=lr] button")
    rates = [float(text) for text in opened.cells("lr")]
    assert rates == sorted(rates)
    assert page.get_attribute("th[data-column=lr]", "aria-sort") == "ascending"
    assert page.get_attribute("th[data-column=rank]", "aria-sort") is None
    page.focus("th[data-column=lr] button")
    page.keyboard.press("Enter")
    rates = [float(text) for text in opened.cells("lr")]
    assert rates == sorted(rates, reverse=True)
    page.fill("#filter", "score>0.9 epochs >= 27")
    assert opened.cells("score")
    assert all(float(text) > 0.9 for text in opened.cells("score"))
    assert set(opened.cells("epochs")) == {"27"}
    page.fill("#filter", "")
    page.select_option("#status", "stopped")
    assert set(opened.cells("status")) == {"stopped"}
    page.fill("#filter", "no such word")
    assert opened.cells("status") == []
    assert page.text_content("#count") == f"0 of {TRIALS} trials"


@pytest.mark.browser
def test_heavy_plots_are_drawn_when_they_are_seen(visit: Any, tmp_path: Path) -> None:
    opened = visit(report.write(journals.write(SEARCH, tmp_path)))
    assert opened.page.query_selector("[data-figure=curves] .main-svg") is not None
    assert opened.page.query_selector("[data-figure=parallel] .main-svg") is None
    opened.scroll_through()
    assert opened.page.query_selector("[data-figure=parallel] .main-svg") is not None


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(scheme: str, visit: Any, tmp_path: Path) -> None:
    phone = {"width": 390, "height": 844}
    opened = visit(report.write(journals.write(CONFIRMED, tmp_path)), viewport=phone, color_scheme=scheme)
    opened.scroll_through()
    assert opened.page.evaluate("document.documentElement.scrollWidth") == phone["width"]
    shades = opened.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(shades[:3]) < 200) == (scheme == "dark")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "fits"), [(1_280, True), (390, False)])
def test_a_matrix_of_twenty_classes_fits_or_is_seen_to_scroll(
    width: int, fits: bool, visit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "CLASSES", 20)
    events = journals.confirm(journals.sweep(6, confirm=1, confirm_seeds=2))
    page = visit(report.write(journals.write(events, tmp_path)), viewport={"width": width, "height": 800}).page
    inner, outer = page.eval_on_selector(".matrix-frame", "one => [one.scrollWidth, one.clientWidth]")
    assert (inner <= outer) == fits
    hint = page.eval_on_selector(".matrix-frame + .caption", "one => getComputedStyle(one, '::before').content")
    assert ("scrolls sideways" in hint) == (not fits)
    page.eval_on_selector(".matrix-frame", "one => one.scrollTo(9999, 0)")  # the names of the rows stay
    (name,) = page.eval_on_selector_all(
        ".matrix tbody tr:first-child th", "all => [all[0].getBoundingClientRect().left]"
    )
    assert name >= 0


@pytest.mark.browser
def test_printed_it_is_light_and_has_every_plot(visit: Any, tmp_path: Path) -> None:
    opened = visit(report.write(journals.write(CONFIRMED, tmp_path)), color_scheme="dark")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.query_selector("[data-figure]:not(:has(.main-svg))") is None
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


@pytest.mark.browser
def test_the_page_can_be_walked_by_keyboard(visit: Any, tmp_path: Path) -> None:
    """Every link, button, field and scrolling part has the focus once, in the order of the page, and shows it."""
    page = visit(report.write(journals.write(CONFIRMED, tmp_path))).page
    wanted = page.evaluate(
        "document.querySelectorAll('a, button:not(:disabled), input, select, summary, [tabindex=\"0\"]').length"
    )
    seen = set()
    for place in range(wanted):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
        if place == 2:
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    hidden = page.evaluate("[...document.querySelectorAll('[hidden] button')].length")
    assert len(seen) >= wanted - hidden


@pytest.mark.browser
def test_pictures_of_what_is_confused_are_shown(finished: tuple[Finished, Path], visit: Any) -> None:
    page = visit(finished[1] / "report.html").page
    sizes = page.eval_on_selector_all(".pictures img", "all => all.map(one => one.naturalWidth)")
    assert all(size == 8 for size in sizes)
    assert page.eval_on_selector_all("img:not([alt])", "all => all.length") == 0
