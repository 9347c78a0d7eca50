r"""Tests of draws in hand: atoms, density, independence, noise that comes again, and its spread.

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
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ..hard_concrete import HardConcrete
from .report import Observation

__all__ = [
    "ALPHA",
    "COARSEST",
    "FAMILIES",
    "LOOKS",
    "Alarm",
    "Budget",
    "Gates",
    "check_streams",
    "check_triples_of_stream",
]

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
N_DTYPES = 2
NEAR = 2.0**-18
"""Scores (see `Gates.scores`) that are so close are the same: float32 rounds them by less."""
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


class Alarm(Exception):  # noqa: N818  # a finding
    """What a test has found: a sentence, the last draws, and other evidence."""

    def __init__(self, message: str, observation: Observation | None = None, **evidence: Any):
        super().__init__(message)
        self.observation, self.evidence = observation, evidence


class Budget:
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

    def add(self, other: Budget) -> None:
        """Note the tests of another one."""
        self.spent += other.spent
        self.n_tests += other.n_tests


class Gates:
    """Gates of a law and all that was drawn of them, one row a draw."""

    def __init__(self, log_alpha: Floats, law: dict[str, float]) -> None:
        self.log_alpha, self.law = log_alpha, law
        flat = HardConcrete(log_alpha.reshape(-1), **law)
        self.law_of_each = flat
        self.p_zero, self.p_one = np.asarray(flat.prob_zero()), np.asarray(flat.prob_one())
        self.z = np.empty((0, flat.log_alpha.size))
        self._all_scores: Floats | None = None
        self.observation: Observation | None = None

    @cached_property
    def mean(self) -> Floats:
        """E[z] of each gate: integrals, which take long for thousands."""
        return np.asarray(self.law_of_each.mean())

    @property
    def n(self) -> int:
        """How many draws there are."""
        return len(self.z)

    def name(self, gate: int) -> str:
        """Return what messages call a gate."""
        index = np.unravel_index(gate, self.log_alpha.shape)
        where = ", ".join(str(int(i)) for i in index)
        return f"gate [{where}] (log_alpha {self.log_alpha[index]:g})"

    def add(self, z: Floats, observation: Observation) -> None:
        """Take in more draws."""
        self.z = np.concatenate([self.z, z.reshape(len(z), -1)])
        self._all_scores = None
        self.observation = observation

    def so_far(self) -> Gates:
        """Return these with what was drawn until now, whatever more is added here."""
        return copy.copy(self)

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

    def alarm(self, message: str, **evidence: Any) -> Alarm:
        """Make an alarm of what was found in these draws."""
        seen = None if self.observation is None else self.observation._replace(ok=False)
        return Alarm(f"{message} (n = {self.n:,})", seen, n=self.n, **evidence)

    def check(self, budget: Budget) -> None:
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

    def _check_atoms(self, budget: Budget) -> None:
        n_gates = self.z.shape[1]
        each = budget.share(2 * n_gates)
        for gate in range(n_gates):
            for value, p in ((0, self.p_zero[gate]), (1, self.p_one[gate])):
                count = int(np.count_nonzero(self.z[:, gate] == value))
                budget.spend(each)
                if binomial_p(count, self.n, p) < each:
                    raise self.alarm(
                        f"{self.name(gate)} is exactly {value} in {count / self.n:.5f} of the "
                        f"draws, P(z = {value}) is {p:.5f}, {count / self.n / p - 1:+.1%}",
                        got=count / self.n,
                        expected=float(p),
                    )

    def _check_density(self, budget: Budget) -> None:
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

    def _check_mean(self, budget: Budget) -> None:
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

    def _check_joint(self, budget: Budget, sets: Sequence[tuple[int, ...]], each: float) -> None:
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
                if binomial_p(int(count), self.n, p) < each:
                    pairs = zip(chosen, states, strict=True)
                    first, *rest = (f"{self.name(gate)} is {words[kind]}" for gate, kind in pairs)
                    alone = [np.mean(kinds[:, i] == s) for i, s in zip(chosen, states, strict=True)]
                    by_law = binomial_p(int(count), self.n, float(np.prod(alone))) > each
                    raise self.alarm(
                        f"{first} while {' and '.join(rest)} in {count / self.n:.5f} of the "
                        f"draws, {p:.5f} if they are right and independent: "
                        f"{OTHER_LAW_ALONE if by_law else 'they share noise'}",
                        got=count / self.n,
                        expected=p,
                    )

    def _check_products(
        self,
        budget: Budget,
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

    def check_rows(self, budget: Budget) -> None:
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

    def check_repeats(self, budget: Budget) -> None:
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

    def check_shared(self, budget: Budget) -> None:
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

    def check_triples(self, budget: Budget) -> None:
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

    def check_spread(self, budget: Budget) -> None:
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
                    binomial_cdf(size - low, size, chance) - binomial_cdf(low - 1, size, chance)
                    for chance in (float(np.mean(is_up)), 0.5)
                )
                budget.spend(each)
                if binomial_p(n_even, len(counts), p) < each:
                    by_law = binomial_p(n_even, len(counts), alone) > each
                    how = "too evenly" if n_even > p * len(counts) else "not evenly enough"
                    raise self.alarm(
                        f"of {len(counts):,} {those} of {size:,} {them} that are alike, {n_even:,} "
                        f"have {low} to {size - low} {them} where the noise is {where}, "
                        f"{p * len(counts):.0f} are right: "
                        f"{OTHER_LAW_ALONE if by_law else f'it is spread {how}'}",
                        got=n_even,
                        expected=p * len(counts),
                    )

    def check_ties(self, coarsest: float, budget: Budget) -> None:
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


def binomial_p(count: int, n: int, p: float) -> float:
    """Two-sided p-value, exact: twice the smaller tail."""
    return min(1.0, 2 * min(binomial_cdf(count, n, p), binomial_cdf(n - count, n, 1 - p)))


def binomial_cdf(count: int, n: int, p: float) -> float:
    """Return P(X <= count), relative to itself: `scipy.stats` takes two seconds to import."""
    if not 0 <= count < n:
        return float(count >= n)
    return float(special.betaincc(count + 1, n - count, p))


def check_streams(gates: Gates, other: Gates, budget: Budget) -> None:
    r"""Look for noise that comes again: later in the stream, in another gate, under another seed.

    As many draws of the same gates under other seeds are the `other` ones.

    For scores a and b of mean 0 in [-1, 1], each of a's independent of the rest, the sums
    :math:`\sum_t a_t b_{t+k}` have increments of conditional mean 0, and by Azuma's inequality
    exceed x with a probability of at most 2 exp(-x^2 / (2 (n-k))). All k up to n/2 are tried.
    """
    half = gates.n // 2
    scores = [Spectrum.of(one, half) for one in gates.all_scores()]
    later = [Spectrum.of(one, half) for one in other.all_scores()]

    # each gate with itself and each other one; both directions, without lag 0 (`correlation`)
    each = budget.share(len(scores) ** 2 * half)
    for i, a in enumerate(scores):
        for j, b in enumerate(scores):
            budget.spend(each, half)
            lag, product = largest_product(a, b, range(1, half + 1), each)
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
                lag, product = largest_product(first, second, lags, each)
                if lag is not None:
                    raise other.alarm(
                        f"{gates.name(i)} under one seed goes with {gates.name(j)} under another, "
                        f"{lag} draws apart: the mean product of their ranks is {product:+.4f}: "
                        "seeds do not give draws of their own",
                        lag=lag,
                    )


def check_triples_of_stream(gates: Gates, budget: Budget) -> None:
    r"""Look for three numbers of the stream that go together, gate after gate and draw after draw.

    With factors f of mean 0 in [-1, 1], each independent of the rest, the products
    :math:`f_m f_{m+a} f_{m+b}`, 0 < a < b, have conditional mean 0 given all that is before the
    last factor: Azuma's inequality holds for their sum, as in `check_streams`.
    """
    half = gates.z.size // 2
    each = budget.share(2 * 2 * NEAREST * half)
    of_each = [gates.waves(z, i) for i, z in enumerate(gates.z.T)]
    for waves in zip(*of_each, strict=True):
        f = np.stack(waves, axis=1).ravel()
        spectrum = Spectrum.of(f, NEAREST + half)
        for a in range(1, NEAREST + 1):
            budget.spend(each, half)
            both = np.append(f[:-a] * f[a:], np.zeros(a))
            pairs = Spectrum.of(both, NEAREST + half)
            b, product = largest_product(pairs, spectrum, range(a + 1, a + 1 + half), each)
            if b is not None:
                raise gates.alarm(
                    "three numbers of the stream (gate after gate, draw after draw) go together: "
                    f"one, that {a} behind it and that {b} behind it have a mean product of "
                    f"{product:+.4f}: noise is used again",
                    lags=[a, b],
                )


class Spectrum(NamedTuple):
    """A sequence's Fourier transform, in float32, the dear part of many products with it."""

    n: int
    size: int
    values: NDArray[np.complex64]

    @classmethod
    def of(cls, a: Floats, last: int) -> Spectrum:
        """Transform a sequence, for products at lags up to the last."""
        size = fast_length(len(a) + last + 1)
        values = np.fft.rfft(a.astype(np.float32), size)
        return cls(len(a), size, values.astype(np.complex64, copy=False))


def fast_length(least: int) -> int:
    """Return the first length from one on that is a power of 2 times one of `ODD_FACTORS`.

    `scipy.fft.next_fast_len` knows more, and takes a quarter of a second to import.
    """
    return min(odd << max(0, math.ceil(least / odd) - 1).bit_length() for odd in ODD_FACTORS)


def largest_product(a: Spectrum, b: Spectrum, lags: range, each: float) -> tuple[int | None, float]:
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
