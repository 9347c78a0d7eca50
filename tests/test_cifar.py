"""Both CIFARs: every byte lands at its pixel, what is wrong is refused, a download is whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import pytest

from l0ref import cifar, datasets
from l0ref.datasets import (
    CIFAR_NORMALISATION,
    Dataset,
    download_cifar10,
    download_cifar100,
    load,
    load_cifar10,
    load_cifar100,
)
from l0ref.storage import FileError


@dataclass(frozen=True)
class Set:
    """What this test knows of one of the two sets, written down from its page."""

    name: str
    inner: str
    archive: str
    train: tuple[str, ...]
    test: str
    classes: tuple[int, ...]
    load: Callable[[Path], Dataset]
    download: Callable[..., Path]

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test)


TEN = Set(
    "cifar10",
    "cifar-10-batches-bin",
    "cifar-10-binary.tar.gz",
    ("data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
     "data_batch_5.bin"),
    "test_batch.bin",
    (10,),
    load_cifar10,
    download_cifar10,
)  # fmt: skip
HUNDRED = Set(
    "cifar100",
    "cifar-100-binary",
    "cifar-100-binary.tar.gz",
    ("train.bin",),
    "test.bin",
    (20, 100),
    load_cifar100,
    download_cifar100,
)
both = pytest.mark.parametrize("one", [TEN, HUNDRED], ids=["ten", "hundred"])


def record(labels: list[int], image: list[list[list[int]]]) -> bytes:
    """Build a record byte by byte: labels, then red, green and blue, each row by row."""
    data = b"".join(struct.pack("B", label) for label in labels)
    for plane in image:
        for row in plane:
            data += b"".join(struct.pack("B", pixel) for pixel in row)
    return data


def write(folder: Path, one: Set, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write a small set, of another size in each file; return images and labels by file."""
    rng = np.random.default_rng(seed)
    contents = {}
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(one.files):
        n = 2 + k
        labels = np.stack([rng.integers(0, m, n) for m in one.classes], axis=1)
        images = rng.integers(0, 256, (n, 3, 32, 32))
        records = [record(*pair) for pair in zip(labels.tolist(), images.tolist(), strict=True)]
        (folder / name).write_bytes(b"".join(records))
        contents[name] = images, labels[:, -1]
    return contents


# What is read


@both
@pytest.mark.parametrize("parent", [False, True])
def test_what_is_read_is_what_was_written(one: Set, parent: bool, tmp_path: Path) -> None:
    contents = write(tmp_path / one.inner if parent else tmp_path, one)
    data = one.load(tmp_path)
    images, labels = (np.concatenate(part) for part in zip(*contents.values(), strict=True))
    n = sum(len(contents[name][1]) for name in one.train)
    x = np.concatenate([data.x_train, data.x_test])
    # Each value is the float32 nearest to k / 255: within half a unit in its last place.
    np.testing.assert_allclose(x, images.reshape(-1, 3072) / 255, rtol=2**-24, atol=0)
    assert len(data.x_train) == n
    assert np.concatenate([data.y_train, data.y_test]).tolist() == labels.tolist()
    assert (data.name, data.n_classes, data.image_shape) == (
        one.name,
        one.classes[-1],
        (3, 32, 32),
    )
    assert data.source == str(tmp_path)
    assert load(one.name, data_dir=tmp_path).fingerprint() == data.fingerprint()


@both
def test_a_byte_lands_at_its_channel_row_and_column(one: Set, tmp_path: Path) -> None:
    """Places counted in the file's bytes, with no array in between."""
    write(tmp_path, one)
    path, n_labels = tmp_path / one.test, len(one.classes)
    size = n_labels + 3072
    lit = {(0, 0, 0, 0): 255, (0, 0, 0, 31): 51, (0, 0, 31, 0): 102, (1, 1, 0, 0): 153,
           (1, 2, 0, 0): 204, (1, 2, 31, 31): 5, (0, 1, 3, 17): 10}  # fmt: skip
    data = bytearray(2 * size)
    for (k, channel, row, column), value in lit.items():
        data[k * size + n_labels + 1024 * channel + 32 * row + column] = value
    data[n_labels - 1], data[size + n_labels - 1] = 3, 8
    path.write_bytes(data)
    loaded = one.load(tmp_path)
    images = loaded.x_test.reshape(2, 3, 32, 32)
    for place, value in lit.items():
        assert images[place] == np.float32(value / 255)
    assert np.count_nonzero(images) == len(lit)
    assert loaded.y_test.tolist() == [3, 8]


