"""Where the examples come from: the MNIST sample in the package, MNIST, CIFAR, a user's arrays.

Every road ends in a `Dataset`, which is checked when it is made: float32 inputs in [0, 1], a row an
example, and int64 labels 0 .. n_classes - 1. Nothing behind this file has to ask what came in.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import cifar
from .idx import read_labelled_images
from .storage import FileError, read_npz

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""The mirror that torchvision uses too; the original page has refused downloads for years."""

# As several projects record them, independently and alike, for the archives first published, of
# 9,912,422, 28,881, 1,648,877 and 4,542 bytes. What is in them: data/mnist-sample/README.md.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""SHA-256 of the four files, each compressed and ending in ``.gz``."""

CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
"""The home of both CIFARs."""

# As TensorFlow Datasets (url_checksums/cifar10.txt, cifar100.txt), Gomlx and TorchVision for Ruby
# record them, alike, for archives of 170,052,171 and 168,513,733 bytes.
CIFAR_SHA256 = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
}
"""SHA-256 of the archives of the two binary versions."""

CIFAR_NORMALISATION = {
    "cifar10": ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    "cifar100": ((129.3 / 255, 124.1 / 255, 112.4 / 255), (68.2 / 255, 65.4 / 255, 70.4 / 255)),
}
"""Mean and standard deviation of red, green and blue over the training images.

Those of the code of the paper on L0 regularisation (github.com/AMLab-Amsterdam/L0_regularization,
``dataloaders.py``). That of *Wide residual networks* (github.com/szagoruyko/wide-residual-networks,
``pytorch/main.py``) takes CIFAR-10's for CIFAR-100 too.
"""

