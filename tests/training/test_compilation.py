import copy
import logging
import math
from pathlib import Path

import pytest
import torch

from negrec.kernels import native
from negrec.models.gru4rec import GRU4Rec
from negrec.models.layers import RowAttention
from negrec.models.sasrec import SASRec
from negrec.training import compilation
from negrec.training.compilation import compile_blocks
from tests import toy
from tests.training.test_trainer import Run

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def class_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowAttention, "forward", RowAttention.forward)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_losses_and_gradients_are_the_same(tmp_path: Path):
    def run(name: str, **settings: bool) -> Run:
        made = Run(tmp_path / name, max_epochs=2, kernels="torch", **settings)
        for module in made.model.modules():
            if hasattr(module, "p"):
                module.p = 0.0  # what is dropped out is drawn differently
        made.fit()
        return made

    plain, compiled = run("plain"), run("compiled", compile=True)
    assert compiled.model.encoder.blocks[0]._compiled_call_impl is not None
    assert compiled.losses() == pytest.approx(plain.losses(), rel=1e-5)
    # A teacher is a copy, which stands by itself.
    twin = copy.deepcopy(compiled.model).eval()
    batch = toy.batch(toy.random_histories(5, 20, 8))
    given = compiled.model.eval().represent(batch)
    torch.testing.assert_close(twin.represent(batch), given, atol=1e-5, rtol=1e-5)
    gradients = []
    for model in (twin, compiled.model):
        (gradient,) = torch.autograd.grad(
            model(batch).hidden.square().sum(), [model.encoder.blocks[0].up.weight]
        )
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_dropout_is_drawn_by_the_compiled_code():
    model = SASRec(toy.info(20), dim=16, blocks=1, dropout=0.5)
    batch = toy.batch(toy.random_histories(30, 20, 8))
    with native.plain():
        compile_blocks(model, CPU)
        states = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            states.append(model(batch).hidden.detach())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert math.isfinite(states[0].sum().item())


def test_where_the_compiler_does_not_work_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no C++ compiler\nand more lines")

    monkeypatch.setattr(torch, "compile", refuse)
    model = SASRec(toy.info(20), dim=8)
    with caplog.at_level(logging.WARNING, logger="negrec"):
        compile_blocks(model, CPU)
    assert caplog.messages == [
        "compile=true: PyTorch's compiler does not work here (no C++ compiler)"
    ]
    assert all(block._compiled_call_impl is None for block in model.encoder.blocks)


def test_what_is_no_transformer_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(compilation, "_failure", lambda _: pytest.fail("looked for a compiler"))
    compile_blocks(GRU4Rec(toy.info(20), dim=8), CPU)
    assert "GRU4Rec has no transformer blocks" in caplog.text
