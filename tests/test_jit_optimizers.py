"""Adam and the temporal average in one pass, against the two of them one after the other.

A step rounds some ten times in the parameters' precision; what it adds is at most a few lr. Twenty
steps are then within 20 x 10 eps of the greatest parameter, and so are the two moments of theirs.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numba import config

from l0ref import jit
from l0ref.jit._compile import FEW, Kernel
from l0ref.jit.optimizers import NEAR, Moves
from l0ref.jit.optimizers import step_and_average as by_twin
from l0ref.optimizers import SGD, Adam, TemporalAverage, all_finite
from l0ref.optimizers import step_and_average as by_original

STEPS = 20
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
SHAPES: dict[str, tuple[int, ...]] = {
    "0.weight": (31, 701),  # some blocks of one pass, the last ragged, on all threads
    "0.bias": (7,),
    "0.log_alpha": (1,),
    "2.weight": (3, 2, 1, 5),
    "2.log_alpha": (1024, 3),  # whole blocks
    "3.weight": (1, 1),
}


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    n = jit.get_num_threads()
    yield
    jit.set_num_threads(n)


class Run:
    """One optimiser, its average, parameters and buffers, moved by one of the two functions."""

    def __init__(self, step: Callable[..., None], dtype: Any, optimizer: Any = None) -> None:
        rng = np.random.default_rng(4)
        self.step_and_average = step
        self.optimizer = optimizer or Adam(0.02, gate_lr=0.3, beta1=0.8, beta2=0.99, eps=1e-6)
        self.average = TemporalAverage(0.9)
        self.params: Any = {n: rng.normal(size=s).astype(dtype) for n, s in SHAPES.items()}
        self.buffers: Any = {"1.running_mean": rng.normal(size=6).astype(dtype)}

    def step(self, t: int) -> None:
        rng = np.random.default_rng(100 + t)
        grads = {n: np.asarray(rng.normal(size=p.shape)).astype(p.dtype)
                 for n, p in self.params.items()}  # fmt: skip
        grads["0.bias"][2] = 0.0  # never moves
        before = {n: g.copy() for n, g in grads.items()}
        self.buffers["1.running_mean"] += 1
        self.step_and_average(self.optimizer, self.average, self.params, grads, self.buffers)
        for name, g in grads.items():
            np.testing.assert_array_equal(g, before[name])

    def contents(self) -> dict[str, Any]:
        groups = {"params": self.params, "optimizer": self.optimizer.state(),
                  "average": self.average.state()}  # fmt: skip
        return {f"{g}:{n}": a for g, group in groups.items() for n, a in group.items()}


def compare(one: Run, other: Run, multiple: float) -> None:
    got, wanted = one.contents(), other.contents()
    assert got.keys() == wanted.keys()
    for name, b in wanted.items():
        a = got[name]
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        bound = (
            multiple * np.finfo(b.dtype).eps * np.abs(b).max(initial=0)
            if b.dtype.kind == "f"
            else 0
        )
        np.testing.assert_allclose(a, b, rtol=0, atol=bound, err_msg=name)


def run_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which every kernel that runs adds how it runs."""
    ran: list[str] = []
    run = Kernel._run

    def spy(kernel: Any, args: Any) -> Any:
        ran.append("parallel" if args[0] else "serial")
        return run(kernel, args)

    monkeypatch.setattr(Kernel, "_run", spy)
    return ran


