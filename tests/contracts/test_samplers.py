"""What every sampler of conf/sampler must obey."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from negrec.contracts.base import DoesNotApplyError
from negrec.contracts.samplers import CONTRACTS, Subject
from negrec.contracts.toy import world
from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.splits.global_temporal import GlobalTemporal
from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.data.targets import NextItem
from negrec.samplers.base import Proposal
from negrec.types import Negatives
from tests import toy
from tests.data import made

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "sampler").glob("*.yaml"))
WRAPPERS = sorted(
    {path.stem for path in (CONF / "sampler/false_negatives").glob("*.yaml")} - {"none"}
)
OPTIONS = [[f"sampler={name}"] for name in NAMES]
OPTIONS += [["sampler=genni", "index=clusters", f"k={k}"] for k in (1, 3)]
OPTIONS += [
    ["sampler=uniform", "k=4", f"sampler/false_negatives={name}", f"mining_start={start}"]
    for name in WRAPPERS
    for start in (0, "plateau")
]
V = 40


@cache
def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("train", [*overrides]), resolve=True)


def maker(*overrides, exclude=None):
    """What makes a configured sampler, with another policy wherever it has one."""
    cfg = config(*overrides)
    base, wrapper = (with_policy(cfg[key], exclude) for key in ("sampler", "false_negatives"))
    sampler = instantiate(base)
    if wrapper is None:
        return sampler
    around = instantiate(wrapper)
    return lambda info: around(info, sampler(info))


def with_policy(node, exclude):
    if not isinstance(node, dict):
        return node
    changed = {key: with_policy(child, exclude) for key, child in node.items()}
    if "exclude" in node and exclude is not None:
        changed["exclude"] = exclude
    return changed


def build(name, *overrides):
    return maker(f"sampler={name}", *overrides)(toy.info(V, counts=[*range(V - 1), 0]))


def draw(sampler, seed=0):
    queries = toy.queries(toy.batch(toy.random_histories(60, V, 12), max_length=6))
    with torch.no_grad():
        return queries, sampler.sample(queries, toy.scorer(V), toy.step(seed))


@pytest.mark.parametrize("contract", CONTRACTS, ids=str)
@pytest.mark.parametrize("overrides", OPTIONS, ids="+".join)
def test_contract(overrides, contract):
    subject = Subject(maker(*overrides), lambda policy: maker(*overrides, exclude=policy))
    try:
        contract.check(subject)
    except DoesNotApplyError as reason:
        pytest.skip(str(reason))


# ---- what proposals promise beyond that

PROPOSALS = [name for name in NAMES if isinstance(maker(f"sampler={name}")(world().info), Proposal)]


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


# ---- held-out data


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "split", [LeaveOneOut(), GlobalTemporal((0.7, 0.15, 0.15), catalogue="all")]
)
def test_no_sampler_learns_from_what_is_held_out(name, split):
    # Items 990 and 991 occur only late, as validation and test targets.
    learnt = [(u, 10 * u + item, item) for u in range(40) for item in range(1, 10)]

    def seen(*planted):
        """All that a sampler gives away: its density and its draws, by the data's own ids."""
        late = [(u, item, 100 * n) for u in range(40) for n, item in enumerate(planted, start=1)]
        data = made.interactions([*learnt, *late])
        made_split = split(data, max_length=5, seed=0)
        own = data.item_ids.to_list()  # the whole catalogue: ids follow the data's index
        assert [made_split.info.counts[own.index(item)].item() for item in (990, 991)] == [0, 0]
        sequences = Sequences(made_split.train, 5, NextItem())
        info = sequences.facts(made_split.info)
        sampler = maker(f"sampler={name}")(info)
        queries = toy.queries(Loader(sequences, len(sequences), 0).batch(torch.arange(20), (0, 0)))
        items = sampler.sample(queries, toy.scorer(info.n_items), toy.step()).items
        density = sampler.log_prob(torch.arange(1, info.n_items + 1))
        by_id = None if density is None else dict(zip(own, density.tolist(), strict=True))
        return by_id, [[own[item - 1] for item in row] for row in items.tolist()]

    assert seen(990, 991) == seen(991, 990)
