"""What every sampler of conf/sampler must obey."""

import copy
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from negrec.data.splits.global_temporal import GlobalTemporal
from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.samplers.base import Proposal
from negrec.types import Feedback, Negatives
from tests import toy
from tests.data import made

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "sampler").glob("*.yaml"))
V = 40


def build(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"sampler={name}", *overrides])
    return instantiate(cfg.sampler)(toy.info(V, counts=[*range(V - 1), 0]))


def draw(sampler, seed=0):
    queries = toy.queries(toy.batch(toy.random_histories(60, V, 12), max_length=6))
    with torch.no_grad():
        return queries, sampler.sample(queries, toy.scorer(V), toy.step(seed))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("exclude", ["none", "target", "window", "history"])
def test_items_are_of_the_catalogue_and_the_excluded_never_valid(name, exclude):
    queries, negatives = draw(build(name, f"sampler.exclude={exclude}"))
    assert ((negatives.items >= 1) & (negatives.items <= V)).all()
    assert negatives.exclude == exclude
    valid = negatives.valid(queries)
    items = negatives.of().expand_as(valid)
    index = torch.arange(len(items))[:, None].expand_as(items)
    assert not (valid & queries.excluded.contains(items, index, exclude)).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_gives_the_same_draw(name):
    sampler = build(name)
    _, first = draw(sampler, seed=1)
    _, again = draw(sampler, seed=1)
    _, other = draw(sampler, seed=2)
    assert torch.equal(first.items, again.items)
    assert not torch.equal(first.items, other.items)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_global_is_drawn_from(name):
    sampler, queries, scorer = build(name), draw(build(name))[0], toy.scorer(V)
    before = torch.get_rng_state()
    sampler.sample(queries, scorer, toy.step())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_round_trip_keeps_the_draws(name):
    sampler = build(name)
    queries, negatives = draw(sampler)
    sampler.observe(Feedback(queries, negatives, None, torch.ones(len(queries.target))))
    twin = build(name)
    twin.load_state_dict(copy.deepcopy(sampler.state_dict()))
    assert torch.equal(draw(sampler, 3)[1].items, draw(twin, 3)[1].items)


@pytest.mark.parametrize("name", NAMES)
def test_buffers_move(name):
    sampler = build(name).to("meta")
    assert all(buffer.is_meta for buffer in sampler.buffers())


PROPOSALS = [name for name in NAMES if isinstance(build(name), Proposal)]


@pytest.mark.parametrize("name", PROPOSALS)
def test_frequencies_are_those_of_log_prob(name):
    sampler = build(name)
    probability = sampler.log_prob(torch.arange(1, V + 1)).double().exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-5)
    drawn = sampler.draw(20_000, torch.Generator().manual_seed(0))
    assert toy.chi_square_p(drawn - 1, probability) > 1e-4


@pytest.mark.parametrize("name", PROPOSALS)
@pytest.mark.parametrize("share", ["query", "sequence", "batch"])
@pytest.mark.parametrize("exclude", ["none", "target", "window", "history"])
def test_log_q_is_the_density_that_was_drawn_from(name, share, exclude):
    sampler = build(name, f"sampler.share={share}", f"sampler.exclude={exclude}", "k=3")
    queries, negatives = draw(sampler)
    density = sampler.log_prob(torch.arange(1, V + 1)).exp()
    expected = density.expand(len(queries.target), -1)
    if share == "query":  # redrawn, so renormalised over what is not excluded
        every = torch.arange(1, V + 1).expand(len(queries.target), -1)
        allowed = Negatives(every, exclude=exclude).valid(queries)
        expected = expected * allowed
        expected = expected / expected.sum(1, keepdim=True)
        index = torch.arange(len(queries.target))[:, None]
        torch.testing.assert_close(negatives.log_q.exp(), expected[index, negatives.items - 1])
    else:
        torch.testing.assert_close(negatives.log_q.exp(), density[negatives.items - 1])
    torch.testing.assert_close(negatives.target_log_q.exp(), density[queries.target - 1])


@pytest.mark.parametrize("name", PROPOSALS)
@pytest.mark.parametrize("share", ["query", "sequence", "batch"])
def test_rows_by_share(name, share):
    queries, negatives = draw(build(name, f"sampler.share={share}", "k=5"))
    rows = {"query": len(queries.target), "sequence": 60, "batch": 1}[share]
    assert negatives.items.shape == (rows, 5)
    assert negatives.of().shape[0] == (1 if share == "batch" else len(queries.target))
    if share == "sequence":
        assert torch.equal(negatives.row, queries.sequence)


@pytest.mark.parametrize("name", PROPOSALS)
@pytest.mark.parametrize("exclude", ["target", "window", "history"])
def test_a_draw_per_query_leaves_k_valid_negatives_of_the_renormalised_proposal(name, exclude):
    sampler = build(name, f"sampler.exclude={exclude}", "k=5")
    queries, negatives = draw(sampler)
    assert negatives.valid(queries).all()
    # One query, many draws: the proposal without what is excluded, renormalised.
    single = toy.queries(toy.batch([[36, 37, 38]], max_length=1))  # input 37, target 38
    expected = sampler.log_prob(torch.arange(1, V + 1)).double().exp()
    out = {"target": [38], "window": [37, 38], "history": [36, 37, 38]}[exclude]
    expected[torch.tensor(out) - 1] = 0
    drawn = torch.cat(
        [
            sampler.sample(single, toy.scorer(V), toy.step(seed)).items.flatten()
            for seed in range(3_000)
        ]
    )
    assert toy.chi_square_p(drawn - 1, expected / expected.sum()) > 1e-4


@pytest.mark.parametrize("name", PROPOSALS)
def test_a_catalogue_that_is_wholly_excluded_is_masked(name):
    sampler = build(name, "sampler.exclude=history")
    everything = toy.queries(toy.batch([list(range(1, V + 1))], max_length=V))
    negatives = sampler.sample(everything, toy.scorer(V), toy.step())
    assert not Negatives(negatives.items, exclude="history").valid(everything).any()


@pytest.mark.parametrize("name", PROPOSALS)
@pytest.mark.parametrize(
    "split", [LeaveOneOut(), GlobalTemporal((0.7, 0.15, 0.15), catalogue="all")]
)
def test_no_sampler_learns_from_what_is_held_out(name, split):
    # Items 90 and 91 occur only late, as validation and test targets.
    learnt = [(u, item, item) for u in range(6) for item in range(1, 30)]

    def density(*planted):
        late = [(u, item, 100 * n) for u in range(6) for n, item in enumerate(planted, start=1)]
        data = made.interactions([*learnt, *late])
        info = split(data, max_length=5, seed=0).info
        own = data.item_ids.to_list()  # the whole catalogue: ids follow the data's index
        assert [info.counts[own.index(item)].item() for item in (90, 91)] == [0, 0]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [f"sampler={name}"])
        every = instantiate(cfg.sampler)(info).log_prob(torch.arange(1, info.n_items + 1))
        return dict(zip(own, every.tolist(), strict=True))

    assert density(90, 91) == density(91, 90)
