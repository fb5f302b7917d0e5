"""What is said of the claims: constructed figures whose answer is known, on either side and on neither."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from captum_lipschitz.metrics.estimates import estimate
from captum_lipschitz.report.content import Finding, Measure
from captum_lipschitz.report.verdicts.findings import invalidation_findings
from captum_lipschitz.report.verdicts.tabled import INVALIDATION, table, with_derived
from captum_lipschitz.report.verdicts.worded import number, share

IMAGES = 16
NOISE = torch.linspace(-0.01, 0.01, IMAGES, dtype=torch.float64)


def _around(value: float) -> Tensor:
    return value + NOISE


def _attacked(**values: float) -> dict[str, Tensor]:
    usual = {
        "rank_correlation": 0.9, "top_overlap": 0.8, "structural": 0.8, "cosine": 0.9,
        "new_class_rank_correlation": 0.9, "outside": 0.9, "at_random": 0.8, "at_centre": 0.8,
        "placements_as_good": 0.5, "strength_within": 0.4, "strength_outside": 0.9,
        "succeeds_within": 1.0, "succeeds_outside": 1.0,
    }  # fmt: skip
    return {name: _around(value) for name, value in {**usual, **values}.items()}


def _of(findings: tuple[Finding, ...], words: str) -> Finding:
    (found,) = [finding for finding in findings if words in finding.claim]
    return found


RANDOM = {"random": _attacked(strength_outside=0.7)}


def test_invalidated_explanations_are_called_so() -> None:
    findings = invalidation_findings(with_derived({"saliency": _attacked(), **RANDOM}))
    assert [finding.support for finding in findings] == ["supported"] * 4  # none about the random map
    assert "0.9 [0.8" in _of(findings, "leave the map of Saliency").text
    assert "90% [90%, 90%] of" in _of(findings, "outside the region that Saliency").text
    assert _of(findings, "may not touch").figures["difference from random"].mean == pytest.approx(0.2)
    assert "That holds for 1 of 1 method. Invalidated: Saliency." in findings[0].text


def test_what_does_not_hold_is_said_as_clearly() -> None:
    values = _attacked(rank_correlation=0.1, outside=0.4, strength_outside=0.5)
    findings = invalidation_findings(with_derived({"grad_cam": values, **RANDOM}))
    assert [finding.support for finding in findings] == ["contradicted"] * 4
    assert "the map changes with the decision" in _of(findings, "leave the map of Grad-CAM").text
    assert "more of the attacks' changes than chance" in _of(findings, "outside the region").text
    assert "costs them more than avoiding a random region" in _of(findings, "may not touch").text


def test_a_method_is_invalidated_only_where_all_three_hold() -> None:
    values = {"saliency": _attacked(), "lime": _attacked(rank_correlation=0.1), "grad_cam": _attacked(), **RANDOM}
    values["grad_cam"]["strength_outside"] = values["random"]["strength_outside"] + 100 * NOISE
    found = invalidation_findings(with_derived(values))[0]
    assert found.support == "undecided"
    assert "That holds for 1 of 3 methods. Invalidated: Saliency." in found.text
    assert "contradict at least one: LIME. Cannot be told of: Grad-CAM." in found.text


def test_differences_that_do_not_matter_are_no_verdict_on_attacks() -> None:
    values = {"saliency": _attacked(outside=0.80001, strength_outside=0.70001), **RANDOM}
    findings = invalidation_findings(with_derived(values))
    for words in ("outside the region", "may not touch"):
        found = _of(findings, words)
        assert found.support == "undecided"
        assert "the two differ by no more than 0.01" in found.text


def test_success_on_most_of_the_image_says_nothing_by_itself() -> None:
    findings = invalidation_findings(with_derived({"saliency": _attacked()}))
    found = _of(findings, "may not touch")
    assert found.support == "undecided"
    assert "no attack that avoids a random map's region" in found.text
    assert found.figures["success outside"].mean == pytest.approx(1.0)
    assert (findings[0].support, "0 of 1 method" in findings[0].text) == ("undecided", True)


def test_a_map_for_either_decision_that_is_the_same_is_no_finding() -> None:
    values = {"saliency": _attacked(), "lime": _attacked(new_class_rank_correlation=0.5), **RANDOM}
    derived = with_derived(values)
    assert ["new_class_rank_correlation" in derived[name] for name in ("saliency", "lime")] == [False, True]
    findings = invalidation_findings(derived)
    assert "as it is bound to be with two classes" in _of(findings, "the map of Saliency").text
    assert "for the new decision the correlation is 0.5" in _of(findings, "the map of LIME").text
    shown = table(
        with_derived({"saliency": _attacked()}), INVALIDATION, title="t", text="", compared_with="adversarial"
    )
    assert shown is not None
    assert "new_class_rank_correlation" not in [measure.key for measure in shown.measures]
    assert invalidation_findings({}) == ()


@pytest.mark.parametrize(("images", "said"), [(7, "7 images with a figure, fewer than 8, are too few"), (16, "cannot")])
def test_a_sample_that_cannot_tell_says_so(images: int, said: str) -> None:
    values = _attacked()
    values["rank_correlation"] = torch.linspace(0, 1, IMAGES, dtype=torch.float64)
    values = {name: known.where(torch.arange(IMAGES) < images, torch.nan) for name, known in values.items()}
    found = _of(invalidation_findings(with_derived({"saliency": values})), "leave the map")
    assert found.support == "undecided"
    assert said in found.text


def test_confined_attacks_that_were_left_out_are_not_judged() -> None:
    nothing = dict.fromkeys(("strength_within", "strength_outside", "succeeds_within", "succeeds_outside"), math.nan)
    found = _of(invalidation_findings(with_derived({"saliency": _attacked(**nothing)})), "may not touch")
    assert (found.support, found.figures) == ("undecided", {})
    assert "Not looked at" in found.text


def test_tables_compare_image_by_image() -> None:
    spread = torch.linspace(0, 1, IMAGES, dtype=torch.float64)
    values = with_derived({"adversarial": _attacked(), "saliency": _attacked()})
    values["adversarial"]["cosine"], values["saliency"]["cosine"] = spread, spread + 0.1
    shown = table(values, INVALIDATION, title="t", text="", compared_with="adversarial")
    assert shown is not None
    cell = shown.rows["Saliency"]["cosine"]
    assert (cell.verdict, cell.values) == ("above", tuple((spread + 0.1).tolist()))
    assert cell.difference is not None
    assert cell.difference.mean == pytest.approx(0.1)
    assert shown.rows["Adversarial explanation"]["cosine"].difference is None


def test_measures_and_methods_without_a_value_have_no_cell() -> None:
    values = with_derived(
        {"saliency": _attacked(cosine=math.nan), "lime": _attacked(cosine=math.nan, outside=math.nan)}
    )
    shown = table(values, INVALIDATION, title="t", text="", compared_with="adversarial")
    assert shown is not None
    assert "cosine" not in [measure.key for measure in shown.measures]
    assert "outside" in shown.rows["Saliency"]
    assert "outside" not in shown.rows["LIME"]
    assert shown.compared_with is None
    assert table({}, INVALIDATION, title="t", text="", compared_with="adversarial") is None


def test_figures_in_words() -> None:
    assert number(estimate(torch.full((3,), math.nan))) == "unknown"
    assert share(estimate(torch.tensor([True]))) == "100% (1 image, too few for an interval)"


def test_a_cell_marks_no_difference_too_small_to_matter() -> None:
    measure = Measure(key="stability", title="t", text="", better="higher")
    values = {"adversarial": {"stability": _around(0.9)}, "saliency": {"stability": _around(0.9) - 1.4e-5}}
    values["lime"] = {"stability": _around(0.8)}
    shown = table(values, (measure,), title="t", text="", compared_with="adversarial")
    assert shown is not None
    assert [shown.rows[row]["stability"].verdict for row in ("Saliency", "LIME")] == ["undecided", "below"]
