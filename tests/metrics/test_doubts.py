"""Doubt and the sentences: figures in, doubts out; what results and JSON show of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from strategies import build_batch, build_convolutional
from torch import Tensor

from captum_lipschitz import AraResult, Doubt, MinimumNormAttack, PaperAttack, accuracy_robustness_area
from captum_lipschitz.metrics.doubts import more_effort_helps, not_found


def _names(doubts: tuple[Doubt, ...]) -> list[str]:
    return [doubt.name for doubt in doubts]


def test_the_areas_fall_is_that_of_the_areas() -> None:
    distances = torch.tensor([0.0, 1.0, 2.0, 4.0])
    (doubt,) = more_effort_helps(distances, distances / 2, 0.25)
    assert doubt.evidence == {
        "distances_fall": pytest.approx(0.5),
        "area_falls": pytest.approx(0.5),
        "newly_found": 0.0,
    }
    assert "loose by at least 50.0%" in doubt.seen
    assert more_effort_helps(distances, 0.99 * distances, 0.25) == []
    (new,) = more_effort_helps(torch.tensor([math.inf, 1.0]), torch.tensor([3.0, 1.0]), 0.25)
    assert new.evidence["newly_found"] == 1.0


def test_images_without_an_answer() -> None:
    assert not_found(torch.ones(4), 0.25) == []
    (note,) = not_found(torch.tensor([1.0, 2.0, 3.0, math.inf]), 0.25)
    (wrong,) = not_found(torch.tensor([1.0, 2.0, math.inf, math.inf]), 0.25)
    assert (note.severity, wrong.severity) == ("note", "wrong")
    assert wrong.evidence == {"images": 2.0, "share": 0.5}
    assert "infinite" in wrong.seen


def test_results_carry_their_doubts() -> None:
    model, (images, _) = build_convolutional(1), build_batch(0, 8)
    labels = model(images).argmax(1)

    def masked(x: Tensor) -> Tensor:
        return model((20 * x).round() / 20)

    result = accuracy_robustness_area(masked, (images, labels), attack=PaperAttack(steps=30, rho=1.0))
    assert isinstance(result, AraResult)
    assert {"zero_gradients", "blind_attack_wins", "not_found"} <= set(_names(result.doubts))
    lines = str(result).splitlines()
    assert lines[0].startswith("ARA inf")
    assert len(lines) == 1 + len(result.doubts)
    assert all(str(doubt) in line for doubt, line in zip(result.doubts, lines[1:], strict=True))
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))["doubts"]
    assert [Doubt(**one) for one in read] == list(result.doubts)
    blunt = accuracy_robustness_area(masked, (images, labels), attack=PaperAttack(steps=30, rho=1.0), doubts="off")
    assert _names(blunt.doubts) == ["not_found"]
    assert "more_effort_helps" in _names(
        accuracy_robustness_area(model, (images, labels), attack=MinimumNormAttack(steps=1), doubts="full").doubts
    )


def test_a_doubt_is_one_line() -> None:
    doubt = Doubt("zero_gradients", "loose", "Seen.", "Do.", {"images": 1.0})
    assert str(doubt) == "loose, zero_gradients: Seen. Do."
    assert replace(doubt, severity="note") != doubt
