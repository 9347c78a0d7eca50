"""Twins of noise, gate drawing and the gates' gradient: the originals' numbers, or their bits.

Tolerances of draws. The kernel's q = (1-u)/alpha has a relative error of 2 eps (exp 1, 1-u 1/2, the
product 1/2), u one of 1/2, and (q/u)^(1/beta), with what rounds on the way, one of 4/beta.
At most 1/4 of that comes into s, and less than 1/10 of it into s(1-s). The stretch multiplies the
error of s by zeta - gamma. With the roundings of what follows, and those of the original,
(2 + 2/beta) eps of that width for z, and (4 + 4/beta) eps of its greatest value for the slope, are
enough.
"""

import re
from collections.abc import Callable, Iterator
from math import exp, inf, log, nan
from typing import Any

import numba
import numpy as np
import pytest

from l0ref import hard_concrete, noise, penalties
from l0ref.gates import per_input
from l0ref.jit import TWINS, _compile
from l0ref.jit import hard_concrete as fast_hard_concrete
from l0ref.jit import noise as fast_noise
from l0ref.jit import penalties as fast_penalties
from l0ref.jit._registry import NotForKernel
from l0ref.jit._vectors import BYTES, in_whole_registers
from l0ref.noise import Noise, Stream, Uniforms
from tests.without_numba import run_without_numba

DTYPES = (np.float32, np.float64)
BETAS = (2 / 3, 0.5, 1.0, 2.0, 1 / 3, 2 / 7, 0.7, 0.1, 3.0)  # 2/m, m < 5: the first four
LAWS = ({}, {"gamma": -0.3, "zeta": 1.7}, {"gamma": -1.5, "zeta": 1.01})
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_beta = pytest.mark.parametrize("beta", BETAS)

