"""The IDX file format, in which MNIST comes: read strictly, written to the same bytes every time.

The header is two zero bytes, a byte for the dtype, a byte for the number of dimensions d, and d
lengths of 32 bits; then the numbers, last index fastest, and nothing more. All of it is big-endian.

Y. LeCun, C. Cortes, C. J. C. Burges, *The MNIST database of handwritten digits*,
http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .storage import FileError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_NDIM = 64  # of NumPy


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an IDX file, compressed by gzip or not, as its first bytes tell.

    Returns
    -------
    ndarray
        In the machine's byte order.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileError
        If it is empty, truncated, too long, corrupt, or no IDX file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_idx(f"{folder}/labels.gz", np.array([7, 2, 1], dtype=np.uint8))
    ...     read_idx(f"{folder}/labels.gz")
    array([7, 2, 1], dtype=uint8)
    """
    data = Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise FileError(f"{path} is a corrupt or truncated gzip file: {error}") from error
    if not data:
        raise FileError(f"{path} is empty")
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES:
        raise FileError(f"{path} is not an IDX file: it begins with the bytes {data[:4].hex(' ')}")
    dtype, ndim = np.dtype(_DTYPES[data[2]]), data[3]
    start = 4 + 4 * ndim
    if not 1 <= ndim <= _MAX_NDIM or len(data) < start:
        raise FileError(f"{path} has a broken header: {ndim} dimensions in {len(data)} bytes")
    shape = tuple(np.frombuffer(data, ">u4", ndim, offset=4).tolist())
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise FileError(
            f"{path} is {'truncated' if len(data) < expected else 'too long'}: "
            f"its header, of shape {shape}, announces {expected} bytes, it has {len(data)}"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def write_idx(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write an IDX file, compressed by gzip if its name ends in ``.gz``.

    Equal arrays give equal bytes (compressed: under the same version of zlib).

    Raises
    ------
    ValueError
        If the format has no code for the dtype, or the array has no dimension.
    """
    codes = {np.dtype(dtype).newbyteorder("="): code for code, dtype in _DTYPES.items()}
    code = codes.get(array.dtype.newbyteorder("="))
    if code is None or array.ndim == 0:
        raise ValueError(
            f"array must be of at least one dimension and of {', '.join(map(str, codes))}, "
            f"got {array.dtype} of shape {array.shape}"
        )
    header = bytes((0, 0, code, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    data = header + array.astype(_DTYPES[code]).tobytes()
    if os.fspath(path).endswith(".gz"):
        compressed = io.BytesIO()
        # No name and no time in its header, or the same array would be other bytes tomorrow.
        with gzip.GzipFile("", "wb", compresslevel=9, fileobj=compressed, mtime=0) as file:
            file.write(data)
        data = compressed.getvalue()
    Path(path).write_bytes(data)


def read_labelled_images(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one part of a set published as MNIST is: uint8 images and as many labels, 0 .. 9.

    Parameters
    ----------
    folder : Path
        Holds ``<part>-images-idx3-ubyte`` and ``<part>-labels-idx1-ubyte``, or the spelling with
        a dot, ``<part>-images.idx3-ubyte``, either one with or without an ending ``.gz``.
    part : str
        ``"train"`` or ``"t10k"``.

    Returns
    -------
    images : ndarray of uint8, shape (N, H, W)
    labels : ndarray of int64, shape (N,)

    Raises
    ------
    FileNotFoundError
        If one of the two files is not there.
    FileError
        If one is not what its name says, or they do not belong together.
    """
    images_path = _find_idx(folder, f"{part}-images", "idx3-ubyte")
    labels_path = _find_idx(folder, f"{part}-labels", "idx1-ubyte")
    images, labels = read_idx(images_path), read_idx(labels_path)
    for path, array, kind, ndim in (
        (images_path, images, "images", 3),
        (labels_path, labels, "labels", 1),
    ):
        if array.dtype != np.uint8 or array.ndim != ndim or array.size == 0:
            raise FileError(
                f"{path} must hold {kind}, uint8 in {ndim} dimensions, not empty: "
                f"it holds {array.dtype} of shape {array.shape}"
            )
    if len(images) != len(labels):
        raise FileError(
            f"{images_path} holds {len(images)} images, but {labels_path} {len(labels)} labels"
        )
    if labels.max() > 9:
        first = int(np.argmax(labels > 9))
        raise FileError(f"{labels_path}: label {first} is {labels[first]}, allowed are 0 .. 9")
    return images, labels.astype(np.int64)


def _find_idx(folder: Path, stem: str, kind: str) -> Path:
    names = [f"{stem}{dot}{kind}{end}" for dot in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds none of {', '.join(names)}")
