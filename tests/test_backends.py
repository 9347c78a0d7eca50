"""The numba backend trains as the reference does: the same draws, the same numbers to rounding."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l0ref import backends, conditional, jit
from l0ref.datasets import Dataset, from_arrays, load
from l0ref.jit import _compile
from l0ref.networks import MLP, LeNet5
from l0ref.training import Settings, Trainer

STEPS = 10
BATCH = 12


def images(*shape: int) -> Dataset:
    """40 to train on and 10 to test on: whether the upper half is brighter than the lower one."""
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(50, *shape))
    half = shape[-2] // 2
    y = (x[..., :half, :].sum(axis=(-1, -2)) > x[..., half:, :].sum(axis=(-1, -2))).astype(int)
    y = y.reshape(50, -1)[:, 0]
    y[:3] = [0, 1, 2]
    return from_arrays(x, y)


def rows() -> Dataset:
    rng = np.random.default_rng(2)
    x = rng.uniform(size=(50, 23))
    y = (3 * x[:, 0]).astype(int)
    y[:3] = [0, 1, 2]
    return from_arrays(x, y)


SETTINGS: dict[str, Any] = {"epochs": 5, "batch_size": BATCH, "seed": 5, "lr": 0.01, "average": 0.8}
MLP_SETTINGS: dict[str, Any] = {"model": "mlp", "hidden": (31, 17)}
RUNS: dict[str, tuple[Any, dict[str, Any]]] = {
    "mlp, no l2": (rows, MLP_SETTINGS),
    "mlp": (rows, {**MLP_SETTINGS, "l2": 0.3}),
    "mlp, weight": (rows, {**MLP_SETTINGS, "gates": "weight", "lam": (0.2,)}),
    "mlp, example": (rows, {**MLP_SETTINGS, "per_example": True, "activation": "tanh"}),
    "mlp, dropout, clamp": (rows, {**MLP_SETTINGS, "dropout": 0.3, "clamp_log_alpha": True}),
    "mlp, sgd": (rows, {**MLP_SETTINGS, "optimizer": "sgd", "gate_lr": 0.5}),
    "mlp, no gates": (rows, {**MLP_SETTINGS, "gates": "none"}),
    "lenet-5": (lambda: images(16, 17), {"model": "lenet-5"}),
    "lenet-5, example": (lambda: images(16, 17), {"model": "lenet-5", "per_example": True}),
    "lenet-5, weight": (lambda: images(16, 17), {"model": "lenet-5", "gates": "weight"}),
    "wrn-10-1": (lambda: images(3, 8, 12), {"model": "wrn", "depth": 10, "width": 1,
                                            "augment": True, "l2": 0.5}),
}  # fmt: skip
every_run = pytest.mark.parametrize("kind", RUNS)
DATA: dict[str, Dataset] = {}


def trainer(kind: str, **changes: Any) -> Trainer:
    make, options = RUNS[kind]
    data = DATA.setdefault(kind, make())
    return Trainer(Settings(**SETTINGS | {"dtype": "float64"} | options | changes), data)


def run(one: Trainer, steps: int = STEPS) -> Trainer:
    for _ in range(steps):
        one.advance()
    return one


def contents(one: Trainer) -> dict[str, Any]:
    groups = {
        "params": one.network.params,
        "buffers": one.network.buffers,
        "optimizer": one.optimizer.state(),
        "average": one.average.state(),
        "history": one.history.arrays(),
    }
    return {f"{g}:{name}": a for g, arrays in groups.items() for name, a in arrays.items()}


def assert_the_same_bits(one: Trainer, other: Trainer) -> None:
    got, wanted = contents(one), contents(other)
    assert got.keys() == wanted.keys()
    for name, a in wanted.items():
        np.testing.assert_array_equal(got[name], a, err_msg=name)


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    n = jit.get_num_threads()
    yield
    jit.set_num_threads(n)


@pytest.mark.parametrize("backend", backends.BACKENDS)
@pytest.mark.parametrize("kind", ["mlp", "lenet-5"])
def test_at_test_time_closed_gates_multiply(kind: str, backend: str) -> None:
    """So that a number that is none is seen, wherever it is."""
    one = trainer(kind)
    network = one.network.with_backend(backend)
    _, layer, _ = network.gated[0]
    layer.params["log_alpha"][1] = -99
    x = one.inputs(one.data.x_test)
    assert np.isfinite(network.predict(x)).all()
    with pytest.raises(ValueError, match=r"x must have shape \(N, .*\), got \(10, 3\)"):
        network.predict(np.ones((10, 3)))
    weight = layer.params["weight"]
    weight[1 if kind == "lenet-5" else (1, 0)] = np.nan
    with np.errstate(invalid="ignore"):
        assert np.isnan(network.predict(x)).all()


@every_run
@pytest.mark.parametrize("pack", [False, True], ids=["", "packed"])
def test_ten_steps_of_both_backends_agree(
    kind: str, pack: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam divides by the gradients' own size: what it adds is as exact as they are.

    A step's error, some hundred eps, is grown by those that follow; 1e-10 is 4e5 eps.
    """
    if pack:
        monkeypatch.setattr(conditional, "WORTH", 0)
    fast, slow = run(trainer(kind)), run(trainer(kind, backend="numpy", dense=True))
    got, wanted = contents(fast), contents(slow)
    assert got.keys() == wanted.keys()
    for name, a in wanted.items():
        scale = np.abs(a).max(initial=0) if name.startswith("history") else 1
        np.testing.assert_allclose(got[name], a, rtol=0, atol=1e-10 * max(1, scale), err_msg=name)
    start = trainer(kind).network.params
    assert all((fast.network.params[name] != a).any() for name, a in start.items())


