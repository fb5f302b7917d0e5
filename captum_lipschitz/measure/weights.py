"""Weights from files that hold tensors and nothing else, and their way into a model."""

from __future__ import annotations

import pickle
import shlex
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from captum_lipschitz._tensors import UnsafeFileError, is_plain, read_safetensors, read_torch
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

# Under these names training programs keep the state dict in their checkpoints.
_WRAPPINGS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
# Put before every name by DataParallel, torch.compile and Lightning modules.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_DEEPEST = 4  # wrappings within one another; a file can hold itself
_NAMED = 3  # keys that an error lists
_LONGEST = 200  # characters of each


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, on the CPU, by name.

    Args:
        path: safetensors (by the ending ``.safetensors``), or what ``torch.save(model.state_dict(), path)`` writes,
            also within a checkpoint under a usual name (``state_dict``, ``model``, ...). Nothing in the file is run.

    Raises:
        InvalidInputError: the file cannot be read, holds code, or holds no state dict.
    """
    if not path.is_file():
        raise InvalidInputError(f"weights: expected a file, got {path}, where there is none")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return _state_dict(content, path)


def load_weights(model: object, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a model, each in the model's own dtype; every name must have its counterpart.

    Prefixes that wrappers put before all names (``module.``, ...) are dropped where the model has none such.

    Args:
        model: a module; its parameters and buffers are replaced.
        weights: tensors by name.
        path: where they came from, for messages.

    Raises:
        InvalidTypeError: the model is no module.
        InvalidInputError: names or shapes differ; the message lists the first ones.
    """
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(f"weights: expected a torch.nn.Module to load them into, got {type(model).__name__}")
    state = _Versioned(without_prefix(weights, set(model.state_dict())))
    state._metadata = {"": {"version": model._version}}  # noqa: SLF001 - files hold none; torchvision's MNASNet asks
    problems = [_shapes(model, state)]
    if not problems[0]:
        outcome = model.load_state_dict(state, strict=False)
        problems = [_listed("missing", outcome.missing_keys), _listed("unexpected", outcome.unexpected_keys)]
    if any(problems):
        told = "; ".join(problem for problem in problems if problem)
        raise InvalidInputError(f"weights: {path} does not hold the weights of {type(model).__name__}: {told}")


def without_prefix(weights: Mapping[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """The same tensors, without the wrappers' prefixes that all their names have and none of ``own`` has.

    Example:
        >>> list(without_prefix({"module.weight": torch.zeros(1)}, {"weight"}))
        ['weight']
    """
    state = dict(weights)
    while True:
        common = [p for p in _PREFIXES if state and all(key.startswith(p) for key in state)]
        foreign = [p for p in common if not any(key.startswith(p) for key in own)]
        if not foreign:
            return state
        state = {key.removeprefix(foreign[0]): tensor for key, tensor in state.items()}


class _Versioned(OrderedDict[str, Tensor]):
    """A state dict as torch makes it: with the versions of the modules' forms."""

    _metadata: dict[str, dict[str, Any]]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_safetensors(path)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, TypeError, MemoryError) as error:
        raise InvalidInputError(f"weights: {path} cannot be read as safetensors ({error})") from error


def _read_torch(path: Path) -> object:
    try:
        return read_torch(path)
    except UnsafeFileError as error:
        raise InvalidInputError(f"weights: {path} is not read as a state dict of torch.save: {error}") from error
    except pickle.UnpicklingError as error:
        raise InvalidInputError(_holds_code(path, str(error))) from error
    except Exception as error:  # what torch raises on a damaged file has no end, and no common base
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InvalidInputError(f"weights: {path} cannot be read as a state dict of torch.save ({reason})") from error


def _holds_code(path: Path, details: str) -> str:
    named = next((word for word in details.split() if "." in word and word.replace(".", "").isidentifier()), "")
    return (
        f"weights: {path} holds objects besides tensors{f' ({named})' if named else ''}, and reading those runs code "
        'that the file brings, so it was not read. Where you trust it, convert it once to tensors: python -c "import '
        "sys, torch; from safetensors.torch import save_file; m = torch.load(sys.argv[1], weights_only=False); "
        "save_file({k: v.contiguous() for k, v in getattr(m, 'state_dict', lambda: m)().items()}, "
        f"'weights.safetensors')\" {shlex.quote(str(path))}"
    )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    depth = 0
    while isinstance(content, Mapping):
        inner = next((content[name] for name in _WRAPPINGS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        if depth == _DEEPEST:
            raise InvalidInputError(
                f"weights: expected a state dict in {path} within at most {_DEEPEST} of {list(_WRAPPINGS)}, got "
                "more of them within one another"
            )
        content, depth = inner, depth + 1
    if not isinstance(content, Mapping) or not content:
        got = "an empty one" if isinstance(content, Mapping) else type(content).__name__
        raise InvalidInputError(f"weights: expected a state dict in {path}, got {got}")
    wrong = [key for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if wrong:
        raise InvalidInputError(
            f"weights: expected a state dict of tensors in {path} (or one under {list(_WRAPPINGS)}), got "
            f"{_listed('other things', wrong)}"
        )
    odd = [key for key, value in content.items() if not is_plain(value)]
    if odd:
        raise InvalidInputError(
            f"weights: expected dense tensors in {path}, with as many numbers as their shapes say, got "
            f"{_listed('other ones', odd)}"
        )
    return dict(content)


def _shapes(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    own = model.state_dict()
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in state and isinstance(tensor, Tensor) and state[key].shape != tensor.shape
    ]
    return _listed("other shapes", wrong)


def _listed(what: str, names: list[Any]) -> str:
    if not names:
        return ""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{what}: {', '.join(_short(name) for name in names[:_NAMED])}{rest}"


def _short(name: object) -> str:
    """A name, or as much of it as a message can hold: a file's keys may be of any length and kind."""
    text = name if isinstance(name, str) else type(name).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
