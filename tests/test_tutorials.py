"""The tutorials run from top to bottom, and show pictures that exist.

Their code cells are the fences marked ``{code-cell}`` of MyST markdown. A cell's failing assert
fails the test at the tutorial's own line.
"""

import runpy
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image, ImageChops, ImageStat

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "figures"
TUTORIALS = sorted((ROOT / "tutorials").glob("*.md"))
over_tutorials = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


def tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark").parse(path.read_text(encoding="utf-8"))


def cells(path: Path) -> list[str]:
    """Return the code cells, each moved to its line in the file, their option lines left out."""
    sources = []
    for token in tokens(path):
        if token.type != "fence" or not token.info.startswith("{code-cell}"):
            continue
        assert token.map is not None
        lines = token.content.splitlines()
        options = next((i for i, line in enumerate(lines) if not line.startswith(":")), len(lines))
        lines[:options] = [""] * options
        sources.append("\n" * (token.map[0] + 1) + "\n".join(lines))
    return sources


def images(path: Path) -> list[Token]:
    inline = (child for token in tokens(path) for child in token.children or [])
    return [token for token in inline if token.type == "image"]


def run(path: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for source in cells(path):
        exec(compile(source, str(path), "exec"), namespace)


def test_there_are_tutorials() -> None:
    assert TUTORIALS


@over_tutorials
def test_runs(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)  # what a tutorial writes does not stay
    assert cells(path)
    run(path)


@over_tutorials
def test_asserts_what_it_says(path: Path) -> None:
    asserting = [source for source in cells(path) if "assert " in source]
    assert len(asserting) >= len(cells(path)) / 2


@over_tutorials
def test_shows_pictures_that_exist_and_says_what_is_on_them(path: Path) -> None:
    for image in images(path):
        source = str(image.attrs["src"])
        assert urlparse(source).scheme == "", f"{source} is not a file of the project"
        assert (path.parent / source).is_file(), f"{source} does not exist"
        assert image.content, f"{source} has no alternative text"


def test_every_picture_has_the_code_that_makes_it() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in FIGURES.glob("*.py"))
    for picture in FIGURES.glob("*.png"):
        assert f'"{picture.name}"' in code, f"no figures/*.py makes {picture.name}"


def test_the_code_of_the_first_tutorial_makes_its_pictures(tmp_path: Path) -> None:
    runpy.run_path(str(FIGURES / "make_01.py"))["main"](tmp_path)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in FIGURES.glob("01_*.png"))
    for name in made:
        with Image.open(tmp_path / name) as fresh, Image.open(FIGURES / name) as kept:
            assert fresh.size == kept.size
            difference = ImageChops.difference(fresh.convert("L"), kept.convert("L"))
            # Another version of matplotlib may move an edge by part of a pixel, no more.
            assert sum(ImageStat.Stat(difference).mean) < 1.0, f"{name} is out of date"


def test_a_failing_cell_is_reported_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.md"
    path.write_text(
        "# Title\n\n```{code-cell} python\n:tags: [a]\nx = 1\n```\n\ntext\n\n"
        "```python\nnot run\n```\n\n```{code-cell} python\n\nassert x == 2\n```\n"
    )
    assert len(cells(path)) == 2
    with pytest.raises(AssertionError) as caught:
        run(path)
    assert caught.traceback[-1].lineno + 1 == 16
