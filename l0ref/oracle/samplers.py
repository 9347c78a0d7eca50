r"""A target's own draws against the law: atoms, density, independence, seeds, and the gradient.

Every test here is exact or conservative at any sample size (binomial tails, Dvoretzky-Kiefer-
Wolfowitz, Hoeffding, Azuma); none rests on a normal approximation.

The chance of a false alarm
---------------------------
`ALPHA` = 1e-6 for a whole check of an honest target, both dtypes together, by Bonferroni: it is
split evenly over the 2 dtypes, in each over the 12 `FAMILIES` of tests, in each over 7 looks (the
four `LOOKS` at the growing sample, one at gates on two axes, one at gates on four, one at gates
that are nearly always open or closed), and in each over all tests of that family. So the two-sided
test of an atom, of which 3 gates have 6, has

.. math:: 10^{-6} / (2 \cdot 12 \cdot 7 \cdot 6) = 9.9 \cdot 10^{-10},

or 6.1 standard deviations. Noise that comes again is counted, and `SAME_ROWS` and `SAME_DRAWS` say
how often is too often: their chances, 1e-13 in all, are in what the other families leave.
Equality (the same seed, the same draws) and the pathwise gradient at given draws are not
statistics: they are exact, and have no chance of a false alarm.

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
first two are at most `NEAREST` apart, both with ``quick`` in float64 only. So is noise that is
spread too evenly over the gates of a draw, or over the draws of a gate, stratified or of low
discrepancy, if the number of those that are above their median has half the variance that it has by
chance, or less. Draws that come again at any distance are caught once they are among those that
were looked at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ..hard_concrete import HardConcrete
from .calls import Answer, Calls
from .compare import Tolerance, compare
from .report import Observation
from .strategies import BETA, GAMMA, ZETA

__all__ = ["ALPHA", "FAMILIES", "LOOKS", "Drawn", "check_draw", "check_draw_vjp", "mean_slope"]

Floats = NDArray[np.float64]

ALPHA = 1e-6
FAMILIES = (
    "atoms",
    "density",
    "mean",
    "joint",
    "correlation",
    "triples",
    "triples of many",
    "spread",
    "lags",
    "seeds",
    "noise",
    "gradient",
)
LOOKS = (2**15, 2**17, 2**19, 2**21)
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
N_DTYPES = 2

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
NEAR = 2.0**-18
"""Scores (see `_Gates.scores`) that are so close are the same: float32 rounds them by less."""
SAME_DRAWS = 8
r"""So many draws of two gates of many are not the same, or mirrored, by chance.

One pair of draws is with a probability of at most q = 2^-16: 2 NEAR, twice as a margin for a
generator of 2^23 numbers. For 8 of 1024 in any of 44850 pairs of gates, the bound is
44850 C(1024, 8) q^8 = 5e-15.
"""
SAME_ROWS = 8
"""So many draws, of all gates at once and all inside (0, 1), do not come again by chance.

In float32, or with a generator of 2^23 numbers, a gate is the same in two draws with a probability
of at most 2^-22, and 3 gates are with 2^-66: of 2^21 draws, 2^-25 pairs are expected to be the
same. 8 draws that come again are two such pairs at least, of which the chance is below 1e-14.
"""
SAME_CHANCE = 1e-14
"""Bounds either of these."""
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
COARSEST = {"float64": 2.0**-22, "float32": 2.0**-20}
"""The chance that two draws of a gate are equal, at most: u in float32, of 23 bits, times 2.

