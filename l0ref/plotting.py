"""Figures: what a run pruned and when, which pixels are left, where the gates ended, the law.

Every function takes arrays and returns a `matplotlib.figure.Figure`. None goes through pyplot: no
display is needed and no global state is touched. `save` writes one as a PNG whose bytes depend on
nothing but the figure and the version of matplotlib.

Colours are those of M. Okabe and K. Ito (2008), which people with any colour vision can tell
apart; nothing is said by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)
from numpy.typing import ArrayLike, NDArray

from .concrete import BETA, GAMMA, ZETA, BinaryConcrete, Float64Array, StretchedConcrete
from .hard_concrete import HardConcrete
from .storage import write_atomically

Array = NDArray[Any]

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#6E6E6E"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
CLOSED = "#EDEDED"

DPI = 150
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # it comes with matplotlib: the same on every machine
    "font.size": 10.0,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": "cycler('color', [" + ", ".join(f"'{c}'" for c in PALETTE) + "])",
    "axes.formatter.useoffset": False,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "auto",
    "savefig.bbox": None,
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a function that makes a figure under this module's style, whatever the user's is."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, atomically, with neither date nor software version in it.

    Parameters
    ----------
    figure : Figure
    path : str or Path
        Ends in ``.png``; its folder exists.

    Raises
    ------
    ValueError
        If the name does not end in ``.png``.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"path must end in .png, got {path.name!r}")
    with rc_context(STYLE):
        write_atomically(
            path,
            lambda file: figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None}),
        )


# --- a run ----------------------------------------------------------------------------------------


@styled
def active_units(history: Mapping[str, Array], names: Sequence[str]) -> Figure:
    """Units left in each layer over the epochs, the test error, and the expected L0.

    The units are counted. Where one layer has more than ten times as many as another, each line is
    the share of its layer that is left, in percent: as counts, the small layer's would lie flat at
    the bottom. The labels at the ends of the lines tell the counts either way.

    Parameters
    ----------
    history : mapping of str to array
        Of `l0ref.training.History.arrays`: ``active`` and ``expected_l0`` (epochs, layers), counts,
        and ``test_error`` (epochs,), percent. Where ``open_<layer>`` is there too, a gate is a unit
        and the labels tell how many there were; where not, a gate is a weight.
    names : sequence of str
        One a gated layer.

    Raises
    ------
    ValueError
        If an array is missing, empty or of another shape, or the names do not fit.
    """
    active, expected, error = (_entry(history, k) for k in ("active", "expected_l0", "test_error"))
    if error.ndim != 1 or len(error) == 0:
        raise ValueError(f"history['test_error'] must have shape (epochs,), got {error.shape}")
    shape = (len(error), len(names))
    for key, value in (("active", active), ("expected_l0", expected)):
        if value.shape != shape:
            raise ValueError(
                f"history[{key!r}] must have shape (epochs, layers) = {shape} for names "
                f"{list(names)}, got {value.shape}"
            )
    by_unit = all(f"open_{i}" in history for i in range(len(names)))
    what = "Units" if by_unit else "Weights"
    widths = [_entry(history, f"open_{i}").shape[-1] for i in range(len(names)) if by_unit]
    by_share = by_unit and max(widths) > 10 * min(widths)
    left_of = 100.0 * active / np.array(widths) if by_share else active
    whole = 100.0 if by_share else max(float(np.max(active)), 1.0)
    epochs = np.arange(1, len(error) + 1)
    marker = "o" if len(error) < 10 else ""

    figure = Figure(figsize=(9.0, 4.5), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 2))
    left, top, bottom = (figure.add_subplot(cell) for cell in (grid[:, 0], grid[0, 1], grid[1, 1]))
    labels = []
    for i, name in enumerate(names):
        of = f" of {widths[i]:,}" if by_unit else ""
        labels.append(f"{name}: {int(active[-1, i]):,}{of}")
        left.plot(epochs, left_of[:, i], color=_colour(i), marker=marker)
    left.set_title(f"{what} left after epoch {len(error)}")
    left.set_ylabel(
        f"{what.lower()} with a test-time gate above 0" + " (% of the layer)" * by_share
    )
    left.yaxis.set_major_locator(
        FixedLocator(range(0, 101, 20)) if by_share else MaxNLocator(integer=True, min_n_ticks=1)
    )
    colours = [_colour(i) for i in range(len(names))]
    _label_ends(left, left_of[-1], labels, colours, whole)

    top.plot(epochs, error, color=BLACK, marker=marker)
    top.set_title(f"Test error: {error[-1]:.2f} %")
    top.set_ylabel("test error (%)")
    bottom.set_title(f"Expected L0: {expected[-1].sum():,.0f}")
    bottom.set_ylabel("expected weights on")
    edges = np.arange(len(error) + 1) + 0.5
    stack = np.cumsum(np.insert(expected, 0, 0.0, axis=1), axis=1)
    for i in range(len(names)):
        bottom.stairs(
            stack[:, i + 1], edges, baseline=stack[:, i], color=_colour(i), fill=True, linewidth=0
        )
    for axes, highest in ((left, whole), (top, np.max(error)), (bottom, np.max(stack))):
        axes.set_ylim(0, 1.05 * max(float(highest), 1.0))
        _count_epochs(axes, len(error))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    left.set_xlabel("epoch")
    bottom.set_xlabel("epoch")
    return figure


def _count_epochs(axes: Axes, epochs: int) -> None:
    """Let x run from the first epoch to the last, with half an epoch at each end."""
    axes.set_xlim(0.5, epochs + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=6))


def _label_ends(
    axes: Axes,
    y: Array,
    labels: Sequence[str],
    colours: Sequence[str],
    top: float,
    *,
    x: float = 1.0,
) -> Array:
    """Write each label beside its y in [0, top], or as near as the others let it.

    x is 0 at the left end of the axes and 1 at the right one. Return the labels' heights.
    """
    order = np.argsort(y, kind="stable")
    steps = 0.06 * top * np.arange(len(order))
    # Up where the one below is in the way, then down where that ran over the top.
    heights = np.empty(len(order))
    heights[order] = np.maximum.accumulate(y[order] - steps) + steps
    heights[order] = np.minimum(heights[order], top - steps[::-1])
    for label, colour, height in zip(labels, colours, heights, strict=True):
        axes.annotate(
            label,
            xy=(x, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )
    return heights


# Key in the history, what its line is called, and how it is drawn.
_FLOPS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("flops", "at test time", {"color": BLUE, "linestyle": "-", "marker": "o"}),
    ("expected_flops", "expected", {"color": VERMILLION, "linestyle": "--", "marker": "s"}),
    ("sampled_flops", "sampled", {"color": GREEN, "linestyle": ":", "marker": "^"}),
)


@styled
def flops_over_training(
    history: Mapping[str, Array], *, flops_dense: float | None = None
) -> Figure:
    """FLOPs for one example over the epochs: expected, sampled, and at test time.

    The expected cost during training is Fig. 3 of C. Louizos, M. Welling and D. P. Kingma, Learning
    sparse neural networks through L0 regularization (ICLR 2018). Sampled is what the current
    parameters cost, expected what their average over the steps does, and so the one runs ahead of
    the other.

    Parameters
    ----------
    history : mapping of str to array
        Of `l0ref.training.History.arrays`, each (epochs,), FLOPs for one example:
        ``expected_flops``, under the gates' distribution; ``sampled_flops``, of the networks that
        were drawn, mean over the epoch's steps; ``flops``, with the test-time gates (Eq. 13).
    flops_dense : float, optional
        FLOPs for one example of the network with every gate open. Drawn as a line across, and the
        labels tell what share of it is left.

    Raises
    ------
    ValueError
        If an array is missing or empty, they are not as long as each other, or a number of FLOPs is
        negative or not finite; if `flops_dense` is not one positive, finite number.
    """
    costs = [_flops(history, key) for key, _, _ in _FLOPS]
    lengths = {key: len(cost) for (key, _, _), cost in zip(_FLOPS, costs, strict=True)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"history must hold as many epochs of each cost, got {lengths}")
    if flops_dense is not None and (
        np.ndim(flops_dense) != 0 or not (np.isfinite(flops_dense) and flops_dense > 0)
    ):
        raise ValueError(f"flops_dense must be one positive, finite number, got {flops_dense}")
    epochs = len(costs[0])
    highest = max(float(np.max(costs)), 1.0 if flops_dense is None else flops_dense, 1.0)
    scale, unit = _scale(highest)

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    ends, labels, styles = [], [], []
    for (_, name, style), cost in zip(_FLOPS, costs, strict=True):
        drawn = style if epochs < 10 else style | {"marker": ""}
        axes.plot(np.arange(1, epochs + 1), cost, label=name, **drawn)
        share = f" ({100 * cost[-1] / flops_dense:.3g} %)" if flops_dense is not None else ""
        labels.append(f"{name}: {_readable(cost[-1])}{share}")
        ends.append(cost[-1])
        styles.append(drawn)
    if flops_dense is not None:
        style = {"color": GREY, "linestyle": "-.", "linewidth": 1.2}
        axes.axhline(flops_dense, label="dense", **style)
        labels.append(f"dense: {_readable(flops_dense)}")
        ends.append(flops_dense)
        styles.append(style)
    colours = [style["color"] for style in styles]
    heights = _label_ends(axes, np.array(ends), labels, colours, highest, x=1.065)
    # A piece of the line before its label: lines that end in one place differ in more than colour.
    beyond = axes.get_yaxis_transform()
    for style, height in zip(styles, heights, strict=True):
        piece = Line2D([1.015, 1.04, 1.065], [height] * 3, transform=beyond, clip_on=False)
        piece.set(**style, markevery=[1])
        axes.add_artist(piece)
    shares = " (share of the dense network)" if flops_dense is not None else ""
    axes.set_title(f"FLOPs left after epoch {epochs}{shares}")
    axes.set_ylabel(f"FLOPs for one example{unit and f' ({unit}s)'}")
    axes.set_xlabel("epoch")
    axes.set_ylim(0, 1.05 * highest)
    _count_epochs(axes, epochs)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y / scale:,.10g}"))
    return figure


def _flops(history: Mapping[str, Array], key: str) -> Float64Array:
    cost = _entry(history, key)
    if cost.ndim != 1 or len(cost) == 0 or cost.dtype.kind not in "fiu":
        raise ValueError(
            f"history[{key!r}] must be real numbers of shape (epochs,), got shape {cost.shape}, "
            f"dtype {cost.dtype}"
        )
    numbers = cost.astype(np.float64)
    usable = np.isfinite(numbers) & (numbers >= 0)
    if not usable.all():
        raise ValueError(
            f"history[{key!r}] must be finite and at least 0, got {numbers[~usable][0]}"
        )
    return numbers


def _scale(number: float) -> tuple[float, str]:
    """Return the largest of 1, a thousand, a million ... that is not above, and its name."""
    scales = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e3, "thousand"))
    return next((scale for scale in scales if number >= scale[0]), (1.0, ""))


def _readable(number: float) -> str:
    """Write a count with three digits and its unit: 4.59 million."""
    rounded = float(f"{number:.3g}")  # before the unit is chosen: 999,999 is 1 million
    scale, unit = _scale(rounded)
    return f"{rounded / scale:.3g} {unit}".rstrip()


@styled
def input_pixels(gates: ArrayLike, image_shape: tuple[int, int]) -> Figure:
    """Draw the input as an image: which pixels the network still reads.

    Parameters
    ----------
    gates : array_like of float or bool, (H * W,)
        Test-time gates of the input units, in [0, 1]; or a mask, true where a pixel is kept.
    image_shape : tuple of int
        (H, W).

    Raises
    ------
    ValueError
        If a gate is NaN or outside [0, 1], or the shapes do not fit.
    """
    values = np.asarray(gates)
    image = _image(_unit_values("gates", values), image_shape)
    kept = int((image > 0).sum())
    is_mask = values.dtype == bool
    figure = Figure(figsize=(4.4 if is_mask else 5.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    shown = _draw_pixels(axes, image)
    axes.set_title(f"{kept:,} of {image.size:,} input pixels are kept (blue)")
    axes.set_xlabel("column (pixels)")
    axes.set_ylabel("row (pixels)")
    if not is_mask:
        bar = figure.colorbar(
            shown, ax=axes, extend="min", extendfrac=0.06, extendrect=True, shrink=0.85
        )
        bar.set_label(r"test-time gate $\hat z$ (grey: 0, not read)")
    return figure


@styled
def pixels_over_training(
    open_gates: ArrayLike, image_shape: tuple[int, int], *, n: int = 6
) -> Figure:
    """Draw the pixels still read at several epochs, from the first to the last.

    Parameters
    ----------
    open_gates : array_like of bool, (epochs, H * W)
        ``open_0`` of `l0ref.training.History.arrays`.
    image_shape : tuple of int
        (H, W).
    n : int, optional
        Number of panels, evenly spread over the epochs; fewer where there are fewer epochs.

    Raises
    ------
    ValueError
        If n is below 1, there is no epoch, or the shapes do not fit.
    """
    masks = np.asarray(open_gates)
    if masks.ndim != 2 or len(masks) == 0:
        raise ValueError(f"open_gates must have shape (epochs, pixels), got {masks.shape}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    # The last epoch always; np.unique leaves the few there are where epochs are fewer than panels.
    chosen = np.unique(np.linspace(len(masks) - 1, 0, n).round().astype(int))
    rows = -(-len(chosen) // 6)
    columns = -(-len(chosen) // rows)
    figure = Figure(figsize=(1.55 * columns + 0.2, 2.1 * rows + 0.3), layout="constrained")
    figure.suptitle("Pixels still read (blue)", x=0.01, ha="left", fontsize=11)
    for position, epoch in enumerate(chosen, start=1):
        axes = figure.add_subplot(rows, columns, position)
        image = _image(_unit_values("open_gates", masks[epoch]), image_shape)
        _draw_pixels(axes, (image > 0).astype(float))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"epoch {epoch + 1}", loc="center", fontsize=10)
        axes.set_xlabel(f"{int((image > 0).sum()):,} left", fontsize=10)
    return figure


def _draw_pixels(axes: Axes, image: Array) -> ScalarMappable:
    # From the middle of the map up: the faintest open gate must differ from a closed one.
    upper_half = ListedColormap(colormaps["Blues"](np.linspace(0.35, 1.0, 256)))
    blues = upper_half.with_extremes(under=CLOSED)
    shown = axes.imshow(
        image, cmap=blues, vmin=np.nextafter(0.0, 1.0), vmax=1.0, interpolation="nearest"
    )
    axes.spines[:].set_visible(True)
    return shown


@styled
def neurons_over_training(
    history: Mapping[str, Array],
    names: Sequence[str],
    image_shape: tuple[int, int] | None = None,
    *,
    n: int = 5,
) -> Figure:
    """Draw every unit of every gated layer at several epochs: which are left, which just went.

    A row is a layer and a column an epoch. A square is a unit (an input pixel, a hidden neuron, a
    map of a convolution) and keeps its place from column to column. A unit that went since the
    column before is marked with a dot, as is one that came back; the counts stand below.

    The columns are the first epoch, the last one, and those between that split what happens into
    even parts: pruning comes in bursts, and epochs spread evenly would mostly show nothing new.
    What happens in an epoch is the share of its units that a layer opens or closes, summed over
    the layers.

    Parameters
    ----------
    history : mapping of str to array
        Of `l0ref.training.History.arrays`: ``open_<layer>`` (epochs, G) bool for every gated layer.
    names : sequence of str
        One a gated layer.
    image_shape : tuple of int, optional
        (H, W) of the first layer, where its units are pixels. Any other layer is drawn as a grid,
        filled row by row, whose places mean nothing but the unit's index.
    n : int, optional
        Number of columns; fewer where there is less to show.

    Raises
    ------
    ValueError
        If a layer's array is missing (a gate a weight has none), there is no epoch, the names or
        the shapes do not fit, or n is below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    layers = _open_units(history, names)
    shapes = [_grid_shape(layer.shape[1]) for layer in layers]
    if image_shape is not None:
        _image(layers[0][0].astype(np.float64), image_shape)
        shapes[0] = image_shape
    epochs = _epochs_that_tell(layers, n)
    # The column before each; nothing is known of what was open before the first one.
    before = [epochs[0], *epochs[:-1]]
    states = [
        _GONE + layer[epochs] + 2 * (layer[epochs] != layer[before]).astype(int) for layer in layers
    ]
    counts = [[_count(state) for state in columns] for columns in states]
    sides: list[str] = []
    for name, layer in zip(names, layers, strict=True):
        what = "unit" if sides or image_shape is None else "pixel"
        plural = "s" * (layer.shape[1] != 1)
        sides.append(f"{name}\n{layer.shape[1]:,} {what}{plural}")

    # Inches. Long counts go over two lines, and many columns make the figure wider.
    side = 0.2 + _text_width(line for text in sides for line in text.split("\n"))
    widest = _text_width(part for row in counts for count in row for part in count)
    width = max(9.0, side + (0.1 + max(widest, 1.0)) * len(epochs))
    panel = min((width - side) / len(epochs) - 0.1, 2.0)
    two_lines = _text_width(" ".join(count) for row in counts for count in row) > panel
    heights = [min(panel * rows / columns, 1.5 * panel, 0.2 * rows) for rows, columns in shapes]
    texts = 0.5 if two_lines else 0.33
    figure = Figure(
        figsize=(width, 1.0 + sum(max(height, 0.35) + texts for height in heights)),
        layout="constrained",
    )
    grid = figure.add_gridspec(len(layers), len(epochs), height_ratios=heights)
    for row, shape in enumerate(shapes):
        for column, epoch in enumerate(epochs):
            axes = figure.add_subplot(grid[row, column])
            _draw_units(axes, states[row][column], shape, panel / shape[1])
            axes.set_xlabel(("\n" if two_lines else " ").join(counts[row][column]))
            if row == 0:
                axes.set_title(f"epoch {epoch + 1}", loc="center", fontsize=10)
            if column == 0:
                axes.set_ylabel(
                    sides[row], rotation=0, ha="right", va="center", multialignment="right"
                )
    shown = [state for state in _LEGEND if any((drawn == state).any() for drawn in states)]
    keys: Any = [_key(state) for state in shown]  # a tuple of artists is drawn as one, over another
    figure.legend(
        keys,
        [_LEGEND[state] for state in shown],
        loc="outside lower center",
        ncols=len(shown),
        handletextpad=0.2,
    )
    figure.suptitle(
        "Neuron pruning: one square is one unit, always in the same place",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    return figure


# What a unit is, and was in the column before: the first bit is open, the second is changed.
_GONE, _OPEN, _WENT, _BACK = range(4)
_SQUARE = {_GONE: CLOSED, _OPEN: BLUE, _WENT: CLOSED, _BACK: BLUE}
_DOT = {_WENT: VERMILLION, _BACK: "white"}
_LEGEND = {
    _OPEN: "still there",
    _BACK: "back since the previous picture",
    _WENT: "gone since the previous picture",
    _GONE: "gone",
}


def _open_units(history: Mapping[str, Array], names: Sequence[str]) -> list[NDArray[np.bool_]]:
    """Return which units are open, (epochs, G) for each layer."""
    keys = [f"open_{i}" for i in range(len(names))]
    missing = [key for key in keys if key not in history]
    if missing:
        raise ValueError(
            f"history must hold open_<layer>, which units are open, for each of names "
            f"{list(names)}; it lacks {missing} (where a gate is a weight there is none)"
        )
    if not keys or f"open_{len(keys)}" in history:
        gated = sum(key.startswith("open_") for key in history)
        raise ValueError(f"names must have one name a gated layer ({gated}), got {list(names)}")
    layers: list[NDArray[np.bool_]] = []
    for key in keys:
        layer = np.asarray(history[key])
        if layer.ndim != 2 or 0 in layer.shape or (layers and len(layer) != len(layers[0])):
            epochs = len(layers[0]) if layers else "epochs"
            raise ValueError(
                f"history[{key!r}] must have shape ({epochs}, units), none of them 0, "
                f"got {layer.shape}"
            )
        layers.append(_unit_values(f"history[{key!r}]", layer) > 0)
    return layers


def _epochs_that_tell(layers: Sequence[NDArray[np.bool_]], n: int) -> list[int]:
    """Choose at most `n` epochs, the last one always, with as much change from each to the next."""
    changes = sum((layer[1:] != layer[:-1]).mean(axis=1) for layer in layers)
    so_far = np.insert(np.cumsum(changes), 0, 0.0)
    marks = np.linspace(so_far[-1], 0, n)[1:]
    # The nearest rather than the first at or above: rounding may put a mark just above its epoch.
    return sorted({len(so_far) - 1, *(int(np.argmin(np.abs(so_far - mark))) for mark in marks)})


def _grid_shape(units: int) -> tuple[int, int]:
    """Rows and columns, from square to four times as wide: fewest cells left over, then widest."""
    root = math.sqrt(units)
    columns = min(range(math.ceil(root), math.ceil(2 * root) + 1), key=lambda c: (-units % c, -c))
    return -(-units // columns), columns


def _count(state: Array) -> list[str]:
    """Say how many units are left and, where any changed, how many went and came back."""
    went, back = int((state == _WENT).sum()), int((state == _BACK).sum())
    changes = [f"−{went:,}"] * (went > 0) + [f"+{back:,}"] * (back > 0)
    left = f"{int(np.isin(state, (_OPEN, _BACK)).sum()):,} left"
    return [left, f"({' '.join(changes)})"] if changes else [left]


def _text_width(lines: Iterable[str]) -> float:
    """Estimate the width of the longest line at 10 points, in inches."""
    return 0.085 * max(map(len, lines))


def _draw_units(axes: Axes, state: Array, shape: tuple[int, int], cell: float) -> None:
    """Draw a unit a square, row by row; `cell` is a square's side in inches."""
    rows, columns = shape
    squares = np.full(shape, np.nan)  # NaN is not drawn
    squares.flat[: len(state)] = state
    axes.imshow(
        squares,
        cmap=ListedColormap([_SQUARE[s] for s in range(4)]),
        vmin=-0.5,
        vmax=3.5,
        interpolation="nearest",
    )
    for changed, colour in _DOT.items():
        where = np.flatnonzero(state == changed)
        axes.add_collection(
            EllipseCollection(
                [0.62] * len(where),
                [0.62] * len(where),
                [0.0] * len(where),
                units="xy",
                offsets=np.column_stack([where % columns, where // columns]),
                offset_transform=axes.transData,
                facecolor=colour,
                linewidth=0,
            )
        )
    axes.set_xticks([])
    axes.set_yticks([])
    if cell * DPI >= 4:  # pixels: below, the gaps would be most of what is seen
        gaps: dict[str, Any] = {"color": "white", "linewidth": 0.5, "snap": True}
        axes.autoscale(False)
        axes.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, **gaps)
        axes.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, **gaps)
    axes.spines[:].set_visible(False)


def _key(state: int) -> tuple[Line2D, ...]:
    """Draw one unit, for a legend."""
    parts = [Line2D([], [], linestyle="", marker="s", markersize=10, color=_SQUARE[state])]
    if state in _DOT:
        parts.append(Line2D([], [], linestyle="", marker="o", markersize=6, color=_DOT[state]))
    return tuple(parts)


@styled
def gate_histogram(gates: Sequence[ArrayLike], names: Sequence[str]) -> Figure:
    """Where the test-time gates of each layer ended: exactly 0, exactly 1, or between.

    The counts of gates at exactly 0 and exactly 1 stand in bars of their own, for they are atoms
    and no bin's share of a density. The count axis is a square-root scale, so that the few gates
    between stay visible beside the many at 0.

    Parameters
    ----------
    gates : sequence of array_like of float
        Test-time gates of each layer, in [0, 1], any shape.
    names : sequence of str
        One a layer.

    Raises
    ------
    ValueError
        If a gate is NaN or outside [0, 1], a layer has none, or the names do not fit.
    """
    layers = [_unit_values("gates", np.asarray(layer)).ravel() for layer in gates]
    if len(layers) != len(names) or not layers:
        raise ValueError(f"names must have one name a layer ({len(layers)}), got {list(names)}")
    edges = np.linspace(0.0, 1.0, 21)
    zero_at, one_at, width = -0.12, 1.12, 0.09
    figure = Figure(figsize=(3.0 * len(layers), 3.1), layout="constrained")
    for position, (values, name) in enumerate(zip(layers, names, strict=True), start=1):
        axes = figure.add_subplot(1, len(layers), position)
        closed, full = int((values == 0).sum()), int((values == 1).sum())
        between, _ = np.histogram(values[(values > 0) & (values < 1)], edges)
        axes.bar(edges[:-1], between, np.diff(edges), align="edge", color=BLUE, edgecolor="white")
        bars = axes.bar(
            [zero_at, one_at], [closed, full], width, color=[GREY, VERMILLION], hatch=["//", ""]
        )
        axes.bar_label(bars, [f"{closed:,}", f"{full:,}"], padding=2)
        top = max(int(between.max()), closed, full)
        axes.set_yscale("function", functions=(np.sqrt, np.square))
        axes.set_ylim(0, 1.3 * top)
        axes.yaxis.set_major_locator(FixedLocator(_square_root_ticks(1.3 * top)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xticks(
            [zero_at, 0.25, 0.5, 0.75, one_at], ["exactly\n0", "0.25", "0.5", "0.75", "exactly\n1"]
        )
        axes.set_title(f"{name}: {len(values) - closed:,} of {len(values):,} open", fontsize=10)
        axes.set_xlabel(r"test-time gate $\hat z$")
        if position == 1:
            axes.set_ylabel("gates (count, square-root scale)")
    return figure


def _square_root_ticks(top: float) -> list[int]:
    """Round counts from 0 up to `top` that stand well apart on a square-root scale."""
    ticks = [0]
    for tick in (m * 10**k for k in range(len(str(int(top)))) for m in (1, 2, 5)):
        if tick <= top and math.sqrt(tick) - math.sqrt(ticks[-1]) >= 0.12 * math.sqrt(top):
            ticks.append(tick)
    return ticks


# --- the law --------------------------------------------------------------------------------------


@styled
def hard_concrete_law(
    log_alpha: float = 0.5, *, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> Figure:
    """Draw the three laws of one gate: binary concrete, stretched, and hard concrete (Eq. 10, 11).

    What the stretch pushes beyond [0, 1] is shaded; the clip turns it into the two atoms, drawn as
    stems on an axis of their own: they are masses, and the curve is a density.

    Parameters
    ----------
    log_alpha : float, optional
        Location, finite.
    beta, gamma, zeta : float, optional
        Temperature, ends of the stretched support.

    Raises
    ------
    ValueError
        If a parameter is not one number, or out of range.
    """
    for name, value in zip(
        ("log_alpha", "beta", "gamma", "zeta"), (log_alpha, beta, gamma, zeta), strict=True
    ):
        if np.ndim(value) != 0:
            raise ValueError(f"{name} must be one number, got shape {np.shape(value)}")
    if not np.isfinite(log_alpha):
        raise ValueError(f"log_alpha must be finite, got {log_alpha}")
    concrete = BinaryConcrete(log_alpha, beta)
    stretched = StretchedConcrete(log_alpha, beta, gamma, zeta)
    hard = HardConcrete(log_alpha, beta, gamma, zeta)
    margin = 1e-3  # the density may be infinite at the ends of the support
    inside = np.linspace(margin, 1 - margin, 1001)
    outer = gamma + (zeta - gamma) * inside
    # The curve between the atoms fits; the infinite ends of the other two laws are cut off.
    top = 1.6 * float(stretched.pdf(np.linspace(0, 1, 401)).max())

    figure = Figure(figsize=(9.5, 3.3), layout="constrained")
    first, second, third = figure.subplots(1, 3, sharey=True)
    _shade(first, inside, concrete.pdf(inside), BLUE)
    first.set_title("1. Binary concrete, on (0, 1)")
    first.set_xlabel(r"$s$")
    first.set_ylabel("probability density")

    density = stretched.pdf(outer)
    for part, colour in (
        ((outer >= 0) & (outer <= 1), BLUE),
        (outer <= 0, VERMILLION),
        (outer >= 1, GREEN),
    ):
        _shade(second, outer[part], density[part], colour)
    second.set_title(f"2. Stretched to ({gamma:g}, {zeta:g})")
    second.set_xlabel(r"$\bar s = s\,(\zeta-\gamma)+\gamma$")

    _shade(third, inside, hard.pdf(inside), BLUE)
    third.set_title("3. Clipped: hard concrete, on [0, 1]")
    third.set_xlabel(r"$z = \min(1, \max(0, \bar s))$")
    mass = third.twinx()
    mass.spines["right"].set_visible(True)
    mass.set_ylim(0, 1)
    mass.set_ylabel("probability mass (stems)")
    mass.spines["left"].set_visible(False)
    for x, p, colour, side in (
        (0.0, float(hard.prob_zero()), VERMILLION, "left"),
        (1.0, float(hard.prob_one()), GREEN, "right"),
    ):
        mass.vlines(x, 0, p, color=colour, linewidth=4)
        mass.plot(x, p, "o", color=colour, markersize=8, clip_on=False)
        text = f"atom at {x:.0f}:\nmass {p:.3f}"
        mass.text(x, 0.98, text, color=colour, ha=side, va="top")
    low, high = min(gamma, -0.1), max(zeta, 1.1)
    for axes in (first, second, third):
        axes.set_xlim(low - 0.05, high + 0.05)
        axes.set_ylim(0, top)
        axes.set_xticks([0, 0.5, 1])
    figure.suptitle(
        rf"One gate, $\log\alpha = {log_alpha:.3g}$, $\beta = {beta:.3g}$: "
        "what the stretch pushes beyond [0, 1] becomes two atoms",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    return figure


def _shade(axes: Axes, x: Float64Array, density: Array, colour: str) -> None:
    axes.plot(x, density, color=colour)
    axes.fill_between(x, density, color=colour, alpha=0.25, linewidth=0)


# --- what is checked ------------------------------------------------------------------------------


def _colour(i: int) -> str:
    return PALETTE[i % len(PALETTE)]


def _entry(history: Mapping[str, Array], key: str) -> Array:
    if key not in history:
        raise ValueError(f"history must hold {key!r}, got {sorted(history)}")
    return np.asarray(history[key])


def _unit_values(name: str, values: Array) -> Float64Array:
    if values.dtype.kind not in "bfiu":
        raise ValueError(f"{name} must be real numbers, got dtype {values.dtype}")
    if values.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {values.shape}")
    numbers = values.astype(np.float64)
    inside = (numbers >= 0) & (numbers <= 1)
    if not inside.all():
        raise ValueError(f"{name} must be in [0, 1], got {numbers[~inside].ravel()[0]}")
    return numbers


def _image(values: Float64Array, image_shape: tuple[int, int]) -> Float64Array:
    if len(image_shape) != 2 or values.shape != (math.prod(image_shape),):
        raise ValueError(
            f"image_shape must be (H, W) with H * W = the number of gates, got {image_shape} for "
            f"gates of shape {values.shape}"
        )
    return values.reshape(image_shape)
