"""Training: against a loop written out, bit for bit through checkpoints, and what it refuses."""

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l0ref.datasets import Dataset, from_arrays
from l0ref.flops import network_cost
from l0ref.gates import CLOSED, close_for_good
from l0ref.networks import MLP
from l0ref.noise import Noise, Stream
from l0ref.optimizers import SGD, Adam
from l0ref.pruning import compact
from l0ref.steps import DivergedError
from l0ref.storage import FileError, load_arrays, save_arrays
from l0ref.training import (
    Settings,
    Trainer,
    error_percent,
    read_about,
    settings_from_json,
)
from tests import naive_network as naive

N, D_IN, CLASSES = 48, 8, 3  # of 60 examples, 12 are held out
TINY: dict[str, Any] = {
    "model": "mlp",
    "hidden": (5, 4),
    "epochs": 3,
    "batch_size": 10,  # five steps an epoch, the last of 8 examples
    "lr": 0.03,
    "average": 0.8,
    "seed": 11,
    "backend": "numpy",  # what is replayed here is the reference, to the bit
}
STEPS = 5

KINDS: dict[str, dict[str, Any]] = {
    "input gates": {"l2": 0.5, "lam": (0.3, 0.1, 0.7)},
    "weight gates": {"gates": "weight", "gate_lr": 0.2, "dtype": "float64"},
    "sgd": {"optimizer": "sgd", "momentum": 0.7, "l2": 0.1, "activation": "tanh"},
    "sgd, weight gates": {"optimizer": "sgd", "gates": "weight", "clamp_log_alpha": True},
    "per example": {"per_example": True, "dtype": "float64", "beta": 0.5, "zeta": 1.2},
    "weight gates per example": {"gates": "weight", "per_example": True, "dropout": 0.2},
    "dropout": {"dropout": 0.4, "clamp_log_alpha": True, "gate_lr": 3.0, "drop_rates": (0.3, 0.6)},
    "no gates": {"gates": "none", "dropout": 0.3, "l2": 1.0},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def make_data(seed: int = 0, d_in: int = D_IN) -> Dataset:
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(60, d_in))
    y = (3 * (0.7 * x[:, 0] + 0.3 * x[:, 1])).astype(int) % CLASSES
    y[:CLASSES] = range(CLASSES)
    return from_arrays(x, y, name=f"data {seed}")


DATA = make_data()


def trainer(data: Dataset = DATA, **changes: Any) -> Trainer:
    return Trainer(Settings(**TINY | changes), data)


def run(one: Trainer, steps: int | None = None) -> Trainer:
    for _ in range(one.total_steps - one.step if steps is None else steps):
        one.advance()
    return one


def contents(one: Trainer) -> dict[str, Any]:
    """Everything a run consists of, as bytes that are equal only if all of it is."""
    groups = {
        "params": one.network.params,
        "buffers": one.network.buffers,
        "optimizer": one.optimizer.state(),
        "average": one.average.state(),
        "history": one.history.arrays(),
    }
    return {"step": one.step} | {
        f"{group} {name}": (np.asarray(a).dtype.str, np.shape(a), np.asarray(a).tobytes())
        for group, arrays in groups.items()
        for name, a in arrays.items()
    }


# Against a loop written out


def replay(settings: Settings, data: Dataset) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the parameters before and after every step, and every step's loss: no Trainer."""
    noise = Noise(settings.seed)
    options = {
        name: getattr(settings, name)
        for name in ("gates", "per_example", "drop_rates", "beta", "gamma", "zeta", "activation",
                     "dropout", "dtype")
        if getattr(settings, name) is not None
    }  # fmt: skip
    network = MLP((D_IN, *settings.hidden, CLASSES), noise=noise, **options)
    optimizer: Any = Adam(settings.lr, gate_lr=settings.gate_lr)
    if settings.optimizer == "sgd":
        optimizer = SGD(settings.lr, momentum=settings.momentum, gate_lr=settings.gate_lr)
    lam = settings.lam if settings.gates != "none" else ()
    every = [{n: a.copy() for n, a in network.params.items()}]
    losses: list[Any] = []
    for epoch in range(settings.epochs):
        left = noise.permutation(N, epoch=epoch).tolist()
        while left:
            rows, left = left[: settings.batch_size], left[settings.batch_size :]
            x = data.x_train[rows].astype(settings.dtype)
            u: dict[int, Any] = {}
            for i, shape in network.noise_shapes(x.shape).items():
                dense = bool(network.layers[i].params)
                stream = Stream.GATES if dense else Stream.DROPOUT
                u[i] = noise.uniform(stream, shape, layer=i, step=len(losses))
            loss, grads = network.loss_and_grads(
                x, data.y_train[rows], u, lam=lam, l2=settings.l2, n_train=N
            )
            optimizer.step(network.params, grads)
            for name, a in network.params.items():
                if settings.clamp_log_alpha and name.endswith("log_alpha"):
                    a[...] = np.clip(a, -np.log(100), np.log(100))
            losses.append(loss)
            every.append({n: a.copy() for n, a in network.params.items()})
    return every, losses


