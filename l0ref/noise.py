r"""Where every random number comes from: a function of seed, stream, layer and step, no more.

A counter-based generator (Philox) has no history: its k-th block is a bijection of the counter k
under a key. Keyed with the seed, and with a counter made of (stream, layer, step), it gives each
draw of a run without the draws before it. So a stopped run resumes bit for bit with no generator to
save, and a seed covers everything: initial weights, initial gates, the order of the examples, every
gate's noise.

Two generators of that family are used. Initial values and shuffles, a few numbers once in a while,
come from NumPy's Philox4x64-10. The noise of gates and of dropout is drawn at every step, as many
numbers as there are gates: it is Philox4x32-10, written out here in a few lines (`philox4x32`),
so that a fast implementation can make the same bits on the spot, in any order and on any number of
threads, and need never store them. `Uniforms` is such a draw before anybody has asked for its
numbers.

What a seed means
-----------------
The 32-bit words that go into `philox4x32` for a draw; each gives four 32-bit words k:

==================  ==================================================================
counter word 0      number of the block; draw number j is word j mod 4 of block j div 4
counter words 1, 2  step, lower and upper half
counter word 3      layer + 2^24 stream
key words 0, 1      seed, lower and upper half
==================  ==================================================================

An integer k stands for u = (k + 1/2) / 2^32, and for 1 - u = (2^32 - k - 1/2) / 2^32: a pair of
numbers of which neither is ever 0, each exact in float64 and each with all of its digits in float32
(u itself would not do there: it rounds to 1 at the upper end). So logit u = log(k + 1/2) - log(2^32
- k - 1/2) has both of its tails in either precision, out to +-22.9.

J. K. Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
"""Of Philox4x32, one for each pair of counter words (Salmon et al., table 2)."""

KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
"""What the key words grow by from round to round: the golden ratio, and the square root of 3."""

ROUNDS = 10

LIMITS = {"seed": 2**64, "stream": 2**8, "layer": 2**24, "step": 2**64}
"""What the names of a draw must lie below, to fit in their part of the counter."""

_BITS = 52
_LOW = np.uint64(2**32 - 1)
_HALF = np.uint64(32)


class Stream(enum.IntEnum):
    """What a draw is for. The numbers are part of what a seed means: they never change."""

    WEIGHT_INIT = 0
    GATE_INIT = 1
    SHUFFLE = 2
    GATES = 3
    DROPOUT = 4
    AUGMENT = 5


def philox4x32(counter: Sequence[ArrayLike], key: Sequence[ArrayLike]) -> NDArray[np.uint32]:
    r"""Philox4x32-10: four pseudorandom words for each counter (Salmon et al. 2011, section 4.3).

    A round multiplies words 0 and 2 of the counter, each to a 64-bit product of which both halves
    are used, and exchanges the pairs:

    .. math:: (c_0, c_1, c_2, c_3) \leftarrow
              (\mathrm{hi}(M_1 c_2) \oplus c_1 \oplus k_0, \ \mathrm{lo}(M_1 c_2), \
               \mathrm{hi}(M_0 c_0) \oplus c_3 \oplus k_1, \ \mathrm{lo}(M_0 c_0)).

    After each of the ten rounds the key words grow by constants. Every step can be undone, so no
    two counters give the same four words.

    Parameters
    ----------
    counter : four array_like of int
        Words, 0 <= c < 2^32; they broadcast.
    key : two array_like of int
        Words, 0 <= k < 2^32; they broadcast with the counter.

    Returns
    -------
    array of uint32, of shape (4, ...)
        Word 0, word 1, word 2, word 3.

    Raises
    ------
    ValueError
        If there are not four counter words and two key words, or one is out of range.

    Examples
    --------
    >>> [f"{word:08x}" for word in philox4x32([0, 0, 0, 0], [0, 0])]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = _words("counter", counter, 4)
    k0, k1 = _words("key", key, 2)
    m0, m1 = np.array(MULTIPLIERS, dtype=np.uint64)
    step0, step1 = np.array(KEY_STEPS, dtype=np.uint64)
    for _ in range(ROUNDS):
        left, right = m0 * c0, m1 * c2  # below 2^64: no bit is lost
        c0, c1 = (right >> _HALF) ^ c1 ^ k0, right & _LOW
        c2, c3 = (left >> _HALF) ^ c3 ^ k1, left & _LOW
        k0, k1 = (k0 + step0) & _LOW, (k1 + step1) & _LOW
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3)).astype(np.uint32)


def _words(name: str, words: Sequence[ArrayLike], count: int) -> list[NDArray[np.uint64]]:
    if len(words) != count:
        raise ValueError(f"{name} must have {count} words, got {len(words)}")
    checked = []
    for word in words:
        given = np.asarray(word)
        if given.dtype.kind not in "iu" or ((given < 0) | (given >= 2**32)).any():
            raise ValueError(f"{name} words must be integers in [0, 2**32), got {given}")
        checked.append(given.astype(np.uint64))
    return checked


