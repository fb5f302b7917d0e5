"""Half-Huber activations in the networks of timm."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import timm
from timm import layers
from timm.layers import activations_me
from torch import nn

from captum_lipschitz.errors import (
    CaptumLipschitzWarning,
    InvalidInputError,
    InvalidTypeError,
    UnreachableActivationError,
)
from captum_lipschitz.nn import HalfHuberReLU
from captum_lipschitz_timm.nonlinearities import Nonlinearity, nonlinearities

_KINKED: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.SELU, nn.Hardswish),
    *(layers.HardSwish, activations_me.HardSwishMe, layers.HardMish, activations_me.HardMishMe),
)
_SMOOTH: tuple[type[nn.Module], ...] = (
    *(nn.SiLU, nn.GELU, nn.Mish, nn.ELU, nn.CELU, nn.Softplus),
    *(layers.Swish, activations_me.SwishMe, layers.Mish, activations_me.MishMe),
    *(layers.GELU, layers.GELUTanh, layers.QuickGELU),
)
_KINKED_GATES: tuple[type[nn.Module], ...] = (nn.Hardsigmoid, layers.HardSigmoid, activations_me.HardSigmoidMe)


class Conversion(NamedTuple):
    """What became of a network's activations.

    Attributes:
        model: the network, the same object.
        replaced: by the submodule's path, what it was and is: ``{"act1": "ReLU -> HalfHuberReLU"}``.
        kept: by path, the functions that are as they were, of submodules and of code: ``{"maxpool": "max_pool2d"}``.
    """

    model: nn.Module
    replaced: dict[str, str]
    kept: dict[str, str]


def with_half_huber(
    model: nn.Module,
    *,
    delta: float = 0.5,
    keep_smooth: bool = False,
    keep: Collection[str] = (),
    input_size: Sequence[int] | None = None,
    check: bool = True,
) -> Conversion:
    """Make every activation of a timm network a half-Huber ReLU, in place, and keep its weights.

    ReLU, ReLU6, Hardswish, SiLU, GELU and their like become ``HalfHuberReLU``, also within fused norm layers
    (``BatchNormAct2d``), squeeze and excitation and gated MLPs. A gate (sigmoid, tanh) is smooth and stays; a hard
    sigmoid, which is not, becomes a sigmoid. Max pooling stays (``amax`` and ``max`` over a dimension, too), and is
    named in ``kept``. The names in the ``state_dict`` are those of before, so checkpoints load before and after.

    A forward pass without data shows which functions the network calls, also in its own code, and a kinked one that is
    left is an error; the network is not changed then. Recognised are PyTorch's activations, ``abs``, ``maximum`` and
    ``minimum`` of two tensors, and ``clamp`` to numbers (a least value alone that is above 0 and at most 0.001 is taken
    for the guard of a division). **Not seen** are ``torch.where``, masks by comparison (``x * (x > 0)``), clamping to
    tensors, and what a network does with other images or in training mode only.

    Args:
        model: of ``timm.create_model``, or any network of such modules.
        delta: where the parabola ends, positive; the paper's is 0.5.
        keep_smooth: leave SiLU, GELU and other smooth activations, with which a penalty can be learnt as well
            (arXiv 2409.20139), and replace those with a kink only.
        keep: paths of submodules within which all stays as it is, kinked or not.
        input_size: (C, H, W) of an image for the pass without data; ``None`` takes the network's own.
        check: whether to make that pass. Without it calls of functions are not seen, and ``kept`` is empty.

    Call it before ``task.setup_ema()``, which copies the network with the activations that it has then.

    Returns:
        The model and what was replaced and kept.

    Raises:
        UnreachableActivationError: something kinked could not be replaced: a function called in the network's code,
            a PReLU (it has weights), or an activation unknown here. It names them all.
        InvalidInputError, InvalidTypeError: settings that cannot be used, nothing to replace, or a network that cannot
            be run with ``input_size``.

    Warns:
        CaptumLipschitzWarning: there is no normalisation layer, without which half-Huber networks collapse under
            default initialisation.

    Example:
        >>> model = timm.create_model("resnet18", num_classes=10)
        >>> done = with_half_huber(model)
        >>> len(done.replaced), done.replaced["act1"], done.kept
        (17, 'ReLU -> HalfHuberReLU', {'maxpool': 'max_pool2d'})

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods ("half-Huber ReLU").
    """
    _check_arguments(model, keep)
    half_huber = partial(HalfHuberReLU, delta)
    half_huber()  # refuses a delta that cannot be used before anything is replaced
    plan = _plan(model, kept_within=keep, keep_smooth=keep_smooth)
    left = [one for one in _seen(model, input_size) if one.path not in plan] if check else []
    converted = [path for path, module in model.named_modules() if type(module) is HalfHuberReLU]
    left = [one for one in left if one.path not in converted]
    _refuse_kinks(model, [one for one in left if one.nature == "kinked" and not _within(one.path, keep)])
    if not plan and not converted:
        raise InvalidInputError(f"model: expected activations to replace, {type(model).__name__} has none that we know")
    _warn_without_normalisation(model)
    replaced = _replace(model, plan, half_huber)
    kept: dict[str, set[str]] = {}
    for one in left:
        kept.setdefault(one.path, set()).add(one.function)
    return Conversion(model, replaced, {path: ", ".join(sorted(names)) for path, names in kept.items()})


def create_robust_model(
    name: str,
    *,
    delta: float = 0.5,
    keep_smooth: bool = False,
    keep: Collection[str] = (),
    input_size: Sequence[int] | None = None,
    check: bool = True,
    **settings: Any,
) -> nn.Module:
    """``timm.create_model(name, **settings)`` with half-Huber activations, see ``with_half_huber``.

    Args:
        name: of a network of timm's.
        delta: as ``with_half_huber`` takes it.
        keep_smooth: as ``with_half_huber`` takes it.
        keep: as ``with_half_huber`` takes it.
        input_size: as ``with_half_huber`` takes it; ``None`` takes ``img_size``, where it is among the settings.
        check: as ``with_half_huber`` takes it.
        settings: of ``timm.create_model``: ``pretrained``, ``num_classes``, ``img_size``, ...

    Raises:
        UnreachableActivationError, InvalidInputError, InvalidTypeError: as ``with_half_huber`` does.

    Example:
        >>> model = create_robust_model("vit_tiny_patch16_224", img_size=32, num_classes=10)
        >>> model.blocks[0].mlp.act
        HalfHuberReLU(delta=0.5)
    """
    model = timm.create_model(name, **settings)
    image = settings.get("img_size")
    if input_size is None and image is not None:
        height, width = (image, image) if isinstance(image, int) else image
        input_size = (_own_input_size(model)[0], height, width)
    return with_half_huber(
        model, delta=delta, keep_smooth=keep_smooth, keep=keep, input_size=input_size, check=check
    ).model


def _check_arguments(model: object, keep: Collection[str]) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    if isinstance(model, (*_KINKED, *_SMOOTH, *_KINKED_GATES, HalfHuberReLU)):
        raise InvalidInputError(f"model: expected a network, got an activation, {type(model).__name__}")
    if isinstance(keep, str):
        raise InvalidTypeError(f"keep: expected several paths, [{keep!r}], got one string")
    unknown = sorted(set(keep) - {path for path, _ in model.named_modules(remove_duplicate=False)})
    if unknown:
        raise InvalidInputError(f"keep: expected paths of submodules of {type(model).__name__}, got {unknown}")


def _plan(model: nn.Module, *, kept_within: Collection[str], keep_smooth: bool) -> dict[str, nn.Module]:
    """The submodules to replace, by each of their paths."""
    types = (*_KINKED, *_KINKED_GATES) if keep_smooth else (*_KINKED, *_KINKED_GATES, *_SMOOTH)
    return {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if type(module) in types and not _within(path, kept_within)
    }


def _replace(model: nn.Module, plan: dict[str, nn.Module], half_huber: Any) -> dict[str, str]:
    made: dict[nn.Module, nn.Module] = {}  # a module that several places share stays shared
    replaced = {}
    for path, old in plan.items():
        if old not in made:
            made[old] = (nn.Sigmoid() if type(old) in _KINKED_GATES else half_huber()).train(old.training)
        model.set_submodule(path, made[old])
        replaced[path] = f"{type(old).__name__} -> {type(made[old]).__name__}"
    return replaced


def _seen(model: nn.Module, input_size: Sequence[int] | None) -> list[Nonlinearity]:
    size = tuple(input_size) if input_size is not None else _own_input_size(model)
    try:
        return nonlinearities(model, size)
    except Exception as error:
        raise InvalidInputError(
            f"input_size: expected the (C, H, W) of an image that {type(model).__name__} can be run with, to see "
            f"which functions it calls; with {size} it says: {error}. Pass input_size=, or check=False to look at "
            "submodules only"
        ) from error


def _own_input_size(model: nn.Module) -> tuple[int, ...]:
    configured = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    channels, height, width = configured.get("input_size") or (3, 224, 224)
    patches = getattr(model, "patch_embed", None)
    image = getattr(patches, "img_size", None)
    if isinstance(image, (tuple, list)):
        height, width = image
    # A parameter of four dimensions need not be a convolution's: there are positional embeddings of that shape.
    declared = getattr(model, "in_chans", None) or getattr(patches, "in_chans", None)
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if isinstance(declared, int):
        channels = declared
    elif first is not None:
        channels = first.in_channels
    return (channels, height, width)


def _refuse_kinks(model: nn.Module, kinks: Sequence[Nonlinearity]) -> None:
    if not kinks:
        return
    lines = {f"  {_where(model, one.path)} calls {one.function}" for one in kinks}
    listing = "\n".join(sorted(lines))
    raise UnreachableActivationError(
        f"model: {type(model).__name__} has activations with a kink that cannot be replaced:\n{listing}\n"
        "Nothing was replaced. Make them submodules that are known here (nn.ReLU, ...), or name those that may stay, "
        "keep=[...]"
    )


def _warn_without_normalisation(model: nn.Module) -> None:
    # timm has dozens of normalisations, of layers and of weights (ScaledStdConv2d); their names tell them all.
    if not any("norm" in (name := type(module).__name__.lower()) or "stdconv" in name for module in model.modules()):
        warnings.warn(
            f"with_half_huber: {type(model).__name__} has no normalisation layer; with default initialisation a "
            "half-Huber network then shrinks its signals to a constant. Normalise, or initialise for it.",
            CaptumLipschitzWarning,
            stacklevel=3,
        )


def _where(model: nn.Module, path: str) -> str:
    return f"{path or '(the model itself)'}: {type(model.get_submodule(path)).__name__}"


def activations(model: nn.Module) -> dict[str, str]:
    """The activations that are known here, by path: ``{"act1": "ReLU(inplace=True)"}``."""
    types = (*_KINKED, *_SMOOTH, *_KINKED_GATES, HalfHuberReLU)
    return {path: repr(module) for path, module in model.named_modules() if isinstance(module, types)}


def _within(path: str, parents: Collection[str]) -> bool:
    return any(path == parent or path.startswith(f"{parent}.") for parent in parents)
