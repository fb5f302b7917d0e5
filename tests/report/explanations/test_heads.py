"""Kinds of decisions, and one logit as two classes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, ModelOutputError
from captum_lipschitz.objectives import log_odds
from captum_lipschitz.report.explanations.heads import BinaryAsClasses, Head, as_classes, head_of
from captum_lipschitz.report.explanations.methods import all_methods

ROWS = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))


def _of(outputs: object) -> Callable[[Tensor], object]:
    return lambda _: outputs


@pytest.mark.parametrize(
    ("shape", "labels", "kind", "outputs"),
    [
        ((3, 5), None, "classes", 5),
        ((3, 5), torch.tensor([0, 1, 4]), "classes", 5),
        ((3, 2), torch.tensor([0, 1, 1]), "classes", 2),
        ((3, 1), torch.tensor([0, 1, 1]), "binary", 2),
        ((3, 1), torch.tensor([[0], [1], [1]]), "binary", 2),
        ((3,), None, "binary", 2),
        ((3, 2), torch.tensor([[0, 1], [1, 1], [-1, 0]]), "multi_label", 2),
    ],
)
def test_the_output_and_the_labels_tell_the_kind(
    shape: tuple[int, ...], labels: Tensor | None, kind: str, outputs: int
) -> None:
    head = head_of(_of(torch.zeros(shape)), ROWS, labels)
    assert (head.kind, head.outputs) == (kind, outputs)
    assert ("invalidation" in head.left_out) == (kind == "multi_label")


@pytest.mark.parametrize("outputs", [torch.zeros(3, 2, 2), torch.zeros(2, 5), torch.zeros(3, 5).long(), (ROWS,), None])
def test_what_is_no_decision_is_refused(outputs: object) -> None:
    with pytest.raises(ModelOutputError, match="model: expected"):
        head_of(_of(outputs), ROWS)


@pytest.mark.parametrize("labels", [None, torch.tensor([[0], [1], [1]]), torch.tensor([[0, 1], [1, 1], [-1, 0]])])
def test_probabilities_are_no_logits(labels: Tensor | None) -> None:
    width = 1 if labels is None else labels.shape[1]
    shares = torch.tensor([[0.0, 0.4], [0.3, 1.0], [0.9, 0.2]])[:, :width]
    with pytest.raises(ModelOutputError, match="give the model without its last sigmoid"):
        head_of(_of(shares), ROWS, labels)
    for fine in (shares * 2, shares - 0.1, torch.full_like(shares, 0.5)):
        assert head_of(_of(fine), ROWS, labels).kind == ("binary" if width == 1 else "multi_label")
    assert head_of(_of(shares[:1]), ROWS[:1]).outputs == 2  # one image tells too little
    assert head_of(_of(torch.cat([1 - shares, shares], 1)), ROWS).kind == "classes"


def test_labels_for_another_number_of_outputs_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"labels: .* one value for each of 5 outputs, got \(3, 4\)"):
        head_of(_of(torch.zeros(3, 5)), ROWS, torch.zeros(3, 4).long())


def test_looking_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    head_of(model, ROWS)
    assert model.training
    assert int(model[1].num_batches_tracked) == 0


@given(logit=st.floats(-20, 20).filter(lambda logit: logit / 2 != 0))  # half of the smallest number of all is 0
def test_one_logit_as_two_classes_decides_as_before(logit: float) -> None:
    z = torch.tensor([[logit]], dtype=torch.float64)
    for outputs in (z, z[:, 0]):
        logits = BinaryAsClasses(_of(outputs))(ROWS[:1])
        torch.testing.assert_close(logits.softmax(1)[:, 1], z[:, 0].sigmoid())
        torch.testing.assert_close(log_odds(logits, torch.tensor([1])), z[:, 0])
        assert Head("binary", 2).decisions(logits).tolist() == [int(logit > 0)]


def test_a_model_of_classes_stays_itself() -> None:
    model = nn.Linear(4, 3)
    assert as_classes(model, head_of(model, ROWS)) is model
    labels = Head("multi_label", 3)
    assert as_classes(model, labels) is model
    assert labels.decisions(torch.tensor([[1.0, -1.0, 0.0]])).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("flat", [False, True])
def test_both_classes_of_one_logit_are_explained(flat: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1), *([nn.Flatten(0)] if flat else [])).eval()
    model = as_classes(layer, head_of(layer, ROWS))
    methods, _ = all_methods(model, ROWS[:1], effort="fast")
    assert "guided_backprop" in methods
    for name in ("adversarial", "saliency", "occlusion", "lime"):
        explain = methods[name].make(model)
        against, for_it = (explain(ROWS, torch.full((3,), target)) for target in (0, 1))
        assert for_it.any()
        if name == "adversarial":
            assert (layer(ROWS + against) < layer(ROWS + for_it)).all()
        else:
            torch.testing.assert_close(against, -for_it, rtol=1e-3, atol=1e-5)


def test_labels_take_the_form_that_the_head_needs() -> None:
    binary = Head("binary", 2)
    for labels in ([[0], [1]], [0, 1]):
        assert binary.labels(torch.tensor(labels)).tolist() == [0, 1]
    assert binary.labels(torch.tensor([0.0, 1.0])).dtype == torch.int64
    assert binary.labels(torch.tensor([False, True])).tolist() == [0, 1]
    assert Head("multi_label", 2).labels(torch.tensor([[1, -1]])).tolist() == [[1, -1]]
    with pytest.raises(InvalidInputError, match=r"labels: expected 0 or 1, got 0\.5"):
        binary.labels(torch.tensor([0.5, 1.0]))
    with pytest.raises(InvalidInputError, match=r"labels: expected classes in 0\.\.2, got 0\.\.3"):
        Head("classes", 3).labels(torch.tensor([0, 3]))
    with pytest.raises(InvalidTypeError, match="labels: expected integer classes"):
        Head("classes", 3).labels(torch.tensor([0.0, 1.0]))
