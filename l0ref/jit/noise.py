"""Twins of `l0ref.noise`: the same words, bit for bit, on any number of threads."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import noise
from ..noise import KEY_STEPS, MULTIPLIERS, ROUNDS, Uniforms
from ._compile import elementwise, in_vectors, inline, parallel, share_out
from ._registry import NotForKernel, twin

BLOCKS = 2048
"""Philox blocks of four words that one turn of a shared loop makes: 32 kB of words."""

# 32-bit words in 64-bit numbers, so that a product of two keeps both its halves.
_M0, _M1 = (np.uint64(m) for m in MULTIPLIERS)
_STEP0, _STEP1 = (np.uint64(s) for s in KEY_STEPS)
_LOW, _HALF, _ONE = np.uint64(2**32 - 1), np.uint64(32), np.uint64(1)


@elementwise
def _philox_block(i, first, w1, w2, w3, k0, k1, pairs):  # type: ignore[no-untyped-def]
    w0 = np.uint64(first + i)
    for _ in range(ROUNDS - 1):
        # Upper halves are cut off where they would matter: a product does it at no cost.
        left, right = _M0 * (w0 & _LOW), _M1 * (w2 & _LOW)
        w0, w1 = (right >> _HALF) ^ w1 ^ k0, right
        w2, w3 = (left >> _HALF) ^ w3 ^ k1, left
        k0, k1 = k0 + _STEP0, k1 + _STEP1
    # The last round's words lie in the halves of its products, the other way round. (To put them
    # together one by one, the compiler would multiply 64 bits by 64, which is slow.)
    left, right = _M0 * (w0 & _LOW), _M1 * (w2 & _LOW)
    pairs[2 * i] = ((right >> _HALF) | (right << _HALF)) ^ ((w1 ^ k0) & _LOW)
    pairs[2 * i + 1] = ((left >> _HALF) | (left << _HALF)) ^ ((w3 ^ k1) & _LOW)


@inline
def philox_pairs(first, name, pairs):  # type: ignore[no-untyped-def]
    """Fill `pairs`, two to a block from block `first` on, with words 0 and 1, and 2 and 3.

    The earlier word of a pair is its lower half. `name` is what `named` gives.
    """
    args = (first, name[0], name[1], name[2], name[3], name[4], pairs)
    in_vectors(_philox_block, pairs.size // 2, args)


def named(uniforms: Uniforms) -> NDArray[np.uint64]:
    """Counter words 1, 2 and 3, and both key words: what a kernel needs to know of a draw."""
    return np.array([*uniforms.counter, *uniforms.key], dtype=np.uint64)


@inline
def _fill_some(turn, name, pairs):  # type: ignore[no-untyped-def]
    first = turn * BLOCKS
    philox_pairs(first, name, pairs[2 * first : 2 * min(pairs.size // 2, first + BLOCKS)])


@parallel
def _fill(many, name, words):  # type: ignore[no-untyped-def]
    pairs = words.view(np.uint64)
    share_out(many, _fill_some, (pairs.size // 2 + BLOCKS - 1) // BLOCKS, (name, pairs))


def check_uniforms(uniforms: Any) -> None:
    """Raise `NotForKernel` for what is no draw of one number or more."""
    # A pair of words is stored as one number, which puts the earlier word first on little-endian
    # machines alone.
    if type(uniforms) is not Uniforms or not uniforms.size or sys.byteorder != "little":
        raise NotForKernel


@twin(noise.uniform_words)
def uniform_words(uniforms: Uniforms) -> NDArray[np.uint32]:
    """Return the integers k of a draw, of its shape."""
    check_uniforms(uniforms)
    words = np.empty(-(-uniforms.size // 4) * 4, dtype=np.uint32)
    _fill(named(uniforms), words)
    return words[: uniforms.size].reshape(uniforms.shape)
