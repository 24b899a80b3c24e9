"""``negrec check``: whether a model, a sampler or a loss keeps what every one of them promises."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from negrec.commandline import configuration, explain
from negrec.commandline.explain import one_line
from negrec.commandline.typed import parsed
from negrec.errors import InputError

if TYPE_CHECKING:
    from negrec.contracts import models
    from negrec.contracts.base import Verdict
    from negrec.losses.base import Loss
    from negrec.models.base import SequenceModel
    from negrec.samplers.base import Sampler
    from negrec.types import Exclude

    Part = type[SequenceModel] | type[Sampler] | type[Loss]

_TRAINING = ("targets", "objective")  # of a model: options of `negrec train`

USAGE = """\
usage: negrec check CLASS [KEY=VALUE ...]

Builds a model, a sampler or a loss on toy data and says which contracts it keeps: what training
relies on, and no error would tell. The class may be one of yours, found from this folder.

  negrec check mypackage.MySampler k=5 exclude=window
  negrec check mypackage.losses.MyLoss
  negrec check mypackage.MyModel dim=16
  negrec check mypackage.MyModel dim=16 targets=masked_item objective=mine
  negrec check negrec.samplers.uniform.Uniform k=5

KEY=VALUE are arguments of its constructor, written as for `negrec train`; a model or a sampler is
given the facts of the toy data (DatasetInfo) first. A sampler that takes `exclude` is tried with
every policy, unless you name one. A model is trained on the next item by ranking it above random
ones, unless `targets=` and `objective=` name others, options as for `negrec train`.

The exit code is 0 where all contracts hold, 1 where one is broken, 2 for bad input.
"""


def main(arguments: Sequence[str]) -> int:
    """Runs ``negrec check ARGUMENTS``."""
    words = list(arguments)
    if not words or {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0 if words else 2
    flags = [word for word in words if word.startswith("-")]
    if flags:
        raise InputError(f"check has no {flags[0]} (negrec check --help)")
    target, *rest = words
    if "=" in target:
        raise InputError(f"name the class first, as in: negrec check mypackage.MySampler {target}")
    kind, arguments_ = located(target), values(rest)
    title, verdicts = examined(kind, arguments_)
    return show(title, verdicts)


def values(words: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` words as arguments."""
    found: dict[str, Any] = {}
    for word in words:
        if "=" not in word:
            raise InputError(f"{word!r} is not KEY=VALUE, an argument of the class")
    for override in parsed(words):
        key = str(override.key_or_group)
        if key in found:
            raise InputError(f"{key} is given twice: keep one of them")
        if not key.isidentifier() or override.is_sweep_override():
            raise InputError(
                f"{override.input_line} is no argument of a constructor: write KEY=VALUE, a list "
                "as KEY=[1,2]"
            )
        found[key] = override.value()
    return found


def located(name: str) -> Part:
    """The class of a dotted name, of an installed package or one in this folder.

    Raises:
        InputError: there is no such class, or it is none of a model, a sampler and a loss.
    """
    from negrec.losses.base import Loss
    from negrec.models.base import SequenceModel
    from negrec.samplers.base import Sampler

    parts = SequenceModel | Sampler | Loss

    module_name, _, class_name = name.rpartition(".")
    if not module_name:
        raise InputError(f"{name} names no module: write it as mypackage.{name}")
    module = imported(module_name)
    found = getattr(module, class_name, None)
    classes = [
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, parts) and value.__module__ == module_name
    ]
    if found is None:
        near = difflib.get_close_matches(class_name, classes, n=1) or classes
        there = f"there is {', '.join(near)}" if near else "it has no model, sampler or loss"
        raise InputError(f"{module_name} has no {class_name}: {there}")
    if not inspect.isclass(found) or not issubclass(found, parts):
        raise InputError(
            f"{name} is no model, sampler or loss: derive it from "
            "negrec.models.base.SequenceModel, negrec.samplers.base.Sampler or "
            "negrec.losses.base.Loss"
        )
    return found


def imported(name: str) -> Any:
    """The module of a dotted name, with this folder before everything that is installed."""
    here = os.getcwd()  # noqa: PTH109 - sys.path holds texts
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name + ".").startswith(error.name + "."):
            raise InputError(
                f"there is no module {error.name}, neither in {here} nor installed"
            ) from error
        raise InputError(f"{name} cannot be imported: {error}") from error
    except Exception as error:  # whatever a file of the user's may do wrong
        raise InputError(
            f"{name} cannot be imported: {type(error).__name__}: {one_line(str(error))}"
        ) from error


