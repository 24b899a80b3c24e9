"""No line of negrec can run what data, a download or a run's folder says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import negrec

FILES = sorted(Path(negrec.__file__).parent.rglob("*.py"))
MODULES = ("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
CALLS = (
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle"),
    *("subprocess.getoutput", "subprocess.getstatusoutput"),
)
LOADS = ("torch.load", "torch.hub.load", "torch.jit.load", "numpy.load", "np.load")


def offences(source: str) -> Iterator[str]:
    """What a source does that it must not, with the line."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found = [a.name for a in names if a.name.split(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module), names=names):
                from_ = [f"{module}.{a.name}" for a in names]
                found = [f for f in from_ if f in CALLS or f in LOADS]
                found += [module] if module.split(".")[0] in MODULES else []
            case ast.Call(func=function, keywords=keywords):
                found = list(_of_a_call(ast.unparse(function), keywords))
            case _:
                continue
        yield from (f"line {node.lineno}: {what}" for what in found)


def _of_a_call(name: str, keywords: list[ast.keyword]) -> Iterator[str]:
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in keywords}
    if name in CALLS:
        yield name
    if name in LOADS[:3] and given.get("weights_only") != "True":
        yield f"{name} without weights_only=True"
    if name in LOADS[3:] and given.get("allow_pickle", "False") != "False":
        yield f"{name} with pickle"
    if given.get("shell", "False") != "False":
        yield f"{name} with a shell"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_that_is_read_can_run(file):
    assert list(offences(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import marshal as m",
        "eval('1')",
        "exec(text)",
        "import os; os.system('ls')",
        "from os import system",
        "subprocess.run('ls', shell=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "tempfile.mktemp()",
    ],
)
def test_what_is_refused(source):
    if source == "from os import system":
        assert list(offences(source)) == ["line 1: os.system"]
    assert list(offences(source))


@pytest.mark.parametrize(
    "source",
    ["model.eval()", "torch.load(p, weights_only=True)", "yaml.safe_load(t)", "np.load(p)"],
)
def test_what_is_not(source):
    assert list(offences(source)) == []
