"""The test of randomised parameters by Quantus: does the explanation look at the model at all?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.geometry import rowwise
from captum_lipschitz.metrics.fidelity.curves import check_maps_fit
from captum_lipschitz.metrics.fidelity.draws import seed_of
from captum_lipschitz.metrics.fidelity.optional import check_possible, quietly
from captum_lipschitz.metrics.fidelity.outputs import checked
from captum_lipschitz.metrics.maps import Make, attributed, check_explain, position_maps, ranking


def parameter_randomisation(
    model: Model,
    images: Tensor,
    targets: Tensor,
    *,
    make: Make,
    maps: Tensor | None = None,
    magnitude: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Rank correlation of each image's map with the one that the method makes of the model, parameters randomised.

    Quantus's ``MPRT`` at its last stage: every layer that can reset its parameters has done so, in a copy. A map that
    stays as it was shows the image and not what the model has learnt. The test fails a method; it passes none: maps of
    noise pass.

    Args:
        model: a module that can be copied, (N, ...) to logits; run in evaluation mode and left as it was.
        images: floating, (N, ...).
        targets: classes, (N,).
        make: the method, ``make(model)`` gives ``explain(images, targets)``.
        maps: (N, H, W) of the model itself, where they are known already.
        magnitude: maps are sums of magnitudes over channels; otherwise of signed values.
        generator: its initial seed is what counts; it is not moved on.

    Returns:
        (N,), float64, on the CPU, in [-1, 1]; NaN where a map is the same everywhere, or not finite.

    Raises:
        MissingDependencyError: Quantus is not installed; the message says how.
        InvalidInputError, InvalidTypeError: for what cannot be used, also a model without layers that can be reset.

    References:
        Adebayo et al. 2018, arXiv 1810.03292 (cascading randomisation); Hedström et al. 2023, arXiv 2202.06861
        (Quantus).
    """
    images, targets = checked(images, targets)
    check_explain(make, "make")
    check_possible("parameter_randomisation", model, images)
    with settled(), quietly(), no_trace(model, images):
        if maps is None:
            maps = position_maps(attributed(make(model), images, targets), images, magnitude=magnitude)
        check_maps_fit(maps, images)
        found = torch.full((len(images),), torch.nan, dtype=torch.float64)
        rows = ranking(maps).nonzero().squeeze(1)
        if len(rows):
            subject = _Subject(model, make, images[rows], targets[rows], maps[rows], magnitude=magnitude)
            found[rows.cpu()] = subject.correlations(seed_of(generator))
    return found


class _Subject:
    """A method on images whose maps are known, as Quantus asks for explanations: of NumPy arrays, for any model."""

    def __init__(
        self, model: Model, make: Make, images: Tensor, targets: Tensor, maps: Tensor, *, magnitude: bool
    ) -> None:
        self._model = model
        self._make = make
        self._images = images
        self._targets = targets
        self._maps = maps
        self._magnitude = magnitude
        self._known = torch.ones(len(images), dtype=torch.bool)

    def correlations(self, seed: int) -> Tensor:
        from quantus.metrics.randomisation.mprt import MPRT

        metric = MPRT(
            layer_order="top_down", seed=seed % 2**31, skip_layers=True, return_last_correlation=True, abs=False,
            normalise=False, disable_warnings=True, display_progressbar=False,
        )  # fmt: skip
        found = metric(
            model=self._model, x_batch=self._images.cpu().numpy(), y_batch=self._targets.cpu().numpy(),
            a_batch=self._array(self._maps), explain_func=self.explained, channel_first=True, softmax=False,
            batch_size=len(self._images),
        )  # fmt: skip
        return torch.tensor(found, dtype=torch.float64).where(self._known.cpu(), torch.nan)

    def explained(self, model: nn.Module, **_: Any) -> Any:
        """Of the model itself or of the randomised copy; Quantus's copies of images and targets are not needed."""
        if model is self._model:
            return self._array(self._maps)
        attributions = attributed(self._make(model), self._images, self._targets)
        maps = position_maps(attributions, self._images, magnitude=self._magnitude)
        self._known = ranking(maps)
        return self._array(maps.where(rowwise(self._known, maps), self._maps))  # Quantus refuses empty maps

    def _array(self, maps: Tensor) -> Any:
        """With channels, as the images have them, and from 0 up, as Quantus refuses maps that are negative throughout.

        Neither changes the correlation of ranks.
        """
        maps = maps - rowwise(maps.flatten(1).amin(1), maps)
        maps = maps if maps.dim() == 2 else maps[:, None]
        return maps.detach().double().expand_as(self._images).cpu().numpy()
