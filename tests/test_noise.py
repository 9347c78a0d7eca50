"""The seam of all randomness: replayable, distinct in each of its names, exact, and uniform.

Both generators are held against twins in plain integers, so that a seed means the same numbers
on every machine and under every NumPy.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from l0ref.noise import Noise, Stream, Uniforms, open_uniform, philox4x32

MASK = 2**64 - 1
words = st.integers(0, MASK)
words32 = st.integers(0, 2**32 - 1)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 (Salmon et al. 2011, section 4.3): four words of a counter, two of a key."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [right >> 64 ^ c[1] ^ k[0], right & MASK, left >> 64 ^ c[3] ^ k[1], left & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def philox32(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10: the same rounds on 32-bit words, with constants of its own."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [right >> 32 ^ c[1] ^ k[0], right % 2**32, left >> 32 ^ c[3] ^ k[1], left % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


# The authors' table of known answers (Random123, kat_vectors, philox4x32 10): counter and key all
# zeros, all ones, and the digits of pi.
KNOWN = [
    "00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd",
    "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1",
]


@pytest.mark.parametrize("line", KNOWN)
def test_philox4x32_gives_the_published_answers(line: str) -> None:
    given = [int(word, 16) for word in line.split()]
    counter, key, answer = given[:4], given[4:6], given[6:]
    assert philox4x32(counter, key).tolist() == answer
    assert philox32(counter, key) == answer


@given(st.lists(words32, min_size=6, max_size=6), words32)
def test_philox4x32_is_its_twin_on_every_counter(given: list[int], other: int) -> None:
    *counter, k0, k1 = given
    two = [[counter[0], other], *counter[1:]]
    both = philox4x32(two, [k0, k1])
    assert both.dtype == np.uint32
    assert both[:, 0].tolist() == philox32(counter, [k0, k1])
    assert both[:, 1].tolist() == philox32([other, *counter[1:]], [k0, k1])


@pytest.mark.parametrize(
    ("counter", "key", "message"),
    [
        ([0, 0, 0], [0, 0], "counter must have 4 words, got 3"),
        ([0, 0, 0, 0], [0], "key must have 2 words, got 1"),
        ([0, 2**32, 0, 0], [0, 0], r"counter words .* \[0, 2\*\*32\), got 4294967296"),
        ([0, 0, 0, 0], [0, -1], r"key words .* got -1"),
        ([0, 0.5, 0, 0], [0, 0], r"counter words must be integers .* got 0.5"),
    ],
)
def test_what_is_no_counter_or_key_is_refused(counter: Any, key: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        philox4x32(counter, key)


@given(words, st.sampled_from(Stream), st.integers(0, 2**24 - 1), words)
def test_uniform_is_philox_of_its_names(seed: int, stream: Stream, layer: int, step: int) -> None:
    """Ten draws: blocks 0, 1 and half of 2, each word k as (k + 1/2) / 2**32."""
    names = [step % 2**32, step // 2**32, layer + 2**24 * stream]
    key = [seed % 2**32, seed // 2**32]
    k = [word for block in range(3) for word in philox32([block, *names], key)][:10]
    draws = Noise(seed).draws(stream, (2, 5), layer=layer, step=step)
    assert draws.words().dtype == np.uint32
    assert draws.words().tolist() == [k[:5], k[5:]]
    u = Noise(seed).uniform(stream, (2, 5), layer=layer, step=step)
    assert u.dtype == np.float64
    assert [Fraction(v) for v in u.ravel().tolist()] == [Fraction(2 * w + 1, 2**33) for w in k]
    np.testing.assert_array_equal(np.asarray(draws), u)


@given(words, st.sampled_from(Stream), st.integers(0, 2**32), st.integers(0, 2**40))
def test_generator_is_philox_of_its_names(seed: int, stream: Stream, layer: int, step: int) -> None:
    """NumPy's, of 64-bit words; its blocks are counted from 1."""
    answer = [philox([block, step, layer, stream], [seed, 0]) for block in (1, 2)]
    raw = Noise(seed).generator(stream, layer=layer, step=step).bit_generator.random_raw(8)
    assert raw.reshape(2, 4).tolist() == answer


def test_the_twin_gives_the_published_answer() -> None:
    """Of counter 0 and key 0, in the authors' table of known answers (Random123, kat_vectors)."""
    answer = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox([0, 0, 0, 0], [0, 0]) == answer


# --- a draw that is not made yet ---


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (4,), (2, 0, 3), (5, 1, 3)])
def test_a_draw_knows_its_shape(shape: tuple[int, ...]) -> None:
    draws = Noise(7).draws(Stream.GATES, shape, layer=2, step=5)
    u = np.asarray(draws)
    assert (draws.shape, draws.ndim, draws.size) == (u.shape, u.ndim, u.size)
    assert u.shape == draws.words().shape == shape
    np.testing.assert_array_equal(u, (draws.words() + 0.5) / 2**32)


def test_equal_draws_are_equal_numbers() -> None:
    one = Noise(7).draws(Stream.GATES, (3, 4), layer=2, step=5)
    other = Uniforms(seed=7, stream=3, layer=2, step=5, shape=(3, 4))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Uniforms(seed=7, stream=3, layer=2, step=6, shape=(3, 4))
    np.testing.assert_array_equal(one, other)


def test_a_draw_is_an_array_where_one_is_asked_for() -> None:
    draws = Noise(7).draws(Stream.GATES, (3, 4))
    assert np.asarray(draws, dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.array(draws) * 2, 2 * np.asarray(draws))
    with pytest.raises(ValueError, match="copy=False"):
        np.array(draws, copy=False)


def test_u_and_1_minus_u_are_exact_in_every_draw() -> None:
    draws = Noise(7).draws(Stream.GATES, (100_000,))
    k, u = draws.words().astype(np.int64), np.asarray(draws)
    np.testing.assert_array_equal(u * 2**33, 2 * k + 1)
    np.testing.assert_array_equal((1 - u) * 2**33, 2**33 - (2 * k + 1))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("seed", 2**64, r"2\*\*64"),
        ("seed", -1, r"2\*\*64"),
        ("stream", 2**8, r"2\*\*8"),
        ("layer", 2**24, r"2\*\*24"),
        ("layer", -1, r"2\*\*24"),
        ("step", 2**64, r"2\*\*64"),
        ("step", -1, r"2\*\*64"),
    ],
)
def test_a_name_out_of_range_is_refused(name: str, value: int, allowed: str) -> None:
    names = {"seed": 2**64 - 1, "stream": 255, "layer": 2**24 - 1, "step": 2**64 - 1}
    assert Uniforms(**names, shape=(2,)).words().shape == (2,)
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, {allowed}\), got {value}"):
        Uniforms(**names | {name: value}, shape=(2,))


@pytest.mark.parametrize("shape", [(2**34 + 1,), (2**20, 2**15), (3, -1)])
def test_a_shape_of_too_many_numbers_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape must hold at most 2\*\*34 numbers, got"):
        Noise(0).draws(Stream.GATES, shape)
    assert Noise(0).draws(Stream.GATES, (2**34,)).size == 2**34


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
