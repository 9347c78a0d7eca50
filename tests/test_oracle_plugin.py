"""The checks inside pytest: collected, chosen, skipped, expected to fail, and reported."""

import ast
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import l0ref
from l0ref.oracle import check, diagnosis, differential, hygiene, samplers, vectors

pytest_plugins = ["pytester"]

IMPORTED = (check, diagnosis, differential, hygiene, samplers, vectors)
"""A run inside this process forgets what it imports, and NumPy cannot be imported twice."""

ROOT = Path(l0ref.__path__[0]).parent
MODULE = "l0ref.oracle.pytest_plugin"
# Where l0ref is installed pytest finds it by itself, and does not want it twice.
INSTALLED = any(entry.value == MODULE for entry in entry_points(group="pytest11"))
PLUGIN = (*(() if INSTALLED else ("-p", MODULE)), "-p", "no:cacheprovider")

TARGET = """
import numpy as np

def test_time(log_alpha, *, beta, gamma, zeta):
    if not (beta > 0 and gamma < 0 and zeta > 1):
        raise ValueError("out of range")
    s = np.exp(np.minimum(log_alpha, 0)) / (1 + np.exp(-np.abs(log_alpha)))
    return np.clip(s * (zeta - gamma) + gamma, 0, 1)

def dense_params(n_in, n_out, *, bias):
    return n_in * n_out

def logpdf(x, log_alpha, *, beta, gamma, zeta):
    raise NotImplementedError("not yet")
"""


