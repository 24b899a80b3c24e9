"""What RecTools and RecBole take for what negrec does: ``make bench-peers``.

SASRec with 64 dimensions, 2 blocks, 2 heads, histories of 50, dropout 0.5 and one uniform negative,
on Amazon Beauty from ``$NEGREC_DATA_DIR``, else a random set of its shape: seconds of a training
epoch, seconds to rank the catalogue for all users, and peak memory. Each library is installed from
the package index into an environment of its own, with the torch of ``constraints.txt``; one that
cannot be installed is told in a line, and the other is measured all the same.

Every measurement is a fresh process with the same number of threads; libraries take turns, forwards
and backwards, so that a machine whose speed drifts slows them alike: quote the ratios. On a busy
machine count the processor's seconds instead of the clock's, with one thread:

    make bench-peers ARGS='--rounds=3 --threads=1 --clock=cpu'
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.benchmarks.__main__ import Data, load

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
ENVIRONMENTS = ROOT / ".venv-peers"
INSTALLED = "installed.txt"


@dataclass(frozen=True)
class Peer:
    """A library that is measured.

    Attributes:
        name: as it is shown; its requirements are in ``<name>.txt`` and its code in
            ``run_<name>.py``, in lower case.
        trains: the loss, and what else differs from negrec's.
        asked: how many times as long as negrec's its epoch should take.
        alone: a distribution that is installed without what it asks for.
    """

    name: str
    trains: str
    asked: float | None = None
    alone: str | None = None

    @property
    def stem(self) -> str:
        return self.name.lower()

    @property
    def python(self) -> Path:
        folder = ENVIRONMENTS / self.stem
        return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def command(self) -> list[str]:
        return [str(self.python), str(HERE / f"run_{self.stem}.py")]

    def install(self) -> str | None:
        """Makes its environment; in a line what failed, None where nothing did."""
        folder = ENVIRONMENTS / self.stem
        requirements = HERE / f"{self.stem}.txt"
        limits = (ROOT / "constraints.txt").read_text().splitlines()
        (torch,) = [line for line in limits if line.startswith("torch==")]
        wanted = f"{torch}\n{self.alone}\n{requirements.read_text()}"
        done = folder / INSTALLED
        if done.exists() and done.read_text() == wanted:
            return None
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--progress-bar", "off"]
        pip += ["--disable-pip-version-check"]
        steps = [[sys.executable, "-m", "venv", str(folder)], [*pip, torch]]
        steps += [[*pip, torch, "-r", str(requirements)]]
        steps += [[*pip, "--no-deps", self.alone]] if self.alone else []
        for step in steps:
            try:
                subprocess.run(step, capture_output=True, text=True, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                return last_line(error)
        done.write_text(wanted)
        return None


@dataclass(frozen=True)
class Ours(Peer):
    """negrec in its own environment."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.benchmarks.peers.run_negrec"]


NEGREC = Ours("negrec", "BCE")
PEERS = (
    Peer("RecTools", "BCE; its feed-forward is D wide, negrec's 4 D", asked=10),
    Peer(
        "RecBole",
        "BPR, as it has no BCE; a batch is 256 prefixes of histories",
        asked=50,
        alone="recbole==1.2.1",
    ),
)


