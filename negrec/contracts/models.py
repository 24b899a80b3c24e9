"""What every model promises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace

import torch
from torch import Tensor

from negrec import seeding
from negrec.contracts.base import Contract, DoesNotApplyError, contract, demand
from negrec.data.loader import Loader
from negrec.data.sequences import Sequences, Window
from negrec.data.targets import NextItem, Targets
from negrec.evaluation.evaluator import Evaluator, batch_of
from negrec.losses.bce import BCE
from negrec.models.base import SequenceModel
from negrec.objectives.base import Objective
from negrec.objectives.ranking import Ranking
from negrec.samplers.uniform import Uniform
from negrec.types import HIDDEN, Batch, DatasetInfo, HeldOut, Jagged, Queries, Step, slices

Make = Callable[[DatasetInfo], SequenceModel]

_N_ITEMS = 40
_MAX_LENGTH = 8
_USERS = 24
_STRANGERS = (5, 11)  # users without any training interaction
_STIR = 0.2  # standard deviation of what is added to every parameter


def _ranking(info: DatasetInfo, sequences: Sequences) -> Objective:
    """Every item has some chance to be a negative: all of the catalogue is reached."""
    return Ranking(info, sequences, lambda info: Uniform(info, k=8), BCE())


@dataclass(frozen=True)
class Subject:
    """A model whose promises are looked at.

    Attributes:
        make: builds it.
        targets: which positions it is trained on.
        objective: what it is trained by.
        window: of the training sequences.
    """

    make: Make
    targets: Targets = field(default_factory=NextItem)
    objective: Callable[[DatasetInfo, Sequences], Objective] = _ranking
    window: Window = "last"

    def __str__(self) -> str:
        return f"trained on {type(self.targets).__name__}"

    def place(self) -> Place:
        """The small world in which it is looked at."""
        return Place.of(self.targets, self.window)

    def model(self, place: Place, seed: int = 0) -> SequenceModel:
        """The model in evaluation mode, with every parameter away from where it started.

        What starts at 0 (a bias, a gate, a vector) would hide mistakes.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.make(place.info).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(_STIR * torch.randn(parameter.shape))
        return model

    def trained(self, place: Place, seed: int = 0) -> SequenceModel:
        """The same after some steps, so that what remembers has something to remember."""
        model = self.model(place, seed)
        if any(True for _ in model.parameters()):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            for _ in _training(self, place, model):
                optimizer.step()
        return model.eval()


CONTRACTS: list[Contract[Subject]] = []