What is computed in float32 is rounded on the way, too: by honest ways to compute it, 2^-22.3 was
seen, and there is room for others.
"""
OTHER_LAW_ALONE = "each by itself, they have another law"
"""What explains that two gates go otherwise together than they should, and is no shared noise."""
ODD_FACTORS = (1, 3, 5, 9, 15, 25, 27, 45, 75)
"""Of lengths of which a Fourier transform is fast."""
ROUNDED = 1e-5
"""A mean product by Fourier transforms in float32 is off by less: 3e-7 was seen."""
NEAREST = 32
"""Of three numbers of the stream, the first two are looked at up to this distance."""


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


class _Alarm(Exception):  # noqa: N818
    def __init__(self, message: str, observation: Observation | None = None, **evidence: Any):
        super().__init__(message)
        self.observation, self.evidence = observation, evidence


class _Budget:
    """Gives each test its share of ALPHA, and counts."""

    def __init__(self) -> None:
        self.spent, self.n_tests = 0.0, 0

    def share(self, tests: int) -> float:
        """Return the chance of a false alarm of one of so many tests of a family, at a look."""
        return ALPHA / N_DTYPES / len(FAMILIES) / (len(LOOKS) + 3) / tests

    def spend(self, share: float, at_once: int = 1) -> None:
        """Note a test, or one that is many at once and alarms if any of them does."""
        self.spent += share * at_once
        self.n_tests += 1


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
    budget = _Budget()
    exact = _Exact(calls, seconds)
    pace = exact.pace
    n = 0
    try:
        _check_seeds(calls, dtype, seed, exact)
        gates = _Gates(np.array(LOG_ALPHA), LAW)
        pace.try_out(lambda n: _draw(calls, dtype, gates, n, seed, exact), AT_FIRST * looks[0])
        first = pace.affordable(looks[0], AT_FIRST)
        _check_places(calls, dtype, first, seed, budget, exact)
        next_seed = seed
        for look in (first, *looks[1:]):
            if n and not pace.has_time(look - n):
                break
            next_seed = _draw_more(calls, dtype, gates, look - n, next_seed, exact)
            n = look
            if look == first:
                next_seed = _check_streams(calls, dtype, gates, next_seed, budget, exact)
            gates.check(budget)
            gates.check_rows(budget)
            if look == first:
                if triples:
                    _check_triples_of_stream(gates, budget)
                _check_many(calls, dtype, seed, budget, exact, triples=triples)
                if pace.each(N_WIDE) <= calls.timeout / 2:
                    _check_wide(calls, dtype, seed, budget, exact)
                _check_far(calls, dtype, pace.affordable(N_FAR), seed, budget, exact)
    except _Alarm as alarm:
        return Drawn(
            exact.n + budget.n_tests,
            alarm.observation,
            str(alarm),
            {"log_alpha": list(LOG_ALPHA), **LAW, "dtype": dtype, **alarm.evidence},
            n,
            budget.spent,
            more=_draws_of_other_laws(calls, dtype, seed, alarm, exact),
        )
    remark = pace.remark(n, looks[-1])
    return Drawn(exact.n + budget.n_tests, None, "", {}, n, budget.spent, remark)


def _draws_of_other_laws(
    calls: Calls, dtype: str, seed: int, alarm: _Alarm, exact: _Exact
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
            _, observation = _draw(calls, dtype, _Gates(np.array(log_alpha), law), n, seed, exact)
        except _Alarm:
            continue
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
    calls: Calls, dtype: str, gates: _Gates, n: int, seed: int, exact: _Exact
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
        raise _Alarm(answer.error, observation, n=n, seed=seed)
    shape = (n, *gates.log_alpha.shape)
    anything = Tolerance(np.inf, 0.0, "")
    mismatch = compare(_without_nan(answer.result), np.zeros(shape), anything, dtype=dtype)
    bad = observation._replace(ok=False)
    if mismatch is not None:
        raise _Alarm(mismatch.message, bad, n=n, seed=seed)
    z = answer.result.astype(np.float64)
    outside = ~((z >= 0) & (z <= 1))
    if outside.any():
        where = tuple(int(i) for i in np.argwhere(outside)[0])
        raise _Alarm(f"draw {where} is {z[where]}: gates lie in [0, 1]", bad, n=n, seed=seed)
    return z, observation


def _draw_more(calls: Calls, dtype: str, gates: _Gates, n: int, seed: int, exact: _Exact) -> int:
    """Draw n times more, in as many calls as that takes; return the next seed."""
    while n > 0:
        size = exact.pace.pieces(n, gates.log_alpha.size)
        gates.add(*_draw(calls, dtype, gates, size, seed, exact))
        n, seed = n - size, seed + 1
    return seed


def _without_nan(value: Any) -> Any:
    """Return an array in which NaN is something else, to look at the rest of it first."""
    is_floating = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return np.nan_to_num(value, posinf=2, neginf=-1) if is_floating else value


def _check_seeds(calls: Calls, dtype: str, seed: int, exact: _Exact) -> None:
    """One seed gives one result, another seed another one, whatever was drawn in between."""
    gates = _Gates(np.array(LOG_ALPHA), LAW)
    first, _ = _draw(calls, dtype, gates, 64, seed, exact)
    other, observation = _draw(calls, dtype, gates, 64, seed + 1, exact)
    again, repeated = _draw(calls, dtype, gates, 64, seed, exact)
    exact.n += 2
    if not _are_same(first, again, dtype):
        off = np.abs(first - again)
        raise _Alarm(
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
        raise _Alarm(
            f"seeds {seed} and {seed + 1} gave the same 64 draws: the seed is ignored",
            observation._replace(ok=False),
            seed=seed,
        )
    for distance in SEED_DISTANCES:
        other, observation = _draw(calls, dtype, gates, 64, seed + distance, exact)
        exact.n += 1
        if _are_same(first, other, dtype):
            raise _Alarm(
                f"seeds {seed} and {seed + distance} gave the same 64 draws: only a part of the "
                "seed is used",
                observation._replace(ok=False),
                seed=seed,
            )


def _are_same(first: Floats, other: Floats, dtype: str) -> bool:
    """Whether draws have the same noise: the bits may be rounded otherwise, by other threads."""
    return bool(np.all(np.abs(first - other) <= 64 * np.finfo(dtype).eps))


def _check_places(
    calls: Calls, dtype: str, n: int, seed: int, budget: _Budget, exact: _Exact
) -> None:
    """Gates on two and four axes, and another law: each has the atoms of its own log_alpha."""
    for axes, size in (((2, 3), n), (OTHER_AXES, min(n, max(n // 4, FEWEST)))):
        gates = _Gates(np.reshape(OTHER_LOG_ALPHA, axes), OTHER_LAW)
        _draw_more(calls, dtype, gates, size, seed, exact)
        gates.check(budget)


def _check_far(calls: Calls, dtype: str, n: int, seed: int, budget: _Budget, exact: _Exact) -> None:
    """Gates that are nearly always closed, or open, are so as often as they should."""
    gates = _Gates(np.array(FAR_LOG_ALPHA), LAW)
    _draw_more(calls, dtype, gates, n, seed, exact)
    gates.check(budget)


def _check_wide(calls: Calls, dtype: str, seed: int, budget: _Budget, exact: _Exact) -> None:
    """Some thousand gates that are alike: no two of them are the same in all draws."""
    gates = _Gates(np.full(N_WIDE, LOG_ALPHA_OF_MANY), LAW)
    _draw_more(calls, dtype, gates, DRAWS_OF_WIDE, seed, exact)
    gates.check_repeats(budget)


def _check_many(
    calls: Calls, dtype: str, seed: int, budget: _Budget, exact: _Exact, *, triples: bool
) -> None:
    """Some hundred gates that are alike: no two share noise, and it is not of few values."""
    gates = _Gates(np.full(N_MANY, LOG_ALPHA_OF_MANY), LAW)
    n = 0
    while (more := exact.pace.pieces(FEWEST_OF_MANY, N_MANY)) > n:  # to see how long that takes
        n = more
        for _ in range(2):  # the second time, all is compiled
            seed = _draw_more(calls, dtype, gates, n, seed, exact)
    left = DRAWS_OF_MANY - gates.n
    n = exact.pace.affordable(left, n_gates=N_MANY, fewest=FEWEST_OF_MANY)
    _draw_more(calls, dtype, gates, n, seed, exact)
    gates.check_shared(budget)
    gates.check_spread(budget)
    if triples:
        gates.check_triples(budget)
    gates.check_ties(budget, COARSEST[dtype])


class _Gates:
    """Gates of a law and all that was drawn of them, one row a draw."""

    def __init__(self, log_alpha: Floats, law: dict[str, float]) -> None:
        self.log_alpha, self.law = log_alpha, law
        flat = HardConcrete(log_alpha.reshape(-1), **law)
        self.law_of_each = flat
        self.p_zero, self.p_one = np.asarray(flat.prob_zero()), np.asarray(flat.prob_one())
        self.mean = np.asarray(flat.mean())
        self.z = np.empty((0, flat.log_alpha.size))
        self._all_scores: Floats | None = None
        self.observation: Observation | None = None

    @property
    def n(self) -> int:
        return len(self.z)

    def name(self, gate: int) -> str:
        index = np.unravel_index(gate, self.log_alpha.shape)
        where = ", ".join(str(int(i)) for i in index)
        return f"gate [{where}] (log_alpha {self.log_alpha[index]:g})"

    def add(self, z: Floats, observation: Observation) -> None:
        """Take in more draws."""
        self.z = np.concatenate([self.z, z.reshape(len(z), -1)])
        self._all_scores = None
        self.observation = observation

    def cdf(self, z: Floats, gate: int) -> Floats:
        """Q of the stretched concrete, which is that of z from 0 to below 1."""
        beta, gamma, zeta = (self.law[name] for name in ("beta", "gamma", "zeta"))
        s = (z - gamma) / (zeta - gamma)
        t = beta * (np.log(s) - np.log1p(-s)) - self.log_alpha.reshape(-1)[gate]
        below: Floats = 1 / (1 + np.exp(-t))
        return below

    def scores(self, z: Floats, gate: int) -> Floats:
        """Where each draw lies among all draws, from -1 to 1, an atom in its middle.

        The mean is exactly 0 under the law, and scores of independent draws are independent.
        """
        middle = np.where(
            z == 0, self.p_zero[gate] / 2, np.where(z == 1, 1 - self.p_one[gate] / 2, np.nan)
        )
        inside = np.isnan(middle)
        middle[inside] = self.cdf(z[inside], gate)
        scores: Floats = 2 * middle - 1
        return scores

    def all_scores(self) -> Floats:
        """Return the scores of all draws so far, a row for each gate."""
        if self._all_scores is None:
            columns = np.ascontiguousarray(self.z.T)
            self._all_scores = np.stack([self.scores(z, i) for i, z in enumerate(columns)])
        return self._all_scores

    def waves(self, z: Floats, gate: int) -> tuple[Floats, Floats]:
        """Return cos(2 pi u) and sin(2 pi u) of each draw's noise u, their means over u at an atom.

        The means are exactly 0 under the law. One is even about the middle of the noise and one is
        odd: if u3 = (u1 + u2 + c) mod 1, the product of three cosines or that of three sines has
        another mean than 0, whatever c is.
        """
        angles = np.pi * self.scores(z, gate)
        even, odd = -np.cos(angles), -np.sin(angles)
        # the mean of exp(2 pi i u) over u from 0 to p
        low, high = (
            np.sinc(p) * np.exp(1j * np.pi * p) for p in (self.p_zero[gate], self.p_one[gate])
        )
        for wave, closed, opened in ((even, low.real, high.real), (odd, low.imag, -high.imag)):
            wave[z == 0], wave[z == 1] = closed, opened
        return even, odd

    def alarm(self, message: str, **evidence: Any) -> _Alarm:
        seen = None if self.observation is None else self.observation._replace(ok=False)
        return _Alarm(f"{message} (n = {self.n:,})", seen, n=self.n, **evidence)

    def check(self, budget: _Budget) -> None:
        """Test all draws so far: one look."""
        self._check_atoms(budget)
        self._check_density(budget)
        self._check_mean(budget)
        gates = range(self.z.shape[1])
        scores = self.all_scores()
        even, odd = zip(*(self.waves(self.z[:, gate], gate) for gate in gates), strict=True)
        pairs, triples = list(combinations(gates, 2)), list(combinations(gates, 3))
        self._check_joint(budget, pairs, budget.share(9 * len(pairs)))
        self._check_products(budget, pairs, list(scores), "their ranks", budget.share(len(pairs)))
        each = budget.share((27 + 2) * len(triples))
        self._check_joint(budget, triples, each)
        self._check_products(budget, triples, even, "cos(2 pi u)", each)
        self._check_products(budget, triples, odd, "sin(2 pi u)", each)

    def _check_atoms(self, budget: _Budget) -> None:
        n_gates = self.z.shape[1]
        each = budget.share(2 * n_gates)
        for gate in range(n_gates):
            for value, p in ((0, self.p_zero[gate]), (1, self.p_one[gate])):
                count = int(np.count_nonzero(self.z[:, gate] == value))
                budget.spend(each)
                if _binomial_p(count, self.n, p) < each:
                    raise self.alarm(
                        f"{self.name(gate)} is exactly {value} in {count / self.n:.5f} of the "
                        f"draws, P(z = {value}) is {p:.5f}, {count / self.n / p - 1:+.1%}",
                        got=count / self.n,
                        expected=float(p),
                    )

    def _check_density(self, budget: _Budget) -> None:
        n_gates = self.z.shape[1]
        each = budget.share(n_gates)
        for gate in range(n_gates):
            z = self.z[:, gate]
            inside = np.sort(z[(z > 0) & (z < 1)])
            budget.spend(each)
            m = len(inside)
            if m == 0:
                continue
            low, high = self.p_zero[gate], 1 - self.p_one[gate]
            right = (self.cdf(inside, gate) - low) / (high - low)
            rank = np.arange(1, m + 1) / m
            distance = np.maximum(np.abs(rank - right), np.abs(rank - 1 / m - right))
            worst = int(np.argmax(distance))
            # a float32 lies up to eps from the number that was drawn
            allowed = math.sqrt(math.log(2 / each) / (2 * m)) + 1e-5
            if distance[worst] > allowed:
                raise self.alarm(
                    f"{self.name(gate)}: of the draws inside (0, 1), {rank[worst]:.4f} are at or "
                    f"below {inside[worst]:.4f}, {right[worst]:.4f} is right, {allowed:.4f} off "
                    "is allowed",
                    got=float(rank[worst]),
                    expected=float(right[worst]),
                    allowed=allowed,
                )

    def _check_mean(self, budget: _Budget) -> None:
        n_gates = self.z.shape[1]
        each = budget.share(n_gates)
        allowed = math.sqrt(math.log(2 / each) / (2 * self.n))
        for gate, mean in enumerate(self.z.mean(axis=0)):
            budget.spend(each)
            if abs(mean - self.mean[gate]) > allowed:
                raise self.alarm(
                    f"{self.name(gate)} is {mean:.4f} in the mean, E[z] is "
                    f"{self.mean[gate]:.4f}, {allowed:.4f} off is allowed",
                    got=float(mean),
                    expected=float(self.mean[gate]),
                    allowed=allowed,
                )

    def _check_joint(self, budget: _Budget, sets: Sequence[tuple[int, ...]], each: float) -> None:
        """Test how often gates are closed, inside and open at once, in every combination."""
        kinds = np.where(self.z == 0, 0, np.where(self.z == 1, 2, 1))
        masses = np.stack([self.p_zero, 1 - self.p_zero - self.p_one, self.p_one])
        words = ("0", "inside", "1")
        for chosen in sets:
            shape = (3,) * len(chosen)
            cells = np.ravel_multi_index(tuple(kinds[:, chosen].T), shape)
            counts = np.bincount(cells, minlength=3 ** len(chosen))
            for states, count in zip(np.ndindex(shape), counts, strict=True):
                p = float(np.prod(masses[states, chosen]))
                budget.spend(each)
                if _binomial_p(int(count), self.n, p) < each:
                    pairs = zip(chosen, states, strict=True)
                    first, *rest = (f"{self.name(gate)} is {words[kind]}" for gate, kind in pairs)
                    alone = [np.mean(kinds[:, i] == s) for i, s in zip(chosen, states, strict=True)]
                    by_law = _binomial_p(int(count), self.n, float(np.prod(alone))) > each
                    raise self.alarm(
                        f"{first} while {' and '.join(rest)} in {count / self.n:.5f} of the "
                        f"draws, {p:.5f} if they are right and independent: "
                        f"{OTHER_LAW_ALONE if by_law else 'they share noise'}",
                        got=count / self.n,
                        expected=p,
                    )

    def _check_products(
        self,
        budget: _Budget,
        sets: Sequence[tuple[int, ...]],
        factors: Sequence[Floats],
        what: str,
        each: float,
    ) -> None:
        """Test the means of products over gates, of factors in [-1, 1] of mean 0."""
        allowed = math.sqrt(2 * math.log(2 / each) / self.n)
        for chosen in sets:
            product = float(np.mean(np.prod([factors[gate] for gate in chosen], axis=0)))
            budget.spend(each)
            if abs(product) > allowed:
                names = " and ".join(map(self.name, chosen))
                alone = math.prod(float(np.mean(factors[gate])) for gate in chosen)
                by_law = abs(product - alone) <= allowed
                raise self.alarm(
                    f"{names}: the mean product of {what} is {product:+.4f}, 0 if they are right "
                    f"and independent, {allowed:.4f} is allowed: "
                    f"{OTHER_LAW_ALONE if by_law else 'they share noise'}",
                    got=product,
                    expected=0.0,
                    allowed=allowed,
                )

    def check_rows(self, budget: _Budget) -> None:
        """Test whether draws come again: later, or under another seed."""
        budget.spend(SAME_CHANCE)
        rows = self.z[np.all((self.z > 0) & (self.z < 1), axis=1)]
        # rows that are equal have equal hashes; others have in 3e-8 pairs of 2^20, not in 8
        bits = np.ascontiguousarray(rows).view(np.uint64)
        mixed = np.zeros(len(bits), np.uint64)
        for column in bits.T:
            mixed = (mixed ^ column ^ (column >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(32)
        mixed.sort()
        again = int(np.count_nonzero(mixed[1:] == mixed[:-1]))
        if again >= SAME_ROWS:
            raise self.alarm(
                f"{again:,} of {len(rows):,} draws inside (0, 1) came before, in all gates at "
                "once: noise is used again",
                got=again,
                expected=0,
            )

    def check_repeats(self, budget: _Budget) -> None:
        """Test whether any two gates are the same in all draws, as if noise were tiled."""
        budget.spend(SAME_CHANCE)
        columns = np.ascontiguousarray(self.z.T)
        whole = columns.view(np.dtype((np.void, columns.shape[1] * columns.itemsize))).ravel()
        first, counts = np.unique(whole, return_index=True, return_counts=True)[1:]
        if len(first) < len(whole):
            i = int(np.min(first[counts > 1]))
            j = int(np.flatnonzero(whole == whole[i])[1])
            raise self.alarm(
                f"of {len(whole):,} gates that are alike, [{i}] and [{j}] are the same in all "
                f"draws, and {len(whole) - len(first):,} in all are as one before them: the noise "
                f"of a gate is used again {j - i} gates later",
                got=len(whole) - len(first),
                expected=0,
            )

    def check_shared(self, budget: _Budget) -> None:
        """Test whether any two gates have the same noise, or one the other's, mirrored."""
        budget.spend(SAME_CHANCE)
        scores = self.all_scores().copy()
        scores[~((self.z > 0) & (self.z < 1)).T] = np.nan
        n_gates = len(scores)
        near = np.zeros((2, n_gates * n_gates), np.int64)
        # Of a draw, scores that are near each other, or mirrored, are neighbours by their size.
        order = np.argsort(np.abs(scores), axis=0)
        ordered = np.take_along_axis(scores, order, axis=0)
        for apart in range(1, n_gates):
            a, b = ordered[:-apart], ordered[apart:]
            if not np.any(np.abs(b) - np.abs(a) < 2 * NEAR):
                break
            first, second = order[:-apart], order[apart:]
            pairs = np.minimum(first, second) * n_gates + np.maximum(first, second)
            for mirrored, distance in enumerate((np.abs(a - b), np.abs(a + b))):
                near[mirrored] += np.bincount(pairs[distance < NEAR], minlength=n_gates**2)
        for i, of_each in enumerate(near.reshape(2, n_gates, n_gates).transpose(1, 0, 2)):
            for counts, words in zip(
                of_each, ("the same noise", "the same noise, mirrored"), strict=True
            ):
                j = int(np.argmax(counts))
                if counts[j] >= SAME_DRAWS:
                    raise self.alarm(
                        f"of {n_gates} gates that are alike, [{i}] and [{j}] have "
                        f"{words} in {counts[j]} draws: they share it",
                        got=int(counts[j]),
                        expected=0,
                    )

    def check_triples(self, budget: _Budget) -> None:
        """Test any three gates: the products of their signs, fair coins, by Hoeffding's inequality.

        A sign says whether the noise is above its median, or between its quartiles. Neither needs
        more than the gates tell: no atom is as large as a quarter.
        """
        scores = self.all_scores()
        n_gates = len(scores)
        each = budget.share(2 * 2 * math.comb(n_gates, 3))
        allowed = math.sqrt(2 * math.log(2 / each) / self.n)
        for is_up in (scores > 0, np.abs(scores) < 0.5):
            budget.spend(each, math.comb(n_gates, 3))
            # A sign is a bit: three have the product -1 if an odd number of them is down.
            down = np.packbits(~is_up, axis=1)
            down = np.pad(down, ((0, 0), (0, -down.shape[1] % 8))).view(np.uint64)
            words = np.ascontiguousarray(down.T)
            for j in range(1, n_gates - 1):  # the one in the middle, so that each is met once
                n_odd = np.zeros((j, n_gates - 1 - j), np.int32)
                for word in words:
                    n_odd += np.bitwise_count((word[:j] ^ word[j])[:, None] ^ word[j + 1 :])
                sums = self.n - 2 * n_odd
                if max(sums.max(), -sums.min()) > allowed * self.n:
                    i, k = np.unravel_index(int(np.argmax(np.abs(sums))), sums.shape)
                    product = float(sums[i, k]) / self.n
                    raise self.alarm(
                        f"of {n_gates} gates that are alike, [{i}], [{j}] and [{j + 1 + k}] go "
                        f"together: the mean product of their signs is {product:+.4f}, "
                        f"{allowed:.4f} is allowed: they share noise",
                        got=product,
                        expected=0.0,
                        allowed=allowed,
                    )

    def check_spread(self, budget: _Budget) -> None:
        """Test whether noise is spread over a draw's gates, and a gate's draws, as chance does it.

        In how many of a draw's gates it is above its median is binomial, half of them in the mean;
        and so is in how many draws that is at most a half standard deviation off. The same with
        the quartiles, and with the draws of a gate.
        """
        scores = self.all_scores().T
        each = budget.share(2 * 2)
        for is_up, where in (
            (scores > 0, "above its median"),
            (np.abs(scores) < 0.5, "in its half"),
        ):
            for axis, those, them in ((1, "draws", "gates"), (0, "gates", "draws")):
                size = scores.shape[axis]
                low = math.ceil(size / 2 - math.sqrt(size) / 4)
                counts = np.count_nonzero(is_up, axis=axis)
                n_even = int(np.count_nonzero((counts >= low) & (counts <= size - low)))
                alone, p = (
                    _binomial_cdf(size - low, size, chance) - _binomial_cdf(low - 1, size, chance)
                    for chance in (float(np.mean(is_up)), 0.5)
                )
                budget.spend(each)
                if _binomial_p(n_even, len(counts), p) < each:
                    by_law = _binomial_p(n_even, len(counts), alone) > each
                    how = "too evenly" if n_even > p * len(counts) else "not evenly enough"
                    raise self.alarm(
                        f"of {len(counts):,} {those} of {size:,} {them} that are alike, {n_even:,} "
                        f"have {low} to {size - low} {them} where the noise is {where}, "
                        f"{p * len(counts):.0f} are right: "
                        f"{OTHER_LAW_ALONE if by_law else f'it is spread {how}'}",
                        got=n_even,
                        expected=p * len(counts),
                    )

    def check_ties(self, budget: _Budget, coarsest: float) -> None:
        """Test how often draws inside (0, 1) are equal: not as in noise of few values.

        One draw changes the number of ties by 1 at most, so that McDiarmid's inequality holds.
        """
        each = budget.share(1) / 2
        budget.spend(each)
        inside = np.sort(self.z[(self.z > 0) & (self.z < 1)])
        m = len(inside)
        n_values = m - int(np.count_nonzero(inside[1:] == inside[:-1]))
        allowed = m * (m - 1) / 2 * coarsest + math.sqrt(m * math.log(1 / each) / 2)
        if m - n_values > allowed:
            raise self.alarm(
                f"the {m:,} draws inside (0, 1) of {self.z.shape[1]} gates have only "
                f"{n_values:,} values, {allowed:,.0f} fewer than draws are allowed: the noise "
                "is too coarse",
                got=m - n_values,
                allowed=allowed,
            )


