"""A target's own draws: what is honest passes at the stated rate, what is planted is caught."""

import math
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from l0ref.hard_concrete import HardConcrete
from l0ref.oracle import draw_tests, hygiene, samplers, targets
from l0ref.oracle.calls import Calls
from l0ref.oracle.check import Status, check
from l0ref.oracle.reference import reference
from tests.honest_target import Honest, only, planted

DTYPES = ("float64", "float32")
HONEST = Honest()
SMALL = (2**10, 2**11, 2**12, 2**13)


def calls_of(target: Any) -> Calls:
    return Calls(targets.open_target(target))


def drawn(
    own: Any, dtype: str = "float64", seed: int = 0, *, quick: bool = True, **options: Any
) -> samplers.Drawn:
    return samplers.check_draw(calls_of(only(draw=own)), dtype, seed=seed, quick=quick, **options)


def pulled(own: Any, dtype: str = "float64", **functions: Any) -> samplers.Drawn:
    calls = calls_of(only(draw_vjp=own, **functions))
    return samplers.check_draw_vjp(calls, dtype, seed=0, quick=True)


def noise(n: int, shape: tuple[int, ...], seed: int) -> Any:
    return np.maximum(np.random.default_rng(seed).random((n, *shape)), 1e-12)


def gates(log_alpha: Any, u: Any, **law: float) -> Any:
    z = HONEST.sample(log_alpha.astype(np.float64), u, **law)
    return z.astype(log_alpha.dtype)


# --- honest ones ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", [HONEST, reference], ids=["plain", "reference"])
def test_honest_draws_pass(target: Any, dtype: str) -> None:
    calls = calls_of(target)
    for test in (samplers.check_draw, samplers.check_draw_vjp):
        found = test(calls, dtype, seed=11, quick=True)
        assert found.message == ""
        assert found.failure is None
        assert found.n_checks > 5


def test_draws_in_single_precision_noise_pass() -> None:
    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        u = np.random.default_rng(seed).random((n, *log_alpha.shape), np.float32)
        u = np.maximum(u, np.float32(2**-25))
        return HONEST.sample(log_alpha.astype(np.float32), u, **law).astype(log_alpha.dtype)

    assert drawn(draw, "float32").message == ""


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_of_a_seed_may_be_rounded_otherwise(dtype: str) -> None:
    n_calls = count()

    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        z = gates(log_alpha, noise(n, log_alpha.shape, seed), **law)
        inside = (z > 0) & (z < 1)
        return np.where(inside & (next(n_calls) % 2 == 1), np.nextafter(z, np.ones_like(z)), z)

    assert drawn(draw, dtype).message == ""


def test_all_chances_of_a_false_alarm_add_up_to_what_is_promised() -> None:
    spent = 0.0
    for dtype in DTYPES:
        calls = calls_of(HONEST)
        spent += samplers.check_draw(calls, dtype, seed=3).spent
        spent += samplers.check_draw_vjp(calls, dtype, seed=3).spent
    assert 0.2 * draw_tests.ALPHA < spent <= draw_tests.ALPHA * (1 + 1e-9)


@pytest.mark.parametrize("threads", [0, 2])
def test_the_alarm_is_of_the_test_that_was_begun_first(threads: int) -> None:
    """Whichever is done first; and what was begun after it does not count."""

    def test(seconds: float, message: str, budget: draw_tests.Budget) -> None:
        time.sleep(seconds)
        budget.spend(1.0)
        if message:
            raise draw_tests.Alarm(message)

    def all_three(tests: samplers._Tests) -> None:
        tests.begin(test, 0.0, "")
        tests.begin(test, 0.2, "slow")
        tests.begin(test, 0.0, "quick")
        tests.finish()

    with samplers._Tests(threads) as tests:
        with pytest.raises(draw_tests.Alarm, match="slow"):
            all_three(tests)
        assert (tests.budget.spent, tests.budget.n_tests) == (2.0, 2)


def test_an_alarm_is_raised_while_more_is_drawn() -> None:
    def alarm(budget: draw_tests.Budget) -> None:
        raise draw_tests.Alarm("early")

    def wait(budget: draw_tests.Budget) -> None:
        time.sleep(0.5)

    with samplers._Tests(1) as tests:
        tests.begin(alarm)
        tests.begin(wait)
        tests.begin(wait)
        time.sleep(0.1)
        with pytest.raises(draw_tests.Alarm, match="early"):
            tests.collect()
        tests.finish()  # of the rest nothing is left