@contract(
    CONTRACTS,
    "every query of a batch and every sequence gets a finite state",
    "forward: return Queries.of(batch, states) with states (T, D); represent: (B, D); both hand "
    "their states to self.scorer.query first, so that D is scorer.width",
)
def _states(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    width = model.scorer.width
    for training in (False, True):
        model.train(training)
        for batch in place.batches():
            queries, expected = model(batch), Queries.of(batch, torch.zeros(len(batch.items), 1))
            shape, wanted = tuple(queries.hidden.shape), (len(batch.target), width)
            demand(shape == wanted, f"the states of queries have shape {shape}, not {wanted}")
            demand(queries.hidden.isfinite().all(), "a query's state is not finite")
            for name in ("target", "user", "position", "sequence"):
                given, own = getattr(queries, name), getattr(expected, name)
                demand(torch.equal(given, own), f"the queries' {name} is not that of Queries.of")
            demand(queries.batch is batch, "the queries' batch is not the one that was given")
            _represented(model, place.inference())


@contract(
    CONTRACTS,
    "histories that are short, full, repetitive or alone are read",
    "one item, max_length items, the same item again and again, the last item of the catalogue, "
    "and a batch of one sequence are all there is to expect",
)
def _odd(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    last = place.info.n_items
    odd = [[1], [last], [3, 3], [last] * _MAX_LENGTH, [1, last, 1, last], [*range(2, 10)]]
    together = _represented(model, place.inference(odd))
    for number, history in enumerate(odd):
        alone = _represented(model, place.inference([history], [number]))
        _same(alone[0], together[number], f"the state after {history} alone and among others")
    for window in ([3, 3], [last, last, 1], [last] * (_MAX_LENGTH + subject.targets.extra)):
        if len(window) >= subject.targets.shortest:
            hidden = model(place.batch([window])).hidden
            demand(hidden.isfinite().all(), f"trained on {window}, a state is not finite")


@contract(
    CONTRACTS,
    "no state looks at what it is asked for",
    "read batch.items, offsets, position and user; batch.target and batch.seen belong to samplers "
    "and losses",
)
def _targets_unseen(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    for batch in place.batches():
        other = batch.target % place.info.n_items + 1
        nothing = Jagged(batch.items[:0], torch.zeros_like(batch.offsets))
        for name, changed in (
            ("target", replace(batch, target=other)),
            ("seen", replace(batch, seen=nothing)),
        ):
            demand(
                torch.equal(model(batch).hidden, model(changed).hidden),
                f"a state changes with batch.{name}",
            )


@contract(
    CONTRACTS,
    "later items change no earlier state, or causal is False",
    "mask what follows a token (batch.rows does), or set causal = False, with targets that hide "
    "what they ask for",
)
def _causal(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    if not model.causal:
        raise DoesNotApplyError("causal = False: a state may look at the whole sequence")
    for batch in place.batches():
        before = model(batch).hidden
        # As many items: positions may count from the end.
        for newest in (1, 2, 4):
            late = batch.from_end < newest
            items = torch.where(late, batch.items % place.info.n_items + 1, batch.items)
            after = model(replace(batch, items=items)).hidden
            early = ~late[batch.query]
            _same(after[early], before[early], "the state before and after a later item changed")


@contract(
    CONTRACTS,
    "an item that is not told is read as such, or hides is False",
    "give id 0 (HIDDEN) a vector of its own, as models.layers.ItemInput(hides=True) does",
)
def _hidden(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    if not model.hides:
        raise DoesNotApplyError("hides = False: it is never given one")
    told = place.inference([[4, 5, 6, 7], [1, 2]])
    newest = torch.zeros_like(told.items, dtype=torch.bool)
    newest[told.last] = True
    hidden = _represented(model, replace(told, items=told.items.masked_fill(newest, HIDDEN)))
    for item in (1, place.info.n_items):
        other = _represented(model, replace(told, items=told.items.masked_fill(newest, item)))
        apart = (hidden - other).abs().amax(1) > 1e-4
        demand(apart.all(), f"an item that is not told is read as item {item}")


@contract(
    CONTRACTS,
    "other sequences of a batch, and their order, change nothing",
    "compute nothing over a batch (no batch norm), and keep sequences apart in every window, "
    "convolution and recurrence",
)
def _alone(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    batch = next(place.batches())
    hidden = model(batch).hidden
    owner = batch.sequence[batch.query]
    n = batch.n_sequences
    for chosen in (*torch.arange(n)[:, None], torch.arange(n).flip(0), torch.arange(0, n, 3)):
        part = model(_sequences(batch, chosen)).hidden
        expected = torch.cat([hidden[owner == b] for b in chosen.tolist()])
        _same(part, expected, "a query's state among other sequences")
    everybody = place.inference()
    states = model.represent(everybody)
    for chosen in (*torch.arange(6)[:, None], torch.arange(everybody.n_sequences).flip(0)):
        part = model.represent(_sequences(everybody, chosen))
        _same(part, states[chosen], "what represent gives among other sequences")


@contract(
    CONTRACTS,
    "represent is the state of the last query",
    "let forward and represent share what makes states: represent reads that of batch.last",
)
def _last(subject: Subject) -> None:
    if subject.targets.ahead != 1:
        kind = type(subject.targets).__name__
        raise DoesNotApplyError(f"with {kind} no query asks for what follows the newest item")
    place = subject.place()
    model = subject.model(place)
    for batch in place.batches():
        newest = torch.isin(batch.query, batch.last)
        asked = torch.isin(batch.last, batch.query)
        state, last = model.represent(batch)[asked], model(batch).hidden[newest]
        _same(state, last, "what represent gives and the state of the last query")


@contract(
    CONTRACTS,
    "the newest items decide: older ones than max_length change nothing",
    "position counts from the start of the whole history, which a model does not see: use "
    "batch.from_end",
)
def _newest(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    newest = [7, 3, 9, 3, 20, 1, _N_ITEMS, 12]
    assert len(newest) == _MAX_LENGTH
    histories = [newest, [5, 6, *newest], [30, 31, 32, 33, 34, 35, 36, 37, 38, *newest], [12]]
    found = []
    for history in histories:
        # Every item of the catalogue after the one history.
        part = _held_out([history] * _N_ITEMS, [1] * _N_ITEMS)
        part = replace(part, target=torch.arange(1, _N_ITEMS + 1))
        part = replace(
            part, start=part.start[:1].expand(_N_ITEMS), end=part.end[:1].expand(_N_ITEMS)
        )
        evaluation = Evaluator(part, place.info, seen="keep", batch_size=4)(model)
        found.append((evaluation.greater, evaluation.ties))
    for greater, ties in found[1:3]:
        same = (greater == found[0][0]).all() and (ties == found[0][1]).all()
        demand(same, "two histories with the same newest items rank the catalogue differently")


@contract(
    CONTRACTS,
    "somebody unknown is served, and not as somebody else",
    "user -1 is nobody, and info.trained_users says who has training windows: give all the others "
    "zeros, as models.layers.UserVectors does",
)
def _unknown(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    trained = place.info.trained_users
    assert trained is not None
    unknown = [-1, *(~trained).nonzero().flatten().tolist()]
    known = trained.nonzero().flatten().tolist()
    history = [4, 5, 6]
    states = _represented(model, place.inference([history] * len(unknown), unknown))
    for user, state in zip(unknown, states, strict=True):
        _same(state, states[0], f"the state of unknown user {user} and that of user -1")
    others = _represented(model, place.inference([history] * len(known), known))
    if torch.allclose(others, others[:1], atol=1e-4):
        return  # all users are alike to it
    for user, state in zip(known, others, strict=True):
        apart = (state - states[0]).abs().amax() > 1e-4
        demand(apart, f"somebody unknown gets the state of user {user}")


@contract(
    CONTRACTS,
    "a state_dict round trip gives the same model, to the bit",
    "keep what is learnt in parameters and what is made from data or remembered in buffers "
    "(self.register_buffer)",
)
def _round_trip(subject: Subject) -> None:
    place = subject.place()
    model, twin = subject.trained(place), subject.model(place, seed=1)
    twin.load_state_dict(copy.deepcopy(model.state_dict()), strict=True)
    _equal_models(model, twin, place, "after the round trip")


@contract(
    CONTRACTS,
    "a deep copy is the same model, and one of its own",
    "keep tensors in parameters and buffers, and no function that holds on to self",
)
def _copied(subject: Subject) -> None:
    place = subject.place()
    model = subject.trained(place)
    twin = copy.deepcopy(model)
    _equal_models(model, twin, place, "of the copy")
    before = place.scores(model)
    _move(twin)
    moved = place.scores(twin)
    demand(torch.equal(place.scores(model), before), "a change of the copy changes the model")
    _move(model)
    demand(torch.equal(place.scores(model), moved), "the copy still reads what is the model's")


@contract(
    CONTRACTS,
    "in float64 it gives the same",
    "make tensors with x.new_zeros(...) or dtype=x.dtype, never float32 for good",
)
def _double(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    batch, everybody = next(place.batches()), place.inference()
    single = [model(batch).hidden, model.represent(everybody), place.scores(model)]
    model = model.double()
    double = [model(batch).hidden, model.represent(everybody), place.scores(model)]
    for name, one, other in zip(
        ("forward", "represent", "the scores"), single, double, strict=True
    ):
        if one.is_floating_point():
            demand(other.dtype == torch.float64, f"{name} gives {other.dtype} in float64")
        _same(other.to(one.dtype), one, f"{name} in float64 and in float32")


@contract(
    CONTRACTS,
    "its tensors move with .to(device)",
    "register every tensor: nn.Parameter, or self.register_buffer(name, tensor); make new ones "
    "with device=x.device",
)
def _moves(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    devices = ["meta", *(["cuda"] if torch.cuda.is_available() else [])]
    batch, everybody = next(place.batches()), place.inference()
    expected = model(batch).hidden, model.represent(everybody)
    for device in devices[::-1]:
        model = model.to(device)
        for path, module in model.named_modules():
            for name, tensor in _tensors(vars(module)):
                where = f"{path}.{name}".strip(".")
                demand(tensor.device.type == device, f"{where} stays where it was")
        if device != "meta":
            found = model(batch.to(device)).hidden, model.represent(everybody.to(device))
            for one, other in zip(found, expected, strict=True):
                _same(one.cpu(), other, f"a state on {device} and on the CPU")


@contract(
    CONTRACTS,
    "evaluation is deterministic, and training follows from torch's seed",
    "in evaluation mode draw nothing; in training mode draw from torch's global stream, which the "
    "trainer seeds at every step",
)
def _deterministic(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    everybody = place.inference()
    for batch in place.batches():
        given = copy.deepcopy((batch.items, batch.target, batch.user, batch.position))
        with torch.random.fork_rng(devices=[]):
            state = torch.get_rng_state()
            first = model.eval()(batch).hidden, model.represent(everybody)
            demand(torch.equal(state, torch.get_rng_state()), "in evaluation mode it draws")
            again = model(batch).hidden, model.represent(everybody)
            demand(all(map(torch.equal, first, again)), "two evaluations give two results")
            model.train()
            trained = [_seeded(model, batch) for _ in range(2)]
            demand(torch.equal(*trained), "with the same seed two trainings give two results")
        left = (batch.items, batch.target, batch.user, batch.position)
        demand(all(map(torch.equal, given, left)), "the model has changed the batch")


@contract(
    CONTRACTS,
    "training reaches every parameter, and nothing becomes NaN",
    "leave out what no query needs, and .detach() and torch.no_grad() from what is to be learnt",
)
def _gradients(subject: Subject) -> None:
    place = subject.place()
    model = subject.model(place)
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not wanted:
        raise DoesNotApplyError("it has nothing to train")
    reached = set()

    def look() -> None:
        for name, parameter in wanted.items():
            assert parameter.grad is not None
            demand(parameter.grad.isfinite().all(), f"the gradient of {name} is not finite")
            if parameter.grad.any():
                reached.add(name)

    for _ in _training(subject, place, model):
        look()
    if model.hides:  # which targets or an objective may do, and need not
        batch = next(place.batches())
        nothing = replace(batch, items=torch.full_like(batch.items, HIDDEN))
        model(nothing).hidden.square().sum().backward()
        look()
    never = [name for name in wanted if name not in reached]
    demand(not never, f"no gradient ever reaches {', '.join(never)}")


# ---- where they are looked at


@dataclass(frozen=True)
class Place:
    """A made-up training split for models.

    Users take items again, somebody takes the last item of the catalogue, some histories are
    longer than a model sees, and some users are not in the training data.

    Attributes:
        info: its facts, with all that data can have: histories and attributes.
        sequences: its windows.
    """

    info: DatasetInfo
    sequences: Sequences

    @classmethod
    def of(cls, targets: Targets, window: Window) -> Place:
        generator = torch.Generator().manual_seed(0)
        length = torch.randint(2, 2 * _MAX_LENGTH, (_USERS,), generator=generator)
        length[3] = 1
        length[list(_STRANGERS)] = 0
        values = torch.randint(1, _N_ITEMS + 1, (int(length.sum()),), generator=generator)
        values[-1] = _N_ITEMS
        train = Jagged(values, torch.cat([length.new_zeros(1), length.cumsum(0)]))
        counts = torch.bincount(values - 1, minlength=_N_ITEMS)
        n_attributes = torch.arange(_N_ITEMS) % 3  # some items have none
        attributes = Jagged(
            torch.randint(0, 6, (int(n_attributes.sum()),), generator=generator),
            torch.cat([n_attributes.new_zeros(1), n_attributes.cumsum(0)]),
        )
        sequences = Sequences(train, _MAX_LENGTH, targets, window)
        info = DatasetInfo(_USERS, _N_ITEMS, _MAX_LENGTH, counts, train, attributes)
        return cls(sequences.facts(info), sequences)

    def batches(self, epoch: int = 0) -> Iterator[Batch]:
        """Training batches of an epoch."""
        return Loader(self.sequences, 9, seed=0).epoch(epoch)

    def batch(self, windows: Sequence[Sequence[int]]) -> Batch:
        """The training batch of given windows, users 0, 1, ...."""
        lengths = torch.tensor([0, *map(len, windows)])
        train = Jagged(torch.tensor([i for window in windows for i in window]), lengths.cumsum(0))
        sequences = Sequences(train, self.info.max_length, self.sequences.targets)
        return Loader(sequences, len(windows), 0).batch(torch.arange(len(sequences)), (0, 0))

    def inference(
        self, histories: Sequence[Sequence[int]] | None = None, users: Sequence[int] | None = None
    ) -> Batch:
        """A batch without targets, as an evaluation makes it.

        Args:
            histories: item ids; by default the users' own, of those who have any.
            users: whose they are; 0, 1, ... by default.
        """
        if histories is None:
            train, offsets = self.sequences.train, self.sequences.train.offsets.tolist()
            users = train.lengths.nonzero().flatten().tolist()
            histories = [train.values[offsets[u] : offsets[u + 1]].tolist() for u in users]
        users = range(len(histories)) if users is None else users
        return batch_of(_held_out(histories, users), self.info.max_length)

    def scores(self, model: SequenceModel) -> Tensor:
        """What the model scores the catalogue after every user's history, (B, V)."""
        with torch.no_grad():
            return model.scorer.fixed().every(model.represent(self.inference()))


def _held_out(histories: Sequence[Sequence[int]], users: Sequence[int]) -> HeldOut:
    lengths = torch.tensor([len(history) for history in histories])
    end = lengths.cumsum(0)
    items = torch.tensor([item for history in histories for item in history])
    return HeldOut(torch.tensor([*users]), torch.ones_like(end), items, end - lengths, end)


def _training(subject: Subject, place: Place, model: SequenceModel) -> Iterator[None]:
    """Three epochs as the trainer steps through them; it stops wherever there is a gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective = subject.objective(place.info, place.sequences)
        objective.bind(model)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        model.train()
        objective.train()
        for epoch in range(3):
            for index, batch in enumerate(place.batches(epoch)):
                generator = seeding.generator(0, "contract", epoch, index)
                model.zero_grad(set_to_none=False)
                outcome = objective(model, batch, Step(epoch, index, generator, batch.key))
                demand(outcome.loss.isfinite(), "the loss is not finite")
                demand(outcome.loss.requires_grad, "the loss has no gradient")
                outcome.loss.backward()
                yield
                if outcome.feedback is not None:
                    objective.observe(model, outcome.feedback)


def _represented(model: SequenceModel, batch: Batch) -> Tensor:
    states = model.represent(batch)
    shape, wanted = tuple(states.shape), (batch.n_sequences, model.scorer.width)
    demand(shape == wanted, f"represent gives shape {shape}, not {wanted}")
    demand(states.isfinite().all(), "what represent gives is not finite")
    return states


def _sequences(batch: Batch, chosen: Tensor) -> Batch:
    """The batch of some of a batch's sequences, in the given order."""
    start, end = batch.offsets[:-1][chosen], batch.offsets[1:][chosen]
    token = slices(torch.arange(len(batch.items)), start, end)
    number = torch.full((len(batch.items),), -1)
    number[batch.query] = torch.arange(len(batch.query))
    query = number[token.values]  # of each token, -1 where it is none
    return replace(
        batch,
        user=batch.user[chosen],
        items=batch.items[token.values],
        position=batch.position[token.values],
        offsets=token.offsets,
        query=(query >= 0).nonzero().flatten(),
        target=batch.target[query[query >= 0]],
        seen=None,
    )


def _same(one: Tensor, other: Tensor, what: str) -> None:
    """Demands equality up to rounding."""
    one, other = one.detach().double(), other.detach().double()
    difference = (one - other).abs()
    close = difference <= 1e-5 + 1e-5 * other.abs()
    if not close.all():
        demand(False, f"{what} differ by up to {float(difference.max()):.2g}")


def _equal_models(model: SequenceModel, twin: SequenceModel, place: Place, when: str) -> None:
    batch, everybody = next(place.batches()), place.inference()
    demand(
        torch.equal(model.represent(everybody), twin.represent(everybody)),
        f"what represent gives {when} differs",
    )
    demand(torch.equal(model(batch).hidden, twin(batch).hidden), f"a state {when} differs")
    demand(torch.equal(place.scores(model), place.scores(twin)), f"a score {when} differs")


def _move(model: SequenceModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(_STIR * torch.linspace(-1, 1, parameter.numel()).view_as(parameter))


def _seeded(model: SequenceModel, batch: Batch) -> Tensor:
    torch.manual_seed(0)
    queries: Queries = model(batch)
    return queries.hidden


def _tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in a module's attributes, however deep in containers, with their names."""
    match value:
        case Tensor():
            yield name, value
        case dict():
            for key, child in value.items():
                yield from _tensors(child, str(key))
        case list() | tuple():
            for child in value:
                yield from _tensors(child, name)
    if is_dataclass(value):
        for each in fields(value):
            yield from _tensors(getattr(value, each.name), f"{name}.{each.name}")
