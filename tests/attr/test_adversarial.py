"""AdversarialAttribution: behaves like Captum's own methods, and keeps the library's contracts."""

from __future__ import annotations

import inspect

import captum.attr
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, build_batch, build_convolutional, cases
from torch import Tensor, nn

from captum_lipschitz import RMSE, AdversarialAttribution
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, ModelOutputError


def test_it_is_a_captum_gradient_attribution() -> None:
    assert issubclass(AdversarialAttribution, captum.attr.GradientAttribution)
    assert AdversarialAttribution.get_name() == "Adversarial Attribution"
    ours = list(inspect.signature(AdversarialAttribution.attribute).parameters)
    assert ours[:4] == ["self", "inputs", "target", "additional_forward_args"]
    assert AdversarialAttribution(lambda x: x).has_convergence_delta()


@given(cases(), st.sampled_from(["toward", "away"]))
def test_the_log_odds_move_as_asked_by_a_perturbation_of_about_rho(case: Case, direction: str) -> None:
    attribution = AdversarialAttribution(case.model)
    deltas, convergence = attribution.attribute(
        case.inputs, target=case.labels, direction=direction, return_convergence_delta=True
    )
    from captum_lipschitz.objectives import log_odds

    before, after = (log_odds(case.model(x), case.labels) for x in (case.inputs, case.inputs + deltas))
    assert ((after > before) if direction == "toward" else (after < before)).all()
    torch.testing.assert_close(convergence, RMSE().size(deltas) - 0.1)
    torch.testing.assert_close(convergence, attribution.compute_convergence_delta(deltas))
    assert (convergence <= 2 * 5 * 0.1 / 35).all()  # at most one step beyond rho
    assert (convergence >= -0.05).all()


@given(cases(min_size=2), st.integers(1, 3))
def test_examples_are_independent_of_their_batch(case: Case, size: int) -> None:
    attribution = AdversarialAttribution(case.model)
    whole = attribution.attribute(case.inputs, target=case.labels)
    parts = attribution.attribute(case.inputs, target=case.labels, internal_batch_size=size)
    flipped = attribution.attribute(case.inputs.flip(0), target=case.labels.flip(0)).flip(0)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(flipped, whole, rtol=1e-6, atol=1e-9)


@given(cases())
def test_the_same_call_gives_the_same_bits(case: Case) -> None:
    attribution = AdversarialAttribution(case.model)
    assert torch.equal(
        attribution.attribute(case.inputs, target=case.labels), attribution.attribute(case.inputs, target=case.labels)
    )


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()])
def test_leaves_no_trace(error: BaseException | None) -> None:
    inputs, labels = build_batch(1, 5)
    model = build_convolutional(2)
    explained = model if error is None else Breaking(model, 4, error).train()
    half_frozen(model)
    inputs.requires_grad_()
    before = snapshot(explained, inputs, labels)
    if error is None:
        AdversarialAttribution(explained).attribute(inputs, target=labels)
    else:
        with pytest.raises(type(error)):
            AdversarialAttribution(explained).attribute(inputs, target=labels)
    assert_unchanged(before, snapshot(explained, inputs, labels))


@given(cases(min_size=3, max_size=3))
def test_every_form_of_target(case: Case) -> None:
    attribution = AdversarialAttribution(case.model)
    expected = attribution.attribute(case.inputs, target=torch.tensor([2, 2, 2]))
    for target in (2, torch.tensor(2), torch.tensor([2]), [2, 2, 2], (2,), [(2,), (2,), (2,)]):
        assert torch.equal(attribution.attribute(case.inputs, target=target), expected)
        Saliency(case.model).attribute(case.inputs, target=target)  # the forms are Captum's
    mixed = attribution.attribute(case.inputs, target=[0, 1, 2])
    assert torch.equal(mixed, attribution.attribute(case.inputs, target=torch.tensor([0, 1, 2])))


def test_outputs_without_classes() -> None:
    inputs, _ = build_batch(0, 3)
    weight = torch.linspace(-1, 1, 50, dtype=torch.float64).reshape(2, 5, 5)
    attribution = AdversarialAttribution(lambda x: (x * weight).sum((1, 2, 3)))
    expected = 0.1 * RMSE().steepest(weight[None]).expand(3, -1, -1, -1)
    torch.testing.assert_close(attribution.attribute(inputs, n_steps=200), expected, rtol=0.1, atol=1e-3)
    higher = AdversarialAttribution(lambda x: x[:, :, :2, :3] * 3.0)
    only = higher.attribute(inputs, target=(1, 0, 2))
    assert (only != 0).sum() == 3
    assert (only[:, 1, 0, 2] > 0).all()


