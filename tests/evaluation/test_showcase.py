from math import exp, log

import polars as pl
import pytest
import torch
from torch.nn.functional import softplus

from negrec.data.sequences import Sequences
from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.data.targets import NextItem
from negrec.errors import InputError
from negrec.evaluation.observer import Scene
from negrec.evaluation.showcase import Showcase, judge
from negrec.losses.bce import BCE
from negrec.losses.sampled_softmax import SampledSoftmax
from negrec.losses.softmax import Softmax
from negrec.models.sasrec import SASRec
from negrec.samplers.full import Full
from negrec.samplers.in_batch import InBatch
from negrec.samplers.popularity import Popularity
from negrec.samplers.uniform import Uniform
from tests import toy
from tests.data import made

# Own ids that are no catalogue ids: user "u0" takes 100, 101, ...; "short" is never trained on.
HISTORIES = {f"u{u}": [100 + (7 * u + t) % 20 for t in range(6)] for u in range(8)}
HISTORIES["short"] = [119]


def showcase(folder, users, sampler=None, loss=None, **settings):
    rows = [(u, item, t) for u, items in HISTORIES.items() for t, item in enumerate(items)]
    data = made.interactions(rows)
    split = LeaveOneOut()(data, max_length=10, seed=0)
    sequences = Sequences(split.train, 10, NextItem())
    info = sequences.facts(split.info)
    sampler = Uniform(info, k=1) if sampler is None else sampler(info)
    loss = BCE() if loss is None else loss
    look = Scene(data, split, sequences, sampler, loss, 0, 2, 4, folder)
    torch.manual_seed(0)
    return Showcase(look, sampler, loss, users, **{"epochs": [1], **settings}), SASRec(info, dim=8)


def test_the_negatives_are_those_of_the_newest_query(tmp_path):
    show, model = showcase(tmp_path, ["u3", "u1"])
    show.show(model, 0)
    table = pl.read_parquet(tmp_path / "negatives.parquet")
    assert table["user"].unique(maintain_order=True).to_list() == ["u3", "u1"]
    # Six interactions, of which leave-one-out trains on four: the newest target is the fourth.
    assert table["target"].unique(maintain_order=True).to_list() == [
        HISTORIES["u3"][3],
        HISTORIES["u1"][3],
    ]
    for _, part in table.group_by("user"):
        assert len(part) == 10  # of the nineteen others, nearly all drawn in a hundred draws
        assert part["item"].is_unique().all()
        assert part["place"].to_list() == list(range(1, 11))
        assert not set(part["item"]) & set(part["target"])
        assert part["score"].is_sorted(descending=True)
        # BCE with one negative: what differs is softplus(s) / 2.
        difference = (
            part["loss"]
            - torch.tensor(part["score"].to_list())
            .double()
            .apply_(lambda s: log(1 + exp(s)) / 2)
            .numpy()
        )
        assert difference.max() - difference.min() < 1e-5


def test_scores_are_those_of_the_model_without_dropout(tmp_path):
    show, model = showcase(tmp_path, ["u3"])
    model.train()
    show.show(model, 0)
    assert model.training
    table = pl.read_parquet(tmp_path / "negatives.parquet")
    model.eval()
    train = [100 + (7 * 3 + t) % 20 for t in range(4)]
    own = show.item_ids.to_list()
    batch = toy.batch([[own.index(item) + 1 for item in train]], max_length=10)
    hidden = model(batch).hidden[-1]
    scores = (model.scorer.matrix @ hidden).tolist()
    assert table["score"].to_list() == pytest.approx([scores[own.index(i)] for i in table["item"]])


def test_shares_are_of_what_was_drawn(tmp_path):
    # Everything is drawn in each of the draws: nineteen others share alike.
    show, model = showcase(tmp_path, ["u0"], sampler=Full, loss=Softmax(), top=50)
    show.show(model, 0)
    table = pl.read_parquet(tmp_path / "negatives.parquet")
    assert table["share"].to_list() == pytest.approx([1 / 19] * 19)
    assert table["loss"].is_null().all()  # it reads the whole catalogue, not one negative


def test_samplers_that_draw_from_the_batch_find_one(tmp_path):
    show, model = showcase(
        tmp_path, ["u0"], sampler=lambda info: InBatch(info, exclude="target"), top=50
    )
    show.show(model, 0)
    table = pl.read_parquet(tmp_path / "negatives.parquet")
    # Four sequences with three targets each; its own target is no negative.
    assert len(table) > 3
    assert not set(table["item"]) & set(table["target"])


def test_only_chosen_epochs_and_each_once(tmp_path):
    show, model = showcase(tmp_path, ["u0"], epochs=[2, 3])
    for epoch in (0, 1, 2, 2, 1):  # resumed runs come to an epoch again
        show.show(model, epoch)
    table = pl.read_parquet(tmp_path / "negatives.parquet")
    assert table.group_by("epoch").len().sort("epoch").rows() == [(2, 10), (3, 10)]


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("u99", r"diagnostics\.users: there is no user u99 in made; its ids look like short, u0"),
        ("short", "user short has too few training interactions"),
    ],
)
def test_users_that_cannot_be_shown(tmp_path, user, message):
    with pytest.raises(InputError, match=message):
        showcase(tmp_path, [user])


def test_the_loss_of_one_negative_has_its_density():
    queries = toy.queries(toy.batch([[1, 2, 3]]))
    scorer, sampler = toy.scorer(20), Popularity(toy.info(20), gamma=1.0, k=1)
    items = torch.tensor([5, 9])
    log_q = torch.tensor([-1.0, -2.0])
    score, loss = judge(queries, items, log_q, sampler, SampledSoftmax(log_q="standard"), scorer)
    own = (queries.hidden * scorer.matrix[queries.target - 1]).sum(1)
    torch.testing.assert_close(score, (queries.hidden * scorer.matrix[items - 1]).sum(1))
    # Two candidates: softplus of the difference of the corrected scores.
    corrected = own - sampler.log_prob(queries.target)
    torch.testing.assert_close(loss, softplus(score - log_q - corrected))
