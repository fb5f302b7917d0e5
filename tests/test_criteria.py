"""Objectives and criteria against their definitions in words."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from captum_lipschitz import BelowChance, LabelFlips, MinimumNormAttack, Misclassified, PaperAttack, Reaches
from captum_lipschitz.criteria import Criterion, as_criterion
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, ModelOutputError
from captum_lipschitz.objectives import as_objective, log_odds, logit, margin, negative_cross_entropy


def _logits(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(20, 5, generator=generator, dtype=torch.float64), torch.randint(
        5, (20,), generator=generator
    )


@given(seeds)
def test_misclassified_is_the_argmax(seed: int) -> None:
    logits, labels = _logits(seed)
    assert torch.equal(Misclassified().value(logits, labels) <= 0, logits.argmax(1) != labels)


def test_a_tie_is_decided_as_the_argmax_decides_it() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert (Misclassified().value(logits, torch.tensor([0, 1])) <= 0).tolist() == [False, True]


@given(seeds)
def test_below_chance_is_the_softmax_probability(seed: int) -> None:
    logits, labels = _logits(seed)
    assert torch.equal(BelowChance().value(logits, labels) <= 0, logit(logits.softmax(1), labels) <= 1 / 5)


@given(seeds)
def test_reaches_is_the_argmax_of_the_target(seed: int) -> None:
    logits, labels = _logits(seed)
    assert torch.equal(Reaches(2).value(logits, labels) <= 0, logits.argmax(1) == 2)
    rows = torch.tensor([3, 5])
    targets = torch.arange(20) % 5
    torch.testing.assert_close(
        Reaches(targets).rows(rows).value(logits[rows], labels[rows]), Reaches(targets).value(logits, labels)[rows]
    )


@given(seeds)
def test_objectives(seed: int) -> None:
    logits, labels = _logits(seed)
    p = logit(logits.softmax(1), labels)
    torch.testing.assert_close(log_odds(logits, labels), (p / (1 - p)).log())
    torch.testing.assert_close(
        negative_cross_entropy(logits, labels), -torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    )
    runner_up = torch.stack([row[torch.arange(5) != y].max() for row, y in zip(logits, labels, strict=True)])
    torch.testing.assert_close(margin(logits, labels), logit(logits, labels) - runner_up)


def test_log_odds_keep_their_gradient_where_cross_entropy_has_none() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    label = torch.tensor([0])
    (saturated,) = torch.autograd.grad(negative_cross_entropy(logits, label).sum(), logits)
    (followed,) = torch.autograd.grad(log_odds(logits, label).sum(), logits)
    assert saturated.abs().max() == 0
    torch.testing.assert_close(followed, torch.tensor([[1.0, -0.5, -0.5]]))


def test_look_up_errors_list_the_choices() -> None:
    assert isinstance(as_criterion("below_chance"), BelowChance)
    with pytest.raises(InvalidInputError, match=r"\['below_chance', 'label_flips', 'misclassified'\]"):
        as_criterion("btr")
    with pytest.raises(InvalidInputError, match="'log_odds'"):
        as_objective("entropy")
    with pytest.raises(InvalidTypeError, match="objective: expected a function"):
        as_objective(3)  # type: ignore[arg-type]


def test_reaches_refuses_targets_that_cannot_be() -> None:
    with pytest.raises(InvalidTypeError, match="target"):
        Reaches(torch.tensor([0.5]))
    with pytest.raises(InvalidInputError, match=r"0\.\.4"):
        Reaches(5).validate(20, 5)
    with pytest.raises(InvalidInputError, match="each of 20 images, got 3"):
        Reaches(torch.tensor([0, 1, 2])).validate(20, 5)


@given(seeds, st.floats(0.01, 100))
def test_below_chance_at_a_temperature_is_the_softmax_at_it(seed: int, temperature: float) -> None:
    logits, labels = _logits(seed)
    criterion = BelowChance(temperature=temperature)
    met = logit((logits / temperature).softmax(1), labels) <= 1 / 5
    assert torch.equal(criterion.value(logits, labels) <= 0, met)
    assert repr(BelowChance(temperature=temperature)) == f"BelowChance(temperature={temperature!r})" or temperature == 1
    assert repr(BelowChance()) == "BelowChance()"


@pytest.mark.parametrize(
    ("temperature", "error"),
    [(0.0, InvalidInputError), (-1.0, InvalidInputError), (math.nan, InvalidInputError), (math.inf, InvalidInputError),
     ("2", InvalidTypeError)],
)  # fmt: skip
def test_temperatures_that_cannot_be(temperature: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="temperature: expected a"):
        BelowChance(temperature=temperature)  # type: ignore[arg-type]


def _label_sets(seed: int, num_labels: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, some exactly 0, and labels of which the first is always known."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-2, 3, (30, num_labels), generator=generator).double()
    labels = torch.randint(-1, 2, (30, num_labels), generator=generator)
    labels[:, 0] = labels[:, 0].abs()
    return logits, labels


@given(seeds)
def test_label_flips_is_a_wrong_decision(seed: int) -> None:
    logits, labels = _label_sets(seed)
    wrong = [
        [y >= 0 and (z > 0) != (y == 1) for z, y in zip(*row, strict=True)]
        for row in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert (LabelFlips().value(logits, labels) <= 0).tolist() == [any(row) for row in wrong]
    assert LabelFlips().correct(logits, labels).tolist() == [not any(row) for row in wrong]
    for k in range(4):
        assert (LabelFlips(k).value(logits, labels) <= 0).tolist() == [row[k] for row in wrong]


@pytest.mark.parametrize(
    "labels", [torch.tensor([[1.0], [0.0]]), torch.tensor([[1], [0]]), torch.tensor([[1], [0]]) > 0]
)
def test_label_flips_on_one_linear_logit_is_the_distance_to_its_plane(labels: torch.Tensor) -> None:
    model = torch.nn.Linear(2, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
        model.bias.zero_()
    inputs = torch.tensor([[1.0, 0.5], [-2.0, -1.0]], dtype=torch.float64)  # logits 5 and -10: both right
    for criterion in (LabelFlips(0), "label_flips"):
        result = MinimumNormAttack(norm="l2")(model, inputs, labels, criterion)
        assert result.distances.tolist() == pytest.approx([1.0, 2.0], rel=1e-4)
        assert (model(result.adversarial_inputs) > 0).squeeze(1).tolist() == [False, True]


def test_label_flips_of_several_is_the_nearest_known_plane() -> None:
    inputs = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [-3.0, 1.0, 2.0]], dtype=torch.float64)
    labels = torch.tensor([[1, -1, 1], [1, 1, 1], [1, 1, -1]])  # the last image's first label is wrong already
    result = MinimumNormAttack(norm="l2")(lambda x: x * 1.0, inputs, labels, LabelFlips())
    assert result.distances.tolist() == pytest.approx([2.0, 1.0, 0.0], rel=1e-4)
    single = MinimumNormAttack(norm="l2")(lambda x: x * 1.0, inputs, labels, LabelFlips(label=0))
    assert single.distances.tolist() == pytest.approx([3.0, 3.0, 0.0], rel=1e-4)


@pytest.mark.parametrize(
    ("labels", "criterion", "error", "message"),
    [
        ([1, 0], LabelFlips(), InvalidTypeError, "labels: expected a tensor of 0, 1 and -1, got list"),
        (torch.tensor([1, 0]), LabelFlips(), InvalidInputError, r"shape \(2, K\), got \(2,\)"),
        (torch.zeros(3, 2), LabelFlips(), InvalidInputError, r"shape \(2, K\), got \(3, 2\)"),
        (torch.zeros(2, 3), LabelFlips(), InvalidInputError, r"shape \(2, 2\), got \(2, 3\)"),
        (torch.tensor([[1, 2], [0, 1]]), LabelFlips(), InvalidInputError, "expected 0, 1 or -1 .unknown., got 2"),
        (torch.tensor([[1, 0.5], [0, 1]]), LabelFlips(), InvalidInputError, "got 0.5"),
        (torch.tensor([[1, math.nan], [0, 1]]), LabelFlips(), InvalidInputError, "got nan"),
        (torch.tensor([[-1, -1], [0, 1]]), LabelFlips(), InvalidInputError, "any label to be known .* for 1 images"),
        (torch.tensor([[1, -1], [0, -1]]), LabelFlips(1), InvalidInputError, "label 1 to be known .* for 2 images"),
        (torch.ones(2, 2), LabelFlips(2), InvalidInputError, r"label: expected one of 0\.\.1, got 2"),
    ],
)
def test_label_sets_that_cannot_be(labels: object, criterion: LabelFlips, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MinimumNormAttack()(lambda x: x * 1.0, torch.rand(2, 2), labels, criterion)  # type: ignore[arg-type]


def test_label_flips_refuses_what_it_cannot_be_or_be_used_with() -> None:
    with pytest.raises(InvalidInputError, match="label: expected a whole number from 0, got -1"):
        LabelFlips(-1)
    with pytest.raises(InvalidTypeError, match="label: expected a whole number"):
        LabelFlips(1.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="MinimumNormAttack follows any criterion"):
        PaperAttack()(lambda x: x * 1.0, torch.rand(2, 2), torch.ones(2, 2), LabelFlips())
    with pytest.raises(ModelOutputError, match="got tuple"):
        MinimumNormAttack()(lambda x: (x,), torch.rand(2, 2), torch.ones(2, 2), LabelFlips())  # type: ignore[arg-type]


@given(seeds)
def test_label_flips_of_several_is_the_label_that_is_nearest_and_not_the_one_of_smallest_logit(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Linear(6, 4).double()
    with torch.no_grad():
        weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
        model.weight.copy_(weight * torch.tensor([[0.01], [0.1], [1.0], [10.0]]))
        model.bias.zero_()
        inputs = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        labels = (model(inputs) > 0).long()
        labels[:, 1] = torch.where(torch.rand(8, generator=generator) < 0.5, -1, labels[:, 1])
        planes = model(inputs).abs() / model.weight.norm(dim=1)
        nearest = planes.masked_fill(labels < 0, math.inf).amin(1)
    result = MinimumNormAttack(norm="l2")(model, inputs, labels, "label_flips")
    torch.testing.assert_close(result.distances, nearest, rtol=1e-4, atol=1e-9)


class _First(Criterion):
    """A criterion with a single way to meet it: the first logit is at most 0."""

    def value(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        del labels
        return logits[:, 0]


def test_a_criterion_of_ones_own_judges_as_the_argmax_does() -> None:
    logits, labels = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1])
    criterion = _First()
    assert criterion.alternatives(logits, labels).tolist() == [[1.0], [3.0]]  # its own alternative
    assert criterion.rows(torch.tensor([1])) is criterion
    assert criterion.correct(logits, labels).tolist() == [True, False]
    classes, number = criterion.classes(labels, 2)
    assert (classes.tolist(), number) == ([1, 1], 2)
    assert criterion.check_labels(labels, 2, 2).tolist() == [1, 1]
    with pytest.raises(InvalidInputError, match=r"0\.\.0, got 1\.\.1"):
        criterion.check_labels(labels, 2, 1)
    assert criterion.check_logits(logits, 2) is logits
    endless = torch.tensor([[math.inf, 0.0]])
    assert criterion.check_logits(endless, 1, finite=False) is endless
    with pytest.raises(ModelOutputError, match="finite"):
        criterion.check_logits(endless, 1)


@given(seeds)
def test_alternatives_are_the_labels_lead_over_each_other_class(seed: int) -> None:
    logits, labels = _logits(seed)
    for criterion, extra in ((Misclassified(), 0.0), (BelowChance(), math.log(4)), (BelowChance(temperature=2), None)):
        ways = criterion.alternatives(logits, labels)
        for z, y, row in zip(logits.tolist(), labels.tolist(), ways.tolist(), strict=True):
            leads = [(z[y] - x) / 2 + math.log(4) if extra is None else z[y] - x + extra for x in z]
            assert row == pytest.approx([math.inf if j == y else lead for j, lead in enumerate(leads)])
        # Each is enough by itself.
        assert (criterion.value(logits, labels) <= ways.amin(1) + 1e-12).all()


def test_values_by_hand() -> None:
    logits, labels = torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 4.0]], dtype=torch.float64), torch.tensor([0, 0])
    assert Misclassified().value(logits, labels).tolist() == [1.0, -4.0]
    below = [3 - math.log(math.e + math.e**2) + math.log(2), -math.log(1 + math.e**4) + math.log(2)]
    assert BelowChance().value(logits, labels).tolist() == pytest.approx(below)
    assert Reaches(2).value(logits, labels).tolist() == [1.0, -4.0]
    assert Reaches(torch.tensor([1, 0])).value(logits, labels).tolist() == [2.0, 4.0]
    flips = torch.tensor([[1, 0, -1], [0, 1, 0]])
    assert LabelFlips().alternatives(logits, flips).tolist() == [[3.0, -1.0, math.inf], [pytest.approx(0), 0.0, -4.0]]
    assert LabelFlips(1).alternatives(logits, flips).tolist() == [[-1.0], [0.0]]


def test_a_kept_tie_is_a_hair_above_zero() -> None:
    tiny = torch.finfo(torch.float32).tiny
    assert Misclassified().value(torch.tensor([[1.0, 1.0]]), torch.tensor([0])).tolist() == [tiny]
    assert LabelFlips().value(torch.tensor([[0.0, 5.0]]), torch.tensor([[0, 1]])).tolist() == [tiny]
    assert LabelFlips().value(torch.tensor([[0.0]]), torch.tensor([[1]])).tolist() == [0.0]


def test_targets_of_each_image_are_selected_with_the_images() -> None:
    targets = Reaches(torch.tensor([0, 1, 2]))
    assert targets.rows(torch.tensor([2, 0])).target.tolist() == [2, 0]
    one = Reaches(1)
    assert one.rows(torch.tensor([5])) is one
    with pytest.raises(InvalidInputError, match="got 3 for more images"):
        targets.rows(torch.tensor([0, 3]))
    targets.validate(3, 3)
    Reaches(0).validate(7, 1)
    for wrong in (Reaches(-1), Reaches(3), Reaches(torch.tensor([0, 3, 0])), Reaches(torch.tensor([0, -1, 0]))):
        with pytest.raises(InvalidInputError, match=r"target: expected classes in 0\.\.2"):
            wrong.validate(3, 3)
    with pytest.raises(InvalidTypeError, match="target: expected a class"):
        Reaches(torch.tensor([[0, 1]]))


def test_which_images_are_right_and_what_guessing_is_told_from() -> None:
    labels = torch.tensor([[1, 0], [0, 1], [-1, 1]])
    whole, second = LabelFlips(), LabelFlips(1)
    classes, number = whole.classes(labels, 2)
    assert torch.equal(classes, labels)
    assert number == 2
    classes, number = second.classes(labels, 9)
    assert (classes.tolist(), number) == ([0, 1, 1], 2)
    assert LabelFlips(0).label == 0
    for wrong in (True, "0"):
        with pytest.raises(InvalidTypeError, match="label: expected a whole number or None"):
            LabelFlips(wrong)  # type: ignore[arg-type]


def test_label_sets_are_judged_by_the_label_asked_for() -> None:
    labels = torch.tensor([[1, -1], [0, 1]])
    assert torch.equal(LabelFlips().check_labels(labels, 2, 2), labels)
    assert torch.equal(LabelFlips(0).check_labels(labels, 2), labels)
    with pytest.raises(InvalidInputError, match=r"label 1 to be known .* for 1 images"):
        LabelFlips(1).check_labels(labels, 2)
    with pytest.raises(InvalidInputError, match=r"label: expected one of 0\.\.1, got 2"):
        LabelFlips(2).check_labels(labels, 2)
    with pytest.raises(InvalidInputError, match=r"label 0 to be known .* for 1 images"):
        LabelFlips(0).check_labels(torch.tensor([[-1, 1]]), 1)  # that its neighbour is known does not help
    with pytest.raises(ModelOutputError, match="got"):
        LabelFlips().check_logits(torch.zeros(2, 0), 2)
    single = torch.tensor([[0.5]])
    assert LabelFlips().check_logits(single, 1) is single  # one output is a decision of its own
    with pytest.raises(ModelOutputError, match="finite"):
        LabelFlips().check_logits(torch.tensor([[math.nan]]), 1)
    assert LabelFlips().check_logits(torch.tensor([[math.nan]]), 1, finite=False).isnan().all()


def test_criteria_by_name_or_as_they_are() -> None:
    criterion = BelowChance(temperature=3)
    assert as_criterion(criterion) is criterion
    assert [type(as_criterion(name)) for name in ("misclassified", "label_flips")] == [Misclassified, LabelFlips]
    with pytest.raises(InvalidInputError, match="criterion: expected one of"):
        as_criterion(Misclassified)  # type: ignore[arg-type]
