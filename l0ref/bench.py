r"""Benchmarks: how long a step takes, beside the NumPy reference and beside what no step can beat.

Every contender is a function that does one repetition of a workload. Contenders are timed in turn
(A B C A B C ...), so that whatever else the machine is doing meets them all, and what is reported
is the median over the turns, with the quartiles. Two rulers lie beside them: the *floor*, the
step's matrix products alone through `numpy.matmul`, and a *copy* of the array that is worked on.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numba
import numpy as np
import scipy
from numpy.typing import NDArray

from . import __version__, ops
from .concrete import BETA, GAMMA, ZETA
from .datasets import Dataset, load_mnist_sample
from .hard_concrete import HardConcrete, sample
from .noise import Noise, Stream
from .penalties import expected_l0_grad
from .training import Settings, Trainer

Array = NDArray[Any]

OPEN, CLOSED = 16.0, -16.0
"""log_alpha of a gate that is 1, or 0, in all but one of a million draws.

Further out, squares of the penalty's gradient would be subnormal in Adam's second moment, and slow.
"""

LAM = 0.1
PAUSE = 0.05  # seconds; the threads of the contender before spin for up to 0.03 before they sleep


@dataclass(frozen=True)
class Workload:
    """What is timed.

    Attributes
    ----------
    name : str
        Of the workload in tables and files.
    kind : {"draw", "gradient", "conv", "step"}
        A draw of gates with its noise; that, the VJP and the penalty's gradient; one convolution
        forward and backward; one step of training.
    size : int
        Number of gates of a draw.
    beta : float
        Their temperature.
    model : {"lenet-300-100", "lenet-5", "mlp"}
        Of a step.
    gates : {"unit", "weight"}
    hidden : tuple of int
        Hidden widths of an ``"mlp"``.
    batch_size : int
    open_gates : tuple of int or None
        How many gates of each layer are open, the others being closed; None for all.
    dense : bool
        Whether ours computes also what closed gates hide.
    """

    name: str
    kind: str
    size: int = 10**6
    beta: float = BETA
    model: str = ""
    gates: str = "unit"
    hidden: tuple[int, ...] = (300, 100)
    batch_size: int = 100
    open_gates: tuple[int, ...] | None = None
    dense: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of a perceptron's layers, from its inputs to its classes."""
        hidden = (300, 100) if self.model == "lenet-300-100" else self.hidden
        return (784, *hidden, 10)


PAPER_OPEN = (9, 18, 65, 25)  # LeNet-5 as the paper prunes it (table 1)

WORKLOADS = {
    w.name: w
    for w in (
        Workload("draw", "draw"),
        Workload("draw, beta 0.5", "draw", beta=0.5),
        Workload("draw, beta 0.7", "draw", beta=0.7),
        Workload("draw + gradients", "gradient"),
        Workload("draw + gradients, beta 0.5", "gradient", beta=0.5),
        Workload("draw + gradients, beta 0.7", "gradient", beta=0.7),
        Workload("convolution", "conv"),
        Workload("LeNet-300-100", "step", model="lenet-300-100"),
        Workload("LeNet-300-100, a gate a weight", "step", model="lenet-300-100", gates="weight"),
        Workload("LeNet-5", "step", model="lenet-5"),
        Workload("LeNet-5, 9-18-65-25 open", "step", model="lenet-5", open_gates=PAPER_OPEN),
        Workload(
            "LeNet-5, 9-18-65-25 open, all computed",
            "step",
            model="lenet-5",
            open_gates=PAPER_OPEN,
            dense=True,
        ),
    )
}

MEANINGS = {
    "draw": "10^6 gates: noise u and the gates z (Eq. 10-11)",
    "gradient": "10^6 gates: noise, z, its VJP, and the gradient of the expected L0 norm",
    "conv": "LeNet-5's second convolution on 100 examples, forward and VJP",
    "step": "one step: batch, noise, forward, backward, Adam, average",
}


class Contender(Protocol):
    """Something that does a workload."""

    def __call__(self) -> object:
        """Do it once."""


# --- what is worked on ----------------------------------------------------------------------------


def bench_data() -> Dataset:
    """10,000 digits, and a few to test on at the end of an epoch, which is never timed."""
    data = load_mnist_sample()
    return dataclasses.replace(data, x_test=data.x_test[:100], y_test=data.y_test[:100])


