"""ROAD by Quantus: does the decision hold when the important positions are filled in from their surroundings?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.metrics.fidelity.curves import check_maps_fit
from captum_lipschitz.metrics.fidelity.draws import seed_of
from captum_lipschitz.metrics.fidelity.optional import check_possible, quietly
from captum_lipschitz.metrics.fidelity.outputs import checked, logits_of
from captum_lipschitz.metrics.fidelity.settings import check_percentages
from captum_lipschitz.metrics.maps import ranking


def road(
    model: Model,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    *,
    percentages: tuple[float, ...] = (10, 30, 50, 70, 90),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Share of removal levels at which the model still decides for the target.

    Quantus's ``ROAD``, most relevant first: removed positions are filled in by a noisy linear interpolation of what
    surrounds them, so that the shape of what was removed tells the model little. Quantus itself reports the mean over
    images for each level; this is the mean over levels for each image.

    Args:
        model: maps (N, C, H, W) to logits; a module is run in evaluation mode and left as it was.
        images: floating, (N, C, H, W).
        targets: classes, (N,).
        maps: (N, H, W) as ``position_maps`` makes them; ranked by value, the largest first.
        percentages: of the positions that are removed, between 0 and 100.
        generator: its initial seed is what counts, with each image's values; it is not moved on.

    Returns:
        (N,), float64, on the CPU, in [0, 1]; NaN where the clean image is not decided for the target, or where the map
        is the same everywhere or not finite.

    Raises:
        MissingDependencyError: Quantus is not installed; the message says how.
        InvalidInputError, InvalidTypeError, ModelOutputError: for what cannot be used.

    References:
        Rong, Leemann, Borisov, Kasneci and Kasneci 2022, arXiv 2202.00449; Hedström et al. 2023, arXiv 2202.06861
        (Quantus).
    """
    images, targets = checked(images, targets)
    check_percentages(percentages, "percentages")
    check_maps_fit(maps, images)
    check_possible("road", model, images)
    with settled(), quietly(), no_trace(model, images):
        known = ranking(maps) & (logits_of(model, images, targets).argmax(1) == targets)
        found = torch.full((len(images),), torch.nan, dtype=torch.float64)
        rows = known.nonzero().squeeze(1)
        if len(rows):
            scores = _decided(model, images[rows], targets[rows], maps[rows], percentages, seed_of(generator))
            found[rows.cpu()] = torch.as_tensor(scores, dtype=torch.float64).mean(1)
    return found


def _decided(
    model: Model, images: Tensor, targets: Tensor, maps: Tensor, percentages: tuple[float, ...], seed: int
) -> Any:
    """Whether each image is still decided for its target at each level, (N, levels)."""
    from quantus.functions.perturb_func import noisy_linear_imputation
    from quantus.helpers.model.pytorch_model import PyTorchModel
    from quantus.metrics.faithfulness.road import ROAD

    def filled_in(arr: Any, indices: Any, **settings: Any) -> Any:
        source = np.frombuffer(np.ascontiguousarray(arr, dtype=np.float64).tobytes(), dtype=np.uint32)
        np.random.seed(np.random.SeedSequence([seed, *source]).generate_state(4))  # noqa: NPY002 - Quantus draws there
        return noisy_linear_imputation(arr=arr, indices=indices, **settings)

    metric: Any = ROAD(
        percentages=list(percentages), perturb_func=filled_in, normalise=False, disable_warnings=True,
        display_progressbar=False,
    )  # fmt: skip
    # Quantus broadcasts a map over channels and then takes an index into all of them for a position, which fails for
    # more than one channel. So the map is given in the first channel, and the others rank below everything.
    metric.a_size = maps[0].numel()
    ranked = torch.full(images.shape, -torch.inf, dtype=torch.float64)
    ranked[:, 0] = maps.detach().double().cpu()
    wrapped = PyTorchModel(_AsModule(model, images), channel_first=True, softmax=False)
    (decided,) = metric.evaluate_batch(
        model=wrapped, x_batch=images.cpu().numpy(), y_batch=targets.cpu().numpy(), a_batch=ranked.numpy()
    )
    return decided


class _AsModule(nn.Module):
    """Any model, as Quantus wants it: a module in evaluation mode that takes what comes from NumPy."""

    def __init__(self, model: Model, like: Tensor) -> None:
        super().__init__()
        self._call = [model]  # in a list: not a submodule, whose modes are not this one's business
        self._like = like
        self.training = False

    def forward(self, inputs: Tensor) -> Tensor:
        return logits_of(self._call[0], inputs.to(self._like))
