import io
import json
import os
import pickle
import re
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from negrec.errors import InputError
from negrec.serving.bundle import Bundle, UnwritableError, give_weights, said_as
from tests.serving.models import (
    HISTORIES,
    MODELS,
    NO_ENCODER,
    USERS,
    L,
    batch,
    build,
    info,
    written,
)

IDS = ["a b", 'q"uote', "ü", *(f"sku-{n}" for n in range(17))]


def bundle(weights=None, **changes) -> Bundle:
    facts = info()
    items = pl.DataFrame({"item": range(1, 21), "id": IDS, "count": facts.counts.numpy()})
    settings = {"max_length": L, "model.dim": 64}
    users = pl.DataFrame({"user": range(50), "id": [10**15 + n for n in range(50)]})
    values = {
        "version": "0.1.0",
        "run_id": "abcd1234",
        "overrides": ["model=sasrec"],
        "settings": settings,
        "seen": "keep",
        "items": items,
        "users": users,
        "weights": {"w": torch.arange(3.0)} if weights is None else weights,
    }
    return Bundle(**{**values, **changes})


@pytest.fixture
def folder(tmp_path) -> Path:
    """A bundle that was written."""
    bundle().write(tmp_path / "model")
    return tmp_path / "model"


def test_what_is_written_is_read(folder):
    read = Bundle.read(folder)
    assert read.items.equals(bundle().items)
    assert read.users.equals(bundle().users)
    assert read.weights.keys() == {"w"}
    assert read.weights["w"].tolist() == [0, 1, 2]
    told = ("run_id", "overrides", "settings", "seen", "version", "max_length")
    assert [getattr(read, name) for name in told] == [getattr(bundle(), name) for name in told]
    facts = read.facts()
    assert (facts.n_users, facts.n_items, facts.max_length) == (50, 20, L)
    assert facts.counts.tolist() == list(range(1, 21))
    assert written(folder) == {
        *("bundle.json", "items.parquet", "users.parquet", "weights.safetensors")
    }


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_itself_again_without_the_histories_it_learnt_from(name, tmp_path):
    model = build(name, info())
    bundle(model.state_dict()).write(tmp_path / "model")
    read = Bundle.read(tmp_path / "model")
    assert len(read.facts().train.values) == 0
    again = build(name, read.facts())
    source = batch(HISTORIES, USERS)
    with torch.no_grad():
        want = model.scorer.every(model.represent(source))
        if name in NO_ENCODER and name not in ("mf", "popularity", "repeat_last"):
            other = again.scorer.every(again.represent(source))
            assert not torch.equal(other, want)  # what it counted is not there yet
        give_weights(again, read.weights)
        got = again.scorer.every(again.represent(source))
    assert torch.equal(got, want)


def test_weights_of_another_model_are_refused():
    model = build("sasrec", info())
    weights = model.state_dict()
    name = "scorer.weight"
    with pytest.raises(InputError, match=r"scorer.weight is \(19, 64\), and must be \(20, 64\)"):
        give_weights(model, {**weights, name: weights[name][:19]})
    with pytest.raises(InputError, match=r"scorer\.weight is torch\.float64"):
        give_weights(model, {**weights, name: weights[name].double()})
    with pytest.raises(InputError, match="extra is unknown"):
        give_weights(model, {**weights, "extra": torch.zeros(1)})
    with pytest.raises(InputError, match=r"scorer\.weight is missing"):
        give_weights(model, {k: v for k, v in weights.items() if k != name})
    assert all(torch.equal(model.state_dict()[k], v) for k, v in weights.items())


class Trap:
    """What somebody could put into a folder that is then sent around."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "name", ["bundle.json", "items.parquet", "users.parquet", "weights.safetensors"]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_in_a_files_place_is_refused_and_not_run(folder, tmp_path, name, zipped):
    sprung = tmp_path / "sprung"
    trap = folder / name
    if zipped:
        torch.save({"w": Trap(sprung)}, trap)
    else:
        trap.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(InputError, match="is damaged") as refused:
        Bundle.read(folder)
    assert "\n" not in str(refused.value)
    assert not sprung.exists()
    if zipped:  # the trap itself works
        torch.load(io.BytesIO(trap.read_bytes()), weights_only=False)
    else:
        pickle.loads(trap.read_bytes())
    assert sprung.exists()


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("bundle.json", lambda text: text.replace('"format": 1', '"format": 2'), "of format 2"),
        ("bundle.json", lambda text: text.replace('"keep"', '"zero"'), "damaged"),
        ("bundle.json", lambda text: text.replace('"max_length": 8', '"max_length": 0'), "damaged"),
        ("bundle.json", lambda text: text[:50], "damaged"),
        ("bundle.json", lambda _: "[]", "damaged"),
    ],
)
def test_a_damaged_description_is_refused(folder, name, damage, said):
    text = (folder / name).read_text()
    assert damage(text) != text
    (folder / name).write_text(damage(text))
    with pytest.raises(InputError, match=said):
        Bundle.read(folder)


def test_damaged_tables_and_weights_are_refused(folder):
    whole = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(whole[:-4])
    with pytest.raises(InputError, match="damaged"):
        Bundle.read(folder)
    (folder / "weights.safetensors").write_bytes(whole)
    bundle().items.reverse().write_parquet(folder / "items.parquet")
    with pytest.raises(InputError, match="items are not numbered from 1 on"):
        Bundle.read(folder)
    bundle().items.drop("count").write_parquet(folder / "items.parquet")
    with pytest.raises(InputError, match="damaged"):
        Bundle.read(folder)
    (folder / "items.parquet").unlink()
    with pytest.raises(InputError, match="holds no model"):
        Bundle.read(folder)


def test_what_cannot_be_written_leaves_what_was_there(folder, tmp_path):
    before = (folder / "bundle.json").read_bytes()
    unsaveable = bundle({"w": torch.zeros(2).to_sparse()})
    with pytest.raises(UnwritableError):
        unsaveable.write(folder)
    assert (folder / "bundle.json").read_bytes() == before
    assert written(tmp_path) == {"model", *(f"model/{name}" for name in written(folder))}
    bundle(run_id="other").write(folder)
    assert Bundle.read(folder).run_id == "other"


def test_tensors_that_share_memory_are_written(tmp_path):
    one = torch.arange(4.0)
    with pytest.raises(RuntimeError, match="share memory"):
        save_file({"a": one, "b": one.view(2, 2)}, tmp_path / "refused")
    bundle({"a": one, "b": one.view(2, 2)}).write(tmp_path / "model")
    assert Bundle.read(tmp_path / "model").weights["b"].tolist() == [[0, 1], [2, 3]]


def test_ids_are_told_as_json_keeps_them(folder):
    assert said_as(pl.Series([1, 2**60])) == pl.Int64
    assert said_as(pl.Series([1, 2], dtype=pl.UInt32)) == pl.Int64
    assert said_as(pl.Series([2**63], dtype=pl.UInt64)) == pl.String
    assert said_as(pl.Series(["a"])) == pl.String
    # The counts are 1, 2, ..., 20: the last three items are taken most often.
    asked = json.loads((folder / "bundle.json").read_text())["asked"]
    assert asked == {"item": "String", "user": "Int64", "example": IDS[:-4:-1]}
    assert re.fullmatch(r"sku-\d+", asked["example"][0])
