"""MLflow's pages over a sweep, as a browser really shows them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

from negrec.tracking.base import RUN_ID_TAG
from negrec.tracking.mlflow import PARENT_VARIABLE, VIEW, MLflowTracker
from tests.tracking.stores import Server, Store, until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
BALANCE = {"uniform": 0.4375, "genni": 0.5625}  # in floats exact

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]


class Grid(HTMLParser):
    """The table of runs: what each cell says, by the run's id and the column's name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: dict[str, dict[str, str]] = defaultdict(dict)
        self.headers: set[str] = set()
        self._run = self._column = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        match of.get("role"):
            case "row":
                self._run, self._column = of.get("row-id") or "", ""
            case "gridcell":
                self._column = of.get("col-id") or ""
            case "columnheader":
                self.headers.add(of.get("col-id") or "")

    def handle_data(self, data: str) -> None:
        if self._run and self._column:
            row = self.cells[self._run]
            row[self._column] = row.get(self._column, "") + data.strip()


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[str], str]:
    """Opens an address in a fresh browser; the page's elements once its scripts have run."""

    profiles = count()  # what one visit chose is no start for the next

    def opened(address: str) -> str:
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"]
        command += ["--no-proxy-server", "--window-size=2400,1400"]  # room for all columns
        command += [
            f"--user-data-dir={tmp_path / f'profile{next(profiles)}'}",
            "--virtual-time-budget=20000",
        ]
        done = subprocess.run(
            [*command, "--dump-dom", address], capture_output=True, timeout=120, check=True
        )
        return done.stdout.decode()

    return opened


@pytest.fixture
def sweep(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """A parent with a child for each sampler; MLflow's ids by name."""
    trackers = []

    def start(name: str, tags: dict[str, str]) -> MLflowTracker:
        folder = tmp_path / "multirun" / name
        folder.mkdir(parents=True)
        tracker = MLflowTracker(folder, name, uri=server.uri)
        tracker.start({"k": 1}, {RUN_ID_TAG: name, **tags})
        trackers.append(tracker)
        return tracker

    def ids() -> dict[str, str]:
        return {str(n): str(i) for n, i in store.rows("select name, run_uuid from runs")}

    parent = start("my-sweep", {})
    until(lambda: "my-sweep" in ids())
    monkeypatch.setenv(PARENT_VARIABLE, ids()["my-sweep"])
    for sampler, balance in BALANCE.items():
        child = start(f"beauty-{sampler}-s0", {"negrec.sampler": sampler})
        child.log({"train/loss": 1.0}, 0)
        child.log({"test/hr_10": 0.25, "test/balance_10": balance})
    for tracker in (*trackers[1:], parent):
        tracker.finish("FINISHED")
    yield ids()
    for tracker in trackers:
        tracker.flush_seconds = 0
        tracker.finish("KILLED")  # those that a failed test left open


def test_the_sweep_and_its_balance_are_seen(
    server: Server, sweep: dict[str, str], browse: Callable[[str], str]
) -> None:
    runs = f"{server.uri}/#/experiments/1/runs"
    # Opened without any choice the page shows the sweep alone, its runs folded inside.
    folded = Grid(browse(runs))
    assert set(folded.cells) == {sweep["my-sweep"]}
    assert folded.cells[sweep["my-sweep"]]["attributes.`Run Name`"].endswith("my-sweep")

    # Columns of metrics are the reader's choice; the experiment brings a view that has them.
    columns = ["metrics.`test/balance_10`", "tags.`negrec.sampler`"]
    shown = Grid(browse(f"{runs}?viewStateShareKey={VIEW}"))
    assert {*columns} <= shown.headers
    assert set(shown.cells) == set(sweep.values())
    for sampler, balance in BALANCE.items():
        row = shown.cells[sweep[f"beauty-{sampler}-s0"]]
        assert [row[column] for column in columns] == [str(balance), sampler]
    assert shown.cells[sweep["my-sweep"]][columns[0]] == "-"  # a sweep has no balance of its own

    # The page that compares runs lists every metric without being asked.
    children = [sweep[f"beauty-{sampler}-s0"] for sampler in BALANCE]
    compared = browse(
        f"{server.uri}/#/compare-runs?runs={quote(json.dumps(children))}"
        f"&experiments={quote(json.dumps(['1']))}"
    )
    for text in ("test/balance_10", "0.438", "0.563", "beauty-uniform-s0", "beauty-genni-s0"):
        assert text in compared