sample_and_slope: Any = fast_hard_concrete.sample_and_slope
gate_gradient: Any = fast_penalties.gate_gradient
uniform_words: Any = fast_noise.uniform_words


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set the number of threads of kernels, as far as there are as many."""
    before = numba.get_num_threads()
    yield lambda n: numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    numba.set_num_threads(before)


def draw(shape: tuple[int, ...], step: int = 1) -> Uniforms:
    return Noise(2**40 + 77).draws(Stream.GATES, shape, layer=3, step=step)


def log_alphas(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * rng.choice([0.5, 3, 30, 150], size=shape)).astype(dtype)


def assert_drawn(got: Any, log_alpha: Any, u: Any, beta: float, law: dict[str, float]) -> None:
    """Compare with the original; at a kink either side may be right for the slope."""
    z, slope = got
    exact_z, exact_slope = hard_concrete.sample_and_slope(log_alpha, u, beta=beta, **law)
    assert z.dtype == slope.dtype == log_alpha.dtype
    assert z.shape == slope.shape == exact_z.shape
    eps = float(np.finfo(log_alpha.dtype).eps)
    gamma, zeta = law.get("gamma", -0.1), law.get("zeta", 1.1)
    tolerance = (2 + 2 / beta) * eps * (zeta - gamma)
    np.testing.assert_allclose(z, exact_z, rtol=0, atol=tolerance)
    wide = {"gamma": -1e3, "zeta": 1e3}  # nothing is clipped: where s itself is to be seen
    s = (hard_concrete.sample(log_alpha.astype(np.float64), u, beta=beta, **wide) + 1e3) / 2e3
    s_bar = s * (zeta - gamma) + gamma
    kink = 1e-12 + 2 * tolerance  # 1e-12: what is left of s_bar out of that wide law
    at_kink = (np.abs(s_bar) < kink) | (np.abs(s_bar - 1) < kink)
    assert at_kink.mean() < 0.01
    scale = (zeta - gamma) / beta / 4
    np.testing.assert_allclose(
        slope[~at_kink], exact_slope[~at_kink], rtol=0, atol=(4 + 4 / beta) * eps * scale
    )
    np.testing.assert_array_equal((slope == 0)[~at_kink], (exact_slope == 0)[~at_kink])
    np.testing.assert_array_equal((z == 0)[~at_kink], (exact_z == 0)[~at_kink])
    np.testing.assert_array_equal((z == 1)[~at_kink], (exact_z == 1)[~at_kink])


# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(), (1,), (2,), (3,), (4,), (5,), (17,), (3, 5, 7), (8191,), (8193,), (10_000, 3)]
)
def test_words_are_the_originals_bit_for_bit(shape: tuple[int, ...]) -> None:
    for draws in (draw(shape), Uniforms(2**64 - 1, 255, 2**24 - 1, 2**64 - 1, shape)):
        got = uniform_words.twin(draws)
        assert got.dtype == np.uint32
        assert got.shape == shape
        np.testing.assert_array_equal(got, noise.uniform_words(draws))


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_loops_that_ask_for_it_run_on_whole_registers() -> None:
    """What the compiler takes without being asked depends on the processor."""

    @_compile.kernel
    def roots(x, out):  # type: ignore[no-untyped-def]
        in_whole_registers()
        for i in range(x.size):
            out[i] = np.sqrt(x[i])

    x = np.arange(100, dtype=np.float32)
    compiled = roots._compile(cache=False)
    compiled(x, np.empty_like(x))
    (asked,) = compiled.inspect_llvm().values()
    assert f'"prefer-vector-width"="{8 * BYTES}"' in asked
    if BYTES == 64:
        (code,) = compiled.inspect_asm().values()
        assert re.search(r"vsqrtps[^\n]*%zmm", code)


def test_words_of_an_empty_draw_are_the_originals() -> None:
    with pytest.raises(NotForKernel):
        uniform_words.twin(draw((0, 3)))
    assert uniform_words(draw((0, 3))).shape == (0, 3)


def test_words_do_not_depend_on_the_threads(threads: Callable[[int], None]) -> None:
    draws = draw((50_001,))
    threads(1)
    alone = uniform_words.twin(draws)
    threads(2)
    np.testing.assert_array_equal(alone, uniform_words.twin(draws))


# --- drawing --------------------------------------------------------------------------------------


@every_dtype
@every_beta
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", ["draw", "float64", "float32"])
def test_draws_are_the_originals(dtype: Any, beta: float, law: dict[str, float], kind: str) -> None:
    log_alpha = log_alphas((7, 601), dtype)
    u: Any = draw((7, 601), step=int(100 * beta))
    if kind != "draw":
        u = np.random.default_rng(1).uniform(2.0**-24, 1 - 2.0**-24, (7, 601)).astype(kind)
    got = sample_and_slope.twin(log_alpha, u, beta=beta, **law)
    assert_drawn(got, log_alpha, u, beta, law)


@every_dtype
@pytest.mark.parametrize(
    ("shape", "n"),
    [((1,), 1), ((1,), 9001), ((3,), 5), ((5, 41), 60), ((4097,), 3), ((2, 1, 3), 2)],
)
@pytest.mark.parametrize("lazy", [True, False])
def test_draws_for_each_example(dtype: Any, shape: tuple[int, ...], n: int, lazy: bool) -> None:
    log_alpha = np.random.default_rng(3).normal(size=shape).astype(dtype)
    u: Any = draw((n, *shape))
    u = u if lazy else np.asarray(u)
    got = sample_and_slope.twin(log_alpha, u)
    assert_drawn(got, log_alpha, u, 2 / 3, {})


@every_dtype
@every_beta
def test_the_tails_of_the_noise_keep_their_digits(dtype: Any, beta: float) -> None:
    """log_alpha undoes nearly all of logit u: a digit lost in u or in 1 - u would show."""
    draws = draw((400_000,))
    u = np.asarray(draws)
    order = np.argsort(u)
    k = draws.words()
    assert k.min() < 2**17  # both tails are met
    assert k.max() >= 2**32 - 2**17
    spread = np.random.default_rng(2).uniform(-1, 1, u.size)
    log_alpha = (np.log1p(-u) - np.log(u) + beta * spread).astype(dtype)
    ends = np.r_[order[:3000], order[-3000:]]
    got = sample_and_slope.twin(log_alpha, draws, beta=beta)
    assert_drawn([a[ends] for a in got], log_alpha[ends], u[ends], beta, {})


@every_dtype
@every_beta
@pytest.mark.parametrize("end", [2.0**-53, 1 - 2.0**-53])
def test_the_ends_of_given_noise(dtype: Any, beta: float, end: float) -> None:
    logit = log(end) - np.log1p(-end)
    log_alpha = np.linspace(-200, 200, 4001).astype(dtype)
    log_alpha[::2] = (-logit + np.linspace(-8, 8, 2001)).astype(dtype)
    u = np.full(log_alpha.shape, end)
    assert_drawn(sample_and_slope.twin(log_alpha, u, beta=beta), log_alpha, u, beta, {})


@every_dtype
@every_beta
def test_nan_stays_and_infinity_decides(dtype: Any, beta: float) -> None:
    log_alpha = np.array([nan, inf, -inf, 1e30, -1e30, 300, -300, nan, 0], dtype=dtype)
    closed = np.array([nan, 1, 0, 1, 0, 1, 0, nan], dtype=dtype)
    for u in (draw((4, 9)), np.asarray(draw((4, 9), step=2))):
        z, slope = sample_and_slope.twin(log_alpha, u, beta=beta)
        for row in range(4):
            np.testing.assert_array_equal(z[row, :-1], closed)
            np.testing.assert_array_equal(slope[row, :-1], np.where(np.isnan(closed), nan, 0))
        assert np.isfinite(z[:, -1]).all()


@every_dtype
@every_beta
def test_draws_do_not_depend_on_the_threads(
    threads: Callable[[int], None], dtype: Any, beta: float
) -> None:
    log_alpha = log_alphas((20_003,), dtype)
    for u in (draw((20_003,)), np.asarray(draw((20_003,)))):
        threads(1)
        alone = sample_and_slope.twin(log_alpha, u, beta=beta)
        threads(2)
        both = sample_and_slope.twin(log_alpha, u, beta=beta)
        for one, other in zip(alone, both, strict=True):
            assert one.tobytes() == other.tobytes()


@every_dtype
def test_inputs_may_have_any_strides_and_are_not_changed(dtype: Any) -> None:
    log_alpha = log_alphas((40, 30), dtype).T[::2, ::3]
    u = np.asarray(draw((20, 30)))[::-1, ::2].T[:, :14].T[:14].T
    assert not log_alpha.flags.c_contiguous
    assert not u.flags.c_contiguous
    assert log_alpha.shape == u.shape == (15, 14)
    log_alpha.flags.writeable = u.flags.writeable = False
    before = log_alpha.copy(), u.copy()
    got = sample_and_slope.twin(log_alpha, u)
    assert_drawn(got, log_alpha, u, 2 / 3, {})
    np.testing.assert_array_equal(log_alpha, before[0])
    np.testing.assert_array_equal(u, before[1])


@every_dtype
def test_sample_is_the_first_half(dtype: Any) -> None:
    log_alpha = log_alphas((501,), dtype)
    sample: Any = fast_hard_concrete.sample
    for u in (draw((2, 501)), np.asarray(draw((2, 501)))):
        z, _ = sample_and_slope.twin(log_alpha, u, beta=0.4, gamma=-0.2)
        np.testing.assert_array_equal(sample.twin(log_alpha, u, beta=0.4, gamma=-0.2), z)


def test_gates_draw_with_noise_that_is_not_made_yet() -> None:
    gates = per_input((301, 20), beta=0.5)
    log_alpha = log_alphas(gates.shape, np.float32)
    lazy, made = (
        gates.draw(log_alpha, draw((4, 301))),
        gates.draw(log_alpha, np.array(draw((4, 301)))),
    )
    for one, other in zip(lazy, made, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"log_alpha must have shape \(301,\), got \(300,\)"):
        gates.draw(log_alpha[1:], draw((300,)))


A = np.array([[0.3, -1.2, 2.5], [0.1, 4.0, -0.7]])
U = np.array([[0.2, 0.9, 0.4], [0.7, 0.03, 0.6]])
LEFT_TO_THE_ORIGINAL = {
    "float16": (A.astype(np.float16), U, {}),
    "integers": (A.astype(np.int32), U, {}),
    "lists": (A.tolist(), U.tolist(), {}),
    "scalars": (0.5, 0.3, {}),
    "no axes": (np.array(0.5), np.array(0.3), {}),
    "no axes, drawn": (np.array(0.5), draw(()), {}),
    "empty": (np.zeros((0, 3)), np.zeros((0, 3)), {}),
    "empty, drawn": (np.zeros((0, 3)), draw((0, 3)), {}),
    "no examples": (A, draw((0, 2, 3)), {}),
    "masked": (np.ma.array(A, mask=A > 3), U, {}),
    "other byte order": (A.astype(A.dtype.newbyteorder()), U, {}),
    "u of 16 bits": (A, U.astype(np.float16), {}),
    "u for a row": (A, U[0], {}),
    "u one for all": (A, U[:1, :1], {}),
    "u with two axes more": (A, draw((2, 2, 2, 3)), {}),
    "beta an array": (A, U, {"beta": np.array([0.5, 0.6, 0.7])}),
    "beta of one number": (A, U, {"beta": np.float32(0.5)}),
    "a sharp beta": (A, U, {"beta": 0.01}),
    "a wide stretch": (A, U, {"gamma": -30.0}),
    "u near 0": (A, U * 1e-300, {}),
}
REFUSED = {
    "u of 0": (A, U * 0, {}, "u must lie strictly between 0 and 1, got 0"),
    "u of 1": (A, np.where(U > 0.8, 1.0, U), {}, "u must .* got 1"),
    "u above 1": (A, np.where(U > 0.8, 1.5, U), {}, "u must .* got 1.5"),
    "u of nan": (A, np.where(U > 0.8, nan, U), {}, "u must .* got nan"),
    "beta": (A, draw((2, 3)), {"beta": 0.0}, "beta must be positive"),
    "beta nan": (A, draw((2, 3)), {"beta": nan}, "beta must be positive"),
    "gamma": (A, draw((2, 3)), {"gamma": 0.0}, "gamma must be negative"),
    "zeta": (A, draw((2, 3)), {"zeta": 1.0}, "zeta must be above 1"),
    "shapes": (A, draw((3, 2)), {}, "broadcast"),
    "complex": (A + 0j, U, {}, "log_alpha must be real"),
}


@pytest.mark.parametrize("case", LEFT_TO_THE_ORIGINAL)
def test_what_the_kernel_does_not_take_the_original_does(case: str) -> None:
    log_alpha, u, law = LEFT_TO_THE_ORIGINAL[case]
    with pytest.raises(NotForKernel):
        sample_and_slope.twin(log_alpha, u, **law)
    exact = hard_concrete.sample_and_slope(log_alpha, u, **law)
    for one, other in zip(sample_and_slope(log_alpha, u, **law), exact, strict=True):
        assert type(one) is type(other)
        np.testing.assert_array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_refused_in_the_originals_words(case: str) -> None:
    log_alpha, u, law, message = REFUSED[case]
    for function in (sample_and_slope, hard_concrete.sample_and_slope):
        with pytest.raises(ValueError, match=message):
            function(log_alpha, u, **law)


# --- the gradient ---------------------------------------------------------------------------------


def case(shape: tuple[int, ...], n: int | None, dtype: Any, bound: float = 25.0) -> Any:
    rng = np.random.default_rng(8)
    log_alpha = rng.uniform(-bound, bound, size=shape).astype(dtype)
    full = shape if n is None else (n, *shape)
    dz = rng.normal(size=full).astype(dtype)
    slope = rng.uniform(0, 0.5, size=full).astype(dtype)
    return dz, slope, log_alpha, rng.integers(1, 700, size=shape)


def test_the_gradient_is_what_its_equation_says() -> None:
    """One gate at a time, in Python's floats."""
    dz, slope, log_alpha, size = case((3, 4), 5, np.float64, 6)
    law = {"beta": 0.4, "gamma": -0.2, "zeta": 1.3}
    got, l0 = penalties.gate_gradient(dz, slope, log_alpha, size, lam=0.03, **law)
    count = 0.0
    for index in np.ndindex(3, 4):
        on = 1 / (1 + exp(0.4 * log(0.2 / 1.3) - log_alpha[index]))
        through = sum(dz[(n, *index)] * slope[(n, *index)] for n in range(5))
        assert got[index] == pytest.approx(through + 0.03 * size[index] * on * (1 - on), rel=1e-13)
        count += size[index] * on
    assert l0 == pytest.approx(count, rel=1e-13)
    assert isinstance(l0, float)


