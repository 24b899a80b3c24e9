"""The negatives of chosen users, for looking at (GenNi's figure 9)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from negrec import seeding
from negrec.data.loader import Loader
from negrec.errors import InputError
from negrec.evaluation.observer import Scene
from negrec.losses.base import Loss
from negrec.models.base import SequenceModel
from negrec.samplers.base import Sampler
from negrec.scoring import ItemScorer
from negrec.types import Negatives, Queries, Step
from negrec.writing import replacing

log = logging.getLogger(__name__)

FILE_NAME = "negatives.parquet"
_TOLD = 5  # negatives of a user that the log names


class Showcase:
    """Writes down, at chosen epochs, what a sampler gives to the newest query of chosen users.

    Args:
        scene: what it may look at.
        sampler: the objective's.
        loss: the objective's.
        users: the users' own ids.
        epochs: from 1.
        draws: negatives of each user, at least.
        top: how many of them are written down, the highest scored first.

    Raises:
        InputError: a user is unknown, or has too few interactions to be trained on.
    """

    def __init__(
        self,
        scene: Scene,
        sampler: Sampler,
        loss: Loss,
        users: Sequence[object],
        epochs: Sequence[int],
        draws: int = 100,
        top: int = 10,
    ) -> None:
        self.sampler, self.loss = sampler, loss
        self.epochs, self.draws, self.top = frozenset(epochs), draws, top
        self.seed = scene.seed
        self.path = scene.folder / FILE_NAME
        data, sequences = scene.interactions, scene.sequences
        self.user_ids = data.user_ids
        self.item_ids = data.item_ids.gather(scene.split.catalogue)
        index = {str(own): i for i, own in enumerate(data.user_ids.to_list())}
        newest = {int(user): w for w, user in enumerate(sequences.user.tolist())}
        windows = []
        for own in dict.fromkeys(map(str, users)):
            if own not in index:
                raise InputError(
                    f"diagnostics.users: there is no user {own} in {data.name}; its ids look like "
                    f"{', '.join(list(index)[:3])}"
                )
            if index[own] not in newest:
                raise InputError(
                    f"diagnostics.users: user {own} has too few training interactions to be "
                    "trained on: choose another"
                )
            windows.append(newest[index[own]])
        # Among others, as in training: some samplers draw from the batch.
        others = torch.randperm(len(sequences), generator=seeding.generator(scene.seed, "showcase"))
        chosen = torch.tensor(windows)
        others = others[~torch.isin(others, chosen)][: max(0, scene.batch_size - len(chosen))]
        loader = Loader(sequences, scene.batch_size, scene.seed)
        self.batch = loader.batch(torch.cat([chosen, others]), (0, 0))
        # The newest query of each of the first sequences, which are theirs.
        sequence = self.batch.sequence[self.batch.query]
        bounds = torch.searchsorted(sequence, torch.arange(1, len(chosen) + 1))
        self.query = bounds - 1

    def show(self, model: SequenceModel, epoch: int) -> None:
        """Looks at an epoch that is over, from 0, if it is one of the chosen."""
        if epoch + 1 not in self.epochs:
            return
        was_training = model.training
        model.eval()
        with torch.no_grad():
            frame = self._frame(model, epoch)
        model.train(was_training)
        save(frame, self.path)
        for (user,), part in frame.group_by("user", maintain_order=True):
            shown = (
                f"{row['item']} ({row['share']:.0%}, score {row['score']:.2f})"
                for row in part.head(_TOLD).iter_rows(named=True)
            )
            log.info("epoch %d, negatives of user %s: %s", epoch + 1, user, ", ".join(shown))

    def _frame(self, model: SequenceModel, epoch: int) -> pl.DataFrame:
        device = model.scorer.weight.device
        queries = model(self.batch.to(device)).detach()
        index = self.query.to(device)
        of_users = queries.select(index)
        items, log_q = self._draw(queries, index, model.scorer, epoch)
        rows = []
        for place in range(len(index)):
            drawn = items[place] > 0
            item, which, times = torch.unique(
                items[place][drawn], return_inverse=True, return_counts=True
            )
            own = None
            if log_q is not None:  # each item's density, as it was drawn
                own = log_q.new_empty(len(item)).scatter_(0, which, log_q[place][drawn])
            user = of_users.select(torch.full((len(item),), place, device=device))
            score, loss = judge(user, item, own, self.sampler, self.loss, model.scorer)
            order = score.argsort(descending=True, stable=True)[: self.top]
            rows.append(
                pl.DataFrame(
                    {
                        "epoch": epoch + 1,
                        "user": self.user_ids[int(of_users.user[place])],
                        "target": self.item_ids[int(of_users.target[place]) - 1],
                        "place": range(1, len(order) + 1),
                        "item": self.item_ids.gather((item[order] - 1).cpu().numpy()),
                        "share": (times[order] / times.sum()).tolist(),
                        "score": score[order].tolist(),
                        "loss": None if loss is None else loss[order].tolist(),
                    },
                    schema_overrides={"place": pl.Int64, "loss": pl.Float64},
                )
            )
        return pl.concat(rows)

    def _draw(
        self, queries: Queries, index: Tensor, scorer: ItemScorer, epoch: int
    ) -> tuple[Tensor, Tensor | None]:
        """Negatives of the users' queries and their density, (users, draws); item 0: ruled out."""
        items, densities, count = [], [], 0
        of_users = queries.select(index)
        while count < self.draws:
            device = queries.hidden.device
            generator = seeding.generator(self.seed, "showcase", epoch, count, device=device)
            negatives = self.sampler.sample(queries, scorer, Step(epoch, 0, generator)).select(
                index
            )
            valid = negatives.valid(of_users)
            if negatives.label is not None:
                valid &= negatives.label != 1  # no negative any more
            items.append(torch.where(valid, negatives.of(), 0))
            if negatives.log_q is not None:
                densities.append(negatives.of(negatives.log_q).expand(valid.shape))
            count += negatives.k
        return torch.cat(items, 1), torch.cat(densities, 1) if densities else None


def judge(
    queries: Queries,
    items: Tensor,
    log_q: Tensor | None,
    sampler: Sampler,
    loss: Loss,
    scorer: ItemScorer,
) -> tuple[Tensor, Tensor | None]:
    """The score of one negative per query, (N,), and the loss of the query with it alone, (N,).

    No loss where it reads the whole catalogue.

    Args:
        queries: N of them.
        items: (N,).
        log_q: log density of each item, (N,); None where there is none.
        sampler: tells the density of the targets.
        loss: judges.
        scorer: the model's.
    """
    score = scorer.target(queries.hidden, items)
    if loss.needs_exhaustive:
        return score, None
    alone = Negatives(
        items[:, None],
        log_q=None if log_q is None else log_q[:, None],
        target_log_q=sampler.log_prob(queries.target),
        exclude="none",
    )
    return score, loss(queries, alone, scorer).loss


def save(frame: pl.DataFrame, path: Path) -> None:
    """Adds the rows to the file; an epoch that is trained again replaces what it left before."""
    if path.exists():
        before = pl.read_parquet(path).filter(~pl.col("epoch").is_in(frame["epoch"].unique()))
        frame = pl.concat([before, frame]).sort("epoch", maintain_order=True)
    with replacing(path, pl.exceptions.PolarsError) as file:
        frame.write_parquet(file)
