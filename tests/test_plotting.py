"""Figures: that they show the numbers they are given, all of them, and nothing runs off the page.

What a figure looks like is for eyes to judge; what it says is checked here, on its artists.
"""

import math
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from io import BytesIO
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from l0ref import plotting
from tests import naive

NAMES = ["input", "hidden 1", "hidden 2"]
WIDTHS = (12, 7, 5)
CLOSE_TOGETHER = np.array([[12, 7, 5], [8, 6, 5], [4, 4, 4], [3, 3, 2]])


def history(active: Any = CLOSE_TOGETHER, widths: tuple[int, ...] = WIDTHS) -> dict[str, Any]:
    active = np.asarray(active)
    arrays = {
        "active": active,
        "expected_l0": 100.5 * active,
        "test_error": np.linspace(20, 3.25, len(active)),
        "loss": np.zeros(len(active)),
    }
    return arrays | {
        f"open_{i}": np.arange(width) < active[:, i : i + 1] for i, width in enumerate(widths)
    }


LENET_5 = ("conv 1", "conv 2", "dense 1", "dense 2")
LENET_5_WIDTHS = (20, 50, 800, 500)
LENET_5_ACTIVE = np.array([[20, 50, 800, 500], [20, 40, 100, 450], [18, 21, 36, 400]])


def costs(epochs: int, dense: float = 4_586_000) -> dict[str, Any]:
    rng = np.random.default_rng(11)
    decay = np.exp(-np.arange(epochs) / 12)
    return {
        "expected_flops": dense * (0.05 + 0.6 * decay),
        "sampled_flops": dense * (0.05 + 0.5 * decay) * rng.uniform(0.95, 1.05, epochs),
        "flops": (dense * np.maximum(decay, 0.1)).round(),
        "loss": np.zeros(epochs + 1),
    }


def random_open(*widths: int) -> dict[str, Any]:
    """Units that go at random epochs, and now and then one that is back for an epoch."""
    rng = np.random.default_rng(5)
    epochs = np.arange(30)[:, None]
    return {
        f"open_{i}": (epochs < rng.integers(1, 60, width)) | (rng.random((30, width)) < 0.02)
        for i, width in enumerate(widths)
    }


def gates() -> list[Any]:
    return [
        np.array([0, 0, 0, 1e-12, 0.33, 1], np.float32),
        np.array([[1, 1], [0.5, 0.99999]]),
    ]


FIGURES: dict[str, Callable[[], Figure]] = {
    "active": lambda: plotting.active_units(history(), NAMES),
    "active, one epoch": lambda: plotting.active_units(history(CLOSE_TOGETHER[:1]), NAMES),
    "active, weights": lambda: plotting.active_units(
        history([[235200, 30000, 1000], [23520, 300, 0]], ()), NAMES
    ),
    "active, all gone": lambda: plotting.active_units(history(np.zeros((2, 3), int)), NAMES),
    "active, lenet-5": lambda: plotting.active_units(
        history(LENET_5_ACTIVE, LENET_5_WIDTHS), LENET_5
    ),
    "flops": lambda: plotting.flops_over_training(costs(6), flops_dense=4_586_000),
    "flops, many epochs": lambda: plotting.flops_over_training(costs(90), flops_dense=4_586_000),
    "flops, one epoch": lambda: plotting.flops_over_training(costs(1, 532), flops_dense=532),
    "flops, dense unknown": lambda: plotting.flops_over_training(costs(12, 532_400)),
    "flops, nothing left": lambda: plotting.flops_over_training(
        {key: np.zeros(3) for key in costs(3)}
    ),
    "pixels": lambda: plotting.input_pixels(np.linspace(0, 1, 15), (3, 5)),
    "pixels, mask": lambda: plotting.input_pixels(np.arange(784) % 3 == 0, (28, 28)),
    "pixels over training": lambda: plotting.pixels_over_training(history()["open_0"], (3, 4)),
    "pixels over training, rows": lambda: plotting.pixels_over_training(
        np.ones((40, 6), bool), (2, 3), n=14
    ),
    "neurons": lambda: plotting.neurons_over_training(history(), NAMES, (3, 4)),
    "neurons, one epoch": lambda: plotting.neurons_over_training(
        history(CLOSE_TOGETHER[:1]), NAMES, (3, 4)
    ),
    "neurons, lenet-300-100": lambda: plotting.neurons_over_training(
        random_open(784, 300, 100), NAMES, (28, 28)
    ),
    "neurons, lenet-5": lambda: plotting.neurons_over_training(
        random_open(20, 50, 800, 500), ["convolution 1", "convolution 2", "dense 1", "dense 2"]
    ),
    "neurons, one unit": lambda: plotting.neurons_over_training(
        {"open_0": [[1], [1], [0]]}, ["input"]
    ),
    "neurons, thousands": lambda: plotting.neurons_over_training(
        random_open(12_345, 1_009), ["a layer with a long name", "hidden"], n=12
    ),
    "neurons, long counts": lambda: plotting.neurons_over_training(
        {"open_0": np.arange(123_457) % 11 >= np.arange(9)[:, None]}, ["input"], n=9
    ),
    "neurons, tall": lambda: plotting.neurons_over_training(random_open(90), ["input"], (45, 2)),
    "histogram": lambda: plotting.gate_histogram(gates(), NAMES[:2]),
    "histogram, one layer": lambda: plotting.gate_histogram([np.zeros(784)], ["input"]),
    "law": plotting.hard_concrete_law,
    "law, cold": lambda: plotting.hard_concrete_law(-3.0, beta=0.1),
    "law, warm": lambda: plotting.hard_concrete_law(2.0, beta=3.0, gamma=-0.4, zeta=1.2),
}