_UNIT_RULE = "inputs must be in [0, 1]"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples, valid by construction.

    Parameters
    ----------
    x_train, x_test : ndarray of float32, shape (N, D) and (N_test, D)
        Inputs in [0, 1], a row an example; an image is its rows end to end.
    y_train, y_test : ndarray of int64, shape (N,) and (N_test,)
        Labels, 0 .. n_classes - 1.
    name : str
        What results call it, such as ``"mnist"``.
    n_classes : int
        Number of classes, seen or not.
    source : str
        Where it came from, in words.
    image_shape : tuple of int, optional
        Shape of one example before it was flattened, such as (28, 28), or (3, 32, 32) with its
        channels first.
    normalisation : tuple of two tuples of float, optional
        Mean and standard deviation of each channel of images (C, H, W), in the units of the inputs.
        The inputs stay in [0, 1]: it is for the network to subtract the one and divide by the
        other.

    Raises
    ------
    ValueError
        If an array has another dtype or shape, is empty, or holds a NaN, an input outside [0, 1] or
        a label that is no class; the message names the array and the place. If `image_shape` or
        `normalisation` does not fit.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    name: str
    n_classes: int
    source: str
    image_shape: tuple[int, ...] | None = None
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        parts = (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test))
        for part, x, y in parts:
            if x.dtype != np.float32 or x.ndim != 2 or x.size == 0:
                raise ValueError(
                    f"x_{part} must be float32 of shape (N, D), not empty, got {x.dtype} {x.shape}"
                )
            if y.dtype != np.int64 or y.shape != (len(x),):
                raise ValueError(
                    f"y_{part} must be int64 of shape ({len(x)},), got {y.dtype} {y.shape}"
                )
            _check_range(f"x_{part}", x, 0.0, 1.0, _UNIT_RULE)
            wrong = np.flatnonzero((y < 0) | (y >= self.n_classes))
            if wrong.size:
                raise ValueError(
                    f"y_{part}[{wrong[0]}] is {y[wrong[0]]}; "
                    f"labels must be in 0 .. {self.n_classes - 1}"
                )
        n_inputs = self.x_train.shape[1]
        if self.x_test.shape[1] != n_inputs:
            raise ValueError(f"x_test must have {n_inputs} columns, got {self.x_test.shape[1]}")
        if self.image_shape is not None and math.prod(self.image_shape) != n_inputs:
            raise ValueError(f"image_shape must hold {n_inputs} inputs, got {self.image_shape}")
        if self.normalisation is not None:
            _check_normalisation(self.normalisation, self.image_shape)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the four arrays, whatever they are called and wherever they lay.

        A checkpoint keeps it, so that no run is resumed on other data. A normalisation, if there is
        one, goes in as well: with other constants a network computes something else.

        Examples
        --------
        >>> a = from_arrays([[0.0], [0.5], [1.0]], [0, 1, 0], [[0.25]], [1], name="a")
        >>> b = from_arrays([[0.0], [0.5], [1.0]], [0, 1, 0], [[0.25]], [0], name="b")
        >>> a.fingerprint() == b.fingerprint()
        False
        """
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            # The shape first: the same bytes cut into other rows are other data.
            digest.update(f"{array.dtype.name}{array.shape}".encode())
            little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(np.ascontiguousarray(little_endian).data)
        if self.normalisation is not None:
            digest.update(b"normalisation" + np.array(self.normalisation, "<f8").tobytes())
        return digest.hexdigest()


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    scale: bool = False,
) -> Dataset:
    """Load a data set by its name, or from an ``.npz`` file.

    Parameters
    ----------
    name_or_path : str or path
        In the package: ``"mnist-sample"`` (`load_mnist_sample`) and ``"mnist-sample-32"``, the same
        digits in the form of CIFAR's images (`as_colour_images`). With `data_dir` or `download`:
        ``"mnist"`` (`load_mnist`), ``"cifar10"`` (`load_cifar10`), ``"cifar100"``
        (`load_cifar100`). Or the path of an ``.npz`` file (`load_arrays`).
    data_dir : path, optional
        For MNIST and CIFAR: the folder of the files; with `download`, where to put them.
    download : bool
        For MNIST and CIFAR: fetch what is not there yet (`download_mnist`, `download_cifar10`,
        `download_cifar100`).
    scale : bool
        For an ``.npz`` file: see `from_arrays`.

    Raises
    ------
    ValueError
        If the name is unknown, an option has no meaning for it, or the data is not valid.
    FileNotFoundError
        If there is no such file or folder.

    Examples
    --------
    >>> load("mnist-sample").n_classes
    10
    """
    name = os.fspath(name_or_path)
    packaged: dict[str, Callable[[], Dataset]] = {
        "mnist-sample": load_mnist_sample,
        "mnist-sample-32": lambda: as_colour_images(load_mnist_sample()),
    }
    in_a_folder = {
        "mnist": (load_mnist, download_mnist),
        "cifar10": (load_cifar10, download_cifar10),
        "cifar100": (load_cifar100, download_cifar100),
    }
    if name in packaged:
        _refuse(name, data_dir=data_dir, download=download, scale=scale)
        return packaged[name]()
    if name in in_a_folder:
        _refuse(name, scale=scale)
        load_folder, download_to = in_a_folder[name]
        if download:
            data_dir = download_to(data_dir)
        if data_dir is None:
            raise ValueError(
                f"the data set {name!r} needs data_dir, the folder of its files, or a download; "
                f"{' and '.join(map(repr, packaged))} need neither"
            )
        return load_folder(data_dir)
    if name.lower().endswith(".npz"):
        _refuse(name, data_dir=data_dir, download=download)
        return load_arrays(name, scale=scale)
    names = ", ".join(map(repr, (*packaged, *in_a_folder)))
    raise ValueError(f"data must be {names} or the path of an .npz file, got {name!r}")


def load_mnist_sample() -> Dataset:
    """Load the sample of MNIST in the package: 10,000 training and 2,000 test digits.

    Each class has its share of the full set, and the digits stand in the full set's order. How they
    were drawn, and their licence (CC BY-SA 3.0), is told in ``data/mnist-sample/README.md``.

    Examples
    --------
    >>> data = load_mnist_sample()
    >>> data.x_train.shape, data.x_test.shape, data.image_shape
    ((10000, 784), (2000, 784), (28, 28))
    """
    with resources.as_file(resources.files("l0ref") / "data" / "mnist-sample") as folder:
        sample = load_mnist(folder)
    source = "a sample of MNIST (Y. LeCun and C. Cortes, CC BY-SA 3.0), shipped in the package"
    return replace(sample, name="mnist-sample", source=source)


def load_mnist(folder: str | os.PathLike[str]) -> Dataset:
    """Load MNIST, or a set published in its form, from a folder of four IDX files.

    Parameters
    ----------
    folder : path
        Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same for ``t10k``;
        or spelt ``train-images.idx3-ubyte``, or ending in ``.gz``; compressed or not.

    Raises
    ------
    FileNotFoundError
        If the folder, or one of the four files, is not there.
    FileError
        If a file is empty, truncated, corrupt, or not what its name says.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    train, y_train = read_labelled_images(folder, "train")
    test, y_test = read_labelled_images(folder, "t10k")
    image_shape = train.shape[1:]
    if test.shape[1:] != image_shape:
        raise FileError(
            f"{folder}: images of {image_shape} to train on, of {test.shape[1:]} to test on"
        )
    return Dataset(
        _unit_floats(train),
        y_train,
        _unit_floats(test),
        y_test,
        name="mnist",
        n_classes=10,
        source=str(folder),
        image_shape=image_shape,
    )


