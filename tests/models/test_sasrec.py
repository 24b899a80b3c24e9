"""What SASRec has around its encoder."""

from dataclasses import replace

import torch

from negrec.types import HIDDEN
from tests import toy
from tests.models.test_transformer import D, V, build


def test_untied_embeddings_are_a_table_of_their_own():
    tied, untied = build(), build(tied=False)
    extra = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters())
    assert extra == V * D


def test_the_scorer_is_the_input_table_when_tied():
    model = build()
    batch = toy.batch([[1, 2], [3, 4]])
    before = model.states(batch)
    with torch.no_grad():
        model.scorer.weight.mul_(2)
    assert not torch.equal(before, model.states(batch))


def test_a_hidden_item_has_a_vector_of_its_own():
    model = build(hides=True)
    batch = toy.batch([[1, 2, 3]])
    batch = replace(batch, items=torch.tensor([1, HIDDEN]))
    before = model.states(batch)
    with torch.no_grad():
        model.scorer.weight[1:] = 7.0  # every item but the first
    assert torch.equal(before, model.states(batch))
    with torch.no_grad():
        model.input.hidden.add_(1.0)
    after = model.states(batch)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
