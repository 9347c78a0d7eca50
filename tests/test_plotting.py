"""Figures: that they show the numbers they are given, all of them, and nothing runs off the page.

What a figure looks like is for eyes to judge; what it says is checked here, on its artists.
"""

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
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


def texts(figure: Figure) -> list[Text]:
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text for text in found if isinstance(text, Text) and text.get_text().strip()]


def all_text(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


# --- every figure ---


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_runs_off_the_page(name: str) -> None:
    figure = FIGURES[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
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
        ("histogram", {r"test-time gate $\hat z$", "gates (count, square-root scale)"}),
        ("law", {"$s$", "probability density", "probability mass (stems)"}),
    ],
)
def test_axes_say_what_they_measure(name: str, labels: set[str]) -> None:
    axes = FIGURES[name]().axes
    assert labels <= {label for a in axes for label in (a.get_xlabel(), a.get_ylabel())}


@pytest.mark.parametrize("name", FIGURES)
def test_save_gives_the_same_bytes_whatever_the_users_style(name: str, tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    plotting.save(FIGURES[name](), first)
    with mpl.rc_context({"font.size": 31, "lines.linewidth": 9, "savefig.bbox": "tight"}):
        plotting.save(FIGURES[name](), second)
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.format == "PNG"
        assert set(image.info) == {"dpi"}  # no date, no version
        assert len({*image.convert("L").get_flattened_data()}) > 10  # something is drawn
    assert sorted(tmp_path.iterdir()) == [first, second]


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
    figure = FIGURES["active, one epoch"]()
    for axes in figure.axes:
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_active_units_speaks_of_weights_where_a_gate_is_a_weight() -> None:
    shown = all_text(FIGURES["active, weights"]())
    assert "Weights left after epoch 2" in shown
    assert "input: 23,520\n" in shown
    assert " of " not in shown


@pytest.mark.parametrize("last", [[0] * 7, [784] * 7, [784, 1, 0, 783, 400, 2, 399]])
def test_active_units_labels_do_not_overlap(last: list[int]) -> None:
    names = [f"layer {i}" for i in range(len(last))]
    active = np.stack([np.full(len(last), 784), last])
    figure = plotting.active_units(history(active, (784,) * len(last)), names)
    FigureCanvasAgg(figure).draw()
    labels = [text for text in texts(figure) if text.get_text().startswith("layer ")]
    assert len(labels) == len(names)
    boxes = [text.get_window_extent() for text in labels]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    panel = figure.axes[0].bbox
    assert all(panel.y0 - 10 <= box.y0 <= box.y1 <= panel.y1 for box in boxes)
    by_height = sorted(labels, key=lambda text: text.get_window_extent().y0)
    values = [last[int(text.get_text()[6])] for text in by_height]
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
    figure = FIGURES[name]()
    FigureCanvasAgg(figure).draw()
    shown = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    assert len(shown) > len(figure.axes)
    for (first, a), (second, b) in combinations(shown, 2):
        assert not a.overlaps(b), (first, second)


@pytest.mark.parametrize("name", ["neurons", "neurons, lenet-300-100", "neurons, lenet-5"])
def test_neurons_over_training_is_as_wide_as_the_readme(name: str) -> None:
    assert FIGURES[name]().get_size_inches()[0] == 9


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
