"""The command as a person meets it: what it writes, what it says, and that nothing is lost."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from l0ref import cli, runs
from l0ref.pruning import CompactNetwork
from l0ref.training import Trainer

TINY = ("--model", "mlp", "--hidden", "6", "--epochs", "3", "--batch-size", "20")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    y = np.arange(120) % 3
    X = np.clip(rng.random((120, 7)) * 0.5 + 0.4 * (np.arange(7) % 3 == y[:, None]), 0, 1)
    np.savez(tmp_path / "blobs.npz", X=X, y=y)
    return tmp_path / "blobs.npz"


def call(*arguments: str | Path) -> int:
    """Run the command in this process and return its exit status."""
    before, sys.argv = sys.argv, ["l0ref", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    finally:
        sys.argv = before
    return int(exit_.value.code or 0)


def untimed(folder: Path) -> bytes:
    result = json.loads((folder / runs.RESULT).read_text())
    del result["seconds"], result["forward_seconds"]
    return json.dumps(result).encode()


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from l0ref.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[1]
    )


def wait_for(path: Path, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline, f"{path} never came"
        os.sched_yield()


def test_a_run_leaves_everything_that_it_promises(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert call("train", "--data", data, *TINY, "--lam", "0.5", "0.1", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "Units left" in printed
    assert "test error" in printed
    result = json.loads((out / runs.RESULT).read_text())
    design = "model data seed epochs architecture test_error params params_dense flops flops_dense"
    assert {*design.split(), "seconds"} <= result.keys()
    assert result["params_dense"] == 8 * 6 + 7 * 3
    assert result["flops_dense"] == 2 * (7 * 6 + 6 * 3)
    assert result["lam"] == [0.5, 0.1]
    network = CompactNetwork.load(out / runs.NETWORK)
    assert network.architecture == result["architecture"]
    assert network.n_params == result["params"]
    with np.load(out / runs.HISTORY) as history:
        assert history["loss"].shape == (3,)
        np.testing.assert_allclose(
            history["loss"], history["data"] + history["l0"] + history["l2"], rtol=1e-12
        )
    assert (out / "active_units.png").read_bytes().startswith(b"\x89PNG")
    assert result["test_error"] == result["test_error_gated"]
    assert not list(out.glob(".*.part"))


def test_report_repeats_the_result(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("train", "--data", data, *TINY, "--out", tmp_path / "run")
    trained = capsys.readouterr().out
    assert call("report", tmp_path / "run") == 0
    reported = capsys.readouterr().out
    assert reported.splitlines()[:7] == trained[trained.index("Units left") :].splitlines()[:7]


@pytest.mark.parametrize("gates", ["weight", "none"])
def test_other_gates(data: Path, tmp_path: Path, gates: str) -> None:
    assert call("train", "--data", data, *TINY, "--gates", gates, "--out", tmp_path / "run") == 0


def test_a_finished_run_is_not_overwritten(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", "--data", data, *TINY, "--out", tmp_path / "run")
    call(*arguments)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    capsys.readouterr()
    assert call(*arguments) == 2
    assert "has a run already" in capsys.readouterr().err
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--zeta", "1"), r"zeta must be above 1.*got 1\.0"),
        (("--gamma", "0"), r"gamma must be negative.*got 0\.0"),
        (("--beta", "0"), r"beta must be positive.*got 0\.0"),
        (("--lam", "-1"), r"lam must be at least 0.*got -1\.0"),
        (("--lam", "1", "2", "3", "4"), r"lam must have 1 value or one a gated layer \(3\), got 4"),
        (("--l2", "-1"), r"l2 must be at least 0.*got -1\.0"),
        (("--drop-rates", "0.2", "1"), r"drop_rate must lie strictly between 0 and 1, got 1\.0"),
        (("--epochs", "0"), r"epochs must be at least 1, got 0"),
        (("--batch-size", "0"), r"batch_size must be at least 1, got 0"),
        (("--lr", "0"), r"lr must be positive"),
        (("--average", "1"), r"decay must be in \[0, 1\), got 1"),
        (("--seed", "-1"), r"seed must be in"),
        (("--data", "cats"), r"data must be .*got 'cats'"),
        (("--data", "no.npz"), r"no\.npz"),
        (("--data", "mnist"), r"needs data_dir"),
        (("--data-dir", "nowhere"), r"nowhere"),
        (("--hidden", "5"), r"--hidden goes with --model mlp"),
        (("--gates", "both"), r"both.*unit"),
        (("--epohcs", "3"), r"--epohcs.*--epochs"),
        (("--resume", "nowhere"), r"nowhere.*no such file"),
        (("--resume", "x", "--lam", "1"), r"--lam"),
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
    assert call("train", *arguments) == 2
    captured = capsys.readouterr()
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", captured.err + captured.out).split())
    assert re.search(says, text), text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_resumes_to_the_same_result(data: Path, tmp_path: Path) -> None:
    options = ("--data", data, *TINY[:-4], "--epochs", "150", "--batch-size", "20")
    assert call("train", *options, "--out", tmp_path / "whole") == 0
    process = start("train", *options, "--out", tmp_path / "killed")
    wait_for(tmp_path / "killed" / runs.CHECKPOINT, process)
    process.kill()
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "killed" / runs.RESULT).exists()
    assert call("train", "--resume", tmp_path / "killed") == 0
    assert untimed(tmp_path / "killed") == untimed(tmp_path / "whole")


def test_ctrl_c_saves_and_says_how_to_resume(data: Path, tmp_path: Path) -> None:
    options = ("--data", data, *TINY[:-4], "--epochs", "100000", "--batch-size", "20")
    process = start("train", *options, "--out", tmp_path / "run")
    wait_for(tmp_path / "run" / runs.CHECKPOINT, process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130
    assert "l0ref train --resume" in output
    resumed = runs.resume(tmp_path / "run")
    assert 0 < resumed.step < resumed.total_steps
    assert call("report", tmp_path / "run") == 0


@pytest.mark.parametrize("name", [runs.RUN, runs.CHECKPOINT])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_damaged_file_is_named_and_kept(
    data: Path, tmp_path: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call("train", "--data", data, *TINY, "--out", tmp_path / "run")
    path = tmp_path / "run" / name
    whole = path.read_bytes()
    broken = {"truncated": whole[: len(whole) // 2], "garbage": b"\x00garbage" * 9, "empty": b""}
    path.write_bytes(broken[damage])
    capsys.readouterr()
    assert call("train", "--resume", tmp_path / "run", "--epochs", "5") == 2
    assert name in "".join(capsys.readouterr().err.split())
    assert path.read_bytes() == broken[damage]


def test_resuming_with_more_epochs_is_one_longer_run(data: Path, tmp_path: Path) -> None:
    longer = [*TINY[:5], "5", *TINY[6:]]
    call("train", "--data", data, *longer, "--out", tmp_path / "whole")
    call("train", "--data", data, *TINY, "--out", tmp_path / "run")
    assert call("train", "--resume", tmp_path / "run", "--epochs", "5") == 0
    assert untimed(tmp_path / "run") == untimed(tmp_path / "whole")


def test_defaults_of_the_command_are_those_of_settings(data: Path, tmp_path: Path) -> None:
    call(
        "train",
        "--data",
        data,
        "--model",
        "mlp",
        "--paper",
        "--epochs",
        "1",
        "--out",
        tmp_path / "r",
    )
    trainer: Trainer = runs.resume(tmp_path / "r")
    assert trainer.settings == type(trainer.settings)(model="mlp", epochs=1)


def test_a_run_stopped_while_it_is_extended_is_not_reported_as_finished(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    call("train", "--data", data, *TINY, "--out", out)
    runs.train(out, runs.resume(out, epochs=5), stop=lambda: True)
    capsys.readouterr()
    assert call("report", out) == 0
    printed = capsys.readouterr().out
    assert "stopped after step" in printed
    assert "Units left" not in printed


def test_a_run_on_a_relative_path_resumes_from_anywhere(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call("train", "--data", data.name, *TINY, "--out", "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("train", "--resume", "../run", "--epochs", "4") == 0


def test_bench_shows_in_which_kernels_the_time_of_a_step_goes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "profile.json"
    names = ["LeNet-300-100", "LeNet-300-100, a gate a weight"]
    assert call("bench", "--profile", "; ".join(names), "--quick", "--json", file) == 0
    shown = capsys.readouterr().out
    for word in ("pull_in_blocks", "in no kernel", "products alone", "in registers"):
        assert shown.count(word) == 2
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert list(saved["steps"]) == names
    for found in saved["steps"].values():
        assert found["kernels"]["move_all"]["calls"] == 1


def test_bench_profiles_steps_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench", "--profile", "lenet") == 2
    assert "profile must be one of LeNet-300-100; " in capsys.readouterr().err
    assert call("bench", "--profile", "LeNet-5; draw") == 2
    assert "got 'draw'" in capsys.readouterr().err