def gate_arrays(size: int) -> tuple[Array, Array]:
    """log_alpha and a cotangent dz of that many gates, float32."""
    rng = np.random.default_rng(0)
    return (
        rng.normal(0, 2, size).astype(np.float32),
        rng.normal(size=size).astype(np.float32),
    )


def conv_arrays(batch_size: int) -> tuple[Array, Array, Array, Array, Array]:
    """x, weight, bias, gates and dy of LeNet-5's second convolution, float32."""
    rng = np.random.default_rng(0)
    shapes = ((batch_size, 20, 12, 12), (50, 20, 5, 5), (50,), (50,), (batch_size, 50, 8, 8))
    x, weight, bias, z, dy = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes)
    return x, weight, bias, np.abs(z), dy


def open_masks(sizes: Sequence[int], open_gates: Sequence[int] | None) -> list[NDArray[np.bool_]]:
    """Which gates of LeNet-5 are open; the open inputs of the dense layer come from open maps."""
    masks = [np.ones(size, bool) for size in sizes]
    if open_gates is None:
        return masks
    rng = np.random.default_rng(1)
    for i, (mask, count) in enumerate(zip(masks, open_gates, strict=True)):
        places = np.arange(len(mask))
        if i == 2:  # unit j of the 800 comes from map j // 16
            places = places[masks[1][places // 16]]
        mask[:] = False
        mask[rng.choice(places, count, replace=False)] = True
    return masks


def set_gates(log_alphas: Sequence[Array], workload: Workload) -> None:
    """Open or close, in place, the gates of a network as the workload says."""
    masks = open_masks([a.size for a in log_alphas], workload.open_gates)
    for log_alpha, mask in zip(log_alphas, masks, strict=True):
        log_alpha[...] = np.where(mask, OPEN, CLOSED).reshape(log_alpha.shape)


# --- ours -----------------------------------------------------------------------------------------


class Steps:
    """Steps of training."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.most = trainer.steps_per_epoch // 2

    def ready(self, count: int) -> None:
        """Step over the end of an epoch and its evaluation, if the next steps would meet it."""
        left = self.trainer.steps_per_epoch - self.trainer.step % self.trainer.steps_per_epoch
        if count >= left:
            for _ in range(left):
                self.trainer.advance()

    def __call__(self) -> None:
        """Take one."""
        self.trainer.advance()


def settings_of(workload: Workload, *, backend: str, epochs: int = 10**6) -> Settings:
    """Return the settings of a training workload."""
    return Settings(
        model=workload.model,
        hidden=workload.hidden,
        gates=workload.gates,
        batch_size=workload.batch_size,
        lam=(LAM,),
        epochs=epochs,
    )


def contender(workload: Workload, *, backend: str, data: Dataset | None = None) -> Contender:
    """Return what does the workload in this package.

    Parameters
    ----------
    workload : Workload
    backend : {"numba", "numpy"}
    data : Dataset, optional
        Of a step; `bench_data` by default.
    """
    if workload.kind == "step":
        data = bench_data() if data is None else data
        trainer = Trainer(settings_of(workload, backend=backend), data)
        params = trainer.network.params
        set_gates([a for name, a in params.items() if name.endswith("log_alpha")], workload)
        return Steps(trainer)
    if workload.kind == "conv":
        x, weight, bias, z, dy = conv_arrays(workload.batch_size)

        def conv() -> object:
            _, residuals = ops.conv2d(x, weight, bias, z, on="outputs", gates_bias=True)
            return ops.conv2d_vjp(dy, residuals)

        return conv
    log_alpha, dz = gate_arrays(workload.size)
    law = {"beta": workload.beta, "gamma": GAMMA, "zeta": ZETA}
    noise = Noise(0)
    step = 0

    def draws() -> Any:
        nonlocal step
        step += 1
        return noise.uniform(Stream.GATES, log_alpha.shape, layer=0, step=step)

    def draw() -> object:
        return sample(log_alpha, draws(), **law)

    def gradient() -> object:
        u = draws()
        gates = HardConcrete(log_alpha, **law)
        z, slope = gates.sample(u), gates.sample_partials(u).log_alpha
        return z, dz * slope + LAM / 60_000 * expected_l0_grad(log_alpha, 1, **law)

    return draw if workload.kind == "draw" else gradient


# --- the rulers -----------------------------------------------------------------------------------


def products(workload: Workload) -> list[tuple[str, int, int, int]]:
    """List the matrix products of a workload: what it is, and M, K, N of (M, K) @ (K, N).

    For each layer with weights: the output, the derivative in the weights, and that in the input,
    where one is needed: not in the network's own (the derivative in a gate on it is a sum over
    weight times derivative in the weight). A convolution is one product over all examples and
    places. Where gates are closed, only what the others need is left.
    """
    n = workload.batch_size
    shapes: list[tuple[str, int, int, int]] = []
    if workload.kind == "conv":
        shapes.append(("conv", 50, 500, 64 * n))
    elif workload.model == "lenet-5":
        one, two, three, four = workload.open_gates or (20, 50, 800, 500)
        shapes += [("conv 1", one, 25, 576 * n), ("conv 2", two, 25 * one, 64 * n)]
        shapes += [("dense 1", n, three, four), ("dense 2", n, four, 10)]
    elif workload.kind == "step":
        widths = workload.widths
        for i, (d_in, d_out) in enumerate(zip(widths, widths[1:], strict=False)):
            shapes.append((f"dense {i + 1}", n, d_in, d_out))
    found = []
    for i, (name, m, k, p) in enumerate(shapes):
        found.append((f"{name}: y", m, k, p))
        if name.startswith("dense"):  # y = x W
            found.append((f"{name}: dweight", k, m, p))
            if i:
                found.append((f"{name}: dx", m, p, k))
        else:  # y = W x
            found.append((f"{name}: dweight", m, p, k))
            if i or workload.kind == "conv":
                found.append((f"{name}: dx", k, m, p))
    return found


def flops(workload: Workload) -> int:
    """Floating-point operations of the matrix products."""
    return sum(2 * m * k * n for _, m, k, n in products(workload))


def floor(workload: Workload) -> Contender | None:
    """Return the matrix products of a workload through `numpy.matmul`; None where it has none.

    Operands are in the order that is fastest, and ready in memory: nothing is gathered, and
    nothing is done with the results.
    """
    rng = np.random.default_rng(0)
    operands = []
    for _, m, k, n in products(workload):
        a, b = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((m, k), (k, n)))
        operands.append((a, b, np.empty((m, n), np.float32)))
    if not operands:
        return None

    def multiply() -> None:
        for a, b, out in operands:
            np.matmul(a, b, out=out)

    return multiply


def copy(workload: Workload) -> Contender | None:
    """Return the copying of an array of as many float32 as there are gates; None for a step."""
    if workload.kind not in ("draw", "gradient"):
        return None
    source = gate_arrays(workload.size)[0]
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


# --- timing ---------------------------------------------------------------------------------------


def repeat(contender: Contender, count: int) -> float:
    """Seconds a repetition, over `count` of them in a row, after one that brings the caches back.

    Rubbish is collected before, not meanwhile. A contender that works ahead has ``wait``; one that
    must not be timed everywhere has ``ready``.
    """
    ready, wait = getattr(contender, "ready", None), getattr(contender, "wait", None)
    if ready is not None:
        ready(count + 1)
    contender()
    if wait is not None:
        wait()
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(count):
            contender()
        if wait is not None:
            wait()
        return (time.perf_counter() - start) / count
    finally:
        gc.enable()


def calibrate(contender: Contender, seconds: float) -> int:
    """How many repetitions take about that long; the first of all are not counted (they compile)."""
    for _ in range(3):
        contender()
    once = min(repeat(contender, 1), repeat(contender, 3))
    most = getattr(contender, "most", 100_000)
    return int(np.clip(seconds / once, 1, most))


def summary(samples: Iterable[float]) -> dict[str, Any]:
    """Median, quartiles and least of some times, in seconds, and the times."""
    times = [float(t) for t in samples]
    low, middle, high = np.percentile(times, [25, 50, 75])
    return {
        "median": float(middle),
        "q25": float(low),
        "q75": float(high),
        "min": min(times),
        "samples": times,
    }


def interleave(
    time_once: Mapping[str, Callable[[], float]], rounds: int, *, pause: float = PAUSE
) -> dict[str, dict[str, Any]]:
    """Time contenders in turn, `rounds` times; return the `summary` of each.

    Each round begins with another one, so that none always comes after the same.
    """
    samples: dict[str, list[float]] = {name: [] for name in time_once}
    names = list(time_once)
    for r in range(rounds):
        shift = r % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(pause)
            samples[name].append(time_once[name]())
    return {name: summary(times) for name, times in samples.items()}


def machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, cores, versions."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        model = names[0] if names else model
    except OSError:
        pass
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[call-arg]
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "l0ref": __version__,
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "scipy": scipy.__version__,
        "numba": numba.__version__,
    }
