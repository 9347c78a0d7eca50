"""What the oracle's README shows is true: its code runs, its output comes, its list is current.

``python -m tests.test_oracle_readme`` writes the output of the failing check and the list of known
deviations into it anew, and the long list beside it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from l0ref.oracle.check import check
from l0ref.oracle.deviations import markdown
from l0ref.oracle.interface import FUNCTIONS
from l0ref.oracle.report import PHASES, Status

ROOT = Path(__file__).parents[1]
PATH = ROOT / "l0ref/oracle/README.md"
README = PATH.read_text(encoding="utf-8")
LIST = PATH.with_name("DEVIATIONS.md")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", README, flags=re.DOTALL))
BEGIN, END = "<!-- deviations: begin -->\n", "\n<!-- deviations: end -->"
COMMAND = "$ l0ref check mytarget.py --quick\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with every file that the README shows."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, *command: str) -> Any:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "88"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True,
        encoding="utf-8", check=False,
    )  # fmt: skip


CLI = ("-c", "from l0ref.cli import main; main()")


def shape(text: str) -> str:
    """Return what does not change from machine to machine: the text without numbers and lines."""
    return re.sub(r"[\s─-╿]+", " ", re.sub(r"[-\d.e]*\d[-\d.e]*", "#", text)).strip()


def test_every_block_of_python_is_a_file() -> None:
    assert list(FILES) == ["mylib.py", "mytarget.py", "mygates.py", "test_mygates.py"]
    assert README.count("```python") == len(FILES)


def test_plugging_in_a_layer_takes_less_than_ten_lines() -> None:
    assert sum(bool(line.strip()) for line in FILES["mytarget.py"].splitlines()) < 10


def test_the_functions_pass(folder: Path) -> None:
    report = check(str(folder / "mygates.py"), quick=True)
    assert report.ok, [one for one in report.outcomes if one.n_failed]
    passed = {one.function for one in report.outcomes if one.status is Status.PASSED}
    assert passed == {"prob_active", "test_time", "dense_flops"}


def test_the_layer_fails_as_shown_and_passes_when_mended(folder: Path) -> None:
    pytest.importorskip("torch")
    seen = run(folder, *CLI, "check", "mytarget.py", "--quick")
    assert seen.returncode == 1, seen.stderr
    shown = README.partition(COMMAND)[2].partition("```")[0]
    assert shape(seen.stdout) == shape(shown)

    line = "s = torch.sigmoid(self.log_alpha / self.temperature)"
    assert line in FILES["mylib.py"]
    mended = FILES["mylib.py"].replace(line, "s = torch.sigmoid(self.log_alpha)")
    (folder / "mylib.py").write_text(mended)
    report = check(f"{folder / 'mytarget.py'}", quick=True, dtypes=["float64"])
    assert report.ok
    assert {one.status for one in report.outcomes} == {
        Status.PASSED, Status.ACCEPTABLE, Status.NOT_IMPLEMENTED
    }  # fmt: skip


def test_the_property_test_passes_and_fails(folder: Path) -> None:
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mygates.py")
    seen = run(folder, *command)
    assert seen.returncode == 0, seen.stdout
    wrong = FILES["mygates.py"].replace(
        "expit(log_alpha) * (zeta", "expit(log_alpha / beta) * (zeta"
    )
    (folder / "mygates.py").write_text(wrong)
    seen = run(folder, *command)
    assert seen.returncode == 1
    assert "test_time differs from the reference" in seen.stdout
    assert "the median gate, not Eq. 13" in seen.stdout


def test_expected_failures_and_exit_statuses(folder: Path) -> None:
    (listed,) = re.findall(r"```text\n(# expected\.txt\n.*?)```", README, flags=re.DOTALL)
    (folder / "expected.txt").write_text(listed)
    arguments = ("check", "mygates.py", "--functions", "test_time", "prob_active", "--quick",
                 "--dtype", "float64")  # fmt: skip
    assert run(folder, *CLI, *arguments).returncode == 0
    # What is listed passes here, and so the check fails.
    assert run(folder, *CLI, *arguments, "--expect-fail", "expected.txt").returncode == 1
    assert run(folder, *CLI, "check", "nowhere.py").returncode == 2


def test_the_phases_are_told() -> None:
    table = README.partition("## What is checked")[2].partition("\n\n**")[0]
    assert re.findall(r"^\| (\w+) \|", table, flags=re.MULTILINE)[1:] == list(PHASES)


def test_names_of_functions_are_the_oracles() -> None:
    text = README.partition(BEGIN)[0]
    for name in re.findall(r"`(\w+)\(", text):
        assert name in {*FUNCTIONS, "check"}, name


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 10
    for link in links:
        assert link.startswith("https://") or (PATH.parent / link).exists(), link


def test_the_list_of_deviations_is_current() -> None:
    shown = README.partition(BEGIN)[2].partition(END)[0]
    assert shown == markdown(brief=True), "python -m tests.test_oracle_readme writes it anew"
    assert LIST.read_text(encoding="utf-8") == long_list()


def long_list() -> str:
    return f"# Known deviations\n\n{markdown(heading='##')}\n"


def rewrite() -> None:
    """Write into the README what it shows of the program, and the long list."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        for file, code in FILES.items():
            (Path(name) / file).write_text(code, encoding="utf-8")
        output = run(Path(name), *CLI, "check", "mytarget.py", "--quick").stdout
    output = "\n".join(line.rstrip() for line in output.splitlines())
    before, _, rest = README.partition(COMMAND)
    text = f"{before}{COMMAND}{output}\n```{rest.partition('```')[2]}"
    before, _, rest = text.partition(BEGIN)
    text = f"{before}{BEGIN}{markdown(brief=True)}{END}{rest.partition(END)[2]}"
    PATH.write_text(text, encoding="utf-8")
    LIST.write_text(long_list(), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
