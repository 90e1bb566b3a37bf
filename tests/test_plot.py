"""The charts as figures for papers: complete, readable, the same every time, and drawn from the file alone."""

import json
import os
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from boards import POOLS, board, entry, leaderboard_of, reference, scored_keys
from PIL import Image
from runs import ROOT

from poolbench.errors import UserError
from poolbench.files import write_json

from leaderboard import charts
from leaderboard.models import Board, Score, read_leaderboard
from leaderboard.plot import FIGURES, PlotOptions, plot, svg

KEYS = scored_keys()
HOSTILE = '<script>alert(1)</script> & "quotes" <image href="http://127.0.0.1:9/x.png"/> ' + "long " * 15
METHODS = [HOSTILE, "مرشح", *(f"Method {letter}" for letter in "ABCDEFGHIJ")]
PUBLISHED = ["No filtering", "CLIP score", "Image-based"]
SCALES = {"scaling": None, "across": "small,medium"}


def board_of(scale: str, seed: int, **changes: Any) -> Board:
    draw = random.Random(seed)
    gain = list(POOLS).index(scale) * 0.1

    def scores(method: str) -> dict[str, float]:
        level = 0.2 + gain + 0.1 * random.Random(method).random()
        return {key: level + draw.gauss(0, 0.03) for key in KEYS}

    def probes(method: str) -> dict[str, dict[str, Score]]:
        value = 0.5 + 0.3 * random.Random(f"{method} probed").random()
        return {key: {"linear": Score(value=value, stderr=None)} for key in KEYS[:3]}

    entries = [entry(m, scores(m), scale, dataset_size=draw.randint(10**6, 10**7), probes=probes(m)) for m in METHODS]
    entries.append(entry("Method A", scores("Method A"), scale, seed=1))
    published = [reference(m, scores(m), dataset_size=draw.randint(10**6, 10**7)) for m in PUBLISHED]
    published.append(reference("Aggregates only", {}, aggregates={"average": 0.2 + gain, "imagenet": 0.1 + gain}))
    return board(entries, published, scale, **changes)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site") / "leaderboard.json"
    boards = [board_of("small", 1), board_of("medium", 2), board_of("large", 3)]
    write_json(path, leaderboard_of(*boards).model_dump(mode="json"))
    return path


def options(kind: str, out: Path | str = "x.svg", **changes: Any) -> PlotOptions:
    return PlotOptions(**{"kind": kind, "out": str(out), "scale": SCALES.get(kind, "small"), **changes})


def texts(drawn: str) -> list[str]:
    """What an SVG shows as text, invisible labels left out."""
    found = ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()) for text in found if text.get("opacity") != "0" and "".join(text.itertext())]


@pytest.mark.parametrize("kind", FIGURES)
def test_every_kind_in_every_format(kind: str, path: Path, tmp_path: Path) -> None:
    assert plot([str(path)], options(kind, tmp_path / "new" / "fig.{png,svg,pdf}")) == 0
    drawn = (tmp_path / "new" / "fig.svg").read_text(encoding="utf-8")
    width = {"scaling": 5.0, "heat_map": 6.8}.get(kind, 3.3)
    root = ET.fromstring(drawn)
    assert root.get("width", "").endswith("pt") and float(root.get("width", "")[:-2]) == pytest.approx(
        72 * width, abs=2
    )
    with Image.open(tmp_path / "new" / "fig.png") as image:
        assert (
            image.width == pytest.approx(300 * width, abs=9) and len(image.convert("RGB").getcolors(10**6) or []) > 20
        )
    pdf = (tmp_path / "new" / "fig.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-") and b"/FontFile" in pdf, "fonts are embedded"
    assert "<script" not in drawn and "<image" not in drawn
    shown = " ".join(texts(drawn))
    assert "undefined" not in shown and "NaN" not in shown and "null" not in shown
    if kind != "correlations":
        assert any(name in shown for name in METHODS[2:])
        assert kind == "probes" or any(name in shown for name in PUBLISHED)


def test_the_same_bytes_in_another_process(path: Path, tmp_path: Path) -> None:
    """Drawn in another order, as by a long-lived process; with Latin names, for which one font is enough."""
    latin = tmp_path / "latin.json"
    latin.write_text(path.read_text(encoding="utf-8").replace("مرشح", "Filter"), encoding="utf-8")
    kinds = ["heat_map", "size"]
    for kind in reversed(kinds):
        plot([str(latin)], options(kind, tmp_path / f"{kind}-one.{{svg,pdf,png}}"))
    code = "import sys\nfrom leaderboard.plot import PlotOptions, plot\nfor kind in sys.argv[3:]:\n"
    code += " out = f'{sys.argv[2]}/{kind}-two.{{svg,pdf,png}}'\n"
    code += " plot([sys.argv[1]], PlotOptions(kind=kind, scale='small', out=out))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, latin, tmp_path, *kinds], cwd=ROOT, env=environment, check=True)
    for kind in kinds:
        for suffix in ("svg", "pdf", "png"):
            one, two = (tmp_path / f"{kind}-{name}.{suffix}" for name in ("one", "two"))
            assert one.read_bytes() == two.read_bytes(), (kind, suffix)