def averaged(every: list[dict[str, Any]], decay: float) -> dict[str, Any]:
    """Average the parameters after each step so far; those before the first do not count."""
    return {n: naive.temporal_average([p[n] for p in every[1:]], decay) for n in every[0]}


def stages(params: dict[str, Any], settings: Settings) -> list[Any]:
    """Make the twin of a network, of nested lists, at given parameters."""
    on = {"unit": "inputs", "weight": "weights", "none": None}[settings.gates]
    depths = sorted({int(name.split(".")[0]) for name in params})
    made: list[Any] = []
    for i in depths:
        arrays = {n.split(".")[1]: a.tolist() for n, a in params.items() if int(n[0]) == i}
        made += [naive.Dense(**arrays, on=on), settings.activation]
    return made[:-1]


@every_kind
def test_the_loop(kind: str) -> None:
    settings = Settings(**TINY | KINDS[kind])
    one = run(Trainer(settings, DATA))
    every, losses = replay(settings, DATA)
    assert one.done
    assert one.step == one.total_steps == len(losses) == 3 * STEPS
    assert one.steps_per_epoch == STEPS
    for name, a in one.network.params.items():
        assert a.dtype == settings.dtype
        np.testing.assert_array_equal(a, every[-1][name], err_msg=name)
        assert (a != every[0][name]).any()  # it has moved at all
    mean = averaged(every, settings.average)
    for name, a in one.averaged().params.items():
        # Some 15 updates of a rounding or two each, of numbers no larger than the largest so far.
        largest = max(np.abs(p[name]).max() for p in every)
        atol = 4 * len(losses) * np.finfo(settings.dtype).eps * largest
        np.testing.assert_allclose(a, mean[name], rtol=0, atol=atol, err_msg=name)

    history = one.history.arrays()
    per_epoch = np.array(losses).reshape(3, STEPS, 4).mean(axis=1)
    for k, part in enumerate(("loss", "data", "l0", "l2")):
        np.testing.assert_allclose(history[part], per_epoch[:, k], rtol=1e-14, err_msg=part)
    parts = history["data"] + history["l0"] + history["l2"]
    np.testing.assert_allclose(history["loss"], parts, rtol=1e-14)
    assert (history["l2"] > 0).all() == (settings.l2 > 0)
    assert (history["l0"] > 0).all() == (settings.gates != "none")