def _binomial_p(count: int, n: int, p: float) -> float:
    """Two-sided p-value, exact: twice the smaller tail."""
    return min(1.0, 2 * min(_binomial_cdf(count, n, p), _binomial_cdf(n - count, n, 1 - p)))


def _binomial_cdf(count: int, n: int, p: float) -> float:
    """Return P(X <= count), relative to itself: `scipy.stats` takes two seconds to import."""
    if not 0 <= count < n:
        return float(count >= n)
    return float(special.betaincc(count + 1, n - count, p))


def _check_streams(
    calls: Calls, dtype: str, gates: _Gates, seed: int, budget: _Budget, exact: _Exact
) -> int:
    r"""Look for noise that comes again: later in the stream, in another gate, under another seed.

    The next seed is returned.

    For scores a and b of mean 0 in [-1, 1], each of a's independent of the rest, the sums
    :math:`\sum_t a_t b_{t+k}` have increments of conditional mean 0, and by Azuma's inequality
    exceed x with a probability of at most 2 exp(-x^2 / (2 (n-k))). All k up to n/2 are tried.
    """
    n = gates.n
    half = n // 2
    scores = [_Spectrum.of(one, half) for one in gates.all_scores()]
    other = _Gates(gates.log_alpha, gates.law)
    seed = _draw_more(calls, dtype, other, n, seed, exact)
    later = [_Spectrum.of(one, half) for one in other.all_scores()]

    # each gate with itself and each other one; both directions, without lag 0 (`correlation`)
    each = budget.share(len(scores) ** 2 * half)
    for i, a in enumerate(scores):
        for j, b in enumerate(scores):
            budget.spend(each, half)
            lag, product = _largest_product(a, b, range(1, half + 1), each)
            if lag is not None:
                raise gates.alarm(
                    f"{gates.name(j)} goes with {gates.name(i)} {lag} draws before: the mean "
                    f"product of their ranks is {product:+.4f}: noise is used again",
                    lag=lag,
                )
    each = budget.share(len(scores) ** 2 * 2 * half)
    for i, a in enumerate(scores):
        for j, b in enumerate(later):
            for first, second, lags in ((a, b, range(half)), (b, a, range(1, half + 1))):
                budget.spend(each, half)
                lag, product = _largest_product(first, second, lags, each)
                if lag is not None:
                    raise other.alarm(
                        f"{gates.name(i)} under one seed goes with {gates.name(j)} under another, "
                        f"{lag} draws apart: the mean product of their ranks is {product:+.4f}: "
                        "seeds do not give draws of their own",
                        lag=lag,
                    )
    return seed


