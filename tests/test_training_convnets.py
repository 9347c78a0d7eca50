"""Training of convolutional networks: a loop written out, checkpoints, images, lost layers."""

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l0ref import runs, training
from l0ref.augment import draw_crop_and_flip
from l0ref.datasets import Dataset, from_arrays, load
from l0ref.flops import expected_cost, hard_cost, network_cost
from l0ref.layers import Normalize
from l0ref.network import Network
from l0ref.noise import Noise, Stream
from l0ref.optimizers import SGD, Adam
from l0ref.pruning import CompactNetwork, compact
from l0ref.steps import DivergedError
from l0ref.storage import FileError, load_arrays, save_arrays
from l0ref.training import Settings, Trainer
from tests import naive_network as naive
from tests.test_cli import call
from tests.test_training import contents, run

N, CLASSES = 21, 3  # of 27 examples, 6 are tested on
STEPS = 3  # an epoch: 8 + 8 + 5 examples
TINY: dict[str, Any] = {
    "epochs": 2, "batch_size": 8, "lr": 0.02, "gate_lr": 0.8, "average": 0.7, "seed": 5,
    "lam": (0.02,), "dtype": "float64", "backend": "numpy",
}  # fmt: skip
LENET: dict[str, Any] = TINY | {"model": "lenet-5", "lr": 2e-3}
WRN: dict[str, Any] = TINY | {"model": "wrn", "depth": 10, "width": 1}