def download_mnist(folder: str | os.PathLike[str] | None = None) -> Path:
    """Download those of the four MNIST files that are not there yet; return their folder.

    A file gets its name only after its SHA-256 is checked, and never replaces another.

    Parameters
    ----------
    folder : path, optional
        Where to put them. Default: the user's cache folder for this package.

    Raises
    ------
    OSError
        If a file cannot be fetched or written.
    ValueError
        If what was fetched, or lies there already, has another SHA-256.
    """
    folder = _download_folder("mnist", folder)
    for stem, digest in MNIST_SHA256.items():
        _retrieve(MNIST_URL, f"{stem}.gz", digest, folder)
    return folder


def load_cifar10(folder: str | os.PathLike[str]) -> Dataset:
    """Load CIFAR-10: 50,000 and 10,000 images of 32 x 32 pixels in colour, 10 classes.

    Parameters
    ----------
    folder : path
        Holds the binary version, ``data_batch_1.bin`` to ``data_batch_5.bin`` and
        ``test_batch.bin``, or the folder ``cifar-10-batches-bin`` with them in it.

    Returns
    -------
    Dataset
        Rows of 3072: the red, the green and the blue plane, each row by row. `image_shape` is
        (3, 32, 32), `normalisation` that of `CIFAR_NORMALISATION`. 737 MB in all.

    Raises
    ------
    FileNotFoundError
        If the folder, or one of the files, is not there.
    FileError
        If a file is empty, is not made of whole records, or holds a label above 9.
    """
    return _load_cifar(cifar.CIFAR10, Path(folder))


def load_cifar100(folder: str | os.PathLike[str]) -> Dataset:
    """Load CIFAR-100: 50,000 and 10,000 images as CIFAR-10's, with the 100 fine labels.

    Parameters
    ----------
    folder : path
        Holds the binary version, ``train.bin`` and ``test.bin``, or the folder
        ``cifar-100-binary`` with them in it.

    Returns
    -------
    Dataset
        As of `load_cifar10`, and normalised by the same constants.

    Raises
    ------
    FileNotFoundError
        If the folder, or one of the files, is not there.
    FileError
        If a file is empty, is not made of whole records, or holds a label out of range.
    """
    return _load_cifar(cifar.CIFAR100, Path(folder))


def _load_cifar(form: cifar.Form, folder: Path) -> Dataset:
    train, test = cifar.find_files(folder, form)
    x_train, y_train = _read_cifar(train, form)
    x_test, y_test = _read_cifar(test, form)
    return Dataset(
        x_train,
        y_train,
        x_test,
        y_test,
        name=form.name,
        n_classes=form.classes[-1],
        source=str(folder),
        image_shape=cifar.IMAGE_SHAPE,
        normalisation=CIFAR_NORMALISATION[form.name],
    )


