"""What is said of claim 3: only measures of faithfulness decide it, and no difference too small to matter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from captum_lipschitz.metrics.fidelity import FIDELITY_MEASURES
from captum_lipschitz.report.content import Finding
from captum_lipschitz.report.verdicts.faithful import fidelity_findings, of_kind

IMAGES = 16
NOISE = torch.linspace(-0.01, 0.01, IMAGES, dtype=torch.float64)


def _around(value: float) -> Tensor:
    return value + NOISE


def _of(findings: tuple[Finding, ...], words: str) -> Finding:
    (found,) = [finding for finding in findings if words in finding.claim]
    return found


def _faithful(better: float) -> dict[str, dict[str, Tensor]]:
    """Adversarial explanations better than two others by so much, whichever way a measure goes."""
    ours = {"insertion": _around(0.5 + better), "deletion": _around(0.5 - better)}
    return {"adversarial": ours, "saliency": {"insertion": _around(0.5), "deletion": _around(0.5)},
            "random": {"insertion": _around(0.5), "deletion": _around(0.5)}}  # fmt: skip


@pytest.mark.parametrize(("better", "support"), [(0.2, "supported"), (-0.2, "contradicted"), (0.0, "undecided")])
def test_more_faithful_whichever_way_a_measure_goes(better: float, support: str) -> None:
    findings = fidelity_findings(_faithful(better))
    assert [finding.support for finding in findings] == [support] * 5  # the claim, two methods, two measures
    advantage = _of(findings, "than Saliency").figures["advantage by Deletion"]
    assert advantage.mean == pytest.approx(better)


def test_measures_and_methods_are_named_on_their_side() -> None:
    values = _faithful(0.2)
    values["saliency"]["deletion"] = _around(0.0)
    findings = fidelity_findings(values)
    assert _of(findings, "than Saliency").support == "undecided"
    assert "more faithful by Insertion. They are less faithful by Deletion." in _of(findings, "than Saliency").text
    by_deletion = _of(findings, "By Deletion")
    assert by_deletion.support == "contradicted"
    assert "more faithful than Random map. They are less faithful than Saliency." in by_deletion.text


def test_nothing_is_claimed_without_adversarial_explanations() -> None:
    values = _faithful(0.2)
    del values["adversarial"]
    assert fidelity_findings(values) == ()


def test_kinds_cover_every_measure_once() -> None:
    kinds = [of_kind(kind) for kind in ("faithfulness", "stability", "promise", "sanity")]
    assert sorted(key for keys in kinds for key in keys) == sorted(FIDELITY_MEASURES)
    assert kinds[0] == ["insertion", "deletion", "infidelity", "road"]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("max_sensitivity", "the same for every image"), ("stability", "the same for every image"),
        ("behaviour_toward", "circular"), ("behaviour_away", "circular"),
    ],
)  # fmt: skip
def test_what_is_no_faithfulness_is_told_outside_the_verdict(key: str, said: str) -> None:
    values = _faithful(0.2)
    before = fidelity_findings(values)
    worse = 2.0 if FIDELITY_MEASURES[key].better == "higher" else -2.0
    for method in values:
        values[method][key] = _around(0.0 if method == "adversarial" else worse)
    after = fidelity_findings(values)
    finding = _of(after, f"By {FIDELITY_MEASURES[key].title}")
    assert after[:3] == before[:3]  # the claim, and beside either method
    assert finding.support == "contradicted"
    assert finding.text.startswith("Outside the verdict on faithfulness")
    assert said in finding.text
    assert "faithful than" not in finding.claim


def test_random_parameters_fail_a_method_and_rank_none() -> None:
    values = _faithful(0.2)
    before = fidelity_findings(values)
    for method, correlation in (("adversarial", 0.2), ("saliency", 0.9), ("random", -0.9)):
        values[method]["parameter_randomisation"] = _around(correlation)
    after = fidelity_findings(values)
    assert after[:-1] == before
    assert after[-1].claim == "Saliency hardly depends on what the model learnt."
    assert (after[-1].support, "above 0.5" in after[-1].text) == ("supported", True)
    values["saliency"]["parameter_randomisation"] = torch.linspace(0.1, 1, IMAGES, dtype=torch.float64)
    assert fidelity_findings(values) == before  # an interval that holds the limit fails nothing


def test_rounding_is_no_difference() -> None:
    values = _faithful(0.0)
    values["adversarial"]["insertion"] = values["saliency"]["insertion"] - 1.4e-5
    finding = _of(fidelity_findings(values), "By Insertion")
    assert finding.support == "undecided"
    assert "They are as faithful as Saliency and Random map. Differences of up to 0.01 count as none." in finding.text


@pytest.mark.parametrize("lacking", [None, math.nan])
def test_who_was_not_compared_is_named(lacking: float | None) -> None:
    values = _faithful(0.2)
    if lacking is None:
        del values["saliency"]["deletion"]
    else:
        values["saliency"]["deletion"] = _around(lacking)
    values["lime"] = {}
    findings = fidelity_findings(values)
    by_deletion = _of(findings, "By Deletion")
    assert by_deletion.support == "supported"
    assert by_deletion.claim.endswith("every other method compared.")
    assert "Not compared, as there is no figure: Saliency and LIME." in by_deletion.text
    assert "Not compared by Deletion" in _of(findings, "than Saliency").text
    assert findings[0].text.endswith("Not compared, as there is no figure: LIME.")


def test_several_comparisons_need_wider_intervals() -> None:
    spread = torch.linspace(-1, 1, IMAGES, dtype=torch.float64)
    values = _faithful(0.0)
    values["adversarial"] = {"insertion": 0.8 + spread}
    findings = {}
    for others in (1, 8):
        names = (
            "saliency",
            "lime",
            "grad_cam",
            "occlusion",
            "smooth_grad",
            "input_x_gradient",
            "random",
            "guided_backprop",
        )
        by = {name: {"insertion": torch.full((IMAGES,), 0.47)} for name in names[:others]}
        findings[others] = _of(fidelity_findings({"adversarial": values["adversarial"], **by}), "By Insertion")
    one, eight = findings[1], findings[8]
    assert (one.support, eight.support) == ("supported", "undecided")
    assert one.figures["advantage over Saliency"] == eight.figures["advantage over Saliency"]
    assert "99.38%" in eight.text