def examined(kind: Part, arguments: Mapping[str, Any]) -> tuple[str, Iterator[Verdict]]:
    """What is looked at, and what becomes of each contract, one after the other.

    Raises:
        InputError: the constructor refuses its arguments.
    """
    import torch

    from negrec.contracts import losses, models, samplers
    from negrec.contracts.base import verdicts
    from negrec.contracts.toy import world
    from negrec.models.base import SequenceModel
    from negrec.samplers.base import Sampler

    torch.set_num_threads(1)  # toys: threads would only wait for each other
    torch.manual_seed(0)  # the same verdicts each time, whatever a part draws from
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    called = f"{kind.__name__}({given})"
    if issubclass(kind, SequenceModel):
        model = model_of(kind, arguments)
        built(lambda: model.make(model.place().info), called)
        return f"{called}, a model, {model}", verdicts(models.CONTRACTS, model)
    if not issubclass(kind, Sampler):
        built(lambda: kind(**arguments), called)
        make: losses.Make = partial(kind, **arguments)
        return f"{called}, a loss", verdicts(losses.CONTRACTS, make)

    def making(**more: Any) -> samplers.Make:
        return lambda info: kind(info, **{**arguments, **more})

    def excluding(policy: Exclude) -> samplers.Make:
        return making(exclude=policy)

    info = world().info
    built(lambda: making()(info), called)
    free = "exclude" in inspect.signature(kind).parameters and "exclude" not in arguments
    subject = samplers.Subject(making(), excluding if free else None)
    title = f"{called}, a sampler, in a catalogue of {info.n_items} items"
    return title, verdicts(samplers.CONTRACTS, subject)


def model_of(kind: type[SequenceModel], arguments: Mapping[str, Any]) -> models.Subject:
    """The model as it is trained: with the targets and the objective that are named.

    Raises:
        InputError: there are no such targets, or no such objective.
    """
    from negrec.contracts.models import Subject

    own = {key: value for key, value in arguments.items() if key not in _TRAINING}
    named = [f"{key}={arguments[key]}" for key in _TRAINING if key in arguments]
    subject = Subject(lambda info: kind(info, **own))
    if not named:
        return subject
    from hydra import compose
    from hydra.utils import instantiate

    with explain.explained(), configuration.opened():
        try:
            cfg = compose(configuration.CONFIG_NAME, ["sampler=uniform", "k=8", *named])
        except Exception as error:
            raise explain.NotComposedError(named, error) from error
    return replace(
        subject,
        targets=instantiate(cfg.targets),
        objective=instantiate(cfg.objective),
        window=cfg.window,
    )


def built(make: Callable[[], object], called: str) -> None:
    """Builds it once, to see whether it takes its arguments."""
    try:
        make()
    except (TypeError, ValueError) as error:
        raise InputError(f"{called}: {one_line(str(error))}") from error


def show(title: str, verdicts: Iterator[Verdict]) -> int:
    """Prints one line for each contract, as it is decided; the exit code."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(title, style="bold"))
    words = {True: ("holds", "green"), False: ("BROKEN", "bold red"), None: ("-", "dim")}
    counts = dict.fromkeys(words, 0)
    with console.status("looking at the contracts"):
        for verdict in verdicts:
            counts[verdict.holds] += 1
            line = Table.grid(padding=(0, 2))
            line.add_column(width=6)
            word = Text(*words[verdict.holds])
            match verdict.holds:
                case True:
                    line.add_row(word, verdict.name)
                case None:
                    line.add_row(word, Text(f"{verdict.name}: {verdict.reason}", "dim"))
                case False:
                    line.add_row(word, Text(verdict.name, "bold"))
                    line.add_row("", Text(verdict.reason))
                    line.add_row("", Text(f"to do: {verdict.advice}"))
            console.print(line)
    broken, looked_at = counts[False], counts[True] + counts[False]
    summary = f"all {looked_at} contracts hold"
    if broken:
        summary = f"{broken} of {looked_at} contracts {'is' if broken == 1 else 'are'} broken"
    console.print(Text(summary, style="bold red" if broken else "bold green"))
    return int(broken > 0)
