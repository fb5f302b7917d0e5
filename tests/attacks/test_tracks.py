"""What a minimal search remembers, and that its batches stay full without growing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import build_batch, build_convolutional, seeds
from torch import Tensor

from captum_lipschitz import MinimumNormAttack, Misclassified
from captum_lipschitz.attacks import Problem
from captum_lipschitz.attacks.tracks import Best, Tracks
from captum_lipschitz.geometry import L2


def _tracks(lengths: list[list[float]], sizes: list[list[float]], routes: list[list[int]] | None = None) -> Tracks:
    """Tracks on one feature at ``lengths`` with answers of ``sizes``; by default each has a route."""
    delta = torch.tensor(lengths, dtype=torch.float64)[..., None]
    route = torch.arange(delta.shape[1]).repeat(len(delta), 1) if routes is None else torch.tensor(routes)
    tracks = Tracks(delta, route, overshoot=0.02)
    tracks.size = torch.tensor(sizes, dtype=torch.float64).flatten()
    return tracks


def _kept(tracks: Tracks, per_image: int) -> list[list[float]]:
    tracks.keep(per_image, L2())
    return tracks.delta.reshape(-1, per_image).tolist()


def test_answers_come_before_the_unanswered_and_closed_tracks_last() -> None:
    inf = math.inf
    lengths, sizes = [[1.0, 2.0, 3.0, 0.0]], [[inf, 9.0, 8.0, inf]]
    routes = [[0, 1, 2, -1]]
    assert _kept(_tracks(lengths, sizes, routes), 1) == [[3.0]]
    assert _kept(_tracks(lengths, sizes, routes), 2) == [[3.0, 2.0]]
    assert _kept(_tracks(lengths, sizes, routes), 3) == [[3.0, 2.0, 1.0]]
    assert _kept(_tracks(lengths, sizes, routes), 4) == [[1.0, 2.0, 3.0, 0.0]]  # nothing to leave out: nothing moves


def test_equals_keep_their_order_and_every_field_goes_with_its_track() -> None:
    tracks = _tracks([[5.0, 4.0, 4.0]], [[math.inf] * 3])
    tracks.step = torch.tensor([10, 11, 12])
    tracks.keep(2, L2())
    assert tracks.step.tolist() == tracks.route.add(10).tolist() == [11, 12]
    assert tracks.image.tolist() == [0, 0]
    assert len(tracks) == len(tracks.open) == len(tracks.overshoot) == len(tracks.improved_at) == 2


@given(seeds, st.integers(1, 4))
def test_what_is_kept_of_an_image_is_no_business_of_others(seed: int, per_image: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.rand(6, 5, generator=generator, dtype=torch.float64)
    sizes = torch.where(torch.rand(6, 5, generator=generator) < 0.5, math.inf, 1 + lengths)
    routes = torch.where(torch.rand(6, 5, generator=generator) < 0.3, -1, torch.arange(5))
    together = _kept(_tracks(lengths.tolist(), sizes.tolist(), routes.tolist()), per_image)
    for i in range(6):
        row = slice(i, i + 1)
        alone = _tracks(lengths[row].tolist(), sizes[row].tolist(), routes[row].tolist())
        assert _kept(alone, per_image) == together[row]


def test_patience_counts_from_the_last_noticeable_gain_and_small_gains_add_up() -> None:
    tracks = _tracks([[1.0]], [[math.inf]])
    row, yes, no = torch.tensor([0]), torch.tensor([True]), torch.tensor([False])
    improved = []
    # Until there is an answer every step counts; then 0.06% twice is one gain of 0.12%; a failure is none.
    for size, met in [(9.0, no), (1.0, yes), (0.9994, yes), (0.9988, yes), (0.1, no), (0.9985, yes)]:
        tracks.note(row, torch.tensor([size], dtype=torch.float64), met)
        improved.append(tracks.improved_at.item())
        tracks.step += 1
    assert improved == [0, 1, 1, 3, 3, 3]
    assert tracks.size.item() == 0.9985


def test_renewed_patience_opens_all_but_those_that_never_were() -> None:
    tracks = _tracks([[1.0, 2.0]], [[math.inf] * 2], [[3, -1]])
    tracks.step += 20
    tracks.open[:] = False
    tracks.renew_patience()
    assert tracks.open.tolist() == [True, False]
    assert tracks.improved_at.tolist() == [20, 20]


def test_best_takes_the_smallest_and_the_first_of_equals_of_an_image_named_several_times() -> None:
    inputs = torch.zeros(3, 2, dtype=torch.float64)
    best = Best(Problem(lambda x: x, inputs, torch.zeros(3, dtype=torch.int64), Misclassified()))
    delta = torch.tensor([[3.0, 4.0], [0.0, 2.0], [2.0, 0.0], [1.0, 0.0], [5.0, 0.0]], dtype=torch.float64)
    size = L2().size(delta)
    image, met = torch.tensor([0, 0, 0, 0, 2]), torch.tensor([True, True, True, False, True])
    best.update(image, delta, size, met)
    assert best.size.tolist() == [2.0, math.inf, 5.0]
    assert best.delta.tolist() == [[0.0, 2.0], [0.0, 0.0], [5.0, 0.0]]
    best.update(torch.tensor([0]), delta[2:3], size[2:3], torch.tensor([True]))  # an equal answer later changes nothing
    assert best.delta[0].tolist() == [0.0, 2.0]


@given(seeds)
def test_best_is_that_of_a_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    best = Best(Problem(lambda x: x, torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), Misclassified()))
    slow: dict[int, tuple[float, list[float]]] = {}
    for _ in range(3):
        image, delta = (
            torch.randint(4, (12,), generator=generator),
            torch.randint(1, 4, (12, 2), generator=generator).float(),
        )
        size, met = L2().size(delta), torch.rand(12, generator=generator) < 0.6
        best.update(image, delta, size, met)
        for i, d, s, m in zip(image.tolist(), delta.tolist(), size.tolist(), met.tolist(), strict=True):
            if m and s < slow.get(i, (math.inf, []))[0]:
                slow[i] = (s, d)
    for i in range(4):
        assert (best.size[i].item(), best.delta[i].tolist()) == slow.get(i, (math.inf, [0.0, 0.0]))


@pytest.mark.parametrize("effort", ["fast", "standard", "thorough"])
@pytest.mark.parametrize("images", [1, 12])
def test_batches_never_grow_and_stay_full_until_few_tracks_are_left(effort: str, images: int) -> None:
    inputs, _ = build_batch(1, images)
    model = build_convolutional(2)
    labels = model(inputs).argmax(1)
    rows: list[int] = []

    def counting(x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            rows.append(len(x))
        logits: Tensor = model(x)
        return logits

    result = MinimumNormAttack(effort=effort)(counting, inputs, labels)  # type: ignore[arg-type]
    assert result.found.all()
    assert max(rows) == images
    # The forward pass at the start serves all candidates (three of four classes); the first run checks one image.
    assert sum(rows) - images - 1 == int(result.gradient_evaluations.sum()) - 3 * images
    if effort != "fast" and images > 1:  # several tracks for each image: others take the place of those that end
        assert sum(n == images for n in rows) > 0.5 * len(rows)