def _check_triples_of_stream(gates: _Gates, budget: _Budget) -> None:
    r"""Look for three numbers of the stream that go together, gate after gate and draw after draw.

    With factors f of mean 0 in [-1, 1], each independent of the rest, the products
    :math:`f_m f_{m+a} f_{m+b}`, 0 < a < b, have conditional mean 0 given all that is before the
    last factor: Azuma's inequality holds for their sum, as in `_check_streams`.
    """
    half = gates.z.size // 2
    each = budget.share(2 * 2 * NEAREST * half)
    of_each = [gates.waves(z, i) for i, z in enumerate(gates.z.T)]
    for waves in zip(*of_each, strict=True):
        f = np.stack(waves, axis=1).ravel()
        spectrum = _Spectrum.of(f, NEAREST + half)
        for a in range(1, NEAREST + 1):
            budget.spend(each, half)
            both = np.append(f[:-a] * f[a:], np.zeros(a))
            pairs = _Spectrum.of(both, NEAREST + half)
            b, product = _largest_product(pairs, spectrum, range(a + 1, a + 1 + half), each)
            if b is not None:
                raise gates.alarm(
                    "three numbers of the stream (gate after gate, draw after draw) go together: "
                    f"one, that {a} behind it and that {b} behind it have a mean product of "
                    f"{product:+.4f}: noise is used again",
                    lags=[a, b],
                )


