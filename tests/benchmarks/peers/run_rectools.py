"""RecTools' SASRec with its loss "BCE" and one negative, in RecTools' own environment."""

import warnings

import measuring
import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from measuring import Span
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

warnings.filterwarnings("ignore")


class Clock(lightning.Callback):
    """Times the second epoch: the first one of a process pays for what it allocates."""

    def __init__(self) -> None:
        self.span = Span()

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: object) -> None:
        self.span.__enter__()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: object) -> None:
        self.span.__exit__(None, None, None)


def interactions(values: np.ndarray, offsets: np.ndarray) -> Dataset:
    """A data set of histories, whose order is that of the time."""
    lengths = np.diff(offsets)
    user = np.repeat(np.arange(len(lengths)), lengths)
    when = np.arange(len(values)) - np.repeat(offsets[:-1], lengths)
    frame = pd.DataFrame({Columns.User: user, Columns.Item: values, Columns.Weight: 1})
    frame[Columns.Datetime] = pd.Timestamp("2020-01-01") + pd.to_timedelta(when, unit="D")
    return Dataset.construct(frame)


def main() -> None:
    """Trains two epochs and recommends to everybody."""
    torch.set_num_threads(measuring.threads())
    path, folder = measuring.data()
    data = np.load(path)

    def trainer() -> lightning.Trainer:
        # As RecTools makes it by itself (no logger, no checkpoints), on the CPU, with the clock.
        return lightning.Trainer(
            accelerator="cpu",
            devices=1,
            min_epochs=2,
            max_epochs=2,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Clock()],
            default_root_dir=folder,
        )

    model = SASRecModel(
        n_blocks=measuring.BLOCKS,
        n_heads=measuring.HEADS,
        n_factors=measuring.DIM,
        dropout_rate=measuring.DROPOUT,
        session_max_len=measuring.LENGTH,
        batch_size=measuring.BATCH,
        loss="BCE",
        n_negatives=1,
        recommend_torch_device="cpu",
        get_trainer_func=trainer,
    )
    model.fit(interactions(data["train"], data["train_offsets"]))
    peak = measuring.peak_mb()
    (clock,) = [c for c in model.fit_trainer.callbacks if isinstance(c, Clock)]  # a copy of ours
    histories = interactions(data["history"], data["history_offsets"])
    with Span() as lists:
        model.recommend(
            users=np.arange(len(data["target"])),
            dataset=histories,
            k=measuring.TOP,
            filter_viewed=True,
        )
    measuring.report(peak, epoch=clock.span, evaluation=lists, lists=lists)  # it has no ranks


if __name__ == "__main__":
    main()
