import copy
from dataclasses import replace
from math import exp, log

import pytest
import torch

from negrec.models.sasrec import SASRec
from negrec.objectives.s3rec_pretrain import (
    Draws,
    S3RecPretrain,
    Segments,
    encoded,
    pairwise,
    windows,
)
from negrec.types import HIDDEN
from tests import toy

V = 12
HISTORIES = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10], [2, 11, 12, 1, 6, 3, 9]]
# Of items 1..12; item 5 has none.
ATTRIBUTES = [[0], [0, 1], [2], [1], [], [3], [0, 3], [1, 2], [2], [0, 1, 2], [3], [1]]


class Hides:
    """Targets that hide items themselves."""

    hides = True


def objective(**settings):
    info = replace(toy.info(V), attributes=toy.jagged(ATTRIBUTES))
    sequences = type("Sequences", (), {"targets": toy.NextItem()})()
    return S3RecPretrain(info, sequences, **settings)


def model(hides=True):
    torch.manual_seed(0)
    return SASRec(toy.info(V), dim=4, blocks=1, heads=1, dropout=0.0, layout="s3rec", hides=hides)


def bound(made, **settings):
    torch.manual_seed(1)
    found = objective(**settings)
    found.bind(made)
    with torch.no_grad():  # far from 0, where every sigmoid is 1/2
        for parameter in (*found.parameters(), *made.parameters()):
            parameter.copy_(torch.randn_like(parameter))
    return found


def outcome(made, found, seed=0):
    return found(made, toy.batch(HISTORIES), toy.step(seed))


def sigmoid(x):
    return 1 / (1 + exp(-x))


def test_pairwise_by_hand():
    # sigma(0) = 1/2 and sigma(ln 3) = 3/4: -log sigma(1/4) = ln(1 + e^-1/4), and the other way
    # round ln(1 + e^1/4); the third is not valid.
    loss = pairwise(
        torch.tensor([log(3), 0, 9]),
        torch.tensor([0, log(3), 9]),
        torch.tensor([True, True, False]),
    )
    assert loss.item() == pytest.approx(log(1 + exp(-0.25)) + log(1 + exp(0.25)))


def test_attributes_by_hand():
    # v_0..v_3 = 0, ln 3, -ln 3, 0 in the first dimension, and W h = h = (1, 0, 0, 0): p = 1/2,
    # 3/4, 1/4, 1/2. Item 2 has {0, 1}: the probabilities of what is so are 1/2, 3/4, 3/4, 1/2;
    # item 5 has none: 1/2, 1/4, 3/4, 1/2.
    found = bound(model())
    with torch.no_grad():
        found.heads["aap"].weight.copy_(torch.eye(4))
        found.heads["aap"].bias.zero_()
        found.vectors.weight.zero_()
        found.vectors.weight[:, 0] = torch.tensor([0, log(3), -log(3), 0])
    states = torch.tensor([[1.0, 0, 0, 0]] * 2)
    loss = found.of_attributes("aap", states, torch.tensor([2, 5]))
    expected = -log(1 / 2 * 3 / 4 * 3 / 4 * 1 / 2) - log(1 / 2 * 1 / 4 * 3 / 4 * 1 / 2)
    assert loss.item() == pytest.approx(expected)


