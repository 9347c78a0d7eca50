"""Draw the figures of tutorials/03_prune_a_convnet.md.

    python figures/make_03.py [FOLDER]

writes them to FOLDER, by default the one this file is in. It repeats the tutorial's run, which
takes some ten seconds, and some twenty more the first time, when kernels are compiled. Another
linear algebra library rounds in another order, and so closes a few other gates; the files beside
this one are of OMP_NUM_THREADS=1 and NUMBA_NUM_THREADS=1.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from l0ref import datasets, ops, plotting
from l0ref.plotting import BLUE, CLOSED, GREY, VERMILLION
from l0ref.training import Settings, Trainer

Array = NDArray[Any]

RUN = Settings(
    model="lenet-5",
    lam=(8, 0.1, 0.05, 2),
    drop_rates=(0.2,),
    epochs=10,
    batch_size=50,
    lr=0.002,
    gate_lr=0.04,
    average=0.98,
    seed=0,
)
NAMES = ["conv 1", "conv 2", "dense 1", "dense 2"]
# One colour for each sign, white for 0.
SIGNS = colormaps["RdBu_r"]


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _numbers(axes: Axes, values: Array, text: str = "{:.0f}", size: float = 9) -> None:
    """Write each entry of a matrix in its cell."""
    for row, column in np.ndindex(values.shape):
        number = text.format(values[row, column]).replace("-", "−")
        axes.text(column, row, number, ha="center", va="center", fontsize=size)


@plotting.styled
def patches() -> Figure:
    """Draw an image's windows, the matrix of its patches, and how often each pixel is seen."""
    pixels = np.arange(25).reshape(5, 5)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3)).reshape(9, 9)
    seen = np.bincount(windows.ravel()).reshape(5, 5)
    marked = {0: (VERMILLION, "-"), 8: (BLUE, "--")}
    plain = ListedColormap(["white"])

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(5, 9, 5))
    for axes, values in ((left, pixels), (middle, windows)):
        axes.imshow(np.zeros(values.shape), cmap=plain)
        _numbers(axes, values)
    right.imshow(seen, cmap="Blues", vmin=0, vmax=18)
    _numbers(right, seen)
    for axes in (left, middle, right):
        _bare(axes)
        rows, columns = axes.get_images()[0].get_array().shape
        lines: dict[str, Any] = {"color": "#D5D5D5", "linewidth": 0.6, "zorder": 1}
        axes.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, **lines)
        axes.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, **lines)
    for place, (colour, style) in marked.items():
        row, column = divmod(place, 3)
        frame: dict[str, Any] = {"linewidth": 2.2, "linestyle": style, "zorder": 3}
        faint: dict[str, Any] = {"color": colour, "alpha": 0.12, "linewidth": 0}
        for axes, corner, width, height in (
            (left, (column - 0.5, row - 0.5), 3, 3),
            (middle, (-0.5, place - 0.5), 9, 1),
        ):
            axes.add_patch(Rectangle(corner, width, height, **faint))
            axes.add_patch(
                Rectangle(
                    corner, width, height, fill=False, clip_on=False, edgecolor=colour, **frame
                )
            )
    left.set_title("Image: 25 numbered pixels")
    left.set_xlabel("two of the nine windows")
    middle.set_title("Patches: one row a place")
    middle.set_xlabel("the nine pixels of each window")
    right.set_title("Windows a pixel lies in")
    right.set_xlabel("scatter of ones")
    return figure


@plotting.styled
def kernels(weights: Array, is_open: Array) -> Figure:
    """Draw the kernels of the first convolution; those of open maps have a frame."""
    limit = float(np.abs(weights).max())
    figure = Figure(figsize=(9.0, 2.75), layout="constrained")
    panels = figure.subplots(2, 10)
    for axes, kernel, left in zip(panels.flat, weights, is_open, strict=True):
        shown = axes.imshow(kernel, cmap=SIGNS, vmin=-limit, vmax=limit)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color("black" if left else CLOSED)
        axes.spines[:].set_linewidth(2.5 if left else 1.0)
        axes.set_xlabel("open" if left else "closed", fontsize=9, color="black" if left else GREY)
    figure.suptitle(
        f"The {len(weights)} kernels of conv 1: {int(is_open.sum())} are open (framed)",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    bar = figure.colorbar(shown, ax=panels, shrink=0.85, pad=0.01)
    bar.set_label("weight")
    return figure


@plotting.styled
def border() -> Figure:
    """Draw a constant map in its padding, what a 3x3 convolution makes of it, and a wrong fold."""
    constant = 0.5
    taps = np.array([[1.2, -0.3, 0.2], [0.5, 0.6, -0.9], [-0.4, 0.7, 0.6]])
    padded = np.pad(np.full((8, 8), constant), 1)
    pattern = ops.conv2d(np.full((1, 1, 8, 8), constant), taps[None, None], padding=1)[0][0, 0]
    error = pattern[4, 4] - pattern

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(10, 8.6, 8.6))
    limit = float(max(np.abs(pattern).max(), np.abs(error).max()))
    for axes, values in zip(panels, (padded, pattern, error), strict=True):
        axes.imshow(values, cmap=SIGNS, vmin=-1.5 * limit, vmax=1.5 * limit)
        _numbers(axes, values.round(2) + 0.0, "{:g}", 7)
        _bare(axes)
    panels[0].add_patch(Rectangle((0.5, 0.5), 8, 8, fill=False, linewidth=1.8))
    panels[0].set_title("A closed map: a constant")
    panels[0].set_xlabel("8 × 8 places in a ring of zeros")
    panels[1].set_title("After a 3 × 3 convolution")
    panels[1].set_xlabel("a pattern of nine different numbers")
    panels[2].set_title("Error of folding one number")
    panels[2].set_xlabel("wrong at the whole border")
    return figure


def trained() -> dict[str, Figure]:
    """Repeat the tutorial's run, and draw it."""
    data = datasets.load("mnist-sample")
    part = dataclasses.replace(
        data,
        x_train=data.x_train[:3000],
        y_train=data.y_train[:3000],
        x_test=data.x_test[:1000],
        y_test=data.y_test[:1000],
    )
    trainer = Trainer(RUN, part)
    while not trainer.done:
        trainer.advance()
    history, averaged = trainer.history.arrays(), trainer.averaged()
    weights = averaged.layers[0].params["weight"][:, 0]
    return {
        "03_neurons_over_training.png": plotting.neurons_over_training(history, NAMES),
        "03_flops.png": plotting.flops_over_training(history, flops_dense=4_586_000),
        "03_kernels.png": kernels(weights, averaged.open_gates()[0]),
    }


def main(folder: Path) -> None:
    """Write every figure to a folder."""
    drawn = {"03_patches.png": patches(), "03_border.png": border(), **trained()}
    for name, figure in drawn.items():
        plotting.save(figure, folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
