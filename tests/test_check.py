"""``negrec check``: what a person sees of the contracts."""

from pathlib import Path

import pytest
import torch

from negrec import cli

SOURCE = '''
import torch
from torch.nn import functional as F

from negrec.losses.base import ScoreLoss
from negrec.models.base import SequenceModel
from negrec.samplers.base import Proposal
from negrec.scoring import ItemScorer
from negrec.types import Queries


class Broken(Proposal):
    """Returns the padding id, draws from the global stream, and gives a wrong log_prob."""

    def draw(self, rows, generator):
        return torch.randint(0, self.n_items, (rows, self.k))

    def log_prob(self, items):
        return torch.full(items.shape, -3.0)


class Global(Proposal):
    """As good as uniform, but for its source of randomness."""

    def draw(self, rows, generator):
        return torch.randint(1, self.n_items + 1, (rows, self.k))


class Fails(Proposal):
    def draw(self, rows, generator):
        return generator.nothing


class Unmasked(ScoreLoss):
    def __init__(self, weight=1.0):
        super().__init__()
        if weight <= 0:
            raise ValueError(f"weight must be positive, got {weight}")
        self.weight = weight

    def per_query(self, scores):
        return F.softplus(-scores.positive) + self.weight * F.softplus(scores.negative).sum(1)


class Sound(ScoreLoss):
    def per_query(self, scores):
        apart = F.softplus(scores.negative - scores.positive[:, None])
        return apart.masked_fill(~scores.valid, 0).sum(1)


class Averages(SequenceModel):
    """The mean of all items of the batch's sequence, later ones too."""

    def __init__(self, info, dim, unused=False):
        super().__init__()
        self.scorer = ItemScorer(info.n_items, dim)
        if unused:
            self.unused = torch.nn.Linear(dim, dim)

    def states(self, batch):
        sums = torch.zeros(batch.n_sequences, self.scorer.width, dtype=self.scorer.weight.dtype)
        sums = sums.to(batch.items.device)
        sums = sums.index_add(0, batch.sequence, self.scorer.embed(batch.items))
        return self.scorer.query(sums / batch.offsets.diff()[:, None])

    def forward(self, batch):
        return Queries.of(batch, self.states(batch)[batch.sequence])

    def represent(self, batch):
        return self.states(batch)


def function():
    """No part."""
'''


