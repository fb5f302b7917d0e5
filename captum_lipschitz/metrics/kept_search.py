"""A search for small perturbations within two limits: the decision changed, the explanation kept."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._model import check_logits, gradient
from captum_lipschitz._typing import Model
from captum_lipschitz.criteria import Misclassified
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError
from captum_lipschitz.geometry import Bounds, row_dot, rowwise
from captum_lipschitz.metrics.maps import Explain, attributed, position_maps
from captum_lipschitz.metrics.similarity import cosine_similarity
from captum_lipschitz.metrics.verification import verified

_REACH = (0.5, 0.02)  # the longest step relative to the perturbation: at the start, at the end
_AIM = 0.02  # how far inside both limits to aim at first, relative to the perturbation
_AIM_GROWTH, _AIM_SHRINK, _AIM_RANGE = 1.5, 0.7, (1e-5, 0.5)
_MOMENTUM = 0.85  # share of the previous move that is added before projecting
_DECAY = 20.0  # steps over which the pull to the origin falls by a factor e
_PULL = (0.5, 0.05)  # weight of the origin's own projection: at the start, at the end
_SWEEPS = 40  # over two multipliers
_HALVINGS = 6  # of the last stretch between image and answer
_STRETCH = 0.1  # the length of that stretch relative to the answer
_CLOSE = 1e-3  # angle, in radians, below which two maps may differ by rounding
_EDGE = 1 - 1e-7  # cosine from which on the angle's derivative has no limit, and none is needed
_SLACK = 1e-6  # by which an angle must keep its limit, so that rounding does not decide


class Terms(NamedTuple):
    """What counts as a kept explanation, and as an image.

    Attributes:
        similarity: least cosine of the maps, or of the maps about their means.
        centred: about their means, which makes it a correlation.
        magnitude: maps of magnitudes.
        bounds: the box that images must stay in, or ``None``.
    """

    similarity: float
    centred: bool
    magnitude: bool
    bounds: Bounds | None


class _Look(NamedTuple):
    """At perturbed images: the criterion's value, (M,), the explanation's angle from before, (M,), and their slopes."""

    value: Tensor
    angle: Tensor
    of_value: Tensor
    of_angle: Tensor


class Search:
    """The search for images, (M, ...), that are decided rightly.

    Args:
        model: maps (M, ...) to logits (M, C).
        explain: the method.
        images: (M, ...).
        labels: (M,).
        terms: of an answer.
        surrogate: a method whose derivative is followed in place of the method's own.
    """

    def __init__(
        self, model: Model, explain: Explain, images: Tensor, labels: Tensor, terms: Terms, surrogate: Explain | None
    ) -> None:
        self._model = model
        self._explain = explain
        self._images = images
        self._labels = labels
        self._terms = terms
        self._surrogate = surrogate
        self._before = self._map(attributed(explain, images, labels))
        self._surrogate_before = self._before
        if surrogate is not None:
            self._surrogate_before = self._map(attributed(surrogate, images, labels))

    def images_at(self, delta: Tensor) -> Tensor:
        images = self._images + delta
        return images if self._terms.bounds is None else self._terms.bounds.clamp(images)

    def alike(self, images: Tensor) -> Tensor:
        """Similarity of the explanations before and of these images, (M,)."""
        return cosine_similarity(self._before, self._map(attributed(self._explain, images, self._labels)))

    def run(self, delta: Tensor, steps: int) -> Tensor:
        """From perturbations that change the decision, (M, ...), to smaller ones that keep the explanation as well.

        Rows for which none was seen hold some other perturbation.
        """
        best, best_size = delta, torch.full((len(delta),), math.inf, dtype=torch.float64, device=delta.device)
        previous, blind = delta, True
        aim = torch.full((2, len(delta)), _AIM, dtype=delta.dtype, device=delta.device)
        limit = math.acos(self._terms.similarity)
        for k in range(steps):
            look = self._look(delta)
            blind = blind and not bool(look.of_angle.any())
            gaps = torch.stack([look.value, (look.angle - limit).to(look.value.dtype)])
            met = (gaps <= torch.tensor([[0.0], [-_SLACK]]).to(gaps)).all(0)
            best, best_size = _smaller(delta, met, best, best_size)
            aim = torch.where(gaps <= 0, _AIM_SHRINK * aim, _AIM_GROWTH * aim).clamp(*_AIM_RANGE)
            moved = delta + _move(
                delta, previous, look, gaps, aim, k / steps, max(_PULL[1], _PULL[0] * math.exp(-k / _DECAY))
            )
            previous, delta = delta, self.images_at(moved) - self._images
        best, best_size = _smaller(delta, self._meets(delta), best, best_size)
        if blind and bool(torch.isinf(best_size).any()):
            _warn_of_blindness()
        return self._shortened(best)

    def _map(self, attributions: Tensor) -> Tensor:
        """Maps, (M, P) float64, as they are compared; differentiable."""
        maps = position_maps(attributions, self._images, magnitude=self._terms.magnitude).double().flatten(1)
        return maps - maps.mean(1, keepdim=True) if self._terms.centred else maps

    def _meets(self, delta: Tensor) -> Tensor:
        """Whether both limits are met, (M,) bool."""
        images = self.images_at(delta)
        answer = verified(self._model, self._images, self._labels, images)
        return torch.isfinite(answer.distances) & (self.alike(images) >= self._terms.similarity)

    def _shortened(self, best: Tensor) -> Tensor:
        near = torch.full((len(best),), 1 - _STRETCH, dtype=best.dtype, device=best.device)
        far = torch.ones_like(near)
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            met = self._meets(rowwise(middle, best) * best)
            near, far = torch.where(met, near, middle), torch.where(met, middle, far)
        return rowwise(far, best) * best

    def _look(self, delta: Tensor) -> _Look:
        leaf = self.images_at(delta).detach().requires_grad_()
        logits = check_logits(self._model(leaf), len(leaf), finite=False)
        value = Misclassified().value(logits, self._labels)
        of_value = gradient(value, leaf)
        angle, of_angle = self._angle(leaf)
        if self._surrogate is not None:
            angle = _angle_between(self._map(attributed(self._explain, leaf, self._labels)), self._before)
        return _Look(
            value=value.detach().where(torch.isfinite(logits.detach()).all(1), math.inf),
            angle=angle.detach().nan_to_num(nan=math.pi),
            of_value=_finite_rows(of_value),
            of_angle=_finite_rows(of_angle),
        )

    def _angle(self, leaf: Tensor) -> tuple[Tensor, Tensor]:
        """Angle, (M,), between the maps before and at ``leaf`` of the method that is differentiated, and its slope."""
        explain = self._explain if self._surrogate is None else self._surrogate
        attributions = explain(leaf, self._labels.clone())
        if isinstance(attributions, Tensor) and not attributions.requires_grad:
            raise _not_differentiable("they do not require grad")
        angle = _angle_between(self._map(attributions), self._surrogate_before)
        (slope,) = torch.autograd.grad(angle.sum(), leaf, allow_unused=True)
        if slope is not None:
            return angle, slope
        if bool((angle > _CLOSE).any()):  # a linear model's gradient depends on no image; but then it stays the same
            raise _not_differentiable("they differ between images, and no derivative says how")
        return angle, torch.zeros_like(leaf)


def _angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Of matching rows, (M, P) to (M,), in radians; NaN where one is zero."""
    cosine = row_dot(a, b) / (row_dot(a, a).sqrt() * row_dot(b, b).sqrt())
    return cosine.clamp(-_EDGE, _EDGE).acos()


