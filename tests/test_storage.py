"""Files: whole or not at all, whatever stops the writer, and no damage that a reader misses."""

import io
import json
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from l0ref.storage import (
    FileError,
    load_arrays,
    load_json,
    save_arrays,
    save_json,
    write_atomically,
)


def some_arrays(rows: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    return {
        "params:0.weight": rng.normal(size=(rows, 2)).astype(np.float32),
        "m/0.bias": rng.normal(size=4),
        "mask": rng.uniform(size=(2, 3)) < 0.5,
        "t": np.array(7),
        "none": np.zeros((0, 2)),
        "text": np.array('{"seed": 1} \u03bb'),
    }


def identical(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (other[n].dtype, other[n].shape, other[n].tobytes())
        for n, a in one.items()
    )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Writing


def test_a_new_file_replaces_the_old_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file: IO[bytes]) -> None:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    write_atomically(path, write)
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_failing_writer_changes_nothing(tmp_path: Path, error: Any, old: bytes | None) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)

    def write(file: IO[bytes]) -> None:
        file.write(b"half of the n")
        raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write_atomically(path, write)
    if old is None:
        assert names_in(tmp_path) == []
    else:
        assert names_in(tmp_path) == ["file"]
        assert path.read_bytes() == old


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", lambda file: file.write(b"new"))
    assert names_in(tmp_path) == ["taken"]


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    save_arrays(path, some_arrays())
    program = (
        "import os, sys; from pathlib import Path; from l0ref.storage import write_atomically\n"
        "def write(file): file.write(b'half'); file.flush(); os._exit(9)\n"
        "write_atomically(Path(sys.argv[1]), write)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == 9
    assert identical(load_arrays(path), some_arrays())
    save_arrays(path, some_arrays(5))
    assert identical(load_arrays(path), some_arrays(5))


# Arrays


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_come_back_bit_for_bit(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "arrays.of.a.run"  # NumPy adds no ending of its own
    arrays = some_arrays() | {"odd": np.array([np.nan, -0.0, np.inf, 5e-324])}
    save_arrays(path, arrays, compress=compress)
    assert identical(load_arrays(path), arrays)
    assert identical(load_arrays(path, tuple(arrays)), arrays)
    with np.load(path, allow_pickle=False) as file:  # and plain NumPy can read it
        assert set(file.files) == set(arrays)


def test_compression_makes_a_file_smaller(tmp_path: Path) -> None:
    zeros = {"a": np.zeros(10_000)}
    save_arrays(tmp_path / "plain", zeros)
    save_arrays(tmp_path / "small", zeros, compress=True)
    assert (tmp_path / "small").stat().st_size < (tmp_path / "plain").stat().st_size / 10


def test_objects_are_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_arrays(path, some_arrays())
    with pytest.raises(ValueError, match=r"odd must hold numbers or text, got dtype object"):
        save_arrays(path, {"fine": np.zeros(2), "odd": np.array([None, 1])})
    assert identical(load_arrays(path), some_arrays())
    assert names_in(tmp_path) == ["a.npz"]


class Trap:
    """Whoever unpickles this runs code of the file's author."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was opened",))


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


OTHER_FILES = {
    "empty": b"",
    "text": b"an epoch is not an era\n",
    "json": b'{"a": 1}',
    "a single array": npy(np.ones((2, 3))),
    "a pickle": pickle.dumps(Trap()),
    "a pickle as an array": npz(a=np.array([Trap()], dtype=object)),
    "a zip of text": zipped(a=b"an epoch"),
    "a zip of a pickle": zipped(a=pickle.dumps(Trap())),
    "a zip of a short array": zipped(a=npy(np.ones(1000))[:-8]),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.npz"
    path.write_bytes(OTHER_FILES[kind])
    with pytest.raises(FileError, match=re.escape(str(path))):
        load_arrays(path)
    assert path.read_bytes() == OTHER_FILES[kind]


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.npz"
    with pytest.raises(FileError, match=re.escape(f"{path}: no such file")):
        load_arrays(path)
    with pytest.raises(FileError, match=re.escape(str(tmp_path))):
        load_arrays(tmp_path)
    assert issubclass(FileError, ValueError)


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    save_arrays(path, some_arrays())
    with pytest.raises(FileError, match=re.escape(f"{path}: lacks about, sums") + "$"):
        load_arrays(path, ("about", "t", "sums"))


@pytest.mark.parametrize("compress", [False, True])
def test_truncated_anywhere(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "run.npz"
    save_arrays(path, some_arrays(), compress=compress)
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 7), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=re.escape(str(path))):
            load_arrays(path, tuple(some_arrays()))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("rows", [3, 700])
def test_one_wrong_byte_anywhere_is_found_or_harmless(
    tmp_path: Path, rows: int, compress: bool
) -> None:
    """Harmless: a time of day, say."""
    path = tmp_path / "run.npz"
    arrays = {"a": np.random.default_rng(0).normal(size=(rows, 2)), "b": np.array("text")}
    save_arrays(path, arrays, compress=compress)
    assert identical(load_arrays(path), arrays)
    whole = path.read_bytes()
    places = [*range(0, 150, 2), *range(max(150, len(whole) - 400), len(whole), 3)]
    found = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            got = load_arrays(path, ("a", "b"))
        except FileError:
            found += 1
        else:
            assert all(identical({n: got[n]}, {n: arrays[n]}) for n in arrays), place
    assert found > len(places) / 2


@pytest.mark.parametrize(
    ("true", "false"),
    [(b"(700, 2)", b"(100, 2)"), (b"'<f8'", b"'<f2'"), (b"700, 2), }  ", b"700,  ), }  ")],
)
def test_a_header_that_cuts_an_array_short_is_found(
    tmp_path: Path, true: bytes, false: bytes
) -> None:
    """A sum that is checked at a member's end, where such an array never comes, is not enough."""
    path = tmp_path / "run.npz"
    save_arrays(path, {"a": np.random.default_rng(0).normal(size=(700, 2))})
    whole = path.read_bytes()
    assert whole.count(true) == 1
    path.write_bytes(whole.replace(true, false))
    with pytest.raises(FileError, match=re.escape(str(path))):
        load_arrays(path)


# JSON


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"test_error": 1.4, "architecture": [219, 214, 100], "name": "\u03bb", "none": None}
    path = tmp_path / "result.json"
    save_json(path, value)
    assert load_json(path) == value
    text = path.read_bytes().decode("utf-8")
    assert json.loads(text) == value
    assert text.endswith("}\n")
    assert text.count("\n") > 4  # for people, too


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [-float("inf")]}])
def test_json_has_no_nan(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "result.json"
    save_json(path, [1])
    with pytest.raises(ValueError, match="JSON"):
        save_json(path, value)
    assert load_json(path) == [1]
    assert names_in(tmp_path) == ["result.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"PK\x03\x04", b"{'a': 1}"])
def test_json_that_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=re.escape(str(path))):
        load_json(path)
    assert path.read_bytes() == content


def test_json_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(FileError, match=re.escape(f"{path}: no such file")):
        load_json(path)