def test_the_batches_stand_in_their_order(tmp_path: Path) -> None:
    write(tmp_path, TEN)
    for k, name in enumerate(TEN.train):
        (tmp_path / name).write_bytes(record([9 - k], np.full((3, 32, 32), k).tolist()))
    data = load_cifar10(tmp_path)
    assert data.y_train.tolist() == [9, 8, 7, 6, 5]
    assert np.rint(data.x_train[:, 0] * 255).tolist() == [0, 1, 2, 3, 4]


def test_the_fine_labels_are_used_and_both_may_be_the_greatest(tmp_path: Path) -> None:
    write(tmp_path, HUNDRED)
    black = np.zeros((3, 32, 32), int).tolist()
    (tmp_path / "test.bin").write_bytes(record([19, 99], black) + record([0, 20], black))
    assert load_cifar100(tmp_path).y_test.tolist() == [99, 20]


@both
def test_the_constants_are_those_of_the_papers_code(one: Set, tmp_path: Path) -> None:
    write(tmp_path, one)
    data = one.load(tmp_path)
    assert data.normalisation == CIFAR_NORMALISATION[data.name]
    assert data.x_train.max() > 0.99, "the arrays themselves stay in [0, 1]"
    mean, std = np.array(data.normalisation) * 255
    # Two roundings of a float64: within two of its epsilons.
    expected = {
        "cifar10": ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7]),
        "cifar100": ([129.3, 124.1, 112.4], [68.2, 65.4, 70.4]),
    }[data.name]
    np.testing.assert_allclose(mean, expected[0], rtol=2**-51, atol=0)
    np.testing.assert_allclose(std, expected[1], rtol=2**-51, atol=0)


@both
def test_the_folder_of_the_archive_goes_before_files_beside_it(one: Set, tmp_path: Path) -> None:
    write(tmp_path, one, seed=1)
    write(tmp_path / one.inner, one, seed=2)
    loaded = one.load(tmp_path).fingerprint()
    assert loaded == one.load(tmp_path / one.inner).fingerprint()
    (tmp_path / one.inner / "batches.meta.txt").write_text("airplane\n")
    assert one.load(tmp_path).fingerprint() == loaded