def test_what_was_found_is_told_though_the_target_ends_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import os\nimport numpy as np\n"
        "from tests.honest_target import Honest\n"
        "def draw(log_alpha, n, seed, **law):\n"
        "    if n >= 2**17 or log_alpha.dtype == np.float32: os._exit(3)\n"
        "    u = np.random.default_rng(seed).random((n, *log_alpha.shape)).clip(1e-12) ** 1.1\n"
        "    return Honest().sample(log_alpha, u, **law)\n"
    )
    found = check(str(path), functions=["draw"], quick=True)
    (outcome,) = (o for o in found.outcomes if o.phase == "draws")
    assert outcome.status is Status.FAILED
    assert "P(z = " in outcome.message


def test_gates_so_far_do_not_change_when_more_are_drawn() -> None:
    made = draw_tests.Gates(np.zeros(1), samplers.LAW)
    seen: Any = None
    made.add(np.zeros((3, 1)), seen)
    before = made.so_far()
    made.add(np.ones((2, 1)), seen)
    assert (before.n, made.n) == (3, 5)
    assert before.all_scores().shape == (1, 3)
    assert made.all_scores().shape == (1, 5)


@pytest.mark.parametrize(
    ("change", "says"),
    [("", ""), ("u[:, 1] = u[:, 0]", "they share noise")],
    ids=["honest", "shared noise"],
)
def test_the_same_is_found_in_a_process_of_its_own(change: str, says: str, tmp_path: Path) -> None:
    """There, draws are tested in threads while more are drawn: the tests and verdicts are alike."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\n"
        "from tests.honest_target import Honest\n"
        "def draw(log_alpha, n, seed, **law):\n"
        "    u = np.random.default_rng(seed).random((n, *log_alpha.shape)).clip(1e-12)\n"
        f"    {f'if log_alpha.shape == (3,): {change}' if change else ''}\n"
        "    return Honest().sample(log_alpha.astype(float), u, **law).astype(log_alpha.dtype)\n"
    )
    found = []
    for isolate in (False, None):
        with targets.open_target(str(path), isolate=isolate) as target:
            found.append(samplers.check_draw(Calls(target), "float64", seed=5, quick=True))
    here, there = found
    assert says in here.message
    assert (here.message, here.n) == (there.message, there.n)
    assert here.spent == pytest.approx(there.spent)


def test_the_arithmetic_of_the_docstring() -> None:
    share = draw_tests.Budget().share(2 * len(samplers.LOG_ALPHA))
    assert share == pytest.approx(1e-6 / (2 * 12 * 7 * 6))
    assert len(draw_tests.FAMILIES) == 12
    assert f"{share:.1e}" == "9.9e-10"
    threshold = stats.norm.isf(share / 2)
    assert f"{threshold:.1f}" == "6.1"
    law = HardConcrete(np.array(samplers.LOG_ALPHA), **samplers.LAW)
    masses = np.sort(np.concatenate([law.prob_zero(), law.prob_one()]))
    shift = 0.02 * np.sqrt(samplers.LOOKS[-1] * masses / (1 - masses))
    assert f"{masses[0]:.4f}" == "0.0977"
    assert f"{shift[0]:.1f}" == "9.5"
    assert f"{stats.norm.sf(shift[0] - threshold):.0e}" == "3e-04"
    quick = np.sqrt(samplers.QUICK_LOOKS[-1] * masses[0] / (1 - masses[0]))
    assert 0.08 * quick == pytest.approx(shift[0], rel=0.01)


@pytest.mark.slow
def test_false_alarms_are_no_more_than_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a promise of 40 % for a dtype and small samples, 100 honest runs alarm less often."""
    monkeypatch.setattr(draw_tests, "ALPHA", 0.8)
    monkeypatch.setattr(draw_tests, "LOOKS", SMALL)
    monkeypatch.setattr(samplers, "LOOKS", SMALL)
    monkeypatch.setattr(samplers, "QUICK_LOOKS", SMALL)
    monkeypatch.setattr(samplers, "N_MANY", 50)
    monkeypatch.setattr(draw_tests, "NEAREST", 3)
    calls = calls_of(HONEST)
    alarms = sum(
        bool(samplers.check_draw(calls, "float64", seed=100 * seed, quick=True).message)
        for seed in range(60)
    )
    # 24 are promised at most; most tests are conservative, and some are much alike
    assert 0 < alarms <= 24


