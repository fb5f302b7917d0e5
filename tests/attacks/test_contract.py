"""What every attack promises; an attack exported without a case here fails ``test_every_attack_is_here``."""

from __future__ import annotations

import pytest
import torch
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, build_batch, build_convolutional, cases

import captum_lipschitz
from captum_lipschitz import (
    Attack,
    BelowChance,
    EnsembleAttack,
    FixedSizeAttack,
    MinimumNormAttack,
    Misclassified,
    PaperAttack,
    Reaches,
)
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError


def gradient_steps(model: Model, inputs: torch.Tensor, labels: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Three steps of half the size, in RMSE, along the gradient of the cross entropy."""
    delta, root = torch.zeros_like(inputs), inputs[0].numel() ** 0.5
    limit = sizes[:, None, None, None].to(inputs)
    for _ in range(3):
        leaf = (inputs + delta).requires_grad_()
        torch.nn.functional.cross_entropy(model(leaf), labels, reduction="sum").backward()
        assert leaf.grad is not None
        slope = leaf.grad / leaf.grad.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-30)
        delta = delta + limit * root * slope / 2
        delta = delta * (limit * root / delta.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-30)).clamp(max=1)
    return inputs + delta


ATTACKS: dict[str, Attack] = {
    "minimum_norm": MinimumNormAttack(steps=15),
    "minimum_norm_l2": MinimumNormAttack(steps=15, norm="l2"),
    "minimum_norm_linf": MinimumNormAttack(steps=15, norm="linf"),
    "minimum_norm_bounded": MinimumNormAttack(steps=15, bounds=(0, 1)),
    "paper": PaperAttack(steps=30, rho=1.0),
    "paper_cross_entropy": PaperAttack(steps=30, rho=1.0, objective="cross_entropy"),
    "paper_bounded": PaperAttack(steps=30, rho=1.0, bounds=(0, 1)),
    "paper_fixed": PaperAttack(mode="fixed", steps=10, rho=0.5),
    "ensemble": EnsembleAttack([MinimumNormAttack(steps=5), PaperAttack(steps=10, rho=1.0)]),
    "sized": FixedSizeAttack(gradient_steps, tolerance=0.1),
    "sized_one_by_one_bounded": FixedSizeAttack(gradient_steps, one_size=True, tolerance=0.1, bounds=(0, 1)),
}
attacks = st.sampled_from(list(ATTACKS)).map(ATTACKS.__getitem__)
criteria = st.sampled_from([Misclassified(), BelowChance(), Reaches(1)])


def test_every_attack_is_here() -> None:
    exported = {
        value for value in vars(captum_lipschitz).values() if isinstance(value, type) and issubclass(value, Attack)
    } - {Attack}
    assert exported == {type(attack) for attack in ATTACKS.values()}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()])
def test_leaves_no_trace(name: str, error: BaseException | None) -> None:
    inputs, labels = build_batch(1, 5)
    model = half_frozen(build_convolutional(2))
    attacked = model if error is None else Breaking(model, 4, error).train(mode=True)
    if error is not None:
        half_frozen(model)
    inputs.requires_grad_()
    before = snapshot(attacked, inputs, labels)
    if error is None:
        ATTACKS[name](attacked, inputs, labels)
    else:
        with pytest.raises(type(error)):
            ATTACKS[name](attacked, inputs, labels)
    assert_unchanged(before, snapshot(attacked, inputs, labels))


@given(cases(), attacks, criteria)
def test_every_distance_was_verified(case: Case, attack: Attack, criterion: captum_lipschitz.Criterion) -> None:
    result = attack(case.model, case.inputs, case.labels, criterion)
    with torch.no_grad():
        clean = criterion.value(case.model(case.inputs), case.labels) <= 0
        met = criterion.value(case.model(result.adversarial_inputs), case.labels) <= 0
    assert torch.equal(torch.isfinite(result.distances), result.found)
    assert met[result.found].all()
    assert (result.distances[clean] == 0).all()
    assert (result.gradient_evaluations[clean] == 0).all()
    assert torch.equal(result.adversarial_inputs[clean], case.inputs[clean])
    size = attack.norm.size(result.adversarial_inputs - case.inputs)
    torch.testing.assert_close(size[result.found], result.distances[result.found])
    assert (size[~result.found] == 0).all()
    if attack.bounds is not None:
        assert (result.adversarial_inputs == attack.bounds.clamp(result.adversarial_inputs)).all()


@given(cases(min_size=2), attacks, st.randoms(use_true_random=False))
def test_one_image_never_depends_on_its_neighbours(case: Case, attack: Attack, random: object) -> None:
    whole = attack(case.model, case.inputs, case.labels)
    order = torch.randperm(len(case.inputs), generator=torch.Generator().manual_seed(0))
    mixed = attack(case.model, case.inputs[order], case.labels[order])
    alone = [attack(case.model, x[None], y[None]) for x, y in zip(case.inputs, case.labels, strict=True)]
    torch.testing.assert_close(mixed.distances, whole.distances[order], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(torch.cat([r.distances for r in alone]), whole.distances, rtol=1e-6, atol=1e-9)


@given(cases(), attacks)
def test_the_same_call_gives_the_same_bits(case: Case, attack: Attack) -> None:
    first, second = (attack(case.model, case.inputs, case.labels) for _ in range(2))
    assert torch.equal(first.adversarial_inputs, second.adversarial_inputs)
    assert torch.equal(first.distances, second.distances)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_follows_the_inputs_also_in_inference_mode(name: str, dtype: torch.dtype) -> None:
    inputs, labels = build_batch(3, 4, dtype=dtype)
    model = build_convolutional(4, dtype=dtype)
    plain = ATTACKS[name](model, inputs, labels)
    with torch.inference_mode():
        inside = ATTACKS[name](model, inputs * 1, labels)
    with torch.no_grad():
        without = ATTACKS[name](model, inputs, labels)
    assert plain.adversarial_inputs.dtype == plain.distances.dtype == dtype
    assert torch.equal(plain.distances, inside.distances)
    assert torch.equal(plain.distances, without.distances)


@pytest.mark.parametrize("name", [name for name in ATTACKS if "fixed" not in name])
def test_an_image_without_finite_logits_costs_its_neighbours_nothing(name: str) -> None:
    inputs, labels = build_batch(3, 6)
    model = build_convolutional(4)

    def fragile(x: torch.Tensor) -> torch.Tensor:
        # Any change of an image that begins with 1 gives NaN; the others are classified as usual.
        broken = (x[:, 0, 0, 0] > 0.99) & (x[:, 0, 0, 1] != 0.5)
        return torch.where(broken[:, None], torch.full_like(model(x), torch.nan), model(x))

    inputs[2, 0, 0, :2] = torch.tensor([1.0, 0.5])
    labels = model(inputs).argmax(1)
    mixed = ATTACKS[name](fragile, inputs, labels)
    plain = ATTACKS[name](model, inputs, labels)
    others = torch.arange(6) != 2
    torch.testing.assert_close(mixed.distances[others], plain.distances[others], rtol=1e-6, atol=1e-9)
    assert plain.found.all()


def test_a_scale_for_each_image_is_refused() -> None:
    inputs, labels = build_batch(3, 4)
    scaled = MinimumNormAttack(norm=captum_lipschitz.RMSE(torch.ones(4, 1, 1, 1)))
    with pytest.raises(InvalidInputError, match="scale: expected it to broadcast to one image"):
        scaled(build_convolutional(4), inputs, labels)
    MinimumNormAttack(norm=captum_lipschitz.RMSE(torch.ones(2, 1, 1)))(build_convolutional(4), inputs, labels)