def test_hostile_names_are_shown_as_text(path: Path) -> None:
    figure = FIGURES["heat_map"](read_leaderboard(path), options("heat_map"))
    shown = texts(svg(figure, 6.8))
    assert any(text.startswith("<script>alert(1)</script>") and text.endswith("…") for text in shown)
    assert "مرشح" in shown


def boxes(drawn: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom of the labels beside points, with letters of 0.4 of the font's size at the least."""
    found = []
    (labels,) = [group for group in ET.fromstring(drawn).iter() if "labels_marks" in group.get("class", "")]
    for text in labels:
        if text.get("opacity") != "1" or not text.text:
            continue
        place = re.fullmatch(r"translate\(([-\d.]+),([-\d.]+)\)", text.get("transform", ""))
        assert place is not None
        x, y, width = float(place[1]), float(place[2]), 0.4 * 6.5 * len(text.text)
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[text.get("text-anchor", "start")]
        found.append((left, y - 4, left + width, y))
    return found


@pytest.mark.parametrize("kind", ["size", "across"])
def test_labels_do_not_hide_each_other(kind: str, path: Path) -> None:
    found = boxes(svg(FIGURES[kind](read_leaderboard(path), options(kind)), 3.3))
    assert len(found) >= 5
    for number, one in enumerate(found):
        for other in found[:number]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, (one, other)


def test_size_has_share_and_noise(path: Path) -> None:
    rows = FIGURES["size"](read_leaderboard(path), options("size", top=100)).rows
    assert len(rows) == len(METHODS) + 1 + len(PUBLISHED) + 1
    assert len({row["label"] for row in rows}) == len(rows), "two seeds of a method are two points"
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    for row in rows:
        assert row["share"] == row["size"] / 12_800_000
        if row["kind"] == "published":
            assert (row["low"], row["high"], row["rank"]) == (None, None, None)
        else:
            assert row["low"] < row["score"] < row["high"] and row["rank"] == 1
    best = FIGURES["size"](read_leaderboard(path), options("size", top=3)).rows
    assert [row["label"] for row in best] == [row["label"] for row in rows[:3]]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([14_748, 29_495], {"16k", "18k", "20k", "22k", "24k", "26k", "28k"}),
        ([25_000, 95_000], {"30k", "40k", "50k", "60k", "70k", "80k", "90k"}),
        ([100_000, 30_000_000], {"100k", "200k", "500k", "1M", "2M", "5M", "10M", "20M"}),
    ],
)
def test_each_size_has_its_label_unless_there_are_several_decades(sizes: list[int], expected: set[str]) -> None:
    kept = {"kind": "entry", "share": None, "low": None, "high": None, "rank": None}
    rows = [{"label": "", "size": size, "score": place, **kept} for place, size in enumerate(sizes)]
    drawn = vl_convert.vegalite_to_svg(
        {**charts.size_against_score(), "data": {"name": "rows", "values": rows}}, vl_version=charts.VERSION
    )
    assert expected <= {text for text in texts(drawn) if re.fullmatch(r"\d+[kM]", text)} <= expected | {"30k"}


def test_scaling_has_a_line_for_each_method(path: Path) -> None:
    rows = FIGURES["scaling"](read_leaderboard(path), options("scaling", metric="imagenet1k")).rows
    lines: dict[str, list[int]] = {}
    for row in rows:
        lines.setdefault(row["label"], []).append(row["samples"])
    assert set(lines) == {*METHODS, *PUBLISHED}, "a published result without ImageNet's own score has none here"
    assert all(samples == [12_800_000, 128_000_000, 1_280_000_000] for samples in lines.values())


def test_heat_map_is_against_the_baseline(path: Path) -> None:
    rows = FIGURES["heat_map"](read_leaderboard(path), options("heat_map", baseline="Method C", top=4)).rows
    entries = list(dict.fromkeys(row["entry"] for row in rows))
    assert len(entries) == 4 and "Method C" in entries and len(rows) == 4 * len(KEYS)
    scores = {(row["entry"], row["task"]): row["score"] for row in rows}
    for row in rows:
        assert row["difference"] == row["score"] - scores["Method C", row["task"]]


def test_heat_map_is_against_no_filtering_by_default(path: Path) -> None:
    small = read_leaderboard(path).boards[0]
    whole = small.references[1].model_copy(update={"dataset_size": 12_800_000})
    boards = [small.model_copy(update={"references": [small.references[0], whole]})]
    drawn = FIGURES["heat_map"](leaderboard_of(*boards), options("heat_map"))
    assert whole.method in json.dumps(drawn.spec)
    assert {row["difference"] for row in drawn.rows if row["entry"] == whole.method} == {0.0}