def test_of_a_sampler_that_is_slow_as_many_draws_are_made_as_there_is_time_for() -> None:
    """One call of all draws of the first look would take longer than a call may."""

    def slow(n: int) -> None:
        assert n * 2e-5 < 0.4
        time.sleep(n * 2e-5)

    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        slow(n)
        return gates(log_alpha, noise(n, log_alpha.shape, seed), **law)

    def draw_vjp(log_alpha: Any, n: int, seed: int, dz: Any, **law: float) -> Any:
        slow(n)
        return HONEST.draw_vjp(log_alpha, n, seed, dz, **law)

    calls = Calls(targets.open_target(only(draw=draw, draw_vjp=draw_vjp)), timeout=0.4)
    found = samplers.check_draw(calls, "float64", seed=0, seconds=2.0)
    assert (found.message, found.failure) == ("", None)
    assert samplers.FEWEST <= found.n < samplers.LOOKS[0]
    assert f"{found.n:,} draws of each gate were made rather than 2,097,152" in found.remark
    found = samplers.check_draw_vjp(calls, "float64", seed=0, seconds=1.0)
    assert found.message == ""
    assert found.n < samplers.CHUNK
    assert "rather than 131,072" in found.remark


@pytest.mark.parametrize(("seconds", "power"), [(4e-6, 1), (1e-7, 2)])
def test_a_sampler_that_takes_longer_the_more_gates_it_has_is_in_time(
    seconds: float, power: int
) -> None:
    """300 gates of as many draws as one call makes of 3 would take longer than a call may."""
    longest = 0.0

    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        nonlocal longest
        taken = seconds * n * log_alpha.size**power
        longest = max(longest, taken)
        time.sleep(taken)
        return gates(log_alpha, noise(n, log_alpha.shape, seed), **law)

    calls = Calls(targets.open_target(only(draw=draw)), timeout=0.4)
    found = samplers.check_draw(calls, "float64", seed=0, quick=True, seconds=3.0)
    assert (found.message, found.failure) == ("", None)
    assert 300**power * samplers.DRAWS_OF_MANY * seconds > 0.4 > longest


def test_one_that_takes_as_long_for_many_gates_as_for_few_gets_all_the_draws() -> None:
    drawn: dict[int, int] = {}

    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        drawn[log_alpha.size] = drawn.get(log_alpha.size, 0) + n
        time.sleep(1e-6 * n)
        return gates(log_alpha, noise(n, log_alpha.shape, seed), **law)

    calls = Calls(targets.open_target(only(draw=draw)), timeout=0.4)
    found = samplers.check_draw(calls, "float64", seed=0, quick=True)
    assert (found.message, found.failure) == ("", None)
    assert drawn[samplers.N_MANY] == samplers.DRAWS_OF_MANY
    assert drawn[samplers.N_WIDE] == samplers.DRAWS_OF_WIDE


# --- planted: the law ---


def with_smaller_atom(fraction: float, value: int, gate: int) -> Any:
    """Return a sampler that moves this fraction of an atom's draws inside, keeping that law."""

    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        z = gates(log_alpha, noise(n, log_alpha.shape, seed), **law)
        if log_alpha.shape != (3,):
            return z
        rng = np.random.default_rng([seed, 1])
        low, high = (HardConcrete(float(log_alpha[gate]), **law).cdf(x) for x in (0, 1 - 1e-12))
        moved = (z[:, gate] == value) & (rng.random(n) < fraction)
        inside = gates(log_alpha[gate], low + (high - low) * rng.random(n), **law)
        z[moved, gate] = inside[moved]
        return z

    return draw


@pytest.mark.parametrize(("value", "gate"), [(0, 0), (1, 0), (0, 2), (1, 2)])
def test_two_percent_of_an_atom_are_caught_in_ten_seconds(value: int, gate: int) -> None:
    calls = calls_of(only(draw=with_smaller_atom(0.02, value, gate)))
    start = time.thread_time()  # without the time that BLAS's own threads wait for work
    found = samplers.check_draw(calls, "float64", seed=5)
    assert time.thread_time() - start < 10
    assert f"gate [{gate}]" in found.message
    assert f"is exactly {value} in" in found.message
    assert abs(found.evidence["got"] / found.evidence["expected"] - 0.98) < 0.01


def test_an_error_that_is_large_is_caught_early() -> None:
    found = drawn(with_smaller_atom(0.5, 0, 1))
    assert found.n == samplers.LOOKS[0]
    assert "is exactly 0 in" in found.message