@pytest.mark.parametrize("kind", ["mlp", "mlp, weight", "mlp, example", "lenet-5"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_draws_are_the_same(kind: str, dtype: str) -> None:
    """The words of u to the bit; z, which is a few operations of them, to a few roundings."""
    fast, slow = (trainer(kind, dtype=dtype, backend=name) for name in ("numba", "numpy"))
    x = fast.inputs(fast.data.x_train[:BATCH])
    shapes = fast.network.noise_shapes(x.shape)
    assert shapes
    u = {i: slow.noise.draws(slow._stream(i), shape, layer=i, step=3)
         for i, shape in shapes.items()}  # fmt: skip
    for i, shape in shapes.items():
        words = jit.TWINS[_uniform_words()](u[i])
        np.testing.assert_array_equal(words, _uniform_words()(u[i]))
        assert words.shape == shape
    options = {"lam": [0.1], "n_train": 40}
    drawn = [one.network.evaluate(x, fast.data.y_train[:BATCH], u, **options).gates
             for one in (fast, slow)]  # fmt: skip
    assert drawn[0].keys() == drawn[1].keys() == {i for i, _, _ in fast.network.gated}
    for i, z in drawn[1].items():
        got = drawn[0][i]
        assert got.dtype == z.dtype == dtype
        np.testing.assert_allclose(got, z, rtol=0, atol=16 * np.finfo(dtype).eps)
        clipped = (z == 0) | (z == 1)
        # Which gates are open or fully open is the same: no draw lies within rounding of a kink.
        np.testing.assert_array_equal((got == 0) | (got == 1), clipped)
        assert clipped.any()
        assert not clipped.all()


def _uniform_words() -> Any:
    from l0ref.noise import uniform_words

    return uniform_words


@pytest.mark.parametrize("kind", ["mlp", "lenet-5", "wrn-10-1"])
def test_float32_stays_near_float64(kind: str) -> None:
    narrow, wide = run(trainer(kind, dtype="float32"), 4), run(trainer(kind), 4)
    for name, a in wide.network.params.items():
        b = narrow.network.params[name]
        assert b.dtype == np.float32
        # Adam's steps are of lr, and where a gradient is all but 0 they may differ by two of them.
        assert np.abs(a - b).max() <= 4 * 2 * 0.01, name
        assert np.median(np.abs(a - b)) <= 1e-4, name


@pytest.mark.parametrize("kind", ["mlp", "mlp, weight", "lenet-5", "wrn-10-1"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_on_numba_resumes_to_the_same_bits(kind: str, dtype: str, tmp_path: Path) -> None:
    whole, begun = run(trainer(kind, dtype=dtype), 6), run(trainer(kind, dtype=dtype), 3)
    begun.save(tmp_path / "checkpoint.npz")
    resumed = Trainer.load(tmp_path / "checkpoint.npz", DATA[kind])
    assert resumed.network.backend is backends.load("numba")
    assert_the_same_bits(run(resumed, 3), whole)


@every_run
def test_bits_do_not_depend_on_the_number_of_threads(kind: str) -> None:
    from numba import config

    if config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    runs = []
    for n in (1, 2):
        jit.set_num_threads(n)
        runs.append(run(trainer(kind, dtype="float32"), 5))
    assert_the_same_bits(*runs)


def test_a_large_batch_on_all_threads_has_the_same_bits() -> None:
    """Products and parameters of sizes that are shared out."""
    from numba import config

    if config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    rng = np.random.default_rng(3)
    network = MLP((201, 180, 10)).with_backend("numba")
    x = rng.uniform(size=(250, 201)).astype(np.float32)
    u = {i: rng.uniform(size=s) for i, s in network.noise_shapes(x.shape).items()}
    results = []
    for n in (1, 2):
        jit.set_num_threads(n)
        with network.backend.exclusive():
            results.append(network.evaluate(x, np.arange(250) % 10, u, lam=[0.1], n_train=9))
    assert results[0].loss == results[1].loss
    for name, g in results[0].grads.items():
        np.testing.assert_array_equal(results[1].grads[name], g)


# --- choosing one ---


@pytest.mark.parametrize("name", ["nope", "NumPy", "", None])
def test_unknown_backends_are_refused(name: Any) -> None:
    message = f"backend must be one of numpy, numba; got {name!r}"
    for ask in (backends.load, MLP((3, 2)).with_backend, lambda n: Settings(backend=n)):
        with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
            ask(name)


def test_with_backend_shares_the_arrays_and_leaves_the_first_as_it_was() -> None:
    first = LeNet5()
    second = first.with_backend("numba")
    assert first.backend is backends.NUMPY
    assert second.backend is backends.load("numba")
    assert all(layer.ops is second.backend for layer in second.layers)
    assert all(layer.ops is first.backend for layer in first.layers)
    for name, array in (first.params | first.buffers).items():
        assert (second.params | second.buffers)[name] is array
    assert second.with_backend("numpy").backend is backends.NUMPY
    assert second.with_params(first.params).backend is second.backend


def test_numba_is_the_default_and_numpy_is_a_setting() -> None:
    assert trainer("mlp").network.backend.name == "numba"
    assert trainer("mlp", backend="numpy").network.backend is backends.NUMPY
    assert MLP((3, 2)).backend is backends.NUMPY


def test_a_backend_is_one_object_however_it_is_come_by() -> None:
    for name in backends.BACKENDS:
        backend = backends.load(name)
        assert backend.name == name
        assert backends.load(name) is backend
        assert pickle.loads(pickle.dumps(backend)) is backend
        assert copy.deepcopy(backend) is backend
        with pytest.raises(AttributeError, match="no function 'conv3d'"):
            _ = backend.conv3d
    assert backends.load("numba").fuses
    assert not backends.NUMPY.fuses
    with backends.NUMPY.exclusive():
        pass


@pytest.mark.parametrize("statement", [
    "import l0ref",
    "from l0ref.cli import app",
    "from l0ref.training import Settings, Trainer; Settings()",
    "from l0ref.networks import MLP; MLP((3, 2)).with_backend('numpy')",
])  # fmt: skip
def test_nothing_imports_numba_before_it_is_asked_for(statement: str) -> None:
    heavy = "{'numba', 'llvmlite', 'l0ref.jit', 'threadpoolctl'}"
    code = f"import sys; {statement}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parent.parent)  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_asking_for_it_imports_it() -> None:
    code = ("import sys; from l0ref.backends import load; load('numba');"
            "print('numba' in sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parent.parent)  # fmt: skip
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("model", ["lenet-5", "lenet-300-100"])
def test_bits_do_not_depend_on_which_compilation_runs(model: str) -> None:
    """That for one thread, which runs while another thread is inside a kernel, adds up alike."""
    data = load("mnist-sample")
    params = []
    for busy in (False, True):
        trainer = Trainer(Settings(model=model, batch_size=16, dropout=0.3), data)
        if busy:
            assert _compile._inside.acquire(blocking=False)
        try:
            for _ in range(3):
                trainer.advance()
        finally:
            if busy:
                _compile._inside.release()
        params.append({name: value.tobytes() for name, value in trainer.network.params.items()})
    assert params[0] == params[1]
