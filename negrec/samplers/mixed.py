"""Several samplers side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from negrec.samplers.base import Sampler
from negrec.scoring import ItemScorer
from negrec.types import DatasetInfo, Negatives, Queries, Share, Step


class Mixture(Sampler):
    r"""The candidates of several samplers as columns side by side.

    .. math:: q(i) = \sum_j \frac{K_j}{K} q_j(i)

    with K_j columns of part j. In-batch and uniform candidates are mixed negative sampling (Yang
    et al., 2020, WWW; Apple, 2024, arXiv:2410.17276, section 4.2). A mixture has a density where
    all of its parts have one and the same ``exclude``: an item that one part may give and another
    may not has no density that is the same for every query.

    Args:
        info: facts of the training split.
        parts: by name, what makes each part; at least one. Where all parts ``share`` alike, the
            scores are one matrix product.
    """

    def __init__(
        self, info: DatasetInfo, parts: Mapping[str, Callable[[DatasetInfo], Sampler]]
    ) -> None:
        super().__init__(info)
        if not parts:
            raise ValueError("parts must name at least one sampler")
        self.samplers = nn.ModuleDict()
        for name, part in parts.items():
            try:
                built = part(info)
            except ValueError as error:
                raise ValueError(f"parts.{name}: {error}") from error
            if built.exhaustive or built.labels:
                raise ValueError(f"parts.{name}: {built.name} cannot be one part of several")
            self.samplers[name] = built
        sizes = self._sizes
        self.k = None if sizes is None else sum(sizes)
        policies = {part.exclude for part in self.parts}
        self._alike = len(policies) == 1
        if self._alike:
            (self.exclude,) = policies

    @property
    def parts(self) -> tuple[Sampler, ...]:
        return tuple(self.samplers.values())  # type: ignore[arg-type]

    def sample(self, queries: Queries, scorer: ItemScorer, step: Step) -> Negatives:
        drawn = [part.sample(queries, scorer, step) for part in self.parts]
        share = _finest(drawn)
        items = torch.cat([_spread(x, x.items, share, queries) for x in drawn], 1)
        sizes = [x.k for x in drawn]
        return Negatives(
            items,
            queries.sequence if share == "sequence" else None,
            self._log_mixture([p.log_prob_for(items, queries) for p in self.parts], sizes),
            self._log_mixture([x.target_log_q for x in drawn], sizes),
            exclude=tuple(policy for x in drawn for policy in x.policies),
            present=torch.cat([_spread(x, _present(x), share, queries) for x in drawn], 1),
            drawn=tuple(drawn),
        )

    def log_prob(self, items: Tensor) -> Tensor | None:
        if self._sizes is None:
            return None
        return self._log_mixture([part.log_prob(items) for part in self.parts], self._sizes)

    def log_prob_for(self, items: Tensor, queries: Queries) -> Tensor | None:
        if self._sizes is None:
            return None
        densities = [part.log_prob_for(items, queries) for part in self.parts]
        return self._log_mixture(densities, self._sizes)

    @property
    def _sizes(self) -> list[int] | None:
        """Columns of each part; None where one depends on the batch."""
        sizes = [part.k for part in self.parts if part.k is not None]
        return sizes if len(sizes) == len(self.parts) else None

    def _log_mixture(
        self, densities: Sequence[Tensor | None], sizes: Sequence[int]
    ) -> Tensor | None:
        """Log of the mean of densities, weighted by numbers of columns; None without a density."""
        total = None
        for log_q, size in zip(densities, sizes, strict=True):
            if log_q is None or not self._alike:
                return None
            term = log_q + math.log(size / sum(sizes))
            total = term if total is None else torch.logaddexp(total, term)
        return total


def _finest(drawn: Sequence[Negatives]) -> Share:
    """The rows that all parts can be spread to."""
    if any(x.row is None and len(x.items) > 1 for x in drawn):
        return "query"
    return "sequence" if any(x.row is not None for x in drawn) else "batch"


def _spread(x: Negatives, rows: Tensor, share: Share, queries: Queries) -> Tensor:
    """What a part keeps by its own rows (R, K), by the rows of all parts."""
    match share:
        case "query":
            return x.of(rows).expand(len(queries.target), -1)
        case "sequence":
            return rows.expand(queries.batch.n_sequences, -1)
        case "batch":
            return rows


def _present(x: Negatives) -> Tensor:
    return torch.ones_like(x.items, dtype=torch.bool) if x.present is None else x.present
