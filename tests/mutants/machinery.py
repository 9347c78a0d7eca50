"""How a bug is planted in a copy of the package, and the suite run on it."""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from tests.mutants.package import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
AT_ONCE = 2
TIMEOUT = 300  # seconds for one test: far more than any takes, to stop one that hangs

PASSED, FAILED = 0, 1  # pytest's exit statuses; all others say that it could not run the test


class Verdict(NamedTuple):
    """What became of a mutant."""

    name: str
    killed: bool
    why: str
    seconds: float


def mutate(mutant: Mutant, package: Path = ROOT / "l0ref") -> str:
    """Return the text of the mutant's module with the bug in it.

    Raises
    ------
    ValueError
        If the module does not hold the original exactly once: the mutant is stale.
    """
    source = (package / mutant.module).read_text(encoding="utf-8")
    n = source.count(mutant.original)
    if n != 1:
        raise ValueError(
            f"{mutant.name} is stale: l0ref/{mutant.module} must hold its original exactly once, "
            f"got {n} times:\n{mutant.original}"
        )
    return source.replace(mutant.original, mutant.mutated)


def _processes() -> Any:
    """Return what makes processes that have imported what tests import, but for this project.

    That takes longer than most of the tests. Where processes cannot be forked, each starts anew.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hypothesis.extra.numpy", "mpmath", "numba", "pytest", "scipy"])
    return context


def _run_pytest(folder: str, output: str, options: Sequence[str]) -> None:
    """Run pytest in a folder, as a new process would that has started there."""
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    # It has come here by modules of this project; those that are tested are the folder's.
    for name in [name for name in sys.modules if name.partition(".")[0] in ("l0ref", "tests")]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    os.environ.pop("PYTEST_ADDOPTS", None)
    import pytest
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of what is still to be loaded, and of its own processes
    sys.exit(int(pytest.main(list(options))))


def _copy_project(copy: Path, mutant: Mutant | None) -> None:
    """Copy what tests need, with a bug or without.

    Compiled files are told from stale ones by the second of their source, so none is taken: but for
    the kernels where they are as they were. To compile those takes longer than all else; what they
    are compiled from is in their names, so that those of another text are not taken.
    """
    bug_in_kernels = mutant is not None and mutant.module.startswith("jit/")
    taken_as_it_is = [] if bug_in_kernels else ["jit"]
    for folder in ("l0ref", "tests"):
        ignore = shutil.ignore_patterns("__pycache__", *taken_as_it_is)
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignore)
    for name in taken_as_it_is:
        (copy / "l0ref" / name).symlink_to(ROOT / "l0ref" / name, target_is_directory=True)
    shutil.copy(ROOT / "pyproject.toml", copy)
    if mutant is not None:
        (copy / "l0ref" / mutant.module).write_text(mutate(mutant), encoding="utf-8")


def run_tests(tests: Sequence[str], mutant: Mutant | None = None) -> tuple[int, str]:
    """Run tests on a copy of the project, with a bug or without; return exit status and output.

    Raises
    ------
    TimeoutError
        If they take too long.
    """
    with tempfile.TemporaryDirectory(prefix="l0ref-mutant-") as temporary:
        copy = Path(temporary)
        _copy_project(copy, mutant)
        # Started in the copy, whose pyproject.toml puts it first on the path of imports.
        ids = [f"tests/{test}" for test in tests]
        early = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"  # on purpose
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", early, "--rootdir", temporary]
        output = copy / "output"
        process = _processes().Process(
            target=_run_pytest, args=(temporary, str(output), [*options, *ids])
        )
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"over {TIMEOUT} s")
        return process.exitcode, output.read_text(encoding="utf-8", errors="replace")


def try_to_kill(mutant: Mutant) -> Verdict:
    """Run the mutant's test on it; only a test that fails kills."""
    start = time.perf_counter()
    finish = partial(Verdict, mutant.name)
    try:
        status, output = run_tests([mutant.test], mutant)
    except TimeoutError:
        return finish(False, f"{mutant.test} took over {TIMEOUT} s", time.perf_counter() - start)
    except ValueError as error:
        return finish(False, str(error), time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if status == FAILED:
        failed = [line for line in output.splitlines() if line.startswith("FAILED tests/")]
        return finish(True, failed[0].removeprefix("FAILED tests/") if failed else output, seconds)
    if status == PASSED:
        return finish(False, f"survived: {mutant.test} passed", seconds)
    return finish(False, f"pytest ended with status {status}:\n{output[-1000:]}", seconds)


def main(names: Sequence[str]) -> int:
    """Try the named mutants, or all; return 0 if every one is killed."""
    known = {mutant.name: mutant for mutant in MUTANTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no mutant {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in names] or list(MUTANTS)

    status, output = run_tests(sorted({mutant.test for mutant in chosen}))
    if status != PASSED:
        print(f"the tests must pass without a mutant, got status {status}:", file=sys.stderr)
        print(output, file=sys.stderr)
        return 2

    table = Table("mutant", "killed", "by, or why not", "s")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        verdicts = list(pool.map(try_to_kill, chosen))
    for name, killed, why, seconds in verdicts:
        style = None if killed else "bold red"
        table.add_row(name, "yes" if killed else "NO", why, f"{seconds:.0f}", style=style)
    console = Console(markup=False)  # test names have brackets
    console.print(table)
    alive = sum(not verdict.killed for verdict in verdicts)
    console.print(f"{len(verdicts) - alive} of {len(verdicts)} mutants killed")
    return 1 if alive else 0
