"""The pages: every Python snippet runs, what it is said to print it prints, commands are ones that exist."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

from captum_lipschitz.cli import _parser
from captum_lipschitz.metrics import Doubt

ROOT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^```(python|text output)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
_COMMANDS = re.compile(r"^```(?:sh|text)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")
_CLOSE = 0.35  # training is chaotic: other machines and versions of torch end elsewhere, though not far away


def _pages() -> list[str]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


PAGES = _pages()
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
COMMANDS = [
    (page, line)
    for page, text in TEXTS.items()
    for block in _COMMANDS.findall(text)
    for line in block.replace("\\\n", " ").splitlines()
    if re.search(
        r"captum-lipschitz (ara|audit|demo|plugins)|-m captum_lipschitz |examples/.*\.py|benchmarks/.*\.py", line
    )
]


def _alike(printed: str, shown: str) -> bool:
    """The same words, and numbers that are close."""
    if _NUMBER.sub("#", printed.strip()) != _NUMBER.sub("#", shown.strip()):
        return False
    pairs = zip(map(float, _NUMBER.findall(printed)), map(float, _NUMBER.findall(shown)), strict=True)
    return all(abs(a - b) <= _CLOSE * max(abs(a), abs(b)) for a, b in pairs)


@pytest.fixture
def _threads() -> Iterator[None]:
    """A page may set their number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("page", [page for page in PAGES if "```python\n" in TEXTS[page]])
@pytest.mark.filterwarnings("ignore::UserWarning:captum")  # on requires_grad, and on hooks that are set and removed
@pytest.mark.usefixtures("_threads")
def test_snippets_of_a_page_run_one_after_the_other(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, object] = {}
    printed = ""
    for kind, content in _FENCE.findall(TEXTS[page]):
        if kind == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(content, page, "exec"), namespace)  # noqa: S102
            printed = output.getvalue()
        else:
            assert _alike(printed, content), f"prints\n{printed}"
    assert namespace


def test_alike_compares_words_exactly_and_numbers_nearly() -> None:
    assert _alike("ARA 0.021 [0.020, 0.022]\n", "ARA 0.022 [0.021, 0.024]")
    assert not _alike("ARA 0.021", "ARA 0.042")
    assert not _alike("ARA 0.021, 3 not found", "ARA 0.021")


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_are_ones_that_exist(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    scripts = [word for word in words if re.fullmatch(r"(examples|benchmarks)/\S+\.py", word)]
    assert all((ROOT / script).is_file() for script in scripts), page
    if scripts:
        return
    if "..." in words and "--data" not in words:  # shortened: "..." stands for what was said before
        words += ["--data", "..."]
    start = words.index("captum-lipschitz") if "captum-lipschitz" in words else words.index("captum_lipschitz")
    assert _parser().parse_args(words[start + 1 :]).run


def test_no_page_with_python_escapes() -> None:
    """Those of the repository that are not pages of ours have tests beside them that run what they show."""
    folders = ("benchmarks", "captum_lipschitz", "docs", "examples", "plugins", "tests")
    pages = [*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))]
    shown = {path for path in pages if "```python\n" in path.read_text(encoding="utf-8")}
    others = {path.relative_to(ROOT).as_posix() for path in shown} - set(PAGES)
    for page in sorted(others):
        assert re.fullmatch(r"plugins/[\w-]+/README\.md", page), page
        tests = [path.read_text(encoding="utf-8") for path in (ROOT / page).parent.rglob("tests/test_*.py")]
        assert any("README" in text and "exec(compile(" in text for text in tests), page


def test_every_doubt_is_on_the_page_of_limits() -> None:
    named = set(re.findall(r'``"(\w+)"``', Doubt.__doc__ or "")) - {"wrong", "loose", "note"}
    assert len(named) == 10
    assert [name for name in sorted(named) if f"`{name}`" not in TEXTS["docs/limits.md"]] == []


def test_the_pages_are_in_the_navigation() -> None:
    listed = re.findall(r":\s*([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    pages = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}
    assert pages - set(listed) == set()
    assert len(listed) == len(set(listed))


def test_no_page_vanishes_into_the_title_of_its_section() -> None:
    """Where a section's title is a page, MkDocs takes the first README.md in it for that, and does not list it."""
    assert "navigation.indexes" not in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_a_plugin_is_in_the_catalogue() -> None:
    for plugin in sorted((ROOT / "plugins").iterdir()):
        assert f"[{plugin.name}](../plugins/{plugin.name}/README.md)" in TEXTS["docs/catalogue.md"]
