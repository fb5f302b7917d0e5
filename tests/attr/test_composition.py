"""Beside Captum's own tools: NoiseTunnel, its metrics, pictures, robustness tools, embeddings, copies.

The models are linear or small, so that what a tool must answer can be computed by hand.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import captum.attr
import pytest
import torch
from captum.attr import (
    DataLoaderAttribution,
    IntegratedGradients,
    LayerAttribution,
    LayerIntegratedGradients,
    NoiseTunnel,
    Saliency,
    configure_interpretable_embedding_layer,
    remove_interpretable_embedding_layer,
)
from captum.attr import visualization as pictures
from captum.metrics import infidelity, sensitivity_max
from captum.robust import FGSM, AttackComparator, MinParamPerturbation
from contracts import assert_unchanged, snapshot
from strategies import build_batch, build_convolutional
from torch import Tensor, nn

from captum_lipschitz.attr.adversarial import AdversarialAttribution
from captum_lipschitz.attr.contrastive import ContrastiveAdversarialAttribution
from captum_lipschitz.attr.layer import LayerAdversarialAttribution
from captum_lipschitz.attr.minimal import MinimalAdversarialAttribution
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import RMSE

OF_INPUTS = [AdversarialAttribution, ContrastiveAdversarialAttribution, MinimalAdversarialAttribution]


@pytest.fixture(params=OF_INPUTS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Any:
    """Each class that explains inputs."""
    return request.param


def _rho(kind: Any, rho: float) -> dict[str, float]:
    """The size, for the classes whose setting and not whose answer it is."""
    return {} if kind is MinimalAdversarialAttribution else {"rho": rho}


class TwoInputs(nn.Module):
    """Takes two inputs of different shapes, a tensor with a row per example and a number."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(0.5 * torch.randn(8, 3, generator=generator))
        self.second = nn.Parameter(torch.randn(3, 3, generator=generator))

    def forward(self, a: Tensor, b: Tensor, shift: Tensor, factor: float) -> Tensor:
        return (torch.cat([a, b.flatten(1)], 1) @ self.first + shift).tanh() @ self.second * factor


