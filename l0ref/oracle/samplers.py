r"""A target's own draws against the law: atoms, density, independence, seeds, and the gradient.

What is drawn is put to the tests of `l0ref.oracle.draw_tests`, whose chance of a false alarm is
`ALPHA` = 1e-6 for a whole check. Equality (the same seed, the same draws) and the pathwise gradient
at given draws are not statistics: they are exact, and have no chance of a false alarm.

What is caught
--------------
The sample grows from look to look and stops at the first that shows something; of a sampler that
takes long, looks that would take too long are left out, which is said. At the last, n = 2^21 draws
of each gate, a relative error of 2 % in an atom of mass p is off by 0.02 sqrt(n p / (1-p)) standard
deviations: 9.5 for the smallest of the six atoms, p = 0.0977, so that it is missed with a
probability of 3e-4, and the others less often. With ``quick`` the last look is at n = 2^17, which
shows 8 %. A gate that uses another one's noise, at whatever distance in the stream up to half of
the first 2^15 draws, is caught at the first look, and so are seeds that give the same stream or a
shifted one, any two of 300 gates that share their noise or have it mirrored, any two of 10,007 that
share it, and noise of few different values.
So is noise of which any two numbers are independent and three are not, as in u3 = (u1 + u2) mod 1
or u3 = u1 xor u2: in any three of the 300 gates, and in three numbers of the stream of which the
first two are at most `draw_tests.NEAREST` apart, both with ``quick`` in float64 only. So is noise
that is spread too evenly over the gates of a draw, or over the draws of a gate, stratified or of
low discrepancy, if the number of those that are above their median has half the variance that it
has by chance, or less. Draws that come again at any distance are caught once they are among those
that were looked at.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from .calls import Answer, Calls, GivenUp
from .compare import Tolerance, compare
from .draw_tests import (
    COARSEST,
    LOOKS,
    Alarm,
    Budget,
    Gates,
    check_streams,
    check_triples_of_stream,
)
from .report import Observation
from .strategies import BETA, GAMMA, ZETA

__all__ = ["Drawn", "check_draw", "check_draw_vjp", "mean_slope"]

Floats = NDArray[np.float64]

QUICK_LOOKS = LOOKS[:2]
CHUNK = 2**17
"""Draws in one call, at most."""
MARGIN = 0.25
"""No call is made that seems to take more than this part of the time that it may take."""
TRIALS = (2**6, 2**8, 2**10, 2**12)
"""So many draws are timed, the more of them the longer they seem to take."""
FEWEST = 2**10
"""A sampler that is slow is looked at with so many draws all the same."""
AT_FIRST = 5
"""So many samples of its size go with the first look."""
THREADS = 2
"""In which draws are tested while more are drawn."""

LAW = {"beta": BETA, "gamma": GAMMA, "zeta": ZETA}
LOG_ALPHA = (-0.59375, 0.09375, 0.625)
"""No two gates are alike, and no atom is small: see what is caught."""
N_GATES = len(LOG_ALPHA)

OTHER_LAW = {"beta": 0.5, "gamma": -0.3125, "zeta": 1.4375}
OTHER_LOG_ALPHA = ((-3.0, -0.25, 1.5), (0.75, -1.25, 2.5))
"""Gates on two axes, to see that each has its own place."""
OTHER_AXES = (2, 1, 3, 1)
"""The same on as many axes as a convolution's weights have."""

FAR_LOG_ALPHA = (-7.0, -5.0, 5.0, 7.0)
"""Gates with atoms of 2e-4 to 1e-2: these are missing if noise or log_alpha are clamped."""
N_FAR = 2**17
"""Draws of them: 27 at an atom of 2e-4, where there may not be none."""

N_MORE = 2**17
"""Draws of each law that tell known mistakes apart, once something is wrong."""

N_MANY, DRAWS_OF_MANY, LOG_ALPHA_OF_MANY = 300, 1024, 0.125
"""Gates that are all alike, and no power of 2 of them: noise that is reused shows as it is."""
FEWEST_OF_MANY = 2**6
"""So many draws of them are made, however long they take."""
FEW_ROWS = 8
"""Of 64 draws; what a seed does is not told from so few that are different."""
SEED_DISTANCES = (*(2**k for k in range(1, 31)), *(10**k for k in range(1, 10)))
"""A seed of which only some bits (up to 30) or digits (up to 9) count is the same after these."""
N_WIDE, DRAWS_OF_WIDE = 10_007, 32
r"""So many gates that are all alike, in a prime number: noise that is repeated over them shows.

No two of them are the same in all draws by chance. In one they are with a probability of
:math:`q = P(z=0)^2 + P(z=1)^2` and `COARSEST` more, below 0.06, and any two of them in all draws
with one below C(10007, 2) 0.06^32 = 4e-32.
"""