@every_kind
def test_what_is_evaluated_is_the_average(kind: str) -> None:
    """Error, active gates and expected L0 of every epoch, from loops over averaged parameters."""
    settings = Settings(**TINY | KINDS[kind] | {"lr": 0.1, "gate_lr": 0.3, "dtype": "float64"})
    history = run(Trainer(settings, DATA)).history.arrays()
    every, _ = replay(settings, DATA)
    stretch = {"gamma": settings.gamma, "zeta": settings.zeta}
    of_latest = []
    for epoch in range(3):
        so_far = every[: (epoch + 1) * STEPS + 1]
        errors = []
        for params in (averaged(so_far, settings.average), so_far[-1]):
            logits = naive.logits(stages(params, settings), DATA.x_test.tolist(), **stretch)
            hits = sum(
                row.index(max(row)) == y
                for row, y in zip(logits, DATA.y_test.tolist(), strict=True)
            )
            errors.append(100 * (12 - hits) / 12)
        np.testing.assert_allclose(history["test_error"][epoch], errors[0], rtol=1e-14)
        of_latest.append(errors[1])

        mean = averaged(so_far, settings.average)
        gates = {n: a for n, a in mean.items() if n.endswith("log_alpha")}
        for k, (name, log_alpha) in enumerate(gates.items()):
            is_open = np.array(
                [naive.test_gate(a, **stretch) > 0 for a in log_alpha.ravel().tolist()]
            ).reshape(log_alpha.shape)
            assert history["active"][epoch, k] == is_open.sum()
            if settings.gates == "unit":
                np.testing.assert_array_equal(history[f"open_{k}"][epoch], is_open)
            size = mean[name.replace("log_alpha", "weight")].size // log_alpha.size
            expected = size * sum(
                naive.prob_on(a, beta=settings.beta, **stretch) for a in log_alpha.ravel().tolist()
            )
            np.testing.assert_allclose(history["expected_l0"][epoch, k], expected, rtol=1e-12)
    if kind in ("input gates", "per example", "no gates"):
        assert history["test_error"].tolist() != of_latest  # or else this test shows nothing


def test_the_first_loss_from_the_equations() -> None:
    """One step on all examples: data, l0 and l2 with their 1/N, lambda a layer, and the noise."""
    settings = Settings(**TINY | KINDS["input gates"] | {"batch_size": N, "dtype": "float64"})
    one = Trainer(settings, DATA)
    twin = stages({n: a.copy() for n, a in one.network.params.items()}, settings)
    noise = Noise(settings.seed)
    for depth, width in enumerate((D_IN, 5, 4)):
        u = noise.uniform(Stream.GATES, (width,), layer=2 * depth, step=0)
        twin[2 * depth] = twin[2 * depth]._replace(u=u.tolist())
    one.advance()
    x, y = DATA.x_train.tolist(), DATA.y_train.tolist()
    expected = naive.objective(twin, x, y, settings.lam, settings.l2, N)
    for name, part in {"loss": "total", "data": "data", "l0": "l0", "l2": "l2"}.items():
        np.testing.assert_allclose(one.history.last(name), expected[part], rtol=1e-12)


