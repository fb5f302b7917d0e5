"""Methods side by side: who is better, and when the sample is too small to tell."""

from __future__ import annotations

import json

import pytest
import torch
from fidelity_cases import gradients
from torch import Tensor, nn

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, UnknownNameError
from captum_lipschitz.metrics import FIDELITY_MEASURES, FidelityTable, FidelityValues, compare_explanations
from captum_lipschitz.metrics.fidelity import random_explanation
from captum_lipschitz.metrics.maps import Explain


def table_of(first: Tensor, second: Tensor, measure: str = "deletion") -> FidelityTable:
    values = {"first": FidelityValues({measure: first}, {}), "second": FidelityValues({measure: second}, {})}
    return FidelityTable(values, compared_with="second")


def test_verdicts_go_by_what_is_better_for_the_measure() -> None:
    values = torch.linspace(0, 1, 16, dtype=torch.float64)
    for key, measure in FIDELITY_MEASURES.items():
        table = table_of(values + 0.5, values, key)
        assert table.difference("first", key).mean == pytest.approx(0.5)
        assert table.verdict("first", key) == ("better" if measure.better == "higher" else "worse")
        assert table.verdict("second", key) == "same"  # as itself
        assert table.measures == (key,)


def test_a_sample_too_small_to_tell_says_so() -> None:
    few = table_of(torch.ones(7), torch.zeros(7))
    assert few.verdict("first", "deletion") == "too few"
    assert "too few" in str(few)
    swinging = torch.tensor([1.0, -1.0]).repeat(8)
    assert table_of(swinging, torch.zeros(16)).verdict("first", "deletion") == "undecided"
    missing = torch.ones(16)
    missing[:9] = torch.nan
    assert table_of(missing, torch.zeros(16)).verdict("first", "deletion") == "too few"
    assert table_of(missing, torch.zeros(16)).estimate("first", "deletion").left_out == 9


def test_the_text_and_the_dictionary_hold_every_figure_and_every_reason() -> None:
    methods = {
        "gradient": FidelityValues({"insertion": torch.full((9,), 0.75)}, {"road": "no pictures"}),
        "random": FidelityValues({"insertion": torch.full((9,), 0.25), "stability": torch.zeros(9)}, {}),
        "blind": FidelityValues({"stability": torch.ones(9)}, {}),
    }
    table = FidelityTable(methods, compared_with="random")
    text = str(table)
    assert "gradient  0.75 [0.75, 0.75], 9 images; minus random: 0.5 [0.5, 0.5], 9 images: better" in text
    assert "road of gradient: no pictures" in text
    plain = json.loads(json.dumps(table.to_dict()))
    assert plain["gradient"]["insertion"]["verdict"] == "better"
    assert plain["random"]["insertion"]["difference"] is None
    assert plain["blind"]["stability"]["difference"]["mean"] == 1.0
    only_gradient = FidelityTable(methods, compared_with="gradient").to_dict()
    assert only_gradient["blind"]["stability"]["verdict"] is None  # not taken of the gradient


def test_what_is_not_in_the_table_is_named() -> None:
    table = table_of(torch.ones(8), torch.zeros(8))
    with pytest.raises(UnknownNameError, match=r"method: expected one of \['first', 'second'\]"):
        table.estimate("third", "deletion")
    with pytest.raises(UnknownNameError, match="'road' was not taken of first"):
        table.values("first", "road")
    with pytest.raises(UnknownNameError, match="compared_with"):
        FidelityTable(table.methods, compared_with="third")
    with pytest.raises(InvalidInputError, match="same images"):
        table_of(torch.ones(8), torch.zeros(9))
    with pytest.raises(InvalidTypeError, match="methods"):
        FidelityTable({}, compared_with="first")


def weights(model: nn.Linear) -> Explain:
    return lambda _, targets: model.weight.detach()[targets]


def test_a_linear_models_weights_beat_a_random_map_wherever_they_should() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(12, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 12, generator=generator, dtype=torch.float64))
        model.bias.zero_()
    rows = torch.randn(24, 12, generator=generator, dtype=torch.float64)
    table = compare_explanations(
        model, rows, model(rows).argmax(1), compared_with="random",
        methods={"weights": weights, "gradient": gradients, "random": lambda _: random_explanation()},
    )  # fmt: skip
    for measure in ("infidelity", "max_sensitivity", "behaviour_toward", "behaviour_away", "stability"):
        assert table.verdict("weights", measure) == "better", measure
        assert torch.allclose(table.values("weights", measure), table.values("gradient", measure)), measure
    assert "road" in table.methods["random"].left_out


def test_bad_names_are_refused() -> None:
    rows, targets = torch.rand(8, 4), torch.zeros(8).long()
    for changed in ({"compared_with": "b"}, {"contributions": ["b"]}, {"without_direction": ["b"]}):
        settings = {"methods": {"a": gradients}, "compared_with": "a", **changed}
        with pytest.raises(UnknownNameError, match=rf"{next(iter(changed))}: expected some of \['a'\], got \['b'\]"):
            compare_explanations(nn.Linear(4, 2), rows, targets, **settings)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=r"methods\['a'\]"):
        compare_explanations(nn.Linear(4, 2), rows, targets, methods={"a": 3}, compared_with="a")  # type: ignore[dict-item]
