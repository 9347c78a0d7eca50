"""Every planted bug is still a bug that can be planted, and the suite kills it."""

import ast
from pathlib import Path

import pytest

from tests.mutants import machinery
from tests.mutants.machinery import mutate
from tests.mutants.package import MUTANTS, Mutant

every_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


def test_names_are_unique() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)


def test_no_two_are_the_same_bug() -> None:
    bugs = [(mutant.module, mutate(mutant)) for mutant in MUTANTS]
    assert len(set(bugs)) == len(bugs)


@every_mutant
def test_it_can_be_planted(mutant: Mutant) -> None:
    """The original is there once, and the bug is Python that says something else."""
    before = (machinery.ROOT / "l0ref" / mutant.module).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(mutate(mutant))) != ast.dump(ast.parse(before))


@every_mutant
def test_its_test_is_there(mutant: Mutant) -> None:
    test = mutant.test.partition("::")[2]
    tree = ast.parse((machinery.ROOT / "tests" / mutant.file).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert test.partition("[")[0] in functions


@pytest.mark.parametrize(("source", "n"), [("x = 1\n", 0), ("y = a + b\nz = a + b\n", 2)])
def test_a_stale_mutant_is_named(tmp_path: Path, source: str, n: int) -> None:
    (tmp_path / "some.py").write_text(source)
    stale = Mutant("sum-for-difference", "some.py", "a + b", "a - b", "test_some.py::test_sum")
    with pytest.raises(ValueError, match=rf"sum-for-difference is stale: .*, got {n} times"):
        mutate(stale, tmp_path)


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert machinery.main(["P-with-plus", "no-such-bug"]) == 2
    assert "no mutant no-such-bug; there are: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted({mutant.file for mutant in MUTANTS}))
def test_the_tests_pass_without_a_mutant(file: str) -> None:
    """So that what kills a mutant is the bug in it."""
    tests = sorted({mutant.test for mutant in MUTANTS if mutant.file == file})
    status, output = machinery.run_tests(tests)
    assert status == machinery.PASSED, output


@pytest.mark.slow
@every_mutant
def test_it_is_killed(mutant: Mutant) -> None:
    verdict = machinery.try_to_kill(mutant)
    assert verdict.killed, verdict.why
