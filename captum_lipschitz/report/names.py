"""What classes are called in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from captum_lipschitz._reading import parse_json, read_json, read_regular
from captum_lipschitz.errors import InvalidInputError


def class_names(
    given: Sequence[str], outputs: int, *, class_index: Path | None = None, folders: Mapping[int, str] | None = None
) -> tuple[str, ...]:
    """One name for each output, all different.

    Args:
        given: a file of names (a JSON list, or one name a line), or the names themselves, class 0 first; or none.
        outputs: number of classes, or of labels.
        class_index: where nothing is given, JSON of the form ``{"n01440764": [0, "tench"]}`` or
            ``{"0": ["n01440764", "tench"]}`` names the classes.
        folders: names of class folders by class, for what is then still without a name.

    Raises:
        InvalidInputError: a file that cannot be read, or another number of names.

    Example:
        >>> class_names(["cat", "dog"], 2), class_names([], 2, folders={1: "dog"})
        (('cat', 'dog'), ('class 0', 'dog'))
    """
    names = _read(Path(given[0])) if len(given) == 1 and outputs > 1 else list(given)
    if names and len(names) != outputs:
        raise InvalidInputError(f"class_names: expected one for each of the {outputs} outputs, got {len(names)}")
    if not names:
        known = {**(folders or {}), **_indexed(class_index)}
        names = [known.get(number, f"class {number}") for number in range(outputs)]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names)
    )  # a name tells a class


def _read(path: Path) -> list[str]:
    try:
        read = read_regular(path)
        lines = read.decode("utf-8").splitlines() if path.suffix != ".json" else ()
        content = [line for line in lines if line.strip()] or parse_json(read)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"class_names: {path} cannot be read ({error})") from error
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise InvalidInputError(f"class_names: expected a JSON list of names in {path}, or one name a line")
    return [name.strip() for name in content]


def _indexed(path: Path | None) -> dict[int, str]:
    """Names that a class index holds besides its folders'; it was read, and found to be one, with the data."""
    if path is None:
        return {}
    found = {}
    for key, value in read_json(path).items():
        if isinstance(value, list) and len(value) > 1 and isinstance(value[1], str):
            found[int(key if isinstance(value[0], str) else value[0])] = value[1]
    return found
