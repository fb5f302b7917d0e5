"""The regularizer in a loop written with Fabric: attached to the model that ``fabric.setup`` wraps."""

from __future__ import annotations

from typing import Any

from lightning.fabric import Fabric
from torch import nn

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.training import AttachedRegularizer, LipschitzRegularizer, StrengthController, attach_regularizer
from captum_lipschitz_lightning.selection import FromModule, check_from_module, network_of


class FabricLipschitz:
    """Adds the penalty's gradient to each backward pass of the model that Fabric sets up: one process, cross entropy.

    A callback for ``Fabric(callbacks=[...])``; see ``attach_regularizer`` for what a loss may look like (mean cross
    entropy of integer labels, times any factor, such as a GradScaler's). In several processes it is refused; form the
    loss explicitly there, within ``fabric.setup(RegularizedModule(model, regularizer))``.

    Args:
        strength: psi: a number, or a controller.
        model: which part of the model returns the logits, a name or a function; ``None`` for the model itself.
        settings: the others of ``LipschitzRegularizer``. With ``accumulation_steps=None`` the optimiser's step ends a
            step of the regularizer.

    Raises:
        InvalidInputError: in ``fabric.setup``, for several processes or a second model.

    Example:
        >>> import torch
        >>> fabric = Fabric(accelerator="cpu", callbacks=[FabricLipschitz(strength=0.1)])
        >>> network = torch.nn.Linear(4, 3)
        >>> model, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=0.1))
        >>> loss = torch.nn.functional.cross_entropy(model(torch.rand(8, 4)), torch.zeros(8, dtype=torch.long))
        >>> fabric.backward(loss)
        >>> optimizer.step()

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    def __init__(
        self, *, strength: float | StrengthController, model: FromModule | None = None, **settings: Any
    ) -> None:
        check_from_module(model)
        self.regularizer = LipschitzRegularizer(strength=strength, **settings)
        self.model = model
        self.handle: AttachedRegularizer | None = None

    def on_after_setup(self, fabric: Fabric, module: Any) -> None:
        """Attach to the model, as Fabric has just set it up."""
        if self.handle is not None:
            raise InvalidInputError("model: expected one model per FabricLipschitz, fabric.setup was given a second")
        original: nn.Module = module.module
        network = original if self.model is None else network_of(original, self.model)
        self.handle = attach_regularizer(network, self.regularizer)

    def on_after_optimizer_step(self, strategy: Any, optimizer: Any) -> None:
        """End the regularizer's step, where it waits for that."""
        self.regularizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The regularizer's, for ``fabric.save(path, {"lipschitz": callback, ...})``."""
        return self.regularizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict()``'s answer."""
        self.regularizer.load_state_dict(state)