@cache
def drawn(name: str) -> tuple[Figure, bytes]:
    """Draw and save a figure, once for all tests that only look at it; return it and the PNG."""
    figure = FIGURES[name]()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        plotting.save(figure, path)
        png = path.read_bytes()
    # From here on, what the figure tells of places is in the PNG's pixels.
    figure.set_dpi(plotting.DPI)
    FigureCanvasAgg(figure)
    return figure, png


def texts(figure: Figure) -> list[Text]:
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text for text in found if isinstance(text, Text) and text.get_text().strip()]


def all_text(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


# --- every figure ---


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_runs_off_the_page(name: str) -> None:
    figure, _ = drawn(name)
    page = figure.bbox
    ticks = [
        tick
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks() + axis.get_minor_ticks()
    ]
    # Labels of ticks beyond the limits exist, and are not drawn.
    skipped = {label for tick in ticks for label in (tick.label1, tick.label2)}
    for text in texts(figure):
        if text not in skipped:
            box = text.get_window_extent()
            # A pixel for antialiasing.
            assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1, text.get_text()
            assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1, text.get_text()


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (
            "active",
            {
                "epoch",
                "units with a test-time gate above 0",
                "test error (%)",
                "expected weights on",
            },
        ),
        (
            "pixels",
            {"column (pixels)", "row (pixels)", r"test-time gate $\hat z$ (grey: 0, not read)"},
        ),
        ("active, lenet-5", {"units with a test-time gate above 0 (% of the layer)"}),
        ("flops", {"epoch", "FLOPs for one example (millions)"}),
        ("flops, dense unknown", {"FLOPs for one example (thousands)"}),
        ("flops, one epoch", {"FLOPs for one example"}),
        ("histogram", {r"test-time gate $\hat z$", "gates (count, square-root scale)"}),
        ("law", {"$s$", "probability density", "probability mass (stems)"}),
    ],
)
def test_axes_say_what_they_measure(name: str, labels: set[str]) -> None:
    axes = drawn(name)[0].axes
    assert labels <= {label for a in axes for label in (a.get_xlabel(), a.get_ylabel())}


@pytest.mark.parametrize("name", FIGURES)
def test_save_writes_a_picture_and_nothing_else(name: str) -> None:
    figure, png = drawn(name)
    with Image.open(BytesIO(png)) as image:
        assert image.format == "PNG"
        assert image.size == tuple(
            int(plotting.DPI * inches) for inches in figure.get_size_inches()
        )
        assert set(image.info) == {"dpi"}  # no date, no version
        assert len(image.convert("L").getcolors()) > 10  # something is drawn


