"""Finding runs by their id."""

import difflib
import json
from pathlib import Path

from filelock import FileLock, Timeout

from negrec.errors import InputError


def find_run(run_id: str, root: Path) -> Path:
    """The folder of a run, single or part of a sweep.

    Args:
        run_id: the "run_id" of the run's ``run.json``.
        root: the folder that holds all runs (``multirun``).
    """
    folders: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("run.json")):
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, OSError):
            continue  # a run that was killed while it wrote the file has no id yet
        if isinstance(found, dict) and isinstance(found.get("run_id"), str):
            folders.setdefault(found["run_id"], []).append(path.parent)
    match folders.get(run_id, []):
        case [folder]:
            return folder
        case []:
            raise InputError(f"run={run_id}: no such run in {root}/{_hint(run_id, list(folders))}")
        case several:
            listed = ", ".join(map(str, several))
            raise InputError(f"run={run_id}: several folders have this id, keep one: {listed}")


def at_work(folder: Path) -> bool:
    """Whether another process is at work on the run in a folder, by the lock that it holds."""
    file = folder / "run.lock"
    if not file.exists():
        return False
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _hint(run_id: str, known: list[str]) -> str:
    if not known:
        return ", there are no runs; give the folder that the command was typed in"
    part = [name for name in known if run_id and (run_id in name or name in run_id)]
    near = part or difflib.get_close_matches(run_id, known, n=3, cutoff=0.5)
    return f"; near ones: {', '.join(near[:3])}" if near else f"; there are {len(known)} others"
