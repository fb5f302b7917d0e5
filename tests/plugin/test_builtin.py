"""Our own components, made by name and called as their kind's protocol says."""

import pytest
import torch

from captum_lipschitz.attacks import AttackResult
from captum_lipschitz.plugin import (
    AttackLike,
    AttributionLike,
    MetricLike,
    Removable,
    TrainingHookLike,
    components,
    create,
    create_attack,
    get,
    plugins,
)

OURS = [
    ("attack", "minimum_norm"),
    ("attack", "paper"),
    ("attribution", "adversarial"),
    ("attribution", "contrastive"),
    ("attribution", "minimal"),
    ("metric", "ara"),
    ("training_hook", "lipschitz"),
]


@pytest.fixture
def model():
    """Label 0 where the first feature is larger: the margin is x0 - x1, the distance |x0 - x1| / sqrt(2)."""
    linear = torch.nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
        linear.bias.zero_()
    return linear


@pytest.fixture
def data():
    return torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])


def test_names_are_a_promise():
    assert [(component.kind, component.name) for component in plugins()[0].components] == OURS


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_component_has_summary_and_reference(kind, name):
    component = get(kind, name)
    assert component.summary
    assert component.reference.startswith("arXiv ")
    assert component in components(kind)


@pytest.mark.parametrize("name", ["minimum_norm", "paper"])
def test_attack(name, model, data):
    attack = create_attack(name, norm="l2")
    assert isinstance(attack, AttackLike)
    result = attack(model, *data, criterion="misclassified")
    assert isinstance(result, AttackResult)
    torch.testing.assert_close(result.distances, torch.tensor([0.5, 2.0]).sqrt(), rtol=0.02, atol=0)


@pytest.mark.parametrize("name", ["adversarial", "contrastive", "minimal"])
def test_attribution(name, model, data):
    attribution = create("attribution", name, model)
    assert isinstance(attribution, AttributionLike)
    inputs, labels = data
    assert attribution.attribute(inputs, target=labels).shape == inputs.shape


def test_metric(model, data):
    metric = create("metric", "ara", attack=create_attack("minimum_norm", norm="l2"), norm="l2")
    assert isinstance(metric, MetricLike)
    result = metric(model, data)
    # Chance is 1/2, so the area ends with the nearer of two images: 1/2 * 0.707.
    assert result.area == pytest.approx(0.5**1.5, rel=1e-2)
    assert metric(model, data, norm="rmse").area == pytest.approx(0.25, rel=1e-2)


def test_metric_refuses_an_unknown_setting_at_once():
    with pytest.raises(TypeError, match="unexpected keyword argument 'attak'"):
        create("metric", "ara", attak=None)


def test_training_hook(model, data):
    hook = create("training_hook", "lipschitz", strength=0.5, tandem_probability=1.0)
    assert isinstance(hook, TrainingHookLike)
    inputs, labels = data
    torch.nn.functional.cross_entropy(model(inputs), labels).backward()
    plain = model.weight.grad.clone()

    handle = hook(model)
    assert isinstance(handle, Removable)
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(inputs), labels).backward()
    assert not torch.allclose(model.weight.grad, plain)

    handle.remove()
    handle.remove()
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(inputs), labels).backward()
    torch.testing.assert_close(model.weight.grad, plain)


def test_training_hook_asks_for_the_strength():
    with pytest.raises(TypeError, match="strength"):
        create("training_hook", "lipschitz")
