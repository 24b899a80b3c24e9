import re
import xml.etree.ElementTree as ET
from pathlib import Path

import polars as pl
import pytest

from negrec.reporting.figures.output import Drawn, drawn, inline_svg, save
from negrec.reporting.figures.sensitivity import sensitivity


def figure(metric: str = "test/hr_10", name: str = "genni") -> Drawn:
    runs = pl.DataFrame({"sampler": name, "seed": [0, 1], "k": [1, 4], metric: [0.02, 0.03]})
    return drawn(sensitivity(runs, "k", metric))


def test_two_files_are_written(tmp_path: Path):
    made = figure()
    paths = save(made, tmp_path / "new" / "figures", "k")
    assert [path.name for path in paths] == ["k.png", "k.svg"]
    head = paths[0].read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = made.figure.get_size_inches()
    pixels = [int.from_bytes(head[16:20]), int.from_bytes(head[20:24])]
    assert pixels == [int(width * 300), int(height * 300)]
    assert ET.parse(paths[1]).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path):
    first = [path.read_bytes() for path in save(figure(), tmp_path / "a", "k")]
    second = [path.read_bytes() for path in save(figure(), tmp_path / "b", "k")]
    assert first == second
    assert b"date" not in first[1]
    assert inline_svg(figure()) == inline_svg(figure())


def test_text_stays_text(tmp_path: Path):
    _, svg = save(figure(), tmp_path, "k")
    written = [each.text for each in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"genni", "HR@10 on test (%)", "Negatives k"} <= set(written)


def ids(svg: str) -> list[str]:
    return [each.get("id") for each in ET.fromstring(svg).iter() if each.get("id")]


@pytest.mark.parametrize("other", [figure("test/mrr"), figure()], ids=["another", "the same"])
def test_two_on_one_page_do_not_meet(other: Drawn):
    page = [inline_svg(figure(), "a"), inline_svg(other, "b")]
    of = [ids(svg) for svg in page]
    assert len(of[0]) > 10
    assert len(set(of[0] + of[1])) == len(of[0]) + len(of[1])
    for svg, own in zip(page, of, strict=True):
        # What is referred to exists, in the same element.
        targets = re.findall(r'(?:href="#|url\(#)([^")]+)', svg)
        assert targets
        assert set(targets) <= set(own)


def test_figures_that_differ_need_no_name():
    both = ids(inline_svg(figure())) + ids(inline_svg(figure("test/mrr")))
    assert len(set(both)) == len(both)


def test_an_element_says_what_it_is_and_styles_nothing_else():
    svg = inline_svg(figure(), "k")
    root = ET.fromstring(svg)
    assert svg.startswith("<svg")
    assert root.get("aria-label") == "HR@10 on test (%) over Negatives k"
    (rule,) = re.findall(r"<style[^>]*>([^<]*)</style>", svg)
    assert rule.startswith(f"#{root.get('id')} *{{")


def test_signs_of_html_and_formulas_are_text():
    name = 'a<b> & "c" $x_1$ id="z"'
    root = ET.fromstring(inline_svg(figure(name=name)))
    written = "".join(each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text"))
    assert name.replace(" ", "") in written.replace(" ", "")
