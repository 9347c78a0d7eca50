"""Draw the figures of tutorials/01_from_a_coin_to_a_gate.md.

    python figures/make_01.py [FOLDER]

writes them to FOLDER, by default the one this file is in. The same version of matplotlib gives the
same bytes again.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from l0ref import HardConcrete, plotting
from l0ref.concrete import BETA, GAMMA, ZETA, FloatArray, sigmoids
from l0ref.noise import open_uniform
from l0ref.plotting import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION

LOG_ALPHA = 0.5


@plotting.styled
def walk() -> Figure:
    """Draw s, s_bar and z against the noise u, and the derivative that z carries."""
    u = np.linspace(0.0005, 0.9995, 2001)
    law = HardConcrete(np.full(u.shape, LOG_ALPHA))
    s = sigmoids((np.log(u) - np.log1p(-u) + LOG_ALPHA) / BETA)[0]
    s_bar = s * (ZETA - GAMMA) + GAMMA
    z, slope = law.sample_and_slope(u)
    closes, opens = float(law.prob_zero()[0]), 1 - float(law.prob_one()[0])

    figure = Figure(figsize=(9.0, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(u, s, color=GREY, linestyle=":", label=r"$s$: softened coin")
    left.plot(u, s_bar, color=ORANGE, linestyle="--", label=r"$\bar s$: stretched")
    left.plot(u, z, color=BLUE, linewidth=3, label=r"$z$: clipped, the gate")
    left.set_title("From noise to gate: flat at 0 and at 1")
    left.set_ylabel("value")
    left.legend(loc="upper left", bbox_to_anchor=(0.1, 1.0))
    left.set_yticks([GAMMA, 0, 0.5, 1, ZETA], [r"$\gamma$", "0", "0.5", "1", r"$\zeta$"])

    inside = (z > 0) & (z < 1)
    for part in (u < closes, inside, u > opens):
        right.plot(u[part], slope[part], color=BLUE, linewidth=3, solid_capstyle="butt")
    right.set_title("The gradient that each draw carries")
    right.set_ylabel(r"$\partial z\,/\,\partial \log\alpha$")
    right.set_ylim(-0.02, 0.55)
    for axes in (left, right):
        axes.axvspan(0, closes, color=VERMILLION, alpha=0.18, linewidth=0)
        axes.axvspan(opens, 1, color=GREEN, alpha=0.18, linewidth=0)
        axes.set_xlim(0, 1)
        axes.set_xlabel("noise $u$, uniform on (0, 1)")
    right.text(closes / 2, 0.27, "$z = 0$", rotation=90, ha="center", va="center", color=VERMILLION)
    right.text((1 + opens) / 2, 0.27, "$z = 1$", ha="center", va="center", color=GREEN)
    return figure


@plotting.styled
def three_gates() -> Figure:
    """Draw E[z], the test-time gate and the median gate, and how far they are apart."""
    log_alpha = np.linspace(-6, 6, 2401)
    law = HardConcrete(log_alpha)
    mean, z_hat, median = law.mean(), law.test_time(), law.median()

    figure = Figure(figsize=(9.0, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(log_alpha, law.prob_active(), color=GREY, linestyle=":", label=r"$P(z \neq 0)$")
    left.plot(log_alpha, mean, color=VERMILLION, linestyle="--", label=r"mean $E[z]$")
    left.plot(log_alpha, z_hat, color=BLUE, linewidth=3, label=r"test-time gate $\hat z$")
    left.plot(log_alpha, median, color=GREEN, linestyle="-.", label="median gate")
    left.set_title(r"Four functions of $\log\alpha$")
    left.set_ylabel("value")
    left.legend(loc="upper left")
    threshold = float(np.log(-GAMMA / ZETA))
    left.annotate(
        rf"$\hat z = 0$ from here down:" "\n" rf"$\log\alpha = {threshold:.3f}$",
        (threshold, 0),
        xytext=(0.6, 0.16),
        arrowprops={"arrowstyle": "->", "color": BLUE},
        color=BLUE,
        va="center",
    )

    for value, colour, style, name, side in (
        (z_hat - mean, VERMILLION, "--", r"$\hat z$ − $E[z]$", "left"),
        (median - z_hat, GREEN, "-.", r"median − $\hat z$", "right"),
    ):
        right.plot(log_alpha, value, color=colour, linestyle=style)
        peak = int(np.argmax(value))
        right.plot(log_alpha[peak], value[peak], "o", color=colour)
        right.annotate(
            f"{name}\nat most {value[peak]:.3f}",
            (log_alpha[peak], value[peak]),
            xytext=(8 if side == "left" else -8, 6),
            textcoords="offset points",
            ha=side,
            va="bottom",
            color=colour,
        )
    right.set_ylim(-0.13, 0.15)
    right.axhline(0, color="black", linewidth=0.8)
    right.set_title(r"All three agree only at $\log\alpha = 0$")
    right.set_ylabel("difference")
    for axes in (left, right):
        axes.set_xlim(-6, 6)
        axes.set_xlabel(r"$\log\alpha$")
    return figure


@plotting.styled
def temperature() -> Figure:
    """Draw the hard concrete law at four temperatures."""
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    x = np.linspace(0.0005, 0.9995, 801)
    for axes, beta in zip(panels, (0.1, 2 / 3, 1.5, 4.0), strict=True):
        law = HardConcrete(LOG_ALPHA, beta)
        axes.plot(x, law.pdf(x), color=BLUE)
        axes.fill_between(x, law.pdf(x), color=BLUE, alpha=0.25, linewidth=0)
        mass = axes.twinx()
        mass.set_ylim(0, 1)
        mass.spines["left"].set_visible(False)
        mass.spines["right"].set_visible(True)
        for at, p, colour, side in (
            (0.0, float(law.prob_zero()), VERMILLION, "left"),
            (1.0, float(law.prob_one()), GREEN, "right"),
        ):
            mass.vlines(at, 0, p, color=colour, linewidth=4)
            mass.plot(at, p, "o", color=colour, markersize=8, clip_on=False)
            label = f"{p:.2g}" if p >= 0.001 else "< 0.001"
            mass.text(at, 0.98, label, color=colour, ha=side, va="top")
        if axes is panels[-1]:
            mass.set_ylabel("probability mass (stems)")
        else:
            mass.set_yticklabels([])
        axes.set_title(rf"$\beta$ = {beta:.3g}", loc="center")
        axes.set_xlabel("gate $z$")
        axes.set_xlim(-0.12, 1.12)
        axes.set_xticks([0, 0.5, 1])
        axes.set_ylim(0, 4.2)
    panels[0].set_ylabel("probability density")
    figure.suptitle(
        r"Temperature, at $\log\alpha = 0.5$: from a coin to a bump without atoms",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    return figure


@plotting.styled
def estimators() -> Figure:
    """Draw the error of a mean of n gradient estimates against n, for the tutorial's tiny model."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 3))
    y = x @ np.array([1.5, -1.0, 0.2]) + 0.1 * rng.normal(size=40)
    theta, log_alpha = np.array([1.2, -0.9, 0.5]), np.array([1.0, 0.5, -1.5])

    def loss(z: FloatArray) -> FloatArray:
        return np.asarray(np.mean((y - (z * theta) @ x.T) ** 2, axis=-1))

    def loss_slope(z: FloatArray) -> FloatArray:
        return np.asarray(-2 * ((y - (z * theta) @ x.T) @ x) * theta / len(y))

    pi = sigmoids(log_alpha)[0]
    states = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    chance = np.prod(np.where(states == 1, pi, 1 - pi), axis=1)
    exact_coin = (chance * loss(states)) @ (states - pi)
    exact_gate = _exact_gate_gradient(x, y, theta, log_alpha)

    draws = 2 ** np.arange(11)
    repeats = 300
    u = open_uniform(rng, (repeats, int(draws[-1]), 3))
    coins = (u < pi).astype(float)
    law = HardConcrete(log_alpha)
    z, slope = law.sample_and_slope(u)
    score = law.logpdf_partials(z).log_alpha
    curves = (
        ("coin: score function", loss(coins)[..., None] * (coins - pi), exact_coin, GREY, ":"),
        (
            "coin: straight-through",
            loss_slope(coins) * pi * (1 - pi),
            exact_coin,
            VERMILLION,
            "--",
        ),
        ("gate: score function", loss(z)[..., None] * score, exact_gate, PURPLE, "-."),
        ("gate: path derivative", loss_slope(z) * slope, exact_gate, BLUE, "-"),
    )
    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, estimates, exact, colour, style in curves:
        sums = np.cumsum(estimates, axis=1)[:, draws - 1]
        errors = sums / draws[:, None] - exact
        rms = np.sqrt(np.mean(np.sum(errors**2, axis=-1), axis=0)) / np.linalg.norm(exact)
        axes.loglog(draws, 100 * rms, color=colour, linestyle=style, label=name)
    axes.legend(loc="lower left")
    axes.set_xlabel("draws averaged")
    axes.set_ylabel("error of the gradient (% of its length)")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(1, draws[-1])
    axes.set_title(
        "Straight-through stops at its bias; of the rest, the path needs the fewest draws"
    )
    return figure


def _exact_gate_gradient(
    x: FloatArray, y: FloatArray, theta: FloatArray, log_alpha: FloatArray
) -> FloatArray:
    """Differentiate the expected squared error in log_alpha, by way of E[z] and Var[z]."""

    def expected(at: FloatArray) -> float:
        law = HardConcrete(at)
        noise = np.mean(x**2, axis=0) @ (theta**2 * law.var())
        return float(np.mean((y - x @ (theta * law.mean())) ** 2) + noise)

    h = 1e-5
    return np.array(
        [(expected(log_alpha + h * e) - expected(log_alpha - h * e)) / (2 * h) for e in np.eye(3)]
    )


FIGURES: dict[str, Callable[[], Figure]] = {
    "01_estimators.png": estimators,
    "01_laws.png": lambda: plotting.hard_concrete_law(LOG_ALPHA),
    "01_temperature.png": temperature,
    "01_three_gates.png": three_gates,
    "01_walk.png": walk,
}


def main(folder: Path) -> None:
    """Write every figure to a folder."""
    for name, draw in FIGURES.items():
        plotting.save(draw(), folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