class Drawn(NamedTuple):
    """What the draws showed."""

    n_checks: int
    failure: Observation | None
    message: str
    evidence: dict[str, Any]
    n: int
    """Draws of each gate that were looked at."""
    spent: float
    """Sum of the chances of a false alarm of all tests that were made."""
    remark: str = ""
    """On draws that were not made, because they take too long."""
    more: tuple[Observation, ...] = ()
    """After a failure: draws of other laws, in which nothing was looked for."""


# --- draw ---


def check_draw(
    calls: Calls, dtype: str, *, seed: int, quick: bool = False, seconds: float = 60.0
) -> Drawn:
    """Test the target's `draw` in a dtype; see the module's docstring.

    Parameters
    ----------
    calls : Calls
    dtype : {"float64", "float32"}
    seed : int
        The draws' seeds are this one and those after it.
    quick : bool, optional
        Only the first looks.
    seconds : float, optional
        No look is begun that would end later, and the first one is made smaller.
    """
    looks = QUICK_LOOKS if quick else LOOKS
    triples = dtype == "float64" or not quick
    exact = _Exact(calls, seconds)
    pace = exact.pace
    n = 0
    with _Tests(0 if calls.target.in_this_process else THREADS) as tests:
        try:
            _check_seeds(calls, dtype, seed, exact)
            gates = Gates(np.array(LOG_ALPHA), LAW)
            pace.try_out(lambda n: _draw(calls, dtype, gates, n, seed, exact), AT_FIRST * looks[0])
            first = pace.affordable(looks[0], AT_FIRST)
            _check_places(calls, dtype, first, seed, tests, exact)
            next_seed = seed
            for look in (first, *looks[1:]):
                if n and not pace.has_time(look - n):
                    break
                next_seed = _draw_more(calls, dtype, gates, look - n, next_seed, exact, tests)
                tests.finish()
                n = look
                drawn = gates.so_far()
                if look == first:
                    later = Gates(gates.log_alpha, gates.law)
                    next_seed = _draw_more(calls, dtype, later, n, next_seed, exact, tests)
                    tests.begin(check_streams, drawn, later)
                tests.begin(drawn.check)
                tests.begin(drawn.check_rows)
                if look == first:
                    if triples:
                        tests.begin(check_triples_of_stream, drawn)
                    _check_many(calls, dtype, seed, tests, exact, triples=triples)
                    if pace.each(N_WIDE) <= calls.timeout / 2:
                        _check_wide(calls, dtype, seed, tests, exact)
                    _check_far(calls, dtype, pace.affordable(N_FAR), seed, tests, exact)
            tests.finish()
        except Alarm as last:
            alarm = tests.first_alarm() or last
            return Drawn(
                exact.n + tests.budget.n_tests,
                alarm.observation,
                str(alarm),
                {"log_alpha": list(LOG_ALPHA), **LAW, "dtype": dtype, **alarm.evidence},
                n,
                tests.budget.spent,
                more=_draws_of_other_laws(calls, dtype, seed, alarm, exact),
            )
    remark = pace.remark(n, looks[-1])
    budget = tests.budget
    return Drawn(exact.n + budget.n_tests, None, "", {}, n, budget.spent, remark)


