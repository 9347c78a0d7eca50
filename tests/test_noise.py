"""The seam of all randomness: replayable, distinct in each of its names, exact, and uniform.

The generator itself is held against a twin in plain integers, so that a seed means the same numbers
on every machine and under every NumPy.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from l0ref.noise import Noise, Stream, open_uniform

MASK = 2**64 - 1
words = st.integers(0, MASK)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 (Salmon et al. 2011, section 4.3): four words of a counter, two of a key."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [right >> 64 ^ c[1] ^ k[0], right & MASK, left >> 64 ^ c[3] ^ k[1], left & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


@given(words, st.sampled_from(Stream), st.integers(0, 2**32), st.integers(0, 2**40))
def test_uniform_is_philox_of_its_names(seed: int, stream: Stream, layer: int, step: int) -> None:
    """The top 52 bits k of each word, as (k + 1/2) / 2**52; blocks are counted from 1."""
    blocks = [philox([block, step, layer, stream], [seed, 0]) for block in (1, 2)]
    exact = [Fraction(2 * (word >> 12) + 1, 2**53) for block in blocks for word in block]
    u = Noise(seed).uniform(stream, (2, 4), layer=layer, step=step)
    assert [Fraction(v) for v in u.ravel().tolist()] == exact
    again = Noise(seed).uniform(stream, (2, 4), layer=layer, step=step)
    assert u.tobytes() == again.tobytes()


def test_the_twin_gives_the_published_answer() -> None:
    """Of counter 0 and key 0, in the authors' table of known answers (Random123, kat_vectors)."""
    answer = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox([0, 0, 0, 0], [0, 0]) == answer


def test_streams_keep_their_numbers() -> None:
    """They are part of what a seed means: a new stream takes a new number."""
    numbers = {"WEIGHT_INIT": 0, "GATE_INIT": 1, "SHUFFLE": 2, "GATES": 3, "DROPOUT": 4}
    assert {stream.name: stream.value for stream in Stream if stream.value <= 4} == numbers


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_any_other_name_is_another_draw_and_uncorrelated(draw: str) -> None:
    n = 2000
    names = [(1, Stream.GATES, 2, 7), (2, Stream.GATES, 2, 7), (1, Stream.DROPOUT, 2, 7),
             (1, Stream.GATES, 3, 7), (1, Stream.GATES, 2, 8), (1, Stream.GATES, 7, 2),
             (1, Stream.GATES, 0, 0), (0, Stream.GATES, 0, 0)]  # fmt: skip
    draws = np.array(
        [getattr(Noise(s), draw)(stream, (n,), layer=i, step=t) for s, stream, i, t in names]
    )
    assert np.unique(draws).size == draws.size
    correlations = np.corrcoef(draws)[np.triu_indices(len(names), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(n)  # 5 standard errors
    shifted = np.corrcoef(draws[:, 1:], draws[:, :-1])[: len(names), len(names) :]
    assert np.abs(shifted).max() < 5 / np.sqrt(n)


def test_a_longer_draw_starts_as_the_shorter_one() -> None:
    noise = Noise(5)
    long, short = (noise.uniform(Stream.GATES, (n,), layer=1, step=3) for n in (103, 7))
    np.testing.assert_array_equal(long[:7], short)


class Fixed:
    """A generator that has drawn given integers."""

    def __init__(self, k: Any) -> None:
        self.k = np.asarray(k)

    def integers(self, low: int, high: int, size: Any = None) -> Any:
        assert low <= self.k.min()
        assert self.k.max() < high
        return self.k


def test_u_and_1_minus_u_are_exact_at_both_ends() -> None:
    k = [0, 1, 2**51 - 1, 2**51, 2**52 - 2, 2**52 - 1]
    u = open_uniform(Fixed(k))  # type: ignore[arg-type]
    exact = [Fraction(2 * one + 1, 2**53) for one in k]
    assert [Fraction(v) for v in u.tolist()] == exact
    assert [Fraction(v) for v in (1 - u).tolist()] == [1 - e for e in exact]
    assert (u > 0).all()
    assert (u < 1).all()
    np.testing.assert_array_equal(u[::-1], 1 - u)  # symmetric about 1/2


def test_uniform_is_uniform_and_normal_is_normal() -> None:
    noise = Noise(12345)
    u = noise.uniform(Stream.GATES, (50, 400), step=1)
    assert ((u > 0) & (u < 1)).all()
    assert (1 - (1 - u) == u).all()
    assert u.dtype == np.float64
    # The seed is fixed; a sound generator has a chance of 1 in 10,000 to fail either of these.
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-4
    assert stats.kstest(noise.normal(Stream.GATE_INIT, (20_000,)), "norm").pvalue > 1e-4


def test_permutation_orders_each_epoch_anew() -> None:
    noise = Noise(3)
    first, second = noise.permutation(501, epoch=0), noise.permutation(501, epoch=1)
    np.testing.assert_array_equal(np.sort(first), np.arange(501))
    np.testing.assert_array_equal(np.sort(second), np.arange(501))
    assert (first != second).mean() > 0.9
    assert (first != np.arange(501)).mean() > 0.9
    np.testing.assert_array_equal(Noise(3).permutation(501, epoch=1), second)
    assert (Noise(4).permutation(501, epoch=1) != second).mean() > 0.9


def test_shapes() -> None:
    generator = np.random.default_rng(0)
    assert open_uniform(generator).shape == ()
    assert open_uniform(generator, (0, 3)).shape == (0, 3)
    assert Noise(0).normal(Stream.WEIGHT_INIT, (2, 5)).shape == (2, 5)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed .*\[0, 2\*\*64\), got {seed}"):
        Noise(seed)


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_the_least_and_the_greatest_seed_serve(seed: int) -> None:
    assert Noise(seed).uniform(Stream.GATES, (3,)).shape == (3,)