def _two_inputs() -> tuple[TwoInputs, tuple[Tensor, Tensor], dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(3, 4, generator=generator), torch.randn(3, 2, 2, generator=generator)
    shift = torch.randn(3, 3, generator=generator)
    return TwoInputs(), inputs, {"target": torch.tensor([2, 0, 1]), "additional_forward_args": (shift, 1.5)}


@pytest.mark.parametrize("batch_size", [None, 1, 2])
@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel_without_noise(kind: Any, nt_type: str, batch_size: int | None) -> None:
    model, inputs, arguments = _two_inputs()
    plain, delta = kind(model).attribute(inputs, **arguments, return_convergence_delta=True)
    smooth, deltas = NoiseTunnel(kind(model)).attribute(
        inputs,
        nt_type=nt_type,
        nt_samples=3,
        nt_samples_batch_size=batch_size,
        stdevs=0.0,
        return_convergence_delta=True,
        **arguments,
    )
    wanted = {"smoothgrad": lambda x: x, "smoothgrad_sq": torch.square, "vargrad": torch.zeros_like}[nt_type]
    assert all(part.any() for part in plain)
    for ours, expected in zip(smooth, plain, strict=True):
        torch.testing.assert_close(ours, wanted(expected), rtol=0, atol=1e-6)
    assert deltas.shape == (3 * 3,)
    torch.testing.assert_close(deltas.sort().values, delta.repeat(3).sort().values, rtol=0, atol=1e-6)


def test_noise_tunnel_is_the_mean_over_noisy_inputs_each_with_its_own_target_and_arguments(kind: Any) -> None:
    model, inputs, arguments = _two_inputs()
    stdevs = (0.3, 0.1)
    torch.manual_seed(5)
    smooth = NoiseTunnel(kind(model)).attribute(inputs, nt_samples=4, stdevs=stdevs, **arguments)
    torch.manual_seed(5)
    noisy = [x.repeat_interleave(4, 0) for x in inputs]
    noisy = [x + torch.normal(0.0, torch.full_like(x, stdev)) for x, stdev in zip(noisy, stdevs, strict=True)]
    shift, factor = arguments["additional_forward_args"]
    for row in range(3):
        rows = slice(4 * row, 4 * row + 4)
        each = kind(model).attribute(
            tuple(x[rows] for x in noisy), int(arguments["target"][row]), (shift[row].expand(4, -1), factor)
        )
        for ours, expected in zip(smooth, each, strict=True):
            torch.testing.assert_close(ours[row], expected.mean(0), rtol=0, atol=1e-6)


def test_noise_tunnel_passes_settings_on(kind: Any) -> None:
    model, inputs, arguments = _two_inputs()
    settings = {**_rho(kind, 0.3), "n_steps": 7, "internal_batch_size": 2, "mask": (torch.tensor([1.0, 0, 1, 0]), 0)}
    plain = kind(model).attribute(inputs, **arguments, **settings)
    smooth = NoiseTunnel(kind(model)).attribute(inputs, nt_samples=2, stdevs=0.0, **arguments, **settings)
    for ours, expected in zip(smooth, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert not smooth[1].any()
    assert not smooth[0][:, 1].any()


@pytest.mark.parametrize("path", ["0", "3"])
def test_layer_attributions_with_noise_tunnel_sensitivity_and_upsampling(path: str) -> None:
    inputs, labels = build_batch(0, 3)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Identity(), nn.Flatten(), nn.Linear(48, 4)).double()
    method = LayerAdversarialAttribution(model, model.get_submodule(path))
    plain, delta = method.attribute(inputs, labels, n_steps=5, return_convergence_delta=True)
    smooth, deltas = NoiseTunnel(method).attribute(
        inputs, nt_samples=2, stdevs=0.0, target=labels, n_steps=5, return_convergence_delta=True
    )
    assert plain.any()
    torch.testing.assert_close(smooth, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(deltas, delta.repeat_interleave(2), rtol=0, atol=1e-12)

    def louder(rows: Tensor) -> Tensor:
        return rows * 1.5

    def explain(rows: Tensor, **settings: Any) -> tuple[Tensor]:
        attributions: Tensor = method.attribute(rows, **settings)
        return (attributions,)  # it expects a tuple, which Captum's layer methods do not return either

    found = sensitivity_max(explain, inputs, louder, n_perturb_samples=1, target=labels, n_steps=5)
    change = method.attribute(inputs * 1.5, labels, n_steps=5) - plain
    torch.testing.assert_close(found, change.flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1))
    if plain.dim() == 4:
        assert LayerAttribution.interpolate(plain, (5, 5)).shape == (3, 3, 5, 5)


def _linear(weight: list[list[float]]) -> nn.Linear:
    model = nn.Linear(len(weight[0]), len(weight), bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(weight))
    return model


def test_infidelity() -> None:
    weight = torch.tensor([3.0, -1.0, 2.0])
    model = _linear([weight.tolist(), [0.0, 5.0, 0.0]])
    inputs = torch.tensor([[0.1, 0.2, 0.3], [1.0, -1.0, 0.5]])
    attributions = AdversarialAttribution(model).attribute(inputs, target=0, objective="output")
    noise = torch.tensor([[0.1, 0.0, -0.2], [0.0, 0.3, 0.1], [-0.1, 0.1, 0.0], [0.2, 0.2, -0.1]])

    def perturb(rows: Tensor) -> tuple[Tensor, Tensor]:
        repeated = noise.repeat(len(rows) // len(noise), 1)
        return repeated, rows - repeated

    found = infidelity(model, perturb, inputs, attributions, target=0, n_perturb_samples=4)
    # By definition: the mean square of noise @ attribution minus the change of the output, which is noise @ weight.
    expected = torch.stack([((noise @ row - noise @ weight) ** 2).mean() for row in attributions])
    torch.testing.assert_close(found, expected)
    assert (found > 0.01).all()
    # Up to its length, our answer is the weight itself, which describes a linear model without any error.
    normalised = infidelity(model, perturb, inputs, attributions, target=0, n_perturb_samples=4, normalize=True)
    torch.testing.assert_close(normalised, torch.zeros(2), rtol=0, atol=1e-6)
    other = infidelity(model, perturb, inputs, attributions.flip(1), target=0, n_perturb_samples=4, normalize=True)
    assert (other > 0.01).all()


def test_infidelity_of_several_inputs() -> None:
    model, inputs, arguments = _two_inputs()
    attributions = AdversarialAttribution(model).attribute(inputs, **arguments, rho=0.05)
    noise = tuple(0.1 * torch.ones_like(part[:1]) for part in inputs)

    def perturb(parts: tuple[Tensor, ...], *_baselines: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        repeated = tuple(one.expand_as(part) for one, part in zip(noise, parts, strict=True))
        return repeated, tuple(part - one for part, one in zip(parts, repeated, strict=True))

    found = infidelity(model, perturb, inputs, attributions, n_perturb_samples=2, **arguments)
    shift, factor = arguments["additional_forward_args"]
    rows = torch.arange(3)
    moved = tuple(part - one for part, one in zip(inputs, noise, strict=True))
    change = (model(*inputs, shift, factor) - model(*moved, shift, factor))[rows, arguments["target"]]
    dots = sum((one * part).flatten(1).sum(1) for one, part in zip(noise, attributions, strict=True))
    torch.testing.assert_close(found, (dots - change) ** 2)


def test_sensitivity_max(kind: Any) -> None:
    model, inputs, arguments = _two_inputs()
    offsets = torch.tensor([0.05, -0.9, 0.4])

    def perturb(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        moves = offsets.repeat(len(parts[0]) // 3)
        return tuple(part + moves.view(-1, *[1] * (part.dim() - 1)) for part in parts)

    decisions = model(*inputs, *arguments["additional_forward_args"]).argmax(1)
    settings = {**arguments, **_rho(kind, 0.2), "n_steps": 10, "target": decisions}
    found = sensitivity_max(kind(model).attribute, inputs, perturb, n_perturb_samples=3, **settings)

    def explain(offset: Tensor | float) -> Tensor:
        parts = kind(model).attribute(tuple(part + offset for part in inputs), **settings)
        return torch.cat([part.flatten(1) for part in parts], 1)

    at = explain(0.0)
    expected = torch.stack([(explain(offset) - at).norm(dim=1) / at.norm(dim=1) for offset in offsets]).amax(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert (found > 0.003).all()


def test_the_answer_for_a_linear_model_does_not_depend_on_the_input() -> None:
    model = _linear([[3.0, -1.0, 2.0], [0.0, 5.0, 0.0]])
    inputs = torch.tensor([[0.1, 0.2, 0.3], [1.0, -1.0, 0.5]])
    found = sensitivity_max(AdversarialAttribution(model).attribute, inputs, target=1)
    torch.testing.assert_close(found, torch.zeros(2), rtol=0, atol=1e-6)


def test_visualization_draws_it_without_windows() -> None:
    import matplotlib.pyplot as plt

    inputs, labels = build_batch(0, 1)
    attribution = AdversarialAttribution(build_convolutional(1)).attribute(inputs, labels)
    shown = attribution[0].permute(1, 2, 0).numpy()  # (H, W, C)
    original = inputs[0].permute(1, 2, 0).numpy()
    windows = plt.get_fignums()
    figure, axes = pictures.visualize_image_attr(shown, original, sign="all", outlier_perc=0, use_pyplot=False)
    total = attribution[0].sum(0)
    torch.testing.assert_close(torch.as_tensor(axes.images[0].get_array()), total / total.abs().max())
    figure.canvas.draw()
    figure, several = pictures.visualize_image_attr_multiple(
        shown, original[..., [0, 1, 0]], ["original_image", "heat_map"], ["all", "positive"], use_pyplot=False
    )
    figure.canvas.draw()
    assert len(several) == 2
    assert plt.get_fignums() == windows


def _right(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(1) == target).float()


def _two_classes_at_margins() -> tuple[nn.Module, Tensor, Tensor]:
    """The logits are the inputs, both moved against each other by an attack: size m / 2 crosses a margin of m."""
    margins = torch.tensor([0.1, 0.3, 0.5, 0.7])
    target = torch.tensor([0, 1, 0, 1])
    inputs = torch.where(target[:, None] == torch.arange(2), margins[:, None], torch.zeros(4, 2))
    return nn.Identity(), inputs, target


@pytest.mark.parametrize("per_eval", [1, 4])
def test_attack_comparator_beside_captums_own_attack(per_eval: int) -> None:
    model, inputs, target = _two_classes_at_margins()
    attribution = AdversarialAttribution(model)

    def ours(rows: Tensor, target: Tensor, **settings: Any) -> Tensor:
        perturbation: Tensor = attribution.attribute(rows, target, **settings)
        return rows + perturbation

    comparator = AttackComparator(model, _right)
    comparator.add_attack(
        ours, "away", attack_kwargs={"direction": "away", "rho": 0.2}, additional_attack_arg_names=["target"]
    )
    comparator.add_attack(ours, "toward", attack_kwargs={"rho": 0.2}, additional_attack_arg_names=["target"])
    comparator.add_attack(
        FGSM(model, loss_func=nn.CrossEntropyLoss(reduction="none")),
        "FGSM",
        attack_kwargs={"epsilon": 0.2},
        additional_attack_arg_names=["target"],
    )
    found = comparator.evaluate(inputs, target=target, perturbations_per_eval=per_eval)
    means = {name: [float(x) for x in result["mean"]] for name, result in found.items() if name != "Original"}
    everything, half = [1.0] * 4, [0.0, 0.0, 1.0, 1.0]  # sizes 0.05 and 0.15 are crossed, 0.25 and 0.35 are not
    assert found["Original"].tolist() == everything
    assert means == {"away": half, "toward": everything, "FGSM": half}


@pytest.mark.parametrize("mode", ["linear", "binary"])
def test_the_least_rho_that_misleads(mode: str) -> None:
    model, inputs, target = _two_classes_at_margins()
    attribution = AdversarialAttribution(model)

    def attack(rows: Tensor, target: Tensor, rho: float) -> Tensor:
        # A path of length rho, straight on a linear model, ends at exactly rho.
        perturbation: Tensor = attribution.attribute(rows, target, rho=rho, direction="away", overshoot=1.0, n_steps=3)
        return rows + perturbation

    search = MinParamPerturbation(model, attack, "rho", arg_min=0.02, arg_max=0.5, arg_step=0.02, mode=mode)
    for row, least in enumerate([0.06, 0.16, 0.26, 0.36]):  # the first of 0.02, 0.04 ... beyond half the margin
        one, label = inputs[row : row + 1], target[row : row + 1]
        misled, rho = search.evaluate(one, target=label, attack_kwargs={"target": label})
        assert rho == pytest.approx(least)
        assert float(RMSE().size(misled - one)) == pytest.approx(least, rel=1e-5)
        assert model(misled).argmax(1) != label


class Sentence(nn.Module):
    """Classifies the mean of token embeddings; the words are what an attribution cannot change continuously."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Sequential(nn.Tanh(), nn.Linear(4, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.head(self.embedding(tokens).mean(1))
        return output


def test_interpretable_embeddings(kind: Any) -> None:
    torch.manual_seed(0)
    model = Sentence().eval()
    tokens = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 7]])
    target = torch.tensor([0, 2])
    logits, before = model(tokens), snapshot(model)
    with pytest.warns(UserWarning, match="interpretable"):
        layer = configure_interpretable_embedding_layer(model, "embedding")
    embedded = layer.indices_to_embeddings(tokens)
    attributions = kind(model).attribute(embedded, target)
    expected = kind(lambda vectors: model.head(vectors.mean(1))).attribute(embedded.detach(), target)
    remove_interpretable_embedding_layer(model, layer)
    if kind is AdversarialAttribution:  # without touching the model: as a layer's change, from the tokens themselves
        of_layer = LayerAdversarialAttribution(model, model.embedding).attribute(tokens, target)
        torch.testing.assert_close(of_layer, attributions, rtol=0, atol=1e-6)
    assert attributions.shape == (2, 4, 4)
    assert attributions.any()
    assert torch.equal(attributions, expected)
    assert torch.equal(model(tokens), logits)
    assert_unchanged(before, snapshot(model))


def _through_pickle(method: Any) -> Any:
    return pickle.loads(pickle.dumps(method))  # noqa: S301 (its own bytes)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, _through_pickle])
def test_copies_explain_the_same(kind: Any, make: Any) -> None:
    inputs, labels = build_batch(0, 3)
    method = kind(build_convolutional(1))
    assert torch.equal(make(method).attribute(inputs, labels), method.attribute(inputs, labels))


def test_dataloader_attribution_takes_methods_that_try_features_only(kind: Any) -> None:
    # It hands its method a forward function of feature indices, which no gradient reaches; Saliency is refused as well.
    for method in (kind, Saliency):
        with pytest.raises(AssertionError, match="does not support"):
            DataLoaderAttribution(method(nn.Linear(3, 2)))


def test_every_public_member_of_captums_layer_methods() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    ours, theirs = LayerAdversarialAttribution(model, model[0]), LayerIntegratedGradients(model, model[0])
    public = {name for name in dir(theirs) if not name.startswith("_")}
    own = {"ig", "gradient_func", "inputs_or_outputs"}  # how it is made of IntegratedGradients
    assert {name for name in public - own if not hasattr(ours, name)} == set()
    assert ours.get_name() == "Layer Adversarial Attribution"
    with pytest.raises(NotImplementedError, match="LayerAdversarialAttribution"):
        ours.attribute_future()


@pytest.mark.parametrize("theirs", [Saliency, IntegratedGradients])
def test_every_public_member_of_captums_gradient_methods(kind: Any, theirs: type[captum.attr.Attribution]) -> None:
    ours = kind(nn.Linear(3, 2))
    other = theirs(nn.Linear(3, 2))
    missing = {name for name in dir(other) if not name.startswith("_") and not hasattr(ours, name)}
    assert not missing
    assert callable(getattr(ours.attribute, "__wrapped__", None))  # NoiseTunnel calls it
    assert ours.get_name() == "".join(f" {c}" if c.isupper() else c for c in kind.__name__).strip()
    assert ours.multiplies_by_inputs is False  # Saliency's answer as well: a local attribution, as infidelity calls it
    assert ours.has_convergence_delta() is True


def test_futures_are_refused_as_captum_does(kind: Any) -> None:
    with pytest.raises(NotImplementedError, match="Saliency"):
        Saliency(nn.Linear(3, 2)).attribute_future()
    with pytest.raises(NotImplementedError, match=f"attribute_future is not implemented for {kind.__name__}"):
        kind(nn.Linear(3, 2)).attribute_future()


def test_a_mask_for_each_example_does_not_fit_noise_tunnels_repeated_examples(kind: Any) -> None:
    model, inputs, arguments = _two_inputs()
    masks = tuple(torch.ones_like(part) for part in inputs)
    with pytest.raises((InvalidInputError, TypeError), match="mask"):
        NoiseTunnel(kind(model)).attribute(inputs, nt_samples=2, stdevs=0.0, mask=masks, **arguments)
