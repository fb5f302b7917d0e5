"""How a broken contract is told, and what a component may not do around its answer: print, or swallow an error."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import NamedTuple

from captum_lipschitz.errors import CaptumLipschitzError, ContractError, MissingDependencyError


def require(holds: object, contract: str, expected: str, got: object) -> None:
    """Raise ``ContractError`` unless ``holds``."""
    if not holds:
        raise ContractError(f"{contract}: expected {expected}, got {got}")


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, anything printed breaks a contract. Warnings are no prints, and are left unseen."""
    written = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(written), redirect_stderr(written):
        warnings.simplefilter("ignore")
        yield
    text = written.getvalue()
    require(not text, "prints nothing", "no output", repr(text[:80]))


@contextmanager
def answering(whose: str) -> Iterator[None]:
    """Inside, what a component raises breaks a contract. A warning that the caller made an error is the caller's."""
    try:
        yield
    except (ContractError, Warning):
        raise
    except (Exception, SystemExit) as error:
        raise ContractError(f"raises nothing at good input: expected an answer of {whose}, got {error!r}") from error


class BadCall(NamedTuple):
    """A call with one argument that cannot be used.

    Attributes:
        what: the argument's fault.
        names: of the argument, any of which the message may use.
        call: makes the call.
        runs: how often the model was run.
    """

    what: str
    names: Sequence[str]
    call: Callable[[], object]
    runs: Callable[[], int] = lambda: 0


def check_refusals(calls: Sequence[BadCall]) -> None:
    """Each call is refused with an exception of ``errors.py`` that names the argument, before any work is done."""
    contract = "refuses bad input"
    for bad in calls:
        expected = f"an exception of captum_lipschitz.errors that names {' or '.join(bad.names)!r} for {bad.what}"
        try:
            with quiet():
                answer = bad.call()
        except (ContractError, MissingDependencyError):  # what is not installed refuses nothing
            raise
        except CaptumLipschitzError as error:
            require(any(name in str(error) for name in bad.names), contract, expected, repr(error))
        except Exception as error:
            raise ContractError(f"{contract}: expected {expected}, got {error!r}") from error
        else:
            raise ContractError(
                f"{contract}: expected {expected}, got {type(answer).__name__} as if nothing were wrong"
            )
        require(
            bad.runs() <= 1,
            "refuses bad input before any work",
            f"at most one run of the model, which tells the number of classes, before {bad.what} is refused",
            f"{bad.runs()} runs",
        )
