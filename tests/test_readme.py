"""What README.md shows is true: its commands, its code, its numbers."""

import doctest
import importlib.util
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l0ref import cli, runs
from l0ref.datasets import load_mnist_sample
from l0ref.pruning import CompactNetwork
from l0ref.storage import load_json
from l0ref.training import Settings, Trainer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def test_the_doctests() -> None:
    text = "\n".join(body for kind, body in BLOCKS if kind == "python" and ">>>" in body)
    test = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    assert test.examples
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0


def test_the_ten_lines_run_a_compact_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_mnist_sample()
    trainer = Trainer(Settings(epochs=1, batch_size=1000, gate_lr=0.3), data)
    while not trainer.done:
        trainer.advance()
    (code,) = (body for kind, body in BLOCKS if kind == "python" and "np.load" in body)
    path = tmp_path / re.search(r'np\.load\("(.*?)"\)', code).group(1)  # type: ignore[union-attr]
    path.parent.mkdir(parents=True)
    runs.finish(path.parent, trainer)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    # All in one batch, as the ten lines have it: BLAS rounds batches of other sizes otherwise.
    expected = CompactNetwork.load(path).predict(data.x_test, batch_size=len(data.x_test))
    np.testing.assert_array_equal(names["predict"](data.x_test), expected)  # type: ignore[operator]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 10


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = (body.strip() for kind, body in BLOCKS if "pytest" in body and kind == "sh")
    install, run = command.split(" && ")
    script = (ROOT / ".ci/run").read_text()
    assert f"{install.replace('pip install', 'pip install -q')} && {run}" in script


def script(name: str) -> Any:
    """Import a file of `figures`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"figures/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_speeds_are_what_was_measured() -> None:
    make_speed = script("make_speed")
    benchmark = make_speed.read("speed.json")
    for words in (
        make_speed.table(benchmark),
        make_speed.products(benchmark),
        make_speed.memory(benchmark),
        make_speed.profile(make_speed.read("speed_profile.json")),
        make_speed.whole_run(make_speed.read("speed_whole_run.json")),
        make_speed.scaling(make_speed.read("speed_threads.json")),
        f"({benchmark['machine']['cpu']})",
    ):
        assert words in README
    assert make_speed.commands()
    for command in make_speed.commands():
        assert command in README


def test_runs_ended_as_it_is_said() -> None:
    make_runs = script("make_runs")
    found = load_json(ROOT / "figures/runs.json")
    runs = found["runs"]
    assert f"take {runs['paper-0']['seconds']:.0f} s for one" in README
    for seed in range(4):
        name = "l0ref, seed 0" if seed == 0 else f"seed {seed}"
        assert f"| {name} | {make_runs.line(runs[f'paper-{seed}'])}" in README
    assert f"(`--backend numpy`) | {make_runs.line(runs['paper-numpy'])}" in README
    lenet = runs["lenet-5"]
    counts = f"{lenet['params']:,} | {lenet['flops']:,} |"
    assert f"seed 0 | {make_runs.line(lenet)} {counts}" in README
    cpu = found["machine"]["cpu"]
    assert f"The run above took {lenet['seconds']:.0f} s on two cores of an {cpu}" in README


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == cli.__version__


@pytest.mark.slow
def test_the_main_job_does_what_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["l0ref", "train", "--out", "run"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code
    result = json.loads(Path("run/result.json").read_text())
    assert result["test_error"] <= 4.0
    assert result["weights"] <= 0.30 * result["weights_dense"]
    logits = CompactNetwork.load("run/network.npz").predict(load_mnist_sample().x_test)
    # Sums of a few hundred float32 terms in another order: a few tens of eps of the largest logit.
    assert result["max_difference"] <= 1e-5 * max(1.0, float(np.abs(logits).max()) / 10)
    shown = re.search(r"test error *│ *([\d.]+) %", README)
    assert shown is not None
    # BLAS kernels differ between machines, and with them the last bits and so the digits of a run.
    assert abs(float(shown.group(1)) - result["test_error"]) <= 0.5