def _finite_rows(slopes: Tensor) -> Tensor:
    usable = torch.isfinite(slopes).flatten(1).all(1)
    return slopes.where(rowwise(usable, slopes), torch.zeros_like(slopes))


def _smaller(delta: Tensor, met: Tensor, best: Tensor, best_size: Tensor) -> tuple[Tensor, Tensor]:
    size = delta.double().flatten(1).square().mean(1).sqrt()
    better = met & (size < best_size)
    return torch.where(rowwise(better, delta), delta, best), torch.where(better, size, best_size)


def _move(
    delta: Tensor, previous: Tensor, look: _Look, gaps: Tensor, aim: Tensor, progress: float, pull: float
) -> Tensor:
    """A step toward small perturbations that, as the gradients promise, lie within both limits.

    As ``MinimumNormAttack`` steps onto one boundary: the projection of where momentum leads, drawn toward the origin's.
    """
    sizes = delta.flatten(1).norm(dim=1)
    normals, offsets = [], []
    for slope, gap, inside in zip((look.of_value, look.of_angle), gaps, aim, strict=True):
        length = slope.flatten(1).norm(dim=1)
        usable = (length > 0) & torch.isfinite(gap)
        normal = slope / rowwise(length.where(usable, torch.ones_like(length)), slope)
        offset = row_dot(normal, delta) - gap / length - inside * sizes
        normals.append(normal)
        offsets.append(offset.where(usable, torch.full_like(offset, math.inf)))  # no normal, nothing to be done
    ahead = _nearest(delta + _MOMENTUM * (delta - previous), normals, offsets)
    move = torch.lerp(ahead, _nearest(torch.zeros_like(delta), normals, offsets), pull) - delta
    length = move.flatten(1).norm(dim=1).clamp(min=torch.finfo(delta.dtype).tiny)
    reach = _REACH[0] * (_REACH[1] / _REACH[0]) ** progress
    return rowwise((reach * sizes / length).clamp(max=1), delta) * move


def _nearest(point: Tensor, normals: list[Tensor], offsets: list[Tensor]) -> Tensor:
    """The nearest perturbation to ``point`` within both half-spaces ``normal . delta <= offset``, normals of length 1.

    It is ``point - l1 * n1 - l2 * n2`` with multipliers of at least 0, found by solving for each in turn.
    """
    between = row_dot(*normals)
    beyond = [row_dot(normal, point) - offset for normal, offset in zip(normals, offsets, strict=True)]
    first = second = torch.zeros_like(between)
    for _ in range(_SWEEPS):
        first = (beyond[0] - between * second).clamp(min=0)
        second = (beyond[1] - between * first).clamp(min=0)
    return point - rowwise(first, point) * normals[0] - rowwise(second, point) * normals[1]


def _not_differentiable(why: str) -> InvalidInputError:
    return InvalidInputError(
        f"explain: expected attributions with a derivative with respect to the images, got some without: {why}. Take "
        "gradients in it with torch.autograd.grad(..., create_graph=True) and detach nothing (Captum's methods do), or "
        "pass a surrogate whose derivative can be followed"
    )


def _warn_of_blindness() -> None:
    warnings.warn(
        "explain: its derivative is zero at all images, as that of a ReLU network's gradient is; pass as surrogate the "
        "same method on a copy with smooth activations",
        CaptumLipschitzWarning,
        stacklevel=5,
    )