@both_dtypes
def test_twenty_steps(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow, ran = Run(by_twin, dtype), Run(by_original, dtype), run_names(monkeypatch)
    arrays = dict(fast.params)
    for t in range(STEPS):
        fast.step(t)
        slow.step(t)
        compare(fast, slow, 10 * (t + 1))
    assert ran == ["parallel"] * STEPS
    assert fast.optimizer.t == fast.average.t == STEPS
    for name, array in arrays.items():
        assert fast.params[name] is array  # moved in place
    average = fast.average.params["1.running_mean"]
    np.testing.assert_array_equal(average, slow.average.params["1.running_mean"])
    # The bias without a gradient stays where it was.
    start = Run(by_twin, dtype).params["0.bias"]
    assert fast.params["0.bias"][2] == start[2]
    assert (fast.params["0.bias"] != start).sum() == start.size - 1


@both_dtypes
@pytest.mark.parametrize("sign", [-1, 1])
def test_moments_that_die_away_are_0_and_move_nothing_that_can_be_seen(
    dtype: Any, sign: float
) -> None:
    fast, slow = Run(by_twin, dtype, Adam()), Run(by_original, dtype, Adam())
    for run in (fast, slow):
        run.step(0)
        for name in ("0.weight", "0.log_alpha"):
            run.optimizer.m[name][...] = sign * np.finfo(dtype).tiny
            run.optimizer.v[name][...] = np.finfo(dtype).tiny
        zeros = {name: np.zeros_like(a) for name, a in run.params.items()}
        for a in run.params.values():
            a[...] = 0
        run.step_and_average(run.optimizer, run.average, run.params, zeros, run.buffers)
    for name in ("0.weight", "0.log_alpha"):
        assert not fast.optimizer.m[name].any()
        assert not fast.optimizer.v[name].any()
        assert np.abs(slow.params[name]).max() > 0
        lr = fast.optimizer.lr
        np.testing.assert_allclose(
            fast.params[name], slow.params[name], rtol=0,
            atol=lr * 1e-27 * float(np.finfo(dtype).tiny / np.finfo(np.float32).tiny),
        )  # fmt: skip


@both_dtypes
def test_the_same_bits_on_any_number_of_threads(dtype: Any) -> None:
    if config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    runs = []
    for n in (1, 2):
        jit.set_num_threads(n)
        runs.append(Run(by_twin, dtype))
        for t in range(4):
            runs[-1].step(t)
    compare(*runs, multiple=0)


def test_a_run_goes_on_from_its_state() -> None:
    whole, begun = Run(by_twin, np.float32), Run(by_twin, np.float32)
    for t in range(6):
        whole.step(t)
    for t in range(3):
        begun.step(t)
    rest = Run(by_twin, np.float32)
    rest.params = {n: a.copy() for n, a in begun.params.items()}
    rest.buffers = {n: a.copy() for n, a in begun.buffers.items()}
    rest.optimizer.load_state(begun.optimizer.state())
    rest.average.load_state(begun.average.state())
    for t in range(3, 6):
        rest.step(t)
    compare(rest, whole, multiple=0)


def transposed(run: Run) -> None:
    run.params["0.weight"] = np.asfortranarray(run.params["0.weight"])


def strided(run: Run) -> None:
    run.params["2.weight"] = np.repeat(run.params["2.weight"], 2, axis=0)[::2]


def half(run: Run) -> None:
    run.params["0.bias"] = run.params["0.bias"].astype(np.float16)


def empty(run: Run) -> None:
    run.params["4.weight"] = np.empty((0, 3), np.float64)


def a_buffer_of_a_parameters_name(run: Run) -> None:
    run.buffers["0.bias"] = np.zeros(7)


class OwnAverage(TemporalAverage):
    def update(self, params: Any) -> None:
        super().update({name: -a for name, a in params.items()})


def another_average(run: Run) -> None:
    run.average = OwnAverage(0.9)


class OwnAdam(Adam):
    def step(self, params: Any, grads: Any) -> None:
        super().step(params, {name: 2 * g for name, g in grads.items()})


def another_optimizer(run: Run) -> None:
    run.optimizer = OwnAdam(0.02)


def sgd(run: Run) -> None:
    run.optimizer = SGD(0.1, momentum=0.5, gate_lr=0.2)


@pytest.mark.parametrize("change", [
    transposed, strided, half, empty, a_buffer_of_a_parameters_name, another_average,
    another_optimizer, sgd,
])  # fmt: skip
def test_what_no_kernel_takes_the_original_moves(
    change: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, slow, ran = Run(by_twin, np.float64), Run(by_original, np.float64), run_names(monkeypatch)
    for run in (fast, slow):
        change(run)
    for t in range(3):
        fast.step(t)
        slow.step(t)
    compare(fast, slow, multiple=0)
    assert ran == []


def test_a_gradient_that_is_not_contiguous_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, ran = [Run(f, np.float64) for f in (by_twin, by_original)], run_names(monkeypatch)
    for run in runs:
        for t in range(3):
            grads = {n: np.random.default_rng(t).normal(size=(*p.shape, 2))[..., 0]
                     for n, p in run.params.items()}  # fmt: skip
            run.step_and_average(run.optimizer, run.average, run.params, grads, run.buffers)
    compare(*runs, multiple=0)
    assert ran == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_goes_where_the_originals_goes(value: float) -> None:
    runs = [Run(f, np.float64) for f in (by_twin, by_original)]
    with np.errstate(invalid="ignore"):
        for run in runs:
            run.step(0)
            run.params["0.weight"][3, 5] = value
            run.optimizer.m["2.weight"][2, 1, 0, 4] = value
            run.optimizer.v["2.log_alpha"][9, 1] = value
            run.step(1)
    got, wanted = (run.contents() for run in runs)
    seen = 0
    for name, b in wanted.items():
        np.testing.assert_array_equal(np.isnan(got[name]), np.isnan(b))
        np.testing.assert_array_equal(np.isposinf(got[name]), np.isposinf(b))
        seen += (~np.isfinite(b)).sum()
    assert seen >= 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_before_the_first_step_is_its_own_average(value: float) -> None:
    """As the log_alpha of a gate that is always open, or never."""
    runs = [Run(f, np.float64) for f in (by_twin, by_original)]
    for run in runs:
        run.params["2.log_alpha"][9, 1] = value
        run.step(0)
        run.step(1)
    got, wanted = (run.contents()["average:average/2.log_alpha"] for run in runs)
    np.testing.assert_array_equal(got[9, 1], value)
    np.testing.assert_allclose(got, wanted, rtol=1e-13)


def test_errors_are_the_originals_and_change_nothing() -> None:
    for wrong in ({"0.bias": np.zeros(7)}, {"0.weight": 1}):
        messages = []
        for function in (by_twin, by_original):
            run = Run(function, np.float64)
            run.step(0)
            before = {n: np.copy(a) for n, a in run.contents().items()}
            with pytest.raises(ValueError, match="same names") as error:
                run.step_and_average(run.optimizer, run.average, run.params, wrong, run.buffers)
            messages.append(str(error.value))
            for name, a in run.contents().items():
                np.testing.assert_array_equal(a, before[name])
        assert messages[0] == messages[1]


def test_a_parameter_that_cannot_be_written_is_the_originals_error() -> None:
    for step in (by_twin, by_original):
        optimizer, average = Adam(0.1), TemporalAverage(0.9)
        params, grads = {"0.weight": np.ones((2, 3))}, {"0.weight": np.full((2, 3), 0.5)}
        step(optimizer, average, params, grads, {})
        params["0.weight"].flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            step(optimizer, average, params, grads, {})


# --- whether all is finite ---


@both_dtypes
@pytest.mark.parametrize("size", [1, 300, FEW - 1, FEW, 3 * FEW + 5])
@pytest.mark.parametrize("layout", ["whole", "strided"])
def test_all_finite(dtype: Any, size: int, layout: str) -> None:
    values = (
        np.random.default_rng(size).normal(size=(size, 1 + (layout == "strided"))).astype(dtype)
    )
    values = values[:, 0]
    assert jit.TWINS[all_finite](values) is True
    values /= abs(values).max()
    values *= np.finfo(dtype).max / 2  # finite, though their squares are not
    assert jit.TWINS[all_finite](values) is True
    for place in {0, size // 2, size - 1}:
        for odd in (np.nan, np.inf, -np.inf):
            before, values[place] = values[place], odd
            assert jit.TWINS[all_finite](values) is False
            values[place] = before
    values[0], values[-1] = np.inf, -np.inf
    assert jit.TWINS[all_finite](values) is False


@pytest.mark.parametrize("values", [
    np.float16([1, np.nan]), np.array([1, 2]), np.zeros((0, 3)), np.array([1j, np.inf]),
    np.ma.masked_array([1.0, np.nan], [False, True]),
], ids=["float16", "int", "empty", "complex", "masked"])  # fmt: skip
def test_all_finite_of_what_no_kernel_takes(values: Any) -> None:
    assert jit.TWINS[all_finite](values) is all_finite(values)


def test_threads_find_the_numbers_that_they_wrote() -> None:
    """Turns are shared out in order: the first half of each parameter comes before any second."""
    rng = np.random.default_rng(0)
    sizes = {"0.weight": 40 * NEAR, "0.bias": 7, "2.weight": 10 * NEAR + 3}
    params = {name: rng.normal(size=size) for name, size in sizes.items()}
    moves = Moves(params, [(a, a.copy(), a.copy(), a.copy()) for a in params.values()])
    _, whose, firsts, *_ = moves._arguments
    n_turns = [-(-size // NEAR) for size in sizes.values()]
    shares = [first / NEAR / n_turns[p] for p, first in zip(whose, firsts, strict=True)]
    assert shares == sorted(shares)
    covered = {p: sorted(first for q, first in zip(whose, firsts, strict=True) if p == q)
               for p in set(whose)}  # fmt: skip
    for p, size in enumerate(sizes.values()):
        assert covered[p] == list(range(0, size, NEAR))