def test_across_says_rho(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fig.svg"
    assert plot([str(path)], options("across", out)) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(rf"{re.escape(str(out))} \(Spearman's rho 0\.\d{{3}}, 16 methods\)\n", said)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kind": "heatmap"}, "kind=heatmap is not known; did you mean 'heat_map'?"),
        ({"out": "fig.jpg"}, "out=fig.jpg: the name of a figure ends in .svg, .pdf, .png"),
        ({"out": "fig.{svg,png"}, "out=fig.{svg,png: a brace is not closed"),
        ({"out": f"{__file__}/fig.svg"}, "test_plot.py is a file, no folder"),
        ({"out": "fig.{svg,txt}"}, "out=fig.txt: the name of a figure ends in"),
        ({"track": "byod"}, "track=byod has no entries; known: filtering"),
        ({"track": "filter"}, "track=filter is no known track; did you mean 'filtering'?"),
        ({"scale": None}, "scale= is needed: small, medium, large"),
        ({"scale": "smal"}, "scale=smal has no entries in track filtering; did you mean 'small'?"),
        ({"metric": "imagnet"}, "metric=imagnet is not known; did you mean 'imagenet'?"),
        ({"top": 0}, "top=0 width=None: top is 1 or more"),
        ({"width": 500.0}, "top=20 width=500.0: top is 1 or more, width is 1 to 40 inches"),
        (
            {"kind": "heat_map", "baseline": "Method AA"},
            "baseline=Method AA is no method with .*did you mean 'Method A'?",
        ),
        ({"kind": "scaling", "scale": "small"}, "scale=small: scaling shows every scale; leave it out"),
        ({"kind": "across", "scale": None}, "across needs two scales: scale=small,large of small, medium, large"),
        ({"kind": "across", "scale": "small,tiny"}, "scale=tiny has no entries in track filtering"),
    ],
)
def test_wrong_options_are_one_line(path: Path, tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    given = PlotOptions(**{"kind": "size", "out": str(tmp_path / "fig.svg"), "scale": "small", **changes})
    with pytest.raises(UserError, match=expected.replace("?", r"\?")) as caught:
        plot([str(path)], given)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_wrong_files_are_one_line(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plot needs one leaderboard"):
        plot([], options("size"))
    with pytest.raises(UserError, match=r"none.json cannot be read: No such file"):
        plot([str(tmp_path / "none.json")], options("size"))
    value = json.loads(path.read_text(encoding="utf-8"))
    for name, changed, expected in [
        ("later", {**value, "format": 3}, "is no leaderboard.json of format 2"),
        ("list", [], "is no leaderboard.json of format 2"),
        ("odd", {**value, "aggregates_version": "x"}, "aggregates_version: Input should be a valid integer; python -m"),
        ("empty", {**value, "boards": []}, "holds no entries"),
    ]:
        write_json(tmp_path / f"{name}.json", changed)
        with pytest.raises(UserError, match=expected):
            plot([str(tmp_path / f"{name}.json")], options("size"))


def test_nothing_to_draw_is_one_line(tmp_path: Path) -> None:
    three = [entry(str(n), {"imagenet1k": 0.1 * n, "mnist": 0.2}, dataset_size=None) for n in range(3)]
    boards = [board(three), board([entry("new", {"mnist": 0.5}, "medium")], scale="medium")]
    write_json(tmp_path / "few.json", leaderboard_of(*boards).model_dump(mode="json"))
    for kind, expected in [
        ("size", "no entry tells its dataset size"),
        ("scaling", "no entry has a score for metric=average"),
        ("heat_map", "no entry has scores of single tasks"),
        ("across", "no method is known at both scales"),
        ("correlations", "at least four entries with ImageNet and another score are needed"),
    ]:
        with pytest.raises(UserError, match=expected):
            plot([str(tmp_path / "few.json")], options(kind, tmp_path / "fig.svg"))
    assert not (tmp_path / "fig.svg").exists()


SPECS = {
    "size": charts.size_against_score(),
    "scaling": charts.scaling(),
    "heat_map": charts.heat_map(),
    "across": charts.across_scales(),
    "correlations": charts.correlations(),
}


@pytest.mark.parametrize("kind", SPECS)
def test_a_chart_without_rows_is_an_empty_chart(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """As on a page whose search finds nothing; and the library has nothing to warn of."""
    spec = {**SPECS[kind], "data": {"name": "rows", "values": []}}
    vega = vl_convert.vegalite_to_vega(spec, vl_version=charts.VERSION, show_warnings=True)
    ET.fromstring(vl_convert.vega_to_svg(charts.laid_out(vega)))
    assert capfd.readouterr().err == ""
    assert spec["description"] and json.dumps(spec).count('"tooltip"') >= 1
