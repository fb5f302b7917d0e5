"""What is deprecated works on, says what to use instead, and goes no sooner than promised."""

from __future__ import annotations

import ast
import inspect
import warnings
from pathlib import Path
from types import ModuleType

import pytest

import captum_lipschitz
from captum_lipschitz import PaperAttack
from captum_lipschitz._deprecation import Deprecation, deprecated_name, deprecated_parameter
from captum_lipschitz.errors import CaptumLipschitzDeprecationWarning, InvalidInputError, InvalidTypeError

PARAMETER = Deprecation("rho", since="1.1", removal="2.0")


@deprecated_parameter("eps", PARAMETER)
def _size(inputs: int, *, rho: float = 1.0) -> tuple[int, float]:
    """Its docstring."""
    return inputs, rho


@deprecated_parameter("squared", PARAMETER, convert=lambda value: value**0.5)
def _root(*, rho: float) -> float:
    return rho


def test_the_old_parameter_is_taken_with_a_warning_at_the_callers_line() -> None:
    with pytest.warns(CaptumLipschitzDeprecationWarning, match=r"_size\(eps=\) .* 1\.1 .* 2\.0: use rho") as caught:
        assert _size(3, eps=0.5) == (3, 0.5)  # type: ignore[call-arg]
    assert caught[0].filename == __file__
    assert len(caught) == 1


def test_the_old_value_is_converted() -> None:
    with pytest.warns(CaptumLipschitzDeprecationWarning):
        assert _root(squared=9.0) == 3.0  # type: ignore[call-arg]


def test_the_present_parameter_is_silent_and_the_function_what_it_was() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _size(3, rho=0.5) == (3, 0.5)
        assert _size(3) == (3, 1.0)
    assert _size.__doc__ == "Its docstring."
    assert list(inspect.signature(_size).parameters) == ["inputs", "rho"]


def test_both_names_at_once_are_refused_and_unknown_ones_as_ever() -> None:
    with pytest.raises(InvalidTypeError, match="eps: expected rho alone"):
        _size(3, eps=0.5, rho=0.5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="epsilon"):
        _size(3, epsilon=0.5)  # type: ignore[call-arg]


def _module() -> ModuleType:
    module = ModuleType("captum_lipschitz.moved")
    moved = {"Deepest": Deprecation("captum_lipschitz.attacks.PaperAttack", since="1.3", removal="2.0")}
    vars(module)["__getattr__"] = lambda name: deprecated_name(module.__name__, name, moved)
    return module


def test_the_old_name_is_the_new_thing_with_a_warning_at_the_users_line() -> None:
    with pytest.warns(CaptumLipschitzDeprecationWarning, match=r"moved\.Deepest .*attacks\.PaperAttack") as caught:
        assert _module().Deepest is PaperAttack
    assert caught[0].filename == __file__


def test_other_names_are_absent_as_from_any_module() -> None:
    with pytest.raises(AttributeError, match=r"module 'captum_lipschitz\.moved' has no attribute 'Deep'"):
        _module().Deep  # noqa: B018
    assert not hasattr(_module(), "Deep")


def test_the_warning_is_pythons_own_kind_and_ours() -> None:
    assert issubclass(CaptumLipschitzDeprecationWarning, DeprecationWarning)
    assert issubclass(CaptumLipschitzDeprecationWarning, captum_lipschitz.errors.CaptumLipschitzWarning)


@pytest.mark.parametrize(
    ("since", "removal", "message"),
    [
        ("1", "2.0", r"since: expected a minor version as in '1\.2', got '1'"),
        ("1.2.1", "2.0", "since: expected"),
        ("1.2", "1.4", r"removal: expected a major version after 1\.2, as in '2\.0', got '1\.4'"),
        ("1.2", "1.0", "removal: expected"),
        ("2.1", "2.0", r"as in '3\.0'"),
        ("1.9", "2", "removal: expected"),
    ],
)
def test_a_removal_that_breaks_the_promise_is_refused(since: str, removal: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Deprecation("rho", since=since, removal=removal)


def test_nothing_that_this_version_was_to_remove_is_still_there() -> None:
    major = int(captum_lipschitz.__version__.partition(".")[0])
    overdue = []
    for path in Path(captum_lipschitz.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Deprecation":
                given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
                if int(given["removal"].partition(".")[0]) <= major:
                    overdue.append(f"{path.name}: {ast.unparse(node)}")
    assert overdue == []
