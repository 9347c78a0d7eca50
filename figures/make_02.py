"""Draw the figures of tutorials/02_derive_and_train.md.

    python figures/make_02.py [FOLDER]

writes them to FOLDER, by default the one this file is in. It repeats the tutorial's run, which
takes some ten seconds, and as many more the first time, when kernels are compiled. Another linear
algebra library rounds in another order, and so closes a few other gates; the files beside this one
are of OMP_NUM_THREADS=1 and NUMBA_NUM_THREADS=1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from l0ref import datasets, plotting
from l0ref.concrete import FloatArray
from l0ref.plotting import BLUE, GREY, VERMILLION
from l0ref.training import Settings, Trainer

RUN = Settings(lam=(0.1, 0.3, 0.3), epochs=15, lr=0.002, gate_lr=0.02, average=0.99, seed=0)
NAMES = ["pixels", "hidden 1", "hidden 2"]
IMAGE = (28, 28)


@plotting.styled
def step_size() -> Figure:
    """Draw the error of difference quotients of v^3 against their step."""
    v = np.random.default_rng(2).normal(size=4)
    slope = 3 * v**2
    steps = np.logspace(-12, 0, 97)

    def errors(ahead: FloatArray, behind: FloatArray, width: FloatArray) -> FloatArray:
        quotient = (ahead**3 - behind**3) / width
        return np.asarray(np.abs(quotient - slope).max(axis=1) / slope.max())

    h = steps[:, None]
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    axes = figure.add_subplot()
    forward, central = errors(v + h, v, h), errors(v + h, v - h, 2 * h)
    axes.loglog(
        steps, forward, color=VERMILLION, linestyle="--", label="forward: (f(x+h) − f(x)) / h"
    )
    axes.loglog(steps, central, color=BLUE, label="central: (f(x+h) − f(x−h)) / 2h")
    axes.axvline(1e-5, color=GREY, linestyle=":")
    axes.annotate(
        "the step used here",
        (1e-5, 0.03),
        xytext=(6, 0),
        textcoords="offset points",
        color=GREY,
        va="center",
    )
    axes.set_title("Too small a step is as bad as too large a one")
    axes.set_xlabel("step $h$")
    axes.set_ylabel("relative error of the slope")
    axes.set_xlim(steps[0], steps[-1])
    axes.legend(loc="lower left")
    return figure


def trained() -> dict[str, Figure]:
    """Repeat the tutorial's run, and draw it."""
    trainer = Trainer(RUN, datasets.load("mnist-sample"))
    while not trainer.done:
        trainer.advance()
    history = trainer.history.arrays()
    z_hat = [
        gates.test_time(layer.params["log_alpha"]) for _, layer, gates in trainer.averaged().gated
    ]
    return {
        "02_active_units.png": plotting.active_units(history, NAMES),
        "02_gates.png": plotting.gate_histogram(z_hat, NAMES),
        "02_pixels.png": plotting.input_pixels(z_hat[0], IMAGE),
        "02_pixels_over_training.png": plotting.pixels_over_training(history["open_0"], IMAGE),
    }


def main(folder: Path) -> None:
    """Write every figure to a folder."""
    for name, figure in {"02_step_size.png": step_size(), **trained()}.items():
        plotting.save(figure, folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
