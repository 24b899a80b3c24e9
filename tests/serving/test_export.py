import json
import math

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from negrec.errors import InputError
from negrec.models.base import SequenceModel
from negrec.scoring import ItemScorer
from negrec.serving.export import trace, write
from tests.serving.models import (
    ENCODERS,
    HISTORIES,
    NO_ENCODER,
    USERS,
    L,
    batch,
    build,
    info,
    padded,
    written,
)
from tests.serving.test_bundle import bundle


def expected(model, histories, users):
    with torch.no_grad():
        return model.represent(batch(histories, users))


@pytest.fixture
def export(tmp_path):
    """Writes a model's export and gives what it says of itself."""

    def exported(model, format_):
        write(model, bundle(), format_, tmp_path)
        return json.loads((tmp_path / "export.json").read_text())

    return exported


def quick(*names):
    """All encoders, of which the others wait for --long."""
    return [
        name if name in names else pytest.param(name, marks=pytest.mark.long) for name in ENCODERS
    ]


@pytest.mark.parametrize("name", quick("bert4rec", "caser", "gru4rec", "sasrec", "sse_pt"))
def test_torch_export_says_what_the_model_says(name, export, tmp_path):
    model = build(name, info())
    about = export(model, "torch")
    encoder = torch.export.load(tmp_path / "encoder.pt2").module()
    shortest, longest = about["encoder"]["inputs"]["items"]["length"]
    assert longest == L
    # All but the recurrent network, whose loop over time is of one length, take short tables.
    assert shortest == (L if name == "gru4rec" else 1)
    with_users = "user" in about["encoder"]["inputs"]
    assert with_users == (name in ("caser", "sse_pt"))
    users = USERS if with_users else [-1] * 4
    want = expected(model, HISTORIES, users)
    for width in sorted({shortest, max(shortest, 4), L}):
        fit = [n for n, history in enumerate(HISTORIES) if len(history) <= width]
        inputs = [padded([HISTORIES[n] for n in fit], width)]
        inputs += [torch.tensor([users[n] for n in fit])] if with_users else []
        with torch.no_grad():
            torch.testing.assert_close(encoder(*inputs), want[fit], atol=1e-5, rtol=1e-5)
    assert about["encoder"]["output"]["shape"] == ["batch", want.shape[1]]
    files = {"README.md", "encoder.pt2", "export.json", "item_vectors.safetensors"}
    files |= {"items.parquet"} | ({"users.parquet"} if with_users else set())
    assert written(tmp_path) == files
    items = pl.read_parquet(tmp_path / "items.parquet")
    assert items.drop("row").equals(bundle().items)
    assert items["row"].to_list() == list(range(20))
    if with_users:
        assert pl.read_parquet(tmp_path / "users.parquet").equals(bundle().users)


@pytest.mark.long
@pytest.mark.parametrize("name", ENCODERS)
def test_onnx_says_what_the_model_says(name, export, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = build(name, info())
    about = export(model, "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    shortest, _ = about["encoder"]["inputs"]["items"]["length"]
    with_users = "user" in about["encoder"]["inputs"]
    users = USERS if with_users else [-1] * 4
    want = expected(model, HISTORIES, users).numpy()
    for width in sorted({shortest, max(shortest, 4), L}):
        fit = [n for n, history in enumerate(HISTORIES) if len(history) <= width]
        inputs = {"items": padded([HISTORIES[n] for n in fit], width).numpy()}
        if with_users:
            inputs["user"] = np.array([users[n] for n in fit])
        (got,) = session.run(None, inputs)
        np.testing.assert_allclose(got, want[fit], atol=2e-5, rtol=2e-5)


def test_somebody_without_a_history_is_nobody(export, tmp_path):
    # Biases alone rank the items: the state is 0, and the bias's number is 1.
    export(build("sasrec", info(), "scorer.bias=true"), "torch")
    encoder = torch.export.load(tmp_path / "encoder.pt2").module()
    queries = encoder(torch.tensor([[0, 0], [3, 0], [0, 0]]))
    assert queries[[0, 2]].tolist() == [[0.0] * 64 + [1.0]] * 2
    assert queries[1].abs().max() > 0.1


class Mean(SequenceModel):
    """The mean vector of a history, which a user's own model may well be."""

    def __init__(self, scorer, reads_offsets=False) -> None:
        super().__init__()
        self.scorer = scorer
        self.reads_offsets = reads_offsets
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, source):
        raise NotImplementedError

    def represent(self, source) -> torch.Tensor:
        vectors = self.scorer.embed(source.items)
        if not self.reads_offsets:
            return self.scorer.query(self.scale * vectors[source.last])
        zeros = vectors.new_zeros(source.n_sequences, vectors.shape[1])
        sums = zeros.index_add(0, source.sequence, vectors)
        return self.scorer.query(sums / source.offsets.diff()[:, None])


def scorer(**settings) -> ItemScorer:
    made = ItemScorer(20, 2, **settings)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 2.0]] + [[1.0, 0.0]] * 18))
        if made.bias is not None:
            made.bias.copy_(torch.arange(20.0)[:, None])
    return made


def test_a_score_is_the_dot_product_of_what_is_written(export, tmp_path):
    # The newest item is 2, half its vector (0, 1). Item 1 is (3, 4): cosine 0.8, bias 0,
    # temperature 0.1: 8. Item 2: (1 + 1) / 0.1 = 20; item 4: (0 + 3) / 0.1 = 30.
    model = Mean(scorer(similarity="cosine", bias=True, temperature=0.1)).eval()
    export(model, "torch")
    vectors = load_file(tmp_path / "item_vectors.safetensors")["item_vectors"]
    assert vectors.dtype == torch.float32
    query = torch.export.load(tmp_path / "encoder.pt2").module()(torch.tensor([[1, 2, 0]]))
    assert (vectors @ query[0])[[0, 1, 3]].tolist() == pytest.approx([8, 20, 30], rel=1e-6)


@pytest.mark.parametrize("name", NO_ENCODER)
def test_models_without_an_encoder_are_refused_with_what_to_do(name, tmp_path):
    with pytest.raises(InputError, match="format=mlflow") as refused:
        write(build(name, info()), bundle(), "torch", tmp_path)
    reason = "reads no history" if name == "mf" else "compares items with items"
    assert (reason in str(refused.value)) or name == "popularity"
    assert written(tmp_path) == set()


def test_a_model_that_would_read_the_padding_is_refused(tmp_path):
    trace(Mean(scorer()).eval(), L)
    with pytest.raises(InputError, match="its states change when zeros stand behind"):
        trace(Mean(scorer(), reads_offsets=True).eval(), L)


class Branching(Mean):
    def represent(self, source) -> torch.Tensor:
        states = super().represent(source)
        return states if states.sum() > math.inf else 2 * states


def test_a_model_that_cannot_be_traced_is_refused_in_one_line():
    with pytest.raises(InputError, match="Branching cannot be traced") as refused:
        trace(Branching(scorer()).eval(), L)
    assert "\n" not in str(refused.value)
    assert "format=mlflow" in str(refused.value)
