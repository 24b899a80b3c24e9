"""What the tests of kernels start from."""

import pytest

from negrec.kernels import native
from tests import toy


@pytest.fixture
def compiler():
    if native._compiler() is None:
        pytest.skip("no C++ compiler here")


@pytest.fixture(params=["torch", "tiles", "native"])
def way(request, monkeypatch):
    """All ways of computing with the scores of a catalogue."""
    if request.param == "native":
        request.getfixturevalue("compiler")
        yield request.param
        return
    if request.param == "tiles":
        toy.cut_tiles(monkeypatch, 20)
    with native.plain():
        yield request.param
