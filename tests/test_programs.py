"""A step as a list of calls, against the same kernels called as they are needed, to the bit.

That those give the reference's numbers is `test_backends`' matter.
"""

import dataclasses
import gc
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from l0ref import conditional, programs
from l0ref.datasets import Dataset, from_arrays
from l0ref.optimizers import SGD, Adam, TemporalAverage
from l0ref.programs.conv import ConvProgram
from l0ref.steps import DivergedError, train_step
from l0ref.training import Settings, Trainer

BATCH = 12
KINDS: dict[str, dict[str, Any]] = {
    "units": {},
    "weights": {"gates": "weight", "lam": (0.2,)},
    "none": {"gates": "none"},
    "one layer": {"hidden": ()},
    "lam separate": {"lam": (0.1, 0.2, 0.3), "gate_lr": 0.05},
    "beta": {"beta": 0.5, "gamma": -0.2, "zeta": 1.3},
    "beta without a root": {"beta": 0.7},
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def rows() -> Dataset:
    """45 to train on: three batches of 12, and one of 9."""
    rng = np.random.default_rng(2)
    x = rng.uniform(size=(56, 23))
    y = (3 * x[:, 0]).astype(int)
    y[:3] = [0, 1, 2]
    return from_arrays(x, y)


def images(channels: int = 2) -> Dataset:
    """45 to train on, of 16 x 20, of which the last maps are 1 x 2."""
    rng = np.random.default_rng(3)
    x = rng.uniform(size=(56, channels, 16, 20))
    y = (3 * x[:, 0, 0, 0]).astype(int)
    y[:3] = [0, 1, 2]
    return from_arrays(x, y)


def lenet(*, channels: int = 2, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {
        "model": "lenet-5", "epochs": 5, "batch_size": BATCH, "seed": 5, "lr": 0.003,
        "average": 0.8, "dtype": "float64",
    }  # fmt: skip
    return Trainer(Settings(**settings | changes), images(channels))


def trainer(**changes: Any) -> Trainer:
    settings: dict[str, Any] = {
        "model": "mlp", "hidden": (31, 17), "epochs": 5, "batch_size": BATCH, "seed": 5,
        "lr": 0.01, "average": 0.8, "dtype": "float64",
    }  # fmt: skip
    return Trainer(Settings(**settings | changes), rows())


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each step was the program's."""
    found: list[bool] = []
    own, original = programs.by_program, train_step

    def spy(*args: Any) -> Any:
        result = own(*args)
        found.append(True)
        return result

    def spy_on_original(*args: Any, **options: Any) -> Any:
        found.append(False)
        return original(*args, **options)

    monkeypatch.setattr(programs, "by_program", spy)
    monkeypatch.setattr(programs.steps, "train_step", spy_on_original)
    return found


def contents(one: Trainer) -> dict[str, Any]:
    groups = {
        "params": one.network.params,
        "optimizer": one.optimizer.state(),
        "average": one.average.state(),
        "history": one.history.arrays(),
        "sums": {"": one._sums},
    }
    return {f"{g}:{name}": a for g, arrays in groups.items() for name, a in arrays.items()}


def assert_same(one: Trainer, other: Trainer) -> None:
    got, wanted = contents(one), contents(other)
    assert got.keys() == wanted.keys()
    for name, a in wanted.items():
        np.testing.assert_array_equal(got[name], a, err_msg=name)


def assert_refuses(one: Trainer, message: str) -> None:
    """Diverge, with that message, and leave everything as it is."""
    before = {k: np.copy(a) for k, a in contents(one).items()}
    with pytest.raises(DivergedError, match=message), np.errstate(all="ignore"):
        one.advance()
    after = contents(one)
    assert after.keys() == before.keys()
    for k, a in after.items():
        np.testing.assert_array_equal(a, before[k], err_msg=k)


def by_calls(one: Trainer, steps: int, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Take steps without a program."""
    with monkeypatch.context() as patch:
        patch.setattr(one, "_take_step", train_step)
        for _ in range(steps):
            one.advance()
    return one


def by_list(one: Trainer, steps: int) -> Trainer:
    for _ in range(steps):
        one.advance()
    return one


@every_kind
@both_dtypes
@pytest.mark.parametrize("how", ["as it is", "packed", "dense"])
def test_the_same_bits(
    options: dict[str, Any],
    dtype: str,
    how: str,
    taken: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if how == "packed":
        monkeypatch.setattr(conditional, "WORTH", 0)
    changes = options | {"dtype": dtype, "dense": how == "dense"}
    fast = by_list(trainer(**changes), 10)
    assert taken == [True] * 10
    slow = by_calls(trainer(**changes), 10, monkeypatch)
    assert len(taken) == 10
    assert_same(fast, slow)


@pytest.mark.parametrize("make", [trainer, lenet])
def test_few_open_after_many_and_all(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of gradients that are 0 but for a few, only these are cleared."""
    monkeypatch.setattr(conditional, "WORTH", 0)
    pair = [make(), make()]
    for one in pair:
        by_calls(one, 1, monkeypatch)
    for step, share in enumerate((0.1, 0.1, 1.0, 0.1, 0.5, 0.1)):
        rng = np.random.default_rng(step)
        masks = [rng.uniform(size=la.params["log_alpha"].shape) < share
                 for _, la, _ in pair[0].network.gated]  # fmt: skip
        for one in pair:
            for mask, (_, layer, _) in zip(masks, one.network.gated, strict=True):
                layer.params["log_alpha"][...] = np.where(mask, 40.0, -40.0)
        by_list(pair[0], 1)
        by_calls(pair[1], 1, monkeypatch)
        assert_same(*pair)


CONV_KINDS: dict[str, dict[str, Any]] = {
    "units": {},
    "one channel": {"channels": 1},
    "lam separate": {"lam": (0.1, 0.2, 0.3, 0.4), "gate_lr": 0.05},
    "beta": {"beta": 0.7, "gamma": -0.2, "zeta": 1.3},
}


@pytest.mark.parametrize("options", CONV_KINDS.values(), ids=CONV_KINDS)
@both_dtypes
@pytest.mark.parametrize("how", ["as it is", "packed", "dense"])
def test_the_same_bits_of_a_convnet(
    options: dict[str, Any],
    dtype: str,
    how: str,
    taken: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if how == "packed":
        monkeypatch.setattr(conditional, "WORTH", 0)
    changes = options | {"dtype": dtype, "dense": how == "dense"}
    fast = by_list(lenet(**changes), 10)
    assert taken == [True] * 10
    slow = by_calls(lenet(**changes), 10, monkeypatch)
    assert_same(fast, slow)


@pytest.mark.parametrize("packed", [True, False])
def test_a_convnet_whose_gates_are_all_open(
    packed: bool, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditional, "WORTH", 0)
    pair = [lenet(), lenet()]
    for one in pair:
        by_calls(one, 1, monkeypatch)
        for layer, _ in zip(one.network.gated, range(3 if packed else 4), strict=False):
            layer[1].params["log_alpha"][...] = 40.0
    fast, slow = by_list(pair[0], 3), by_calls(pair[1], 3, monkeypatch)
    assert taken == [True] * 3
    assert_same(fast, slow)


@pytest.mark.parametrize("place", range(4))
def test_a_layer_of_a_convnet_without_an_open_gate_is_the_originals(
    place: int, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditional, "WORTH", 0)
    pair = [lenet(), lenet()]
    for one in pair:
        by_calls(one, 1, monkeypatch)
        one.network.gated[place][1].params["log_alpha"][...] = -40.0
    fast, slow = by_list(pair[0], 3), by_calls(pair[1], 3, monkeypatch)
    assert taken == [False] * 3
    assert_same(fast, slow)


def test_some_units_and_maps_open(taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second convolution's maps some are closed, and behind some nothing is open."""
    monkeypatch.setattr(conditional, "WORTH", 0)
    pair = [lenet(), lenet()]
    for one in pair:
        by_calls(one, 1, monkeypatch)
        for (_, layer, _), step in zip(one.network.gated, (3, 2, 1, 5), strict=True):
            layer.params["log_alpha"][...] = -40.0
            layer.params["log_alpha"][1::step] = 40.0
        units = one.network.gated[2][1].params["log_alpha"]
        units[: len(units) // 2] = -40.0
        units[-2:] = units[54] = -40.0
    kept = []
    find = ConvProgram.kept
    monkeypatch.setattr(ConvProgram, "kept", lambda *a: kept.append(find(*a)) or kept[-1])
    fast, slow = by_list(pair[0], 3), by_calls(pair[1], 3, monkeypatch)
    assert taken == [True] * 3
    assert [len(rows) for rows in kept[0].rows] == [7, 12]
    assert_same(fast, slow)


@pytest.mark.parametrize("name", ["0.weight", "3.bias", "3.log_alpha", "7.weight", "9.bias"])
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_convnet_that_diverges_moves_nothing(name: str, value: float, steps: int) -> None:
    one = by_list(lenet(), steps)
    one.network.params[name].flat[1] = value
    if name == "3.log_alpha" and value == np.inf:
        one.advance()  # a gate that is always open
        return
    assert_refuses(one, f"at step {steps}: nothing was changed")


def test_a_kernels_gradient_that_overflows_moves_nothing(taken: list[bool]) -> None:
    """The weights are 0 and hide the size of x from everything else."""
    one = by_list(lenet(dtype="float32"), 3)
    params = one.network.params
    params["0.weight"][:] = 0
    params["0.bias"][:] = 1
    params["3.weight"] *= 1e3
    one.data.x_train[...] = 3e38
    assert_refuses(one, r"the gradient of 0\.weight is not finite at step 3: nothing was changed")


@pytest.mark.parametrize(
    "changes",
    [{"gates": "weight"}, {"gates": "none"}, {"activation": "tanh"},
     {"dropout": 0.5}, {"per_example": True}, {"l2": 0.5}],
    ids=str,
)  # fmt: skip
def test_other_convnets_are_the_originals(changes: dict[str, Any], taken: list[bool]) -> None:
    by_list(lenet(**changes), 3)
    assert taken == [False] * 3


@pytest.mark.parametrize("closed", [-40.0, -math.inf])
@pytest.mark.parametrize("layer", [0, 2, 4])
def test_a_layer_without_an_open_gate(
    closed: float, layer: int, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditional, "WORTH", 0)
    pair = [trainer(), trainer()]
    for one in pair:
        by_calls(one, 1, monkeypatch)
        one.network.layers[layer].params["log_alpha"][...] = closed
    fast, slow = by_list(pair[0], 4), by_calls(pair[1], 4, monkeypatch)
    assert taken == [True] * 4
    assert_same(fast, slow)


def test_the_gates_that_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    one = by_list(trainer(), 3)
    x, labels = one.inputs(one.data.x_train[:BATCH]), one.data.y_train[:BATCH]
    u = {i: one.noise.draws(one._stream(i), shape, layer=i, step=3)
         for i, shape in one.network.noise_shapes(x.shape).items()}  # fmt: skip
    wanted = one.network.evaluate(x, labels, u, lam=one.lam, n_train=45)
    loss, gates = programs.train_step(
        one.network, one.optimizer, one.average, x, labels, u, lam=one.lam, n_train=45
    )
    assert loss == wanted.loss
    assert gates.keys() == wanted.gates.keys()
    for i, z in wanted.gates.items():
        np.testing.assert_array_equal(gates[i], z)


Change = Callable[[Trainer], object]
CHANGES: dict[str, Change] = {
    "parameters in place": lambda t: t.network.params["2.weight"].__imul__(0.5),
    "parameters exchanged": lambda t: t.network.layers[0].params.update(
        weight=t.network.params["0.weight"] * 0.5
    ),
    "moments exchanged": lambda t: t.optimizer.load_state(t.optimizer.state()),
    "average exchanged": lambda t: t.average.load_state(t.average.state()),
    "gates taken away": lambda t: [
        t.network.layers[2].params.pop("log_alpha"),
        vars(t.network.layers[2]).update(gates=None),
        t.lam.pop(),
    ],
    "another law": lambda t: vars(t.network.layers[2]).update(
        gates=dataclasses.replace(t.network.layers[2].gates, beta=0.5)
    ),
    "lambda": lambda t: t.lam.__setitem__(0, 7.0),
    "learning rate": lambda t: vars(t.optimizer).update(lr=0.5),
    "another network": lambda t: vars(t).update(network=t.network.with_params(t.network.params)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_changed_between_two_steps_counts(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the masks of gates there is only room for as many as there were.
    monkeypatch.setattr(Trainer, "_keep_drawn", lambda self, gates: None)
    fast, slow = by_list(trainer(), 2), by_calls(trainer(), 2, monkeypatch)
    for one in (fast, slow):
        change(one)
    by_list(fast, 1)
    by_calls(slow, 1, monkeypatch)
    assert_same(fast, slow)


@pytest.mark.parametrize("name", ["0.weight", "2.bias", "4.log_alpha"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_diverges_is_said_and_nothing_moves(name: str, value: float) -> None:
    one = by_list(trainer(), 3)
    one.network.params[name].flat[1] = value
    if name == "4.log_alpha" and value == np.inf:
        one.advance()  # a gate that is always open
        return
    assert_refuses(one, "at step 3: nothing was changed")


def test_a_gradient_that_overflows_moves_nothing() -> None:
    one = by_list(trainer(dtype="float32"), 3)
    one.lam[0] = 1e42  # which the loss, in float64, can hold
    assert_refuses(
        one, r"the gradient of 0\.log_alpha is not finite at step 3: nothing was changed"
    )


@pytest.mark.parametrize("dense", [False, True], ids=["packed", "dense"])
@pytest.mark.parametrize("kind", ["units", "weights", "none"])
def test_a_weights_gradient_that_overflows_moves_nothing(kind: str, dense: bool) -> None:
    # The first weights are 0 and hide the size of x from the loss; from dz too, but for 0 x inf.
    one = by_list(trainer(dtype="float32", dense=dense, **KINDS[kind]), 3)
    params = one.network.params
    params["0.weight"][:] = 0
    params["0.bias"][:] = 1
    params["2.weight"] *= 1e4
    one.data.x_train[:, :3] = 3e38
    assert_refuses(one, r"the gradient of 0\.weight is not finite at step 3: nothing was changed")


def arguments(one: Trainer) -> dict[str, Any]:
    x = one.inputs(one.data.x_train[:BATCH])
    u = {i: one.noise.draws(one._stream(i), shape, layer=i, step=3)
         for i, shape in one.network.noise_shapes(x.shape).items()}  # fmt: skip
    return {
        "network": one.network, "optimizer": one.optimizer, "average": one.average, "x": x,
        "labels": one.data.y_train[:BATCH], "noise": u, "lam": one.lam, "n_train": 45,
    }  # fmt: skip


def frozen(a: Any) -> Any:
    a = np.array(a)
    a.flags.writeable = False
    return a


OTHERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "l2": lambda a: {"l2": 0.1},
    "clamp": lambda a: {"clamp": True},
    "noise as numbers": lambda a: {"noise": {i: np.asarray(u) for i, u in a["noise"].items()}},
    "columns": lambda a: {"x": np.asfortranarray(a["x"])},
    "read-only": lambda a: {"x": frozen(a["x"])},
    "float32": lambda a: {"x": a["x"].astype(np.float32)},
    "labels in a list": lambda a: {"labels": a["labels"].tolist()},
    "small labels": lambda a: {"labels": a["labels"].astype(np.int8)},
    "sgd": lambda a: {"optimizer": SGD()},
    "new adam": lambda a: {"optimizer": Adam()},
    "new average": lambda a: {"average": TemporalAverage()},
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_everything_else_is_the_originals(change: Any) -> None:
    fast, slow = by_list(trainer(), 3), by_list(trainer(), 3)
    for one, step in ((fast, programs.train_step), (slow, train_step)):
        given = arguments(one)
        given |= change(given)
        step(**given)
    assert_same(fast, slow)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "lam": ({"lam": [0.1, 0.2]}, "lam must have 1 value or one a gated layer"),
    "negative lam": ({"lam": [-0.1]}, "lam must be at least 0"),
    "n_train": ({"n_train": 0}, "n_train must be at least 1"),
    "l2": ({"l2": -1.0}, "l2 must be at least 0"),
    "no noise": ({"noise": {}}, "noise must have u for every layer"),
    "x": ({"x": np.zeros((BATCH, 5))}, r"x must have shape \(N, 23\), got \(12, 5\)"),
    "labels": ({"labels": np.full(BATCH, 9)}, "labels"),
    "fewer labels": ({"labels": np.zeros(3, np.int64)}, "labels"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_said_in_the_originals_words(change: Any, message: str) -> None:
    one = by_list(trainer(), 3)
    before = {k: np.copy(a) for k, a in contents(one).items()}
    with pytest.raises(ValueError, match=message):
        programs.train_step(**arguments(one) | change)
    for k, a in contents(one).items():
        np.testing.assert_array_equal(a, before[k], err_msg=k)


@pytest.mark.parametrize(
    "changes",
    [{"activation": "tanh"}, {"dropout": 0.5}, {"per_example": True}, {"l2": 0.5},
     {"optimizer": "sgd"}, {"clamp_log_alpha": True}],
    ids=str,
)  # fmt: skip
def test_other_runs_are_the_originals(changes: dict[str, Any], taken: list[bool]) -> None:
    by_list(trainer(**changes), 3)
    assert taken == [False] * 3


def test_no_network_is_kept_for_its_program() -> None:
    gc.collect()
    before = len(programs._programs)
    one = by_list(trainer(), 3)
    assert len(programs._programs) == before + 1
    del one
    gc.collect()
    assert len(programs._programs) == before
