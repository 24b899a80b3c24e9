import pytest
import torch
from torch.nn import functional as F

from negrec.models.layers import Dropout, RowAttention, UserVectors
from negrec.packing import pack
from negrec.types import DatasetInfo


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_rate_scale_and_gradient(p):
    torch.manual_seed(0)
    x = torch.ones(1_000, 301, requires_grad=True)  # not a multiple of 8 values
    out = Dropout(p)(x)
    exact = round(256 * p) / 256
    kept = out != 0
    n = x.numel()
    # Four standard deviations of a binomial.
    assert abs(kept.sum().item() - n * (1 - exact)) < 4 * (n * exact * (1 - exact)) ** 0.5
    assert out[kept].unique().tolist() == pytest.approx([1 / (1 - exact)])
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_every_byte_decides_alike():
    # Each of the eight bytes of a random word serves another value: none may be biased.
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(40_000, 8)) != 0).float().mean(0)
    assert (kept - 0.5).abs().max() < 4 * 0.5 / 200


def test_no_dropout_outside_training():
    x = torch.ones(4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_attention_with_dropout_is_attention_of_dropped_weights():
    torch.manual_seed(0)
    attention = RowAttention(8, 2, dropout=0.5)
    rows = pack(torch.tensor([0, 3, 5]))
    qkv = torch.randn(5, 24)
    torch.manual_seed(1)
    dropped = attention(qkv, rows)
    exact = attention.eval()(qkv, rows)
    assert not torch.allclose(dropped, exact)
    attention.train()
    mean = torch.stack([attention(qkv, rows) for _ in range(4_000)]).mean(0)
    torch.testing.assert_close(mean, exact, atol=0.1, rtol=0)


def test_attention_is_that_of_one_sequence_alone():
    torch.manual_seed(0)
    attention = RowAttention(8, 2, dropout=0.0)
    qkv = torch.randn(5, 24)
    together = attention(qkv, pack(torch.tensor([0, 3, 5])))
    for part in (slice(0, 3), slice(3, 5)):
        q, k, v = qkv[part].unflatten(1, (3, 2, 4)).permute(1, 2, 0, 3)
        alone = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.testing.assert_close(together[part], alone.transpose(0, 1).flatten(1))


def test_users_without_training_have_no_vector():
    trained = torch.tensor([True, False, True])
    info = DatasetInfo(3, 5, 8, torch.ones(5), trained_users=trained)
    users = UserVectors(info, dim=4, std=1.0)
    found = users(torch.tensor([0, 1, 2, -1]))
    assert torch.equal(found[[0, 2]], users.table.weight[[0, 2]])
    assert torch.equal(found[[1, 3]], torch.zeros(2, 4))
    found.sum().backward()
    assert users.table.weight.grad[:, 0].tolist() == [1, 0, 1]


def test_a_step_of_few_users_does_not_touch_the_table_of_all():
    users, arrived = UserVectors(DatasetInfo(9, 5, 8, torch.ones(5)), dim=2, std=1.0), []
    weight = users.table.weight
    weight.grad = torch.ones_like(weight)  # as the trainer keeps one
    weight.register_hook(lambda gradient: arrived.append(gradient.is_sparse))
    users(torch.tensor([3, 3, -1])).sum().backward()
    assert arrived == [True]
    assert weight.grad[:, 0].tolist() == [1, 1, 1, 3, 1, 1, 1, 1, 1]
