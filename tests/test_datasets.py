"""The data room: what is read is what was written, and what is wrong is refused by name."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.util
import re
import struct
import time
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pooch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import l0ref
from l0ref import datasets
from l0ref.datasets import (
    Dataset,
    as_colour_images,
    download_mnist,
    from_arrays,
    load,
    load_arrays,
    load_mnist,
    load_mnist_sample,
    stratified_sample,
)
from l0ref.idx import read_idx, write_idx
from l0ref.storage import FileError

SAMPLE = Path(l0ref.__path__[0], "data", "mnist-sample")
# How often 0, 1, ..., 9 occur in full MNIST, counted in its label files with od, sort and uniq.
MNIST_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def shares(counts: list[int], size: int) -> list[int]:
    """Divide places by largest remainder, in exact fractions; ties to the first."""
    quotas = [Fraction(size * count, sum(counts)) for count in counts]
    places = [int(quota) for quota in quotas]
    order = sorted(range(len(counts)), key=lambda c: (places[c] - quotas[c], c))
    for c in order[: size - sum(places)]:
        places[c] += 1
    return places


def idx_bytes(array: np.ndarray) -> bytes:
    """Build an IDX file number by number."""
    kind = array.dtype.str[1:]
    form = {"u1": "B", "i1": "b", "i2": "h", "i4": "i", "f4": "f", "f8": "d"}[kind]
    header = struct.pack(">HBB", 0, IDX_CODES[kind], array.ndim)
    lengths = struct.pack(f">{array.ndim}I", *array.shape)
    return header + lengths + b"".join(struct.pack(">" + form, v) for v in array.ravel().tolist())


def write_mnist(folder: Path, n_train: int = 23, n_test: int = 7) -> dict[str, np.ndarray]:
    """Write a small set in MNIST's form, images of 3 × 5 pixels; return its arrays by file name."""
    rng = np.random.default_rng(n_train)
    files = {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        files[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 3, 5), dtype=np.uint8)
        files[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, n, dtype=np.uint8)
    for name, array in files.items():
        (folder / name).write_bytes(idx_bytes(array))
    return files


def arrays(n: int = 12, d: int = 3, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.random((n, d)), np.arange(n) % n_classes


# The sample in the package


def test_sample_counts_and_stratification() -> None:
    data = load_mnist_sample()
    assert (data.name, data.n_classes, data.image_shape) == ("mnist-sample", 10, (28, 28))
    assert data.x_train.shape == (10_000, 784)
    assert data.x_test.shape == (2_000, 784)
    assert np.bincount(data.y_train).tolist() == shares(MNIST_COUNTS["train"], 10_000)
    assert np.bincount(data.y_test).tolist() == shares(MNIST_COUNTS["test"], 2_000)
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.x_train.min() == 0.0
    assert data.x_train.max() == 1.0


def test_sample_files_are_those_of_the_manifest_and_small() -> None:
    lines = (SAMPLE / "SHA256SUMS").read_text().splitlines()
    manifest = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = sorted(SAMPLE.glob("*.gz"))
    assert sorted(manifest) == [file.name for file in files]
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() == manifest[file.name]
        assert file.read_bytes()[3:8] == bytes(5), "no flags and no time in the gzip header"
    assert sum(file.stat().st_size for file in files) <= 2_500_000


def test_sample_is_of_different_digits_that_look_like_their_labels() -> None:
    data = load_mnist_sample()
    assert len({x.tobytes() for x in (*data.x_train, *data.x_test)}) == 12_000
    # The nearest class mean is wrong on about a fifth of MNIST's test digits, a guess on 90 %.
    means = np.stack([data.x_train[data.y_train == c].mean(axis=0) for c in range(10)])
    scores = data.x_test @ means.T - (means**2).sum(axis=1) / 2
    assert np.mean(scores.argmax(axis=1) != data.y_test) < 0.25


def test_sample_loads_in_well_under_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        load_mnist_sample()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


@pytest.fixture(scope="module")
def draw_sample() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_sample", SAMPLE / "draw_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_draw_sample_is_repeatable_and_keeps_order(tmp_path: Path, draw_sample: ModuleType) -> None:
    source, first, second = tmp_path / "source", tmp_path / "first", tmp_path / "second"
    for folder in (source, first, second):
        folder.mkdir()
    files = write_mnist(source, 90, 40)
    for file in list(source.iterdir()):
        file.rename(f"{file}.gz")  # gzip or not is told by the contents
    sizes = {"train": 31, "t10k": 11}
    draw_sample.draw(source, first, sizes)
    draw_sample.draw(source, second, sizes)
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()
    drawn = load_mnist(first)
    for part, x, y in (
        ("train", drawn.x_train, drawn.y_train),
        ("t10k", drawn.x_test, drawn.y_test),
    ):
        images = files[f"{part}-images-idx3-ubyte"].reshape(-1, 15) / 255
        labels = files[f"{part}-labels-idx1-ubyte"]
        expected = shares(np.bincount(labels, minlength=10).tolist(), sizes[part])
        assert np.bincount(y, minlength=10).tolist() == expected
        remaining = iter(zip(images, labels, strict=True))
        # Half a unit in the last place, 2^-24, is all that float32 may add to a value below 1.
        for x_i, y_i in zip(x, y, strict=True):
            assert any(
                np.allclose(image, x_i, rtol=0, atol=2**-24) and label == y_i
                for image, label in remaining
            ), "not in the source, or not in its order"


# Stratified draws


@given(
    labels=hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(-2, 4)),
    data=st.data(),
    seed=st.integers(0, 2**64),
)
def test_stratified_sample_against_a_twin(
    labels: np.ndarray, data: st.DataObject, seed: int
) -> None:
    n = len(labels)
    size = data.draw(st.integers(1, n))
    keys = np.random.PCG64(seed).random_raw(n).tolist()
    classes = sorted(set(labels.tolist()))
    counts = [labels.tolist().count(c) for c in classes]
    expected = []
    for c, places in zip(classes, shares(counts, size), strict=True):
        members = sorted((keys[i], i) for i in range(n) if labels[i] == c)
        expected += [i for _, i in members[:places]]
    assert stratified_sample(labels, size, seed=seed).tolist() == sorted(expected)