def test_every_epoch_visits_every_example_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch is smaller; the order is another in the next epoch."""
    one = trainer()
    batches: list[Any] = []
    evaluate = one.network.evaluate

    def watch(x: Any, labels: Any, noise: Any, **options: Any) -> Any:
        batches.append((x.copy(), labels.copy()))
        assert options["n_train"] == N
        return evaluate(x, labels, noise, **options)

    monkeypatch.setattr(one.network, "evaluate", watch)
    run(one)
    assert [len(y) for _, y in batches] == [10, 10, 10, 10, 8] * 3
    label_of = {x.tobytes(): y for x, y in zip(DATA.x_train, DATA.y_train, strict=True)}
    orders = []
    for epoch in range(3):
        seen = batches[epoch * STEPS : (epoch + 1) * STEPS]
        rows = [row.tobytes() for x, _ in seen for row in x]
        assert sorted(rows) == sorted(label_of)
        assert [label_of[row] for row in rows] == [int(label) for _, y in seen for label in y]
        orders.append(tuple(rows))
    assert len(set(orders)) == 3


def test_history_fields_and_shapes() -> None:
    history = run(trainer()).history
    assert len(history) == 3
    shapes = {name: a.shape for name, a in history.arrays().items()}
    assert shapes == {
        "loss": (3,), "data": (3,), "l0": (3,), "l2": (3,), "test_error": (3,),
        "expected_flops": (3,), "sampled_flops": (3,), "flops": (3,),
        "expected_l0": (3, 3), "active": (3, 3),
        "open_0": (3, 8), "open_1": (3, 5), "open_2": (3, 4),
    }  # fmt: skip
    arrays = history.arrays()
    assert all(arrays[f"open_{k}"].dtype == bool for k in range(3))
    assert arrays["active"].dtype.kind == "i"
    for name, a in arrays.items():
        np.testing.assert_array_equal(history.last(name), a[-1])
    weight = run(trainer(gates="weight", epochs=1)).history.arrays()
    assert not any(name.startswith("open_") for name in weight)
    assert weight["active"].shape == (1, 3)
    assert run(trainer(gates="none", epochs=1)).history.arrays()["active"].shape == (1, 0)
    assert len(trainer().history) == 0
    assert trainer().history.arrays() == {}


def test_before_the_first_step_the_average_is_the_network() -> None:
    one = trainer()
    for name, a in one.averaged().params.items():
        np.testing.assert_array_equal(a, one.network.params[name])


# Settings that must matter, and how


@pytest.mark.parametrize("seed", [0, 1, 2**63 + 5, 2**64 - 1])
def test_a_run_is_a_function_of_its_seed(seed: int) -> None:
    options = {"seed": seed, "dropout": 0.2, "epochs": 1}
    one, same, other = trainer(**options), trainer(**options), trainer(**options | {"seed": 7})
    assert contents(run(one)) == contents(run(same))
    run(other)
    for name, a in one.network.params.items():
        assert (a != other.network.params[name]).any(), name
    assert one.history.last("loss") != other.history.last("loss")


def test_runs_do_not_share_numpys_global_generator() -> None:
    one = run(trainer(epochs=1))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert contents(run(trainer(epochs=1))) == contents(one)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("rates", [(0.2, 0.5), (0.2, 0.5, 0.5)])
def test_no_drop_rates_are_the_papers(rates: tuple[float, ...]) -> None:
    assert contents(run(trainer())) == contents(run(trainer(drop_rates=rates)))
    assert contents(trainer()) != contents(trainer(drop_rates=(0.2,)))


def test_one_lambda_is_the_same_for_every_layer() -> None:
    one, three = trainer(lam=(0.4,)), trainer(lam=(0.4, 0.4, 0.4))
    assert contents(run(one)) == contents(run(three))
    assert contents(run(trainer(lam=(0.4, 0.4, 0.5)))) != contents(one)


def test_a_lambda_a_layer_closes_the_gates_of_that_layer() -> None:
    for layer in range(3):
        lam = [0.0, 0.0, 0.0]
        lam[layer] = 500.0
        active = run(trainer(lam=tuple(lam), gate_lr=0.5)).history.last("active")
        assert active[layer] == 0
        assert all(active[k] > 0 for k in range(3) if k != layer)


def test_clamping_holds_log_alpha_and_nothing_else() -> None:
    far = {"lam": (500.0, 0.0, 0.0), "gate_lr": 2.0, "optimizer": "sgd", "dtype": "float64"}
    free, held = run(trainer(**far)), run(trainer(**far, clamp_log_alpha=True))
    low, high = np.log(0.01), np.log(100.0)
    assert free.network.params["0.log_alpha"].min() < low - 1
    for layer in (0, 2, 4):
        for params in (held.network.params, held.averaged().params):
            log_alpha = params[f"{layer}.log_alpha"]
            assert log_alpha.min() >= low * (1 + 1e-15)
            assert log_alpha.max() <= high * (1 + 1e-15)
    assert held.network.params["0.log_alpha"].min() == low
    assert any(np.abs(a).max() > 0.5 for n, a in held.network.params.items() if "weight" in n)


def test_gates_have_their_own_learning_rate() -> None:
    slow = run(trainer(gate_lr=1e-9), 1)
    start = trainer().network.params
    for name, a in slow.network.params.items():
        moved = np.abs(a - start[name]).max()
        assert (moved < 1e-6) == name.endswith("log_alpha"), name


def test_it_learns() -> None:
    """The classes are bands of two inputs: far better than by chance, once the gates open."""
    one = trainer(epochs=60, lam=(0.0,), gate_lr=0.3, hidden=(16, 8))
    history = run(one).history.arrays()
    assert history["data"][-5:].mean() < 0.5 * history["data"][:5].mean()
    assert history["test_error"][-1] <= 35  # seeds 0 to 5 give 8 to 33; by chance it is 66


# Checkpoints


def resumed(one: Trainer, path: Path, **options: Any) -> Trainer:
    one.save(path)
    return Trainer.load(path, make_data(), **options)


@every_kind
@pytest.mark.parametrize("at", [0, STEPS - 1, STEPS, 2 * STEPS + 3])
def test_a_run_resumed_is_one_never_stopped(tmp_path: Path, kind: str, at: int) -> None:
    path = tmp_path / "checkpoint.npz"
    whole = run(trainer(**KINDS[kind]))
    stopped = run(trainer(**KINDS[kind]), at)
    again = resumed(stopped, path)
    assert again.settings == stopped.settings
    assert contents(again) == contents(stopped)
    assert contents(run(again)) == contents(whole)
    assert contents(run(stopped)) == contents(whole)  # saving and loading left it alone


def test_stopped_after_every_step(tmp_path: Path) -> None:
    one = trainer(dropout=0.2, l2=0.3)
    while not one.done:
        one = resumed(run(one, 1), tmp_path / "checkpoint.npz")
    assert contents(one) == contents(run(trainer(dropout=0.2, l2=0.3)))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]


@every_kind
@pytest.mark.parametrize("room", [1, 100])
def test_it_does_not_matter_when_drawn_flops_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, room: int
) -> None:
    """Step by step, a few steps at once, an epoch at once: the same, stopped and resumed too."""
    path = tmp_path / "checkpoint.npz"
    whole = run(trainer(**KINDS[kind]))
    assert whole.history.arrays()["sampled_flops"].min() > 0
    monkeypatch.setattr("l0ref.training._DRAWN_BYTES", room)
    assert contents(run(trainer(**KINDS[kind]))) == contents(whole)
    stopped = run(trainer(**KINDS[kind]), STEPS + 4)
    monkeypatch.undo()
    assert contents(run(resumed(stopped, path))) == contents(whole)


def test_drawn_flops_in_a_checkpoint(tmp_path: Path) -> None:
    """The sums that are saved are of all steps so far, whatever was still to be counted."""
    path = tmp_path / "checkpoint.npz"
    saved = []
    one = trainer()
    for _ in range(STEPS - 1):
        run(one, 1).save(path)
        saved.append(load_arrays(path)["sums"])
    run(other := trainer(), STEPS - 1).save(path)
    np.testing.assert_array_equal(load_arrays(path)["sums"], saved[-1])
    each = np.diff([sums[4] for sums in saved])
    whole = network_cost(one.network).flops
    assert ((each > 0) & (each <= whole)).all()
    assert len(set(each.tolist())) > 1  # other gates, other costs
    other.save(path)  # nothing is added twice
    np.testing.assert_array_equal(load_arrays(path)["sums"], saved[-1])


@pytest.mark.parametrize("at", [STEPS + 2, 3 * STEPS])
def test_more_epochs_are_a_longer_run(tmp_path: Path, at: int) -> None:
    path = tmp_path / "checkpoint.npz"
    longer = resumed(run(trainer(), at), path, epochs=5)
    assert (longer.settings.epochs, longer.total_steps) == (5, 5 * STEPS)
    assert contents(run(longer)) == contents(run(trainer(epochs=5)))
    assert resumed(longer, path).settings.epochs == 5


def test_fewer_epochs_than_trained_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    assert resumed(run(trainer(), 2 * STEPS), path, epochs=2).done
    with pytest.raises(ValueError, match=r"epochs must be at least .*2.*, got 1"):
        Trainer.load(path, DATA, epochs=1)
    with pytest.raises(ValueError, match=r"epochs must be at least 1, got 0"):
        Trainer.load(path, DATA, epochs=0)
    run(trainer(), STEPS + 1).save(path)  # one epoch and a step: the message must not ask for 1
    with pytest.raises(ValueError, match=r"epochs must be at least .*2.*, got 1"):
        Trainer.load(path, DATA, epochs=1)


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    run(trainer(), 2).save(path)
    content = path.read_bytes()
    relabelled = make_data()
    relabelled.y_test[0] = (relabelled.y_test[0] + 1) % CLASSES
    for other in (make_data(1), relabelled, make_data(0, d_in=7)):
        with pytest.raises(FileError, match="run on other data than data") as caught:
            Trainer.load(path, other)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_lenet_checkpoint_tells_of_other_data_first(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    rng = np.random.default_rng(0)
    digits = from_arrays(rng.uniform(size=(20, 784)), np.arange(20) % 10)
    Trainer(Settings(), digits).save(path)
    with pytest.raises(FileError, match="run on other data"):
        Trainer.load(path, DATA)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    one = run(trainer(), STEPS + 1)
    one.save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(one.network.params["2.weight"].tobytes()) + 5] ^= 4
    single, pickled = tmp_path / "single.npy", tmp_path / "pickled.npz"
    np.save(single, np.ones(3))
    np.savez(pickled, about=np.array([{}], dtype=object), sums=np.zeros(4))
    cuts = [whole[: len(whole) * k // 9] for k in range(9)]
    others = [bytes(flipped), whole[:-1], single.read_bytes(), pickled.read_bytes()]
    for content in cuts + others:
        path.write_bytes(content)
        with pytest.raises(FileError, match=re.escape(str(path))):
            Trainer.load(path, DATA)
        assert path.read_bytes() == content
    with pytest.raises(FileError, match=r"gone\.npz: no such file"):
        Trainer.load(tmp_path / "gone.npz", DATA)
    compact(trainer().network).save(path)
    with pytest.raises(FileError, match=re.escape(f"{path}: lacks about, sums")):
        Trainer.load(path, DATA)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_checkpoint_that_lacks_anything_is_refused(tmp_path: Path, optimizer: str) -> None:
    """Each array in turn missing, or of another shape: no zeros in place of a lost moment."""
    path, other = tmp_path / "checkpoint.npz", tmp_path / "other.npz"
    run(trainer(optimizer=optimizer), STEPS + 1).save(path)
    arrays = load_arrays(path)
    Trainer.load(path, DATA)
    for name, a in arrays.items():
        for wrong in ({}, {name: np.zeros((*a.shape, 2), a.dtype)}):
            save_arrays(other, {n: b for n, b in arrays.items() if n != name} | wrong)
            try:
                Trainer.load(other, DATA)
            except FileError as error:
                message = str(error)
            else:
                message = f"{name} was not missed"
            assert message.startswith(f"{other}: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "l0ref compact network 1"}, "not a checkpoint but 'l0ref compact network 1'"),
        ({"format": None}, "not a checkpoint"),
        ({"step": None}, "not a checkpoint"),
        ({"step": "three"}, "."),
        ({"settings": None}, "not a checkpoint"),
        ({"settings": 3}, "settings are not valid"),
        ({"settings": {"epochs": 0}}, "settings are not valid .*epochs must be at least 1, got 0"),
        ({"settings": {"colour": "red"}}, "settings are not valid .*colour"),
        ({"settings": {**TINY, "hidden": [5, 3]}}, "does not fit its own settings"),
        ({"settings": {**TINY, "lam": [1.0, 2.0]}}, "."),
    ],
)
def test_checkpoints_that_describe_something_else(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "checkpoint.npz"
    run(trainer(), STEPS + 1).save(path)
    arrays = load_arrays(path)
    about = json.loads(str(arrays["about"])) | changes
    about = {name: value for name, value in about.items() if value is not None}
    save_arrays(path, arrays | {"about": np.array(json.dumps(about))})
    with pytest.raises(FileError, match=message) as caught:
        Trainer.load(path, DATA)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("about", ["", "{", "[]", "3", '"text"'])
def test_an_about_that_is_none(tmp_path: Path, about: str) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(FileError, match=re.escape(f"{path}: not a checkpoint")):
        read_about(path, {"about": np.array(about)})


def test_settings_come_back_from_json() -> None:
    settings = Settings(**TINY | KINDS["input gates"])
    values = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert settings_from_json(Path("run"), values) == settings


def test_the_defaults_are_the_papers() -> None:
    settings = Settings()
    assert (settings.model, settings.gates) == ("lenet-300-100", "unit")
    assert (settings.lam, settings.drop_rates, settings.augment) == ((0.1,), None, False)
    assert (settings.depth, settings.width) == (28, 10)
    assert (settings.beta, settings.gamma, settings.zeta) == (2 / 3, -0.1, 1.1)
    assert (settings.epochs, settings.batch_size, settings.optimizer) == (200, 100, "adam")
    assert (settings.lr, settings.l2, settings.clamp_log_alpha) == (0.001, 0.0, False)


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lam": (-0.1,)}, r"lam must be at least 0 and finite, got -0.1"),
        ({"lam": (0.1, -2.0, 0.1)}, r"lam must be at least 0 .*got -2.0"),
        ({"lam": (float("nan"),)}, r"lam .*got nan"),
        ({"lam": (float("inf"),)}, r"lam .*got inf"),
        ({"lam": (0.1, 0.2)}, r"lam must have 1 value or one a gated layer \(3\), got 2"),
        ({"lam": ()}, r"lam must have 1 value .*got 0"),
        ({"lam": (-1.0,), "gates": "none"}, r"lam must be at least 0 .*got -1.0"),
        ({"l2": -1.0}, r"l2 must be at least 0 and finite, got -1.0"),
        ({"l2": float("nan")}, r"l2 .*got nan"),
        ({"epochs": 0}, r"epochs must be at least 1, got 0"),
        ({"batch_size": 0}, r"batch_size must be at least 1, got 0"),
        ({"optimizer": "lion"}, r"optimizer must be one of adam, sgd; got 'lion'"),
        ({"dtype": "float16"}, r"dtype must be one of float32, float64; got 'float16'"),
        ({"model": "lenet"}, r"model must be one of lenet-300-100, mlp.*; got 'lenet'"),
        ({"model": "lenet-300-100"}, r"784 inputs and 10 classes; the data has 8 and 3"),
        ({"hidden": (5, 0)}, r"widths .*positive.*\[8, 5, 0, 3\]"),
        ({"gates": "output"}, r"gates must be one of .*got 'output'"),
        ({"activation": "gelu"}, r"activation must be one of .*got 'gelu'"),
        ({"drop_rates": (0.2, 1.0)}, r"drop_rate must .*got 1.0"),
        ({"drop_rates": (0.0, 0.5)}, r"drop_rate must .*got 0.0"),
        ({"drop_rates": ()}, r"drop_rates must .*\(3\), got \[\]"),
        ({"drop_rates": (0.2, 0.3, 0.4, 0.5)}, r"drop_rates must .*\(3\), got \[0.2, .*0.5\]"),
        ({"beta": 0.0}, r"beta must .*got 0.0"),
        ({"gamma": 0.0}, r"gamma must .*got 0.0"),
        ({"zeta": 1.0}, r"zeta must .*got 1.0"),
        ({"dropout": 1.0}, r"(drop)?(out|rate) must .*got 1.0"),
        ({"dropout": -0.1}, r"(drop)?(out|rate) must .*got -0.1"),
        ({"lr": 0.0}, r"lr must .*got 0.0"),
        ({"gate_lr": -1.0}, r"gate_lr must .*got -1.0"),
        ({"momentum": 1.0, "optimizer": "sgd"}, r"momentum must .*got 1.0"),
        ({"average": 1.0}, r"(average|decay) must .*got 1.0"),
        ({"seed": -1}, r"seed must .*got -1"),
        ({"seed": 2**64}, r"seed must .*got 18446744073709551616"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(**changes)


@pytest.mark.parametrize("kind", ["input gates", "sgd", "weight gates per example", "dropout"])
@pytest.mark.parametrize("at", [0, STEPS + 2])
def test_a_nan_stops_the_run_before_it_spreads(tmp_path: Path, kind: str, at: int) -> None:
    one = run(trainer(**KINDS[kind]), at)
    log_alpha = [a for name, a in one.network.params.items() if name.endswith("log_alpha")][1]
    log_alpha[1] = np.nan
    before = contents(one)
    for _ in range(2):  # the second time no more than the first
        with pytest.raises(DivergedError, match=rf"loss is nan at step {at}\b"):
            one.advance()
        assert contents(one) == before
    assert issubclass(DivergedError, ValueError)


def test_error_percent() -> None:
    logits = np.array([[0.1, 0.3, 0.2], [5, -1, 2], [0, 0.5, 1], [-3, -2, -4]])
    assert error_percent(logits, np.array([1, 0, 2, 1])) == 0
    assert error_percent(logits, np.array([1, 0, 2, 0])) == 25
    assert error_percent(logits, np.array([0, 1, 1, 0])) == 100
    assert isinstance(error_percent(logits, np.array([1, 0, 2, 1])), float)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_nan_logit_is_an_error(place: int) -> None:
    """Even the label's own, which argmax would take for the largest."""
    logits = np.array([[0.1, 0.3, 0.2], [0.1, 0.3, 0.2]])
    logits[0, place] = np.nan
    assert error_percent(logits, np.array([1, 1])) == 50
    assert error_percent(logits, np.array([place, 1])) == 50


