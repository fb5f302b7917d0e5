"""The smallest change that changes the decision and keeps the explanation: against a grid, and by construction."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from hypothesis import given, settings
from strategies import Case, build_batch, build_convolutional, linear_cases
from torch import Tensor, nn

from captum_lipschitz import MinimumNormAttack, replace_activations
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics import Explain, KeptExplanation, attack_keeping_explanation


def gradients(model: nn.Module, *, create_graph: bool = True) -> Explain:
    def explain(images: Tensor, targets: Tensor) -> Tensor:
        images.requires_grad_()
        top = model(images).gather(1, targets[:, None]).sum()
        found: Tensor = torch.autograd.grad(top, images, create_graph=create_graph)[0]
        return found

    return explain


def _network(seed: int, features: int, activation: nn.Module, width: int = 16, scale: float = 2.5) -> nn.Sequential:
    source = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(features, width), activation, nn.Linear(width, width), copy.deepcopy(activation), nn.Linear(width, 2)
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter.shape[-1] if parameter.dim() == 2 else width
            parameter.copy_(scale * torch.randn(parameter.shape, generator=source, dtype=torch.float64) / fan**0.5)
    return model.eval()


def _inputs(seed: int, count: int, features: int) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=5)
@given(linear_cases())
def test_a_linear_models_gradient_is_kept_at_no_cost(case: Case) -> None:
    model = nn.Sequential(case.model)
    found = attack_keeping_explanation(model, case.inputs, case.labels, explain=gradients(model), steps=3)
    assert bool(found.found.all())
    assert torch.allclose(found.distances, found.unrestricted, rtol=1e-3)
    assert found.similarities.tolist() == pytest.approx([1.0] * len(case.inputs))
    assert bool((model(found.adversarial_inputs).argmax(1) != case.labels).all())


def _wavy(seed: int) -> tuple[nn.Sequential, Tensor]:
    """A network of the plane whose gradient turns, and three points."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, last = nn.Linear(2, 16).double(), nn.Linear(16, 2).double()
        with torch.no_grad():
            first.weight.mul_(2)
            last.weight.mul_(3)
        return nn.Sequential(first, nn.Tanh(), last), torch.randn(3, 2).double()


# Of 24 images tried (seeds 0 to 7) one, of seed 4, ends at a larger change than the grid's; answers are upper bounds.
@pytest.mark.parametrize(("seed", "restricted"), [(1, [2]), (2, [1, 2]), (5, [1])])
def test_in_the_plane_it_finds_what_a_fine_grid_finds(seed: int, restricted: list[int]) -> None:
    model, inputs = _wavy(seed)
    labels, explain = model(inputs).argmax(1), gradients(model)
    found = attack_keeping_explanation(model, inputs, labels, explain=explain, measure="cosine", magnitude=False)
    line = torch.linspace(-3, 3, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    sizes, before = grid.square().mean(1).sqrt(), explain(inputs.clone(), labels).detach()
    for i, image in enumerate(inputs):
        maps = explain(image + grid, labels[i].expand(len(grid))).detach()
        changed = model(image + grid).argmax(1) != labels[i]
        kept = changed & (torch.cosine_similarity(maps, before[i : i + 1]) >= 0.9)
        smallest = float(sizes[kept].min())
        assert float(found.distances[i]) == pytest.approx(smallest, abs=0.01)
        assert (smallest > float(sizes[changed].min()) + 0.005) == (i in restricted)


def test_answers_hold_and_cost_more_than_an_unrestricted_attack() -> None:
    model, inputs = _network(0, 12, nn.Softplus(beta=5), width=40, scale=1.5), _inputs(1, 6, 12)
    labels, explain = model(inputs).argmax(1), gradients(model)
    found = attack_keeping_explanation(model, inputs, labels, explain=explain, similarity=0.9, steps=40)
    before, after = (explain(x.clone(), labels).detach().abs() for x in (inputs, found.adversarial_inputs))
    correlations = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(before, after, strict=True)])
    rows = found.found
    assert bool(rows.any())
    assert torch.allclose(found.similarities[rows], correlations[rows])
    assert bool((correlations[rows] >= 0.9).all())
    assert bool((model(found.adversarial_inputs).argmax(1) != labels)[rows].all())
    sizes = (found.adversarial_inputs - inputs).square().mean(1).sqrt()
    assert torch.allclose(found.distances[rows], sizes[rows])
    assert bool((found.distances >= found.unrestricted * (1 - 1e-2)).all())
    assert bool((found.distances > found.unrestricted * 1.02)[rows].any())


def test_a_map_that_turns_with_the_decision_cannot_be_kept_unless_its_sign_does_not_count() -> None:
    model, inputs = _network(0, 6, nn.Tanh()), _inputs(2, 3, 6)
    labels = model(inputs).argmax(1)
    pattern = torch.tensor([1.0, -2.0, 3.0, 0.5, 1.0, 4.0], dtype=torch.float64)

    def turns(images: Tensor, targets: Tensor) -> Tensor:
        logits = model(images)
        return (logits.gather(1, targets[:, None]) - logits.gather(1, 1 - targets[:, None])) * pattern

    with pytest.warns(CaptumLipschitzWarning, match="its derivative is zero"):  # it turns all at once
        signed = attack_keeping_explanation(model, inputs, labels, explain=turns, magnitude=False, steps=5)
    assert signed.distances.tolist() == [math.inf] * 3
    assert torch.equal(signed.adversarial_inputs, inputs)
    assert bool(signed.similarities.isnan().all())
    assert signed.estimates()["strength"].mean == 0.0
    by_size = attack_keeping_explanation(model, inputs, labels, explain=turns, magnitude=True, steps=5)
    assert torch.allclose(by_size.distances, by_size.unrestricted, rtol=1e-2)