def plain(made, found, seed=0):
    """The four losses, sequence by sequence and attribute by attribute, padded with nothing."""
    whole = windows(toy.batch(HISTORIES), 8)
    step = toy.step(seed)
    draws = Draws.of(whole, step.generator)
    head = {name: (lambda h, n=name: found.heads[n](h)) for name in found.heads}
    vectors = found.vectors.weight
    table = made.scorer.weight
    losses = dict.fromkeys(("aap", "mip", "map", "sp"), 0.0)

    def states(items):
        rows = replace(
            whole,
            items=torch.tensor(items),
            position=torch.arange(len(items)),
            offsets=torch.tensor([0, len(items)]),
            user=torch.zeros(1, dtype=torch.int64),
        )
        return made.states(rows, causal=False)

    asked = []  # (state, item) of hidden tokens, in order
    ring = [item for history in HISTORIES for item in history]
    at = 0
    for b, history in enumerate(HISTORIES):
        n = len(history)
        hidden = [bool(u < found.mask_p) for u in draws.token[at : at + n]]
        hidden[-1] = True
        h = states([HIDDEN if gone else i for i, gone in zip(history, hidden, strict=True)])
        for t, item in enumerate(history):
            name = "map" if hidden[t] else "aap"
            for a in range(4):
                p = torch.sigmoid(head[name](h[t]) @ vectors[a]).item()
                losses[name] -= log(p if a in ATTRIBUTES[item - 1] else 1 - p)
            if hidden[t]:
                asked.append((h[t], item))
        size = 1 + int(draws.size[b] * (n // 2))
        start = int(draws.start[b] * (n - size + 1))
        others = ring[at + n :] + ring[:at]
        first = int(draws.other[b] * (len(others) - size + 1))
        stretch = range(start, start + size)
        context = [HIDDEN if t in stretch else i for t, i in enumerate(history)]
        own = [i if t in stretch else HIDDEN for t, i in enumerate(history)]
        other = [others[first + t - start] if t in stretch else HIDDEN for t in range(n)]
        c, s, s_ = (states(items)[-1] for items in (context, own, other))
        f, f_ = (sigmoid((head["sp"](c) @ x).item()) for x in (s, s_))
        losses["sp"] -= log(sigmoid(f - f_))
        at += n
    # Negatives come from the generator behind the draws, redrawn while they are in the sequence.
    index = torch.cat([(draws.token < found.mask_p).nonzero().squeeze(1), whole.last]).unique()
    draw = torch.randint(1, V + 1, (len(asked), 1), generator=step.generator)[:, 0].tolist()
    inside = [set(HISTORIES[int(whole.sequence[t])]) for t in index]
    hits = [k for k, item in enumerate(draw) if item in inside[k]]
    while hits:
        fresh = torch.randint(1, V + 1, (len(hits), 1), generator=step.generator)[:, 0].tolist()
        for k, item in zip(hits, fresh, strict=True):
            draw[k] = item
        hits = [k for k in hits if draw[k] in inside[k]]
    for (h, item), negative in zip(asked, draw, strict=True):
        f, f_ = (sigmoid((head["mip"](h) @ table[i - 1]).item()) for i in (item, negative))
        losses["mip"] -= log(sigmoid(f - f_))
    return {name: loss / len(HISTORIES) for name, loss in losses.items()}


@pytest.mark.parametrize("seed", range(3))
def test_a_plain_implementation_agrees(seed):
    made = model().double()
    found = bound(made, mask_p=0.4).double()
    terms = outcome(made, found, seed).terms
    expected = plain(made, found, seed)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected)
    assert all(value > 0.1 for value in expected.values())


def test_the_loss_is_the_weighted_sum():
    made = model()
    weights = {"aap": 0.2, "mip": 3.0, "map": 0.5, "sp": 2.0}
    found = outcome(made, bound(made, **weights))
    expected = sum(weights[name] * term.item() for name, term in found.terms.items())
    assert found.loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["aap", "mip", "map", "sp"])
def test_a_part_that_is_off_costs_nothing_and_changes_no_other(name, monkeypatch):
    made = model()
    whole = outcome(made, bound(copy.deepcopy(made)))
    seen = []
    states = SASRec.states
    monkeypatch.setattr(
        SASRec,
        "states",
        lambda self, batch, causal=True: seen.append(batch) or states(self, batch, causal),
    )
    found = bound(made)
    found.weights[name] = 0.0
    less = outcome(made, found)
    whole_terms = outcome(made, bound(made)).terms
    assert less.terms == {k: v for k, v in whole_terms.items() if k != name}
    assert set(whole.terms) == {"aap", "mip", "map", "sp"}
    # One view with hidden items and three of segments, all in one pass.
    assert [batch.n_sequences for batch in seen] == [4 if name == "sp" else 16, 16]


def test_without_attributes_items_and_segments_are_left():
    info = toy.info(V)
    sequences = type("Sequences", (), {"targets": toy.NextItem()})()
    found = S3RecPretrain(info, sequences, aap=0, map=0)
    made = model()
    found.bind(made)
    assert set(outcome(made, found).terms) == {"mip", "sp"}