@pytest.mark.parametrize("wrong", ["dz", "slope", "both"])
def test_the_gradient_refuses_other_shapes(wrong: str) -> None:
    dz, slope, log_alpha, size = case((3, 4), None, np.float64)
    dz = dz.T if wrong in ("dz", "both") else dz
    slope = slope.T if wrong in ("slope", "both") else slope
    for function in (penalties.gate_gradient, gate_gradient):
        with pytest.raises(ValueError, match=r"must both have the shape of log_alpha, \(3, 4\)"):
            function(dz, slope, log_alpha, size, lam=0.1)


@every_dtype
@pytest.mark.parametrize(
    ("shape", "n"),
    [((1,), None), ((1,), 4), ((3, 701), None), ((3, 701), 6), ((1023,), 1), ((2049,), None)],
)
@pytest.mark.parametrize("beta", [2 / 3, 0.3, 2.0])
@pytest.mark.parametrize("law", LAWS)
def test_gradients_are_the_originals(
    dtype: Any, shape: tuple[int, ...], n: int | None, beta: float, law: dict[str, float]
) -> None:
    dz, slope, log_alpha, size = case(shape, n, dtype)
    options = {"lam": 0.013, "beta": beta, **law}
    got, l0 = gate_gradient.twin(dz, slope, log_alpha, size, **options)
    exact, exact_l0 = penalties.gate_gradient(dz, slope, log_alpha, size, **options)
    assert got.dtype == exact.dtype == dtype
    assert got.shape == exact.shape == shape
    eps = float(np.finfo(dtype).eps)
    # A sigmoid's error in either, 8 eps (1 + |t|) with |t| < 36 (the original's, relative to each);
    # and one rounding for each term of the sum over examples, relative to what is added up.
    penalty, _ = penalties.gate_gradient(0 * dz, slope, log_alpha, size, **options)
    terms = np.abs(dz * slope).sum(axis=0) if n is not None else np.abs(dz * slope)
    tolerance = eps * (40 * penalty + (4 + (n or 1)) * (terms + penalty))
    assert (np.abs(got - exact) <= tolerance).all()
    assert l0 == pytest.approx(exact_l0, rel=40 * eps)
    alone, _ = gate_gradient.twin(0 * dz, slope, log_alpha, size, **options)
    assert (np.abs(alone - penalty) <= 45 * eps * penalty).all()  # in the tails too


