"""Looking for doubts: every way in which a measured Accuracy-Robustness Area could be wrong, on a few images."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from captum_lipschitz._memory import as_many_as_fit
from captum_lipschitz._model import check_inputs
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import Problem
from captum_lipschitz.criteria import LabelFlips, Misclassified, Reaches
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Norm
from captum_lipschitz.metrics import area as _area
from captum_lipschitz.metrics import doubts as _doubts
from captum_lipschitz.metrics import probes
from captum_lipschitz.metrics.doubts import Doubt
from captum_lipschitz.metrics.measurement import Measurement

Depth = Literal["off", "quick", "full"]
"""How closely to look."""

_NOISE = 1e-4  # change of the logits between two runs, relative to their spread, that is more than rounding
_FAR = 1e3  # a linearised distance of so many distances between images is as good as no gradient
_COARSE = 0.01  # share of the criterion's value that one rounding step of the logits may be
_SUM_TOLERANCE = 1e-2  # of probabilities, also in half precision
_ENOUGH = 8  # outputs in [0, 1] that are not there by chance
_DIFFER_IN_EVALUATION = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.RReLU, nn.AlphaDropout,
    nn.FeatureAlphaDropout, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
)  # fmt: skip


def find_doubts(
    measurement: Measurement,
    images: Tensor,
    labels: Tensor,
    distances: Tensor,
    *,
    start: int = 0,
    depth: Depth = "quick",
    max_images: int = 16,
    generator: torch.Generator | None = None,
) -> tuple[Doubt, ...]:
    """Look for reasons to doubt what ``measurement.run(images, labels)`` found; nothing is left changed.

    Looked for: output that changes between two runs, or with an image's neighbours (BatchNorm in train mode behind a
    function); a model handed over in train mode; probabilities instead of logits (log-probabilities are logits, and
    fine); gradients that are zero or not finite; logits rounded more coarsely than the decision; a direction chosen
    without the image's gradient that reaches the criterion nearer than the attack did; and, with ``"full"``, distances
    that fall with more effort.

    Cost: at most 36 forward passes and one gradient evaluation per image checked, for sixteen images about what
    attacking five with ``MinimumNormAttack`` costs; ``"full"`` adds ``MinimumNormAttack(effort="thorough")`` for each.
    Where the output changes between runs the rest is left out. Where memory runs out, half as many images are checked.

    Args:
        measurement: model, attack, criterion, norm, bounds and device, as it was run.
        images: (M, ...), of one batch; the first ``max_images`` are checked.
        labels: (M,), or as the criterion has them.
        distances: (M,) or longer, in ``measurement.norm``: what was found for these images (``Part.distances``).
        start: index of the first image in the data, as given to ``Measurement.run``.
        depth: ``"quick"``, ``"full"``, or ``"off"``, which returns nothing.
        max_images: at least 1.
        generator: on the CPU, source of the random directions; ``None`` is a fixed seed, so that results repeat.

    Returns:
        The doubts, the gravest first; empty where there are none.

    Raises:
        InvalidInputError, InvalidTypeError: for arguments that cannot be used.

    Example:
        >>> from captum_lipschitz.metrics.measurement import Measurement
        >>> model, images = torch.nn.Linear(4, 3), torch.rand(8, 4)
        >>> measurement = Measurement(model, MinimumNormAttack(), Misclassified(), RMSE(), None, None)
        >>> labels = model(images).argmax(1)
        >>> find_doubts(measurement, images, labels, measurement.run(images, labels, start=0).distances)
        ()

    References:
        Croce and Hein 2020, arXiv 2003.01690 (AutoAttack, whose checks these follow); Pintor et al. 2022, arXiv
        2106.09947 (indicators of attack failure); Athalye et al. 2018, arXiv 1802.00420 (gradient masking).
    """
    check_depth(depth)
    check_inputs(images, "images")
    labels = measurement.criterion.check_labels(labels, len(images))
    if max_images < 1:
        raise InvalidInputError(f"max_images: expected at least 1, got {max_images}")
    if len(distances) < len(images):
        raise InvalidInputError(f"distances: expected one for each of {len(images)} images, got {len(distances)}")
    draws = _area.bootstrap_generator(generator)
    if depth == "off":
        return ()
    device = measurement.device or images.device
    before = draws.get_state()

    def look(count: int) -> list[Doubt]:
        draws.set_state(before)
        pool = images[: 2 * count].detach().to(device)
        criterion = measurement.criterion.rows(torch.arange(start, start + count))
        with settled(), no_trace(measurement.model, pool):
            pool = pool.clone()  # an ordinary tensor, whatever mode the caller's was made in
            problem = Problem(measurement.model, pool[:count], labels[:count].to(device), criterion, measurement.bounds)
            return _of_problem(problem, distances[:count].to(device).double(), measurement.norm, pool, draws, depth)

    found = _doubts.train_mode(_train_mode_layers(measurement.model))
    found += as_many_as_fit(look, min(max_images, len(images)), what="find_doubts", device=device)
    return tuple(sorted(found, key=lambda doubt: _doubts.GRAVITY.index(doubt.severity)))


def _of_problem(
    problem: Problem, sizes: Tensor, norm: Norm, pool: Tensor, generator: torch.Generator, depth: Depth
) -> list[Doubt]:
    """All doubts about the images of a problem, whose distances are ``sizes``, (N,) float64."""
    unstable = _doubts.random_output(probes.change_between_runs(problem), _tolerance(problem))
    neighbours = [] if unstable else _doubts.neighbours_matter(probes.change_among_copies(problem), _tolerance(problem))
    found = [*unstable, *neighbours, *_of_probabilities(problem)]
    open_rows = (sizes > 0).nonzero().squeeze(1)
    if len(open_rows) and not unstable:
        part, at_most = problem.rows(open_rows), sizes[open_rows]
        found += _of_attack(part, at_most, norm, pool, generator)
        if depth == "full":
            smaller = sizes.clone()
            smaller[open_rows] = probes.distances_with_more_effort(part, norm, at_most)
            found += _doubts.more_effort_helps(sizes, smaller, _uniform_chance(problem))
    return found


def check_depth(depth: object) -> None:
    """Raise ``InvalidInputError`` for a depth that is not one of ``Depth``."""
    if depth not in get_args(Depth):
        raise InvalidInputError(f"doubts: expected one of {sorted(get_args(Depth))}, got {depth!r}")


def _train_mode_layers(model: Model) -> int:
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return sum(isinstance(module, _DIFFER_IN_EVALUATION) and module.training for module in modules)


def _of_probabilities(problem: Problem) -> list[Doubt]:
    logits = problem.logits(torch.zeros_like(problem.inputs)).double()
    unit = bool(((logits >= 0) & (logits <= 1)).all())
    if isinstance(problem.criterion, LabelFlips):
        seen = unit and logits.numel() >= _ENOUGH
    else:
        seen = unit and bool(((logits.sum(1) - 1).abs() < _SUM_TOLERANCE).all())
    decides = isinstance(problem.criterion, (Misclassified, Reaches))
    return _doubts.probabilities(len(logits) if seen else 0, decides=decides)


def _of_attack(
    problem: Problem, distances: Tensor, norm: Norm, pool: Tensor, generator: torch.Generator
) -> list[Doubt]:
    """What the images' gradients, their logits' rounding and straight lines say of the distances, (N,)."""
    at = probes.slopes(problem)
    far = probes.linearised_distances(at, norm) > _FAR * probes.extent(problem.inputs, norm)
    coarse = probes.resolution(problem, at.value) > _COARSE
    blind = probes.blind_sizes(problem, norm, distances, pool, at, generator)
    return [
        *_doubts.undefined_gradients(int((~at.finite).sum()), len(problem)),
        *_doubts.zero_gradients(int((far & at.finite).sum()), len(problem)),
        *_doubts.coarse_logits(float(coarse.double().mean())),
        *_doubts.blind_attack_wins(distances, blind),
    ]


def _uniform_chance(problem: Problem) -> float:
    outputs = problem.logits(torch.zeros_like(problem.inputs)).shape[1]
    return 1 / problem.criterion.classes(problem.labels, outputs)[1]


def _tolerance(problem: Problem) -> float:
    return max(_NOISE, 4 * torch.finfo(problem.inputs.dtype).eps)