@pytest.mark.parametrize(
    ("size", "seed", "message"),
    [(0, 0, "size .* 1 .. 3.* 0"), (4, 0, "size .* 1 .. 3.* 4"), (2, -1, "seed .* 0, got -1")],
)
def test_stratified_sample_refuses(size: int, seed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stratified_sample(np.array([0, 1, 1]), size, seed=seed)


# IDX files

idx_arrays = st.sampled_from(sorted(IDX_CODES)).flatmap(
    lambda dtype: hnp.arrays(
        np.dtype(dtype), hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
    )
)


@given(array=idx_arrays, ending=st.sampled_from(["", ".gz"]))
def test_idx_is_written_as_the_format_says_and_read_back(
    array: np.ndarray, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("idx") / f"numbers{ending}"
    write_idx(path, array)
    data = gzip.decompress(path.read_bytes()) if ending else path.read_bytes()
    assert data == idx_bytes(array)
    if ending:  # no flags, no time, slowest compression, unknown system
        assert path.read_bytes()[:10] == b"\x1f\x8b\x08\0" + bytes(4) + b"\x02\xff"
    back = read_idx(path)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_idx_writes_any_byte_order_and_refuses_what_it_has_no_code_for(tmp_path: Path) -> None:
    array = np.array([[1, -2, 300]], dtype=">i2")
    write_idx(tmp_path / "a", array)
    assert read_idx(tmp_path / "a").tolist() == [[1, -2, 300]]
    for bad in (np.zeros(3, np.int64), np.zeros(3, bool), np.array(1, np.uint8)):
        with pytest.raises(ValueError, match=rf"array must .* got {bad.dtype}"):
            write_idx(tmp_path / "b", bad)
    assert not (tmp_path / "b").exists()


GOOD = idx_bytes(np.arange(6, dtype=np.uint8).reshape(2, 3))
GOOD_GZ = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (GOOD[:-1], "is truncated: .* announces 18 bytes, it has 17"),
        (GOOD + b"\0", "is too long: .* announces 18 bytes, it has 19"),
        (GOOD[:7], "broken header: 2 dimensions in 7 bytes"),
        (b"\0\0\x08\0\x01", "broken header: 0 dimensions"),
        (b"\0\0\x08\xc8" + struct.pack(">200I", *[1] * 200) + b"\0", "broken header: 200 dim"),
        (b"\0\0\x08\x04" + b"\xff" * 16, "is truncated: .* announces 340"),
        (b"\0\0\x0a\x01\0\0\0\x01\0", "not an IDX file: it begins with the bytes 00 00 0a 01"),
        (b"\x01" + GOOD[1:], "not an IDX file"),
        (b"<html>404</html>", "not an IDX file"),
        (GOOD_GZ[:-9], "corrupt or truncated gzip"),
        (GOOD_GZ[:-8] + bytes([GOOD_GZ[-8] ^ 1]) + GOOD_GZ[-7:], "corrupt .* CRC"),
        (GOOD_GZ + b"junk", "corrupt or truncated gzip"),
    ],
)
def test_idx_errors_name_the_file_and_the_fault(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "some-digits"
    path.write_bytes(data)
    with pytest.raises(FileError, match=f"some-digits.*{what}"):
        read_idx(path)


def test_idx_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-digits"):
        read_idx(tmp_path / "no-digits")


@given(position=st.integers(0, len(GOOD_GZ) - 1), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_gzip_file_is_refused_or_harmless(
    position: int, flip: int, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(GOOD_GZ)
    damaged[position] ^= flip
    path = tmp_path_factory.mktemp("damaged") / "digits.gz"
    path.write_bytes(damaged[:position] if cut else damaged)
    with contextlib.suppress(FileError):  # the time in the header, say, carries no digits
        assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


# A folder of MNIST files


@pytest.mark.parametrize("spelling", ["plain", "dot", "gz", "dot gz", "gz by contents only"])
def test_mnist_folder(spelling: str, tmp_path: Path) -> None:
    files = write_mnist(tmp_path)
    for name in files:
        path = tmp_path / name
        data = path.read_bytes()
        path.unlink()
        if "dot" in spelling:
            name = name.replace("-idx", ".idx")
        ending = ".gz" if spelling.endswith("gz") else ""
        (tmp_path / f"{name}{ending}").write_bytes(
            gzip.compress(data) if "gz" in spelling else data
        )
    data = load_mnist(tmp_path)
    train = files["train-images-idx3-ubyte"].reshape(23, 15)
    # Each value is the float32 nearest to k / 255: within half a unit in its last place.
    np.testing.assert_allclose(data.x_train, train / 255, rtol=2**-24, atol=0)
    assert data.x_test.shape == (7, 15)
    np.testing.assert_array_equal(data.y_train, files["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(data.y_test, files["t10k-labels-idx1-ubyte"])
    assert (data.name, data.n_classes, data.image_shape) == ("mnist", 10, (3, 5))
    assert data.source == str(tmp_path)


def test_mnist_folder_missing_and_incomplete(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load_mnist(tmp_path / "nowhere")
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"none of t10k-labels-idx1-ubyte, .*\.gz"):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "what"),
    [
        ("train-images-idx3", np.zeros(23, np.uint8), r"must hold images.*\(23,\)"),
        ("train-labels-idx1", np.zeros((23, 3, 5), np.uint8), r"must hold labels.*\(23, 3, 5\)"),
        ("train-labels-idx1", np.zeros(23, np.int32), "must hold labels, uint8.* int32"),
        ("train-labels-idx1", np.zeros(22, np.uint8), "23 images, but .* 22 labels"),
        ("t10k-images-idx3", np.zeros((0, 3, 5), np.uint8), "must hold images.*not empty"),
        ("t10k-labels-idx1", np.array([0, 9, 9, 10, 1, 2, 10], np.uint8), "label 3 is 10"),
        ("t10k-images-idx3", np.zeros((7, 5, 3), np.uint8), r"\(3, 5\) .* \(5, 3\)"),
    ],
)
def test_mnist_folder_of_wrong_files(
    name: str, array: np.ndarray, what: str, tmp_path: Path
) -> None:
    write_mnist(tmp_path)
    (tmp_path / f"{name}-ubyte").write_bytes(idx_bytes(array))
    with pytest.raises(FileError, match=what) as caught:
        load_mnist(tmp_path)
    assert str(tmp_path) in str(caught.value)


# Downloads, with pooch's one function that reaches the network replaced


def test_download_asks_for_each_file_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_mnist(tmp_path)
    asked = {}

    def retrieve(url: str, *, known_hash: str, fname: str, path: Path) -> None:
        asked[url] = known_hash
        path.mkdir(exist_ok=True)
        (path / fname).write_bytes(gzip.compress((tmp_path / fname[:-3]).read_bytes()))

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    data = load("mnist", data_dir=tmp_path / "new", download=True)
    assert data.fingerprint() == load_mnist(tmp_path).fingerprint()
    base = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    assert sorted(asked) == sorted(f"{base}{name}.gz" for name in files)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in asked.values())
    assert asked[f"{base}t10k-images-idx3-ubyte.gz"].startswith("8d422c7b0a1c1c79")


def test_download_goes_to_the_cache_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr(pooch, "retrieve", lambda *args, **kwargs: None)
    assert download_mnist() == tmp_path / "l0ref" / "mnist"


def test_download_keeps_good_files_and_never_replaces_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {}
    for name, array in write_mnist(tmp_path).items():
        write_idx(tmp_path / f"{name}.gz", array)
        digests[name] = hashlib.sha256((tmp_path / f"{name}.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(datasets, "MNIST_SHA256", digests)
    # The real `retrieve` runs: it finds all four files good, and no network is touched.
    assert download_mnist(tmp_path) == tmp_path
    other = tmp_path / "t10k-images-idx3-ubyte.gz"
    other.write_bytes(b"mine")
    with pytest.raises(FileError, match=r"t10k-images-idx3-ubyte.gz is not the file"):
        download_mnist(tmp_path)
    assert other.read_bytes() == b"mine"


def test_download_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def retrieve(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(OSError, match=r"cannot download https.*train-images.*no route to host"):
        download_mnist(tmp_path)


# Arrays


class Frame:
    """What a data frame looks like from NumPy's side."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self.values


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        Frame,
        lambda x: Frame(x.astype(object)),
        lambda x: x.astype(np.float32),
        np.asfortranarray,
    ],
)
def test_from_arrays_takes_what_numpy_takes(convert: object) -> None:
    x, y = arrays()
    data = from_arrays(convert(x), y.tolist(), convert(x[:5]), y[:5].astype(np.uint8))  # type: ignore[operator]
    np.testing.assert_array_equal(data.x_train, x.astype(np.float32))
    np.testing.assert_array_equal(data.x_test, x[:5].astype(np.float32))
    assert data.y_train.tolist() == y.tolist()
    assert (data.n_classes, data.image_shape, data.name) == (3, None, "arrays")


def test_from_arrays_copies() -> None:
    x, y = arrays()
    x = x.astype(np.float32)
    data = from_arrays(x, y, x, y)
    x[:], y[:] = 0, 0
    assert data.x_train.min() > 0
    assert data.x_test.min() > 0
    assert data.y_train.max() == 2


def test_from_arrays_scales_bytes_and_nothing_else() -> None:
    y = [0, 1]
    images = np.array([[[0, 51, 255]], [[102, 1, 254]]], dtype=np.uint8)
    data = from_arrays(images, y, images, y)
    assert data.image_shape == (1, 3)
    np.testing.assert_allclose(
        data.x_train, [[0, 51 / 255, 1], [102 / 255, 1 / 255, 254 / 255]], rtol=2**-24, atol=0
    )
    ones = np.array([[0, 1, 1], [1, 0, 0]])
    for dtype in (np.int64, np.float64, bool):
        assert from_arrays(ones.astype(dtype), y, ones, y).x_train.tolist() == ones.tolist()
    with pytest.raises(ValueError, match=r"X: example 0, input 1 is 51.0; .*\[0, 1\].*scale=True"):
        from_arrays(images.astype(np.int64), y, images, y)
    # A column that MinMaxScaler leaves one rounding above 1 is 1 in float32.
    assert from_arrays([[1 + 2**-52], [0.0]], y, [[0.5]], [0]).x_train[0, 0] == 1.0


def test_from_arrays_scale_uses_the_training_range() -> None:
    X = np.array([[10.0, -1.0, 7.0], [30.0, 3.0, 7.0], [15.0, 1.0, 7.0]])
    X_test = np.array([[20.0, 9.0, 8.0], [0.0, 0.0, 6.0]])
    data = from_arrays(X, [0, 1, 1], X_test, [0, 1], scale=True)
    assert data.x_train.tolist() == [[0, 0, 0], [1, 1, 0], [0.25, 0.5, 0]]
    assert data.x_test.tolist() == [[0.5, 1, 0], [0, 0.25, 0]]
    as_bytes = np.array([[10], [30], [15]], dtype=np.uint8)
    data = from_arrays(as_bytes, [0, 1, 1], as_bytes.astype(float), [0, 1, 1], scale=True)
    assert data.x_train.tolist() == data.x_test.tolist() == [[0], [1], [0.25]]


def test_from_arrays_holds_out_a_stratified_test_set() -> None:
    rng = np.random.default_rng(3)
    y = rng.permutation(np.repeat([0, 1, 2], [50, 30, 17]))
    x = np.arange(97)[:, None] / 97
    data = from_arrays(x, y, test_fraction=0.25, seed=5)
    assert len(data.x_test) == 24
    assert np.bincount(data.y_test).tolist() == shares([50, 30, 17], 24)
    rows = np.round(np.concatenate([data.x_train, data.x_test])[:, 0] * 97).astype(int)
    assert sorted(rows.tolist()) == list(range(97))
    assert np.concatenate([data.y_train, data.y_test]).tolist() == y[rows].tolist()
    same = from_arrays(x, y, test_fraction=0.25, seed=5)
    other = from_arrays(x, y, test_fraction=0.25, seed=6)
    assert same.fingerprint() == data.fingerprint() != other.fingerprint()


X_OK, Y_OK = arrays()
NAN = X_OK.copy()
NAN[7, 2] = np.nan


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((NAN, Y_OK), {}, "X: example 7, input 2 is nan"),
        ((NAN, Y_OK), {"scale": True}, "X: example 7, input 2 is nan; .* finite"),
        ((NAN.reshape(12, 1, 3), Y_OK), {}, "X: example 7, input 2 is nan"),
        ((X_OK, Y_OK, NAN, Y_OK), {}, "X_test: example 7, input 2 is nan"),
        ((X_OK * 1e300, Y_OK), {}, "X: example 0, input 0 is inf"),
        ((X_OK * 1e300, Y_OK), {"scale": True}, "X: example 0, input 0 is .*e.299; .* finite"),
        ((X_OK - 0.5, Y_OK), {}, r"X: example .* is -0\..*\[0, 1\]"),
        ((X_OK[:0], Y_OK[:0]), {}, r"X must .* not empty, got \(0, 3\)"),
        ((X_OK[:, :0], Y_OK), {}, r"X must .* not empty, got \(12, 0\)"),
        ((X_OK[:, 0], Y_OK), {}, r"X must have shape \(N, D\).* \(12,\)"),
        ((X_OK.astype(str), Y_OK), {}, "X must hold real numbers, got dtype <U"),
        ((X_OK * 1j, Y_OK), {}, "X must hold real numbers, got dtype complex128"),
        (([[1.0, 0.0], [1.0]], [0, 1]), {}, "X must be an array of numbers"),
        (([["a", None]], [0]), {}, "X must hold real|X must be an array of numbers"),
        ((SimpleNamespace(), [0]), {}, "X must be an array of numbers"),
        ((X_OK, Y_OK[:-1]), {}, r"y must have shape \(12,\).* \(11,\)"),
        ((X_OK, np.eye(12, dtype=int)), {}, r"y must have shape \(12,\).* \(12, 12\)"),
        ((X_OK, Y_OK * 1.0), {}, "y must hold integers.* float64; np.unique"),
        ((X_OK, Y_OK.astype(str)), {}, "y must hold integers.* <U"),
        ((X_OK, Y_OK + 1), {}, "y must .* without gaps, got 3 labels from 1 to 3"),
        ((X_OK, Y_OK * 2), {}, "y must .* without gaps, got 3 labels from 0 to 4"),
        ((X_OK, Y_OK - 1), {}, "y must .* without gaps, got 3 labels from -1 to 1"),
        ((X_OK, np.resize([1, -1], 12)), {}, "y must .* without gaps, got 2 labels from -1 to 1"),
        ((X_OK, Y_OK, X_OK), {}, "X_test and y_test must be given together"),
        ((X_OK, Y_OK, None, Y_OK), {}, "X_test and y_test must be given together"),
        ((X_OK, Y_OK, X_OK, Y_OK + 1), {}, r"y_test\[2\] is 3; labels must be in 0 .. 2"),
        ((X_OK, Y_OK, X_OK, Y_OK[:3]), {}, r"y_test must have shape \(12,\).* \(3,\)"),
        ((X_OK, Y_OK, X_OK[:, :2], Y_OK), {}, r"X_test must .* shape \(3,\), got \(2,\)"),
        ((X_OK, Y_OK), {"test_fraction": 0.0}, r"test_fraction must be in \(0, 1\), got 0.0"),
        ((X_OK, Y_OK), {"test_fraction": 1.0}, r"test_fraction must be in \(0, 1\), got 1.0"),
        ((X_OK, Y_OK), {"test_fraction": np.nan}, "test_fraction must be .* nan"),
        ((X_OK, Y_OK), {"test_fraction": 0.99}, "test_fraction 0.99 of 12 .* none to train"),
        ((X_OK[:1], [0]), {}, "test_fraction 0.2 of 1 .* none to train"),
        ((X_OK, Y_OK), {"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_from_arrays_refuses(
    args: tuple[object, ...], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        from_arrays(*args, **options)  # type: ignore[arg-type]


# The data set itself


def dataset(**changes: object) -> Dataset:
    x, y = arrays(6, 4, 3)
    fields: dict[str, object] = {
        "x_train": x.astype(np.float32),
        "y_train": y.astype(np.int64),
        "x_test": x[:5].astype(np.float32),
        "y_test": y[:5].astype(np.int64),
        "name": "test",
        "n_classes": 3,
        "source": "a generator",
        "image_shape": (2, 2),
    }
    return Dataset(**(fields | changes))  # type: ignore[arg-type]


NORMALISATION = ((0.5, 0.25), (0.125, 0.75))
GOOD_X, GOOD_Y = dataset().x_train, dataset().y_train
NAN_X = GOOD_X.copy()
NAN_X[4, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": GOOD_X.astype(float)}, r"x_train must be float32 .*float64 \(6, 4\)"),
        ({"x_train": GOOD_X.reshape(6, 2, 2)}, r"x_train must .*\(6, 2, 2\)"),
        ({"x_test": GOOD_X[:0]}, r"x_test must .*not empty, got float32 \(0, 4\)"),
        ({"x_test": GOOD_X[:5, :3]}, "x_test must have 4 columns, got 3"),
        ({"x_train": NAN_X}, "x_train: example 4, input 1 is nan"),
        ({"x_train": GOOD_X + 1}, r"x_train: example 0, input 0 is 1\..*\[0, 1\]"),
        ({"y_train": GOOD_Y.astype(np.int32)}, "y_train must be int64 .*int32"),
        ({"y_test": GOOD_Y}, r"y_test must .* \(5,\), got int64 \(6,\)"),
        ({"y_train": GOOD_Y - 1}, r"y_train\[0\] is -1; .*0 .. 2"),
        ({"n_classes": 2}, r"y_train\[2\] is 2; .*0 .. 1"),
        ({"image_shape": (3, 2)}, r"image_shape must hold 4 inputs, got \(3, 2\)"),
        ({"normalisation": NORMALISATION}, r"normalisation needs .* \(C, H, W\), got \(2, 2\)"),
        (
            {"normalisation": NORMALISATION, "image_shape": None},
            r"normalisation needs .* \(C, H, W\), got None",
        ),
        (
            {"normalisation": NORMALISATION, "image_shape": (1, 2, 2)},
            r"normalisation must .* of 1 channels, got \(\(0.5, 0.25\)",
        ),
        (
            {"normalisation": ((0.5, 0.25), (0.5,)), "image_shape": (2, 2, 1)},
            "normalisation must .* of 2 channels",
        ),
        (
            {"normalisation": (*NORMALISATION, (0.5, 0.5)), "image_shape": (2, 2, 1)},
            "normalisation must .* of 2 channels",
        ),
        (
            {"normalisation": ((0.5, 0.25), (0.5, 0.0)), "image_shape": (2, 2, 1)},
            r"standard deviations greater than 0, got .*0\.0\)\)",
        ),
        (
            {"normalisation": ((0.5, 0.25), (0.5, -0.1)), "image_shape": (2, 2, 1)},
            "standard deviations greater than 0",
        ),
        (
            {"normalisation": ((0.5, 0.25), (np.nan, 0.5)), "image_shape": (2, 2, 1)},
            "normalisation must be finite",
        ),
        (
            {"normalisation": ((-np.inf, 0.25), (0.5, 0.5)), "image_shape": (2, 2, 1)},
            "normalisation must be finite",
        ),
    ],
)
def test_dataset_is_valid_by_construction(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(**changes)


def test_fingerprint_is_of_the_contents_only() -> None:
    data = dataset()
    assert re.fullmatch("[0-9a-f]{64}", data.fingerprint())
    fortran = np.asfortranarray(GOOD_X)
    same = dataset(name="other", source="elsewhere", image_shape=None, x_train=fortran)
    assert same.fingerprint() == data.fingerprint()


def test_fingerprint_sees_every_array_its_order_and_its_shape() -> None:
    seen = {dataset().fingerprint(), dataset(x_train=GOOD_X[::-1].copy()).fingerprint()}
    for field in ("x_train", "x_test", "y_train", "y_test"):
        changed = getattr(dataset(), field).copy()
        changed.flat[0] = 1 - changed.flat[0]
        seen.add(dataset(**{field: changed}).fingerprint())
    for n, d in ((2, 1), (1, 4)):  # 24 zero bytes of inputs and labels, both
        x, y = np.zeros((n, d), np.float32), np.zeros(n, np.int64)
        zeros = dataset(x_train=x, y_train=y, x_test=x, y_test=y, image_shape=None)
        seen.add(zeros.fingerprint())
    assert len(seen) == 8


def test_fingerprint_without_a_normalisation_is_of_four_shapes_and_arrays() -> None:
    """Checkpoints have kept these sums since before there was a normalisation."""
    data = dataset()
    digest = hashlib.sha256()
    for x, form in ((data.x_train, "f"), (data.y_train, "q"), (data.x_test, "f"),
                    (data.y_test, "q")):  # fmt: skip
        digest.update(f"{'float32' if form == 'f' else 'int64'}{x.shape}".encode())
        digest.update(b"".join(struct.pack(f"<{form}", v) for v in x.ravel().tolist()))
    assert data.fingerprint() == digest.hexdigest()


def test_fingerprint_sees_every_constant_of_a_normalisation() -> None:
    (m, n), (s, t) = NORMALISATION
    other = 0.375
    seen = {
        dataset(image_shape=(2, 2, 1), normalisation=normalisation).fingerprint()
        for normalisation in (
            None,
            NORMALISATION,
            ((other, n), (s, t)),
            ((m, other), (s, t)),
            ((m, n), (other, t)),
            ((m, n), (s, other)),
            ((n, m), (s, t)),
            ((s, t), (m, n)),
        )
    }
    assert len(seen) == 8


# A set of one channel in the form of CIFAR


def gray(side: int) -> Dataset:
    rng = np.random.default_rng(side)
    images = rng.integers(0, 256, (7, side, side), dtype=np.uint8)
    return from_arrays(images, np.arange(7) % 3, images[:2], [1, 0], name="gray")


@pytest.mark.parametrize(("side", "size"), [(3, 7), (4, 6), (5, 5)])
def test_as_colour_images_pads_all_sides_alike_in_three_channels(side: int, size: int) -> None:
    data = gray(side)
    colour = as_colour_images(data, size)
    assert colour.name == f"gray-3x{size}x{size}"
    assert colour.image_shape == (3, size, size)
    assert colour.source.startswith(data.source)
    assert (colour.n_classes, colour.normalisation) == (3, None)
    assert (colour.y_train.tolist(), colour.y_test.tolist()) == (
        data.y_train.tolist(),
        data.y_test.tolist(),
    )
    margin = (size - side) // 2
    for x, wide in ((data.x_train, colour.x_train), (data.x_test, colour.x_test)):
        assert wide.dtype == np.float32
        assert wide.shape == (len(x), 3 * size * size)
        for k, c, i, j in np.ndindex(len(x), 3, size, size):
            a, b = i - margin, j - margin
            inside = 0 <= a < side and 0 <= b < side
            expected = x[k, a * side + b] if inside else 0.0
            assert wide[k, (c * size + i) * size + j] == expected


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({"image_shape": None}, 4, r"data must hold square .* \(H, H\), got None"),
        ({"image_shape": (1, 4)}, 4, r"data must .* got \(1, 4\)"),
        ({"image_shape": (1, 2, 2)}, 4, r"data must .* got \(1, 2, 2\)"),
        ({}, 5, "size must be 2 plus an even number.* got 5"),
        ({}, 0, "size must be 2 plus an even number.* got 0"),
    ],
)
def test_as_colour_images_refuses(changes: dict[str, object], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_colour_images(dataset(**changes), size)


def test_the_sample_in_the_form_of_cifar() -> None:
    data, sample = load("mnist-sample-32"), load("mnist-sample")
    assert (data.name, data.image_shape) == ("mnist-sample-3x32x32", (3, 32, 32))
    assert data.x_train.shape == (10_000, 3072)
    images = data.x_train.reshape(-1, 3, 32, 32)
    for channel in range(3):
        digits = images[:, channel, 2:30, 2:30].reshape(-1, 784)
        np.testing.assert_array_equal(digits, sample.x_train)
    # Nothing but the digits: in numbers of 8 bits over 255, their sum is three times the sample's.
    total = np.rint(sample.x_train * 255).sum(dtype=np.int64)
    assert np.rint(images * 255).sum(dtype=np.int64) == 3 * total
    assert data.fingerprint() == load("mnist-sample-32").fingerprint() != sample.fingerprint()


# .npz files and the front function


def test_load_arrays(tmp_path: Path) -> None:
    x, y = arrays(20)
    np.savez_compressed(tmp_path / "mine.npz", X=x, y=y, X_test=x[:4], y_test=y[:4])
    data = load_arrays(tmp_path / "mine.npz")
    assert (data.name, data.source) == ("mine", str(tmp_path / "mine.npz"))
    assert data.fingerprint() == from_arrays(x, y, x[:4], y[:4]).fingerprint()
    np.savez(tmp_path / "split.npz", X=x * 9, y=y)
    data = load_arrays(tmp_path / "split.npz", scale=True, test_fraction=0.3, seed=2)
    expected = from_arrays(x * 9, y, scale=True, test_fraction=0.3, seed=2)
    assert data.fingerprint() == expected.fingerprint()
    assert load(tmp_path / "split.npz", scale=True).x_train.shape == (16, 3)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"X": X_OK}, r"bad\.npz must hold the arrays X, y or .*, got X$"),
        ({"X": X_OK, "y": Y_OK, "x_test": X_OK}, r"bad\.npz must .*, got X, x_test, y$"),
        ({"X": NAN, "y": Y_OK}, r"bad\.npz: X: example 7, input 2 is nan"),
        ({"X": X_OK, "y": Y_OK.astype(object)}, r"bad\.npz is not a readable .npz.*pickle"),
    ],
)
def test_load_arrays_refuses(saved: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **saved)
    with pytest.raises(FileError, match=message):
        load_arrays(path)


def test_load_arrays_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    with pytest.raises(FileNotFoundError, match=r"bad\.npz"):
        load_arrays(path)
    for contents in (b"", b"X, y\n0.5, 1\n", b"PK\x03\x04", b"\x80\x04]\x94."):
        path.write_bytes(contents)
        with pytest.raises(FileError, match=r"bad\.npz is not a readable \.npz file"):
            load_arrays(path)
    with path.open("wb") as file:
        np.save(file, X_OK)
    with pytest.raises(FileError, match=r"bad\.npz is not an \.npz file but a single array"):
        load_arrays(path)


@settings(deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_npz_file_is_refused_or_harmless(
    where: float, flip: int, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "mine.npz"
    np.savez_compressed(path, X=X_OK, y=Y_OK)
    damaged = bytearray(path.read_bytes())
    position = int(where * len(damaged))
    damaged[position] ^= flip
    path.write_bytes(damaged[:position] if cut else damaged)
    with contextlib.suppress(FileError):  # the times in the archive, say, carry no numbers
        assert load_arrays(path).fingerprint() == from_arrays(X_OK, Y_OK).fingerprint()


def test_load_by_name(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    assert load("mnist", data_dir=tmp_path).fingerprint() == load_mnist(tmp_path).fingerprint()
    assert load("mnist-sample").name == "mnist-sample"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "mnits",
            {},
            "'mnist-sample', 'mnist-sample-32', 'mnist', 'cifar10', 'cifar100' or the path of "
            "an .npz file, got 'mnits'",
        ),
        ("digits.csv", {}, "'mnist-sample', .* or the path of an .npz file, got 'digits.csv'"),
        ("mnist", {}, "'mnist' needs data_dir, .* or a download; 'mnist-sample' and .*-32' need"),
        ("cifar10", {}, "'cifar10' needs data_dir, .* or a download"),
        ("cifar100", {}, "'cifar100' needs data_dir, .* or a download"),
        ("cifar100", {"data_dir": "d", "scale": True}, "scale has no meaning .* 'cifar100'"),
        ("mnist-sample-32", {"data_dir": "d"}, "data_dir has no meaning .*'mnist-sample-32'"),
        ("mnist", {"data_dir": "d", "scale": True}, "scale has no meaning .* 'mnist'"),
        ("mnist-sample", {"data_dir": "d"}, "data_dir has no meaning .*'mnist-sample', got 'd'"),
        ("mnist-sample", {"download": True}, "download has no meaning"),
        ("a.npz", {"data_dir": "d"}, "data_dir has no meaning .* 'a.npz'"),
    ],
)
def test_load_refuses(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(name, **options)  # type: ignore[arg-type]


def test_load_missing_npz() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.NPZ"):
        load("nowhere.NPZ")
