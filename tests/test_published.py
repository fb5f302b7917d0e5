"""Parity with the paper's authors, on their networks and pictures and real CIFAR-10 images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from captum_lipschitz import AdversarialAttribution, MinimumNormAttack, PaperAttack
from captum_lipschitz.models import PreActResNet44

Images = tuple[Tensor, Tensor]
CRITERIA = [("attack", "misclassified"), ("btr", "below_chance")]


@pytest.mark.parametrize("internal_batch_size", [None, 1, 2, 3])
def test_published_pictures(
    internal_batch_size: int | None, robust_network: PreActResNet44, cifar10_test: Images, data_folder: Path
) -> None:
    images, labels = (part[[2, 7, 5]] for part in cifar10_test)  # one that was not published between two that were
    attributions = AdversarialAttribution(robust_network).attribute(
        images, target=labels, internal_batch_size=internal_batch_size
    )
    ours = (255 * (images + attributions).clamp(0, 1)).round()
    for row, name in ((0, "ship_test2"), (2, "frog_test5")):
        picture = Image.open(data_folder / "authors-cifar10" / f"explanation-robust-{name}.png").convert("RGB")
        published = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        difference = (ours[row] - published).abs()
        assert difference.max() <= 1
        assert (difference == 0).double().mean() >= 0.999


def test_explanations_reach_their_size_on_the_standard_network(
    standard_network: PreActResNet44, cifar10_test: Images
) -> None:
    images, labels = (part[:16] for part in cifar10_test)
    _, convergence = AdversarialAttribution(standard_network).attribute(
        images, target=labels, return_convergence_delta=True
    )
    reached = convergence + 0.1
    assert reached.min() >= 0.08
    assert reached.median() >= 0.09


def _log_ratios(found: Tensor, published: Tensor) -> Tensor:
    """Log ratios over the images that are not solved at the start; the others must be exactly 0."""
    assert (found[published == 0] == 0).all()
    return (found / published)[published > 0].log()


@pytest.mark.slow
@pytest.mark.parametrize(("key", "criterion"), CRITERIA)
def test_paper_attack_finds_the_published_distances(
    key: str,
    criterion: str,
    robust_network: PreActResNet44,
    cifar10_test: Images,
    published_distances: dict[str, Tensor],
) -> None:
    images, labels = (part[:16] for part in cifar10_test)
    result = PaperAttack(objective="cross_entropy")(robust_network, images, labels, criterion)
    ratio = _log_ratios(result.distances, published_distances[key][:16]).mean().exp()
    assert 0.98 <= ratio <= 1.02


@pytest.mark.slow
@pytest.mark.parametrize(("key", "criterion", "most"), [(*CRITERIA[0], 0.84), (*CRITERIA[1], 1.10)])
def test_minimum_norm_attack_against_the_published_distances(
    key: str,
    criterion: str,
    most: float,
    robust_network: PreActResNet44,
    cifar10_test: Images,
    published_distances: dict[str, Tensor],
) -> None:
    images, labels = (part[:64] for part in cifar10_test)
    result = MinimumNormAttack(effort="fast")(robust_network, images, labels, criterion)
    assert result.found.all()
    assert _log_ratios(result.distances, published_distances[key]).mean().exp() <= most
