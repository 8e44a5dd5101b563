"""The report of a large sweep: its size, the time to make it, and the time until a browser shows table and curves.

    python -m benchmarks.report

A journal of 10,000 trials is generated (tests/journals.py), like that of a real sweep: five settings, proposals at
random, learning curves that depend on them, ASHA's stops at epochs 1, 3 and 9 of 27, a share of failed trials, ten
classes with confusion matrices. Nothing is trained. The report is made from it as `python -m orchestrator.report` does,
in a process that makes it several times, and opened from the disk in headless Chromium; the clock starts with the
navigation and stops when the leaderboard's rows and the curves are in the page. Processor time until then is that of
the page's main thread, which a busy machine does not stretch as it does the clock's. Each repeat starts a browser anew.
Then every other plot is scrolled to, and the time from there until it is drawn is measured.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.record import EVIDENCE, BenchmarkError, Figure, Record, Target, say, two_cores
from tests import journals

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
READY = """() => document.querySelectorAll('#trials tbody tr').length > 0
  && document.querySelector('[data-figure=curves] .scatterlayer path') !== null && performance.now()"""


@dataclass(frozen=True)
class Options:
    """Measure the report of a large sweep."""

    trials: int = 10_000
    repeats: int = 5
    evidence: Path = EVIDENCE
    """Folder of the evidence file that is written."""


def main() -> int:
    options = tyro.cli(Options)
    two_cores()
    browser = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if browser is None:
        say("chromium is needed: apt-get install chromium")
        return 1
    record = Record("report", asdict(options))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        journals.write(journals.sweep(options.trials), Path(folder))
        made = [make(Path(folder)) for _ in range(options.repeats)]
        for seconds, size in made:
            record.add({**opened(Path(folder) / "report.html", browser), "make_s": seconds, "size_mb": size})
    figures = [
        Figure("size", "MB", [run["size_mb"] for run in record.runs], Target(15, statistic="max")),
        Figure("time to make it", "s", [run["make_s"] for run in record.runs]),
        Figure("until table and curves are shown", "s", [run["shown_s"] for run in record.runs], Target(3)),
        Figure("of that, processor time of the page", "s", [run["processor_s"] for run in record.runs]),
        Figure("slowest other plot, once scrolled to", "s", [max(run["plots_s"].values()) for run in record.runs]),
    ]
    return 0 if record.write(options.evidence, figures) else 1


def make(folder: Path) -> tuple[float, float]:
    """Make the report; return the seconds it took, and its size in MB (10⁶ bytes)."""
    from orchestrator import report

    started = time.perf_counter()
    path = report.write(folder)
    return round(time.perf_counter() - started, 3), round(path.stat().st_size / 1e6, 3)


def opened(path: Path, browser: str) -> dict[str, Any]:
    """Return seconds from the navigation until table and curves are shown, and for each plot from scrolling to it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(path.as_uri(), wait_until="commit")
        shown = page.wait_for_function(READY, polling=20, timeout=60_000).json_value()
        spent = {one["name"]: one["value"] for one in devtools.send("Performance.getMetrics")["metrics"]}
        plots = {}
        for place in page.query_selector_all("[data-figure]:not([data-drawn])"):
            started = time.perf_counter()
            place.scroll_into_view_if_needed()
            page.wait_for_function("place => place.querySelector('.main-svg') !== null", arg=place, polling=20)
            plots[place.get_attribute("data-figure")] = round(time.perf_counter() - started, 3)
        chromium.close()
    if problems:
        raise BenchmarkError(f"the page has errors: {problems}")
    return {"shown_s": round(shown / 1000, 3), "processor_s": round(spent["TaskDuration"], 3), "plots_s": plots}


if __name__ == "__main__":
    sys.exit(main())
