"""Augmentation: padded, cropped where told, flipped left to right where told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from l0ref.augment import crop_and_flip, draw_crop_and_flip
from l0ref.noise import Noise, Stream


def mirrored(k: int, n: int) -> int:
    """Step from pixel 0 to k, one at a time, turning round at the edges 0 and n - 1."""
    at, step = 0, 1 if k > 0 else -1
    for _ in range(abs(k)):
        if not 0 <= at + step < n:
            step = -step
        at += step
    return at


def one_by_one(
    images: np.ndarray, offsets: np.ndarray, flips: np.ndarray, pad: int, mode: str
) -> list:
    """Pad, crop and flip pixel by pixel, in nested lists."""
    out = []
    for image, (row, column), flip in zip(images.tolist(), offsets.tolist(), flips, strict=True):
        planes = []
        for plane in image:
            height, width = len(plane), len(plane[0])

            def seen(i: int, j: int, plane: list = plane, h: int = height, w: int = width) -> Any:
                if mode == "constant" and not (0 <= i < h and 0 <= j < w):
                    return 0
                return plane[mirrored(i, h)][mirrored(j, w)]

            padded = [
                [seen(i, j) for j in range(-pad, width + pad)] for i in range(-pad, height + pad)
            ]
            cropped = [line[column : column + width] for line in padded[row : row + height]]
            planes.append([line[::-1] if flip else line for line in cropped])
        out.append(planes)
    return out


@given(
    n=st.integers(1, 5),
    channels=st.integers(1, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    dtype=st.sampled_from(["f4", "f8", "u1", ">i2"]),
    mode=st.sampled_from(["constant", "reflect"]),
    data=st.data(),
)
def test_crop_and_flip_against_a_twin(
    n: int, channels: int, height: int, width: int, dtype: str, mode: str, data: st.DataObject
) -> None:
    pad = data.draw(st.integers(0, min(height, width) - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    images = rng.integers(0, 256, (n, channels, height, width)).astype(dtype)
    offsets = rng.integers(0, 2 * pad + 1, (n, 2)).astype(rng.choice(["u1", "i4", "i8"]))
    flips = rng.random(n) < 0.5
    before = images.copy()
    out = crop_and_flip(images, offsets, flips, pad=pad, mode=mode)
    assert out.tolist() == one_by_one(images, offsets, flips, pad, mode)
    assert (out.dtype, out.shape) == (images.dtype, images.shape)
    np.testing.assert_array_equal(images, before)
    assert not np.shares_memory(out, images)
    assert out.flags.c_contiguous


IMAGE = np.array([[[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]]])


@pytest.mark.parametrize(
    ("offset", "flip", "expected"),
    [
        ((2, 2), False, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]),
        ((2, 2), True, [[4, 3, 2, 1], [8, 7, 6, 5], [12, 11, 10, 9]]),
        ((0, 2), False, [[9, 10, 11, 12], [5, 6, 7, 8], [1, 2, 3, 4]]),
        ((3, 2), False, [[5, 6, 7, 8], [9, 10, 11, 12], [5, 6, 7, 8]]),
        ((2, 1), False, [[2, 1, 2, 3], [6, 5, 6, 7], [10, 9, 10, 11]]),
        ((2, 4), False, [[3, 4, 3, 2], [7, 8, 7, 6], [11, 12, 11, 10]]),
        ((2, 1), True, [[3, 2, 1, 2], [7, 6, 5, 6], [11, 10, 9, 10]]),
        ((1, 3), True, [[7, 8, 7, 6], [3, 4, 3, 2], [7, 8, 7, 6]]),
    ],
)
def test_by_hand(offset: tuple[int, int], flip: bool, expected: list[list[int]]) -> None:
    out = crop_and_flip(IMAGE, np.array([offset]), np.array([flip]), pad=2, mode="reflect")
    assert out.tolist() == [[expected]]


@pytest.mark.parametrize(
    ("offset", "flip", "expected"),
    [
        ((2, 2), True, [[4, 3, 2, 1], [8, 7, 6, 5], [12, 11, 10, 9]]),
        ((0, 2), False, [[0, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]]),
        ((3, 1), False, [[0, 5, 6, 7], [0, 9, 10, 11], [0, 0, 0, 0]]),
        ((3, 1), True, [[7, 6, 5, 0], [11, 10, 9, 0], [0, 0, 0, 0]]),
    ],
)
def test_by_hand_on_black(offset: tuple[int, int], flip: bool, expected: list[list[int]]) -> None:
    out = crop_and_flip(IMAGE, np.array([offset]), np.array([flip]), pad=2)  # black, by default
    assert out.tolist() == [[expected]]


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mode must be one of .*'reflect'.* got 'wrap'"):
        crop_and_flip(IMAGE, np.zeros((1, 2), int), np.zeros(1, bool), mode="wrap")


def test_each_image_has_its_own_offset_and_flip_and_all_its_channels_share_them() -> None:
    rng = np.random.default_rng(5)
    images = rng.random((4, 3, 6, 5), dtype=np.float32)
    offsets, flips = np.array([[4, 4], [0, 8], [8, 1], [4, 4]]), np.array([0, 1, 0, 1], bool)
    out = crop_and_flip(images, offsets, flips)  # 4 pixels, by default
    np.testing.assert_array_equal(out[0], images[0])
    np.testing.assert_array_equal(out[3], images[3, :, :, ::-1])
    for k in range(4):
        alone = crop_and_flip(images[k : k + 1], offsets[k : k + 1], flips[k : k + 1])
        np.testing.assert_array_equal(out[k], alone[0])
        for channel in range(3):
            plane = images[k, channel][None, None]
            alone = crop_and_flip(plane, offsets[k : k + 1], flips[k : k + 1])
            np.testing.assert_array_equal(out[k, channel], alone[0, 0])


def test_nan_stays_nan_and_no_images_are_no_images() -> None:
    images = np.full((2, 1, 3, 3), np.nan, np.float32)
    images[0, 0, 0, 0] = 1
    out = crop_and_flip(images, np.full((2, 2), 1), np.array([True, False]), pad=1)
    assert out[0, 0, 0, 2] == 1
    assert np.isnan(out).sum() == 17
    none = crop_and_flip(images[:0], np.zeros((0, 2), int), np.zeros(0, bool), pad=1)
    assert none.shape == (0, 1, 3, 3)


IMAGES, OFFSETS, FLIPS = np.zeros((3, 2, 4, 6)), np.zeros((3, 2), int), np.zeros(3, bool)


@pytest.mark.parametrize(
    ("images", "offsets", "flips", "pad", "message"),
    [
        (IMAGES[0], OFFSETS, FLIPS, 1, r"images must .* \(N, C, H, W\), got \(2, 4, 6\)"),
        (IMAGES, OFFSETS, FLIPS, 4, "pad must be in 0 .. 3 for images of 4 x 6 .* got 4"),
        (IMAGES.swapaxes(2, 3), OFFSETS, FLIPS, 4, "pad must be in 0 .. 3 .* 6 x 4 .* got 4"),
        (IMAGES, OFFSETS, FLIPS, -1, "pad must be in 0 .. 3 .* got -1"),
        (IMAGES, OFFSETS[:2], FLIPS, 1, r"offsets must .* \(3, 2\), got int64 \(2, 2\)"),
        (IMAGES, OFFSETS[:, 0], FLIPS, 1, r"offsets must .* \(3, 2\), got int64 \(3,\)"),
        (IMAGES, OFFSETS * 1.0, FLIPS, 1, r"offsets must be integers .* got float64 \(3, 2\)"),
        (IMAGES, OFFSETS == 0, FLIPS, 1, r"offsets must be integers .* got bool \(3, 2\)"),
        (
            IMAGES,
            np.add(OFFSETS, [[0], [0], [3]]),
            FLIPS,
            1,
            r"in 0 .. 2, got 3 in offsets\[2, 0\]",
        ),
        (IMAGES, OFFSETS - [0, 1], FLIPS, 1, r"in 0 .. 2, got -1 in offsets\[0, 1\]"),
        (IMAGES, OFFSETS, FLIPS[:2], 1, r"flips must be bool of shape \(3,\), got bool \(2,\)"),
        (IMAGES, OFFSETS, FLIPS.astype(int), 1, r"flips must be bool .* got int64 \(3,\)"),
    ],
)
def test_crop_and_flip_refuses(
    images: np.ndarray, offsets: np.ndarray, flips: np.ndarray, pad: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        crop_and_flip(images, offsets, flips, pad=pad)


def test_every_offset_and_flip_is_as_likely_as_every_other() -> None:
    n, pad = 162_000, 4
    offsets, flips = draw_crop_and_flip(np.random.default_rng(11), n)  # 4 pixels, by default
    assert offsets.shape == (n, 2)
    assert flips.shape == (n,)
    assert flips.dtype == np.bool_
    assert offsets.min() == 0
    assert offsets.max() == 2 * pad
    cells = np.ravel_multi_index((offsets[:, 0], offsets[:, 1], flips.astype(int)), (9, 9, 2))
    # 162 cells of 1,000 each, so row, column and flip are independent, too.
    assert stats.chisquare(np.bincount(cells, minlength=162)).pvalue > 1e-3


def test_draws_are_those_of_their_generator() -> None:
    noise = Noise(seed=3)
    first, again, other = (
        draw_crop_and_flip(noise.generator(Stream.AUGMENT, step=step), 50, pad=2)
        for step in (7, 7, 8)
    )
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
    assert (first[1] != other[1]).any()
    assert Stream.AUGMENT == 5


@given(n=st.integers(0, 20), pad=st.integers(0, 9))
@example(n=0, pad=0)
@example(n=3, pad=0)
def test_draws_fit_what_applies_them(n: int, pad: int) -> None:
    offsets, flips = draw_crop_and_flip(np.random.default_rng(n), n, pad=pad)
    images = np.random.default_rng(pad).random((n, 2, 10, 11))
    assert crop_and_flip(images, offsets, flips, pad=pad).shape == images.shape


@pytest.mark.parametrize(
    ("n", "pad", "message"),
    [(-1, 4, "n must be at least 0, got -1"), (3, -2, "pad must be at least 0, got -2")],
)
def test_draws_refuse(n: int, pad: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_crop_and_flip(np.random.default_rng(0), n, pad=pad)