KINDS: dict[str, dict[str, Any]] = {
    "lenet-5": LENET | {"augment": True, "dropout": 0.3},
    "lenet-5 per example": LENET | {"per_example": True, "l2": 0.2, "activation": "tanh"},
    "wrn": WRN | {"augment": True, "dropout": 0.2, "l2": 0.1},
    "wrn, weight gates, sgd": WRN | {"gates": "weight", "optimizer": "sgd", "lr": 0.01},
    "wrn per example": WRN | {"per_example": True, "lam": (0.1, 0.02, 0.3)},
    "wrn without gates": WRN | {"gates": "none", "augment": True, "dtype": "float32"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)

SHAPES = {"lenet-5": (2, 16, 18), "wrn": (3, 8, 12)}
NORMALISATION = ((0.2, 0.5, 0.4), (0.1, 0.7, 2.0))


def make_data(
    shape: tuple[int, ...],
    *,
    n: int = N + 6,
    seed: int = 0,
    normalisation: Any = None,
) -> Dataset:
    """Make images of noise with one bright row, whose place tells the class."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 0.6, size=(n, *shape)).astype(np.float32)
    y = np.arange(n) % CLASSES
    for image, label in zip(x, y, strict=True):
        image[..., 1 + 2 * label, :] += np.float32(0.4)
    held = n - N if n == N + 6 else n // 4
    data = from_arrays(x[held:], y[held:], x[:held], y[:held], name="rows of light")
    return dataclasses.replace(data, normalisation=normalisation)


DATA = {
    "lenet-5": make_data(SHAPES["lenet-5"]),
    "wrn": make_data(SHAPES["wrn"], normalisation=NORMALISATION),
}


def trainer(kind: str, **changes: Any) -> Trainer:
    settings = Settings(**KINDS[kind] | changes)
    return Trainer(settings, DATA[settings.model])


# Against a loop written out


def augmented(images: Any, seed: int, step: int) -> Any:
    """Shift each image by up to 4 pixels, on black, and flip half of them: pixel by pixel."""
    n, channels, height, width = images.shape
    offsets, flips = draw_crop_and_flip(Noise(seed).generator(Stream.AUGMENT, step=step), n)
    moved = np.zeros_like(images)
    for k in range(n):
        for row in range(height):
            for column in range(width):
                across = width - 1 - column if flips[k] else column
                from_row, from_column = row + offsets[k, 0] - 4, across + offsets[k, 1] - 4
                if 0 <= from_row < height and 0 <= from_column < width:
                    for c in range(channels):
                        moved[k, c, row, column] = images[k, c, from_row, from_column]
    return moved


def drawn(u: Any, log_alpha: Any, settings: Settings) -> Any:
    """Which gates are on under noise u: a number at a time, from Eq. 10 and 11."""
    hyper = {"beta": settings.beta, "gamma": settings.gamma, "zeta": settings.zeta}
    pairs = zip(u.ravel().tolist(), log_alpha.ravel().tolist(), strict=True)
    on = [naive.draw(a, v, math, **hyper) > 0 for v, a in pairs]
    return np.array(on).reshape(log_alpha.shape)


class Replay:
    """The same run without a Trainer: what there was after every step."""

    def __init__(self, settings: Settings, data: Dataset) -> None:
        noise = Noise(settings.seed)
        self.network = network = settings.network(data)
        optimizer: Any = Adam(settings.lr, gate_lr=settings.gate_lr)
        if settings.optimizer == "sgd":
            optimizer = SGD(settings.lr, momentum=settings.momentum, gate_lr=settings.gate_lr)
        lam = settings.lam if settings.gates != "none" else ()
        self.arrays: list[dict[str, Any]] = []  # parameters and running statistics
        self.losses: list[Any] = []
        self.masks: list[list[Any]] = []  # of the gates drawn in each step
        for epoch in range(settings.epochs):
            left = noise.permutation(N, epoch=epoch).tolist()
            while left:
                step = len(self.losses)
                rows, left = left[: settings.batch_size], left[settings.batch_size :]
                x = data.x_train[rows].reshape(-1, *SHAPES[settings.model])
                if settings.augment:
                    x = augmented(x, settings.seed, step)
                x = x.astype(settings.dtype)
                u = {
                    i: noise.uniform(
                        Stream.GATES if network.layers[i].params else Stream.DROPOUT,
                        shape, layer=i, step=step,
                    )
                    for i, shape in network.noise_shapes(x.shape).items()
                }  # fmt: skip
                self.masks.append([
                    drawn(u[i][0] if settings.per_example else u[i],
                          network.params[f"{i}.log_alpha"], settings)
                    for i, _, _ in network.gated
                ])  # fmt: skip
                evaluation = network.evaluate(
                    x, data.y_train[rows], u, lam=lam, l2=settings.l2, n_train=N
                )
                optimizer.step(network.params, evaluation.grads)
                for name, value in evaluation.buffers.items():
                    network.buffers[name][:] = value
                self.losses.append(evaluation.loss)
                both = network.params | network.buffers
                self.arrays.append({n: a.copy() for n, a in both.items()})

    def averaged(self, steps: int, decay: float) -> Network:
        """Return the network at the average over its first steps."""
        so_far = self.arrays[:steps]
        mean = {n: naive.temporal_average([a[n] for a in so_far], decay) for n in so_far[0]}
        buffers = {n: mean.pop(n) for n in self.network.buffers}
        return self.network.with_params(mean, buffers)


def lenet_flops(masks: list[Any], shape: tuple[int, int, int]) -> float:
    """FLOPs of a LeNet-5 by hand: a weight costs 2, with its bias, if both its ends are on."""
    conv1, conv2, dense1, dense2 = (m.astype(int) for m in masks)
    channels, height, width = shape
    h1, w1 = height - 4, width - 4
    h2, w2 = h1 // 2 - 4, w1 // 2 - 4
    per_map = len(dense1) // 50
    read = dense1.reshape(50, per_map).any(axis=1)
    first = 2 * 25 * channels * conv1.sum() * h1 * w1
    second = 2 * 25 * conv1.sum() * (conv2 * read).sum() * h2 * w2
    third = 2 * (dense1 * np.repeat(conv2, per_map)).sum() * dense2.sum()
    return float(first + second + third + 2 * dense2.sum() * CLASSES)


def wrn_flops(masks: list[Any], shape: tuple[int, int, int], network: Network) -> float:
    """FLOPs of a WRN-10-1 by hand: those with all gates open, less what closed maps save.

    A closed map saves the sums of 9 C_in terms that make it, the two operations of its batch norm,
    and a term of 9 weights of every sum that reads it; a sum of no terms at all costs nothing.
    """
    flops = network_cost(network).flops
    h, w = shape[1:]
    for (c_in, maps, stride), mask in zip(
        ((16, 16, 1), (16, 32, 2), (32, 64, 4)), masks, strict=True
    ):
        places, n_open = h // stride * (w // stride), int(mask.sum())
        flops -= (maps - n_open) * (2 * 9 * c_in - 1 + 2) * places
        before, after = 2 * 9 * maps - 1, (2 * 9 * n_open - 1 if n_open else 0)
        flops -= maps * (before - after) * places
    return flops


@every_kind
def test_the_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters, running statistics, losses; and the networks that each epoch evaluates."""
    evaluated: list[Network] = []
    test_error = Trainer.test_error

    def watch(self: Trainer, network: Network) -> float:
        copies = [{n: a.copy() for n, a in d.items()} for d in (network.params, network.buffers)]
        evaluated.append(network.with_params(*copies))
        return test_error(self, network)

    monkeypatch.setattr(Trainer, "test_error", watch)
    one = run(trainer(kind))
    settings, data = one.settings, one.data
    replay = Replay(settings, data)
    assert one.step == one.total_steps == len(replay.losses) == 2 * STEPS
    for name, a in (one.network.params | one.network.buffers).items():
        assert a.dtype == settings.dtype
        np.testing.assert_array_equal(a, replay.arrays[-1][name], err_msg=name)
    history = one.history.arrays()
    per_epoch = np.array(replay.losses).reshape(2, STEPS, 4).mean(axis=1)
    for k, part in enumerate(("loss", "data", "l0", "l2")):
        np.testing.assert_allclose(history[part], per_epoch[:, k], rtol=1e-14, err_msg=part)

    eps = np.finfo(settings.dtype).eps
    x = data.x_test.reshape(-1, *SHAPES[settings.model]).astype(settings.dtype)  # as they are
    for epoch, network in enumerate(evaluated):
        steps = (epoch + 1) * STEPS
        expected = replay.averaged(steps, settings.average)
        both = expected.params | expected.buffers
        for name, a in (network.params | network.buffers).items():
            # A rounding or two an update, of numbers no larger than the largest so far.
            atol = 4 * steps * eps * max(np.abs(p[name]).max() for p in replay.arrays[:steps])
            np.testing.assert_allclose(a, both[name], rtol=0, atol=atol, err_msg=name)
        wrong = network.predict(x).argmax(axis=1) != data.y_test
        assert history["test_error"][epoch] == 100 * np.mean(wrong)
        # Counts from the same gates: the same to the bit.
        assert history["expected_flops"][epoch] == expected_cost(network).flops
        assert history["flops"][epoch] == hard_cost(network).flops
        for k, (i, _, gates) in enumerate(network.gated):
            values = network.params[f"{i}.log_alpha"].ravel().tolist()
            stretch = {"gamma": settings.gamma, "zeta": settings.zeta}
            on = np.array([naive.test_gate(v, **stretch) > 0 for v in values])
            assert history["active"][epoch, k] == on.sum()
            if settings.gates == "unit":
                np.testing.assert_array_equal(history[f"open_{k}"][epoch], on)
            size = network.params[f"{i}.weight"].size + gates.gates_bias * on.size
            hyper = stretch | {"beta": settings.beta}
            l0 = size / on.size * sum(naive.prob_on(v, **hyper) for v in values)
            np.testing.assert_allclose(
                history["expected_l0"][epoch, k], l0, rtol=100 * np.finfo(settings.dtype).eps
            )
    assert len(evaluated) == 2
    if settings.gates == "unit":  # or else the hard costs show nothing
        assert hard_cost(one.network).flops != history["flops"][-1] != network_cost(network).flops


@every_kind
def test_sampled_flops_are_of_the_gates_that_were_drawn(kind: str) -> None:
    one = run(trainer(kind))
    settings, shape = one.settings, SHAPES[one.settings.model]
    masks = Replay(settings, one.data).masks
    if settings.gates == "unit" and settings.model == "lenet-5":
        flops = [lenet_flops(step, shape) for step in masks]
    elif settings.gates == "unit":
        flops = [wrn_flops(step, shape, one.network) for step in masks]
    else:
        flops = [network_cost(one.network, step).flops for step in masks]
    history = one.history.arrays()
    # Sums of three counts, divided by three.
    expected = np.array(flops).reshape(2, STEPS).mean(axis=1)
    np.testing.assert_allclose(history["sampled_flops"], expected, rtol=1e-15)
    whole = network_cost(one.network).flops
    if settings.gates == "none":
        assert set(flops) == {whole}
        for name in ("sampled_flops", "expected_flops", "flops"):
            np.testing.assert_allclose(history[name], whole, rtol=1e-15)
    else:
        assert len(set(flops)) > 1  # or else this test shows nothing
        for name in ("sampled_flops", "expected_flops"):
            assert (history[name] < whole).all()


@pytest.mark.parametrize("kind", ["wrn", "wrn without gates"])
def test_running_statistics_are_averaged_and_evaluated(kind: str) -> None:
    """Neither the latest statistics nor the initial ones: the outputs tell them apart."""
    one = run(trainer(kind))
    replay = Replay(one.settings, one.data)
    x = one.inputs(one.data.x_test)
    logits = one.averaged().predict(x)
    mean = replay.averaged(2 * STEPS, one.settings.average)
    # Twenty layers of sums of up to 600 terms, of parameters averaged over 6 steps.
    atol = 2000 * np.finfo(one.settings.dtype).eps * np.abs(logits).max()
    np.testing.assert_allclose(logits, mean.predict(x), rtol=0, atol=atol)
    fresh = one.settings.network(one.data).buffers
    for others in (one.network.buffers, fresh):
        other = one.averaged().with_params(one.averaged().params, others).predict(x)
        assert np.abs(other - logits).max() > max(1e-2 * np.abs(logits).max(), 10 * atol)
    for name, a in one.network.buffers.items():
        assert (a != fresh[name]).all(), name


@pytest.mark.parametrize("model", ["lenet-5", "wrn"])
def test_loss_falls(model: str) -> None:
    options = {"lam": (0.0,), "epochs": 12, "dtype": "float32", "average": 0.5}
    settings = Settings(**(LENET if model == "lenet-5" else WRN) | options)
    one = run(Trainer(settings, make_data(SHAPES[model], n=80)))
    data = one.history.arrays()["data"]
    assert data[-1] < 0.5 * data[0]
    assert one.history.last("test_error") < 40  # 67 is chance
    assert set(one.network.params) == set(one.averaged().params)


# Checkpoints


def resumed(one: Trainer, path: Path, **options: Any) -> Trainer:
    one.save(path)
    settings = one.settings
    normalisation = NORMALISATION if settings.model == "wrn" else None
    data = make_data(SHAPES[settings.model], normalisation=normalisation)
    return Trainer.load(path, data, **options)


@every_kind
@pytest.mark.parametrize("at", [0, STEPS - 1, STEPS, STEPS + 1])
def test_a_run_resumed_is_one_never_stopped(tmp_path: Path, kind: str, at: int) -> None:
    path = tmp_path / "checkpoint.npz"
    whole = run(trainer(kind))
    stopped = run(trainer(kind), at)
    again = resumed(stopped, path)
    assert again.settings == stopped.settings
    assert contents(again) == contents(stopped)
    assert contents(run(again)) == contents(whole)
    assert contents(run(stopped)) == contents(whole)  # saving and loading left it alone
    assert any(name.startswith("buffers") for name in contents(whole)) == kind.startswith("wrn")


@pytest.mark.parametrize("kind", ["lenet-5", "wrn"])
def test_stopped_after_every_step(tmp_path: Path, kind: str) -> None:
    one = trainer(kind)
    while not one.done:
        one = resumed(run(one, 1), tmp_path / "checkpoint.npz")
    assert contents(one) == contents(run(trainer(kind)))


def test_a_loaded_run_is_over_arrays_of_its_own(tmp_path: Path) -> None:
    """Two runs from one checkpoint do not move each other's running statistics."""
    path = tmp_path / "checkpoint.npz"
    first = resumed(run(trainer("wrn"), 2), path)
    second = Trainer.load(path, DATA["wrn"])
    before = contents(second)
    run(first)
    assert contents(second) == before


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize("lost", ["all", "one", "renamed", "shape"])
def test_a_checkpoint_without_its_buffers_is_refused(
    tmp_path: Path, lost: str, forged: bool
) -> None:
    """Even if the list of its arrays were changed to fit: no fresh statistics in place of lost."""
    path = tmp_path / "checkpoint.npz"
    run(trainer("wrn"), STEPS + 1).save(path)
    arrays = load_arrays(path)
    names = [name for name in arrays if name.startswith("buffers:")]
    # Before each block two batch norms, and one at the end, of a mean and a variance each.
    assert len(names) == 2 * (3 * 2 + 1)
    for name in names if lost == "all" else names[3:4]:
        a = arrays.pop(name)
        if lost == "renamed":
            arrays[f"{name}_"] = a
        elif lost == "shape":
            arrays[name] = np.concatenate([a, a])
    if forged:
        about = json.loads(str(arrays["about"]))
        about["shapes"] = {n: list(a.shape) for n, a in arrays.items() if n != "about"}
        arrays["about"] = np.array(json.dumps(about))
    save_arrays(path, arrays)
    says = "does not fit its own settings .*buffers" if forged else "does not hold the arrays"
    with pytest.raises(FileError, match=rf"{re.escape(str(path))}: {says}"):
        Trainer.load(path, DATA["wrn"])


def test_a_checkpoint_of_the_format_before_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    trainer("wrn").save(path)
    arrays = load_arrays(path)
    about = json.loads(str(arrays["about"])) | {"format": "l0ref checkpoint 1"}
    save_arrays(path, arrays | {"about": np.array(json.dumps(about))})
    with pytest.raises(FileError, match="not a checkpoint but 'l0ref checkpoint 1'"):
        Trainer.load(path, DATA["wrn"])


def test_a_checkpoint_of_other_normalisation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    trainer("wrn").save(path)
    with pytest.raises(FileError, match="run on other data"):
        Trainer.load(path, make_data(SHAPES["wrn"]))


@pytest.mark.parametrize("kind", ["lenet-5", "wrn"])
def test_a_gradient_that_is_no_number_stops_the_run(kind: str) -> None:
    """A loss that is finite does not make it so; parameters, statistics and sums stay."""
    one = run(trainer(kind), STEPS + 1)
    evaluate = one.network.evaluate
    bad = [name for name in one.network.params if name.endswith("weight")][2]

    def spoilt(*arguments: Any, **options: Any) -> Any:
        evaluation = evaluate(*arguments, **options)
        grads = {n: g.copy() for n, g in evaluation.grads.items()}
        grads[bad].flat[1] = np.inf
        return evaluation._replace(grads=grads)

    before = contents(one)
    one.network.evaluate = spoilt  # type: ignore[method-assign]
    says = rf"the gradient of {re.escape(bad)} is not finite at step {STEPS + 1}: nothing was"
    with pytest.raises(DivergedError, match=says):
        one.advance()
    del one.network.evaluate
    assert contents(one) == before
    assert contents(run(one)) == contents(run(trainer(kind)))


# Augmentation


class Seen:
    """What augmentation was asked to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.draws: list[tuple[bytes, bytes]] = []
        crop_and_flip = training.crop_and_flip

        def watch(images: Any, offsets: Any, flips: Any) -> Any:
            if len(images) > 1:
                self.draws.append((offsets.tobytes(), flips.tobytes()))
            return crop_and_flip(images, offsets, flips)

        monkeypatch.setattr(training, "crop_and_flip", watch)

    def of(self, one: Trainer, steps: int | None = None) -> list[tuple[bytes, bytes]]:
        self.draws.clear()
        run(one, steps)
        return list(self.draws)


def test_augmentation_is_drawn_from_seed_and_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch)
    draws = seen.of(trainer("wrn", epochs=3))
    assert len(set(draws)) == len(draws) == 3 * STEPS
    for other in (
        trainer("lenet-5", epochs=3),  # another model, other images
        trainer("wrn", epochs=3, gates="none", dropout=0.0, lam=(0.7,), lr=0.001, average=0.1),
        trainer("wrn", epochs=3, width=2, dtype="float32"),
    ):
        assert seen.of(other) == draws
    again = resumed(run(trainer("wrn", epochs=3), STEPS + 1), tmp_path / "checkpoint.npz")
    assert seen.of(again) == draws[STEPS + 1 :]
    assert not set(seen.of(trainer("wrn", epochs=3, seed=6))) & set(draws)


def test_augmentation_is_off_by_default_and_then_nothing_is_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().augment is False
    seen = Seen(monkeypatch)
    assert seen.of(trainer("wrn", augment=False)) == []
    with_, without = run(trainer("wrn"), 1), run(trainer("wrn", augment=False), 1)
    assert contents(with_) != contents(without)


def test_augmentation_moves_a_copy_and_never_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained on is not the data, what was tested on is, and the data is unchanged."""
    data = make_data(SHAPES["wrn"])
    before = data.fingerprint()
    one = Trainer(Settings(**KINDS["wrn"]), data)
    trained: list[Any] = []
    evaluate = one.network.evaluate

    def watch(x: Any, *arguments: Any, **options: Any) -> Any:
        trained.append(x.copy())
        return evaluate(x, *arguments, **options)

    tested: list[Any] = []
    predict = Network.predict

    def watch_predict(self: Network, x: Any, **options: Any) -> Any:
        tested.append(x.copy())
        return predict(self, x, **options)

    monkeypatch.setattr(one.network, "evaluate", watch)
    monkeypatch.setattr(Network, "predict", watch_predict)
    run(one)
    assert data.fingerprint() == before
    rows = {row.astype(np.float64).tobytes() for row in data.x_train}
    moved = [image.tobytes() not in rows for x in trained for image in x]
    # Unmoved is 1 in 9 * 9 * 2 = 162, of 42 images.
    assert len(moved) == 2 * N
    assert sum(moved) > 2 * N - 6
    assert len(tested) == 2
    for x in tested:
        assert x.shape == (6, *SHAPES["wrn"])
        np.testing.assert_array_equal(x.reshape(6, -1), data.x_test)


def test_a_dense_network_on_images_of_one_channel_is_augmented_too() -> None:
    data = make_data((8, 12))
    settings = Settings(**TINY | {"model": "mlp", "hidden": (4,), "batch_size": N, "epochs": 1})
    one = Trainer(dataclasses.replace(settings, augment=True), data)
    seen: list[Any] = []
    evaluate = one.network.evaluate

    def watch(x: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(x.copy())
        return evaluate(x, *arguments, **options)

    one.network.evaluate = watch  # type: ignore[method-assign]
    run(one)
    rows = Noise(TINY["seed"]).permutation(N, epoch=0)
    images = data.x_train[rows].reshape(N, 1, 8, 12)
    expected = augmented(images, TINY["seed"], 0).reshape(N, -1)
    np.testing.assert_array_equal(seen[0], expected.astype(np.float64))


# Normalisation


@pytest.mark.parametrize("model", ["lenet-5", "wrn"])
def test_the_network_normalises_as_the_data_says(model: str, tmp_path: Path) -> None:
    """Raw images in, the outputs of a network without that layer on (x - mean) / std."""
    shape = (3, 16, 20)
    mean, std = (np.array(v).reshape(3, 1, 1) for v in NORMALISATION)
    settings = Settings(**(LENET if model == "lenet-5" else WRN) | {"epochs": 1})
    one = run(Trainer(settings, make_data(shape, normalisation=NORMALISATION)))
    network = one.averaged()
    first = network.layers[0]
    assert isinstance(first, Normalize)
    np.testing.assert_array_equal((first.mean, first.std), NORMALISATION)

    plain = settings.network(make_data(shape))
    assert not any(isinstance(layer, Normalize) for layer in plain.layers)
    back_by_one = [
        {f"{int(name.split('.')[0]) - 1}.{name.split('.')[1]}": a for name, a in arrays.items()}
        for arrays in (network.params, network.buffers)
    ]
    x = one.inputs(one.data.x_test)
    expected = plain.with_params(*back_by_one).predict((x - mean) / std)
    logits = network.predict(x)
    # Twenty layers of sums of up to 800 terms.
    atol = 1e4 * np.finfo(np.float64).eps * np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=atol)

    compact(network).save(tmp_path / "network.npz")
    small = CompactNetwork.load(tmp_path / "network.npz").predict(x)
    np.testing.assert_allclose(small, expected, rtol=0, atol=atol)


# Bad input


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((9,), LENET, r"model lenet-5 takes images; .* examples of shape \(9,\)"),
        ((9,), WRN, r"model wrn takes images; .* examples of shape \(9,\)"),
        ((2, 3, 8, 8), WRN, r"model wrn takes images; .* shape \(2, 3, 8, 8\)"),
        ((1, 15, 40), LENET, r"kernel|image_shape"),
        ((1, 40, 15), LENET, r"kernel|image_shape"),
        ((1, 4, 4), LENET, r"kernel|image_shape"),
        ((3, 30, 30), WRN, r"H and W divisible by 4, got \(3, 30, 30\)"),
        ((3, 8, 10), WRN, r"H and W divisible by 4, got \(3, 8, 10\)"),
        ((3, 8, 12), WRN | {"depth": 11}, r"depth must be 6 n \+ 4 .*got 11"),
        ((3, 8, 12), WRN | {"depth": 4}, r"depth must be .*got 4"),
        ((3, 8, 12), WRN | {"depth": -2}, r"depth must be .*got -2"),
        ((3, 8, 12), WRN | {"width": 0}, r"width must be at least 1, got 0"),
        ((3, 8, 12), WRN | {"activation": "tanh"}, r"activation of model wrn .*got 'tanh'"),
        ((3, 8, 12), WRN | {"lam": (1.0, 2.0)}, r"lam must have 1 value or .*\(3\), got 2"),
        ((3, 8, 12), WRN | {"drop_rates": (0.1,) * 4}, r"drop_rates must .*\(3\), got"),
        ((1, 16, 16), LENET | {"lam": (1.0,) * 3}, r"lam must have 1 value or .*\(4\), got 3"),
        ((1, 16, 16), LENET | {"gates": "input"}, r"gates must be one of .*got 'input'"),
        ((9,), {"model": "mlp", "augment": True}, r"augment takes images; .* shape \(9,\)"),
        ((3, 4, 8), WRN | {"augment": True}, r"pad must be in 0 .. 3 for images of 4 x 8"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_step(
    shape: tuple[int, ...], changes: dict[str, Any], message: str
) -> None:
    x = np.random.default_rng(0).uniform(size=(24, *shape))
    with pytest.raises(ValueError, match=message):
        Trainer(Settings(**changes), from_arrays(x, np.arange(24) % CLASSES))


def test_the_smallest_images_that_fit() -> None:
    for shape, changes in (((16, 17), LENET), ((1, 16, 16), LENET), ((4, 8), WRN)):
        x = np.random.default_rng(0).uniform(size=(24, *shape))
        one = run(Trainer(Settings(**changes), from_arrays(x, np.arange(24) % CLASSES)), 1)
        assert one.network.input_shape == ((1, *shape) if len(shape) == 2 else shape)


def test_batches_of_one_image() -> None:
    """Batch norm takes its mean over an image's pixels; of a single pixel there is none to take."""
    one = run(trainer("wrn", batch_size=1, epochs=1))
    assert one.step == N
    assert np.isfinite(one.history.last("loss"))
    x = np.random.default_rng(0).uniform(size=(24, 3, 4, 4))
    data = from_arrays(x, np.arange(24) % CLASSES)
    alone = Trainer(Settings(**WRN | {"batch_size": 1}), data)
    with pytest.raises(ValueError, match=r"at least two values per channel.*\(1, 64, 1, 1\)"):
        run(alone, 1)
    assert alone.step == 0


# Through the command


def words(text: str) -> str:
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Files of images for each model, in folders of their own."""
    (tmp_path / "data").mkdir()
    paths = {}
    for model, shape in SHAPES.items():
        data = make_data(shape, n=60)
        paths[model] = tmp_path / "data" / f"{model}.npz"
        X = np.concatenate([data.x_train, data.x_test]).reshape(-1, *shape)
        np.savez(paths[model], X=X, y=np.concatenate([data.y_train, data.y_test]))
    return paths


def options(model: str) -> list[str]:
    size = ["--depth", "10", "--width", "1"] if model == "wrn" else []
    return ["--model", model, *size, "--batch-size", "20", "--seed", "3"]


def bits(folder: Path) -> dict[str, Any]:
    """Everything in a run's folder that does not tell the time, as bytes."""
    result = json.loads((folder / runs.RESULT).read_text())
    del result["seconds"], result["forward_seconds"]
    checkpoint = load_arrays(folder / runs.CHECKPOINT)
    about = json.loads(str(checkpoint.pop("about")))
    del about["seconds"]
    arrays = {f"checkpoint {n}": a for n, a in checkpoint.items()}
    for name in (runs.HISTORY, runs.NETWORK):
        arrays |= {f"{name} {n}": a for n, a in load_arrays(folder / name).items()}
    return {"result": result, "about": about} | {
        n: (a.dtype.str, a.shape, a.tobytes()) for n, a in arrays.items()
    }


@pytest.mark.parametrize("model", ["lenet-5", "wrn"])
def test_a_run_leaves_everything_that_it_promises(
    model: str, images: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    how = [*options(model), "--epochs", "8", "--augment", "--lam", "0.0001", "--lr", "0.005"]
    how += ["--gate-lr", "0.2", "--average", "0.5"]
    assert call("train", "--data", images[model], *how, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "Units left" in printed
    result = runs.load_result(out)
    names = {"lenet-5": ["conv 1", "conv 2", "dense 1", "dense 2"],
             "wrn": ["block 1", "block 2", "block 3"]}[model]  # fmt: skip
    assert result["layers"] == names
    for name in names:
        assert name in printed
    # 16 x 18 leaves a single place of each of the 50 maps behind the second pooling.
    dense = {"lenet-5": [20, 50, 50, 500], "wrn": [16, 32, 64]}[model]
    assert result["architecture_dense"] == dense
    assert (result["model"], result["seed"], result["epochs"]) == (model, 3, 8)
    assert result["constant"] is False

    again = runs.resume(out)
    network = again.averaged()
    cost = network_cost(network)
    assert (result["params_dense"], result["flops_dense"]) == (cost.params, cost.flops)
    weights = [n for n in network.params if n.endswith("weight")]
    convs_and_dense = [n for n in weights if network.params[n].ndim > 1]
    assert result["weights_dense"] == sum(network.params[n].size for n in convs_and_dense)
    # As `runs.finish` has it: the other backend adds up in another order.
    small = CompactNetwork.load(out / runs.NETWORK).with_backend(again.settings.backend)
    assert small.architecture == result["architecture"]
    assert all(0 < n <= m for n, m in zip(result["architecture"], dense, strict=True))
    assert sum(result["architecture"]) < sum(dense)
    assert (result["params"], result["flops"]) == (small.n_params, small.flops)
    logits, gated = (n.predict(again.inputs(again.data.x_test)) for n in (small, network))
    assert result["max_difference"] == np.abs(logits - gated).max()
    # Sums of hundreds of float32 terms in another order, through up to twenty layers.
    assert result["max_difference"] <= 500 * np.finfo(np.float32).eps * np.abs(gated).max()
    wrong = logits.argmax(axis=1) != again.data.y_test
    assert result["test_error"] == 100 * np.mean(wrong)
    history = load_arrays(out / runs.HISTORY)
    assert history["loss"][-1] < history["loss"][0]
    assert history["active"].shape == (8, len(dense))
    assert history["expected_flops"][-1] == expected_cost(network).flops
    assert history["flops"][-1] == hard_cost(network).flops
    assert (out / "active_units.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("model", ["lenet-5", "wrn"])
def test_a_killed_run_resumes_to_the_same_bits(
    model: str, images: dict[str, Path], tmp_path: Path
) -> None:
    how = [*options(model), "--epochs", "25", "--augment", "--dropout", "0.3"]
    how += ["--data", str(images[model])]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-c", "from l0ref.cli import main; main()"]
    process = subprocess.Popen(
        [*command, "train", *how, "--out", str(killed)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (killed / runs.CHECKPOINT).exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / runs.RESULT).exists()
    stopped_at = runs.resume(killed).step
    assert 0 < stopped_at < 25 * 3
    assert call("train", "--resume", killed) == 0
    assert call("train", *how, "--out", whole) == 0
    assert bits(killed) == bits(whole)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--depth", "10"), r"--depth and --width go with --model wrn"),
        (("--model", "lenet-5", "--width", "2"), r"--depth and --width go with --model wrn"),
        (("--model", "wrn", "--hidden", "5"), r"--hidden goes with --model mlp"),
        (("--model", "wrn", "--depth", "11"), r"depth must be 6 n \+ 4 .*got 11"),
        (("--model", "wrn", "--width", "0"), r"width must be at least 1, got 0"),
        (("--model", "wrn", "--activation", "tanh"), r"activation of model wrn"),
        (("--model", "resnet"), r"resnet.*lenet-300-100.*lenet-5.*wrn"),
        (("--data", "cifar10"), r"'cifar10' needs data_dir"),
        (("--data", "cifar100", "--model", "wrn"), r"'cifar100' needs data_dir"),
        (("--data", "cifar10", "--data-dir", "nowhere"), r"nowhere"),
        (("--data", "rows.npz", "--model", "lenet-5"), r"lenet-5 takes images.*shape \(7,\)"),
        (("--data", "rows.npz", "--model", "wrn"), r"wrn takes images.*shape \(7,\)"),
        (("--data", "rows.npz", "--model", "mlp", "--augment"), r"augment takes images"),
        (("--data", "thin.npz", "--model", "lenet-5"), r"kernel|image_shape"),
        (("--data", "thin.npz", "--model", "wrn", "--augment"), r"pad must be in 0 .. 3"),
        (("--data", "odd.npz", "--model", "wrn"), r"divisible by 4, got \(3, 30, 30\)"),
    ],
)
def test_a_mistake_is_one_clear_error_and_leaves_no_folder(
    arguments: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, shape in (("rows", (7,)), ("thin", (4, 8)), ("odd", (3, 30, 30))):
        np.savez(tmp_path / f"{name}.npz", X=rng.uniform(size=(30, *shape)), y=np.arange(30) % 3)
    before = sorted(tmp_path.iterdir())
    assert call("train", *arguments) == 2
    captured = capsys.readouterr()
    text = words(captured.err + captured.out)
    assert re.search(says, text), text
    assert "Traceback" not in text
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("fault", ["cut", "label", "missing", "empty"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_damaged_cifar_file_is_one_clear_error(
    name: str,
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar"
    folder.mkdir()
    record = {"cifar10": bytes(3073), "cifar100": bytes(3074)}[name]
    files = {
        "cifar10": [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"],
        "cifar100": ["train.bin", "test.bin"],
    }[name]
    for file in files:
        (folder / file).write_bytes(4 * record)
    broken = folder / files[-1]
    content = {"cut": 3 * record + record[:-100], "label": b"\xff" + (4 * record)[1:], "empty": b""}
    if fault == "missing":
        broken.unlink()
    else:
        broken.write_bytes(content[fault])
    wrn = ("--model", "wrn", "--depth", "10", "--width", "1")
    assert call("train", "--data", name, "--data-dir", folder, *wrn) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    assert files[-1] in error
    assert [path.name for path in tmp_path.iterdir()] == ["cifar"]


def test_cifar_files_train_a_wrn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the bytes of a file to a result; the network normalises by the set's constants."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        labels = np.stack([rng.integers(0, 20, 8), rng.integers(0, 100, 8)], axis=1)
        pixels = rng.integers(0, 256, size=(8, 3072))
        (tmp_path / f"{part}.bin").write_bytes(
            np.concatenate([labels, pixels], axis=1).astype(np.uint8).tobytes()
        )
    how = ("--model", "wrn", "--depth", "10", "--width", "1", "--epochs", "1", "--augment")
    assert call("train", "--data", "cifar100", "--data-dir", ".", *how, "--out", "run") == 0
    one = runs.resume(Path("run"))
    assert isinstance(one.network.layers[0], Normalize)
    assert one.network.input_shape == (3, 32, 32)
    assert one.network.predict(one.inputs(one.data.x_test)).shape == (8, 100)
    assert runs.load_result(Path("run"))["data"] == "cifar100"


# Layers that have lost everything


def closing(*lam: float) -> list[str]:
    return ["--epochs", "8", "--gate-lr", "1", "--average", "0.3", "--lam", *map(str, lam)]


@pytest.mark.parametrize("lam", [(1e4,), (0.0, 1e4, 0.0, 0.0)])
def test_a_lenet_that_lost_a_layer_is_a_constant_and_says_so(
    lam: tuple[float, ...],
    images: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    how = ["--data", images["lenet-5"], *options("lenet-5"), *closing(*lam)]
    assert call("train", *how, "--out", out) == 0
    says = (
        "Every unit is lost in conv 1, conv 2, dense 1, dense 2: the network is a constant and "
        "reads no input."
    )
    assert says in words(capsys.readouterr().out)
    result = runs.load_result(out)
    assert result["constant"] is True
    assert result["architecture"] == [0, 0, 0, 0]
    assert result["weights"] == 0
    closed = load_arrays(out / runs.HISTORY)["active"][-1] == 0
    assert closed.tolist() == ([True] * 4 if len(lam) == 1 else [False, True, False, False])
    small = CompactNetwork.load(out / runs.NETWORK)
    one = runs.resume(out)
    x = one.inputs(one.data.x_test)
    logits = small.predict(x)
    assert (logits == logits[0]).all()
    gated = one.averaged().predict(x)
    # Sums of up to 500 float32 terms in another order, four layers deep.
    atol = 500 * np.finfo(np.float32).eps * np.abs(gated).max()
    np.testing.assert_allclose(logits, gated, rtol=0, atol=atol)
    assert call("report", out) == 0
    assert says in words(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("lam", "lost"),
    [((0.0, 1e4, 0.0), "block 2"), ((1e4,), "block 1, block 2, block 3")],
)
def test_a_wrn_that_lost_a_block_is_no_constant(
    lam: tuple[float, ...],
    lost: str,
    images: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The sum goes on by the skip connection: the outputs still depend on the input."""
    out = tmp_path / "run"
    how = ["--data", images["wrn"], *options("wrn"), *closing(*lam)]
    assert call("train", *how, "--out", out) == 0
    says = f"Every unit is lost in {lost}: what comes from there is a constant."
    printed = words(capsys.readouterr().out)
    assert says in printed
    assert "the network is a constant" not in printed
    result = runs.load_result(out)
    assert result["constant"] is False
    left = result["architecture"]
    names = zip(result["layers"], left, strict=True)
    assert ", ".join(name for name, n in names if n == 0) == lost
    one = runs.resume(out)
    x = one.inputs(one.data.x_test)
    logits = CompactNetwork.load(out / runs.NETWORK).predict(x)
    assert (logits != logits[0]).any()
    gated = one.averaged().predict(x)
    atol = 500 * np.finfo(np.float32).eps * np.abs(gated).max()
    np.testing.assert_allclose(logits, gated, rtol=0, atol=atol)
    assert call("report", out) == 0
    assert says in words(capsys.readouterr().out)


def test_a_network_that_lost_nothing_is_not_said_to_have(
    images: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--data", images["wrn"], *options("wrn"), "--epochs", "1"]
    assert call("train", *how, "--out", tmp_path / "run") == 0
    assert "is lost" not in words(capsys.readouterr().out)


# Long enough to learn something


def part_of(data: Dataset, n_train: int, n_test: int) -> Dataset:
    return dataclasses.replace(
        data,
        x_train=data.x_train[:n_train], y_train=data.y_train[:n_train],
        x_test=data.x_test[:n_test], y_test=data.y_test[:n_test],
    )  # fmt: skip


def same_outputs(one: Trainer) -> CompactNetwork:
    network = one.averaged()
    small, x = compact(network), one.inputs(one.data.x_test)
    gated, logits = network.predict(x), small.predict(x)
    # Sums of hundreds of float32 terms in another order, through up to twenty layers.
    atol = 100 * np.finfo(np.float32).eps * np.abs(gated).max()
    np.testing.assert_allclose(logits, gated, rtol=0, atol=atol)
    wrong = 100 * np.mean(logits.argmax(axis=1) != one.data.y_test)
    assert abs(wrong - one.history.last("test_error")) <= 100 / len(x)  # a tie at the most
    return small


@pytest.mark.slow
def test_a_lenet_learns_digits_and_loses_maps() -> None:
    """Five short epochs on 6,000 digits: 12.4 % of 1,000 wrong, 17 and 34 maps left of 20 and 50.

    The bound leaves seven standard errors of that share; 90 % is chance. A map owns few weights,
    each used at many places, and closes at a larger lambda than a unit.
    """
    settings = Settings(
        model="lenet-5", epochs=5, gate_lr=0.02, lam=(2.0, 0.2, 0.05, 0.05), average=0.98
    )
    one = run(Trainer(settings, part_of(load("mnist-sample"), 6000, 1000)))
    assert one.history.last("test_error") <= 20
    small = same_outputs(one)
    assert all(0 < n < m for n, m in zip(small.architecture, (20, 50, 800, 500), strict=True))
    assert small.flops < 0.8 * network_cost(one.network).flops


@pytest.mark.slow
def test_a_wrn_learns_digits() -> None:
    """Seven epochs on 1,000 digits as 32x32 colour images: 9.2 % of 500 wrong; 90 % is chance.

    The bound leaves twelve standard errors of that share. The gates start almost surely open: what
    the batch norm behind a gated convolution has averaged over gates that come and go does not fit
    the test-time gates, and an error under it says little.
    """
    settings = Settings(
        model="wrn", depth=10, width=1, epochs=7, batch_size=25, gate_lr=0.02, lam=(0.0,),
        drop_rates=(0.02,), average=0.9,
    )  # fmt: skip
    one = run(Trainer(settings, part_of(load("mnist-sample-32"), 1000, 500)))
    assert one.history.last("test_error") <= 25
    same_outputs(one)
    # Close all maps of a block but five: the outputs change, and those of the small network too.
    log_alpha = one.average.params[f"{one.network.gated[1][0]}.log_alpha"]
    log_alpha[np.arange(32) % 7 != 2] = -9
    one.history.append({"test_error": one.test_error(one.averaged())})
    small = same_outputs(one)
    assert small.architecture == [16, 5, 64]