@both
def test_no_array_is_copied_and_none_is_float64(one: Set, tmp_path: Path) -> None:
    """What stays is 4 bytes a pixel; on the way, the bytes of the files and no more."""
    write(tmp_path, one)
    n = 400
    size = len(one.classes) + 3072
    for name in one.files:
        (tmp_path / name).write_bytes(bytes(n * size))
    one.load(tmp_path)  # first: whatever is imported or cached on the way
    tracemalloc.start()
    try:
        data = one.load(tmp_path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    floats = data.x_train.nbytes + data.x_test.nbytes
    assert floats == 4 * 3072 * n * len(one.files)
    assert kept < 1.02 * floats
    # Of the training files and the float32 of all: 5/4 at the most. A second copy would be 7/4.
    assert peak < 1.3 * floats


# What is refused


@both
def test_missing_folder_and_files_are_named(one: Set, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        one.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"lacks {one.train[0]}, .*: needed are"):
        one.load(tmp_path)
    for name in one.files:
        home = tmp_path / name / one.inner
        write(home, one)
        (home / name).unlink()
        needed = f"{one.inner} lacks {name}: needed are {', '.join(one.files)}, the binary version"
        with pytest.raises(FileNotFoundError, match=needed):
            one.load(tmp_path / name)


@both
@pytest.mark.parametrize("fault", ["empty", "short", "long", "half", "text"])
def test_files_of_other_lengths(one: Set, fault: str, tmp_path: Path) -> None:
    size = len(one.classes) + 3072
    for name in one.files:
        write(tmp_path, one)
        path = tmp_path / name
        data = path.read_bytes()
        bad, message = {
            "empty": (b"", "is empty"),
            "short": (data[:-1], f"{len(data) - 1} bytes, allowed is a multiple of {size}"),
            "long": (data + b"\0", f"{len(data) + 1} bytes, allowed is a multiple of {size}"),
            "half": (data[: size // 2], f"{size // 2} bytes, allowed is a multiple of {size}"),
            "text": (b"<html>404</html>", f"16 bytes, allowed is a multiple of {size}"),
        }[fault]
        path.write_bytes(bad)
        with pytest.raises(FileError, match=re.escape(str(path)) + f".*{message}"):
            one.load(tmp_path)


@both
def test_labels_out_of_range(one: Set, tmp_path: Path) -> None:
    size = len(one.classes) + 3072
    kinds = ["label"] if one is TEN else ["coarse label", "fine label"]
    for name in one.files:
        for at, (kind, n) in enumerate(zip(kinds, one.classes, strict=True)):
            for value in (n, 255):
                write(tmp_path, one)
                path = tmp_path / name
                data = bytearray(path.read_bytes())
                data[size + at] = value
                path.write_bytes(data)
                fault = f"{name}: the {kind} of record 1 is {value}, allowed are 0 .. {n - 1}"
                with pytest.raises(FileError, match=fault):
                    one.load(tmp_path)


def test_one_set_is_not_read_as_the_other(tmp_path: Path) -> None:
    write(tmp_path, HUNDRED)
    with pytest.raises(FileError, match="multiple of 3073"):
        cifar.read_records(tmp_path / "test.bin", (10,))
    with pytest.raises(FileNotFoundError, match=r"lacks data_batch_1\.bin"):
        load_cifar10(tmp_path)


# Downloads, with pooch's one function that reaches the network replaced


def pack(path: Path, one: Set, contents: Path, extra: dict[str, bytes] | None = None) -> None:
    """Make an archive as it is published: the folder, its files, a text, and whatever else."""
    members = {f"{one.inner}/{name}": (contents / name).read_bytes() for name in one.files}
    members |= {f"{one.inner}/batches.meta.txt": b"airplane\n"} | (extra or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o6666
            tar.addfile(member, io.BytesIO(data))


def trust(monkeypatch: pytest.MonkeyPatch, archive: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(datasets.CIFAR_SHA256, archive.name, digest)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@both
def test_download_asks_for_the_archive_by_its_digest_and_takes_the_files_alone(
    one: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "source", one)
    asked = {}

    def retrieve(url: str, *, known_hash: str, fname: str, path: Path) -> None:
        asked[url] = known_hash
        pack(path / fname, one, tmp_path / "source", {"../escaped.bin": b"!", "other.bin": b"!"})

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    new = tmp_path / "new"
    data = load(one.name, data_dir=new, download=True)
    assert data.fingerprint() == one.load(tmp_path / "source").fingerprint()
    assert listing(new) == sorted([one.archive, *(f"{one.inner}/{name}" for name in one.files)])
    assert not (tmp_path / "escaped.bin").exists()
    modes = [(new / one.inner / name).stat().st_mode for name in one.files]
    assert not any(mode & 0o6022 for mode in modes), "no right but the owner's to write"
    assert sorted(path.name for path in new.iterdir()) == sorted([one.archive, one.inner])
    url = f"https://www.cs.toronto.edu/~kriz/{one.archive}"
    start = {"cifar10": "c4a38c50a1bc5f3a1c55", "cifar100": "58a81ae192c23a4be8b1"}[one.name]
    assert list(asked) == [url]
    assert asked[url].startswith(start)
    assert re.fullmatch("[0-9a-f]{64}", asked[url])


@both
def test_download_goes_to_the_cache_by_default(
    one: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "l0ref" / one.name
    write(tmp_path / "source", one)
    pack(folder / one.archive, one, tmp_path / "source")
    trust(monkeypatch, folder / one.archive)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    # The real `retrieve` runs: it finds the archive good, and no network is touched.
    assert one.download() == folder
    assert one.load(folder).source == str(folder)


@both
def test_download_keeps_what_is_there_and_never_replaces_it(
    one: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "source", one)
    new = tmp_path / "new"
    pack(new / one.archive, one, tmp_path / "source")
    trust(monkeypatch, new / one.archive)
    assert one.download(new) == new
    times = {path: path.stat().st_mtime_ns for path in (new / one.inner).iterdir()}
    (new / one.inner / "mine.txt").write_text("mine")
    assert one.download(new) == new
    assert {path: path.stat().st_mtime_ns for path in times} == times
    last = new / one.inner / one.test
    good = last.read_bytes()
    last.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    other = last.read_bytes()
    with pytest.raises(FileError, match=f"{one.test} is missing, or not the file"):
        one.download(new)
    assert last.read_bytes() == other
    last.unlink()
    with pytest.raises(FileError, match=f"{one.test} is missing, or not the file"):
        one.download(new)
    assert not last.exists()
    (new / one.archive).write_bytes(b"mine")
    with pytest.raises(FileError, match=f"{one.archive} is not the file .*another SHA-256"):
        one.download(new)
    assert (new / one.archive).read_bytes() == b"mine"


@both
@pytest.mark.parametrize(
    "fault", ["no gzip", "cut", "cut tar", "lacks a file", "link in", "link out"]
)
def test_a_damaged_archive_leaves_nothing(one: Set, fault: str, tmp_path: Path) -> None:
    form = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}[one.name]
    write(tmp_path / "source", one)
    archive = tmp_path / "new" / one.archive
    pack(archive, one, tmp_path / "source")
    data = archive.read_bytes()
    if fault == "no gzip":
        archive.write_bytes(b"<html>404</html>")
    elif fault == "cut":
        archive.write_bytes(data[: len(data) // 2])
    elif fault == "cut tar":
        archive.write_bytes(gzip.compress(gzip.decompress(data)[:4000]))
    else:
        with tarfile.open(archive, "w:gz") as tar:
            for name in one.train:
                tar.add(tmp_path / "source" / name, f"{one.inner}/{name}")
            if fault != "lacks a file":
                target = one.train[0] if fault == "link in" else "../../../etc/passwd"
                member = tarfile.TarInfo(f"{one.inner}/{one.test}")
                member.type, member.linkname = tarfile.SYMTYPE, target
                tar.addfile(member)
    with pytest.raises(FileError, match=one.archive):
        cifar.unpack(archive, form)
    assert [path.name for path in archive.parent.iterdir()] == [one.archive]


@both
def test_an_interrupted_extraction_leaves_nothing(
    one: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}[one.name]
    write(tmp_path / "source", one)
    archive = tmp_path / "new" / one.archive
    pack(archive, one, tmp_path / "source")
    extract = tarfile.TarFile.extractall

    def full_disk(tar: tarfile.TarFile, path: str, members: list, **options: str) -> None:
        extract(tar, path, members[:1], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", full_disk)
    with pytest.raises(OSError, match="No space left"):
        cifar.unpack(archive, form)
    assert [path.name for path in archive.parent.iterdir()] == [one.archive]
    monkeypatch.undo()
    cifar.unpack(archive, form)
    assert one.load(tmp_path / "new").fingerprint() == one.load(tmp_path / "source").fingerprint()


@both
def test_download_without_a_network(
    one: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def retrieve(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(OSError, match=f"cannot download https.*{one.archive} to .*no route"):
        one.download(tmp_path)