class _Spectrum(NamedTuple):
    """A sequence's Fourier transform, in float32, the dear part of many products with it."""

    n: int
    size: int
    values: NDArray[np.complex64]

    @classmethod
    def of(cls, a: Floats, last: int) -> _Spectrum:
        """Transform a sequence, for products at lags up to the last."""
        size = _fast_length(len(a) + last + 1)
        values = np.fft.rfft(a.astype(np.float32), size)
        return cls(len(a), size, values.astype(np.complex64, copy=False))


def _fast_length(least: int) -> int:
    """Return the first length from one on that is a power of 2 times one of `ODD_FACTORS`.

    `scipy.fft.next_fast_len` knows more, and takes a quarter of a second to import.
    """
    return min(odd << max(0, math.ceil(least / odd) - 1).bit_length() for odd in ODD_FACTORS)


def _largest_product(
    a: _Spectrum, b: _Spectrum, lags: range, each: float
) -> tuple[int | None, float]:
    """Return the lag k at which the mean of a_t b_{t+k} is too large, if there is one."""
    n = a.n
    sums = np.fft.irfft(np.conj(a.values) * b.values, a.size)
    k = np.arange(lags.start, lags.stop)
    products = sums[k] / (n - k)
    allowed = np.sqrt(2 * math.log(2 / each) / (n - k)) + ROUNDED * n / (n - k)
    worst = int(np.argmax(np.abs(products) / allowed))
    if abs(products[worst]) <= allowed[worst]:
        return None, 0.0
    return int(k[worst]), float(products[worst])


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
    budget, exact = _Budget(), _Exact(calls, seconds)
    planned = 2**15 if quick else CHUNK
    n = 0
    try:
        if calls.has("draw"):
            for gates in (
                _Gates(np.array(LOG_ALPHA), LAW),
                _Gates(np.array(OTHER_LOG_ALPHA), OTHER_LAW),
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
                raise _Alarm(
                    f"gate [{gate}] (log_alpha {log_alpha[gate]:g}): the gradient of the sum over "
                    f"{n:,} draws is {got[gate]:.6g}, its expectation is {expected[gate]:.6g}, "
                    f"{allowed[gate]:.3g} off is allowed",
                    observation._replace(ok=False),
                    got=float(got[gate]),
                    expected=float(expected[gate]),
                    allowed=float(allowed[gate]),
                )
    except _Alarm as alarm:
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
        raise _Alarm(answer.error, observation)
    shape = args["log_alpha"].shape
    anything = Tolerance(np.inf, 0.0, "")
    mismatch = compare(answer.result, np.zeros(shape), anything, dtype=dtype)
    if mismatch is not None:
        raise _Alarm(mismatch.message, observation._replace(ok=False))
    return answer.result.astype(np.float64), observation


def _check_pathwise(calls: Calls, dtype: str, gates: _Gates, seed: int, exact: _Exact) -> None:
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
        raise _Alarm(
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
