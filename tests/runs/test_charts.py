"""The charts of a run, as SVG and as PNG: places and colours worked out by hand, and the files read by others."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFont
from test_report import HOSTILE, make_run

from edgetl import write_report
from edgetl.errors import visible
from edgetl.events import EpochEnd, Event, Note
from edgetl.runs.report import lettering
from edgetl.runs.report.charts import confusion, curves
from edgetl.runs.report.drawing import Cells, Dot, Drawing, Item, Line, Text
from edgetl.runs.report.findings import Findings, gather
from edgetl.runs.report.lines import Series, epoch_ticks, line_chart, nice_ticks
from edgetl.runs.report.png import SCALE, STYLES, png
from edgetl.runs.report.svg import figure, svg
from edgetl.runs.run import CONFUSION, CURVES, REPORT
from edgetl.tasks.metrics import classification

ACCENT, SECOND, GROUND = (36, 87, 208), (180, 81, 10), (255, 255, 255)
PALE = (245, 246, 249)
CORNER = (16, 42)
"""Where a drawing begins in its picture, below its title, in CSS pixels."""


@pytest.fixture
def fresh_fonts() -> Iterator[None]:
    """Fonts and letters are looked up anew in this test, and after it."""
    cached = (lettering.mask, lettering._font, lettering._glyph, lettering._system_fonts)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def pixels(*drawings: Drawing) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png(drawings))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def at(picture: NDArray[np.uint8], x: float, y: float) -> tuple[int, ...]:
    """The colour of a point of the first drawing."""
    return tuple(picture[int(SCALE * (CORNER[1] + y)), int(SCALE * (CORNER[0] + x))].tolist())


def is_near(found: tuple[int, ...], colour: tuple[int, ...], tolerance: int = 3) -> bool:
    return max(abs(a - b) for a, b in zip(found, colour, strict=True)) <= tolerance


def chart(*points: tuple[int, float], style: str = "val", **options: object) -> Drawing:
    shows = {"show": "{:.3g}".format, "show_tick": "{:.4g}".format, **options}
    return line_chart("Loss", [Series("validation", style, points)], **shows)  # type: ignore[arg-type]


def drawing(*items: Item) -> Drawing:
    return Drawing("title", "description", 200, 100, items)


def elements(drawn: Drawing, tag: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(svg(drawn)).findall(f".//{tag}")


def findings(path: Path, matrix: list[list[int]]) -> Findings:
    """Findings of a run whose validation samples were taken for classes as `matrix` says."""
    found = gather(make_run(path, [f"class {i}" for i in range(len(matrix))]))
    counts = np.array(matrix)
    truth = np.repeat(np.arange(len(counts)), counts.sum(axis=1))
    said = np.concatenate([np.repeat(np.arange(len(counts)), row) for row in counts])
    assert found.measured is not None
    summary = classification(truth, said, len(counts))
    return replace(found, measured=replace(found.measured, matrix=counts, summary=summary))


# places


def test_a_line_goes_where_its_values_are() -> None:
    drawn = chart((1, 0.0), (2, 1.0), (5, 0.5))
    (line,) = (e for e in elements(drawn, "path") if e.get("class") == "line val")
    # the axes go from 44 to 440 - 14 and from 250 - 40 up to 26; epoch 2 lies at a quarter of 1 to 5
    assert line.get("d") == "M44.0 210.0L139.5 26.0L426.0 118.0"
    picture = pixels(drawn)
    for x, y in ((44, 210), (91.75, 118), (139.5, 26), (282.75, 72), (426, 118)):
        assert is_near(at(picture, x, y), ACCENT)
    assert at(picture, 91.75, 90) == at(picture, 91.75, 146) == GROUND


def test_ticks_are_written_beside_their_grid_lines() -> None:
    drawn = chart((1, 0.0), (3, 1.0))
    texts = {item.text: item for item in drawn.items if isinstance(item, Text)}
    assert set(texts) == {"0", "0.25", "0.5", "0.75", "1", "2", "3", "epoch"}  # 1 on both axes
    lines = [item for item in drawn.items if isinstance(item, Line) and item.style == "grid"]
    assert [line.points[0][1] for line in lines] == [210, 164, 118, 72, 26]
    assert texts["0.5"].y == 118 + 4
    assert texts["2"].x == (44 + 426) / 2
    picture = pixels(drawn)
    grid = tuple(int(STYLES["grid"].colour[i : i + 2], 16) for i in (1, 3, 5))
    assert is_near(at(picture, 100, 72.3), grid, 12)
    written = picture[round(SCALE * (42 + 110)) : round(SCALE * (42 + 126)), : round(SCALE * (16 + 38))]
    assert written.min() < 130, "0.5 stands left of its grid line"


@pytest.mark.parametrize("value", [2e13, 123456.0, -1e299])
def test_wide_ticks_have_room(value: float) -> None:
    drawn = chart((1, 0.0), (2, value))
    for item in drawn.items:
        if isinstance(item, Text) and item.anchor == "end":
            assert item.x - lettering.width(item.text, 12) >= 0


def test_the_best_epoch_is_ringed_and_told() -> None:
    drawn = chart((1, 0.2), (2, 0.8), (3, 0.6), mark=(2, 0.8), show="{:.0%}".format)
    (ring,) = (item for item in drawn.items if isinstance(item, Dot) and item.style == "ring")
    (label,) = (item for item in drawn.items if isinstance(item, Text) and item.style == "mark")
    assert (ring.x, label.text, label.anchor) == (235, "best 80%", "middle")
    picture = pixels(drawn)
    for x, y in ((ring.x - ring.radius, ring.y), (ring.x + ring.radius, ring.y), (ring.x, ring.y - ring.radius)):
        assert is_near(at(picture, x, y), ACCENT, 60)
    assert at(picture, ring.x, ring.y - 4) == GROUND, "the ring is hollow"
    above = picture[round(SCALE * (42 + label.y - 9)) : round(SCALE * (42 + label.y))]
    assert above[:, round(SCALE * (16 + label.x - 20)) : round(SCALE * (16 + label.x + 20))].min() < 60


def test_the_training_line_is_dashed() -> None:
    picture = pixels(drawing(Line("train", ((10, 50), (190, 50)))))
    row = picture[round(SCALE * (42 + 50)), :, 2] < 128
    dashes = int((np.diff(row.astype(int)) == 1).sum())
    assert dashes == 20  # 180 / (5 + 4)
    solid = pixels(drawing(Line("val", ((10, 50), (190, 50)))))[round(SCALE * (42 + 50)), :, 0] < 128
    assert int((np.diff(solid.astype(int)) == 1).sum()) == 1
    # round ends make a dash longer by a line's width, 2
    assert row.sum() == pytest.approx(SCALE * 20 * (5 + 2), rel=0.08)
    assert solid.sum() == pytest.approx(SCALE * (180 + 2), rel=0.01)


def test_edges_are_smooth() -> None:
    picture = pixels(drawing(Line("val", ((10, 20), (190, 77))), Dot("train", 60, 80, 8)))
    for channel, colour in ((0, ACCENT), (2, SECOND)):
        between = set(np.unique(picture[..., channel])) - {255, colour[channel]}
        assert len(between) >= 6
    area = (255.0 - picture[..., 2])[: round(SCALE * (42 + 100)), round(SCALE * (16 + 50)) : round(SCALE * (16 + 70))]
    disc = area[round(SCALE * (42 + 70)) :].sum() / (255 - SECOND[2])
    assert disc == pytest.approx(np.pi * (SCALE * 8) ** 2, rel=0.03)


def test_turned_text_reads_upwards() -> None:
    level = pixels(drawing(Text("tick", 100, 50, "gap")))
    turned = pixels(drawing(Text("tick", 100, 50, "gap", turned=True)))
    dark = [np.argwhere(picture[round(SCALE * 42) :].min(axis=2) < 250) for picture in (level, turned)]
    x, y = SCALE * (16 + 100), SCALE * 50
    (top, left), (bottom, right) = dark[0].min(axis=0), dark[0].max(axis=0)
    (turned_top, turned_left), (turned_bottom, turned_right) = dark[1].min(axis=0), dark[1].max(axis=0)
    assert turned_left - x == pytest.approx(top - y, abs=2)
    assert turned_right - x == pytest.approx(bottom - y, abs=2)
    assert turned_bottom - y == pytest.approx(x - left, abs=2)
    assert turned_top - y == pytest.approx(x - right, abs=2)


@pytest.mark.parametrize(("anchor", "share"), [("start", 0), ("middle", 0.5), ("end", 1)])
def test_text_is_anchored(anchor: str, share: float) -> None:
    picture = pixels(drawing(Text("axis", 100, 50, "HHHH", anchor)))  # type: ignore[arg-type]
    columns = np.flatnonzero((picture[round(SCALE * 42) :].min(axis=2) < 200).any(axis=0))
    length = ImageFont.load_default(100).getlength("HHHH") * 12 / 100
    assert columns[0] == pytest.approx(SCALE * (16 + 100 - share * length), abs=3)
    assert columns[-1] == pytest.approx(SCALE * (16 + 100 + (1 - share) * length), abs=3)


# what a run shows


def test_the_confusion_matrix_has_its_counts_and_shares(tmp_path: Path) -> None:
    drawn = confusion(findings(tmp_path / "run", [[4, 0], [1, 3]]))
    assert drawn is not None
    assert drawn.title == "Confusion matrix, accuracy 87.5%"
    table, bar = (item for item in drawn.items if isinstance(item, Cells))
    assert table.values.tolist() == [[1, 0], [0.25, 0.75]]
    texts = [item for item in drawn.items if isinstance(item, Text)]
    assert [(item.text, item.style) for item in texts if item.style in ("count", "deep")] == [
        ("4", "deep"), ("1", "count"), ("3", "count"),
    ]  # fmt: skip
    assert [item.text for item in texts if item.style == "axis"] == ["true", "predicted", "share of the true class"]
    assert [item.text for item in texts if item.style == "tick"][-6:] == ["0%", "20%", "40%", "60%", "80%", "100%"]
    picture = pixels(drawn)
    half = table.width / 2
    expected = {(0, 0): ACCENT, (0, 1): PALE, (1, 0): (193, 206, 239), (1, 1): (88, 127, 218)}
    for (row, column), colour in expected.items():
        x, y = table.x + half * column + 5, half * row + 5
        assert is_near(at(picture, x, y), colour), (row, column)
        middle = picture[
            round(SCALE * (42 + half * (row + 0.5) - 8)) : round(SCALE * (42 + half * (row + 0.5) + 8)),
            round(SCALE * (16 + table.x + half * (column + 0.5) - 8)) :
            round(SCALE * (16 + table.x + half * (column + 0.5) + 8)),
        ]  # fmt: skip
        assert (middle.astype(int).std() > 10) == ((row, column) != (0, 1)), "a number stands in every field but 0"
    assert is_near(at(picture, bar.x + 5, 1), ACCENT, 6)
    assert is_near(at(picture, bar.x + 5, bar.height / 2), (140, 166, 228), 4)
    assert is_near(at(picture, bar.x + 5, bar.height - 1), PALE, 6)


@pytest.mark.parametrize("classes", [2, 10, 20, 30, 31, 200])
def test_a_matrix_of_any_size(tmp_path: Path, classes: int) -> None:
    counts = np.eye(classes, dtype=int) * 3
    counts[0, 1] = 1
    drawn = confusion(findings(tmp_path / "run", counts.tolist()))
    assert drawn is not None
    table = next(item for item in drawn.items if isinstance(item, Cells))
    cell = table.width / classes
    picture = pixels(drawn)
    assert picture.shape[1] < SCALE * 1100
    is_named = classes <= 30
    # the colour of one in four: 0.25, or its root
    strength = 0.25 if is_named else 0.5
    mixed = tuple(round(p + (a - p) * strength) for p, a in zip(PALE, ACCENT, strict=True))
    corner = 0.5 if classes == 200 else 0.15  # cells of 200 are too small for numbers and hardly larger than a pixel
    assert is_near(at(picture, table.x + cell * (1 + corner), cell * corner), mixed)
    assert is_near(at(picture, table.x + cell * (classes - 1 + corner), cell * (classes - 1 + corner)), ACCENT)
    assert is_near(at(picture, table.x + cell * corner, cell * (classes - 1 + corner)), PALE)
    texts = {item.text for item in drawn.items if isinstance(item, Text)}
    assert (f"class {classes - 1}" in texts) == is_named
    assert ("predicted class, by its number from 0" in texts) != is_named


def test_names_do_not_overlap_the_matrix_or_leave_the_picture(tmp_path: Path) -> None:
    found = findings(tmp_path / "run", np.eye(len(HOSTILE), dtype=int).tolist())
    drawn = confusion(replace(found, args=replace(found.args, labels=tuple(HOSTILE))))
    assert drawn is not None
    table = next(item for item in drawn.items if isinstance(item, Cells))
    names = [item for item in drawn.items if isinstance(item, Text) and item.style == "tick" and item.anchor == "end"]
    assert len(names) == 2 * len(HOSTILE)
    for item in names:
        length = lettering.width(item.text, 12)
        if item.turned:
            assert table.height < item.y < item.y + length < drawn.height
        else:
            assert 16 < item.x - length < item.x < table.x
    assert any(item.text.startswith("WWWWW") and item.text.endswith("…") for item in names)
    assert r"line\nbreak\x00" in {item.text for item in names}


def test_large_counts_have_room(tmp_path: Path) -> None:
    drawn = confusion(findings(tmp_path / "run", (np.eye(9, dtype=int) * 1_234_567).tolist()))
    assert drawn is not None
    table = next(item for item in drawn.items if isinstance(item, Cells))
    assert table.width / 9 > lettering.width("1234567", 12)


def test_curves_of_a_run(tmp_path: Path) -> None:
    metric, loss = curves(gather(make_run(tmp_path / "run", ["a", "b"], before=True)))
    assert (metric.title, metric.keys) == ("Accuracy", (("val", "validation"),))
    assert (loss.title, loss.keys) == ("Loss", (("train", "training"), ("val", "validation")))
    assert {"0%", "20%", "80%"} <= {item.text for item in metric.items if isinstance(item, Text)}
    assert any(item.text.startswith("best ") for item in metric.items if isinstance(item, Text))
    picture = pixels(metric, loss)
    assert picture.shape[:2] == (round(SCALE * (250 + 42 + 16) + 0.5), round(SCALE * (2 * 440 + 24 + 2 * 16)))
    right = picture[:, picture.shape[1] // 2 :]
    for colour, half in ((ACCENT, picture), (ACCENT, right), (SECOND, right)):
        assert (np.abs(half.astype(int) - colour).max(axis=2) < 3).sum() > 200
    assert not (np.abs(picture[:, : picture.shape[1] // 2].astype(int) - SECOND).max(axis=2) < 3).any()
    # keys stand at the right edge above each chart
    assert (np.abs(right[: round(SCALE * 36)].astype(int) - SECOND).max(axis=2) < 3).sum() > 20


@pytest.mark.parametrize(
    ("task", "metric", "values", "title", "ticks"),
    [
        ("regression", "r2", [-0.5, 0.75], "R²", {"-0.5", "0", "0.5", "1"}),
        ("regression", "mae", [90000.0, 25000.0], "Mean absolute error", {"20,000", "60,000", "100,000"}),
        ("multilabel", "micro_f1", [0.1, 0.7], "Micro F1", {"0%", "20%", "40%", "60%", "80%"}),
    ],
)
def test_other_tasks(tmp_path: Path, task: str, metric: str, values: list[float], title: str, ticks: set[str]) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], before=True, epochs=1)
    run.write_args(replace(run.read_args(), task=task, metric=metric, modality="array"))
    run.write_results(tuple(EpochEnd(i, 1, 1.0, 0.5, 2.0, {metric: value}) for i, value in enumerate(values)))
    (run.path / "validation.npz").unlink()
    result = write_report(run.path)
    assert result.plots == (str(run.path / CURVES),)
    drawn, _ = curves(gather(run))
    assert drawn.title == title
    assert ticks <= {item.text for item in drawn.items if isinstance(item, Text)}


def test_without_validation_data_the_loss_stands_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], validated=False)
    assert write_report(run.path).plots == (str(run.path / CURVES),)
    (loss,) = curves(gather(run))
    assert loss.keys == (("train", "training"),)


def test_before_the_first_epoch_there_is_nothing_to_draw(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ["a", "b"], finished=False)
    (run.path / "results.csv").unlink()
    (run.path / CURVES).write_bytes(b"of another time")
    assert write_report(run.path).plots == ()
    assert not (run.path / CURVES).exists()


@pytest.mark.parametrize("labels", [["a", "b"], HOSTILE, [f"{i}" for i in range(200)]])
def test_the_files(tmp_path: Path, labels: list[str]) -> None:
    run = make_run(tmp_path / "run", ["x"] * len(labels), samples=200, before=True)
    run.write_args(replace(run.read_args(), labels=tuple(label.replace("\udcff", "?") for label in labels)))
    events: list[Event] = []
    assert write_report(run.path, on_event=events.append).plots == (str(run.path / CURVES), str(run.path / CONFUSION))
    assert not events
    for file in (CURVES, CONFUSION):
        with Image.open(run.path / file) as image:
            assert min(image.size) > 300
            assert np.asarray(image.convert("L")).std() > 5


def test_without_freetype_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_fonts: None
) -> None:
    class Missing:
        def __getattr__(self, name: str) -> object:
            raise ImportError("libfreetype.so.6: cannot open shared object file")

    run = make_run(tmp_path / "run", ["a", "b"])
    (run.path / CURVES).write_bytes(b"of another time")
    monkeypatch.setattr(ImageFont, "core", Missing())
    events: list[Event] = []
    assert write_report(run.path, on_event=events.append).plots == ()
    assert (run.path / REPORT).is_file()
    assert not (run.path / CURVES).exists()
    (note,) = events
    assert isinstance(note, Note)
    assert "because Pillow has no FreeType here (libfreetype.so.6" in note.text


# SVG and colours


def test_the_svg_is_xml_and_says_what_it_shows() -> None:
    drawn = chart((1, 3.0), (2, float("nan")), (3, 1.0))
    (element,) = ElementTree.fromstring(figure(replace(drawn, title="<a> & b"))).findall("svg")
    assert element.get("viewBox") == "0 0 440 250"
    assert element.get("aria-label") == "Loss: validation from 3 in epoch 1 to 1 in epoch 3"
    assert [e.text for e in elements(drawn, "title")] == ["validation, epoch 1: 3", "validation, epoch 3: 1"]
    cells = elements(drawing(Cells(10, 20, 60, 30, np.array([[0, 0.5, 1]]))), "rect")
    assert [(e.get("x"), e.get("width"), e.get("fill-opacity")) for e in cells] == [
        ("30.00", "20.00", "0.5"),
        ("50.00", "20.00", "1"),
    ]
    (text,) = elements(drawing(Text("tick", 5, 6, "<&>", "end", turned=True)), "text")
    assert (text.text, text.get("transform"), text.get("text-anchor")) == ("<&>", "rotate(-90 5.0 6.0)", "end")


def test_the_picture_has_the_colours_of_the_page_by_day() -> None:
    css = resources.files("edgetl.runs.report").joinpath("page.css").read_text(encoding="utf-8")
    by_day = dict(re.findall(r"--([\w-]+): (#\w{6});", css.split("@media")[0]))
    for style, name in {
        "grid": "grid", "val": "accent", "ring": "accent", "train": "second", "tick": "muted", "axis": "muted",
        "key": "muted", "mark": "ink", "count": "ink", "title": "ink", "deep": "card",
    }.items():  # fmt: skip
        assert STYLES[style].colour == by_day[name], style
    assert "--right: 36 87 208" in css


def test_numbers_on_colours_can_be_read() -> None:
    def luminance(colour: tuple[float, ...]) -> float:  # of WCAG 2.2
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    from edgetl.runs.report.charts import DEEP

    for strength in np.linspace(0, 1, 21):
        under = luminance(tuple(p + (a - p) * strength for p, a in zip(PALE, ACCENT, strict=True)))
        on = luminance((255, 255, 255) if strength > DEEP else (29, 28, 26))
        assert (max(under, on) + 0.05) / (min(under, on) + 0.05) > 4


# damaged, huge and long


@given(st.lists(st.floats(), min_size=1, max_size=6), st.sampled_from([(None, None), (0.0, None), (None, 1.0)]))
@example([1e308, -1e308], (None, None))
@example([float("nan")], (0.0, None))
@example([5e-324, 0.0], (0.0, None))
@settings(deadline=None)
def test_any_values_are_drawn(values: list[float], limits: tuple[float | None, float | None]) -> None:
    drawn = chart(*enumerate(values), limits=limits, mark=(0, values[0]))
    assert "nan" not in "".join(path.get("d", "") for path in elements(drawn, "path"))
    numbers = [float(x) for path in elements(drawn, "path") for x in re.findall(r"-?[\d.]+", path.get("d", ""))]
    assert all(0 <= number <= 440 for number in numbers)
    pixels(drawn)


def test_what_is_no_number_is_a_gap() -> None:
    nan, inf = float("nan"), float("inf")
    drawn = chart((1, 1.0), (2, 0.5), (3, nan), (4, 0.5), (5, inf), (6, 0.25), (7, 0.0))
    lines = [item for item in drawn.items if isinstance(item, Line) and item.style == "val"]
    assert [len(line.points) for line in lines] == [2, 1, 2]
    picture = pixels(drawn)
    assert is_near(at(picture, *lines[1].points[0]), ACCENT)
    x, y = lines[0].points[-1]
    assert at(picture, x + 20, y) == GROUND or is_near(at(picture, x + 20, y), (236, 235, 231), 8)
    nothing = chart((1, nan), (2, inf))
    assert [item.text for item in nothing.items if isinstance(item, Text)] == ["no finite values"]


def test_a_long_curve_keeps_its_ends_and_its_best() -> None:
    points = tuple((epoch, epoch % 7 / 7) for epoch in range(1, 10_001))
    drawn = svg(chart(*points, mark=(4444, points[4443][1])))
    assert len(drawn) < 20_000
    assert "in epoch 1 to" in drawn
    assert "in epoch 10000" in drawn
    assert 'class="ring"' in drawn


@given(
    st.floats(-1e6, 1e6),
    st.floats(0, 1e6),
    st.sampled_from([(None, None), (0.0, None), (0.0, 1.0)]),
)
def test_ticks_enclose_the_values(low: float, span: float, limits: tuple[float | None, float | None]) -> None:
    if limits[0] is not None:
        low = abs(low)
    if limits[1] is not None:
        low, span = low / 1e6, span / 1e6 * (1 - low / 1e6)
    ticks = nice_ticks(low, low + span, limits)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    slack = 1e-6 * (ticks[-1] - ticks[0])
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack


@given(st.integers(0, 10), st.integers(0, 100_000))
def test_epoch_ticks_are_few_and_whole(first: int, span: int) -> None:
    ticks = epoch_ticks(first, first + span)
    assert 1 <= len(ticks) <= 9
    assert ticks[0] == first
    assert ticks[-1] <= first + span


# letters


def test_what_the_font_lacks_is_a_bare_letter_or_a_box(monkeypatch: pytest.MonkeyPatch, fresh_fonts: None) -> None:
    monkeypatch.setattr(lettering, "_font_folders", lambda: ())
    box = lettering.mask("\uffff", 20)
    for text, shown in {
        "é": "e",
        "R²": "R2",
        "大": "\uffff",
        "🍎🍎": "\uffff\uffff",
        "e\u0301": "e",
        "№": "No",
    }.items():
        found, expected = lettering.mask(text, 20), lettering.mask(shown, 20)
        assert np.array_equal(np.asarray(found.mask), np.asarray(expected.mask)), text
        assert lettering.width(text, 20) == lettering.width(shown, 20)
    assert np.asarray(box.mask).max() > 200
    assert lettering.mask("", 20).advance == 0


def test_a_font_of_the_system_is_taken_where_it_has_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_fonts: None
) -> None:
    own = ImageFont.load_default(20)
    assert isinstance(own, ImageFont.FreeTypeFont)
    for name, data in {"DejaVuSans.ttf": b"\0broken", "NotoSans-Regular.otf": own.font_bytes, "x.txt": b""}.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(lettering, "_font_folders", lambda: (tmp_path, tmp_path / "nowhere"))
    broken, whole = str(tmp_path / "DejaVuSans.ttf"), str(tmp_path / "NotoSans-Regular.otf")
    assert lettering._system_fonts() == (broken, whole)
    assert not lettering._has(broken, "a")
    assert lettering._has(whole, "a")
    assert not lettering._has(whole, "ä")
    # as if it were another, that has all of a name
    monkeypatch.setattr(lettering, "_has", lambda name, cluster: name == whole or (cluster.isascii() and name == ""))
    assert list(lettering._parts("Käse")) == [(whole, "Käse")]
    assert list(lettering._parts("Brot")) == [("", "Brot")]
    monkeypatch.setattr(lettering, "_has", lambda name, cluster: cluster.isascii() == (name == ""))
    assert [part for _, part in lettering._parts("a\u0308b大c")] == ["a\u0308", "b", "大", "c"]


@given(st.text(max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_text_can_be_drawn(text: str) -> None:
    lettering.mask(visible(text), 20, bold=True, outline=3)
