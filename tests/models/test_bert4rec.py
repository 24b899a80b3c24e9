import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import MaskedItem
from negrec.losses.bce import BCE
from negrec.losses.gbce import GBCE
from negrec.losses.sampled_softmax import SampledSoftmax
from negrec.losses.softmax import Softmax
from negrec.models.bert4rec import BERT4Rec
from negrec.objectives.ranking import Ranking
from negrec.samplers.full import Full
from negrec.samplers.genni import GenNi
from negrec.samplers.in_batch import InBatch
from negrec.samplers.uniform import Uniform
from negrec.scoring import ItemScorer
from negrec.types import HIDDEN
from tests import toy

D, V, L = 8, 20, 12


def build(**more):
    torch.manual_seed(0)
    scorer = partial(ItemScorer, bias=True)
    chosen = {"dim": D, "dropout": 0.0, "init_std": 0.3, "scorer": scorer, **more}
    model = BERT4Rec(toy.info(V, max_length=L), **chosen)
    with torch.no_grad():  # biases and norms away from the values at which errors cancel
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch(histories, probability=0.4):
    sequences = Sequences(toy.jagged(histories), L, MaskedItem(probability))
    return Loader(sequences, len(histories), seed=0).batch(torch.arange(len(sequences)), (0, 0))


def plain(model, items):
    """The second implementation: one sequence, one attention matrix, scores by equation 7.

    (n, V); items are ids, 0 where one is hidden.
    """
    n, encoder = len(items), model.encoder
    rows = [model.input.hidden if i == HIDDEN else model.scorer.weight[i - 1] for i in items]
    positions = encoder.positions.weight[:n].flip(0)  # from the end
    x = encoder.first(torch.stack(rows) + positions)
    for block in encoder.blocks:
        q, k, v = (block.qkv(x)).chunk(3, 1)
        heads = [
            ((q[:, h] @ k[:, h].T) / math.sqrt(D // 2)).softmax(1) @ v[:, h]
            for h in (slice(0, D // 2), slice(D // 2, D))
        ]
        x = block.norm1(x + block.out(torch.cat(heads, 1)))
        x = block.norm2(x + block.down(F.gelu(block.up(x))))
    return F.gelu(model.head(x)) @ model.scorer.weight.T + model.scorer.bias[:, 0]


@given(
    histories=st.lists(
        st.lists(st.integers(1, V), min_size=2, max_size=L + 1), min_size=1, max_size=6
    )
)
@settings(deadline=None, max_examples=15)
def test_training_against_a_plain_computation(histories):
    model = build().double()
    masked = batch(histories)
    queries = model(masked)
    scores = model.scorer.every(queries.hidden)
    sequences = masked.items.split(masked.offsets.diff().tolist())
    expected = torch.cat([plain(model, items.tolist()) for items in sequences])
    torch.testing.assert_close(scores, expected[masked.query], atol=1e-9, rtol=1e-9)


def test_a_history_is_followed_by_a_hidden_item():
    model = build().double()
    histories = [[1, 2, 3], [5], [*range(1, L + 1)]]  # the last is as long as one may be
    given_ = toy.jagged(histories)
    position = torch.arange(len(given_.values)) - given_.offsets[given_.row]
    none = torch.empty(0, dtype=torch.int64)
    source = replace(
        batch([[1, 2]] * 3),
        items=given_.values,
        offsets=given_.offsets,
        position=position + 7,
        query=none,
        target=none,
    )
    asking = source.with_hidden_end()
    assert asking.items.tolist() == [1, 2, 3, 0, 5, 0, *range(1, L + 1), 0]
    assert asking.offsets.tolist() == [0, 4, 6, 6 + L + 1]
    assert asking.position.tolist() == [*range(7, 11), 7, 8, *range(7, 7 + L + 1)]
    scores = model.scorer.every(model.represent(source))
    expected = torch.stack([plain(model, [*items, HIDDEN])[-1] for items in histories])
    torch.testing.assert_close(scores, expected, atol=1e-9, rtol=1e-9)
    # The same as the query of a window whose last item is hidden.
    ends = replace(asking, query=asking.last, target=torch.tensor([4, 4, 4]))
    torch.testing.assert_close(model.represent(source), model(ends).hidden)


def test_a_hidden_item_is_seen_from_both_sides_and_nobody_sees_what_it_was():
    model = build()

    def state(items):
        masked = batch([[1, 2, 3, 4, 5]])
        given_ = torch.tensor(items)
        middle = replace(masked, items=given_, query=torch.tensor([2]), target=torch.tensor([3]))
        return model(middle).hidden[0]

    among = state([1, 2, HIDDEN, 4, 5])
    assert not torch.allclose(among, state([1, 2, HIDDEN, 4, 9]))
    assert not torch.allclose(among, state([9, 2, HIDDEN, 4, 5]))


def test_number_of_parameters():
    # Items 20 * 8, biases 20, the hidden item 8, positions 13 * 8; a block: qkv 8 * 24 + 24, out
    # 8 * 8 + 8, feed-forward 8 * 32 + 32 + 32 * 8 + 8, norms 2 * 16; the first norm 16, the head
    # 8 * 8 + 8.
    block = 216 + 72 + 552 + 32
    expected = 160 + 20 + 8 + 104 + 2 * block + 16 + 72
    assert sum(p.numel() for p in build().parameters()) == expected


@pytest.mark.parametrize(
    ("sampler", "loss"),
    [
        (Full, Softmax()),
        (lambda info: Uniform(info, k=5), BCE()),
        (lambda info: Uniform(info, k=5, exclude="window"), GBCE(t=0.75)),
        (lambda info: Uniform(info, k=5, share="sequence"), SampledSoftmax()),
        (lambda info: InBatch(info, k=5), SampledSoftmax(log_q="refined")),
        (lambda info: GenNi(info, alpha=1.0, k=2, exclude="window"), BCE()),
    ],
    ids=["softmax", "bce", "gbce", "sampled_softmax", "in_batch", "genni"],
)
def test_steps_with_every_kind_of_negatives_make_the_loss_smaller(sampler, loss):
    histories = toy.random_histories(30, V, L)
    sequences = Sequences(toy.jagged(histories), L, MaskedItem())
    info = sequences.facts(toy.info(V, max_length=L))
    masked = Loader(sequences, 30, seed=0).batch(torch.arange(30), (0, 0))
    model = build(init_std=0.1)
    objective = Ranking(info, sequences, sampler, loss)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad(set_to_none=False)
        outcome = objective(model, masked, toy.step())
        outcome.loss.backward()
        optimizer.step()
        return outcome

    first = step()
    assert (first.feedback.queries.target == masked.target).all()
    assert all((p.grad != 0).any() for p in model.parameters() if p.ndim > 1)
    for _ in range(30):
        last = step()
    assert last.loss < 0.9 * first.loss