# The style is that of a function, whatever it is given: one figure a function will do.
@pytest.mark.parametrize("name", [name for name in FIGURES if "," not in name])
def test_save_gives_the_same_bytes_whatever_the_users_style(name: str, tmp_path: Path) -> None:
    path = tmp_path / "b.png"
    with mpl.rc_context({"font.size": 31, "lines.linewidth": 9, "savefig.bbox": "tight"}):
        plotting.save(FIGURES[name](), path)
    assert path.read_bytes() == drawn(name)[1]
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("path", ["picture.pdf", "picture"])
def test_save_refuses_other_formats(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path must end in \.png, got 'picture"):
        plotting.save(Figure(), tmp_path / path)
    assert not list(tmp_path.iterdir())


def test_no_global_state() -> None:
    before = dict(mpl.rcParams)
    plotting.hard_concrete_law()
    assert dict(mpl.rcParams) == before
    code = "import sys, l0ref.plotting; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- active_units ---


def test_active_units_shows_counts_error_and_expected_l0() -> None:
    arrays = history()
    figure = plotting.active_units(arrays, NAMES)
    units, error, expected = figure.axes
    for line, column in zip(units.lines, CLOSE_TOGETHER.T, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
        np.testing.assert_array_equal(line.get_ydata(), column)
    np.testing.assert_array_equal(error.lines[0].get_ydata(), arrays["test_error"])
    steps = [patch.get_data() for patch in expected.patches]
    for step, below, above in zip(steps, (0, 12, 19), (12, 19, 24), strict=True):
        np.testing.assert_array_equal(step.edges, [0.5, 1.5, 2.5, 3.5, 4.5])
        assert (step.baseline[0], step.values[0]) == (100.5 * below, 100.5 * above)
    shown = all_text(figure)
    for expected_text in (
        "Units left after epoch 4",
        "input: 3 of 12",
        "hidden 1: 3 of 7",
        "hidden 2: 2 of 5",
        "Test error: 3.25 %",
        "Expected L0: 804",
    ):
        assert expected_text in shown


def test_active_units_counts_epochs_in_whole_numbers() -> None:
    figure, _ = drawn("active, one epoch")
    for axes in figure.axes:
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_active_units_speaks_of_weights_where_a_gate_is_a_weight() -> None:
    shown = all_text(drawn("active, weights")[0])
    assert "Weights left after epoch 2" in shown
    assert "input: 23,520\n" in shown
    assert " of " not in shown


def test_active_units_shows_shares_where_the_layers_are_of_very_different_sizes() -> None:
    figure, _ = drawn("active, lenet-5")
    left = figure.axes[0]
    for line, counts, width in zip(left.lines, LENET_5_ACTIVE.T, LENET_5_WIDTHS, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), [100 * n / width for n in counts])
    assert left.get_ylim() == (0, 105)
    np.testing.assert_array_equal(left.get_yticks(), [0, 20, 40, 60, 80, 100])
    shown = all_text(figure)
    for label in ("conv 1: 18 of 20", "conv 2: 21 of 50", "dense 1: 36 of 800"):
        assert label in shown
    # Each label stands at the end of its line: these three have room.
    ends = {
        name: left.transData.transform((0, y))[1]
        for name, y in zip(LENET_5, 100 * LENET_5_ACTIVE[-1] / LENET_5_WIDTHS, strict=True)
    }
    for name in ("conv 1", "conv 2", "dense 1"):
        [label] = [text for text in texts(figure) if text.get_text().startswith(name)]
        box = label.get_window_extent()
        assert box.y0 < ends[name] < box.y1


@pytest.mark.parametrize(("wide", "top"), [(50, 50), (51, 100)])
def test_active_units_shows_counts_up_to_a_tenfold_difference(wide: int, top: int) -> None:
    figure = plotting.active_units(history([[5, wide], [3, 2]], (5, wide)), NAMES[:2])
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == [5 if top == 50 else 100, top]
    assert figure.axes[0].get_ylim()[1] == 1.05 * top


def test_active_units_shows_shares_of_the_whole_layer_not_of_the_first_epoch() -> None:
    figure = plotting.active_units(history([[1, 8], [0, 2]], (2, 40)), NAMES[:2])
    drawn_lines = [[*line.get_ydata()] for line in figure.axes[0].lines]
    assert drawn_lines == [[50, 0], [20, 5]]
    assert figure.axes[0].get_ylim()[1] == 105


@pytest.mark.parametrize("widths", [(784,) * 7, (784, 783, 78, 784, 400, 40, 399)])
@pytest.mark.parametrize("last", [[0] * 7, [784] * 7, [784, 1, 0, 783, 400, 2, 399]])
def test_active_units_labels_do_not_overlap(last: list[int], widths: tuple[int, ...]) -> None:
    names = [f"layer {i}" for i in range(len(last))]
    last = np.minimum(last, widths).tolist()
    figure = plotting.active_units(history([widths, last], widths), names)
    FigureCanvasAgg(figure).draw()
    labels = [text for text in texts(figure) if text.get_text().startswith("layer ")]
    assert len(labels) == len(names)
    boxes = [text.get_window_extent() for text in labels]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    panel = figure.axes[0].bbox
    assert all(panel.y0 - 10 <= box.y0 <= box.y1 <= panel.y1 for box in boxes)
    by_height = sorted(labels, key=lambda text: text.get_window_extent().y0)
    layers = [int(text.get_text()[6]) for text in by_height]
    by_share = len(set(widths)) > 1
    values = [last[i] / widths[i] if by_share else last[i] for i in layers]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        ({"active": None}, NAMES, r"history must hold 'active', got \["),
        ({"test_error": np.zeros((4, 1))}, NAMES, r"test_error'\] must have shape \(epochs,\)"),
        ({"test_error": np.zeros(0)}, NAMES, r"test_error'\] must have shape"),
        ({"test_error": np.zeros(3)}, NAMES, r"active'\] must have shape .* \(3, 3\)"),
        ({}, NAMES[:2], r"active'\] must have shape .* \(4, 2\) for names .* got \(4, 3\)"),
        ({"expected_l0": np.zeros((4, 2))}, NAMES, r"expected_l0'\] must have shape"),
    ],
)
def test_active_units_refuses(change: dict[str, Any], names: list[str], message: str) -> None:
    arrays = {k: v for k, v in (history() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        plotting.active_units(arrays, names)


# --- flops_over_training ---


def line_of(figure: Figure, name: str) -> Any:
    """The line with a name."""
    [line] = [line for line in figure.axes[0].lines if line.get_label() == name]
    return line


def look(line: Any) -> tuple[str, str]:
    """What tells a line from another without colour."""
    return line.get_linestyle(), line.get_marker()


FLOPS_LINES = {"expected": "expected_flops", "sampled": "sampled_flops", "at test time": "flops"}


@pytest.mark.parametrize(("name", "epochs"), [("flops", 6), ("flops, many epochs", 90)])
def test_flops_over_training_shows_each_cost_and_the_dense_one(name: str, epochs: int) -> None:
    figure, _ = drawn(name)
    for label, key in FLOPS_LINES.items():
        line = line_of(figure, label)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, epochs + 1))
        np.testing.assert_array_equal(line.get_ydata(), costs(epochs)[key])
    dense = line_of(figure, "dense")
    assert [*dense.get_ydata()] == [4_586_000] * 2
    low, high = figure.axes[0].get_ylim()
    assert low == 0
    assert high > 4_586_000
    left, right = figure.axes[0].get_xlim()
    assert left < 1 < epochs < right
    scale, unit = (1e6, "million") if epochs == 6 else (1e3, "thousand")
    for label, key in FLOPS_LINES.items():
        last = costs(epochs)[key][-1]
        written = f"{label}: {last / scale:.3g} {unit} ({100 * last / 4_586_000:.3g} %)"
        assert written in all_text(figure)
    assert "dense: 4.59 million" in all_text(figure)
    assert f"FLOPs left after epoch {epochs} (share of the dense network)" in all_text(figure)