@every_dtype
def test_gradients_do_not_depend_on_the_threads(threads: Callable[[int], None], dtype: Any) -> None:
    for n in (None, 3):
        arguments = case((10_007,), n, dtype)
        threads(1)
        alone = gate_gradient.twin(*arguments, lam=0.2)
        threads(2)
        both = gate_gradient.twin(*arguments, lam=0.2)
        assert alone[0].tobytes() == both[0].tobytes()
        assert alone[1] == both[1]


@every_dtype
def test_gradients_of_nan_and_infinity(dtype: Any) -> None:
    log_alpha = np.array([inf, -inf, 1e30, -1e30, nan, 0.0], dtype=dtype)
    dz = np.array([0.5, -2, 3, 1, 1, nan], dtype=dtype)
    slope, size = np.full(6, 0.25, dtype=dtype), np.arange(1, 7)
    got, l0 = gate_gradient.twin(dz, slope, log_alpha, size, lam=0.1)
    np.testing.assert_array_equal(got[:4], dz[:4] / 4)
    assert np.isnan(got[4:]).all()
    assert np.isnan(l0)
    _, counted = gate_gradient.twin(dz[:4], slope[:4], log_alpha[:4], size[:4], lam=0.1)
    assert counted == 1 + 3


def test_gradients_take_any_strides_and_change_nothing() -> None:
    dz, slope, log_alpha, size = case((30, 40), 3, np.float32)
    arguments = dz[..., ::2], slope[:, :, ::-2], log_alpha.T[::2].T, size[:, :20]
    for array in arguments:
        array.flags.writeable = False
    packed = [np.ascontiguousarray(a) for a in arguments]
    one = gate_gradient.twin(*arguments, lam=0.2)
    other = gate_gradient.twin(*packed, lam=0.2)
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1] == other[1]