def without_beta(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(log_alpha, noise(n, log_alpha.shape, seed), **{**law, "beta": 1.0})


def of_the_default_law(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(log_alpha, noise(n, log_alpha.shape, seed), **samplers.LAW)


def flat_inside(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    z = gates(log_alpha, noise(n, log_alpha.shape, seed), **law)
    rng = np.random.default_rng([seed, 1])
    return np.where((z > 0) & (z < 1), rng.random(z.shape), z).astype(z.dtype)


def soft(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return np.clip(gates(log_alpha, noise(n, log_alpha.shape, seed), **law), 1e-6, 1 - 1e-6)


def places_mixed(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    other = np.ascontiguousarray(log_alpha.T).reshape(log_alpha.shape)
    return gates(other, noise(n, log_alpha.shape, seed), **law)


# --- planted: independence ---


def shared_noise(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    u = noise(n, log_alpha.shape, seed)
    return gates(log_alpha, np.broadcast_to(u[..., :1], u.shape), **law)


def one_reused(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    u = noise(n, log_alpha.shape, seed)
    if log_alpha.shape == (3,):
        u[:, 2] = u[:, 0]
    return gates(log_alpha, u, **law)


def mirrored(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    u = noise(n, log_alpha.shape, seed)
    if log_alpha.shape == (3,):
        u[:, 1] = 1 - u[:, 0]
    return gates(log_alpha, np.clip(u, 1e-12, 1 - 1e-12), **law)


def one_reused_later(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    u = noise(n, log_alpha.shape, seed)
    if log_alpha.shape == (3,):
        u[17:, 1] = u[:-17, 0]
    return gates(log_alpha, u, **law)


def tiled(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    u = noise(min(n, 4096) if log_alpha.shape == (3,) else n, log_alpha.shape, seed)
    return gates(log_alpha, np.resize(u, (n, *log_alpha.shape)), **law)


def of_columns(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    """The noise of 8 gates is used for all gates."""
    size = log_alpha.size
    u = noise(n, (min(size, 8),), seed)[:, np.arange(size) % 8]
    return gates(log_alpha, u.reshape(n, *log_alpha.shape), **law)


def last_mirrored(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    """The last of many gates has another one's noise, mirrored, in every tenth draw."""
    u = noise(n, log_alpha.shape, seed)
    if log_alpha.size > 8:
        u[::10, -1] = 1 - u[::10, 41]
    return gates(log_alpha, np.clip(u, 1e-12, 1 - 1e-12), **law)


def coarse(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    integers = np.random.default_rng(seed).integers(0, 2048, (n, *log_alpha.shape))
    return gates(log_alpha, (integers + 0.5) / 2048, **law)


def clamped_noise(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(log_alpha, np.clip(noise(n, log_alpha.shape, seed), 0.01, 0.99), **law)


def clamped_a_little(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(log_alpha, np.clip(noise(n, log_alpha.shape, seed), 0.001, 0.999), **law)


def colder(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    law |= {"beta": 1.1 * law["beta"]}
    return gates(log_alpha, noise(n, log_alpha.shape, seed), **law)


def one_for_everything(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(log_alpha, np.tile(noise(1, (), seed)[:, None], (n, log_alpha.size)).reshape(
        n, *log_alpha.shape), **law)  # fmt: skip


def clamped_parameter(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(np.clip(log_alpha, -3.5, 3.5), noise(n, log_alpha.shape, seed), **law)


def from_40000_on(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    u = noise(min(n, 40000), log_alpha.shape, seed)
    return gates(log_alpha, np.resize(u, (n, *log_alpha.shape)), **law)


def sticky(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    u = noise(n, log_alpha.shape, seed)
    u[1::4] = u[::4][: len(u[1::4])]
    return gates(log_alpha, u, **law)


# --- planted: noise that is spread otherwise than chance does it ---


def stratified(axis: int) -> Any:
    """Return a sampler of Latin hypercubes: a number in each stratum, over draws or over gates."""

    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        generator = np.random.default_rng(seed)
        shape = (n, log_alpha.size)
        strata = generator.permuted(np.indices(shape)[axis], axis=axis)
        u = (strata + generator.uniform(1e-9, 1 - 1e-9, shape)) / shape[axis]
        return gates(log_alpha, u.reshape(n, *log_alpha.shape), **law)

    return draw


def in_clusters(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    """Each gate of many goes a little with all the others of its draw, as none does of few."""
    u = noise(n, log_alpha.shape, seed)
    if log_alpha.size > 8:
        common = np.random.default_rng([seed, 1]).random((n, 1))
        is_common = np.random.default_rng([seed, 2]).random(u.shape) < 0.06
        u = np.where(is_common, common + 1e-3 * (u - common), u)
    return gates(log_alpha, u, **law)


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (stratified(1), "draws of 300 gates that are alike"),
        (stratified(0), "gates of 1,024 draws that are alike"),
        (in_clusters, "spread not evenly enough"),
    ],
)
def test_noise_that_is_spread_otherwise_than_chance_does_it_is_caught(draw: Any, says: str) -> None:
    alike = draw_tests.Gates(np.full(300, samplers.LOG_ALPHA_OF_MANY), samplers.LAW)
    alike.add(draw(alike.log_alpha, samplers.DRAWS_OF_MANY, 0, **alike.law), None)
    with pytest.raises(draw_tests.Alarm, match=says):
        alike.check_spread(draw_tests.Budget())
    for dtype in DTYPES:
        assert drawn(draw, dtype, quick=True).message


# --- planted: any two independent, three not ---


def sum_of_two(a: Any, b: Any, c: Any, shift: float = 0.0) -> Any:
    return (a + b + shift) % 1


def rotated_sum(a: Any, b: Any, c: Any) -> Any:
    return sum_of_two(a, b, c, 0.25)


def difference_of_two(a: Any, b: Any, c: Any) -> Any:
    return (a - b + 0.125) % 1


def xor_of_two(a: Any, b: Any, c: Any) -> Any:
    """Return c, but in the upper half if one of a and b is, and in the lower one if not."""
    return c / 2 + 0.5 * ((a > 0.5) ^ (b > 0.5))


MADE_OF_TWO = [sum_of_two, rotated_sum, difference_of_two, xor_of_two]


def made_of_two(made: Any, where: str) -> Any:
    """Return a sampler with noise that is made of two others' in one place."""

    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        u = noise(n, log_alpha.shape, seed)
        three = log_alpha.shape == (3,)
        if where == "three gates" and three:
            u[:, 2] = made(u[:, 0], u[:, 1], u[:, 2])
        elif where == "many gates" and log_alpha.size > 8:
            u[:, 77] = made(u[:, 3], u[:, 250], u[:, 77])
        elif where == "draws" and three:
            m = len(u[2::3])
            u[2::3] = made(u[0::3][:m], u[1::3][:m], u[2::3])
        return gates(log_alpha, np.clip(u, 1e-12, 1 - 1e-12), **law)

    return draw


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("three gates", "they share noise"),
        ("many gates", "[3], [77] and [250] go together"),
        ("draws", "one, that 3 behind it and that 6 behind it"),
    ],
)
@pytest.mark.parametrize("made", MADE_OF_TWO)
def test_noise_that_depends_in_threes_alone_is_caught(made: Any, where: str, says: str) -> None:
    for dtype in DTYPES:
        found = drawn(made_of_two(made, where), dtype, quick=dtype == "float64")
        assert says in found.message
        assert found.n == samplers.LOOKS[0]


def twice_the_second(a: Any, b: Any, c: Any) -> Any:
    return (a + 2 * b) % 1


def test_of_another_law_it_is_not_said_that_gates_share_noise() -> None:
    """Where each gate by itself explains how two go together."""
    found = drawn(colder)
    assert found.message.endswith("each by itself, they have another law (n = 32,768)")


def test_three_gates_that_no_product_shows_are_caught() -> None:
    for dtype in DTYPES:
        found = drawn(made_of_two(twice_the_second, "three gates"), dtype)
        assert " while gate [1] " in found.message
        assert " and gate [2] " in found.message
        assert "they share noise" in found.message


def test_a_lagged_fibonacci_generator_is_caught() -> None:
    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        u = list(noise(17, (), seed))
        while len(u) < n * log_alpha.size:
            u.append((u[-5] + u[-17]) % 1)
        made = np.clip(u[: n * log_alpha.size], 1e-12, 1 - 1e-12)
        return gates(log_alpha, made.reshape(n, *log_alpha.shape), **law)

    assert "one, that 12 behind it and that 17 behind it" in drawn(draw).message


@pytest.mark.parametrize("made", [*MADE_OF_TWO, twice_the_second])
def test_pairs_of_what_is_made_of_two_are_independent(made: Any) -> None:
    """So that it is the threes that are seen: no test of one or two gates has a reason to alarm."""
    rng = np.random.default_rng(0)
    a, b, c = rng.random((3, 100_000))
    u = made(a, b, c)
    for other in (a, b):
        cells = np.histogram2d(u, other, bins=8, range=[(0, 1), (0, 1)])[0]
        assert stats.chisquare(cells.ravel()).pvalue > 1e-4


# --- planted: seeds ---


def four_bits_of_the_seed(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(log_alpha, noise(n, log_alpha.shape, seed % 16), **law)


def three_digits_of_the_seed(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(log_alpha, noise(n, log_alpha.shape, seed % 1000), **law)


def twenty_bits_of_the_seed(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(log_alpha, noise(n, log_alpha.shape, seed & 0xFFFFF), **law)


def nine_digits_of_the_seed(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(log_alpha, noise(n, log_alpha.shape, seed % 10**9), **law)


def tiled_over_gates(period: int) -> Any:
    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        few = noise(n, (min(period, log_alpha.size),), seed)
        copies = -(-log_alpha.size // few.shape[1])
        u = np.tile(few, copies)[:, : log_alpha.size].reshape(n, *log_alpha.shape)
        return gates(log_alpha, u, **law)

    return draw


def no_seed(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return gates(log_alpha, noise(n, log_alpha.shape, 0), **law)


def unseeded(generator: np.random.Generator) -> Any:
    return lambda log_alpha, n, seed, **law: gates(
        log_alpha, np.maximum(generator.random((n, *log_alpha.shape)), 1e-12), **law
    )


def shifted_by_seed(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    bits = np.random.PCG64(0).advance(3 * seed * log_alpha.size)
    u = np.maximum(np.random.Generator(bits).random((n, *log_alpha.shape)), 1e-12)
    return gates(log_alpha, u, **law)


def one_gate_without_seed(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    u = noise(n, log_alpha.shape, seed)
    u[..., -1] = noise(n, log_alpha.shape, 0)[..., -1]
    return gates(log_alpha, u, **law)


def transposed(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    return np.moveaxis(gates(log_alpha, noise(n, log_alpha.shape, seed), **law), 0, -1)


def raises(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
    raise KeyError("rng")


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (without_beta, "is exactly"),
        (of_the_default_law, "is exactly"),
        (places_mixed, "is exactly"),
        (flat_inside, "of the draws inside (0, 1)"),
        (soft, "is exactly 0 in 0.00000"),
        (shared_noise, "share noise"),
        (one_reused, "share noise"),
        (mirrored, "share noise"),
        (one_reused_later, "17 draws before"),
        (tiled, "4096 draws before"),
        (sticky, "1 draws before"),
        (of_columns, "the same noise in"),
        (last_mirrored, "the same noise, mirrored"),
        (clamped_noise, "log_alpha"),
        (clamped_a_little, "in 0.00000 of the draws"),
        (one_for_everything, "is exactly"),
        (clamped_parameter, "log_alpha"),
        (no_seed, "the seed is ignored"),
        (four_bits_of_the_seed, "only a part of the seed is used"),
        (twenty_bits_of_the_seed, "seeds 0 and 1048576 gave the same 64 draws"),
        (nine_digits_of_the_seed, "seeds 0 and 1000000000 gave the same 64 draws"),
        (tiled_over_gates(512), "the noise of a gate is used again 512 gates later"),
        (tiled_over_gates(4096), "the noise of a gate is used again 4096 gates later"),
        (three_digits_of_the_seed, "seeds 0 and 1000 gave the same 64 draws"),
        (unseeded(np.random.default_rng(1)), "the seed does not cover"),
        (shifted_by_seed, "seeds do not give draws of their own"),
        (one_gate_without_seed, "seeds do not give draws of their own"),
        (transposed, "is due"),
        (lambda log_alpha, **rest: [0.5], "a list of 1 came"),
        (lambda log_alpha, n, seed, **law: np.full((n, *log_alpha.shape), 1.5, log_alpha.dtype),
         "gates lie in [0, 1]"),
        (lambda log_alpha, n, seed, **law: np.full((n, *log_alpha.shape), np.nan, log_alpha.dtype),
         "gates lie in [0, 1]"),
        (raises, "KeyError: 'rng'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_planted_is_caught(own: Any, says: str, dtype: str) -> None:
    if "generator" in getattr(own, "__code__", raises.__code__).co_freevars:
        own = unseeded(np.random.default_rng(1))
    found = drawn(own, dtype)
    assert says in found.message
    assert found.failure is not None
    assert not found.failure.ok
    assert found.n <= samplers.LOOKS[0]  # at the first look


@pytest.mark.parametrize("dtype", DTYPES)
def test_coarse_noise_is_caught(dtype: str) -> None:
    assert "the noise is too coarse" in drawn(coarse, dtype).message


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_that_is_shared_over_more_axes_than_two_is_caught(dtype: str) -> None:
    """One draw for all gates of a convolution that are at the same place of the last axis."""

    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        shape = log_alpha.shape
        if len(shape) > 2:
            shape = (*[1] * (len(shape) - 2), *shape[-2:])
        return gates(
            log_alpha, np.broadcast_to(noise(n, shape, seed), (n, *log_alpha.shape)), **law
        )

    assert "they share noise" in drawn(draw, dtype).message


def test_axes_of_length_1_are_not_to_be_lost() -> None:
    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        return np.squeeze(gates(log_alpha, noise(n, log_alpha.shape, seed), **law))

    assert "an array of shape (8192, 2, 1, 3, 1) is due" in drawn(draw).message
    manners = hygiene.check_manners(calls_of(only(draw=draw)), "draw", DTYPES, seed=1)
    messages = [message for message, _ in manners.faults]
    for shape, n in (((3,), 1), ((1,), 5), ((2, 1), 5)):
        assert any(m.startswith(f"with log_alpha of shape {shape} and n = {n}:") for m in messages)


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_that_come_again_late_are_caught(dtype: str) -> None:
    """At a distance at which no two products were compared."""
    found = drawn(from_40000_on, dtype)
    assert "came before, in all gates at once" in found.message
    assert found.n == samplers.LOOKS[1]


# --- the parts ---


@pytest.mark.slow
@pytest.mark.parametrize("bits", [23, 24])
def test_noise_of_a_generator_in_single_precision_is_not_too_coarse(bits: int) -> None:
    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        integers = np.random.default_rng(seed).integers(0, 2**bits, (n, *log_alpha.shape))
        return gates(log_alpha, (integers + 0.5) / 2**bits, **law)

    for dtype in DTYPES:
        for seed in (0, 7):
            assert drawn(draw, dtype, seed).message == ""


def test_what_is_said_of_noise_that_comes_again() -> None:
    """The densities behind the bounds, and the bounds."""
    x = np.linspace(1e-9, 1 - 1e-9, 100_001)
    law = HardConcrete(np.array([*samplers.LOG_ALPHA, samplers.LOG_ALPHA_OF_MANY])[:, None],
                       **samplers.LAW)  # fmt: skip
    # equal float32 below 1, of spacing 2^-24 at most, or equal noise of 23 bits
    densest = float(np.max(law.pdf(x)))
    equal = densest * 2.0**-24 + 2.0**-23
    assert equal <= draw_tests.COARSEST["float64"] == 2.0**-22
    pairs = math.comb(samplers.N_MANY, 2)
    assert pairs == 44850
    q = 4 * draw_tests.NEAR
    chance = (
        pairs * math.comb(samplers.DRAWS_OF_MANY, draw_tests.SAME_DRAWS) * q**draw_tests.SAME_DRAWS
    )
    assert q == 2.0**-16
    assert f"{chance:.0e}" == "4e-15"
    assert chance <= draw_tests.SAME_CHANCE
    again = samplers.LOOKS[-1] ** 2 / 2 * draw_tests.COARSEST["float64"] ** 3
    assert again == 2.0**-25
    assert again**2 <= draw_tests.SAME_CHANCE


def test_the_binomial_test_is_exact() -> None:
    n, p = 12, 0.3
    mass = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    for k in range(n + 1):
        both = 2 * min(sum(mass[: k + 1]), sum(mass[k:]))
        assert draw_tests.binomial_p(k, n, p) == pytest.approx(min(1, both), rel=1e-10)


def test_scores_have_mean_zero_under_the_law() -> None:
    law = samplers.OTHER_LAW
    made = draw_tests.Gates(np.array([0.3, -1.1]), law)
    u = (np.arange(20000) + 0.5) / 20000
    for gate in range(2):
        z = np.asarray(reference.sample(np.full_like(u, made.log_alpha[gate]), u, **law))
        scores = made.scores(z, gate)
        assert abs(scores.mean()) < 1e-4
        assert -1 <= scores.min() < scores.max() <= 1
        inside = (z > 0) & (z < 1)
        np.testing.assert_allclose(scores[inside], 2 * u[inside] - 1, atol=1e-12)


def test_waves_have_mean_zero_under_the_law() -> None:
    law = samplers.OTHER_LAW
    made = draw_tests.Gates(np.array([0.3, -1.1]), law)
    u = (np.arange(20000) + 0.5) / 20000
    for gate in range(2):
        z = np.asarray(reference.sample(np.full_like(u, made.log_alpha[gate]), u, **law))
        for waves, of_noise in zip(made.waves(z, gate), (np.cos, np.sin), strict=True):
            right = of_noise(2 * np.pi * u)
            for value in (0, 1):  # at an atom its mean over the noise there
                right[z == value] = right[z == value].mean()
            # an atom ends between two of 20000 u
            np.testing.assert_allclose(waves, right, rtol=0, atol=2 * np.pi / 20000)
            assert abs(waves.mean()) < 1e-4
            assert -1 <= waves.min() < waves.max() <= 1


def test_signs_of_many_gates_are_fair() -> None:
    """Both quartiles of the noise lie inside (0, 1), where a gate tells its noise."""
    law = HardConcrete(samplers.LOG_ALPHA_OF_MANY, **samplers.LAW)
    assert max(law.prob_zero(), law.prob_one()) < 0.25


@pytest.mark.parametrize(("n", "p"), [(12, 0.5), (2**21, 0.0977), (2**17, 2e-4)])
def test_tails_of_a_binomial(n: int, p: float) -> None:
    spread = math.sqrt(n * p * (1 - p))
    for away in (-7.0, -1.0, 0.0, 1.0, 7.0):
        count = min(max(int(n * p + away * spread), 0), n)
        law = stats.binom(n, p)
        right = min(1.0, 2 * min(law.cdf(count), law.sf(count - 1)))
        assert draw_tests.binomial_p(count, n, p) == pytest.approx(right, rel=1e-9)


def test_products_at_all_distances() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, 50), rng.uniform(-1, 1, 50)
    b[8:] = a[:-8]
    first, shifted, other = (draw_tests.Spectrum.of(x, 24) for x in (a, b, rng.uniform(-1, 1, 50)))
    lag, product = draw_tests.largest_product(first, shifted, range(0, 25), 0.5)
    assert lag == 8
    right = float(np.mean(a[:-8] * b[8:]))
    assert product == pytest.approx(right, abs=draw_tests.ROUNDED / 100)
    assert draw_tests.largest_product(first, other, range(1, 25), 1e-9) == (None, 0.0)


@pytest.mark.parametrize("n", [64, 2**15, 3 * 2**15])
def test_products_by_fourier_transforms_are_off_by_less_than_is_allowed_for(n: int) -> None:
    """The worst there is: all factors are 1, and so is the mean of their products."""
    ones = draw_tests.Spectrum.of(np.ones(n), n // 2)
    for lag in (0, 1, n // 3, n // 2):
        found, product = draw_tests.largest_product(ones, ones, range(lag, lag + 1), 0.5)
        assert found == lag
        assert abs(product - 1) < draw_tests.ROUNDED / 10


def test_a_fast_length_is_the_first_that_is_long_enough() -> None:
    fast = sorted(odd << k for odd in draw_tests.ODD_FACTORS for k in range(13))
    for least in range(1, 4097):
        assert draw_tests.fast_length(least) == next(n for n in fast if n >= least)


def test_the_slope_of_the_mean() -> None:
    log_alpha, h = np.array([-1.5, 0.2, 2.0]), 1e-5
    for law in (samplers.LAW, samplers.OTHER_LAW):
        up, down = (HardConcrete(log_alpha + d, **law).mean() for d in (h, -h))
        np.testing.assert_allclose(
            samplers.mean_slope(log_alpha, law), (up - down) / (2 * h), rtol=1e-8
        )


# --- the gradient ---


def leaks(log_alpha: Any, n: int, seed: int, dz: Any, *, beta: float, gamma: float,
          zeta: float) -> Any:  # fmt: skip
    u = noise(n, log_alpha.shape, seed)
    s = 1 / (1 + np.exp(-(np.log(u) - np.log(1 - u) + log_alpha.astype(float)) / beta))
    return (dz * (zeta - gamma) * s * (1 - s) / beta).sum(axis=0).astype(log_alpha.dtype)


def other_draws(log_alpha: Any, n: int, seed: int, dz: Any, **law: float) -> Any:
    return HONEST.draw_vjp(log_alpha, n, seed + 1, dz, **law)


def scaled(log_alpha: Any, n: int, seed: int, dz: Any, **law: float) -> Any:
    return (1.04 * HONEST.draw_vjp(log_alpha, n, seed, dz, **law)).astype(log_alpha.dtype)


def of_ones(log_alpha: Any, n: int, seed: int, dz: Any, **law: float) -> Any:
    return HONEST.draw_vjp(log_alpha, n, seed, np.ones_like(dz), **law)


def averaged(log_alpha: Any, n: int, seed: int, dz: Any, **law: float) -> Any:
    return (HONEST.draw_vjp(log_alpha, n, seed, dz, **law) / n).astype(log_alpha.dtype)


PULLS = [leaks, other_draws, scaled, of_ones, averaged]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("own", PULLS)
def test_a_wrong_gradient_is_caught_at_the_draws(own: Any, dtype: str) -> None:
    found = pulled(own, dtype, draw=HONEST.draw)
    assert "not the gradient through the draws that the same seed gives" in found.message
    assert found.failure is not None
    assert found.failure.function == "draw_vjp"


@pytest.mark.parametrize("own", [leaks, scaled, of_ones, averaged])
def test_a_wrong_gradient_is_caught_in_the_mean(own: Any) -> None:
    found = pulled(own)
    assert "its expectation is" in found.message


def test_a_gradient_of_other_draws_is_right_in_the_mean() -> None:
    assert pulled(other_draws).message == ""
    assert pulled(HONEST.draw_vjp, draw=HONEST.draw).message == ""


def test_both_run_from_a_whole_target() -> None:
    from l0ref.oracle.check import Status, check

    found = check(planted(draw=shared_noise), functions=["draw", "draw_vjp"], quick=True)
    statuses = {(o.phase, o.function): o.status for o in found.outcomes}
    assert statuses["draws", "draw"] is Status.FAILED
    (outcome,) = (o for o in found.outcomes if (o.phase, o.function) == ("draws", "draw"))
    assert outcome.n_failed == 2
    assert outcome.evidence["log_alpha"] == list(samplers.LOG_ALPHA)