@pytest.mark.parametrize("name", ["flops", "flops, many epochs", "flops, one epoch"])
def test_flops_over_training_lines_differ_without_colour(name: str) -> None:
    figure, _ = drawn(name)
    lines = [line_of(figure, label) for label in (*FLOPS_LINES, "dense")]
    looks = [look(line) for line in lines]
    assert len({style for style, _ in looks}) == 4
    # A lone epoch is a point, and no line style is seen.
    assert name == "flops, many epochs" or len({marker for _, marker in looks[:3]}) == 3
    assert all(marker not in ("", "None", None) for _, marker in looks[:3]) == (
        name != "flops, many epochs"
    )


@pytest.mark.parametrize("name", [name for name in FIGURES if name.startswith("flops")])
def test_flops_over_training_each_label_stands_beside_a_piece_of_its_line(name: str) -> None:
    figure, _ = drawn(name)
    axes = figure.axes[0]
    pieces = [line for line in axes.lines if not line.get_clip_on()]
    names = [line.get_label() for line in axes.lines if line.get_clip_on()]
    assert len(pieces) == len(names) == (4 if "dense" in names else 3)
    for label in names:
        line = line_of(figure, label)
        [text] = [text for text in texts(figure) if text.get_text().startswith(f"{label}: ")]
        box = text.get_window_extent()
        [piece] = [p for p in pieces if box.y0 < p.get_window_extent().y0 < box.y1]
        assert look(piece) == look(line)
        assert piece.get_color() == line.get_color() == text.get_color()
        assert axes.bbox.x1 < piece.get_window_extent().x0
        assert piece.get_window_extent().x1 < box.x0


@pytest.mark.parametrize("name", [name for name in FIGURES if name.startswith("flops")])
def test_flops_over_training_labels_do_not_overlap(name: str) -> None:
    figure, _ = drawn(name)
    boxes = [text.get_window_extent() for text in texts(figure) if ": " in text.get_text()]
    assert len(boxes) in (3, 4)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


@pytest.mark.parametrize(
    ("flops", "text"),
    [
        (7, "7"),
        (999, "999"),
        (1000, "1 thousand"),
        (532_400, "532 thousand"),
        (999_499, "999 thousand"),
        (999_500, "1 million"),  # and not 1e+03 thousand
        (4_586_000, "4.59 million"),
        (10.49e9, "10.5 billion"),
        (2e15, "2e+03 trillion"),
    ],
)
def test_flops_over_training_writes_readable_numbers(flops: float, text: str) -> None:
    figure = plotting.flops_over_training(costs(2, 5), flops_dense=flops)
    assert f"dense: {text}" in all_text(figure).split("\n")
    unit = text.split(" ")[-1]
    if flops != 999_500:  # an axis up to just below a million counts thousands
        measured = f"FLOPs for one example ({unit}s)" if " " in text else "FLOPs for one example"
        assert figure.axes[0].get_ylabel() == measured


def test_flops_over_training_ticks_are_in_the_units_of_the_axis() -> None:
    axes = drawn("flops")[0].axes[0]
    ticks = [
        (label.get_text(), y)
        for label, y in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
    ]
    assert len(ticks) > 3
    assert all(float(text) == y / 1e6 for text, y in ticks)


