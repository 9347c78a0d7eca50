"""Files that are written whole or not at all, and read with errors that say what is wrong."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class FileError(ValueError):
    """A file is missing, truncated, corrupt, or of another kind; the message names it."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under a temporary name beside it, flush it to disk, and put it in place at once.

    Whoever reads `path`, after a crash at any point, finds the old content or the new, never a
    part.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_arrays(path: Path, arrays: dict[str, Array], *, compress: bool = False) -> None:
    """Save named arrays as .npz, atomically and without pickle."""
    for name, value in arrays.items():
        if np.asarray(value).dtype.hasobject:
            raise ValueError(f"{name} must hold numbers or text, got dtype object")
    # Untyped: no array's name is that of an argument, and NumPy 2.0 has no allow_pickle here.
    save: Any = np.savez_compressed if compress else np.savez
    write_atomically(path, lambda file: save(file, **arrays))


def read_npz(path: Path) -> dict[str, Array]:
    """Read every array of a .npz, checking its sums; pickled objects are refused.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileError
        If it is not a .npz file, or damaged.
    """
    prefix = np.lib.format.MAGIC_PREFIX
    with path.open("rb") as file:
        if file.read(len(prefix)) == prefix:
            raise FileError(f"{path} is not an .npz file but a single array")
        try:
            with zipfile.ZipFile(file) as archive:
                # Whole members, then their arrays: a member's sum is checked at its very end, and
                # a damaged header would have NumPy stop before it.
                members = {name: io.BytesIO(archive.read(name)) for name in archive.namelist()}
            return {
                name.removesuffix(".npy"): np.lib.format.read_array(member, allow_pickle=False)
                for name, member in members.items()
            }
        # A damaged archive makes zipfile and the .npy reader raise a dozen unrelated types.
        except Exception as error:
            raise FileError(f"{path} is not a readable .npz file: {error}") from error


def load_arrays(path: Path, required: tuple[str, ...] = ()) -> dict[str, Array]:
    """Load what `save_arrays` wrote.

    Raises
    ------
    FileError
        If the file is missing, not a .npz, damaged, or lacks a required array.
    """
    try:
        arrays = read_npz(path)
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise FileError(f"{path}: {what}") from None
    missing = [name for name in required if name not in arrays]
    if missing:
        raise FileError(f"{path}: lacks {', '.join(missing)}")
    return arrays


def save_json(path: Path, value: Any) -> None:
    """Save JSON, atomically; NaN and infinities are refused, since JSON has none."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def load_json(path: Path) -> Any:
    """Load JSON; `FileError` where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise FileError(f"{path}: not readable JSON ({error})") from None