def changed(**changes: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    dz, slope, log_alpha, size = case((3, 4), None, np.float64)
    given = {"dz": dz, "slope": slope, "log_alpha": log_alpha, "group_size": size} | changes
    names = ("dz", "slope", "log_alpha", "group_size")
    options = {name: value for name, value in given.items() if name not in names}
    return tuple(given[name] for name in names), {"lam": 0.1} | options


GRADIENTS_LEFT = {
    "one size": changed(group_size=1),
    "sizes of 32 bits": changed(group_size=np.ones((3, 4), dtype=np.int32)),
    "sizes of a row": changed(group_size=np.arange(1, 5)),
    "integers": changed(dz=np.ones((3, 4), dtype=int)),
    "other dtypes": changed(slope=np.ones((3, 4), dtype=np.float32)),
    "lists": changed(dz=np.ones((3, 4)).tolist()),
    "no examples": changed(dz=np.ones((0, 3, 4)), slope=np.ones((0, 3, 4))),
    "beta an array": changed(beta=np.array([0.5, 0.6, 0.7, 0.8])),
    "a far shift": changed(beta=20.0),
    "an infinite lam": changed(lam=inf),
}


@pytest.mark.parametrize("name", GRADIENTS_LEFT)
def test_gradients_that_the_kernel_does_not_take(name: str) -> None:
    arguments, options = GRADIENTS_LEFT[name]
    with pytest.raises(NotForKernel):
        gate_gradient.twin(*arguments, **options)
    got, l0 = gate_gradient(*arguments, **options)
    exact, exact_l0 = penalties.gate_gradient(*arguments, **options)
    np.testing.assert_array_equal(got, exact)
    assert got.dtype == exact.dtype
    assert l0 == exact_l0


@pytest.mark.parametrize(("name", "value"), [("beta", 0.0), ("gamma", 0.1), ("zeta", 0.9)])
def test_gradients_refuse_what_the_original_refuses(name: str, value: float) -> None:
    arguments, options = changed(**{name: value})
    with pytest.raises(ValueError, match=f"{name} must be"):
        gate_gradient(*arguments, **options)


# --- the twins as such ----------------------------------------------------------------------------


def test_each_is_registered() -> None:
    for original in (
        noise.uniform_words,
        hard_concrete.sample,
        hard_concrete.sample_and_slope,
        penalties.gate_gradient,
    ):
        assert TWINS[original].__name__ == original.__name__


WITHOUT_NUMBA = """
import warnings
warnings.simplefilter("error")
import numpy as np
from l0ref import hard_concrete, noise, penalties
from l0ref.jit.hard_concrete import sample_and_slope
from l0ref.jit.noise import uniform_words
from l0ref.jit.penalties import gate_gradient
draws = noise.Uniforms(5, 3, 1, 2, (2, 7))
np.testing.assert_array_equal(uniform_words.twin(draws), draws.words())
for dtype in (np.float32, np.float64):
    a = np.array([np.nan, np.inf, -np.inf, 0.3, -2, 100, -800], dtype=dtype)
    for beta in (2 / 3, 0.7):
        for u in (draws, np.asarray(draws)):
            got = sample_and_slope.twin(a, u, beta=beta)
            exact = hard_concrete.sample_and_slope(a, u, beta=beta)
            for one, other in zip(got, exact):
                assert one.dtype == dtype
                np.testing.assert_allclose(one, other, atol=10 * np.finfo(dtype).eps)
    size = np.arange(1, 8)
    dz = np.linspace(-1, 1, 14).astype(dtype).reshape(2, 7)
    given = dz, np.abs(dz), np.nan_to_num(a, posinf=9, neginf=-9), size
    got, l0 = gate_gradient.twin(*given, lam=0.1)
    exact, exact_l0 = penalties.gate_gradient(*given, lam=0.1)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, exact, rtol=100 * np.finfo(dtype).eps)
    np.testing.assert_allclose(l0, exact_l0, rtol=100 * np.finfo(dtype).eps)
print("same")
"""


def test_the_kernels_run_as_plain_python() -> None:
    """NUMBA_DISABLE_JIT, with which one debugs, gives the same numbers."""
    assert run_without_numba(WITHOUT_NUMBA) == "same"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (5, 3), (4099,)])
