"""RecBole's SASRec with its loss "BPR" and one negative, in RecBole's own environment.

RecBole makes a row of each prefix of a history. A part of the epoch's batches is trained, and its
seconds are scaled to the whole.
"""

import itertools
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import measuring
import numpy as np
import torch
from measuring import Span
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

warnings.filterwarnings("ignore")

WARM_UP, MEASURED = 4, 40  # batches


class Part:
    """Some batches of a loader; the first ones are not timed."""

    def __init__(self, loader: object) -> None:
        self.loader = loader
        self.span = Span()

    def __iter__(self) -> Iterator[object]:
        for index, batch in enumerate(itertools.islice(self.loader, WARM_UP + MEASURED)):
            if index == WARM_UP:  # its own making, which came before, stands for the next one's
                self.span.__enter__()
            yield batch
        self.span.__exit__(None, None, None)

    def __len__(self) -> int:
        return WARM_UP + MEASURED


def write(data: "np.lib.npyio.NpzFile", folder: Path) -> None:
    """The histories and their targets as RecBole's own file; it holds out the last two items."""
    offsets = data["history_offsets"]
    lengths = np.diff(offsets)
    with (folder / "peers.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, (start, size) in enumerate(zip(offsets[:-1], lengths, strict=True)):
            items = [*data["history"][start : start + size], data["target"][user]]
            file.writelines(f"{user}\t{item}\t{when}\n" for when, item in enumerate(items))


def main() -> None:
    """Trains some batches and evaluates everybody."""
    torch.set_num_threads(measuring.threads())
    path, folder = measuring.data()
    os.chdir(folder)
    place = folder / "peers"
    place.mkdir()
    write(np.load(path), place)
    config = Config(
        model="SASRec",
        dataset="peers",
        config_dict={
            "data_path": str(folder),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "use_gpu": False,
            "show_progress": False,
            "n_layers": measuring.BLOCKS,
            "n_heads": measuring.HEADS,
            "hidden_size": measuring.DIM,
            "inner_size": 4 * measuring.DIM,
            "hidden_dropout_prob": measuring.DROPOUT,
            "attn_dropout_prob": measuring.DROPOUT,
            "MAX_ITEM_LIST_LENGTH": measuring.LENGTH,
            "loss_type": "BPR",
            "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
            "train_batch_size": measuring.BATCH,
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
            "metrics": ["Hit", "NDCG", "MRR"],
            "topk": [1, 5, 10, measuring.TOP],
            "valid_metric": "NDCG@10",
        },
    )
    logging.disable()
    init_seed(config["seed"], config["reproducibility"])
    train, _, test = data_preparation(config, create_dataset(config))
    model = SASRec(config, train.dataset)
    trainer = Trainer(config, model)
    trainer.eval_collector.data_collect(train)
    part = Part(train)
    part.shuffle = False  # what a loader has and the trainer asks for; one process needs it not
    trainer._train_epoch(part, 0)
    peak = measuring.peak_mb()
    with Span() as evaluation:
        trainer.evaluate(test, load_best_model=False)
    epoch = part.span.times(len(train) / MEASURED)
    note = f"{MEASURED} of {len(train)} batches"
    measuring.report(peak, note, epoch=epoch, evaluation=evaluation)


if __name__ == "__main__":
    main()