class Checked:
    """One ``negrec check`` after the other, in a folder with a module of the user's."""

    def __init__(self, capsys: pytest.CaptureFixture[str], module: str) -> None:
        self.capsys = capsys
        self.module = module
        self.out = ""
        self.err = ""

    def __call__(self, name: str, *words: str) -> int:
        code = cli.main(["check", name.replace("mine.", f"{self.module}."), *words])
        self.out, self.err = self.capsys.readouterr()
        return code

    def refusal(self, *words: str) -> str:
        assert self(*words) == 2
        (line,) = self.err.strip().splitlines()
        return line

    def marked(self, word: str) -> set[str]:
        """The contracts whose line starts with a word."""
        lines = [line.rstrip() for line in self.out.splitlines()]
        return {line.removeprefix(word).strip() for line in lines if line.startswith(f"{word} ")}


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Checked:
    module = f"mine_{abs(hash(tmp_path))}"  # a module of its own for each test: imports are kept
    (tmp_path / f"{module}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    return Checked(capsys, module)


def test_a_sampler_of_ours(check: Checked):
    assert check("negrec.samplers.uniform.Uniform", "k=3") == 0
    assert "Uniform(k=3), a sampler" in check.out
    assert "all 14 contracts hold" in check.out
    assert not check.marked("BROKEN")


def test_a_broken_sampler(check: Checked):
    assert check("mine.Broken", "k=2") == 1
    assert {
        "candidates are (R, K) ids of the catalogue",
        "nothing is drawn from a global source of randomness",
        "the density sums to 1",
    } <= check.marked("BROKEN")
    assert "ids are 0..299, the catalogue is 1..300" in check.out
    assert "to do: draw with generator=step.generator" in check.out
    # exp(-3) for each of 300 items.
    assert "it sums to 14.93612" in check.out
    assert "IndexError" not in check.out  # what follows from id 0 is not told again and again


def test_the_verdicts_are_the_same_each_time(check: Checked):
    said = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        check("mine.Broken", "k=2")
        said.append(check.out)
    assert said[0] == said[1]


def test_only_what_is_broken_is_said_to_be(check: Checked):
    assert check("mine.Global", "k=2") == 1
    assert check.marked("BROKEN") == {
        "the draw follows from step.generator alone",
        "nothing is drawn from a global source of randomness",
        "a state_dict round trip keeps the draws",
    }
    assert "3 of" in check.out


def test_a_broken_loss(check: Checked):
    assert check("mine.Unmasked", "weight=2") == 1
    assert check.marked("BROKEN") == {"candidates that are ruled out change nothing"}
    assert "1 of 10 contracts is broken" in check.out


def test_a_sound_loss(check: Checked):
    assert check("mine.Sound") == 0
    assert len(check.marked("holds")) == 10


def test_a_model_of_ours(check: Checked):
    assert check("negrec.models.sasrec.SASRec", "dim=8", "blocks=1") == 0
    assert "SASRec(dim=8, blocks=1), a model, trained on NextItem" in check.out
    assert "all 14 contracts hold" in check.out


def test_a_model_of_ours_that_is_trained_in_its_own_way(check: Checked):
    words = ["dim=8", "blocks=1", "targets=masked_item", "objective=ranking"]
    assert check("negrec.models.bert4rec.BERT4Rec", *words) == 0
    assert "a model, trained on MaskedItem" in " ".join(check.out.split())
    assert "causal = False: a state may look at the whole" in " ".join(check.out.split())


def test_a_broken_model(check: Checked):
    assert check("mine.Averages", "dim=4") == 1
    assert check.marked("BROKEN") == {"later items change no earlier state, or causal is False"}
    assert check("mine.Averages", "dim=4", "unused=true") == 1
    assert "no gradient ever reaches unused.weight, unused.bias" in " ".join(check.out.split())


def test_an_error_tells_where_it_was(check: Checked):
    assert check("mine.Fails", "k=2") == 1
    line = SOURCE.splitlines().index("        return generator.nothing") + 1
    assert f"no attribute 'nothing' ({check.module}.py, line {line})" in " ".join(check.out.split())


def test_a_policy_that_is_named_is_the_only_one(check: Checked):
    assert check("negrec.samplers.in_batch.InBatch", "k=20", "exclude=target") == 0
    assert "it excludes items, and exclude cannot be set to none" in " ".join(check.out.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["mine.Borken"], "has no Borken: there is Broken"),
        (["mine.Nothing"], "there is Broken, Global, Fails, Unmasked, Sound, Averages"),
        (["nowhere.Sampler"], "there is no module nowhere"),
        (["mine.function"], "function is no model, sampler or loss: derive it from"),
        (["Broken"], "Broken names no module: write it as mypackage.Broken"),
        (["mine.Broken"], "Broken(): Proposal.__init__() missing 1 required positional argument"),
        (["mine.Broken", "k=0"], "Broken(k=0): k must be at least 1, got 0"),
        (["mine.Unmasked", "weight=-1"], "weight must be positive, got -1"),
        (["mine.Broken", "k=1", "colour=red"], "unexpected keyword argument 'colour'"),
        (["mine.Broken", "k=1", "k=2"], "k is given twice"),
        (["mine.Broken", "k=1,2"], "k=1,2 is no argument of a constructor"),
        (["mine.Broken", "k"], "'k' is not KEY=VALUE"),
        (["k=1"], "name the class first"),
        (["mine.Averages", "dim=4", "targets=next"], "targets"),
        (["mine.Averages"], "missing 1 required positional argument: 'dim'"),
        (["mine.Broken", "--fast"], "check has no --fast"),
        (["negrec.samplers.base.Proposal", "k=1"], "Can't instantiate abstract class Proposal"),
    ],
)
def test_bad_input_is_one_line(check: Checked, words: list[str], says: str):
    assert says in check.refusal(*words)


def test_a_module_that_cannot_be_imported(check: Checked, tmp_path: Path):
    (tmp_path / "torn.py").write_text("import nothing_like_this\n")
    assert "torn cannot be imported: No module named 'nothing_" in check.refusal("torn.Sampler")
    (tmp_path / "bent.py").write_text("def (:\n")
    assert "bent cannot be imported: SyntaxError" in check.refusal("bent.Sampler")


def test_help(check: Checked):
    assert check("--help") == 0
    assert "negrec check CLASS" in check.out
