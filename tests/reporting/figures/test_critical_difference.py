import pytest

from negrec.reporting.figures.critical_difference import critical_difference
from negrec.reporting.significance import CriticalDifference
from tests.reporting.figures.drawn import line, note, texts

RESULT = CriticalDifference(
    names=("genni", "dns", "uniform"),
    mean_ranks=(1.2, 2.0, 2.8),
    cd=1.05,
    p=0.0123,
    groups=(("genni", "dns"), ("dns", "uniform")),
    n=5,
)


def test_ranks_groups_and_the_difference():
    figure = critical_difference(RESULT, title="NDCG@10")
    for name, rank in zip(RESULT.names, RESULT.mean_ranks, strict=True):
        assert line(figure, name).get_xdata()[:2].tolist() == [rank, rank]
    bar = line(figure, "CD").get_xdata()
    assert bar[1] - bar[0] == pytest.approx(1.05)
    # From the best of a group to its worst, and a little beyond.
    assert line(figure, "group 1").get_xdata() == pytest.approx([1.2, 2.0], abs=0.05)
    assert line(figure, "group 2").get_xdata() == pytest.approx([2.0, 2.8], abs=0.05)
    assert line(figure, "group 1").get_ydata()[0] != line(figure, "group 2").get_ydata()[0]
    shown = texts(figure)
    for expected in ("genni (1.20)", "dns (2.00)", "uniform (2.80)", "CD = 1.05", "NDCG@10"):
        assert expected in shown
    assert "n = 5 data sets" in note(figure)
    assert "p = 0.012" in note(figure)


def test_names_have_a_height_of_their_own_on_each_side():
    names = tuple(f"m{i}" for i in range(9))
    ranks = tuple(float(i + 1) for i in range(9))
    figure = critical_difference(CriticalDifference(names, ranks, 2.0, 0.5, (), 5))
    ends = [
        (line(figure, name).get_xdata()[2], line(figure, name).get_ydata()[2]) for name in names
    ]
    assert len(set(ends)) == 9
    assert len({x for x, _ in ends}) == 2  # two sides
    # Lines of one side must not cross: the further inside, the lower.
    assert [y for _, y in ends[:5]] == sorted((y for _, y in ends[:5]), reverse=True)
    assert [y for _, y in ends[5:]] == sorted(y for _, y in ends[5:])
