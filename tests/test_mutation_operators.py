"""The faults that benchmarks/mutants.py plants: which there are, and that each is one small change."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SOURCE = dedent('''
    """A module's docstring: 1 < 2."""
    LIMIT = 3

    def share(part: "int < 4", whole: int = 0) -> "3 + 4":
        """A docstring: 5 + 6."""
        if not part <= whole:
            raise ValueError(f"{part + 1} is more than {whole}")
        return part / whole

    def __repr__():
        return 7 + 8
''')


@pytest.fixture
def operators(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if not BENCHMARKS.is_dir():
        pytest.skip("a source distribution has no benchmarks/")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "mutation_operators", raising=False)
    import mutation_operators

    return mutation_operators  # type: ignore[no-any-return]


def test_every_fault_of_a_small_module(operators: ModuleType) -> None:
    found = operators.mutants(Path("package/share.py"), SOURCE)
    changed = {line[1:].strip() for mutant in found for line in mutant.difference(SOURCE).split("\n") if line[0] == "+"}
    head = "def share(part: 'int < 4', whole: int={}) -> '3 + 4':"
    assert changed == {
        *(f"LIMIT = {number}" for number in (4, 6, 0)),
        head.format(1),
        "if not not part <= whole:",
        "if part <= whole:",
        "if not part < whole:",
        "if not part > whole:",
        "pass",
        "return None",
        "return part * whole",
        "return -(part / whole)",
    }


def test_each_changes_one_place_and_is_named_the_same_again(operators: ModuleType) -> None:
    found = operators.mutants(Path("share.py"), SOURCE)
    again = operators.mutants(Path("share.py"), SOURCE)
    assert [mutant.name for mutant in found] == [mutant.name for mutant in again]
    assert len({mutant.name for mutant in found}) == len(found)
    for mutant in found:
        difference = mutant.difference(SOURCE).split("\n")
        assert [line[0] for line in difference] == ["-", "+"], mutant.name
        compile(mutant.tree(SOURCE), "share.py", "exec")
    assert ast.dump(ast.parse(SOURCE)) != ast.dump(found[0].tree(SOURCE))


def test_only_what_is_named(operators: ModuleType) -> None:
    found = operators.mutants(Path("share.py"), SOURCE, only=["LIMIT"])
    assert [mutant.name for mutant in found] == [f"share:3:8:constant:{number}" for number in (1, 2, 3)]