@dataclass
class Found:
    """What was measured of a library, a value for each round.

    Attributes:
        seconds: by what was done: epoch, evaluation, lists.
        peak: MB of the process until it had trained.
        note: what the library's own measurement says.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak: list[float] = field(default_factory=list)
    note: str = ""


def last_line(error: OSError | subprocess.CalledProcessError) -> str:
    """What a failure came to."""
    output = getattr(error, "stderr", None) or str(error)
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no message"])[-1]


def exchange(data: Data, path: Path) -> None:
    """Writes the data for the other environments: rows of items with offsets, and targets."""
    histories = data.held_out.histories()
    np.savez(
        path,
        train=data.train.values.numpy(),
        train_offsets=data.train.offsets.numpy(),
        history=histories.values.numpy(),
        history_offsets=histories.offsets.numpy(),
        target=data.held_out.target.numpy(),
    )


def measure(peer: Peer, data: Path, threads: int, clock: str, found: Found) -> None:
    """One fresh process.

    Raises:
        subprocess.CalledProcessError: the library failed.
    """
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(variables, str(threads))}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*peer.command, str(data), folder],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    said = json.loads(done.stdout.splitlines()[-1])
    for name, span in said["spans"].items():
        found.seconds.setdefault(name, []).append(span[clock])
    found.peak.append(said["peak"])
    found.note = said["note"]


def ratio(own: list[float], base: list[float]) -> float:
    """The median over rounds, each seen on its own."""
    return median(a / b for a, b in zip(own, base, strict=True))


def table(found: dict[str, Found], title: str, unit: str) -> Table:
    """Seconds, memory and the ratios to negrec; ! marks a ratio below what is asked."""
    table = Table(title=title, caption=CAPTION)
    headers = ("", "trains", f"{unit} / epoch", "x", "asked", "evaluation", "x")
    headers += ("top 20 of all", "x", "peak MB", "x")
    for header in headers:
        table.add_column(header, justify="left" if header in ("", "trains") else "right")
    ours = found[NEGREC.name]
    for peer in (NEGREC, *PEERS):
        if (own := found.get(peer.name)) is None:
            continue
        cells = []
        for what in ("epoch", "evaluation", "lists"):
            if what not in own.seconds:
                cells += ["", ""]
                continue
            times = ratio(own.seconds[what], ours.seconds[what])
            missed = what == "epoch" and peer.asked is not None and times < peer.asked
            cells += [f"{median(own.seconds[what]):.2f}", f"{times:.1f}" + (" !" if missed else "")]
            if what == "epoch":
                cells.append("" if peer.asked is None else f"{peer.asked:.0f}")
        trains = "; ".join(filter(None, (peer.trains, own.note and f"from {own.note}")))
        peak = (f"{median(own.peak):,.0f}", f"{ratio(own.peak, ours.peak):.1f}")
        table.add_row(peer.name, trains, *cells, *peak)
    return table


CAPTION = """\
x: times negrec's, the median over rounds. In an epoch's seconds: the making of batches and of \
negatives, forward, backward, the optimiser. Not in them: import, reading and preparing the data, \
building the model, a first epoch (of RecBole the first batches) whose process allocates what the \
others use again, checkpoints. evaluation: HR, NDCG and MRR of all users' test targets in the \
ranking of all items without the seen ones; of RecTools the lists they would be made from. top 20: \
the lists; negrec's with all metrics of its test. peak: of the process until it has trained, with \
interpreter, libraries and data."""


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="make bench-peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    found = {NEGREC.name: Found()}
    for peer in PEERS:
        with console.status(f"installing {peer.name} into {ENVIRONMENTS.name} (minutes, once)"):
            failure = peer.install()
        if failure is None:
            found[peer.name] = Found()
        else:
            console.print(f"{peer.name} cannot be installed: {failure}", soft_wrap=True)
    data = load()
    before = os.getloadavg()[0]
    peers = [peer for peer in (NEGREC, *PEERS) if peer.name in found]
    turns = [
        peer
        for turn in range(arguments.rounds)
        for peer in (peers if turn % 2 == 0 else reversed(peers))
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        exchange(data, path)
        for peer in track(turns, "rounds", console=console):
            if peer.name not in found:
                continue
            try:
                measure(peer, path, arguments.threads, arguments.clock, found[peer.name])
            except subprocess.CalledProcessError as error:
                console.print(f"{peer.name} failed: {last_line(error)}", soft_wrap=True)
                del found[peer.name]
    if NEGREC.name not in found:
        raise SystemExit(1)
    unit = "s" if arguments.clock == "wall" else "CPU s"
    title = f"{data.name}, {arguments.threads} threads; median of {arguments.rounds} rounds"
    Console(width=140).print(table(found, title, unit))
    Console().print(f"load average before and after: {before:.2f}, {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
