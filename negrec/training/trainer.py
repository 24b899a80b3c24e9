"""The training loop."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from torch import Tensor

from negrec import seeding
from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.embedding import late_rows
from negrec.errors import InputError
from negrec.evaluation.observer import Observer
from negrec.kernels import native
from negrec.models.base import SequenceModel
from negrec.objectives.base import Objective
from negrec.training.checkpoint import Checkpoint, Checkpoints, save
from negrec.training.distributed import check_same, share_checkpoint, share_state, sum_gradients
from negrec.training.early_stopping import EarlyStopping
from negrec.training.interruption import InterruptedRunError, Interruption
from negrec.training.lazy_adam import LazyAdam
from negrec.training.prefetch import Prefetch
from negrec.training.progress import TrainingProgress
from negrec.training.schedule import SCHEDULES, factor
from negrec.types import Batch, Outcome, Step
from negrec.wide import has_float64, place
from negrec.world import ALONE, World

log = logging.getLogger(__name__)

Validate = Callable[[SequenceModel], Mapping[str, float]]
Log = Callable[[Mapping[str, float], int], None]

_CHECK_EVERY = 100  # steps; looking at the loss makes the host wait for the device
_ESTIMATE_AFTER = 20  # steps until the time of an epoch is foretold; the first ones are slower


@dataclass
class Progress:
    """Where a training stands; all of it goes into the checkpoint.

    Attributes:
        epoch: the epoch to go on with, from 0.
        step: its next step.
        loss_sum: of the epoch's queries so far.
        queries: of the epoch so far.
        skipped: of these, the ones without a valid candidate.
        terms: of the loss by name, like ``loss_sum``.
        seconds: training and validation so far.
        epoch_seconds: training seconds of the epoch so far.
        sampler_seconds: of those, spent in the sampler.
        seconds_to_best: when the best epoch was reached.
        best_value: see ``EarlyStopping``.
        best_epoch: see ``EarlyStopping``.
        waited: see ``EarlyStopping``.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    queries: int = 0
    skipped: int = 0
    terms: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    sampler_seconds: float = 0.0
    seconds_to_best: float = 0.0
    best_value: float = -math.inf
    best_epoch: int = -1
    waited: int = 0


@dataclass(frozen=True)
class Fit:
    """How a training went.

    Attributes:
        epochs: trained.
        best_epoch: whose weights the model now has, from 0; -1 where nothing was trained.
        best_value: its validation metric; NaN where nothing was validated.
        converged: whether epochs after the best one were seen, or none is better than another.
        seconds: of training and validation.
        seconds_to_best: of these until the best epoch was reached.
    """

    epochs: int
    best_epoch: int
    best_value: float
    converged: bool
    seconds: float
    seconds_to_best: float


