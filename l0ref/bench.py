r"""Benchmarks: how long a step takes, beside the NumPy reference and beside bare arithmetic.

A contender is a function that does one repetition of a workload. Contenders are timed in turn
(A B C A B C ...), so that whatever else the machine is doing meets them all, and what is reported
is the median over the turns, with the quartiles. Two rulers lie beside them: the *floor*, the
step's matrix products alone through `numpy.matmul`, and a *copy* of the array that is worked on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import itertools
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

from . import __version__, backends
from .concrete import BETA, GAMMA, ZETA
from .datasets import Dataset, load_mnist_sample
from .gates import per_weight
from .noise import Noise, Stream, Uniforms
from .training import Settings, Trainer

Array = NDArray[Any]

OPEN, CLOSED = 16.0, -16.0
"""log_alpha of a gate that is 1, or 0, in all but one of a million draws.

Further out, squares of the penalty's gradient would be subnormal in Adam's second moment, and slow.
"""

LAM, N_TRAIN = 0.1, 60_000
WARM = 0.1  # seconds
PAUSE = 0.15  # seconds; threads of OpenBLAS spin for about 0.1 before they sleep


@dataclass(frozen=True)
class Workload:
    """What is timed.

    Attributes
    ----------
    name : str
        Of the workload in tables and files.
    kind : {"draw", "gradient", "conv", "product", "step"}
        A draw of gates with its noise; that, the VJP and the penalty's gradient; one convolution
        forward and backward; the matrix products of one layer, likewise; one step of training.
    size : int
        Number of gates of a draw.
    beta : float
        Their temperature.
    model : {"lenet-300-100", "lenet-5", "mlp"}
        Of a step.
    gates : {"unit", "weight"}
    hidden : tuple of int
        Hidden widths of an ``"mlp"``.
    layer : tuple of int
        Inputs and outputs of a product.
    batch_size : int
        Of a product, the rows of x: where a convolution is one, its examples times places.
    open_gates : tuple of int or None
        How many gates of each layer are open, the others being closed; None for all. Of a product,
        how many inputs and outputs.
    by_example : float
        Of a product, the share of gates of its inputs that are open, if each example has its own.
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
    layer: tuple[int, int] = (784, 300)
    batch_size: int = 100
    open_gates: tuple[int, ...] | None = None
    by_example: float = 1.0
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
        *(
            Workload(f"product {name}", "product", layer=layer, batch_size=n, open_gates=some)
            for name, n, layer, some in (
                ("784-300", 100, (784, 300), None),
                ("784-300, half open", 100, (784, 300), (392, 150)),
                ("784-300, a quarter open", 100, (784, 300), (196, 75)),
                ("300-100", 100, (300, 100), None),
                ("300-100, half open", 100, (300, 100), (150, 50)),
                ("100-10", 100, (100, 10), None),
                ("800-500", 100, (800, 500), None),
                ("800-500, half open", 100, (800, 500), (400, 250)),
                ("800-500, 65-25 open", 100, (800, 500), (65, 25)),
                ("500-10", 100, (500, 10), None),
                ("500-10, 25 open", 100, (500, 10), (25, 10)),
                ("of LeNet-5's first convolution", 5760, (25, 20), None),
                ("of LeNet-5's second convolution", 640, (500, 50), None),
                ("of LeNet-5's second convolution, 9-18 open", 640, (500, 50), (225, 18)),
                ("of WRN-10-1 at 16 maps", 10_240, (144, 16), None),
                ("of WRN-10-1 at 64 maps", 640, (576, 64), None),
            )
        ),
        Workload("product 784-300, a tenth open by example", "product", by_example=0.1),
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
    "product": "the products of a dense layer over what is open, forward and VJP; the reference "
    "takes what is open out of the weights first, and puts it back into their gradient; where "
    "each example has its own open gates it multiplies whole matrices",
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


def product_arrays(workload: Workload) -> tuple[Array, Array, Array, dict[str, Any]]:
    """x, weight and dy, float32, and the open rows and columns of the weight."""
    rng = np.random.default_rng(0)
    inputs, outputs = workload.open_gates or workload.layer
    index = {}
    if workload.open_gates is not None:
        sizes = zip(("rows", "columns"), workload.layer, workload.open_gates, strict=True)
        for name, size, count in sizes:
            index[name] = np.sort(rng.choice(size, count, replace=False))
    shapes = ((workload.batch_size, inputs), workload.layer, (workload.batch_size, outputs))
    x, weight, dy = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes)
    return x, weight, dy, index


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
        self.within = trainer.network.backend.exclusive  # as a run takes its steps

    def ready(self, count: int) -> None:
        """Step over the end of an epoch and its evaluation, if the next steps would meet it."""
        left = self.trainer.steps_per_epoch - self.trainer.step % self.trainer.steps_per_epoch
        if count >= left:
            for _ in range(left):
                self.trainer.advance()

    def __call__(self) -> None:
        """Take one."""
        self.trainer.advance()