# Gates that are closed for good


def closing(**changes: Any) -> Trainer:
    """A run that closes gates, and one of the inputs' on purpose."""
    one = trainer(
        epochs=6, lam=(1.5, 0.0, 0.0), gate_lr=0.3, dead_below=0.2, dead_after=2, **changes
    )
    one.network.params["0.log_alpha"][1] = -6.0
    return one


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_gate_is_closed_after_so_many_low_epochs_and_stays(backend: str) -> None:
    one = closing(backend=backend, dtype="float64")
    low = {i: np.zeros(gates.shape, int) for i, _, gates in one.network.gated}
    for epoch in range(6):
        run(one, STEPS - 1)
        # The last step of the epoch closes gates: replay it on a copy that closes none.
        other = copy.deepcopy(one)
        object.__setattr__(other, "settings", dataclasses.replace(one.settings, dead_below=0.0))
        run(one, 1)
        run(other, 1)
        for i, layer, _ in other.network.gated:
            log_alpha = layer.params["log_alpha"]
            open_by = np.maximum(log_alpha, -700) - 2 / 3 * np.log(0.1 / 1.1)
            active = 1 / (1 + np.exp(-open_by))
            low[i] = np.where(active < 0.2, low[i] + 1, 0)
            expected = np.where(low[i] >= 2, CLOSED, log_alpha)
            np.testing.assert_array_equal(one.network.params[f"{i}.log_alpha"], expected)
        dead = [int((low[i] >= 2).sum()) for i in low]
        assert one.history.last("dead").tolist() == dead
        if epoch == 0:
            assert sum(dead) == 0
    assert one.network.params["0.log_alpha"][1] < CLOSED + 1
    assert 0 < sum(dead) < sum(layer.params["log_alpha"].size for _, layer, _ in one.network.gated)