def test_flops_over_training_without_the_dense_cost_speaks_of_no_share() -> None:
    figure, _ = drawn("flops, dense unknown")
    assert "dense" not in all_text(figure)
    assert "%" not in all_text(figure)
    assert "at test time: 213 thousand" in all_text(figure)  # exp(-11/12) of 532,400
    assert {line.get_label() for line in figure.axes[0].lines if line.get_clip_on()} == {
        *FLOPS_LINES
    }


@pytest.mark.parametrize("key", FLOPS_LINES.values())
@pytest.mark.parametrize("dense", [None, 5000])
def test_flops_over_training_shows_the_highest_cost_whichever_it_is(
    key: str, dense: float | None
) -> None:
    arrays = costs(4, 5000) | {key: np.array([9000, 8000.5, 3, 0])}
    axes = plotting.flops_over_training(arrays, flops_dense=dense).axes[0]
    assert axes.get_ylim() == (0, 1.05 * 9000)


def test_flops_over_training_reads_and_does_not_write() -> None:
    arrays = costs(4)
    copy = {key: value.copy() for key, value in arrays.items()}
    plotting.flops_over_training(arrays)
    for key, value in copy.items():
        np.testing.assert_array_equal(arrays[key], value)


@pytest.mark.parametrize(
    ("change", "dense", "message"),
    [
        *(({key: None}, 9, f"history must hold '{key}', got ") for key in FLOPS_LINES.values()),
        *(
            ({key: np.zeros(0)}, 9, rf"{key}'\] must be .* \(epochs,\), got shape \(0,\)")
            for key in FLOPS_LINES.values()
        ),
        ({"flops": np.ones((4, 1))}, 9, r"'flops'\] must be .*, got shape \(4, 1\)"),
        ({"flops": np.full(4, "a")}, 9, r"'flops'\] must be real numbers .* dtype <U1"),
        *(
            ({key: np.ones(3)}, 9, rf"as many epochs of each cost, got .*'{key}': 3")
            for key in FLOPS_LINES.values()
        ),
        ({"flops": np.array([1, 2, math.nan, 1])}, 9, r"'flops'\] must be finite .* got nan"),
        ({"sampled_flops": np.array([1, 2, math.inf, 1])}, 9, r"must be finite .* got inf"),
        ({"expected_flops": np.array([1, 2, -3.0, 1])}, 9, r"at least 0, got -3.0"),
        ({}, 0, "flops_dense must be one positive, finite number, got 0"),
        ({}, -2.0, "flops_dense must be one positive, finite number, got -2"),
        ({}, math.nan, "flops_dense must be one positive, finite number, got nan"),
        ({}, math.inf, "flops_dense must be one positive, finite number, got inf"),
        ({}, [5, 6], r"flops_dense must be one positive, finite number, got \[5, 6\]"),
    ],
)
def test_flops_over_training_refuses(change: dict[str, Any], dense: Any, message: str) -> None:
    arrays = {k: v for k, v in (costs(4) | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        plotting.flops_over_training(arrays, flops_dense=dense)


# --- pixels ---


def test_input_pixels_shows_every_gate_in_its_place() -> None:
    z_hat = np.array([0, 0.25, 1, 1e-30, 0, 0.5])
    figure = plotting.input_pixels(z_hat, (2, 3))
    image = figure.axes[0].images[0]
    shown = np.asarray(image.get_array())
    np.testing.assert_array_equal(shown, [[0, 0.25, 1], [1e-30, 0, 0.5]])
    assert "4 of 6 input pixels are kept" in all_text(figure)
    closed = mpl.colors.to_rgba(plotting.CLOSED)
    is_closed = np.isclose(image.cmap(image.norm(shown)), closed).all(axis=-1)
    np.testing.assert_array_equal(is_closed, shown == 0)  # even 1e-30 does not look closed
    assert len(figure.axes) == 2  # the colour bar


def test_input_pixels_of_a_mask_has_no_colour_bar() -> None:
    figure = plotting.input_pixels(np.array([True, False]), (1, 2))
    assert len(figure.axes) == 1
    assert "1 of 2 input pixels are kept" in all_text(figure)


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        ([0.5, math.nan], (1, 2), r"gates must be in \[0, 1\], got nan"),
        ([0.5, 1.5], (1, 2), r"gates must be in \[0, 1\], got 1.5"),
        ([-0.5, 1.0], (1, 2), r"gates must be in \[0, 1\], got -0.5"),
        ([0.5, 1.0], (2, 2), r"image_shape must be .* got \(2, 2\) for gates of shape \(2,\)"),
        ([0.5, 1.0], (2,), r"image_shape must be"),
        ([[0.5, 1.0]], (1, 2), r"gates of shape \(1, 2\)"),
        ([], (0, 2), r"gates must not be empty"),
        (["a"], (1, 1), r"gates must be real numbers"),
    ],
)
def test_input_pixels_refuses(values: Any, shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plotting.input_pixels(values, shape)


@pytest.mark.parametrize(
    ("epochs", "n", "shown"),
    [(11, 3, [1, 6, 11]), (2, 6, [1, 2]), (1, 6, [1]), (5, 1, [5]), (100, 2, [1, 100])],
)
def test_pixels_over_training_shows_first_and_last(epochs: int, n: int, shown: list[int]) -> None:
    masks = np.arange(6) < np.arange(epochs, 0, -1)[:, None]
    figure = plotting.pixels_over_training(masks, (2, 3), n=n)
    assert [axes.get_title() for axes in figure.axes] == [f"epoch {e}" for e in shown]
    for axes, epoch in zip(figure.axes, shown, strict=True):
        np.testing.assert_array_equal(
            axes.images[0].get_array(), masks[epoch - 1].reshape(2, 3).astype(float)
        )
        assert axes.get_xlabel() == f"{min(6, epochs + 1 - epoch)} left"


@pytest.mark.parametrize(
    ("masks", "shape", "n", "message"),
    [
        (np.ones(6), (2, 3), 6, r"open_gates must have shape \(epochs, pixels\), got \(6,\)"),
        (np.ones((0, 6)), (2, 3), 6, r"open_gates must have shape"),
        (np.ones((2, 6)), (2, 2), 6, r"image_shape must be"),
        (np.ones((2, 6)), (2, 3), 0, r"n must be at least 1, got 0"),
    ],
)
def test_pixels_over_training_refuses(masks: Any, shape: Any, n: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plotting.pixels_over_training(masks, shape, n=n)


# --- neurons_over_training ---

BACK = {
    "open_0": np.array([[1, 1, 1, 1, 1, 0], [1, 0, 1, 0, 1, 0], [1, 1, 0, 0, 1, 0]], bool),
    "open_1": np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0]], bool),
}


