"""Charts as SVG and PNG."""

import builtins
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import chart
from bench.chart import Axis, Chart, Series
from bench.errors import BenchError

CHART = Chart("<title>", Axis("x"), Axis("y", "log"), [Series("a & b", [(0, 1.0), (50, 10.0), (100, 100.0)])], bar=10)


def points(drawn: Chart) -> list[tuple[float, float]]:
    found = re.search(r'<polyline[^>]* points="([^"]*)"', chart.inline(drawn))
    assert found is not None
    return [(float(x), float(y)) for x, y in (point.split(",") for point in found[1].split())]


def test_a_chart_is_well_formed_and_names_what_it_shows() -> None:
    text = "".join(ET.fromstring(chart.inline(CHART)).itertext())
    assert "<title>" in text
    assert "a & b" in text


def test_values_stand_where_their_axes_say() -> None:
    left, right = chart.LEFT, chart.WIDTH - chart.RIGHT
    bottom, top = chart.HEIGHT - chart.BOTTOM, chart.TOP
    assert points(CHART) == [(left, bottom), ((left + right) / 2, (bottom + top) / 2), (right, top)]
    assert f'class="bar" x1="{left}" x2="{right}" y1="{(bottom + top) / 2:.1f}"' in chart.inline(CHART)


def test_an_axis_may_begin_elsewhere_and_have_names_for_its_values() -> None:
    rounds = Axis("round", ticks={1.0: "one", 2.0: "two"}, span=(0.5, 2.5))
    drawn = Chart("", rounds, Axis("y"), [Series("", [(1, 5.0), (2, 10.0)])])
    assert [x for x, _ in points(drawn)] == pytest.approx(
        [chart.LEFT + share * (chart.WIDTH - chart.RIGHT - chart.LEFT) for share in (0.25, 0.75)], abs=0.1
    )
    assert ">one<" in chart.inline(drawn)


def test_a_chart_of_nothing_is_one_too() -> None:
    assert "<svg" in chart.inline(Chart("", Axis("x"), Axis("y", "log"), [Series("", [])]))
    assert points(Chart("", Axis("x"), Axis("y"), [Series("", [(0.0, 0.0)])])) == [
        (chart.LEFT, chart.HEIGHT - chart.BOTTOM)
    ]


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.25, "0.25"), (999, "999"), (1500, "1.5k"), (2e6, "2M")])
def test_values_at_an_axis_are_short(value: float, text: str) -> None:
    assert chart.label(value) == text


def test_charts_stand_one_below_the_other_in_a_file(tmp_path: Path) -> None:
    chart.write(tmp_path / "two.svg", [CHART, CHART])
    root = ET.parse(tmp_path / "two.svg").getroot()
    assert root.get("viewBox") == f"0 0 {chart.WIDTH} {2 * chart.HEIGHT}"


def test_another_kind_of_file_is_refused_before_the_run() -> None:
    chart.check(None)
    chart.check(Path("x.svg"))
    with pytest.raises(BenchError, match=r"written as \.svg or \.png"):
        chart.check(Path("x.pdf"))


def test_without_matplotlib_a_png_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: object) -> object:
        if name == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(BenchError, match="pip install --group bench"):
        chart.check(Path("x.png"))


def test_a_png_is_drawn_by_matplotlib(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    chart.check(tmp_path / "x.png")
    chart.write(tmp_path / "x.png", [CHART])
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
