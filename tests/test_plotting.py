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