def squares(axes: Any) -> Any:
    """Colour of every square, (rows, columns, RGBA)."""
    image = axes.images[0]
    return image.cmap(image.norm(image.get_array()))


def dots(axes: Any, colour: str) -> set[tuple[int, int]]:
    """(row, column) of every dot of a colour."""
    return {
        (int(y), int(x))
        for collection in axes.collections
        if isinstance(collection, EllipseCollection)
        and np.array_equal(collection.get_facecolor()[0], mpl.colors.to_rgba(colour))
        for x, y in collection.get_offsets()
    }


def test_neurons_over_training_shows_every_unit_in_its_place() -> None:
    figure = plotting.neurons_over_training(BACK, ["input", "hidden"], (3, 2), n=3)
    pixels, neurons = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in figure.axes] == ["epoch 1", "epoch 2", "epoch 3"] + 3 * [
        ""
    ]
    blue, grey = (mpl.colors.to_rgba(c) for c in (plotting.BLUE, plotting.CLOSED))
    for row, key, shape in ((pixels, "open_0", (3, 2)), (neurons, "open_1", (1, 3))):
        for axes, is_open in zip(row, BACK[key], strict=True):
            drawn = squares(axes)
            assert drawn.shape == (*shape, 4)
            np.testing.assert_array_equal((drawn == blue).all(-1), is_open.reshape(shape))
            np.testing.assert_array_equal((drawn == grey).all(-1), ~is_open.reshape(shape))
    # What was closed at the first epoch has gone nobody knows when: no dot.
    assert [dots(axes, plotting.VERMILLION) for axes in figure.axes] == [
        *(set(), {(0, 1), (1, 1)}, {(1, 0)}),
        *(set(), set(), {(0, 0)}),
    ]
    assert [dots(axes, "white") for axes in figure.axes] == [
        *(set(), set(), {(0, 1)}),
        *(set(), set(), set()),
    ]
    assert [axes.get_xlabel() for axes in figure.axes] == [
        *("5 left", "3 left (−2)", "3 left (−1 +1)"),
        *("2 left", "2 left", "1 left (−1)"),
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == [
        *("input\n6 pixels", "", ""),
        *("hidden\n3 units", "", ""),
    ]


def test_neurons_over_training_compares_with_the_column_before_not_with_the_epoch() -> None:
    figure = plotting.neurons_over_training(BACK, ["input", "hidden"], (2, 3), n=2)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["epoch 1", "epoch 3"]
    assert figure.axes[1].get_xlabel() == "3 left (−2)"
    assert dots(figure.axes[1], plotting.VERMILLION) == {(0, 2), (1, 0)}
    assert dots(figure.axes[1], "white") == set()  # the one that is back had never been away


@pytest.mark.parametrize(
    ("closing", "n", "shown"),
    [
        # 12 units: how many go at each epoch; the first can lose none.
        ([0, 12, 0, 0, 0], 5, [1, 2, 5]),
        ([0, 0, 0, 0, 4, 4, 4, 0], 4, [1, 5, 6, 8]),
        ([0, 3, 0, 3, 0, 3, 0, 3], 5, [1, 2, 4, 6, 8]),
        ([0, 1, 1, 1, 1, 1, 1], 3, [1, 4, 7]),
        ([0, 8, 1, 1, 2], 3, [1, 2, 5]),
        ([0, 0, 0], 5, [1, 3]),
        ([0], 5, [1]),
        ([0, 3, 3], 1, [3]),
    ],
)
def test_neurons_over_training_goes_where_something_happens(
    closing: list[int], n: int, shown: list[int]
) -> None:
    left = 12 - np.cumsum(closing)
    masks = np.arange(12) < left[:, None]
    figure = plotting.neurons_over_training({"open_0": masks}, ["input"], n=n)
    assert [axes.get_title() for axes in figure.axes] == [f"epoch {epoch}" for epoch in shown]


def test_neurons_over_training_gives_a_small_layer_the_weight_of_a_large_one() -> None:
    large = np.arange(100) < np.array([100, 90, 90, 90])[:, None]
    small = np.arange(4) < np.array([4, 4, 2, 1])[:, None]
    figure = plotting.neurons_over_training({"open_0": large, "open_1": small}, NAMES[:2], n=3)
    # Shares that have gone: 0, 0.1, 0.6, 0.85, half of it nearest to 0.6; units: 0, 10, 12, 13.
    assert [axes.get_title() for axes in figure.axes[:3]] == ["epoch 1", "epoch 3", "epoch 4"]


@pytest.mark.parametrize(
    ("units", "shape"),
    [
        (1, (1, 1)),
        (2, (1, 2)),
        (3, (1, 3)),
        (20, (4, 5)),
        (50, (5, 10)),
        (100, (5, 20)),
        (300, (10, 30)),
        (500, (20, 25)),
        (800, (16, 50)),
        (97, (7, 14)),
    ],
)
def test_neurons_over_training_lays_a_layer_out_as_a_grid(
    units: int, shape: tuple[int, int]
) -> None:
    figure = plotting.neurons_over_training({"open_0": np.ones((1, units), bool)}, ["hidden"])
    drawn = np.asarray(figure.axes[0].images[0].get_array().filled(math.nan))
    assert drawn.shape == shape
    # Squares beyond the last unit are not drawn.
    np.testing.assert_array_equal(np.isnan(drawn).ravel(), np.arange(drawn.size) >= units)
    assert figure.axes[0].get_ylabel() == f"hidden\n{units} unit{'s' if units > 1 else ''}"


@pytest.mark.parametrize(
    ("arrays", "keys"),
    [
        (BACK, {"still there", "gone", "gone since the previous picture", "back since"}),
        ({"open_0": [[1, 1], [0, 1]]}, {"still there", "gone since the previous picture"}),
        ({"open_0": [[0, 0]]}, {"gone"}),
    ],
)
def test_neurons_over_training_explains_what_is_drawn_and_no_more(
    arrays: dict[str, Any], keys: set[str]
) -> None:
    figure = plotting.neurons_over_training(arrays, NAMES[: len(arrays)])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {
        label.replace("back since the previous picture", "back since") for label in labels
    } == keys
    assert len(labels) == len(keys)


def test_neurons_over_training_gaps_do_not_hide_small_squares() -> None:
    def gaps(units: int) -> int:
        figure = plotting.neurons_over_training({"open_0": np.ones((5, units))}, ["input"])
        lines = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
        return sum(len(c.get_segments()) for c in lines)

    assert gaps(100) == 21 + 6
    assert gaps(12_345) == 0


@pytest.mark.parametrize("name", [name for name in FIGURES if name.startswith("neurons")])
def test_neurons_over_training_texts_do_not_overlap(name: str) -> None:
    figure, _ = drawn(name)
    shown = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    assert len(shown) > len(figure.axes)
    for (first, a), (second, b) in combinations(shown, 2):
        assert not a.overlaps(b), (first, second)


@pytest.mark.parametrize("name", ["neurons", "neurons, lenet-300-100", "neurons, lenet-5"])
def test_neurons_over_training_is_as_wide_as_the_readme(name: str) -> None:
    assert drawn(name)[0].get_size_inches()[0] == 9


def test_neurons_over_training_reads_and_does_not_write() -> None:
    arrays = history()
    copy = {key: value.copy() for key, value in arrays.items()}
    plotting.neurons_over_training(arrays, NAMES, (3, 4))
    for key, value in copy.items():
        np.testing.assert_array_equal(arrays[key], value)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"open_1": None}, {}, r"it lacks \['open_1'\] \(where a gate is a weight there is none\)"),
        (
            {"open_0": None, "open_1": None, "open_2": None},
            {},
            r"it lacks \['open_0', 'open_1', 'open_2'\]",
        ),
        ({}, {"names": [*NAMES, "hidden 3"]}, r"names .*'hidden 3'.* it lacks \['open_3'\]"),
        ({}, {"names": NAMES[:2]}, r"names must have one name a gated layer \(3\), got"),
        ({}, {"names": []}, r"names must have one name a gated layer \(3\), got \[\]"),
        ({"open_0": np.ones(12)}, {}, r"open_0'\] must have shape \(epochs, units\).* \(12,\)"),
        ({"open_0": np.ones((0, 12))}, {}, r"open_0'\] must have shape \(epochs, units\)"),
        ({"open_0": np.ones((4, 0))}, {}, r"open_0'\] must have shape \(epochs, units\)"),
        ({"open_2": np.ones((3, 5))}, {}, r"open_2'\] must have shape \(4, units\).* \(3, 5\)"),
        ({"open_1": np.full((4, 7), math.nan)}, {}, r"open_1'\] must be in \[0, 1\], got nan"),
        ({"open_1": np.full((4, 7), "a")}, {}, r"open_1'\] must be real numbers"),
        ({}, {"image_shape": (3, 5)}, r"image_shape must be .* got \(3, 5\)"),
        ({}, {"image_shape": (12,)}, r"image_shape must be"),
        ({}, {"n": 0}, r"n must be at least 1, got 0"),
    ],
)
def test_neurons_over_training_refuses(
    change: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    arrays = {k: v for k, v in (history() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        plotting.neurons_over_training(arrays, **({"names": NAMES} | arguments))


# --- gate_histogram ---


def test_gate_histogram_separates_the_atoms() -> None:
    figure = plotting.gate_histogram(gates(), NAMES[:2])
    first, second = ([bar.get_height() for bar in axes.patches] for axes in figure.axes)
    assert first[-2:] == [3, 1]  # exactly 0, exactly 1
    assert (first[0], first[6], sum(first[:-2])) == (1, 1, 2)  # 1e-12 is not 0
    assert second[-2:] == [0, 2]
    assert (second[10], second[19], sum(second[:-2])) == (1, 1, 2)  # 0.99999 is not 1
    shown = all_text(figure)
    assert "input: 3 of 6 open" in shown
    assert "hidden 1: 4 of 4 open" in shown


@given(
    hnp.arrays(
        np.float64,
        st.integers(1, 300),
        elements=st.one_of(st.floats(0, 1), st.sampled_from([0, 1])),
    )
)
def test_gate_histogram_loses_no_gate(values: Any) -> None:
    axes = plotting.gate_histogram([values], ["layer"]).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == len(values)
    ticks = axes.get_yticks()
    top = max(bar.get_height() for bar in axes.patches)
    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 9
    assert ticks[-1] >= 0.4 * top


@pytest.mark.parametrize(
    ("layers", "names", "message"),
    [
        ([[0.5]], NAMES, r"names must have one name a layer \(1\)"),
        ([], [], r"names must have one name a layer \(0\)"),
        ([[0.5], []], NAMES[:2], r"gates must not be empty"),
        ([[math.nan]], NAMES[:1], r"gates must be in \[0, 1\], got nan"),
    ],
)
def test_gate_histogram_refuses(layers: Any, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plotting.gate_histogram(layers, names)


# --- hard_concrete_law ---


def test_law_draws_atoms_and_densities() -> None:
    log_alpha, beta, gamma, zeta = -0.7, 0.8, -0.2, 1.3
    figure = plotting.hard_concrete_law(log_alpha, beta=beta, gamma=gamma, zeta=zeta)
    first, second, third, mass = figure.axes
    p_zero = 1 - naive.sigmoid(log_alpha - beta * math.log(-gamma / zeta))
    p_one = naive.sigmoid(log_alpha - beta * math.log((1 - gamma) / (zeta - 1)))
    heights = [line.get_ydata()[0] for line in mass.lines]
    np.testing.assert_allclose(heights, [p_zero, p_one], rtol=1e-12)
    assert f"mass {p_zero:.3f}" in all_text(figure)
    assert f"mass {p_one:.3f}" in all_text(figure)

    def area(line: Any) -> float:
        return float(np.trapezoid(line.get_ydata(), line.get_xdata()))

    # Trapezoids on 1,001 points; the ends of the support, where the density peaks, are cut off.
    assert area(first.lines[0]) == pytest.approx(1, abs=0.02)
    between, below, above = (area(line) for line in second.lines)
    assert between == pytest.approx(1 - p_zero - p_one, abs=0.005)
    assert below == pytest.approx(p_zero, abs=0.02)
    assert above == pytest.approx(p_one, abs=0.02)
    assert area(third.lines[0]) == pytest.approx(1 - p_zero - p_one, abs=0.005)
    assert max(third.lines[0].get_ydata()) < third.get_ylim()[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"log_alpha": math.nan}, "log_alpha must be finite, got nan"),
        ({"log_alpha": math.inf}, "log_alpha must be finite, got inf"),
        ({"log_alpha": [0.5, 1.0]}, r"log_alpha must be one number, got shape \(2,\)"),
        ({"beta": 0.0}, "beta must be positive"),
        ({"gamma": 0.0}, "gamma must be negative"),
        ({"zeta": 1.0}, "zeta must be above 1"),
    ],
)
def test_law_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plotting.hard_concrete_law(**arguments)
