"""Twenty losses of every combination below, kept as files: a refactor leaves them as they are.

``make golden`` writes them anew; a change that moves them says so in its commit.
"""

import json
import os
from itertools import islice
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from negrec import seeding
from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.kernels import native
from negrec.types import Step
from tests import toy

CONF = Path(__file__).parents[2] / "conf"
HERE = Path(__file__).parent
# Every sampler with BCE, every loss with a sampler that suits it.
_SAMPLERS = (
    *("uniform", "popularity", "inverse_popularity", "in_batch", "cross_batch", "mixed"),
    *("adaptive", "adaptive_in_batch", "adaptive_mixed", "genni", "srns", "full"),
)
_LOSSES = {
    "softmax": "full",
    **dict.fromkeys(("gbce", "bpr", "bpr_max", "sampled_softmax"), "mixed"),
}
COMBINATIONS = [
    *(("sasrec", sampler, "bce") for sampler in _SAMPLERS),
    *(("sasrec", sampler, loss) for loss, sampler in _LOSSES.items()),
]


def machine():
    """What bits depend on; on another machine the last ones may differ."""
    return f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"


def losses(model_name, sampler, loss):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = [f"model={model_name}", f"sampler={sampler}", f"loss={loss}"]
        cfg = compose("train", words)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train = toy.jagged(toy.random_histories(160, 300, 14))
    sequences = Sequences(train, 10, instantiate(cfg.targets))
    info = sequences.facts(toy.info(300, max_length=10))
    torch.manual_seed(seeding.stream_seed(0, "model"))
    model = instantiate(cfg.model)(info)
    objective = instantiate(cfg.objective)(info, sequences)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    values = []
    batches = (b for epoch in range(9) for b in Loader(sequences, 16, 0).epoch(epoch))
    for index, batch in enumerate(islice(batches, 20)):
        torch.manual_seed(seeding.stream_seed(0, "dropout", *batch.key))
        generator = seeding.generator(0, "sampler", *batch.key)
        optimizer.zero_grad(set_to_none=False)
        for parameter in model.parameters():  # as the trainer: gradients stay dense
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        outcome = objective(model, batch, Step(batch.key[0], index, generator, batch.key))
        outcome.loss.backward()
        optimizer.step()
        objective.observe(model, outcome.feedback)
        values.append(outcome.loss.item())
    torch.set_num_threads(threads)
    return values


def file_of(combination):
    return HERE / f"{'-'.join(combination)}.json"


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_golden(combination):
    path = file_of(combination)
    with native.plain():
        values = losses(*combination)
    if os.environ.get("NEGREC_WRITE_GOLDEN") == "1":
        path.write_text(json.dumps({"machine": machine(), "losses": values}, indent=1) + "\n")
    kept = json.loads(path.read_text())
    if kept["machine"] == machine():
        assert values == kept["losses"]
    else:
        assert values == pytest.approx(kept["losses"], rel=1e-4)


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_compiled_code_gives_the_same_losses(combination):
    if not native.available():
        pytest.skip("no compiled code here")
    kept = json.loads(file_of(combination).read_text())["losses"]
    # Where scores choose the negatives, a last bit chooses another one sooner or later, and from
    # there on the trainings part.
    assert losses(*combination)[:5] == pytest.approx(kept[:5], rel=1e-4)
