r"""Where every random number comes from: a function of seed, stream, layer and step, no more.

A counter-based generator (Philox) has no history: its k-th block is a bijection of the counter k
under a key. Keyed with the seed and started at a counter made of (stream, layer, step), it gives
each draw of a run without the draws before it. So a stopped run resumes bit for bit with no
generator to save, and a seed covers everything: initial weights, initial gates, the order of the
examples, every gate's noise.

J. K. Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BITS = 52


class Stream(enum.IntEnum):
    """What a draw is for. The numbers are part of what a seed means: they never change."""

    WEIGHT_INIT = 0
    GATE_INIT = 1
    SHUFFLE = 2
    GATES = 3
    DROPOUT = 4
    AUGMENT = 5


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
        """Return the generator of one draw; the first counter word counts its own blocks."""
        counter = [0, step, layer, int(stream)]
        return np.random.Generator(np.random.Philox(counter=counter, key=self.seed))

    def uniform(
        self, stream: Stream, shape: tuple[int, ...], *, layer: int = 0, step: int = 0
    ) -> NDArray[np.float64]:
        """Draw u in the open interval (0, 1); see `open_uniform`."""
        return open_uniform(self.generator(stream, layer=layer, step=step), shape)

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
