"""The verbs."""

import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import negrec
from negrec.commandline import ranks
from negrec.errors import InputError
from negrec.training.interruption import exit_code, terminable


@dataclass(frozen=True)
class Verb:
    """One verb: the ``module:function`` that gets the arguments behind it, and its help line."""

    target: str
    summary: str

    def __call__(self, arguments: Sequence[str]) -> int:
        module, function = self.target.split(":")
        code: int = getattr(import_module(module), function)(list(arguments))
        return code


VERBS = {
    "train": Verb(
        "negrec.commandline.train:main", "train a recommender, measure it, log it to MLflow"
    ),
    "choose": Verb(
        "negrec.commandline.choose:main", "find the sampler for your data within your time"
    ),
    "report": Verb(
        "negrec.commandline.report:main", "say which sampler to use, from the runs of a sweep"
    ),
    "rescore": Verb(
        "negrec.commandline.rescore:main",
        "recompute metrics of finished runs with other cut-offs or popularity groups",
    ),
    "check": Verb(
        "negrec.commandline.check:main", "see whether your own sampler or loss keeps the contracts"
    ),
    "bench": Verb(
        "negrec.commandline.bench:main", "measure what samplers and losses cost on your data"
    ),
    "inspect": Verb(
        "negrec.commandline.inspect:main", "look at what a finished run predicts for one user"
    ),
    "data": Verb("negrec.commandline.data:main", "list, fetch, describe and convert data sets"),
    "recommend": Verb(
        "negrec.commandline.recommend:main", "write what a finished run recommends to whom"
    ),
    "refit": Verb(
        "negrec.commandline.refit:main", "train a finished run's configuration on all data"
    ),
    "export": Verb(
        "negrec.commandline.export:main", "write a finished run's model for use without negrec"
    ),
    "ui": Verb("negrec.tracking.ui:main", "open MLflow's pages over the runs of this folder"),
    "sync": Verb("negrec.tracking.sync:main", "send what a run kept back while MLflow was away"),
}

EXAMPLES = """\
examples:
  negrec train                                  SASRec, uniform negatives, embedded data
  negrec train sampler=genni alpha=2.5          another sampler and its main knob
  negrec train clicks.csv                       your own table of user, item, timestamp
  negrec train -m sampler=uniform,genni seed=0,1,2
                                                a sweep of six runs
  negrec report                                 which sampler to use, by the newest sweep
  negrec choose clicks.csv budget=2h            find the sampler for your data
  negrec train run=ID                           go on with an interrupted run
  negrec inspect run=ID user=USER               what it predicts for one of your users
  negrec recommend run=ID -o recs.parquet       what to show to whom
  negrec ui                                     see the runs

negrec VERB --help says more; tab completion: eval "$(negrec train -sc install=bash)"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command ``negrec ARGUMENTS`` and returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with terminable():
            code = run(arguments)
            sys.stdout.flush()
    except InputError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        if not ranks.silent():
            print(f"negrec: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        if not ranks.silent():
            print("negrec: interrupted", file=sys.stderr)
        return exit_code(error)
    except BrokenPipeError:  # `negrec --help | head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def run(arguments: Sequence[str]) -> int:
    """Hands the arguments to the verb they start with."""
    match list(arguments):
        case [] | ["-h" | "--help" | "help"]:
            print(usage(), end="")
            return 0
        case ["--version" | "-V"]:
            print(f"negrec {negrec.__version__}")
            return 0
        case ["-sc" | "--shell-completion", *_]:
            return complete(arguments)
        case [word, *rest] if word in VERBS:
            if ranks.several() and word != "train":
                raise InputError(f"torchrun is for `negrec train`: type negrec {word} without it")
            return VERBS[word](rest)
        case [word, *_]:
            raise InputError(unknown(word))
    raise AssertionError(arguments)


def usage() -> str:
    """The page that ``negrec --help`` prints."""
    verbs = "".join(f"  {name:<11}{verb.summary}\n" for name, verb in VERBS.items())
    return f"usage: negrec VERB ... | --help | --version\n\nverbs:\n{verbs}\n{EXAMPLES}"


def unknown(word: str) -> str:
    """What to say about a word that is no verb."""
    near = difflib.get_close_matches(word, VERBS, n=2, cutoff=0.5)
    if "=" in word:
        near = ["train"]  # `negrec sampler=genni`: the verb was left out
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(VERBS)}"
    return f"there is no verb {word!r}: {hint} (negrec --help)"


def complete(arguments: Sequence[str]) -> int:
    """Completes the verb here and leaves what follows ``train`` to Hydra.

    The shell calls ``negrec -sc query=SHELL`` with the line typed so far in ``COMP_LINE``.
    """
    if not any(argument.startswith("query=") for argument in arguments):
        return VERBS["train"](arguments)  # install, uninstall: Hydra's scripts
    line = os.environ.get("COMP_LINE", "")
    _, _, typed = line.lstrip().partition(" ")
    verb, space, rest = typed.lstrip().partition(" ")
    if not space:
        print(" ".join(name for name in VERBS if name.startswith(verb)))
        return 0
    if verb != "train":
        return 0
    os.environ["COMP_LINE"] = f"negrec {rest}"  # Hydra knows the program and its overrides only
    return VERBS["train"](arguments)