def settings_of(workload: Workload, *, backend: str) -> Settings:
    """Return the settings of a training workload, for a run without an end."""
    return Settings(
        model=workload.model,
        hidden=workload.hidden,
        gates=workload.gates,
        batch_size=workload.batch_size,
        lam=(LAM,),
        epochs=10**6,
        backend=backend,
        dense=workload.dense,
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
        trainer = Trainer(
            settings_of(workload, backend=backend), bench_data() if data is None else data
        )
        params = trainer.network.params
        set_gates([a for name, a in params.items() if name.endswith("log_alpha")], workload)
        return Steps(trainer)
    functions = backends.load(backend)
    if workload.kind == "conv":
        x, weight, bias, z, dy = conv_arrays(workload.batch_size)

        def conv() -> object:
            with functions.exclusive():
                _, residuals = functions.conv2d(x, weight, bias, z, on="outputs", gates_bias=True)
                return functions.conv2d_vjp(dy, residuals)

        return conv
    if workload.kind == "product":
        if workload.by_example < 1:
            return _product_by_example(workload, backend)
        x, weight, dy, index = product_arrays(workload)

        def product() -> object:
            _, residuals = functions.gated_matmul(x, weight, **index)
            return functions.gated_matmul_vjp(dy, residuals)

        return product
    log_alpha, dz = gate_arrays(workload.size)
    law = {"beta": workload.beta, "gamma": GAMMA, "zeta": ZETA}
    group_size = per_weight(log_alpha.shape).group_size
    noise, steps = Noise(0), itertools.count()

    def draws() -> Uniforms:
        return noise.draws(Stream.GATES, log_alpha.shape, step=next(steps))

    def draw() -> object:
        return functions.sample(log_alpha, draws(), **law)

    def gradient() -> object:
        z, slope = functions.sample_and_slope(log_alpha, draws(), **law)
        return z, functions.gate_gradient(
            dz, slope, log_alpha, group_size, lam=LAM / N_TRAIN, **law
        )

    return draw if workload.kind == "draw" else gradient


def _product_by_example(workload: Workload, backend: str) -> Contender:
    """Each example by its own rows; by the reference, in products of whole matrices."""
    functions = backends.load(backend)
    x, weight, dy, _ = product_arrays(workload)
    rng = np.random.default_rng(1)
    z = rng.uniform(0.1, 1, x.shape) * (rng.uniform(size=x.shape) < workload.by_example)
    z, bias = z.astype(x.dtype), np.zeros(weight.shape[1], x.dtype)

    def by_example() -> object:
        _, residuals = functions.example_matmul(x, weight, z)
        return functions.example_matmul_vjp(dy, residuals)

    def whole() -> object:
        _, residuals = functions.dense(x, weight, bias, z)
        return functions.dense_vjp(dy, residuals)

    return whole if backend == "numpy" else by_example


# --- the rulers -----------------------------------------------------------------------------------


def products(workload: Workload) -> list[tuple[str, int, int, int]]:
    """List the matrix products of a workload: what it is, and M, K, N of (M, K) @ (K, N).

    For each layer with weights: the output, the derivative in the weights, and that in the input,
    where one is needed: not in the network's own (the derivative in a gate on it is a sum over
    weight times derivative in the weight). A convolution is one product over all examples and
    places. Where closed gates are left out, so is here what only they need.
    """
    n = workload.batch_size
    shapes: list[tuple[str, int, int, int]] = []
    if workload.kind == "conv":
        shapes.append(("conv", 50, 500, 64 * n))
    elif workload.kind == "product":
        d_in, d_out = workload.open_gates or workload.layer
        shapes.append(("dense", n, d_in, d_out))
    elif workload.model == "lenet-5":
        sizes = None if workload.dense else workload.open_gates
        one, two, three, four = sizes or (20, 50, 800, 500)
        shapes += [("conv 1", one, 25, 576 * n), ("conv 2", two, 25 * one, 64 * n)]
        shapes += [("dense 1", n, three, four), ("dense 2", n, four, 10)]
    elif workload.kind == "step":
        widths = workload.widths
        for i, (d_in, d_out) in enumerate(itertools.pairwise(widths)):
            shapes.append((f"dense {i + 1}", n, d_in, d_out))
    found = []
    for i, (name, m, k, p) in enumerate(shapes):
        found.append((f"{name}: y", m, k, p))
        if name.startswith("dense"):  # y = x W
            found.append((f"{name}: dweight", k, m, p))
            if i or workload.kind == "product":
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

    Operands lie ready in memory, each in rows or in columns, whichever is fastest: nothing is
    gathered, and nothing is done with the results.
    """
    operands = [_fastest(m, k, n) for _, m, k, n in products(workload)]
    if not operands:
        return None

    def multiply() -> None:
        for a, b, out in operands:
            np.matmul(a, b, out=out)

    return multiply


def _fastest(m: int, k: int, n: int) -> tuple[Array, Array, Array]:
    """Operands and result of a product (M, K) @ (K, N), in the memory order that is fastest."""
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((m, k), (k, n), (m, n))]
    best, fastest = np.inf, arrays
    for columns in itertools.product((False, True), repeat=3):
        way = [
            np.ascontiguousarray(array.T).T if turned else array
            for array, turned in zip(arrays, columns, strict=True)
        ]
        for _ in range(3):
            start = time.perf_counter()
            np.matmul(way[0], way[1], out=way[2])
            seconds = time.perf_counter() - start
            if seconds < best:
                best, fastest = seconds, way
    return fastest[0], fastest[1], fastest[2]


def copy(workload: Workload) -> Contender | None:
    """Return the copying of an array of as many float32 as there are gates; None for a step."""
    if workload.kind not in ("draw", "gradient"):
        return None
    source = gate_arrays(workload.size)[0]
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def peak() -> tuple[Contender, int]:
    """Return a ruler that multiplies and adds in registers on all threads, and its operations."""
    from . import jit
    from .jit import _rulers
    from .jit._vectors import lanes

    width = lanes(np.empty(0, np.float32))
    numbers = np.full(2 * width, 0.5, np.float32)
    out = np.empty(8 * jit.get_num_threads() * width, np.float32)
    operations = 2 * out.size * _rulers.CHAINS * _rulers.STEPS
    return lambda: _rulers.multiply_and_add(numbers, out), operations


def traffic(n_params: int) -> Contender:
    """Return a ruler that goes once over what Adam and the average read and write in a step."""
    from .jit import _rulers

    arrays = np.ones((5, n_params), np.float32)
    return lambda: _rulers.stream(*arrays)


# --- timing ---------------------------------------------------------------------------------------


def repeat(contender: Contender, count: int) -> float:
    """Seconds a repetition, over `count` of them in a row, once it runs as in a long run.

    For the first `WARM` seconds it does not: caches are others', threads and cores asleep.

    Rubbish is not collected meanwhile. A contender that works ahead has ``wait``; one that
    must not be timed everywhere has ``ready``; one that works in a context has ``within``.
    """
    with getattr(contender, "within", contextlib.nullcontext)():
        return _repeat(contender, count)


def _repeat(contender: Contender, count: int) -> float:
    ready, wait = getattr(contender, "ready", None), getattr(contender, "wait", None)
    started = time.perf_counter()
    while True:
        if ready is not None:
            ready(1)
        contender()
        if wait is not None:
            wait()
        if time.perf_counter() - started > WARM:
            break
    if ready is not None:
        ready(count)
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
    """How many repetitions take about that long; the first of all do not count: they compile."""
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
    time_once: Mapping[str, Callable[[], float]], rounds: int, *, budget: float = np.inf
) -> dict[str, dict[str, Any]]:
    """Time contenders in turn, `rounds` times; return the `summary` of each.

    Each round begins with another one, so that none always comes after the same. After `budget`
    seconds no round begins, but for the first.
    """
    start = time.monotonic()
    samples: dict[str, list[float]] = {name: [] for name in time_once}
    names = list(time_once)
    for r in range(rounds):
        if r and time.monotonic() - start > budget:
            break
        shift = r % max(len(names), 1)
        for name in names[shift:] + names[:shift]:
            time.sleep(PAUSE)
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
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "l0ref": __version__,
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "scipy": scipy.__version__,
        "numba": metadata.version("numba"),
    }


# --- where the time of a step goes ----------------------------------------------------------------


@contextlib.contextmanager
def kernel_times() -> Iterator[dict[str, list[float]]]:
    """Collect the seconds of every call of a kernel, by the kernel's name."""
    from .jit._compile import Kernel

    times: dict[str, list[float]] = {}
    run = Kernel._run

    def timed(kernel: Kernel, args: tuple[Any, ...]) -> Any:
        start = time.perf_counter()
        try:
            return run(kernel, args)
        finally:
            times.setdefault(kernel.name, []).append(time.perf_counter() - start)

    Kernel._run = timed  # type: ignore[assignment, method-assign]
    try:
        yield times
    finally:
        Kernel._run = run  # type: ignore[method-assign]


def profile(
    workload: Workload, *, turns: int = 10, seconds: float = 0.2, data: Dataset | None = None
) -> dict[str, Any]:
    """Find out in which kernels a step of training spends its time, and how much in none.

    The step's matrix products alone, the step, the step with a clock at every kernel, and what the
    machine can do at best are timed in turn.

    Parameters
    ----------
    workload : Workload
        A step.
    turns : int, optional
    seconds : float, optional
        About how long each turn of each takes.
    data : Dataset, optional
        Of digits, `bench_data` by default.

    Returns
    -------
    dict
        ``"kernels"``: for each its ``"calls"`` and ``"seconds"`` a step, the greatest first;
        ``"elsewhere"``: what is left of the step with clocks, in Python and NumPy; ``"clocked"``
        that step, ``"step"`` and ``"floor"`` in seconds; ``"arithmetic"``, the seconds that as many
        operations as the products have would take in registers, on all threads; ``"memory"``, those
        of one pass over what Adam and the average keep. Medians over the turns. Can be saved as
        JSON.

    Raises
    ------
    ValueError
        If the workload is no step.
    """
    if workload.kind != "step":
        steps = ", ".join(name for name, one in WORKLOADS.items() if one.kind == "step")
        raise ValueError(f"workload must be a step of training ({steps}), got {workload.name}")
    step, alone = contender(workload, backend="numba", data=data), floor(workload)
    assert isinstance(step, Steps)
    assert alone is not None
    registers, operations = peak()
    memory = traffic(sum(a.size for a in step.trainer.network.params.values()))
    counts = [calibrate(one, seconds) for one in (alone, step, registers, memory)]
    whole: list[dict[str, float]] = []
    inside: list[dict[str, float]] = []
    calls: dict[str, float] = {}
    for _ in range(turns):
        times = {"floor": repeat(alone, counts[0]), "step": repeat(step, counts[1])}
        times["arithmetic"] = repeat(registers, counts[2]) * flops(workload) / operations
        times["memory"] = repeat(memory, counts[3])
        with step.within(), kernel_times() as clocks:
            step.ready(counts[1] + 1)
            step()
            clocks.clear()
            start = time.perf_counter()
            for _ in range(counts[1]):
                step()
            times["clocked"] = (time.perf_counter() - start) / counts[1]
        own = {name: sum(each) / counts[1] for name, each in clocks.items()}
        calls |= {name: len(each) / counts[1] for name, each in clocks.items()}
        times["elsewhere"] = times["clocked"] - sum(own.values())
        whole.append(times)
        inside.append(own)
    result: dict[str, Any] = {
        name: float(np.median([times[name] for times in whole])) for name in whole[0]
    }
    medians = {name: float(np.median([own.get(name, 0.0) for own in inside])) for name in calls}
    result["kernels"] = {
        name: {"calls": calls[name], "seconds": medians[name]}
        for name in sorted(calls, key=lambda name: -medians[name])
    }
    return result


# --- the command ----------------------------------------------------------------------------------


IN_COMMAND = ("draw", "draw + gradients", "convolution", "product 784-300",
              "product 784-300, half open", "product 800-500, 65-25 open", "LeNet-300-100",
              "LeNet-300-100, a gate a weight", "LeNet-5", "LeNet-5, 9-18-65-25 open",
              "LeNet-5, 9-18-65-25 open, all computed")  # fmt: skip


def run(
    *, quick: bool = False, tell: Callable[[str], object] = lambda name: None
) -> dict[str, Any]:
    """Time the kernels, the reference and the rulers, in this process.

    Parameters
    ----------
    quick : bool, optional
        Fewer and shorter repetitions.
    tell : callable, optional
        Given the name of each workload before it is timed.

    Returns
    -------
    dict
        ``"machine"``; and ``"workloads"``, a list with ``"name"``, ``"kind"``, ``"meaning"``,
        ``"flops"`` of the matrix products and ``"results"``: for each contender of ``"numba"``,
        ``"numpy"``, ``"floor"`` and ``"copy"`` that there is its `summary` and ``"repetitions"``.
        Can be saved as JSON.
    """
    from . import jit  # as late as Numba can be

    rounds, seconds, budget = (3, 0.01, 1.0) if quick else (9, 0.04, 6.0)
    data = bench_data()
    rows = []
    for workload in (WORKLOADS[name] for name in IN_COMMAND):
        tell(workload.name)
        contenders = {
            "numba": contender(workload, backend="numba", data=data),
            "numpy": contender(workload, backend="numpy", data=data),
            "floor": floor(workload),
            "copy": copy(workload),
        }
        there = {name: one for name, one in contenders.items() if one is not None}
        counts = {name: calibrate(one, seconds) for name, one in there.items()}
        turns = {name: functools.partial(repeat, one, counts[name]) for name, one in there.items()}
        results = interleave(turns, rounds, budget=budget)
        for name, count in counts.items():
            results[name]["repetitions"] = count
        rows.append(
            {
                "name": workload.name,
                "kind": workload.kind,
                "meaning": MEANINGS[workload.kind],
                "flops": flops(workload),
                "results": results,
            }
        )
    threads = jit.get_num_threads()
    return {"machine": machine() | {"threads": threads}, "workloads": rows}