class _Tests:
    """Tests of what was drawn, in threads of their own while more is drawn.

    They are finished in the order in which they were begun, whichever is done first: the alarm is
    that of the first that has one, and what came after it does not count.

    Parameters
    ----------
    threads : int
        0 to do each when it is begun. In the process in which the target works, too, no other
        thread should: what NumPy warns of would be taken for the target's, and it may fork.
    """

    def __init__(self, threads: int) -> None:
        self.budget = Budget()
        self._pool = ThreadPoolExecutor(threads) if threads else None
        self._begun: deque[tuple[Future[None], Budget]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def begin(self, test: Callable[..., None], *args: Any) -> None:
        """Begin a test, which is given a budget besides; it may raise an `Alarm`."""
        if self._pool is None:
            test(*args, self.budget)
            return
        budget = Budget()
        self._begun.append((self._pool.submit(test, *args, budget), budget))

    def collect(self) -> None:
        """Take in the first tests as far as they are done; raise the first one's alarm."""
        while self._begun and self._begun[0][0].done():
            self._take_in()

    def finish(self) -> None:
        """Wait for all tests that were begun; raise the first one's alarm, and cancel the rest."""
        while self._begun:
            self._take_in()

    def _take_in(self) -> None:
        done, budget = self._begun.popleft()
        try:
            done.result()
        except Exception:
            for other, _ in self._begun:
                other.cancel()
            self._begun.clear()
            raise
        finally:
            self.budget.add(budget)

    def first_alarm(self) -> Alarm | None:
        """Return the first alarm of the tests that were begun and are not finished."""
        try:
            self.finish()
        except Alarm as alarm:
            return alarm
        return None


def _draws_of_other_laws(
    calls: Calls, dtype: str, seed: int, alarm: Alarm, exact: _Exact
) -> tuple[Observation, ...]:
    """Draw from several laws, for at one of them a mistake may look like another.

    A temperature of 2, whatever is given, is 1/beta at beta = 1/2.
    """
    if alarm.observation is None or alarm.observation.got is None:
        return ()
    seen = []
    for log_alpha, law in ((LOG_ALPHA, LAW), (OTHER_LOG_ALPHA, OTHER_LAW), (FAR_LOG_ALPHA, LAW)):
        n = exact.pace.pieces(exact.pace.affordable(N_MORE, 3))
        try:
            _, observation = _draw(calls, dtype, Gates(np.array(log_alpha), law), n, seed, exact)
        except Alarm:
            continue
        except GivenUp:
            break
        seen.append(observation)
    return tuple(seen)


class _Exact:
    """Counts the checks that are no statistics, and knows how long draws take."""

    def __init__(self, calls: Calls, seconds: float) -> None:
        self.n, self.pace = 0, _Pace(calls, seconds)


class _Pace:
    """How long a target takes to draw, and how much can be asked of it.

    What a draw of so many gates takes is measured. Until then it is taken to grow with the square
    of their number: some samplers take as long for many as for few, others go from gate to gate,
    or look for each among all.

    Parameters
    ----------
    calls : Calls
    seconds : float
        Draws that would take longer in all are not begun.
    """

    def __init__(self, calls: Calls, seconds: float) -> None:
        self.at_once, self.seconds = MARGIN * calls.timeout, seconds
        self._of_each: dict[int, tuple[int, float]] = {}
        self.start = time.monotonic()

    def note(self, n: int, n_gates: int, seconds: float) -> None:
        """Take in how long n draws took: the most that were made at once tell best."""
        each = max(seconds / n, 1e-9)
        most, before = self._of_each.get(n_gates, (0, math.inf))
        if n >= most:
            self._of_each[n_gates] = n, min(each, before) if n == most else each

    def each(self, n_gates: int = N_GATES) -> float:
        """Return the seconds that a draw takes, at most."""
        if n_gates in self._of_each:
            return self._of_each[n_gates][1]
        return min(
            (each * max(1.0, n_gates / n) ** 2 for n, (_, each) in self._of_each.items()),
            default=math.inf,
        )

    def pieces(self, n: int, n_gates: int = N_GATES) -> int:
        """Return how many of n draws to make in one call."""
        return min(CHUNK, n, max(1, int(self.at_once / self.each(n_gates))))

    def try_out(self, draw: Callable[[int], Any], planned: int) -> None:
        """Make some draws, and more if the time for what is planned seems too short.

        A small call may have taken long for other reasons. Two are made of each size, for much is
        compiled when a size is met.
        """
        for trial in TRIALS:
            most, _ = self._of_each.get(N_GATES, (0, 0.0))
            enough = self.has_time(planned) and self.pieces(planned) == min(planned, CHUNK)
            if most >= TRIALS[0] and (enough or self.pieces(trial) < trial):
                return
            if trial > most:
                draw(trial)
                draw(trial)

    def affordable(
        self, n: int, times: int = 1, *, n_gates: int = N_GATES, fewest: int = FEWEST
    ) -> int:
        """Return how many of n draws can be made so many times: all, or a half, or a quarter."""
        while n > fewest and not self.has_time(times * n, n_gates):
            n //= 2
        return n

    def has_time(self, n: int, n_gates: int = N_GATES) -> bool:
        """Whether n more draws can be made in time."""
        return time.monotonic() - self.start + n * self.each(n_gates) <= self.seconds

    def remark(self, n: int, planned: int) -> str:
        """Say that fewer draws were made than planned."""
        if n >= planned:
            return ""
        return (
            f"{n:,} draws of each gate were made rather than {planned:,}: one takes "
            f"{1e3 * self.each():.2g} ms, and all should take no more than {self.seconds:g} s."
        )


def _draw(
    calls: Calls, dtype: str, gates: Gates, n: int, seed: int, exact: _Exact
) -> tuple[Floats, Observation]:
    """Draw n times; what comes must be n gates in [0, 1] of this dtype."""
    args = {"log_alpha": gates.log_alpha.astype(dtype), "n": n, "seed": seed, **gates.law}
    start = time.monotonic()
    answer: Answer = calls.call("draw", args)
    exact.pace.note(n, gates.log_alpha.size, time.monotonic() - start)
    exact.n += 1
    observation = Observation(
        "draw", args, answer.result, None, None, answer.error is None, "draws", n
    )
    if answer.error is not None:
        raise Alarm(answer.error, observation, n=n, seed=seed)
    shape = (n, *gates.log_alpha.shape)
    anything = Tolerance(np.inf, 0.0, "")
    mismatch = compare(_without_nan(answer.result), np.zeros(shape), anything, dtype=dtype)
    bad = observation._replace(ok=False)
    if mismatch is not None:
        raise Alarm(mismatch.message, bad, n=n, seed=seed)
    z = answer.result.astype(np.float64)
    outside = ~((z >= 0) & (z <= 1))
    if outside.any():
        where = tuple(int(i) for i in np.argwhere(outside)[0])
        raise Alarm(f"draw {where} is {z[where]}: gates lie in [0, 1]", bad, n=n, seed=seed)
    return z, observation


def _draw_more(
    calls: Calls, dtype: str, gates: Gates, n: int, seed: int, exact: _Exact, tests: _Tests
) -> int:
    """Draw n times more, in as many calls as that takes; return the next seed.

    If a test has an alarm meanwhile, it is raised at once.
    """
    while n > 0:
        size = exact.pace.pieces(n, gates.log_alpha.size)
        gates.add(*_draw(calls, dtype, gates, size, seed, exact))
        tests.collect()
        n, seed = n - size, seed + 1
    return seed


def _without_nan(value: Any) -> Any:
    """Return an array in which NaN is something else, to look at the rest of it first."""
    is_floating = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return np.nan_to_num(value, posinf=2, neginf=-1) if is_floating else value


def _check_seeds(calls: Calls, dtype: str, seed: int, exact: _Exact) -> None:
    """One seed gives one result, another seed another one, whatever was drawn in between."""
    gates = Gates(np.array(LOG_ALPHA), LAW)
    first, _ = _draw(calls, dtype, gates, 64, seed, exact)
    other, observation = _draw(calls, dtype, gates, 64, seed + 1, exact)
    again, repeated = _draw(calls, dtype, gates, 64, seed, exact)
    exact.n += 2
    if not _are_same(first, again, dtype):
        off = np.abs(first - again)
        raise Alarm(
            f"seed {seed} gave other draws when it was used again, {np.count_nonzero(off)} of "
            f"{off.size}, off by up to {off.max():.3g}: the seed does not cover the gates' noise",
            repeated._replace(ok=False),
            seed=seed,
            first=first,
            again=again,
        )
    if len(np.unique(first.reshape(64, -1), axis=0)) <= FEW_ROWS:
        return  # of so few different draws, which other tests see, any two calls may have the same
    if _are_same(first, other, dtype):
        raise Alarm(
            f"seeds {seed} and {seed + 1} gave the same 64 draws: the seed is ignored",
            observation._replace(ok=False),
            seed=seed,
        )
    for distance in SEED_DISTANCES:
        other, observation = _draw(calls, dtype, gates, 64, seed + distance, exact)
        exact.n += 1
        if _are_same(first, other, dtype):
            raise Alarm(
                f"seeds {seed} and {seed + distance} gave the same 64 draws: only a part of the "
                "seed is used",
                observation._replace(ok=False),
                seed=seed,
            )


def _are_same(first: Floats, other: Floats, dtype: str) -> bool:
    """Whether draws have the same noise: the bits may be rounded otherwise, by other threads."""
    return bool(np.all(np.abs(first - other) <= 64 * np.finfo(dtype).eps))


def _check_places(
    calls: Calls, dtype: str, n: int, seed: int, tests: _Tests, exact: _Exact
) -> None:
    """Gates on two and four axes, and another law: each has the atoms of its own log_alpha."""
    for axes, size in (((2, 3), n), (OTHER_AXES, min(n, max(n // 4, FEWEST)))):
        gates = Gates(np.reshape(OTHER_LOG_ALPHA, axes), OTHER_LAW)
        _draw_more(calls, dtype, gates, size, seed, exact, tests)
        tests.begin(gates.check)


def _check_far(calls: Calls, dtype: str, n: int, seed: int, tests: _Tests, exact: _Exact) -> None:
    """Gates that are nearly always closed, or open, are so as often as they should."""
    gates = Gates(np.array(FAR_LOG_ALPHA), LAW)
    _draw_more(calls, dtype, gates, n, seed, exact, tests)
    tests.begin(gates.check)


def _check_wide(calls: Calls, dtype: str, seed: int, tests: _Tests, exact: _Exact) -> None:
    """Some thousand gates that are alike: no two of them are the same in all draws."""
    gates = Gates(np.full(N_WIDE, LOG_ALPHA_OF_MANY), LAW)
    _draw_more(calls, dtype, gates, DRAWS_OF_WIDE, seed, exact, tests)
    tests.begin(gates.check_repeats)


def _check_many(
    calls: Calls, dtype: str, seed: int, tests: _Tests, exact: _Exact, *, triples: bool
) -> None:
    """Some hundred gates that are alike: no two share noise, and it is not of few values."""
    gates = Gates(np.full(N_MANY, LOG_ALPHA_OF_MANY), LAW)
    n = 0
    while (more := exact.pace.pieces(FEWEST_OF_MANY, N_MANY)) > n:  # to see how long that takes
        n = more
        for _ in range(2):  # the second time, all is compiled
            seed = _draw_more(calls, dtype, gates, n, seed, exact, tests)
    left = DRAWS_OF_MANY - gates.n
    n = exact.pace.affordable(left, n_gates=N_MANY, fewest=FEWEST_OF_MANY)
    _draw_more(calls, dtype, gates, n, seed, exact, tests)
    tests.begin(gates.check_shared)
    tests.begin(gates.check_spread)
    if triples:
        tests.begin(gates.check_triples)
    tests.begin(gates.check_ties, COARSEST[dtype])


# --- draw_vjp ---


def mean_slope(log_alpha: Floats, law: dict[str, float]) -> Floats:
    r"""Return dE[z]/dlog_alpha = int_0^1 Q (1-Q) dx by Gauss-Legendre quadrature, 200 nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x, w = (nodes + 1) / 2, weights / 2
    beta, gamma, zeta = (law[name] for name in ("beta", "gamma", "zeta"))
    s = (x - gamma) / (zeta - gamma)
    t = beta * (np.log(s) - np.log1p(-s)) - np.asarray(log_alpha)[..., None]
    q = 1 / (1 + np.exp(-t))
    return np.asarray((q * (1 - q)) @ w, np.float64)


def check_draw_vjp(
    calls: Calls, dtype: str, *, seed: int, quick: bool = False, seconds: float = 60.0
) -> Drawn:
    r"""Test the target's `draw_vjp` in a dtype.

    Where the target has `draw` too, the gradient is known exactly at each draw: inside (0, 1)
    s = (z - gamma) / (zeta - gamma), dz/dlog_alpha = (zeta - gamma) s (1-s) / beta, and 0 at the
    atoms. Besides, its mean is compared with dE[z]/dlog_alpha: each term lies between 0 and
    dz (zeta - gamma) / (4 beta), and Hoeffding's inequality says how far the sum may be off.
    """
    budget, exact = Budget(), _Exact(calls, seconds)
    planned = 2**15 if quick else CHUNK
    n = 0
    try:
        if calls.has("draw"):
            for gates in (
                Gates(np.array(LOG_ALPHA), LAW),
                Gates(np.array(OTHER_LOG_ALPHA), OTHER_LAW),
            ):
                _check_pathwise(calls, dtype, gates, seed, exact)
        generator = np.random.default_rng(seed)
        log_alpha = np.array(LOG_ALPHA)
        args = {"log_alpha": log_alpha, **LAW}

        def pull(dz: Floats, seed: int) -> tuple[Floats, Observation]:
            return _pull(calls, dtype, {**args, "n": len(dz), "seed": seed, "dz": dz}, exact)

        exact.pace.try_out(lambda n: pull(np.ones((n, log_alpha.size)), seed), planned)
        n = exact.pace.affordable(planned)
        dz = generator.integers(8, 25, size=(n, log_alpha.size)) / 8  # 2 in the mean, not 1
        got, done = np.zeros(log_alpha.size), 0
        while done < n:
            size = exact.pace.pieces(n - done)
            part, observation = pull(dz[done : done + size], seed)
            got, done, seed = got + part, done + size, seed + 1
        expected = dz.sum(axis=0) * mean_slope(log_alpha, LAW)
        each = budget.share(log_alpha.size)
        largest = (ZETA - GAMMA) / (4 * BETA)
        allowed = np.sqrt(np.sum((dz * largest) ** 2, axis=0) / 2 * math.log(2 / each))
        # n terms added up in the dtype under check
        allowed += np.finfo(dtype).eps * math.sqrt(n) * 16 * expected
        for gate in range(log_alpha.size):
            budget.spend(each)
            if not abs(got[gate] - expected[gate]) <= allowed[gate]:
                raise Alarm(
                    f"gate [{gate}] (log_alpha {log_alpha[gate]:g}): the gradient of the sum over "
                    f"{n:,} draws is {got[gate]:.6g}, its expectation is {expected[gate]:.6g}, "
                    f"{allowed[gate]:.3g} off is allowed",
                    observation._replace(ok=False),
                    got=float(got[gate]),
                    expected=float(expected[gate]),
                    allowed=float(allowed[gate]),
                )
    except Alarm as alarm:
        evidence = {"log_alpha": list(LOG_ALPHA), **LAW, "dtype": dtype, **alarm.evidence}
        more: tuple[Observation, ...] = ()
        if calls.has("draw"):  # which may be wrong, and not have been asked for
            more = _draws_of_other_laws(calls, dtype, seed, alarm, exact)
        n_checks = exact.n + budget.n_tests
        return Drawn(n_checks, alarm.observation, str(alarm), evidence, n, budget.spent, more=more)
    remark = exact.pace.remark(n, planned)
    return Drawn(exact.n + budget.n_tests, None, "", {}, n, budget.spent, remark)


def _pull(
    calls: Calls, dtype: str, args: dict[str, Any], exact: _Exact
) -> tuple[Floats, Observation]:
    cast = {**args, "log_alpha": args["log_alpha"].astype(dtype), "dz": args["dz"].astype(dtype)}
    start = time.monotonic()
    answer = calls.call("draw_vjp", cast)
    exact.pace.note(args["n"], args["log_alpha"].size, time.monotonic() - start)
    exact.n += 1
    observation = Observation(
        "draw_vjp", cast, answer.result, None, None, answer.error is None, "draws", args["n"]
    )
    if answer.error is not None:
        raise Alarm(answer.error, observation)
    shape = args["log_alpha"].shape
    anything = Tolerance(np.inf, 0.0, "")
    mismatch = compare(answer.result, np.zeros(shape), anything, dtype=dtype)
    if mismatch is not None:
        raise Alarm(mismatch.message, observation._replace(ok=False))
    return answer.result.astype(np.float64), observation


def _check_pathwise(calls: Calls, dtype: str, gates: Gates, seed: int, exact: _Exact) -> None:
    n = 7
    z, _ = _draw(calls, dtype, gates, n, seed, exact)
    dz = np.random.default_rng(seed).integers(-16, 17, size=z.shape) / 8
    args = {"log_alpha": gates.log_alpha, "n": n, "seed": seed, "dz": dz, **gates.law}
    got, observation = _pull(calls, dtype, args, exact)
    beta, gamma, zeta = (gates.law[name] for name in ("beta", "gamma", "zeta"))
    s = (z - gamma) / (zeta - gamma)
    slope = np.where((z > 0) & (z < 1), (zeta - gamma) * s * (1 - s) / beta, 0.0)
    expected = np.sum(dz * slope, axis=0)
    # z is rounded, and s with it: 16 eps of each term, by (zeta - gamma) / beta for the sigmoid's
    # slope; a draw that was rounded to 0 or 1 is lost among the terms, once in 1/eps draws
    scale = (zeta - gamma) / beta
    allowed = 64 * np.finfo(dtype).eps * scale * (1 + np.sum(np.abs(dz), axis=0))
    tolerance = Tolerance(allowed, 0.0, "64 eps of all terms")
    mismatch = compare(got, expected, tolerance, dtype=None)
    exact.n += 1
    if mismatch is not None:
        raise Alarm(
            "not the gradient through the draws that the same seed gives: " + mismatch.message,
            observation._replace(
                args={**observation.args, "draws": z},
                ok=False,
                expected=expected,
                tolerance=tolerance,
            ),
            seed=seed,
            draws=z,
            dz=dz,
            got=got,
            expected=expected,
        )