@pytest.fixture
def target(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(mine=TARGET)
    return pytester


def run(target: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run in this process, where everything is imported already."""
    return target.runpytest_inprocess(
        *PLUGIN, "--l0ref-target=mine.py", "--l0ref-quick", *arguments
    )


def test_functions_are_chosen_and_pass(target: pytest.Pytester) -> None:
    result = run(target, "-k", "test_time and not grad", "-v")
    outcomes = result.parseoutcomes()
    assert result.ret == 0
    assert outcomes["passed"] >= 5
    assert "failed" not in outcomes
    result.stdout.fnmatch_lines(["*random:test_time*PASSED*", "*manners:test_time*PASSED*"])
    result.stdout.fnmatch_lines(["*vectors:test_time:gate/test-time*PASSED*"])


def test_failures_show_the_input(target: pytest.Pytester) -> None:
    result = run(target, "-k", "random and dense_params")
    assert result.ret == 1
    result.assert_outcomes(failed=1, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines(
        ["*random:dense_params*", "float64: got *, expected *, off by *", "with", "*n_in = *"]
    )
    assert "Traceback" not in result.stdout.str()
    assert "pytest_plugin.py" not in result.stdout.str()


def test_the_failures_are_diagnosed(target: pytest.Pytester) -> None:
    result = run(target, "-k", "dense_params and not manners")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*what the failures of l0ref's checks look like*"])


def test_what_is_missing_is_skipped(target: pytest.Pytester) -> None:
    result = run(target, "-k", "adam or logpdf", "-rs")
    assert set(result.parseoutcomes()) - {"warnings"} == {"skipped", "deselected"}
    assert "-" not in result.stdout.str().partition("deselected / ")[2][:4]  # a count below 0
    result.stdout.fnmatch_lines(["*not implemented: *"])
    assert result.ret == 0


def test_expected_failures_are_strict(target: pytest.Pytester) -> None:
    Path("list.txt").write_text("random:dense_params  # the bias is on its way\n")
    arguments = ("--l0ref-expect-fail=list.txt", "-k", "random")
    result = run(target, *arguments, "-rx")
    assert result.ret == 0
    assert result.parseoutcomes()["xfailed"] == 1
    Path("list.txt").write_text("random:test_time\nrandom:dense_params\n")
    result = run(target, *arguments)
    assert result.ret == 1
    outcomes = result.parseoutcomes()
    assert (outcomes["xfailed"], outcomes["failed"]) == (1, 1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*"])


def test_vectors_are_expected_to_fail_by_their_id(target: pytest.Pytester) -> None:
    result = run(target, "-k", "vectors and dense_params", "-v")
    lines = [line.split() for line in result.outlines]
    failed = [words[0] for words in lines if words[1:2] == ["FAILED"]]
    ids = [nodeid.removeprefix("l0ref::vectors:dense_params:") for nodeid in failed]
    assert ids
    assert all(one.startswith("cost/") for one in ids)
    Path("list.txt").write_text("\n".join(ids))
    result = run(target, "-k", "vectors and dense_params", "--l0ref-expect-fail=list.txt")
    assert result.ret == 0
    assert result.parseoutcomes()["xfailed"] == len(ids)


def test_a_line_for_all_vectors_covers_those_that_pass(target: pytest.Pytester) -> None:
    arguments = ("-k", "vectors and dense_params", "--l0ref-expect-fail=list.txt")
    Path("list.txt").write_text("vectors:dense_params\n")
    result = run(target, *arguments)
    assert result.ret == 0
    outcomes = result.parseoutcomes()
    assert outcomes["xfailed"] > 0
    assert outcomes["xpassed"] > 0
    assert "failed" not in outcomes
    result = run(target, *arguments, "-rX")
    (passing, *_) = (
        line.split()[1] for line in result.outlines if line.startswith("XPASS l0ref::")
    )
    vector = passing.removeprefix("l0ref::vectors:dense_params:")
    Path("list.txt").write_text(f"vectors:dense_params\n{vector}\n")
    result = run(target, *arguments)
    assert result.ret == 1
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["*XPASS(strict)*"])


def test_a_line_for_all_vectors_that_pass_fails_as_the_command_does(
    target: pytest.Pytester,
) -> None:
    Path("list.txt").write_text("vectors:test_time\n")
    arguments = ("-k", "vectors:test_time", "--l0ref-expect-fail=list.txt")
    result = run(target, *arguments, "-v")
    assert result.ret == 1
    outcomes = result.parseoutcomes()
    assert outcomes["failed"] == 1
    assert "xfailed" not in outcomes
    result.stdout.fnmatch_lines(["l0ref::vectors:test_time FAILED*", "*XPASS(strict)*"])
    listed = check.read_expected_failures("list.txt")
    found = check.check("mine.py", functions=["test_time"], quick=True, expected_failures=listed)
    assert not found.ok
    assert found.outcomes[0].status is check.Status.UNEXPECTED_PASS
    # a choice among its vectors does not judge the line
    result = run(target, "-k", "gate/test-time", "--l0ref-expect-fail=list.txt")
    assert result.ret == 0


def test_an_expected_failure_that_is_not_implemented_is_remarked_upon(
    target: pytest.Pytester,
) -> None:
    Path("list.txt").write_text("random:adam\nrandom:logpdf\nrandom:dense_params\n")
    result = run(target, "-k", "random", "--l0ref-expect-fail=list.txt")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*nothing was checked: random:adam, random:logpdf.*"])
    Path("list.txt").write_text("vectors:draw\n")
    result = run(target, "--l0ref-expect-fail=list.txt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'vectors:draw'*"])


def test_it_runs_beside_other_tests(target: pytest.Pytester) -> None:
    target.makepyfile(test_own="def test_own(): pass")
    result = run(target, "-k", "own or (random and test_time and not grad)")
    assert result.parseoutcomes()["passed"] == 2


def test_without_a_target_there_is_nothing(target: pytest.Pytester) -> None:
    target.makepyfile(test_own="def test_own(): pass")
    result = target.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--l0ref-target=absent.py",), "*absent.py*"),
        (("--l0ref-target=mine.py", "--l0ref-expect-fail=none.txt"), "*none.txt*"),
        (("--l0ref-target=mine.py", "--l0ref-timeout=-1"), "*timeout must be positive*"),
        (("--l0ref-target=mine.py", "--l0ref-dtype=float16"), "*float16*"),
    ],
)
def test_usage_errors(target: pytest.Pytester, arguments: tuple[str, ...], says: str) -> None:
    result = target.runpytest_inprocess(*PLUGIN, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([says])


def test_a_vector_file_that_is_missing_is_told(
    target: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "FOLDER", target.path)
    vectors._loaded.cache_clear()
    result = target.runpytest_inprocess(*PLUGIN, "--l0ref-target=mine.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*law.json cannot be read*"])


@pytest.mark.parametrize("how", ["-p", "PYTEST_PLUGINS"])
def test_it_may_be_named_where_it_is_installed(target: pytest.Pytester, how: str) -> None:
    installed = target.mkdir("l0ref_again-1.dist-info")  # in the folder where Python is run
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: l0ref-again\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(f"[pytest11]\nl0ref = {MODULE}\n")
    named = {"PYTEST_PLUGINS": MODULE} if how == "PYTEST_PLUGINS" else {}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *(() if named else ("-p", MODULE)), "--l0ref-quick",
         "--l0ref-target=mine.py", "-k", "random and dense_params"],
        cwd=target.path, env={**os.environ, "PYTHONPATH": path, **named}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "1 failed" in result.stdout, result.stderr
    assert "Traceback" not in result.stderr


def test_the_plugin_imports_nothing_but_pytest_and_the_standard_library() -> None:
    tree = ast.parse((ROOT / "l0ref" / "oracle" / "pytest_plugin.py").read_text())
    for node in tree.body:
        names = (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )  # fmt: skip
        for name in names:
            assert name == "pytest" or name.partition(".")[0] in sys.stdlib_module_names, name


def test_what_is_loaded_without_a_target_imports_no_numpy() -> None:
    """Whatever the package itself imports, the oracle and the plugin add nothing to it."""
    code = (
        "import sys, types\n"
        "package = types.ModuleType('l0ref')\n"
        f"package.__path__ = [{str(ROOT / 'l0ref')!r}]\n"
        "sys.modules['l0ref'] = package\n"
        f"import {MODULE}\n"
        "heavy = {'numpy', 'scipy', 'hypothesis', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_target_the_oracle_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import sys\n"
        "def test_own():\n"
        "    oracle = {m for m in sys.modules if m.startswith('l0ref.oracle.')}\n"
        "    assert oracle == {'l0ref.oracle.pytest_plugin'}\n"
        "    assert 'scipy.stats' not in sys.modules and 'rich.table' not in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", *PLUGIN,
               str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
