"""The host that a component attaches to is imported when it is used; where it is absent, how to install it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from captum_lipschitz.errors import MissingDependencyError


@contextmanager
def needing(*packages: str) -> Iterator[None]:
    """Inside, imports that fail for want of one of these packages say which distribution to install.

    Args:
        packages: top-level packages, of distributions of the same names.

    Yields:
        Nothing.

    Raises:
        MissingDependencyError: one of them is absent, or too old to have the module that is imported. Other errors
            pass as they are.

    Example:
        >>> try:
        ...     with needing("acme_host"):
        ...         import acme_host.tasks
        ... except MissingDependencyError as error:
        ...     print(error)
        acme_host: expected it to be installed, got No module named 'acme_host'; run: pip install acme_host
    """
    try:
        yield
    except ImportError as error:
        missing = _missing(error)
        package = missing.partition(".")[0]
        if package not in packages:
            raise
        upgrade = "--upgrade " if missing != package else ""  # the package is there, and not all that is asked of it
        raise MissingDependencyError(
            f"{package}: expected it to be installed, got {error}; run: pip install {upgrade}{package}"
        ) from error


def _missing(error: BaseException) -> str:
    """The module that was not found, also where a package tells of it in an error of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return cause.name
        cause = cause.__cause__
    return ""
