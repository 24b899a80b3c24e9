"""How well predicted probabilities fit the truth: ``python -m tests.benchmarks.calibration``.

On the made-up data set P(next item) is known. SASRec is trained on it by gBCE with t = 1 and by
BCE, both with the same uniform negatives, and sigma(score) is compared with P for all items after
every test history. gSASRec (arXiv:2308.07192) says that the first is calibrated (corollary 5.1.1)
and the second is not: by theorem 5.1 it predicts P / (alpha - alpha P + P), too much by up to
1 / alpha.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from negrec.evaluation.evaluator import batch_of
from negrec.experiment import Parts, build
from negrec.training.checkpoint import Checkpoints

CONF = Path(__file__).parents[2] / "conf"
LOSSES = {"gbce t=1": ("loss=gbce", "t=1"), "bce": ("loss=bce",)}
BINS_PER_DECADE = 4
FEWEST = 200  # predictions of a bin that is shown


@dataclass(frozen=True)
class Probabilities:
    """Predicted and true probabilities of all items after M histories, (M, V) each."""

    predicted: Tensor
    true: Tensor

    def bins(self) -> tuple[Tensor, Tensor]:
        """Mean predicted and mean true probability of predictions of like size."""
        predicted, true = self.predicted.flatten(), self.true.flatten()
        number = (predicted.log10() * BINS_PER_DECADE).floor()
        _, number = torch.unique(number, return_inverse=True)
        size = torch.bincount(number)
        shown = size >= FEWEST
        means = [torch.bincount(number, x) / size for x in (predicted, true)]
        return means[0][shown], means[1][shown]

    def at_top(self, k: int) -> tuple[float, float]:
        """Mean predicted and mean true probability of the k items that are predicted highest."""
        best = self.predicted.topk(k, dim=1)
        return best.values.mean().item(), self.true.gather(1, best.indices).mean().item()


def train(words: list[str]) -> Parts:
    """A trained model, with the weights of its best validation epoch."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["dataset=synthetic", *words])
    parts = build(cfg)
    with tempfile.TemporaryDirectory() as folder:
        fit = parts.trainer.fit(
            parts.model,
            parts.objective,
            Checkpoints(Path(folder)),
            validate=lambda model: parts.validate(model).metrics,
            log_metrics=lambda metrics, epoch: None,
        )
    print(f"  best epoch {fit.best_epoch + 1} of {fit.epochs}, {fit.seconds:.0f} s")
    return parts


@torch.no_grad()
def probabilities(parts: Parts) -> Probabilities:
    """What the model believes after every test history, and what is true."""
    truth = parts.interactions.truth
    assert truth is not None
    truth = truth.for_catalogue(parts.split.catalogue)
    held_out = parts.split.test
    batch = batch_of(held_out, parts.split.info.max_length)
    parts.model.eval()
    predicted = torch.sigmoid(parts.model.scorer.every(parts.model.represent(batch)))
    histories = held_out.histories()
    seen = torch.zeros(predicted.shape, dtype=torch.bool)
    seen[histories.row, histories.values - 1] = True
    true = truth.log_prob(batch.user, batch.items[batch.last], seen).exp()
    return Probabilities(predicted.double(), true.double())


def show(found: dict[str, Probabilities], alpha: float, path: Path) -> None:
    """Draws predicted against true probability."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    low, high = 1e-5, 1.0
    line = torch.logspace(-5, 0, 200)
    axes.plot(line, line, color="0.6", label="calibrated")
    overconfident = line / (alpha - alpha * line + line)
    axes.plot(line, overconfident, color="0.6", linestyle=":", label="theorem 5.1, t=0")
    for (name, each), marker in zip(found.items(), "os", strict=True):
        predicted, true = each.bins()
        axes.plot(true, predicted, marker=marker, markersize=4, label=name)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel="true probability, mean of the bin", ylabel="predicted probability")
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k", type=int, default=64, help="negatives of a sequence")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--figure", type=Path, default=Path("calibration.png"))
    arguments = parser.parse_args()
    words = [f"k={arguments.k}", "sampler=uniform", "sampler.share=sequence"]
    words += [
        f"trainer.max_epochs={arguments.epochs}",
        "trainer.progress=false",
        "trainer.evaluate_every=5",
    ]
    found = {}
    for name, loss in LOSSES.items():
        print(name)
        parts = train([*words, *loss])
        each = found[name] = probabilities(parts)
        total = each.predicted.sum(1).mean()
        print(f"  predicted probabilities of the catalogue add up to {total:.2f}")
        for k in (1, 10, 100):
            predicted, true = each.at_top(k)
            print(f"  top {k}: predicted {predicted:.4f}, true {true:.4f}, {predicted / true:.2f}")
    alpha = arguments.k / (parts.split.info.n_items - 1)
    print(f"alpha {alpha:.3f}: BCE is expected to say up to {1 / alpha:.1f} times too much")
    show(found, alpha, arguments.figure)
    print(f"figure {arguments.figure}")


if __name__ == "__main__":
    main()
