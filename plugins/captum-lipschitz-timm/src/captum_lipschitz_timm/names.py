"""The half-Huber ReLU under a name of timm's, ``act_layer="half_huber"``."""

from __future__ import annotations

from typing import Any

from timm.layers import create_act
from torch import Tensor
from torch.nn import functional as F

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.nn import HalfHuberReLU

DELTA = 0.5


def half_huber_layer(*, inplace: bool = False, delta: float = DELTA) -> HalfHuberReLU:  # noqa: ARG001
    """What timm's networks take as ``act_layer``: makes a ``HalfHuberReLU``.

    A function, as timm calls ``act_layer(inplace=True)``, which the module itself does not know, and as tools that look
    at activations by their exact type (Captum's DeepLift) would not know a subclass.

    Args:
        inplace: without effect; the derivative needs the input.
        delta: where the parabola ends, positive.

    Raises:
        InvalidInputError: delta is not positive.

    Example:
        >>> half_huber_layer(inplace=True)
        HalfHuberReLU(delta=0.5)
    """
    return HalfHuberReLU(delta)


def half_huber_function(x: Tensor, inplace: bool = False) -> Tensor:  # noqa: ARG001, FBT001, FBT002 - as timm calls it
    """The same as a function, with the paper's delta of 0.5, for ``timm.layers.get_act_fn``.

    Args:
        x: any shape.
        inplace: without effect.
    """
    active = F.relu(x)
    return F.huber_loss(active, active.new_zeros(()).expand_as(active), reduction="none", delta=DELTA) / DELTA


def register(name: str = "half_huber") -> None:
    """Make ``timm.create_model(..., act_layer="half_huber")`` work, and ``--model-kwargs act_layer=half_huber``.

    Nothing is registered before this is called. timm has no function to add an activation, so the name is put into its
    tables. Some of timm's networks have activations that no ``act_layer`` reaches (squeeze and excitation in
    ``seresnet50``, all of ``mobilenetv3_small_050``'s ReLUs): ``with_half_huber`` finds those.

    Args:
        name: lower case, as timm looks it up. Again the same name does nothing.

    Raises:
        InvalidInputError: the name is one of timm's own or somebody else's, or is not in lower case.

    Example:
        >>> import timm
        >>> register()
        >>> timm.create_model("resnet18", act_layer="half_huber").act1
        HalfHuberReLU(delta=0.5)
    """
    tables: list[tuple[dict[str, Any], Any]] = [
        (create_act._ACT_LAYER_DEFAULT, half_huber_layer),  # noqa: SLF001 - timm has no other way
        (create_act._ACT_FN_DEFAULT, half_huber_function),  # noqa: SLF001
    ]
    if not name or name != name.lower():
        raise InvalidInputError(f"name: expected lower case, as timm looks names up, got {name!r}")
    others = (create_act._ACT_LAYER_ME, create_act._ACT_FN_ME)  # noqa: SLF001 - looked at first
    taken = any(name in table for table in others) or any(table.get(name, ours) is not ours for table, ours in tables)
    if taken:
        raise InvalidInputError(f"name: expected one that timm has no activation of yet, got {name!r}")
    for table, ours in tables:
        table[name] = ours