class Trainer:
    """Minimises an objective, keeps the epoch that validates best, and can be stopped anywhere.

    Several ranks take the same steps: each makes the same batch and works on its own part of it,
    gradients are summed, and what a step learns for later is the same on all. What they draw is
    what one process draws, but for dropout (and other views of a batch) and for samplers that
    draw from the model's belief: there each rank has a random stream of its own.

    Args:
        sequences: the training windows.
        seed: the run's seed.
        world: the ranks that train together.
        max_epochs: at the most, at least 0.
        batch_size: sequences of a batch, over all ranks.
        osf: epochs whose batches are kept and replayed from then on, see ``Loader``; None: none.
        evaluate_every: epochs from one validation to the next; the last epoch is validated too.
        patience: validations without a better ``metric`` that end the training; None: never.
        metric: name of the validation metric, higher being better; None: nothing is validated, all
            epochs are trained and the last one is kept.
        optimizer: makes the optimiser from parameters.
        schedule: of the learning rate after the warm-up: constant, linear or cosine.
        schedule_epochs: when a schedule that ends comes to its end; None: at ``max_epochs``.
        warmup_steps: over which the learning rate rises from 0.
        clip_norm: largest norm of the gradient; None: not clipped.
        device: "auto" takes CUDA where there is any, else the CPU; of several ranks of a machine
            each takes a GPU of its own.
        precision: 32, or "bf16" for mixed precision.
        threads: of the CPU; "auto" takes all cores, or ``OMP_NUM_THREADS``, by which launchers
            share the cores between jobs; the ranks of a machine share its cores.
        checkpoint_minutes: after so long an epoch is saved on its way.
        progress: a progress bar; "auto": where there is a terminal.
        kernels: "auto" takes compiled inner loops where there is a compiler, "torch" none; see
            ``negrec.kernels.native``.
        compile: PyTorch's compiler for the blocks of transformers, see ``compile_blocks``.
    """

    def __init__(
        self,
        sequences: Sequences,
        seed: int,
        world: World = ALONE,
        *,
        max_epochs: int,
        batch_size: int,
        optimizer: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
        osf: int | None = None,
        evaluate_every: int = 1,
        patience: int | None = None,
        metric: str | None = "ndcg_10",
        schedule: str = "constant",
        schedule_epochs: int | None = None,
        warmup_steps: int = 0,
        clip_norm: float | None = None,
        device: str = "auto",
        precision: Literal[32, "32", "bf16"] = 32,
        threads: int | Literal["auto"] = "auto",
        checkpoint_minutes: float = 10.0,
        progress: bool | Literal["auto"] = "auto",
        kernels: native.Choice = "auto",
        compile: bool = False,
    ) -> None:
        whole = {
            "max_epochs": max_epochs,
            "batch_size": batch_size,
            "osf": osf,
            "evaluate_every": evaluate_every,
            "patience": patience,
            "schedule_epochs": schedule_epochs,
            "warmup_steps": warmup_steps,
        }
        for name, value in whole.items():
            if value is not None and not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        if max_epochs < 0:
            raise ValueError(f"max_epochs must be at least 0, got {max_epochs}")
        if evaluate_every < 1:
            raise ValueError(f"evaluate_every must be at least 1, got {evaluate_every}")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
        if schedule_epochs is not None and schedule_epochs < 1:
            raise ValueError(f"schedule_epochs must be at least 1 or null, got {schedule_epochs}")
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0, got {warmup_steps}")
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"clip_norm must be positive or null, got {clip_norm}")
        if str(precision) not in ("32", "bf16"):
            raise ValueError(f"precision must be 32 or bf16, got {precision!r}")
        if threads != "auto" and threads < 1:
            raise ValueError(f"threads must be auto or at least 1, got {threads}")
        self.loader = Loader(sequences, batch_size, seed, osf)
        if batch_size < world.size:
            raise ValueError(
                f"batch_size={batch_size} is that of all ranks together: {world.size} ranks want "
                "at least as many sequences"
            )
        self.seed = seed
        self.world = world
        self.max_epochs = max_epochs
        self.evaluate_every = evaluate_every
        self.patience = patience
        self.metric = metric
        try:  # its settings are refused now, and not when the run has begun
            optimizer([torch.nn.Parameter(torch.zeros(1))])
        except (TypeError, ValueError) as error:
            raise ValueError(f"optimizer: {error}") from error
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.schedule_epochs = max_epochs if schedule_epochs is None else schedule_epochs
        self.warmup_steps = warmup_steps
        self.clip_norm = clip_norm
        self.device = choose_device(device, world)
        self.bf16 = str(precision) == "bf16"
        self.threads = allowed_threads(world) if threads == "auto" else threads
        self.checkpoint_seconds = 60 * checkpoint_minutes
        self.show = progress
        native.choose(kernels)
        self.kernels = kernels
        self.compile = compile
        EarlyStopping(patience)  # refuses bad values before anything is written

    def fit(
        self,
        model: SequenceModel,
        objective: Objective,
        checkpoints: Checkpoints,
        validate: Validate,
        log_metrics: Log,
        observer: Observer | None = None,
    ) -> Fit:
        """Trains from the start, or goes on where the last checkpoint stands.

        Afterwards the model and the objective hold the weights of the best validation epoch. An
        observer is shown every step, and its metrics are logged with the epoch's.

        Raises:
            InputError: the loss is not finite, the metric is unknown, or several ranks cannot train
                the objective.
            InterruptedRunError: Ctrl-C or SIGTERM came; the state is saved.
        """
        if self.world.size > 1 and not objective.sharded:
            raise InputError(
                f"objective {type(objective).__name__} cannot be trained by {self.world.size} "
                "ranks: it does not say what a part of a batch adds to the loss (see "
                "Objective.sharded); train it with one process"
            )
        torch.set_num_threads(self.threads)
        native.choose(self.kernels)
        # Whatever came before: a run that was cut off has the heads that a whole one has.
        torch.manual_seed(seeding.stream_seed(self.seed, "bind"))
        objective.bind(model)
        observer = observer or Observer()
        for module in (model, objective, observer):
            place(module, self.device)
        if self.compile:
            from negrec.training.compilation import compile_blocks

            compile_blocks(model, self.device)
        everything = [*model.parameters(), *objective.parameters()]
        parameters = [p for p in everything if p.requires_grad]  # a teacher's are not
        if not parameters:
            model.eval()
            objective.eval()
            if self.metric is None:
                return Fit(0, -1, math.nan, True, 0.0, 0.0)
            with torch.no_grad():
                found = validate(objective.evaluated(model))
            log_metrics({f"valid/{name}": value for name, value in found.items()}, 0)
            return Fit(0, -1, found.get(self.metric, math.nan), True, 0.0, 0.0)
        optimizer = self.make_optimizer(parameters)
        for parameter in parameters:
            if late_rows(parameter) is None:
                # Kept for good: sparse gradients are added into it without a fresh (V, D) tensor.
                parameter.grad = torch.zeros_like(parameter)
        run = _Run(self, model, objective, optimizer, checkpoints, validate, log_metrics, observer)
        run.restore()
        return run.train()


