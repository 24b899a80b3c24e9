"""When a training's loss has stopped falling fast."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Start = int | Literal["plateau"]

_NEVER = torch.iinfo(torch.int64).max
_FALL_UNTIL = 5  # epoch: the first losses' fall, up to this one, is what later falls are held to
_FIRST_LOOK = 7  # epoch: the first whose fall is judged


class Plateau(nn.Module):
    r"""Tells from which epoch on something starts: a fixed one, or when the loss levels off.

    The rule is that of UFNRec's code (Liu et al., 2022, arXiv:2208.04116; the paper says "until
    the basic loss converges"): the first epoch t >= 7 whose mean loss L_t lies less than
    (L_0 - L_5) / 200 below that of the epoch before,

    .. math:: L_{t-1} - L_t < (L_0 - L_5) / 200

    lets it start with epoch t + 1, epochs counted from 0: with the ninth at the earliest. The
    mean is over queries. State lies in buffers: a resumed training starts when an uninterrupted
    one does.

    Args:
        start: "plateau", or the epoch to start with, at least 0; 7 leaves out seven epochs.
    """

    losses: Tensor
    total: Tensor
    queries: Tensor
    epoch: Tensor
    first: Tensor

    def __init__(self, start: Start = "plateau") -> None:
        super().__init__()
        if start != "plateau" and (not isinstance(start, int) or start < 0):
            raise ValueError(f"start must be plateau or an epoch from 0, got {start!r}")
        # Mean losses of epoch 0, of epoch 5, and of the last one that ended.
        self.register_buffer("losses", torch.zeros(3, dtype=torch.float64))
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))
        self.register_buffer("queries", torch.zeros((), dtype=torch.int64))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("first", torch.tensor(_NEVER if start == "plateau" else start))
        self._answer = (-1, False)
        self.register_load_state_dict_post_hook(_forget_answer)  # type: ignore[no-untyped-call]

    def started(self, epoch: int) -> bool:
        """Whether it has started by an epoch, once all epochs before it are over."""
        if self._answer[0] != epoch:  # looked up once an epoch: the host waits for the device
            self._answer = (epoch, epoch >= int(self._settled(epoch)[1]))
        return self._answer[1]

    def observe(self, loss: Tensor, epoch: int) -> None:
        """Takes in the losses of a batch's queries, (N,)."""
        losses, first = self._settled(epoch)
        same = self.epoch == epoch
        self.losses.copy_(losses)
        self.first.copy_(first)
        self.total.copy_(self.total * same + loss.sum())
        self.queries.copy_(self.queries * same + len(loss))
        self.epoch.fill_(epoch)

    def _settled(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The losses and the first epoch as they are once all epochs before this one are over."""
        over = (self.epoch < epoch) & (self.queries > 0)
        mean = self.total / self.queries
        begin, settled, before = self.losses.unbind()
        begin = torch.where(over & (self.epoch == 0), mean, begin)
        settled = torch.where(over & (self.epoch == _FALL_UNTIL), mean, settled)
        slow = before - mean < (begin - settled) / 200
        waiting = self.first == _NEVER
        now = over & slow & waiting & (self.epoch >= _FIRST_LOOK)
        first = torch.where(now, self.epoch + 1, self.first)
        return torch.stack([begin, settled, torch.where(over, mean, before)]), first


def _forget_answer(module: nn.Module, _: object) -> None:
    """What was looked up before a state was loaded does not hold for it."""
    assert isinstance(module, Plateau)
    module._answer = (-1, False)