def _read_cifar(
    paths: list[Path], form: cifar.Form
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    parts = [cifar.read_records(path, form.classes) for path in paths]
    labels = np.concatenate([y for _, y in parts])
    x = np.empty((len(labels), math.prod(cifar.IMAGE_SHAPE)), np.float32)
    start = 0
    for images, _ in parts:  # each into its place: a list of float arrays would need x twice
        stop = start + len(images)
        _unit_floats(images, out=x[start:stop])
        start = stop
    return x, labels


def download_cifar10(folder: str | os.PathLike[str] | None = None) -> Path:
    """Download the archive of CIFAR-10 (170 MB), unless it is there, and unpack it; return where.

    The archive gets its name only after its SHA-256 is checked. Its ``.bin`` files are put into
    ``folder/cifar-10-batches-bin``, all of them or none; files that are there are compared with the
    archive, and never replaced.

    Parameters
    ----------
    folder : path, optional
        Where to put both. Default: the user's cache folder for this package.

    Raises
    ------
    OSError
        If the archive cannot be fetched, or a file written.
    ValueError
        If what was fetched has another SHA-256, or a file that lies there is another.
    """
    return _download_cifar(cifar.CIFAR10, folder)


def download_cifar100(folder: str | os.PathLike[str] | None = None) -> Path:
    """Download the archive of CIFAR-100 (169 MB), unless it is there, and unpack it; return where.

    The rules are those of `download_cifar10`; the files go to ``folder/cifar-100-binary``.
    """
    return _download_cifar(cifar.CIFAR100, folder)


def _download_cifar(form: cifar.Form, folder: str | os.PathLike[str] | None) -> Path:
    folder = _download_folder(form.name, folder)
    _retrieve(CIFAR_URL, form.archive, CIFAR_SHA256[form.archive], folder)
    cifar.unpack(folder / form.archive, form)
    return folder


def _download_folder(name: str, folder: str | os.PathLike[str] | None) -> Path:
    import pooch  # here, because nothing else needs it and it costs a tenth of a second

    return Path(pooch.os_cache("l0ref") / name if folder is None else folder)


def _retrieve(base_url: str, name: str, digest: str, folder: Path) -> None:
    """Fetch a file of a known SHA-256, unless it is there."""
    import pooch

    path = folder / name
    if path.exists() and pooch.file_hash(str(path)) != digest:
        raise FileError(
            f"{path} is not the file that was published under that name (another SHA-256): "
            "move it away, choose another folder, or load it without a download"
        )
    try:
        pooch.retrieve(base_url + name, known_hash=digest, fname=name, path=folder)
    except OSError as error:
        raise OSError(f"cannot download {base_url}{name} to {folder}: {error}") from error


def load_arrays(
    path: str | os.PathLike[str],
    *,
    test_fraction: float = 0.2,
    seed: int = 0,
    scale: bool = False,
) -> Dataset:
    """Load arrays X and y, and X_test and y_test if there is a test set, from an ``.npz`` file.

    The parameters and the rules are those of `from_arrays`. No pickle is opened.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileError
        If it is no ``.npz`` file, is corrupt, holds other arrays, or they are not valid.
    """
    path = Path(path)
    arrays = read_npz(path)
    if set(arrays) not in ({"X", "y"}, {"X", "y", "X_test", "y_test"}):
        raise FileError(
            f"{path} must hold the arrays X, y or X, y, X_test, y_test, "
            f"got {', '.join(sorted(arrays)) or 'none that has a name'}"
        )
    try:
        data = from_arrays(
            arrays["X"],
            arrays["y"],
            arrays.get("X_test"),
            arrays.get("y_test"),
            test_fraction=test_fraction,
            seed=seed,
            scale=scale,
            name=path.stem,
        )
    except ValueError as error:
        raise FileError(f"{path}: {error}") from error
    return replace(data, source=str(path))


def from_arrays(
    X: ArrayLike,
    y: ArrayLike,
    X_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    *,
    test_fraction: float = 0.2,
    seed: int = 0,
    scale: bool = False,
    name: str = "arrays",
) -> Dataset:
    """Make a data set of arrays as scikit-learn knows them.

    Parameters
    ----------
    X, X_test : array_like, shape (N, D) or (N, *image_shape)
        Inputs: lists, arrays, data frames; copied. uint8 is divided by 255, as an image's bytes.
        Any other dtype becomes float32 as it is, and must lie in [0, 1] unless `scale`.
    y, y_test : array_like of int, shape (N,)
        Labels; in `y` all of 0 .. n_classes - 1 occur. Of names, floats or numbers with gaps,
        ``np.unique(y, return_inverse=True)`` makes a list of classes and such labels.
    test_fraction : float in (0, 1)
        Without a test set, the share of the examples held out as one, by `stratified_sample`.
    seed : int
        Of that draw; not the seed of a run, so that runs are compared on the same test set.
    scale : bool
        Map each column, uint8 as it is, from its range over the *training* examples to [0, 1].
        Test values beyond the range are clipped; a column that never varies becomes 0.
    name : str
        What results call it.

    Raises
    ------
    ValueError
        If an argument breaks these rules; the message names it, and the place of a bad value.

    Examples
    --------
    >>> data = from_arrays([[0.0, 0.5], [1.0, 0.25]] * 5, [0, 1] * 5)
    >>> data.x_train.shape, data.x_test.shape, data.n_classes
    ((8, 2), (2, 2), 2)
    """
    if (X_test is None) != (y_test is None):
        raise ValueError("X_test and y_test must be given together, got one of them")
    x_train, shape = _as_inputs("X", X, scale=scale)
    y_train = _as_labels("y", y, len(x_train))
    classes = np.unique(y_train)
    if classes[0] != 0 or classes[-1] != len(classes) - 1:
        raise ValueError(
            f"y must hold labels 0 .. n_classes - 1 without gaps, got {len(classes)} labels from "
            f"{classes[0]} to {classes[-1]}; np.unique(y, return_inverse=True)[1] renumbers them"
        )
    if X_test is None or y_test is None:
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction must be in (0, 1), got {test_fraction}")
        n_test = max(round(test_fraction * len(y_train)), 1)
        if n_test == len(y_train):
            raise ValueError(
                f"test_fraction {test_fraction} of {n_test} examples leaves none to train"
            )
        chosen = stratified_sample(y_train, n_test, seed=seed)
        x_test, y_held_out = x_train[chosen], y_train[chosen]
        x_train, y_train = np.delete(x_train, chosen, axis=0), np.delete(y_train, chosen)
    else:
        x_test, test_shape = _as_inputs("X_test", X_test, scale=scale)
        y_held_out = _as_labels("y_test", y_test, len(x_test))
        if test_shape != shape:
            raise ValueError(f"X_test must hold examples of shape {shape}, got {test_shape}")
    if scale:
        low, high = x_train.min(axis=0), x_train.max(axis=0)
        span = np.where(high > low, high - low, np.inf)
        x_train = (x_train - low) / span
        x_test = np.clip((x_test - low) / span, 0.0, 1.0)
    return Dataset(
        x_train.astype(np.float32, copy=False),
        y_train,
        x_test.astype(np.float32, copy=False),
        y_held_out,
        name=name,
        n_classes=len(classes),
        source="arrays in memory",
        image_shape=shape if len(shape) > 1 else None,
    )


def as_colour_images(data: Dataset, size: int = 32) -> Dataset:
    """Give square images of one channel the form of CIFAR's: padded with zeros, three channels.

    Parameters
    ----------
    data : Dataset
        With an `image_shape` of (H, H).
    size : int
        Rows and columns to pad to, equally on all sides: H, H + 2, H + 4, ...

    Returns
    -------
    Dataset
        With an `image_shape` of (3, size, size), the three channels alike.

    Raises
    ------
    ValueError
        If the images are of another shape, or cannot be padded to `size` equally on all sides.

    Examples
    --------
    >>> x = np.array([[0, 51], [102, 153]], np.uint8)
    >>> digits = from_arrays([x, x], [0, 1], [x], [1], name="digits")
    >>> colour = as_colour_images(digits, 4)
    >>> colour.name, colour.image_shape
    ('digits-3x4x4', (3, 4, 4))
    >>> colour.x_train[0].reshape(3, 4, 4)[2].tolist()[1]
    [0.0, 0.0, 0.20000000298023224, 0.0]
    """
    shape = data.image_shape
    if shape is None or len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"data must hold square images of one channel, (H, H), got {shape}")
    side = shape[0]
    margin, odd = divmod(size - side, 2)
    if margin < 0 or odd:
        raise ValueError(
            f"size must be {side} plus an even number, to pad equally on all sides, got {size}"
        )

    def colour(x: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = np.zeros((len(x), 3, size, size), np.float32)
        inner = slice(margin, margin + side)
        padded[:, :, inner, inner] = x.reshape(-1, 1, side, side)
        return padded.reshape(len(x), -1)

    return replace(
        data,
        x_train=colour(data.x_train),
        x_test=colour(data.x_test),
        name=f"{data.name}-3x{size}x{size}",
        source=f"{data.source}; padded to {size} x {size} pixels, in three channels",
        image_shape=(3, size, size),
    )


def stratified_sample(labels: NDArray[np.integer], size: int, *, seed: int) -> NDArray[np.intp]:
    """Draw examples without replacement, every class by its share; return ascending indices.

    A class of n_c of the N examples gets size * n_c / N of the places, rounded by largest remainder
    (equal remainders: the smaller label first). Each example is given a random key, and a class
    sends those with its smallest keys.

    Parameters
    ----------
    labels : ndarray of int, shape (N,)
        Any labels.
    size : int
        How many to draw, 1 .. N.
    seed : int
        At least 0.

    Raises
    ------
    ValueError
        If `size` or `seed` is out of range.

    Examples
    --------
    >>> labels = np.array([0, 1, 1, 0, 1, 1, 1, 1])
    >>> labels[stratified_sample(labels, 4, seed=0)].sum()
    np.int64(3)
    """
    n = len(labels)
    if not 1 <= size <= n:
        raise ValueError(f"size must be in 1 .. {n}, the number of examples, got {size}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    classes, counts = np.unique(labels, return_counts=True)
    places, remainders = np.divmod(size * counts, n)
    by_remainder = np.argsort(-remainders, kind="stable")
    places[by_remainder[: size - places.sum()]] += 1
    # NumPy promises the raw words of a bit generator for ever, the draws of a Generator not.
    keys = np.random.PCG64(seed).random_raw(n)
    members = [np.flatnonzero(labels == label) for label in classes]
    chosen = [m[np.argsort(keys[m])[:k]] for m, k in zip(members, places, strict=True)]
    return np.sort(np.concatenate(chosen))


def _unit_floats(
    images: NDArray[np.uint8], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Flatten images to rows and map each byte k to the float32 nearest to k / 255."""
    rows = images.reshape(len(images), -1)
    return np.divide(rows, np.float32(255), out=out, dtype=np.float32)


def _as_inputs(
    name: str, X: ArrayLike, *, scale: bool
) -> tuple[NDArray[np.floating], tuple[int, ...]]:
    """Return the inputs as rows, in [0, 1] or still to be scaled, and the shape of one example."""
    try:
        array = np.asarray(X)
        if array.dtype == object:  # such as a data frame of mixed columns
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"{name} must have shape (N, D), not empty, got {array.shape}")
    shape = array.shape[1:]
    if array.dtype == np.uint8 and not scale:
        return _unit_floats(array), shape
    with np.errstate(over="ignore"):  # to inf, which is then reported with its place
        x: NDArray[np.floating] = array.reshape(len(array), -1).astype(
            np.float64 if scale else np.float32
        )
    if scale:
        limit = float(np.finfo(np.float32).max)
        _check_range(name, x, -limit, limit, "inputs must be finite in float32")
    else:
        rule = f"{_UNIT_RULE}, or uint8, which is divided by 255; scale=True scales any others"
        _check_range(name, x, 0.0, 1.0, rule)
    return x, shape


def _as_labels(name: str, y: ArrayLike, n: int) -> NDArray[np.int64]:
    labels = np.asarray(y)
    if labels.dtype.kind not in "biu":
        raise ValueError(
            f"{name} must hold integers, the labels 0 .. n_classes - 1, got dtype {labels.dtype}; "
            f"np.unique({name}, return_inverse=True)[1] makes such labels"
        )
    if labels.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one label an example, got {labels.shape}")
    return labels.astype(np.int64)


def _check_range(name: str, x: NDArray[np.floating], low: float, high: float, rule: str) -> None:
    if not (x.min() >= low and x.max() <= high):  # written so that a NaN is caught, too
        i, j = np.argwhere(~((x >= low) & (x <= high)))[0]
        raise ValueError(f"{name}: example {i}, input {j} is {x[i, j]}; {rule}")


def _check_normalisation(
    normalisation: tuple[tuple[float, ...], tuple[float, ...]], image_shape: tuple[int, ...] | None
) -> None:
    if image_shape is None or len(image_shape) != 3:
        raise ValueError(f"normalisation needs an image_shape of (C, H, W), got {image_shape}")
    channels = image_shape[0]
    if [len(values) for values in normalisation] != [channels, channels]:
        raise ValueError(
            f"normalisation must be the means and the standard deviations of {channels} channels, "
            f"got {normalisation}"
        )
    mean, std = normalisation
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError(
            "normalisation must be finite, with standard deviations greater than 0, "
            f"got {normalisation}"
        )


def _refuse(name: str, **options: object) -> None:
    for option, value in options.items():
        if value not in (None, False):
            raise ValueError(f"{option} has no meaning for the data set {name!r}, got {value!r}")
