"""Attributions of the inputs, by their name in captum_lipschitz's registry."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.plugin import create, get
from captum_lipschitz_quantus.explainer import Explainer, over_channels


class AttributionExplainer(Explainer):
    """What ``explain_func`` returns."""

    def explain(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        attribution = create("attribution", self.name, model)
        found = self.attributed(attribution.attribute, inputs, targets)
        if found.shape != inputs.shape:
            raise InvalidInputError(
                f"{self.name!r}: expected attributions of the inputs' shape, {tuple(inputs.shape)}, got "
                f"{tuple(found.shape)}"
            )
        return over_channels(found, self.reduce)


def explain_func(
    name: str, *, reduce: Literal["sum", "abs-sum"] | None = "sum", **settings: Any
) -> AttributionExplainer:
    """An explanation function for Quantus of any installed attribution.

    Args:
        name: as ``captum-lipschitz plugins`` lists it: ``"adversarial"``, ``"contrastive"``, ``"minimal"``, or a
            plugin's.
        reduce: of the channels of images, which become one: ``"sum"`` as Quantus does with Captum's attributions,
            ``"abs-sum"`` where opposite changes of colour shall not cancel, ``None`` to keep them. Localisation metrics
            need one channel.
        **settings: of the attribution's ``attribute``, such as ``rho``, ``n_steps``, ``bounds``, ``norm``. Quantus
            chooses batches as it likes: numbers, and tensors that broadcast, not one value for each image.

    Returns:
        A function for ``explain_func=`` of a metric, or a row of ``quantus.evaluate``'s ``xai_methods``.

    Raises:
        UnknownNameError: there is no such attribution; the message lists those there are.
        InvalidInputError: for another ``reduce``. Settings are checked with the first explanation.

    Example:
        >>> import numpy as np, torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10)).eval()
        >>> images, labels = np.random.rand(2, 3, 4, 4), np.array([3, 5])
        >>> explain_func("adversarial", rho=0.05)(model, images, labels).shape
        (2, 1, 4, 4)
        >>> import quantus
        >>> metric = quantus.Sparseness(disable_warnings=True)
        >>> scores = metric(model, images, labels, explain_func=explain_func("contrastive", n_steps=5))
        >>> len(scores)
        2

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (the attributions); Hedstroem et al. 2023, arXiv 2202.06861
        (Quantus).
    """
    get("attribution", name)
    return AttributionExplainer(name, reduce, settings)
