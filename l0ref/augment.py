r"""Augmentation of small images: a random shift of a few pixels and a random flip.

An image is padded on all sides, cropped to its size again at a random place, and mirrored left to
right with probability 1/2. The padding is 4 black pixels, as in the code of C. Louizos, M. Welling
and D. P. Kingma (github.com/AMLab-Amsterdam/L0_regularization); the wide residual networks'
authors (S. Zagoruyko, N. Komodakis, BMVC 2016) reflect the image instead, which is the other mode.

What is random is an argument: `draw_crop_and_flip` draws it, `crop_and_flip` applies it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

MODES = ("constant", "reflect")

_Scalar = TypeVar("_Scalar", bound=np.generic)


def draw_crop_and_flip(
    generator: np.random.Generator, n: int, *, pad: int = 4
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw where to crop n padded images, and which of them to flip.

    Returns
    -------
    offsets : ndarray of int64, shape (n, 2)
        Row and column, independent and uniform on 0 .. 2 * pad.
    flips : ndarray of bool, shape (n,)
        True with probability 1/2.

    Raises
    ------
    ValueError
        If `n` or `pad` is negative.

    Examples
    --------
    >>> offsets, flips = draw_crop_and_flip(np.random.default_rng(0), 1000, pad=1)
    >>> np.unique(offsets), offsets.shape, flips.shape
    (array([0, 1, 2]), (1000, 2), (1000,))
    """
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    if pad < 0:
        raise ValueError(f"pad must be at least 0, got {pad}")
    offsets = generator.integers(0, 2 * pad, size=(n, 2), endpoint=True)
    flips = generator.integers(0, 1, size=n, dtype=np.bool_, endpoint=True)
    return offsets, flips


def crop_and_flip(
    images: NDArray[_Scalar],
    offsets: NDArray[np.integer[Any]],
    flips: NDArray[np.bool_],
    *,
    pad: int = 4,
    mode: str = "constant",
) -> NDArray[_Scalar]:
    r"""Pad each image, crop it at its offset, and flip it if it is to be flipped.

    With row offset :math:`r`, column offset :math:`s`, and the column :math:`j' = W - 1 - j` of a
    flipped image, :math:`j' = j` of any other,

    .. math:: y_{cij} = x_{c,\, r + i - p,\, s + j' - p}

    where x is continued beyond its border by 0, or by its reflection
    :math:`\rho_n(k) = n - 1 - \bigl|n - 1 - |k|\bigr|` at 0 and at :math:`n - 1`, which does not
    repeat the pixels of the edge.

    Parameters
    ----------
    images : ndarray, shape (N, C, H, W)
        Of any dtype.
    offsets : ndarray of int, shape (N, 2)
        Row and column of the crop in the padded image, 0 .. 2 * pad; (pad, pad) shifts nothing.
    flips : ndarray of bool, shape (N,)
        Which images to mirror left to right.
    pad : int
        Pixels added on each side; 0 .. min(H, W) - 1, since there are no more to reflect.
    mode : {"constant", "reflect"}
        Zeros, or a reflection; the names are those of `numpy.pad`.

    Returns
    -------
    ndarray, shape (N, C, H, W)
        A new array of the same dtype.

    Raises
    ------
    ValueError
        If a shape, a dtype, an offset, `pad` or `mode` is not as above.

    Examples
    --------
    >>> image = np.array([[[[1, 2, 3], [4, 5, 6]]]])
    >>> crop_and_flip(image, np.array([[1, 2]]), np.array([False]), pad=1)
    array([[[[2, 3, 0],
             [5, 6, 0]]]])
    >>> crop_and_flip(image, np.array([[1, 2]]), np.array([False]), pad=1, mode="reflect")
    array([[[[2, 3, 2],
             [5, 6, 5]]]])
    >>> crop_and_flip(image, np.array([[1, 1]]), np.array([True]), pad=1)
    array([[[[3, 2, 1],
             [6, 5, 4]]]])
    """
    if images.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), got {images.shape}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    n, _, height, width = images.shape
    if not 0 <= pad < min(height, width):
        raise ValueError(
            f"pad must be in 0 .. {min(height, width) - 1} for images of {height} x {width} "
            f"pixels, got {pad}"
        )
    if offsets.shape != (n, 2) or offsets.dtype.kind not in "iu":
        raise ValueError(
            f"offsets must be integers of shape ({n}, 2), got {offsets.dtype} {offsets.shape}"
        )
    if flips.shape != (n,) or flips.dtype != np.bool_:
        raise ValueError(f"flips must be bool of shape ({n},), got {flips.dtype} {flips.shape}")
    outside = np.argwhere((offsets < 0) | (offsets > 2 * pad))
    if outside.size:
        i, k = outside[0]
        raise ValueError(
            f"offsets must be in 0 .. {2 * pad}, got {offsets[i, k]} in offsets[{i}, {k}]"
        )
    widths = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    padded = np.pad(images, widths, "reflect" if mode == "reflect" else "constant")
    crops = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    chosen = crops[np.arange(n), :, offsets[:, 0], offsets[:, 1]]  # indexed by arrays: a copy
    chosen[flips] = chosen[flips, :, :, ::-1]
    return chosen
