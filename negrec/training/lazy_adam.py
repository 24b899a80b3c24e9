"""Adam whose step does not touch a table's rows that have no gradient."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from negrec.embedding import Late, Table
from negrec.errors import InputError
from negrec.kernels import rows as kernel
from negrec.kernels.rows import Constants, Rows
from negrec.wide import has_float64

Which = Literal["auto", "lazy", "dense"]

# From so many numbers on, a table is moved by rows. A step over a smaller one is one call that
# takes less than a millisecond, and is cheaper than to tell the rows apart.
_LARGE = 1 << 20
_NEGLIGIBLE = 1e-10  # of a row's first missed step: later ones are not summed up
_LONGEST = 4096  # steps that are summed up at the most


class _Adam(torch.optim.Adam):
    """PyTorch's Adam, which is never compiled.

    The methods that PyTorch hides from its compiler import that compiler first, which takes longer
    than PyTorch itself: a third of the way from a command to its first step. What they do is the
    same without.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        inspect.unwrap(torch.optim.Adam.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        inspect.unwrap(torch.optim.Adam.zero_grad)(self, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = inspect.unwrap(torch.optim.Adam.state_dict)(self)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        inspect.unwrap(torch.optim.Adam.load_state_dict)(self, state_dict)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        with torch.no_grad():  # as PyTorch's step, which is wrapped, has it
            loss: float | None = inspect.unwrap(torch.optim.Adam.step)(self, closure)
        return loss


class LazyAdam(_Adam):
    r"""Adam (Kingma & Ba, 2015, arXiv:1412.6980) that moves large tables by rows.

    A step costs what its rows cost, whatever the size V of the catalogue; beside a table only its
    two moments are held and no gradient of its size. The result is that of dense Adam, moments,
    bias correction and schedule included, up to rounding and to where Adam's epsilon matters (see
    ``negrec.kernels.rows``): what a row without a gradient would have moved by its momentum is
    made up for before anybody reads it. Rare items so learn as they do under dense Adam, where
    optimisers that merely skip them (TensorFlow's LazyAdam, PyTorch's SparseAdam) lose nine
    tenths of the way that one gradient makes an item go.

    Where it differs: ``weight_decay`` acts on a row in the steps in which it has a gradient, and
    on all rows in all steps under dense Adam; "auto" then is "dense". A dense gradient (a full
    softmax, or a catalogue that is scored as a whole with gradient) moves all rows at every step.

    Args:
        params: parameters; ``Table`` among them may be moved by rows.
        lr: learning rate, at least 0.
        betas: decays of the moments, in [0, 1); by rows beta1 < sqrt(beta2), as is usual.
        eps: epsilon, positive.
        weight_decay: times the parameter, added to its gradient.
        rows: "auto": tables of more than a million numbers by rows; "lazy": all tables; "dense":
            none.
        fused: whether what is dense is moved in one pass.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        rows: Which = "auto",
        fused: bool | None = None,
    ) -> None:
        if rows not in get_args(Which):
            raise ValueError(f"rows must be auto, lazy or dense, got {rows!r}")
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        beta1, beta2 = betas  # a list, where it comes from a yaml
        super().__init__(
            params, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=fused
        )
        self._late: list[_LateAdam] = []
        for group in self.param_groups:
            summable = group["betas"][0] ** 2 < group["betas"][1]
            if rows == "lazy" and not summable:
                raise ValueError(
                    f"rows=lazy needs beta1 < sqrt(beta2), got betas={list(group['betas'])}"
                )
            for p in group["params"]:
                large = p.numel() >= _LARGE and group["weight_decay"] == 0 and summable
                large &= has_float64(p.device)  # which the sums of what rows have missed need
                if isinstance(p, Table) and (rows == "lazy" or (rows == "auto" and large)):
                    self._late.append(_LateAdam(p, self.state[p], group))

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves all parameters; the tables by rows where their gradients are sparse."""
        gradients = [late.table.grad for late in self._late]
        for late in self._late:  # what has no gradient is left alone by Adam itself
            late.table.grad = None
        loss: float | None = super().step(closure)
        for late, gradient in zip(self._late, gradients, strict=True):
            late.table.grad = gradient
            late.step(gradient)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for late in self._late:
            late.table.grad = None
        super().zero_grad(set_to_none)

    def settle(self) -> None:
        """Stores every row as it is by now: the parameters can be read as they are."""
        for late in self._late:
            late.settle()

    def release(self) -> None:
        """Settles, and moves no rows any more: the tables are again their owner's."""
        for late in self._late:
            late.settle()
            late.table.late = None
        self._late = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        late = {id(late.table): late for late in self._late}
        numbered = enumerate((p, group) for group in self.param_groups for p in group["params"])
        for index, (p, group) in numbered:
            kept = state_dict["state"].get(index, {})
            if id(p) in late and kept:
                # PyTorch has made new dictionaries, and of whole numbers floats.
                late[id(p)].restore(self.state[p], group, kept)
            elif kept.get("settled", 0) != kept.get("step", 0) and "settled" in kept:
                raise InputError(
                    "the checkpoint has tables that are moved by rows, and here they would not be: "
                    "go on with the trainer.device and trainer.optimizer of the run's start"
                )


class _LateAdam(Late):
    """A table that is moved by rows.

    Args:
        table: (V, D).
        state: the optimiser's, of the table.
        group: the parameter group, whose settings may change.
    """

    def __init__(self, table: Table, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        self.table, self.state, self.group = table, state, group
        beta1, beta2 = group["betas"]
        self.ratio = beta1 / math.sqrt(beta2)
        self.window = _LONGEST
        if self.ratio < 1:
            wanted = math.log(_NEGLIGIBLE) / math.log(max(self.ratio, 1e-3))
            self.window = min(math.ceil(wanted), _LONGEST)
        # The latest step's share in what a row has missed that had its gradient k steps before.
        missed = torch.arange(self.window, 0, -1, dtype=torch.double, device=table.device)
        self.powers = self.ratio**missed
        self.floors = self.powers * beta2 ** (-missed / 2) * group["eps"]
        state |= {
            "step": torch.tensor(0),
            "settled": torch.tensor(0),  # the step at which all rows were stored as they were
            "exp_avg": torch.zeros_like(table),
            "exp_avg_sq": torch.zeros_like(table),
            "last": torch.zeros(len(table), dtype=torch.int32, device=table.device),
            "drift": torch.zeros(1, dtype=torch.double, device=table.device),
            "floored": torch.zeros(1, dtype=torch.double, device=table.device),
        }
        table.late = self

    def rows(self, row: Tensor) -> Tensor:
        with torch.no_grad():
            return kernel.read(self._rows(), row)

    def whole(self) -> Tensor:
        if self.state["step"] == self.state["settled"]:
            return self.table.detach()
        with torch.no_grad():
            return kernel.read(self._rows())

    def step(self, gradient: Tensor | None) -> None:
        """Moves the rows of a gradient; None: nobody has read any."""
        beta1, beta2 = self.group["betas"]
        if gradient is not None and not gradient.is_sparse:  # all rows were read, with gradient
            self.settle()
        self.state["step"] += 1
        t = int(self.state["step"])
        adam = Constants(
            number=t - int(self.state["settled"]),
            rate=float(self.group["lr"]) / (1 - beta1**t),
            root=math.sqrt(1 - beta2**t),
            beta1=beta1,
            beta2=beta2,
            epsilon=self.group["eps"],
            weight_decay=self.group["weight_decay"],
        )
        with torch.no_grad():
            if gradient is not None and not gradient.is_sparse:
                self._dense(gradient, adam)
                return
            if gradient is not None:
                row, values = gradient._indices()[0], gradient._values().contiguous()
                kernel.update(self._rows(), row, values, adam)
            self._drift_on(adam)

    def settle(self) -> None:
        if self.state["step"] == self.state["settled"]:
            return
        with torch.no_grad():
            kernel.settle(self._rows(), *self._decays())
        self.state["settled"] = self.state["step"].clone()
        for name in ("drift", "floored"):
            self.state[name] = self.state[name].new_zeros(1)

    def restore(
        self, state: dict[str, Tensor], group: dict[str, Any], kept: dict[str, Tensor]
    ) -> None:
        """Goes on from a checkpoint's state."""
        self.state, self.group = state, group
        fresh = {  # where all rows were moved at every step so far, none has missed any
            "settled": kept["step"].long(),
            "last": torch.zeros(len(self.table), dtype=torch.int32),
            "drift": torch.zeros(1, dtype=torch.double),
            "floored": torch.zeros(1, dtype=torch.double),
        }
        for name, value in fresh.items():
            device = "cpu" if name == "settled" else self.table.device
            state[name] = kept.get(name, value).clone().to(device)
        state["step"] = kept["step"].long().clone()

    def _dense(self, gradient: Tensor, adam: Constants) -> None:
        """All rows by the usual rule: they are settled, before and after."""
        mean, square = self.state["exp_avg"], self.state["exp_avg_sq"]
        if adam.weight_decay:
            gradient = gradient.add(self.table, alpha=adam.weight_decay)
        mean.lerp_(gradient, 1 - adam.beta1)
        square.mul_(adam.beta2).addcmul_(gradient, gradient, value=1 - adam.beta2)
        for part in kernel.chunks(len(mean)):  # no third tensor of the table's size
            root = square[part].sqrt().div_(adam.root).add_(adam.epsilon)
            self.table[part].addcdiv_(mean[part], root, value=-adam.rate)
        self.state["settled"] = self.state["step"].clone()

    def _drift_on(self, adam: Constants) -> None:
        """Books the step for rows that had no gradient in it; those that had are at ``number``."""
        state, n = self.state, adam.number
        if n >= len(state["drift"]):
            for name in ("drift", "floored"):
                more = state[name].new_zeros(len(state[name]) + 64)
                state[name] = torch.cat([state[name], more])
        recent = min(n, self.window)
        rate = adam.rate * adam.root
        state["drift"][n - recent : n] += rate * self.powers[self.window - recent :]
        rate *= adam.root
        state["floored"][n - recent : n] += rate * self.floors[self.window - recent :]

    def _rows(self) -> Rows:
        state = self.state
        return Rows(
            self.table.detach(),
            state["exp_avg"],
            state["exp_avg_sq"],
            state["last"],
            state["drift"],
            (state["floored"] / state["drift"]).nan_to_num_(self.group["eps"]),
        )

    def _decays(self) -> tuple[Tensor, Tensor]:
        """beta^(now - tau) of each tau, of both moments."""
        drift = self.state["drift"]
        now = int(self.state["step"]) - int(self.state["settled"])
        gap = (now - torch.arange(len(drift), device=drift.device)).clamp(min=0).double()
        beta1, beta2 = self.group["betas"]
        return beta1**gap, beta2**gap
