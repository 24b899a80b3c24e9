"""negrec's SASRec as its configuration has it: binary cross-entropy, one uniform negative."""

from statistics import median

import torch

from negrec.evaluation.evaluator import Evaluator
from tests.benchmarks.__main__ import load, trained
from tests.benchmarks.peers import measuring
from tests.benchmarks.peers.measuring import Span

EPOCHS = 3  # after one whose process allocates what the others use again


def main() -> None:
    """Trains some epochs and evaluates everybody, without and with lists."""
    data = load()
    threads = measuring.threads()
    done = trained(data, (), threads, 1 + EPOCHS)
    peak = measuring.peak_mb()
    model = done.model.eval()
    spans = {}
    for name, lists in (("evaluation", False), ("lists", True)):
        evaluator = Evaluator(data.held_out, data.info, lists=lists)
        with Span() as spans[name], torch.no_grad():
            evaluator(model)
    wall = median(done.seconds[1:])
    cpu = median(done.cpu_seconds[1:])
    measuring.report(peak, epoch=Span(wall, cpu), **spans)


if __name__ == "__main__":
    main()