def test_a_smooth_copy_shows_the_way_where_relu_hides_it() -> None:
    model, inputs = _network(4, 12, nn.ReLU(), width=40), _inputs(4, 6, 12)
    smooth = copy.deepcopy(model)
    with pytest.warns(CaptumLipschitzWarning, match="no normalisation"):
        replace_activations(smooth, lambda: nn.Softplus(beta=5))
    labels, options = model(inputs).argmax(1), {"explain": gradients(model), "similarity": 0.9, "steps": 40}
    with pytest.warns(CaptumLipschitzWarning, match="explain: its derivative is zero at all images"):
        blind = attack_keeping_explanation(model, inputs, labels, **options)
    seeing = attack_keeping_explanation(
        model,
        inputs,
        labels,
        **{**options, "explain": gradients(model, create_graph=False)},
        surrogate=gradients(smooth),
    )
    assert int(seeing.found.sum()) > int(blind.found.sum())
    assert bool((seeing.similarities[seeing.found] >= 0.9).all())
    assert bool((model(seeing.adversarial_inputs).argmax(1) != labels)[seeing.found].all())


def test_rows_do_not_depend_on_their_neighbours_and_wrong_ones_have_no_figure() -> None:
    model, inputs = _network(0, 8, nn.Tanh()), _inputs(1, 4, 8)
    labels, options = model(inputs).argmax(1), {"explain": gradients(model), "steps": 10}
    labels[3] = 1 - labels[3]
    together = attack_keeping_explanation(model, inputs, labels, **options)
    order = [2, 0]
    apart = attack_keeping_explanation(model, inputs[order], labels[order], **options)
    assert torch.allclose(apart.distances, together.distances[order], rtol=1e-6)
    assert math.isnan(together.distances[3])
    assert math.isnan(together.unrestricted[3])
    assert not bool(together.found[3])
    assert together.estimates()["found"].left_out == 1
    plain = json.loads(json.dumps(together.to_dict()))
    assert plain["distances"][3] is None
    assert isinstance(together, KeptExplanation)


def test_images_stay_within_bounds() -> None:
    model, (images, _) = build_convolutional(0), build_batch(1, 3)
    found = attack_keeping_explanation(
        model, images, model(images).argmax(1), explain=gradients(model), bounds=(0.0, 1.0), similarity=0.5, steps=10
    )
    assert bool(found.found.any())
    assert bool(((found.adversarial_inputs >= 0) & (found.adversarial_inputs <= 1)).all())


def test_no_trace_is_left_also_on_an_error() -> None:
    model, (images, labels) = half_frozen(build_convolutional(0)), build_batch(1, 2)
    before = snapshot(model, images)
    attack = MinimumNormAttack(effort="fast")
    attack_keeping_explanation(model, images, labels, explain=gradients(model), attack=attack, steps=2)
    assert_unchanged(before, snapshot(model, images))
    model.eval()
    with torch.inference_mode():
        inside = attack_keeping_explanation(model, images.clone(), labels, explain=gradients(model), steps=1)
    assert len(inside.found) == 2
    half_frozen(model)
    before = snapshot(model, images)
    with pytest.raises(KeyboardInterrupt):
        attack_keeping_explanation(Breaking(model, 30, KeyboardInterrupt()), images, labels, explain=gradients(model))
    assert_unchanged(before, snapshot(model, images))


def test_an_explanation_without_a_derivative_is_refused_with_what_to_do() -> None:
    model, inputs = _network(0, 6, nn.Tanh()), _inputs(2, 2, 6)
    labels = model(inputs).argmax(1)
    with pytest.raises(
        InvalidInputError, match=r"explain: .*they do not require grad. Take .*create_graph=True.*surrogate"
    ):
        attack_keeping_explanation(model, inputs, labels, explain=gradients(model, create_graph=False))

    def elsewhere(images: Tensor, targets: Tensor) -> Tensor:
        return gradients(model)(images.detach().clone(), targets)

    with pytest.raises(InvalidInputError, match="they differ between images, and no derivative says how"):
        attack_keeping_explanation(model, inputs, labels, explain=elsewhere)


def test_bad_input_is_refused() -> None:
    model, inputs = _network(0, 6, nn.Tanh()), _inputs(2, 2, 6)
    labels, explain = model(inputs).argmax(1), gradients(model)
    with pytest.raises(InvalidInputError, match=r"similarity: expected a share between 0 and 1, got 1.0"):
        attack_keeping_explanation(model, inputs, labels, explain=explain, similarity=1.0)
    with pytest.raises(InvalidInputError, match="measure: expected 'correlation' or 'cosine', got 'ssim'"):
        attack_keeping_explanation(model, inputs, labels, explain=explain, measure="ssim")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="steps: expected at least 1, got 0"):
        attack_keeping_explanation(model, inputs, labels, explain=explain, steps=0)
    with pytest.raises(InvalidTypeError, match=r"steps: expected a whole number, got 2\.5"):
        attack_keeping_explanation(model, inputs, labels, explain=explain, steps=2.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="surrogate: expected a function of images and targets, got int"):
        attack_keeping_explanation(model, inputs, labels, explain=explain, surrogate=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="bounds"):
        attack_keeping_explanation(model, 9 + inputs, labels, explain=explain, bounds=(0.0, 1.0))
