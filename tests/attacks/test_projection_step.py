"""One step of the minimal search against a slow, obvious re-implementation, one track at a time, in plain numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from torch import Tensor

from captum_lipschitz import L2, RMSE, Bounds, Linf, MinimumNormAttack, Misclassified
from captum_lipschitz.attacks import Problem
from captum_lipschitz.attacks.tracks import Best, Tracks

IMAGES, TRACKS, FEATURES, CLASSES = 3, 2, 4, 3
WEIGHT = torch.tensor(
    [[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, 2.0, -1.0], [-1.5, 0.5, 1.0, 1.0]], dtype=torch.float64
)  # fmt: skip
NORMS = {"l2": L2, "rmse": RMSE, "linf": Linf}


def _size(norm: str, delta: list[float]) -> float:
    if norm == "linf":
        return max(abs(x) for x in delta)
    squares = sum(x * x for x in delta)
    return math.sqrt(squares / len(delta) if norm == "rmse" else squares)


def _steepest(norm: str, normal: list[float]) -> list[float]:
    direction = [math.copysign(1.0, w) for w in normal] if norm == "linf" else normal
    return [x / _size(norm, direction) for x in direction]


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _projected(
    norm: str, start: list[float], normal: list[float], offset: float, limit: float, box: list[tuple[float, float]]
) -> list[float]:
    """Along the steepest direction, clamped to the box, until the plane is met; at most ``limit`` from the start."""
    direction = _steepest(norm, normal)
    start = [min(max(x, low), high) for x, (low, high) in zip(start, box, strict=True)]

    def at(t: float) -> list[float]:
        along = zip(start, direction, box, strict=True)
        return [min(max(x + t * u, low), high) for x, u, (low, high) in along]

    low, high = -1e4, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _dot(normal, at(middle)) < offset else (low, middle)
    move = [x - y for x, y in zip(at(high), start, strict=True)]
    share = min(1.0, limit / max(_size(norm, move), 1e-300))
    return [x + share * m for x, m in zip(start, move, strict=True)]


def _expected(
    norm: str,
    image: list[float],
    label: int,
    delta: list[float],
    previous: list[float],
    step: int,
    overshoot: float,
    toward: int | None,
    bounds: tuple[float, float],
) -> tuple[list[float], float, bool]:
    """Where the step leads, the overshoot after it, and whether the track stood beyond the boundary."""
    logits = [_dot(row, [x + d for x, d in zip(image, delta, strict=True)]) for row in WEIGHT.tolist()]
    others = [j for j in range(CLASSES) if j != label]
    nearest = max(others, key=lambda j: logits[j])
    other = nearest if toward is None else toward
    value = logits[label] - logits[other]
    normal = [a - b for a, b in zip(WEIGHT[label].tolist(), WEIGHT[other].tolist(), strict=True)]
    size = _size(norm, delta)
    slope = _dot(normal, _steepest(norm, normal))
    after = min(max(overshoot * (0.7 if value <= 0 else 1.5), 1e-5), 1.0)  # what the step itself aims with already
    offset = _dot(normal, delta) - value - after * size * slope
    limit = max(size, 1.0 if norm == "l2" else 1 / math.sqrt(FEATURES))
    momentum = 0.85 if toward is None else 0.5
    pull = max(0.05, 0.5 * math.exp(-step / 20))
    box = [(bounds[0] - x, bounds[1] - x) for x in image]
    ahead = [d + momentum * (d - p) for d, p in zip(delta, previous, strict=True)]
    onward = _projected(norm, ahead, normal, offset, limit, box)
    shortest = _projected(norm, [0.0] * FEATURES, normal, offset, limit, box)
    moved = [(1 - pull) * a + pull * b for a, b in zip(onward, shortest, strict=True)]
    return moved, after, logits[label] <= logits[nearest]


@given(seeds, st.sampled_from(list(NORMS)), st.booleans(), st.booleans())
def test_a_step_is_the_documented_one(seed: int, norm: str, along: bool, boxed: bool) -> None:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    images = drawn(IMAGES, FEATURES)
    labels = torch.randint(CLASSES, (IMAGES,), generator=generator)
    bounds = (0.0, 1.0) if boxed else (-math.inf, math.inf)
    whole = Problem(lambda x: x @ WEIGHT.T, images, labels, Misclassified(), Bounds(*bounds) if boxed else None)
    route = torch.stack([(labels + 1) % CLASSES, (labels + 2) % CLASSES], 1)
    tracks = Tracks(drawn(IMAGES, TRACKS, FEATURES) - 0.5, route, overshoot=0.02)
    if boxed:
        tracks.delta = (images[tracks.image] + tracks.delta).clamp(0, 1) - images[tracks.image]
    tracks.previous = tracks.delta - 0.3 * (drawn(IMAGES * TRACKS, FEATURES) - 0.5)
    tracks.step = torch.randint(80, (IMAGES * TRACKS,), generator=generator)
    tracks.overshoot = 10 ** (-5 * drawn(IMAGES * TRACKS))
    before = {name: getattr(tracks, name).clone() for name in ("delta", "previous", "step", "overshoot")}
    active = torch.tensor([4, 0, 3])  # some tracks, in any order; the others stay where they are
    best = Best(whole)
    attack = MinimumNormAttack(norm=norm)  # type: ignore[arg-type]
    attack._advance(whole.rows(tracks.image[active]), tracks, active, best, along=along)
    for i in range(IMAGES * TRACKS):
        if i not in active:
            assert all(torch.equal(getattr(tracks, name)[i], before[name][i]) for name in before)
            continue
        image = int(tracks.image[i])
        moved, after, met = _expected(
            norm,
            images[image].tolist(),
            int(labels[image]),
            before["delta"][i].tolist(),
            before["previous"][i].tolist(),
            int(before["step"][i]),
            float(before["overshoot"][i]),
            int(tracks.route[i]) if along else None,
            bounds,
        )
        assert tracks.delta[i].tolist() == pytest.approx(moved, rel=1e-6, abs=1e-7)
        assert tracks.overshoot[i].item() == pytest.approx(after, rel=1e-12)
        assert torch.equal(tracks.previous[i], before["delta"][i])
        assert tracks.step[i] == before["step"][i] + 1
        size = NORMS[norm]().size(before["delta"][i][None]).item() if met else math.inf
        assert tracks.size[i].item() == pytest.approx(size)
        assert best.size[image].item() <= size


@pytest.mark.parametrize(("overshoot", "met", "after"), [(1e-5, True, 1e-5), (1.0, False, 1.0), (0.1, True, 0.07)])
def test_the_overshoot_shrinks_beyond_the_boundary_and_stays_in_its_range(
    overshoot: float, met: bool, after: float
) -> None:
    problem = Problem(lambda x: x, torch.tensor([[1.0, 0.0]]), torch.tensor([0]), Misclassified())
    tracks = Tracks(torch.tensor([[[-2.0 if met else 0.0, 0.0]]]), torch.tensor([[1]]), overshoot=overshoot)
    MinimumNormAttack()._advance(problem, tracks, torch.tensor([0]), Best(problem), along=False)
    assert tracks.overshoot.item() == pytest.approx(after)


def test_a_tie_that_the_other_class_wins_is_an_answer() -> None:
    """Of equal logits the first is the decision: a perturbation onto the plane itself has changed class 1 into 0."""
    problem = Problem(lambda x: x, torch.tensor([[0.0, 1.0]]), torch.tensor([1]), Misclassified())
    tracks, best = Tracks(torch.tensor([[[0.0, -1.0]]]), torch.tensor([[0]]), overshoot=0.1), Best(problem)
    MinimumNormAttack(norm="l2")._advance(problem, tracks, torch.tensor([0]), best, along=False)
    assert tracks.size.item() == best.size.item() == 1.0
