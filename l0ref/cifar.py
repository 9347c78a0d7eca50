"""The binary versions of CIFAR-10 and CIFAR-100: read strictly, taken from their archives whole.

A file is records end to end, with no header and nothing between them. A record is one byte a label
(CIFAR-10: the class; CIFAR-100: the coarse class, then the fine one, which is the class) and 3072
bytes of an image of 32 x 32 pixels: its red, its green and its blue plane, each row by row.

A. Krizhevsky, *Learning multiple layers of features from tiny images*, 2009; the format:
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .storage import FileError

IMAGE_SHAPE = (3, 32, 32)
"""Channels (red, green, blue), rows, columns."""

_IMAGE_BYTES = 3 * 32 * 32


@dataclass(frozen=True)
class Form:
    """What one of the two sets is made of.

    Parameters
    ----------
    name : str
        ``"cifar10"`` or ``"cifar100"``.
    archive, folder : str
        The archive it is published as, and the folder in it.
    train, test : tuple of str
        The files of the two parts, in the order of their examples.
    classes : tuple of int
        How many values each label byte of a record may have; the last byte is the class.
    """

    name: str
    archive: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    classes: tuple[int, ...]


CIFAR10 = Form(
    name="cifar10",
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    classes=(10,),
)
CIFAR100 = Form(
    name="cifar100",
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    train=("train.bin",),
    test=("test.bin",),
    classes=(20, 100),
)


def find_files(folder: Path, form: Form) -> tuple[list[Path], list[Path]]:
    """Return the paths of the training and of the test files.

    Parameters
    ----------
    folder : Path
        Holds the files, or the folder that the archive unpacks to.
    form : Form

    Raises
    ------
    FileNotFoundError
        If the folder or one of the files is not there; the message names all that are missing.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    home = folder / form.folder if (folder / form.folder).is_dir() else folder
    train, test = [home / name for name in form.train], [home / name for name in form.test]
    missing = [path.name for path in (*train, *test) if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{home} lacks {', '.join(missing)}: needed are "
            f"{', '.join((*form.train, *form.test))}, the binary version of {form.name}"
        )
    return train, test


def read_records(
    path: str | os.PathLike[str], classes: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read a file of records.

    Parameters
    ----------
    path : path
    classes : tuple of int
        How many values each label byte may have: (10,) for CIFAR-10, (20, 100) for CIFAR-100.

    Returns
    -------
    images : ndarray of uint8, shape (N, 3, 32, 32)
        A view of the file's bytes, not to be written to; N is what the file's length says.
    labels : ndarray of int64, shape (N,)
        The last label of each record.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileError
        If it is empty, is not made of whole records, or holds a label that is no class.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "test.bin")
    ...     _ = path.write_bytes(bytes([19, 99]) + bytes(3072))
    ...     images, labels = read_records(path, (20, 100))
    >>> images.shape, labels
    ((1, 3, 32, 32), array([99]))
    """
    data = Path(path).read_bytes()
    size = len(classes) + _IMAGE_BYTES
    if not data:
        raise FileError(f"{path} is empty")
    if len(data) % size:
        raise FileError(
            f"{path} is truncated or of another kind: it has {len(data)} bytes, "
            f"allowed is a multiple of {size}, the length of a record"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    for i, n in enumerate(classes):
        values = records[:, i]
        if values.max() >= n:
            first = int(np.argmax(values >= n))
            kind = ("coarse label", "fine label")[i] if len(classes) == 2 else "label"
            raise FileError(
                f"{path}: the {kind} of record {first} is {values[first]}, allowed are 0 .. {n - 1}"
            )
    images = records[:, len(classes) :].reshape(-1, *IMAGE_SHAPE)
    return images, records[:, len(classes) - 1].astype(np.int64)


def unpack(archive: Path, form: Form) -> None:
    """Put the folder of the files beside their archive: whole, or not at all.

    A folder that is there is never written to. It must hold what the archive does. Whether the
    archive is the one published is for its SHA-256 to say, before.

    Raises
    ------
    FileError
        If the archive is damaged or lacks a file, or if the folder is there and holds other files.
    OSError
        If the folder cannot be written.
    """
    home = archive.parent / form.folder
    try:
        with tarfile.open(archive) as tar:
            members = [tar.getmember(f"{form.folder}/{name}") for name in form.train + form.test]
            for member in members:
                if not member.isreg():
                    raise FileError(f"{archive}: {member.name} is not a regular file")
            if home.exists():
                _compare(tar, members, archive.parent)
                return
            # Beside its place, for only within a file system is a folder renamed in one step.
            with tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{form.name}.") as part:
                tar.extractall(part, members, filter="data")
                (Path(part) / form.folder).rename(home)
    except (tarfile.TarError, zlib.error, EOFError, KeyError) as error:
        raise FileError(f"{archive} is not the whole archive of {form.name}: {error}") from error


def _compare(tar: tarfile.TarFile, members: list[tarfile.TarInfo], folder: Path) -> None:
    for member in members:
        path, content = folder / member.name, tar.extractfile(member)
        if content is None or not path.is_file() or path.read_bytes() != content.read():
            raise FileError(
                f"{path} is missing, or not the file that was published under that name: "
                f"move {path.parent} away, choose another folder, or load it without a download"
            )
