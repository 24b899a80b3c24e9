import pytest
import torch
from torch import nn

from negrec import wide
from negrec.kernels.draw import draw
from negrec.kernels.tiles import Pairs, Scratch
from negrec.objectives.s3rec_pretrain import Draws
from negrec.plateau import Plateau
from negrec.samplers.popularity import Popularity
from tests import toy

CPU, META, MPS = (torch.device(name) for name in ("cpu", "meta", "mps"))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the CPU had no float64: what is drawn in it takes the way that it takes on MPS."""
    monkeypatch.setattr(wide, "_WITHOUT", {"cpu"})


def test_mps_alone_has_no_float64():
    assert not wide.has_float64(MPS)
    assert wide.wide(MPS) == CPU
    for device in (CPU, META, torch.device("cuda", 1)):
        assert wide.has_float64(device)
        assert wide.wide(device) == device


def test_numbers_are_the_generators_own():
    drawn = wide.uniform((3, 2), CPU, torch.Generator().manual_seed(1))
    expected = torch.rand(3, 2, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, expected)


@pytest.mark.usefixtures("narrow")
def test_elsewhere_they_follow_from_the_generator():
    generator = torch.Generator().manual_seed(1)
    one, other = (wide.uniform((1000,), CPU, generator) for _ in range(2))
    assert one.dtype == torch.float64
    assert not torch.equal(one, other)
    assert torch.equal(wide.uniform((1000,), CPU, torch.Generator().manual_seed(1)), one)
    assert one.mean().item() == pytest.approx(0.5, abs=4 / (12 * 1000) ** 0.5)


def test_a_module_is_float32_where_there_is_no_float64(monkeypatch: pytest.MonkeyPatch):
    module = nn.Sequential(nn.Linear(2, 2), Plateau("plateau"))
    wide.place(module, META)
    assert module[1].total.dtype == torch.float64
    monkeypatch.setattr(wide, "_WITHOUT", {"meta"})
    module = nn.Sequential(nn.Linear(2, 2), Plateau("plateau"))
    wide.place(module, META)
    held = [*module.state_dict().values()]
    assert all(tensor.is_meta for tensor in held)
    assert {tensor.dtype for tensor in held} == {torch.float32, torch.int64}


@pytest.mark.usefixtures("narrow")
def test_what_is_drawn_in_float64_is_drawn():
    # Weights 1, 2, 4 and 3: far from uniform in 4,000 draws.
    share = torch.tensor([0.1, 0.2, 0.4, 0.3])
    info = toy.info(4, counts=[1, 2, 4, 3])
    generator = torch.Generator().manual_seed(0)
    sampler = Popularity(info, gamma=1, k=4)
    wide.place(sampler, CPU)
    sampler.cdf.zero_()  # nobody reads it
    popular = sampler.draw(1000, generator).flatten()
    matrix, nothing = share.log()[:, None], torch.zeros(0, dtype=torch.int64)
    pairs = Pairs.of(nothing, nothing)
    drawn = draw(torch.ones(1000, 1), matrix, pairs, 4, generator, Scratch()).flatten() + 1
    for items in (popular, drawn):
        found = torch.bincount(items, minlength=5)[1:] / 4000
        assert torch.allclose(found, share, atol=4 * 0.5 / 4000**0.5)


@pytest.mark.usefixtures("narrow")
def test_segments_are_drawn_below_1(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "negrec.objectives.s3rec_pretrain.uniform",
        lambda shape, *_: torch.full(shape, 1 - 2.0**-53, dtype=torch.double),
    )
    draws = Draws.of(toy.batch([[1, 2, 3]]), None)
    assert draws.size.dtype == torch.float32
    for n in (1, 3, 50, 4095, 2**15 + 1):
        assert (draws.size * n).long().item() == n - 1