class _Run:
    """One call of ``fit``."""

    def __init__(
        self,
        trainer: Trainer,
        model: SequenceModel,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        checkpoints: Checkpoints,
        validate: Validate,
        log_metrics: Log,
        observer: Observer,
    ) -> None:
        self.trainer = trainer
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.checkpoints = checkpoints
        self.validate = validate
        self.log_metrics = log_metrics
        self.observer = observer
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.at = Progress()
        self.stopping = EarlyStopping(trainer.patience)
        self.world = trainer.world
        self.generator = torch.Generator(trainer.device)
        self.shared = torch.Generator(trainer.device) if self.world.size > 1 else None
        self.times: defaultdict[str, float] = defaultdict(float)
        self.saved_at = time.perf_counter()

    def train(self) -> Fit:
        trainer, at = self.trainer, self.at
        steps = len(trainer.loader)
        with (
            Interruption(repeated=self.world.size > 1) as interruption,
            TrainingProgress(
                self.world.first and trainer.show, trainer.max_epochs, steps, trainer.metric
            ) as progress,
        ):
            try:
                while at.epoch < trainer.max_epochs and not self.stopping.exhausted:
                    whole = trainer.loader.epoch(at.epoch, at.step)
                    made = (batch.part(self.world) for batch in whole)
                    with Prefetch(made, trainer.device) as batches:
                        self.train_epoch(batches, interruption, progress)
                    self.end_epoch(progress)
            finally:
                if isinstance(self.optimizer, LazyAdam):
                    self.optimizer.release()
            signal, _ = self.wishes(interruption)
            if signal is not None:  # it came during the last validation
                raise InterruptedRunError(signal)
        converged = self.stopping.exhausted or at.best_epoch < at.epoch - 1 or at.epoch == 0
        best_value = at.best_value
        if trainer.metric is None:
            converged, best_value = True, math.nan
        if at.best_epoch >= 0:
            best = self.checkpoints.load_best(at.best_epoch) if self.world.first else None
            shared = share_checkpoint(best, self.world)
            assert shared is not None
            self.load_weights(shared)
        return Fit(at.epoch, at.best_epoch, best_value, converged, at.seconds, at.seconds_to_best)

    def train_epoch(
        self, batches: Iterable[Batch], interruption: Interruption, progress: TrainingProgress
    ) -> None:
        trainer, at = self.trainer, self.at
        device = trainer.device
        self.model.train()
        self.objective.train()
        # Each rank has a part of the losses; what an earlier process left is rank 0's.
        loss_sum = torch.tensor(at.loss_sum, dtype=_sum_dtype(device), device=device)
        skipped = torch.tensor(at.skipped, device=device)
        terms = {name: torch.tensor(value).to(loss_sum) for name, value in at.terms.items()}
        if not self.world.first:
            for value in (loss_sum, *terms.values()):
                value.zero_()
        first_bad = torch.tensor(-1, device=device)  # step of the first loss that is not finite
        started = time.perf_counter()
        self.times["sampler"] = at.sampler_seconds
        # Seconds of the part of this epoch that an earlier process trained.
        before, seconds_before = at.epoch_seconds, at.seconds
        first = at.step
        steps = len(trainer.loader)

        def settle() -> None:
            """Brings the counters up to date, for a checkpoint."""
            self.check_finite(first_bad, saving=True)
            now = time.perf_counter() - started
            total, *others = self.world.sum(torch.stack([loss_sum, *terms.values()])).tolist()
            at.loss_sum, at.skipped = total, int(skipped)
            at.terms = dict(zip(terms, others, strict=True))
            at.epoch_seconds, at.seconds = before + now, seconds_before + now
            at.sampler_seconds = self.times["sampler"]

        for batch in batches:
            step = Step(at.epoch, at.step, self.generator, batch.key, self.timer, self.shared)
            outcome = self.step(step, batch)
            loss, n = outcome.loss.detach(), len(batch.whole.target)
            missed = outcome.skipped if outcome.skipped is not None else torch.zeros_like(skipped)
            loss_sum += loss * (n - missed)
            for name, value in outcome.terms.items():
                terms[name] = terms.get(name, 0) + value.to(loss_sum.dtype) * (n - missed)
            skipped += missed
            bad = ~loss.isfinite() & (first_bad < 0)
            first_bad.masked_fill_(bad, at.step + 1)
            at.queries += n
            at.step += 1
            progress.step(at.epoch, at.step)
            if at.epoch == 0 and at.step == first + _ESTIMATE_AFTER and at.step < steps:
                each = (time.perf_counter() - started) / _ESTIMATE_AFTER
                log.info("about %.1f s per training epoch (%d steps)", each * steps, steps)
            signal, late = self.wishes(interruption)
            if signal is not None:
                settle()
                self.save_last()
                raise InterruptedRunError(signal)
            if late and at.step < steps:
                settle()
                self.save_last()
            elif at.step % _CHECK_EVERY == 0:
                self.check_finite(first_bad)
        settle()

    def wishes(self, interruption: Interruption) -> tuple[int | None, bool]:
        """What all ranks do after this step.

        Returns:
            The signal that came to any of them, with which they stop; whether a checkpoint is due,
            by the clock of rank 0.
        """
        late = time.perf_counter() - self.saved_at > self.trainer.checkpoint_seconds
        if self.world.size == 1:
            return interruption.signal, late
        own = [interruption.signal or 0, self.world.first and late]
        signal, due = self.world.max(torch.tensor(own, dtype=torch.int64)).tolist()
        return signal or None, bool(due)

    def step(self, step: Step, batch: Batch) -> Outcome:
        """One optimisation step."""
        trainer, model, objective = self.trainer, self.model, self.objective
        # A batch with fewer sequences than ranks is worked on by all of them alike.
        own = () if batch.shard is None else (self.world.rank,)
        # Dropout, and views of a batch, draw from torch's global stream. A replayed batch keeps its
        # negatives, not its dropout.
        key = (step.epoch, step.index, *own)
        seeding.start_global(trainer.device, trainer.seed, "dropout", *key)
        key = (*step.batch_key, *own)
        self.generator.manual_seed(seeding.stream_seed(trainer.seed, "sampler", *key))
        if self.shared is not None:
            self.shared.manual_seed(seeding.stream_seed(trainer.seed, "sampler", *step.batch_key))
        done = step.epoch * len(trainer.loader) + step.index
        total = trainer.schedule_epochs * len(trainer.loader)
        scale = factor(trainer.schedule, done, trainer.warmup_steps, total)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * scale
        self.optimizer.zero_grad(set_to_none=False)
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=trainer.bf16):
            outcome: Outcome = objective(model, batch, step)
        if batch.shard is None and self.world.size > 1:
            outcome = outcome.divided(self.world.size)
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        if outcome.feedback is not None:
            self.observer.seen(model, step, outcome.feedback)
        sum_gradients(
            [p for group in self.optimizer.param_groups for p in group["params"]], self.world
        )
        if trainer.clip_norm is not None:
            clip(self.optimizer, trainer.clip_norm)
        self.optimizer.step()
        if outcome.feedback is not None:
            objective.observe(model, outcome.feedback)
        return outcome

    def end_epoch(self, progress: TrainingProgress) -> None:
        """Validates, keeps the best, logs and saves."""
        trainer, at = self.trainer, self.at
        epoch = at.epoch
        if isinstance(self.optimizer, LazyAdam):
            self.optimizer.settle()  # what is kept and copied from here on is read as it is
        judged = max(at.queries - at.skipped, 1)
        metrics = {
            "train/loss": at.loss_sum / judged,
            **{f"train/loss_{name}": value / judged for name, value in at.terms.items()},
            "train/skipped": at.skipped / at.queries,
            "train/epoch_seconds": at.epoch_seconds,
            "train/sampler_share": at.sampler_seconds / at.epoch_seconds,
        }
        if at.skipped == at.queries:
            raise InputError(
                f"no query of epoch {epoch + 1} had a valid negative, so nothing was learnt: draw "
                "more candidates, from more than one sequence, or choose a milder sampler.exclude"
            )
        if at.skipped and epoch == 0:
            log.warning(
                "%s of %s queries had no valid negative in the first epoch and were skipped: more "
                "candidates (k), or a milder sampler.exclude, would serve them",
                f"{at.skipped:,}",
                f"{at.queries:,}",
            )
        started = time.perf_counter()
        value, better = None, False
        if (epoch + 1) % trainer.evaluate_every == 0 or epoch + 1 == trainer.max_epochs:
            value, better = self.evaluate(metrics)
        seconds = at.epoch_seconds + time.perf_counter() - started
        at.seconds += time.perf_counter() - started
        self.observer.collect(self.world)
        if better:
            at.seconds_to_best = at.seconds
            self.save_best()
        if self.world.first:
            metrics |= self.observer.epoch(self.model, epoch)
        # Logged before the checkpoint says that the epoch is over: dying between the two logs it
        # twice, which a tracker notices, where the other order would lose it.
        self.log_metrics(metrics, epoch)
        at.epoch, at.step, at.loss_sum, at.queries = epoch + 1, 0, 0.0, 0
        at.skipped, at.terms = 0, {}
        at.epoch_seconds = at.sampler_seconds = 0.0
        self.save_last()
        progress.epoch(epoch, metrics["train/loss"], value, better, seconds)

    def evaluate(self, metrics: dict[str, float]) -> tuple[float | None, bool]:
        """Validates into ``metrics``; the deciding value and whether the epoch is to be kept."""
        at, name = self.at, self.trainer.metric
        if name is None:
            at.best_epoch = at.epoch
            return None, True
        self.model.eval()
        self.objective.eval()
        with torch.no_grad():
            valid = self.validate(self.objective.evaluated(self.model))
        # All ranks decide alike, whatever their machines make of the last digit.
        valid = self.world.of_first(dict(valid))
        if name not in valid:
            raise InputError(
                f"trainer.metric={name} is not a validation metric: choose one of "
                f"{', '.join(sorted(valid))}"
            )
        if math.isnan(valid[name]):
            raise InputError(
                f"trainer.metric={name} is not a number on the validation targets: choose another "
                "metric, or a split with targets in every cohort"
            )
        metrics.update({f"valid/{key}": v for key, v in valid.items()})
        better = self.stopping.better(at.epoch, valid[name])
        at.best_value = self.stopping.best_value
        at.best_epoch, at.waited = self.stopping.best_epoch, self.stopping.waited
        return valid[name], better

    def check_finite(self, first_bad: Tensor, saving: bool = False) -> None:
        """Stops before a poisoned state is saved over a good one.

        Args:
            first_bad: step of the first loss that was not finite, -1 where there is none.
            saving: looks at every row of large tables too, which takes as long as many steps.
        """
        steps = self.world.counts(int(first_bad))
        step = min([step for step in steps if step >= 0], default=-1)
        if step < 0:
            # A gradient can overflow where the loss does not.
            looked_at = (p for p in self.model.parameters() if saving or late_rows(p) is None)
            if all(map(finite, looked_at)):
                return
            step = self.at.step
        good = self.checkpoints.last
        rescue = (
            f"the last good checkpoint is {good}"
            if good.exists()
            else "it came before the first checkpoint"
        )
        raise InputError(
            f"the loss is not finite at epoch {self.at.epoch + 1}, step {step} "
            f"({rescue}): lower trainer.optimizer.lr, or set trainer.clip_norm=1"
        )

    @contextmanager
    def timer(self, name: str) -> Iterator[None]:
        """Books wall time under a name; on an accelerator only what the host waits for."""
        started = time.perf_counter()
        yield
        self.times[name] += time.perf_counter() - started

    def weights(self) -> dict[str, Tensor]:
        """All that the model and the objective hold."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"objective.{k}": v for k, v in self.objective.state_dict().items()}
        return tensors

    def load_weights(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.part("model"))
        self.objective.load_state_dict(checkpoint.part("objective"))

    def save_best(self) -> None:
        if not self.world.first:
            return
        save(Checkpoint(self.weights(), asdict(self.at)), self.checkpoints.best)

    def save_last(self) -> None:
        check_same(self.weights(), self.world)
        self.observer.collect(self.world)
        self.saved_at = time.perf_counter()
        if not self.world.first:
            return
        tensors = self.weights()
        tensors |= {f"observer.{k}": v for k, v in self.observer.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{index}.{name}": torch.as_tensor(value)
                for name, value in state.items()
                if value is not None
            }
        self.checkpoints.save_last(Checkpoint(tensors, asdict(self.at)))
        self.saved_at = time.perf_counter()

    def restore(self) -> None:
        """Goes on from the last checkpoint, where there is one."""
        found = self.checkpoints.load_last() if self.world.first else None
        checkpoint = share_checkpoint(found, self.world)
        if checkpoint is None:
            # The same seed has made the same weights; of another machine perhaps not to the bit.
            share_state(self.weights(), self.world)
            return
        self.load_weights(checkpoint)
        if self.world.first:
            self.observer.restore(checkpoint.part("observer"))
        state: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
        for key, value in checkpoint.part("optimizer").items():
            index, name = key.split(".", 1)
            state[int(index)][name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": dict(state), "param_groups": groups})
        self.at = Progress(**checkpoint.record)  # type: ignore[arg-type]
        at = self.at
        if at.best_epoch >= 0 and self.world.first:  # its loss is known before hours are spent
            self.checkpoints.load_best(at.best_epoch)
        self.stopping.best_value, self.stopping.best_epoch = at.best_value, at.best_epoch
        self.stopping.waited = at.waited
        log.info("resumed at epoch %d, step %d", at.epoch + 1, at.step)


def finite(parameter: Tensor) -> bool:
    """Whether all numbers are; nothing of the parameter's size is made on the way."""
    if not parameter.numel():
        return True
    low, high = torch.aminmax(parameter.detach())  # either is NaN where any number is
    return bool((low.isfinite() & high.isfinite()).item())