def test_several_inputs_share_one_budget() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(3, 4, generator=generator), torch.rand(3, 2, 2, generator=generator)
    weight = torch.randn(8, 3, generator=generator)

    def together(x: Tensor) -> Tensor:
        return x @ weight

    def apart(a: Tensor, b: Tensor, factor: float, offset: Tensor) -> Tensor:
        return factor * torch.cat([a, b.flatten(1)], 1) @ weight + offset

    joined = AdversarialAttribution(together).attribute(torch.cat([first, second.flatten(1)], 1), target=1)
    arguments = (1.0, torch.arange(3.0)[:, None])  # the same for all classes, so without effect on the log-odds
    a, b = AdversarialAttribution(apart).attribute((first, second), 1, arguments, internal_batch_size=2)
    assert a.shape == first.shape
    assert b.shape == second.shape
    torch.testing.assert_close(torch.cat([a, b.flatten(1)], 1), joined)
    masked, whole = AdversarialAttribution(apart).attribute((first, second), 1, arguments, mask=(0, 1))
    assert not masked.any()
    assert whole.any()


@given(cases(), st.sampled_from(["rmse", "l2", "linf"]))
def test_bounds_mask_and_scale(case: Case, norm: str) -> None:
    mask = torch.zeros(5, 5)
    mask[1:3] = 1
    scale = torch.linspace(0.5, 2, 5, dtype=torch.float64)
    deltas, convergence = AdversarialAttribution(case.model).attribute(
        case.inputs, case.labels, norm=norm, bounds=(0, 1), mask=mask, scale=scale, return_convergence_delta=True
    )
    assert not deltas[..., 0, :].any()
    assert deltas[..., 1:3, :].any()
    assert (case.inputs + deltas).min() >= -1e-12
    assert (case.inputs + deltas).max() <= 1 + 1e-12
    assert convergence.shape == (len(case.inputs),)


def test_composes_with_noise_tunnel() -> None:
    inputs, labels = build_batch(0, 2)
    model = build_convolutional(1)
    torch.manual_seed(0)
    smooth = NoiseTunnel(AdversarialAttribution(model)).attribute(
        inputs, nt_samples=3, stdevs=0.01, target=labels, rho=0.05, n_steps=5
    )
    assert smooth.shape == inputs.shape
    assert torch.isfinite(smooth).all()


def test_half_precision_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(50, 4)).to(torch.bfloat16)
    inputs, labels = build_batch(0, 2, dtype=torch.bfloat16)
    deltas = AdversarialAttribution(model).attribute(inputs, labels, n_steps=5, show_progress=True)
    assert deltas.dtype == torch.bfloat16
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "5/5" in captured.err


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"rho": 0.0}, InvalidInputError, "rho: expected a positive size, got 0.0"),
        ({"n_steps": 0}, InvalidInputError, "n_steps: expected at least 1"),
        ({"direction": "up"}, InvalidInputError, "'toward' or 'away', got 'up'"),
        ({"objective": "loss"}, InvalidInputError, "objective: expected one of"),
        ({"norm": "l7"}, InvalidInputError, "norm: expected one of"),
        ({"internal_batch_size": 0}, InvalidInputError, "internal_batch_size: expected at least 1"),
        ({"bounds": (0.4, 0.5)}, InvalidInputError, "within the bounds"),
        ({"mask": torch.ones(7)}, InvalidTypeError, "mask: expected numbers or tensors that broadcast"),
        ({"scale": (1.0, 2.0)}, InvalidInputError, "scale: expected one entry for each of 1 inputs"),
        ({"target": None}, InvalidInputError, "target: expected the output to explain"),
        ({"target": 9}, InvalidInputError, r"target: expected classes in 0\.\.3, got 9"),
        ({"target": [1, 2]}, InvalidInputError, "does not fit"),
    ],
)
def test_settings_are_checked(setting: dict[str, object], error: type[Exception], message: str) -> None:
    inputs, labels = build_batch(0, 3)
    with pytest.raises(error, match=message):
        AdversarialAttribution(build_convolutional(1)).attribute(inputs, **{"target": labels, **setting})


def test_one_class_has_no_log_odds_but_a_logit() -> None:
    inputs, _ = build_batch(0, 3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(50, 1)).double()
    with pytest.raises(ModelOutputError, match="at least two classes"):
        AdversarialAttribution(model).attribute(inputs, target=0, objective="log_odds")
    deltas = AdversarialAttribution(model).attribute(inputs, target=0)
    assert torch.equal(deltas, AdversarialAttribution(model).attribute(inputs, target=0, objective="output"))
    assert (model(inputs + deltas) > model(inputs)).all()


def test_a_scale_for_each_input_and_inference_mode() -> None:
    inputs, labels = build_batch(0, 3)
    model = build_convolutional(1)
    attribution = AdversarialAttribution(lambda a, b: model(a + b))
    scales = (torch.full((5, 5), 2.0), torch.full((5, 5), 0.5))
    first, second = attribution.attribute((inputs, 0 * inputs), labels, scale=scales)
    torch.testing.assert_close(first, 16 * second)  # the steepest way is the scale's square times the gradient
    with torch.inference_mode():
        inside = AdversarialAttribution(model).attribute(inputs * 1, labels * 1)
    torch.testing.assert_close(inside, AdversarialAttribution(model).attribute(inputs, labels))
    with pytest.raises(InvalidTypeError, match="additional_forward_args"):
        attribution.attribute((inputs, inputs.long()), labels)