def test_windows_are_whole_and_hold_the_newest_items():
    whole = windows(toy.batch(HISTORIES, max_length=6), longest=6)
    # The last history has 7 items: 6 are inputs, the seventh a target, and 6 are kept.
    expected = [*HISTORIES[:3], HISTORIES[3][1:]]
    assert whole.items.tolist() == [item for history in expected for item in history]
    assert whole.offsets.tolist() == [0, 5, 7, 10, 16]
    assert whole.position.tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 1, 2, 3, 4, 5, 6]


def test_segments_lie_inside_and_their_negatives_outside():
    whole = windows(toy.batch(HISTORIES), 8)
    sizes, starts = set(), set()
    for seed in range(200):
        found = Segments.of(whole, Draws.of(whole, torch.Generator().manual_seed(seed)))
        assert found.valid.all()
        for b in range(4):
            own = whole.sequence == b
            at = (found.inside & own).nonzero().squeeze(1)
            assert (at.diff() == 1).all()
            assert 1 <= len(at) <= len(HISTORIES[b]) // 2
            other = found.other[at]
            assert (whole.sequence[other] != b).all()
            assert ((other.diff() == 1) | (other[1:] == 0)).all()  # the end goes on at the start
            if b == 3:
                sizes.add(len(at))
                starts.add(int(at[0] - whole.offsets[3]))
    # Of 7 items 1 to 3, from anywhere.
    assert sizes == {1, 2, 3}
    assert starts == set(range(7))


def test_a_batch_of_one_sequence_has_no_segment_to_compare_with():
    made = model()
    found = bound(made)
    terms = found(made, toy.batch([[1, 2, 3, 4]]), toy.step()).terms
    assert terms["sp"] == 0
    assert terms["mip"] > 0


def test_views_do_not_see_each_other():
    made = model().double()
    whole = windows(toy.batch(HISTORIES), 8)
    hidden = whole.items.masked_fill(whole.items % 2 == 0, HIDDEN)
    both = encoded(made, whole, [hidden, whole.items])
    torch.testing.assert_close(both[0], made.states(replace(whole, items=hidden), causal=False))
    torch.testing.assert_close(both[1], made.states(whole, causal=False))


def test_what_is_hidden_follows_the_generator_alone():
    made = SASRec(toy.info(V), dim=4, blocks=1, heads=1, dropout=0.5, hides=True).eval()
    found = bound(made)
    torch.manual_seed(5)
    one = outcome(made, found, seed=3).loss
    torch.manual_seed(6)
    assert outcome(made, found, seed=3).loss == one
    assert outcome(made, found, seed=4).loss != one


def test_everything_learns():
    made = model()
    found = bound(made)
    outcome(made, found).loss.backward()
    for name, parameter in (*made.named_parameters(), *found.named_parameters()):
        # Keys differ from each other by no constant: their bias has no part in a softmax.
        assert parameter.grad.abs().sum() > 0, name


def test_number_of_parameters():
    # Four heads of 4 * 4 + 4, and four attributes of 4.
    assert sum(p.numel() for p in bound(model()).parameters()) == 4 * 20 + 16


@pytest.mark.parametrize("name", ["aap", "mip", "map", "sp"])
@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_weights_that_are_none(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 0 and finite, got"):
        objective(**{name: value})


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="must not all be 0"):
        objective(aap=0, mip=0, map=0, sp=0)
    with pytest.raises(ValueError, match=r"mask_p must be in \[0, 1\], got 1.5"):
        objective(mask_p=1.5)
    sequences = type("Sequences", (), {"targets": Hides()})()
    with pytest.raises(ValueError, match="use targets=next_item"):
        S3RecPretrain(toy.info(V), sequences, aap=0, map=0)
    sequences = type("Sequences", (), {"targets": toy.NextItem()})()
    with pytest.raises(ValueError, match=r"dataset.attributes=FILE .* objective.map=0"):
        S3RecPretrain(toy.info(V), sequences, aap=0)
    with pytest.raises(ValueError, match=r"model SASRec is none: use model=s3rec"):
        objective().bind(model(hides=False))