def clip(optimizer: torch.optim.Optimizer, largest: float) -> None:
    """Scales all gradients so that their common norm is at most ``largest``."""
    gradients = []
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()  # the norm is that of sums, not of what is summed up
            gradients.append(p.grad._values())
        elif p.grad is not None:
            gradients.append(p.grad)
    norm = torch.nn.utils.get_total_norm(gradients)
    scale = (largest / (norm + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
    torch._foreach_mul_(gradients, scale)


def allowed_threads(world: World = ALONE) -> int:
    """CPU threads that this process should use: ``OMP_NUM_THREADS``, else its share of the cores.

    Among several ranks a 1 is not taken for an answer: torchrun sets it where nobody has asked.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    least = 1 if world.local_size == 1 else 2
    if asked.isdigit() and int(asked) >= least:
        return int(asked)
    return max(1, usable_cores() // world.local_size)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux: containers and schedulers pin processes
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(name: str, world: World = ALONE) -> torch.device:
    """The torch device of a name; "auto" is CUDA where there is any, else the CPU.

    Each of several ranks of a machine has a GPU of its own. MPS is taken only when asked for: it
    has no float64, and what is drawn in it is drawn on the CPU.
    """
    if name not in ("auto", "cpu", "cuda", "mps"):
        raise ValueError(f"device must be auto, cpu, cuda or mps, got {name!r}")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        raise InputError(f"trainer.device={name} is not available here: use trainer.device=auto")
    if world.size == 1 or name == "cpu":
        return torch.device(name)
    if name == "mps":
        raise InputError("trainer.device=mps is for one process: use trainer.device=cpu")
    if world.local_size > torch.cuda.device_count():
        raise InputError(
            f"there are {world.local_size} ranks and {torch.cuda.device_count()} GPUs on this "
            "machine, and each rank wants one: start fewer (--nproc-per-node), or use "
            "trainer.device=cpu"
        )
    torch.cuda.set_device(world.local_rank)
    return torch.device("cuda", world.local_rank)


def _sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float64 if has_float64(device) else torch.float32