def test_a_closed_gate_is_never_drawn_open_and_its_weights_get_no_gradient() -> None:
    one = trainer(dtype="float64")
    close_for_good(one.network.params["0.log_alpha"], np.arange(D_IN) == 1)
    x, labels = DATA.x_train[:9].astype(float), DATA.y_train[:9]
    for step in range(20):
        u = {i: Noise(0).draws(Stream.GATES, shape, layer=i, step=step)
             for i, shape in one.network.noise_shapes(x.shape).items()}  # fmt: skip
        evaluation = one.network.evaluate(x, labels, u, lam=(0.5,), n_train=50)
        assert evaluation.gates[0][1] == 0
        assert (evaluation.grads["0.weight"][1] == 0).all()
        assert evaluation.grads["0.log_alpha"][1] == 0
        assert np.isfinite(evaluation.loss.total)


def test_low_epochs_count_in_a_row_only() -> None:
    one = closing()
    log_alpha = one.network.params["0.log_alpha"]
    for value, closes in ((-6.0, False), (6.0, False), (-6.0, False), (-6.0, True)):
        log_alpha[1] = value
        one._close_for_good()
        assert (log_alpha[1] == CLOSED) == closes


def test_what_is_dead_survives_a_checkpoint(tmp_path: Path) -> None:
    whole = run(closing())
    stopped = run(closing(), 3 * STEPS + 2)
    again = resumed(stopped, tmp_path / "checkpoint.npz")
    assert contents(run(again)) == contents(whole)
    assert whole.history.arrays()["dead"].shape == (6, 3)


def test_without_the_option_the_history_says_nothing_of_it() -> None:
    assert "dead" not in run(trainer()).history.arrays()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dead_below": -0.1}, r"dead_below must be in \[0, 1\), got -0.1"),
        ({"dead_below": 1.0}, r"dead_below must be in \[0, 1\), got 1.0"),
        ({"dead_below": float("nan")}, "dead_below"),
        ({"dead_after": 0}, "dead_after must be at least 1, got 0"),
        ({"dead_below": 0.1, "clamp_log_alpha": True}, "clamp_log_alpha would open again"),
        ({"backend": "cuda"}, "backend must be one of numpy, numba; got 'cuda'"),
    ],
)
def test_settings_of_speed_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**settings)