@dataclass(frozen=True)
class Uniforms:
    """The u of one draw, not made yet: NumPy makes them where it is given this as an array.

    Two with the same fields hold the same numbers. See the module for what they are.

    Parameters
    ----------
    seed : int
        0 <= seed < 2^64.
    stream : int
        What the draw is for, below 2^8.
    layer : int
        Below 2^24.
    step : int
        Below 2^64.
    shape : tuple of int
        At most 2^34 numbers: one counter word counts the blocks of four.

    Raises
    ------
    ValueError
        If one of them is out of range.

    Examples
    --------
    >>> u = Uniforms(seed=1, stream=3, layer=0, step=7, shape=(2, 3))
    >>> u.size
    6
    >>> np.asarray(u).round(4)
    array([[0.0877, 0.8424, 0.3554],
           [0.2742, 0.6241, 0.3193]])
    """

    seed: int
    stream: int
    layer: int
    step: int
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if not 0 <= value < limit:
                power = limit.bit_length() - 1
                raise ValueError(f"{name} must be in [0, 2**{power}), got {value}")
            if type(value) is not int:
                object.__setattr__(self, name, int(value))
        if type(self.shape) is not tuple or {*map(type, self.shape)} - {int}:
            object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if min(self.shape, default=0) < 0 or self.size > 2**34:
            raise ValueError(f"shape must hold at most 2**34 numbers, got {self.shape}")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of draws."""
        return math.prod(self.shape)

    @property
    def key(self) -> tuple[int, int]:
        """Both key words."""
        return self.seed % 2**32, self.seed >> 32

    @property
    def counter(self) -> tuple[int, int, int]:
        """The counter words 1, 2 and 3; word 0 counts blocks."""
        return self.step % 2**32, self.step >> 32, self.layer + (self.stream << 24)

    def words(self) -> NDArray[np.uint32]:
        """Return the integers k, of `shape`."""
        return uniform_words(self)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return u = (k + 1/2) / 2^32, exact in float64; a narrower dtype may round it to 1."""
        if copy is False:
            raise ValueError("the numbers of a draw are made when asked for; copy=False cannot be")
        return np.asarray((self.words() + 0.5) * 2.0**-32, dtype=dtype)


def uniform_words(uniforms: Uniforms) -> NDArray[np.uint32]:
    """Return the integers k of a draw, of its shape; u is (k + 1/2) / 2^32."""
    blocks = np.arange(-(-uniforms.size // 4), dtype=np.uint64)
    words = philox4x32((blocks, *uniforms.counter), uniforms.key)
    return words.T.reshape(-1)[: uniforms.size].reshape(uniforms.shape)


@dataclass(frozen=True)
class Noise:
    """The draws of one run.

    Parameters
    ----------
    seed : int
        0 <= seed < 2**64.

    Examples
    --------
    >>> noise = Noise(seed=1)
    >>> a = noise.uniform(Stream.GATES, (3,), layer=0, step=7)
    >>> b = Noise(seed=1).uniform(Stream.GATES, (3,), layer=0, step=7)
    >>> bool((a == b).all())
    True
    """

    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be in [0, 2**64), got {self.seed}")

    def generator(self, stream: Stream, *, layer: int = 0, step: int = 0) -> np.random.Generator:
        """Return NumPy's generator of one draw; the first counter word counts its own blocks."""
        counter = [0, step, layer, int(stream)]
        return np.random.Generator(np.random.Philox(counter=counter, key=self.seed))

    def draws(
        self, stream: Stream, shape: tuple[int, ...], *, layer: int = 0, step: int = 0
    ) -> Uniforms:
        """Name a draw of u in the open interval (0, 1), to be made where it is used."""
        return Uniforms(self.seed, int(stream), layer, step, shape)

    def uniform(
        self, stream: Stream, shape: tuple[int, ...], *, layer: int = 0, step: int = 0
    ) -> NDArray[np.float64]:
        """Draw u in the open interval (0, 1): the numbers of `draws`."""
        return np.asarray(self.draws(stream, shape, layer=layer, step=step))

    def normal(
        self, stream: Stream, shape: tuple[int, ...], *, layer: int = 0, step: int = 0
    ) -> NDArray[np.float64]:
        """Draw from the standard normal distribution."""
        return self.generator(stream, layer=layer, step=step).standard_normal(shape)

    def permutation(self, n: int, *, epoch: int) -> NDArray[np.int64]:
        """Return the order in which an epoch visits its n examples."""
        return self.generator(Stream.SHUFFLE, step=epoch).permutation(n)


def open_uniform(
    generator: np.random.Generator, shape: tuple[int, ...] | None = None
) -> NDArray[np.float64]:
    r"""Draw u = (k + 1/2) / 2^52 with k uniform on the integers 0 .. 2^52 - 1.

    Never 0 and never 1, symmetric about 1/2, and both u and 1 - u = (2^52 - k - 1/2) / 2^52 are
    float64 numbers, so that log u - log(1 - u) keeps both its tails. (24 bits in float32 would not
    do: (2^24 - 1/2) / 2^24 rounds to 1.) Each u stands for a cell 2^-52 wide.

    Examples
    --------
    >>> u = open_uniform(np.random.default_rng(0), (1000,))
    >>> bool(((0 < u) & (u < 1)).all())
    True
    """
    k = generator.integers(0, 2**_BITS, size=shape)
    return np.asarray((k + 0.5) * 2.0**-_BITS)