def test_one_size_of_all_gates_is_as_many_equal_ones(dtype: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(8)
    log_alpha, dz, slope = (rng.normal(size=shape).astype(dtype) for _ in range(3))
    law = {"lam": 0.03, "beta": 0.6, "gamma": -0.2, "zeta": 1.3}
    one = np.broadcast_to(np.int64(37), shape)
    got, count = TWINS[penalties.gate_gradient](dz, slope, log_alpha, one, **law)
    expected, count_expected = penalties.gate_gradient(dz, slope, log_alpha, one, **law)
    eps = np.finfo(dtype).eps
    # A product, and a penalty of some four roundings and one exponential.
    np.testing.assert_allclose(got, expected, rtol=0, atol=16 * eps * np.abs(expected).max())
    assert abs(count - count_expected) <= 16 * eps * count_expected
    many, count_many = TWINS[penalties.gate_gradient](dz, slope, log_alpha, one.copy(), **law)
    np.testing.assert_allclose(got, many, rtol=2 * eps, atol=eps * np.abs(expected).max())
    assert abs(count - count_many) <= 4 * eps * count

    draws = np.stack([dz, slope, -2 * dz])  # one draw an example
    got, count = TWINS[penalties.gate_gradient](draws, draws + 1, log_alpha, one, **law)
    expected, count_expected = penalties.gate_gradient(draws, draws + 1, log_alpha, one, **law)
    np.testing.assert_allclose(got, expected, rtol=0, atol=32 * eps * np.abs(expected).max())
    assert abs(count - count_expected) <= 16 * eps * count_expected
