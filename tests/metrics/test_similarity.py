"""Comparing maps: other people's definitions, ranges, symmetry, and what must not matter."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from strategies import seeds
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics import (
    Similarity,
    cosine_similarity,
    map_similarity,
    rank_correlation,
    structural_similarity,
    top_overlap,
)

NAMES = ("rank_correlation", "top_overlap", "structural", "cosine")


def _maps(seed: int, levels: int | None, *shape: int) -> Tensor:
    """Signed values; with ``levels``, so few different ones that many positions tie."""
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return maps if levels is None else (maps * levels / 3).round()


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    shape = (draw(st.integers(1, 3)), draw(st.integers(7, 10)), draw(st.integers(7, 10)))
    levels = draw(st.sampled_from([None, 1, 4]))
    return _maps(draw(seeds), levels, *shape), _maps(draw(seeds), levels, *shape)


def _slow_ssim(a: Tensor, b: Tensor, window: int = 7) -> float:
    low, high = min(a.min(), b.min()), max(a.max(), b.max())
    a, b = (a - low) / (high - low), (b - low) / (high - low)
    found = []
    for i in range(a.shape[0] - window + 1):
        for j in range(a.shape[1] - window + 1):
            x, y = (m[i : i + window, j : j + window].flatten() for m in (a, b))
            mx, my = x.mean(), y.mean()
            vx, vy, c = ((x - mx) ** 2).mean(), ((y - my) ** 2).mean(), ((x - mx) * (y - my)).mean()
            found.append((2 * mx * my + 1e-4) * (2 * c + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    return float(torch.stack(found).mean())


@given(pairs())
def test_other_definitions_agree(pair: tuple[Tensor, Tensor]) -> None:
    a, b = pair
    found = map_similarity(a, b)
    for i in range(len(a)):
        x, y = a[i].flatten(), b[i].flatten()
        assert float(found.rank_correlation[i]) == pytest.approx(spearmanr(x, y).statistic, abs=1e-10)
        assert float(found.cosine[i]) == pytest.approx(float(torch.cosine_similarity(x, y, dim=0)), abs=1e-12)
        assert float(found.structural[i]) == pytest.approx(_slow_ssim(a[i], b[i]), abs=1e-10)


def test_the_overlap_of_maps_without_ties_counts_what_is_in_both() -> None:
    a, b = _maps(0, None, 5, 40), _maps(1, None, 5, 40)
    for i, found in enumerate(top_overlap(a, b, top=0.2).tolist()):
        first, second = (set(m[i].topk(8).indices.tolist()) for m in (a, b))
        assert found == pytest.approx(len(first & second) / 8)


def test_positions_that_tie_share_the_places_left() -> None:
    # Two places. The first map gives both to clear winners; in the second, three positions tie for one place.
    a = torch.tensor([[3.0, 2.0, 1.0, 0.0, 0.0]])
    b = torch.tensor([[9.0, 5.0, 5.0, 5.0, 0.0]])
    assert float(top_overlap(a, b, top=0.4)) == pytest.approx((1 + 1 / 3) / 2)
    assert float(top_overlap(b, b, top=0.4)) == 1.0


@given(pairs(), st.permutations(range(3)))
def test_ranges_symmetry_and_a_map_with_itself(pair: tuple[Tensor, Tensor], order: list[int]) -> None:
    a, b = pair
    found, back, same = map_similarity(a, b), map_similarity(b, a), map_similarity(a, a)
    for name in NAMES:
        values = getattr(found, name)
        assert values.dtype == torch.float64
        assert values.shape == (len(a),)
        assert bool(((values >= (0 if name == "top_overlap" else -1)) & (values <= 1)).all())
        assert torch.equal(values, getattr(back, name))
        assert getattr(same, name).tolist() == [1.0] * len(a)
    rows = [i for i in order if i < len(a)]
    permuted = map_similarity(a[rows], b[rows])
    alone = map_similarity(a[:1], b[:1])
    for name in NAMES:
        assert torch.allclose(getattr(permuted, name), getattr(found, name)[rows], atol=1e-12, rtol=0)
        assert torch.allclose(getattr(alone, name), getattr(found, name)[:1], atol=1e-12, rtol=0)


@given(pairs(), st.floats(0.01, 100), st.floats(-5, 5))
def test_what_each_does_not_depend_on(pair: tuple[Tensor, Tensor], scale: float, shift: float) -> None:
    a, b = pair
    assert torch.allclose(rank_correlation(scale * a**3 + shift, b), rank_correlation(a, b), atol=1e-12)
    assert torch.allclose(top_overlap(a.atan(), b), top_overlap(a, b), atol=1e-12)
    assert torch.allclose(cosine_similarity(scale * a, b), cosine_similarity(a, b), atol=1e-12)
    together = structural_similarity(scale * a + shift, scale * b + shift)
    assert torch.allclose(together, structural_similarity(a, b), atol=1e-8)


def test_opposite_maps() -> None:
    a = torch.arange(49.0).reshape(1, 7, 7) - 24
    assert float(rank_correlation(a, -a)) == -1.0
    assert float(cosine_similarity(a, -a)) == -1.0
    assert float(top_overlap(a, -a)) == 0.0
    assert float(structural_similarity(a, -a)) < -0.9


@pytest.mark.parametrize("nothing", [0.0, 2.0, math.nan, math.inf])
def test_a_map_that_is_the_same_everywhere_or_not_finite_has_no_similarity(nothing: float) -> None:
    a, b = _maps(0, None, 2, 8, 8), _maps(1, None, 2, 8, 8)
    b[0] = nothing
    for one in (map_similarity(a, b), map_similarity(b, a)):
        for name in NAMES:
            values = getattr(one, name)
            assert math.isnan(values[0])
            assert torch.allclose(values[1:], getattr(map_similarity(a[1:], b[1:]), name), atol=1e-12)


def test_structure_is_for_pictures_only() -> None:
    for shape in ((2, 49), (2, 7, 6), (2, 7, 7, 7)):
        found = map_similarity(_maps(0, None, *shape), _maps(1, None, *shape))
        assert bool(found.structural.isnan().all())
        assert not bool(found.rank_correlation.isnan().any())


def test_tiny_and_huge_values_are_compared_all_the_same() -> None:
    a, b = _maps(0, None, 1, 30), _maps(1, None, 1, 30)
    for factor in (1e-200, 1e200):
        assert float(cosine_similarity(factor * a, b)) == pytest.approx(float(cosine_similarity(a, b)))


def test_what_cannot_be_compared_is_refused() -> None:
    maps = torch.rand(2, 8, 8)
    assert isinstance(map_similarity(maps, maps), Similarity)
    with pytest.raises(InvalidInputError, match=r"b: expected the shape of a, \(2, 8, 8\), got \(1, 8, 8\)"):
        map_similarity(maps, maps[:1])
    with pytest.raises(InvalidTypeError, match="a: expected a floating tensor of maps, got list"):
        rank_correlation([1.0], maps)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=r"b: expected a floating tensor of maps, got torch.int64"):
        cosine_similarity(maps, maps.long())
    with pytest.raises(InvalidInputError, match=r"a: expected maps of shape \(N, ...\), got \(8,\)"):
        structural_similarity(maps[0, 0], maps[0, 0])
    with pytest.raises(InvalidInputError, match="top: expected a share between 0 and 1, got 1"):
        top_overlap(maps, maps, top=1)
    with pytest.raises(InvalidTypeError, match="top: expected a number between 0 and 1, got 'all'"):
        map_similarity(maps, maps, top="all")  # type: ignore[arg-type]
