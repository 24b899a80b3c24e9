r"""Rows of tables whose optimiser is Adam, moved only when they have a gradient.

Without a gradient Adam still moves a row, by what is left of its momentum. Here such a row is
left as it is, and what it missed is made up for when it is read or has a gradient again.

.. math:: m_s = \beta_1^{s - \tau} m_\tau, \quad v_s = \beta_2^{s - \tau} v_\tau, \quad
   w_t = w_\tau - \frac{m_\tau}{\sqrt{v_\tau} + e} \sum_{s = \tau + 1}^{t}
   \eta_s r^{s - \tau} \frac{\sqrt{1 - \beta_2^s}}{1 - \beta_1^s}, \quad
   r = \beta_1 / \sqrt{\beta_2}

with tau the step of the row's last gradient and eta the learning rate (Kingma & Ba, 2015,
arXiv:1412.6980, algorithm 1, with g = 0). The sum is the same for all rows of one tau: it is kept
once for each tau, the ``drift``. The one thing that is not exact is Adam's epsilon. Beside the root
of v at tau it stands, at step s, as :math:`\epsilon \sqrt{1 - \beta_2^s} \beta_2^{(\tau - s) / 2}`;
for all s together we take the mean of these, e, weighted as the sum weighs the steps: exact to the
first order in e over the root of v.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from negrec.kernels import native

_CHUNK = 1 << 16  # rows


@dataclass(frozen=True)
class Rows:
    """A table (V, D) and what Adam keeps of it.

    Attributes:
        value: w as stored, (V, D).
        mean: m, (V, D).
        square: v, (V, D).
        last: tau of each row, counted from the step at which all rows were last settled, (V,),
            int32.
        drift: the sum of each tau, float64, longer than the largest of ``last``.
        floor: e of each tau, float64, positive.
    """

    value: Tensor
    mean: Tensor
    square: Tensor
    last: Tensor
    drift: Tensor
    floor: Tensor


@dataclass(frozen=True)
class Constants:
    """Adam's, of one step.

    Attributes:
        number: of the step, counted as ``Rows.last``, from 1.
        rate: the learning rate over 1 - beta1^t.
        root: the square root of 1 - beta2^t.
        beta1: decay of the mean.
        beta2: decay of the square.
        epsilon: added to the root of the square.
        weight_decay: times the row, added to its gradient.
    """

    number: int
    rate: float
    root: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float


def read(rows: Rows, row: Tensor | None = None) -> Tensor:
    """Rows as they are by now, (n,) to (n, D); all of them, (V, D), by default."""
    parts = (rows.value, rows.mean, rows.square)
    n_rows, dim = rows.value.shape
    n = n_rows if row is None else len(row)
    out = rows.value.new_empty(n, dim)
    if native.serves(*parts):
        asked = None if row is None else row.contiguous()
        outside = torch.zeros(1, dtype=torch.int64)
        kept = (rows.last, rows.drift, rows.floor)
        native.call("rows_read", *parts, *kept, asked, n, dim, n_rows, out, outside)
        if outside.item():  # in the host's own memory: nothing is waited for
            raise IndexError(f"a row outside of 0..{n_rows - 1} is asked for")
        return out
    for part in chunks(n):
        at = part if row is None else row[part]
        missed = _missed(rows, rows.last[at], rows.mean[at], rows.square[at])
        torch.sub(rows.value[at], missed, out=out[part])
    return out


def settle(rows: Rows, decay: Tensor, decay2: Tensor) -> None:
    """Brings all rows to what they are by now, and sets ``last`` to 0.

    Args:
        rows: changed in place.
        decay: beta1^(now - tau) of each tau, float64, as long as ``drift``.
        decay2: the same of beta2.
    """
    parts = (rows.value, rows.mean, rows.square)
    if native.serves(*parts):
        sizes = (len(rows.value), rows.value.shape[1])
        native.call("rows_settle", *parts, rows.last, rows.drift, rows.floor, decay, decay2, *sizes)
        return
    for part in chunks(len(rows.value)):
        mean, square, last = rows.mean[part], rows.square[part], rows.last[part]
        rows.value[part] -= _missed(rows, last, mean, square)
        mean *= decay[last][:, None].to(mean)
        square *= decay2[last][:, None].to(square)
        last.zero_()


def chunks(n: int) -> Iterator[slice]:
    """Slices of 0..n - 1: what is made of one on the way stays small beside the table."""
    for start in range(0, n, _CHUNK):
        yield slice(start, min(start + _CHUNK, n))


def update(rows: Rows, row: Tensor, gradient: Tensor, adam: Constants) -> None:
    """Moves rows by their gradients, after what they missed.

    Args:
        rows: changed in place.
        row: (n,), repeated ones add up in their order.
        gradient: (n, D).
        adam: the step's constants.
    """
    row, order = row.sort(stable=True)
    parts = (rows.value, rows.mean, rows.square)
    if native.serves(*parts, gradient):
        constants = (adam.number, adam.rate, adam.root, adam.beta1, adam.beta2, adam.epsilon)
        native.call(
            "rows_update",
            *(*parts, rows.last, rows.drift, rows.floor, row, order, gradient),
            *(len(row), rows.value.shape[1], *constants, adam.weight_decay),
        )
        return
    row, place = torch.unique_consecutive(row, return_inverse=True)
    summed = gradient.new_zeros(len(row), gradient.shape[1])
    summed.index_add_(0, place, gradient[order])
    value, mean, square = (part[row] for part in parts)
    last = rows.last[row]
    value -= _missed(rows, last, mean, square)
    gap = (adam.number - last).double()[:, None]
    summed.add_(value, alpha=adam.weight_decay)
    # Of what is decayed to the step before this one.
    mean *= (adam.beta1**gap).to(mean)
    mean.add_(summed, alpha=1 - adam.beta1)
    square *= (adam.beta2**gap).to(square)
    square.addcmul_(summed, summed, value=1 - adam.beta2)
    value.addcdiv_(mean, (square.sqrt() / adam.root).add_(adam.epsilon), value=-adam.rate)
    for whole, part in zip(parts, (value, mean, square), strict=True):
        whole[row] = part
    rows.last[row] = adam.number


def _missed(rows: Rows, last: Tensor, mean: Tensor, square: Tensor) -> Tensor:
    """What rows have missed since their last gradients, to be subtracted."""
    drift = rows.drift[last].to(mean)[..., None]
    floor = rows.floor[last].to(mean)[..., None]
    return drift * mean / (square.sqrt() + floor)
