"""Every class of torchattacks: wrapped or named with a reason; right, quiet and without a trace on a small network."""

import inspect
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import captum_lipschitz_torchattacks as plugin
from captum_lipschitz import MinimumNormAttack
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz_torchattacks.single_table import SINGLE
from captum_lipschitz_torchattacks.sized_table import SIZED

FACTORIES = {c.name.removeprefix("torchattacks:"): c.factory for c in plugin.captum_lipschitz_attacks()}
ENTRIES = {entry.name: entry for entry in (*SIZED, *SINGLE)}
SIDE = 6

# What makes the slow ones quick, and CW succeed on logits as small as these; all else is torchattacks' own.
QUICK = {entry.name: {"tolerance": 0.1} for entry in SIZED if entry.alone} | {
    "Square": {"n_queries": 60, "tolerance": 0.2},
    "AutoAttack": {"n_queries": 5, "tolerance": 0.2},
    "SPSA": {"nb_sample": 8, "nb_iter": 5, "tolerance": 0.2},
    "CW": {"c": 20.0, "lr": 0.003},
    "SparseFool": {"steps": 3},
    "EADEN": {"binary_search_steps": 5},
    "EADL1": {"binary_search_steps": 5},
}
# These need not find anything: noise, ascent of a divergence that grows either way, few pixels at random.
UNRELIABLE = {"GN", "TPGD", "OnePixel", "Pixle"}


class Network(nn.Module):
    """A convolution with BatchNorm, a dropout that must be off, and a smooth activation; channels-last inside."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Dropout(0.5))
            self.head = nn.Linear(6 * SIDE * SIDE, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images.to(memory_format=torch.channels_last)).flatten(1))


def batch(model: nn.Module, count: int = 2):
    """Images some way from the sides of the box, and the model's own labels."""
    images = 0.5 + 0.1 * torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return images, model(images).argmax(1)


def state(model: nn.Module):
    """All that must be as it was."""
    rng = np.random.get_state()  # noqa: NPY002
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad is None for parameter in model.parameters()],
        [value.clone().tolist() for value in model.state_dict().values()],
        torch.get_rng_state().tolist(),
        (rng[0], rng[1].tolist(), *rng[2:]),
        random.getstate(),
    )


def test_every_class_is_wrapped_or_named():
    import torchattacks

    classes = {
        name
        for name, thing in vars(torchattacks).items()
        if inspect.isclass(thing) and issubclass(thing, torchattacks.attack.Attack)
    }
    assert classes == set(torchattacks.__all__)
    assert set(FACTORIES).isdisjoint(plugin.NOT_APPLICABLE)
    assert classes == set(FACTORIES) | set(plugin.NOT_APPLICABLE)
    assert all(plugin.NOT_APPLICABLE.values())
    assert set(FACTORIES) == {*ENTRIES, "FAB"}


def test_the_table_in_the_readme_names_each():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    rows = re.findall(r"^\| `(?:torchattacks:)?(\w+)` \|", text, re.MULTILINE)
    assert {*FACTORIES, *plugin.NOT_APPLICABLE} <= set(rows)
    for entry in ENTRIES.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| `torchattacks:{entry.name}` |"))
        missing = [name for name in entry.settings if f"`{name}`" not in row]
        assert not missing, (entry.name, missing)


@pytest.mark.parametrize("name", ENTRIES)
def test_arguments_are_those_of_the_class(name):
    import torchattacks

    entry = ENTRIES[name]
    parameters = inspect.signature(getattr(torchattacks, name)).parameters
    settings = {key: default for key, default in entry.settings.items() if key not in entry.member_settings}
    ours = {*settings, *entry.always, entry.size, entry.step} - {""}
    assert ours <= set(parameters)
    assert ("seed" in parameters) == entry.seeds_itself
    assert ("n_classes" in parameters) == entry.counts_classes
    assert ("norm" in parameters) == bool(entry.norm_names)
    for key, default in settings.items():
        # nb_iter is 1 in torchattacks, a single Adam step of lr, which no size would change.
        if (name, key) != ("SPSA", "nb_iter"):
            assert parameters[key].default == (default[0] if isinstance(default, tuple) else default), key


@pytest.mark.parametrize("name", FACTORIES)
def test_answers_are_verified_in_the_box_and_leave_no_trace(name, capsys):
    model = Network().eval()
    images, labels = batch(model)
    least = MinimumNormAttack(effort="thorough", bounds=(0, 1))
    norm = FACTORIES[name]().norm
    least.norm = norm
    reference = least(model, images, labels).distances
    model.train().features[1].eval()
    model.head.bias.requires_grad_(requires_grad=False)
    attack = FACTORIES[name](**QUICK.get(name, {}))
    before = state(model)
    result = attack(model, images, labels)
    assert state(model) == before
    assert capsys.readouterr() == ("", "")
    with torch.no_grad():
        fooled = model.eval()(result.adversarial_inputs).argmax(1) != labels
    assert torch.equal(fooled, result.found)
    assert torch.equal(torch.isfinite(result.distances), result.found)
    assert (result.adversarial_inputs == result.adversarial_inputs.clamp(0, 1)).all()
    size = norm.size(result.adversarial_inputs - images)
    torch.testing.assert_close(size[result.found], result.distances[result.found])
    assert (result.distances >= 0.97 * reference).all()
    assert (result.gradient_evaluations >= 0).all()
    if name not in UNRELIABLE:
        assert result.found.all()
    alone = attack(model, images[1:], labels[1:])  # the last image, without its neighbour
    torch.testing.assert_close(alone.distances, result.distances[1:], rtol=2e-3, atol=0)


@pytest.mark.parametrize(
    "name", ["FGSM", "MIFGSM", "RFGSM", "CW", "DeepFool", "EADL1", "TIFGSM", "Square", "AutoAttack"]
)
def test_float64(name):
    model = Network().eval().double()
    images, labels = batch(Network().eval())
    attack = FACTORIES[name](**QUICK.get(name, {}))
    result = attack(model, images[:1].double(), labels[:1])
    assert result.found.all()
    assert result.distances.dtype == torch.float64


@pytest.mark.parametrize("name", [*(entry.name for entry in SINGLE), "FAB", "FGSM", "PGDL2", "APGD", "GN"])
def test_failure_is_infinite_and_never_zero(name):
    """CW, EAD, JSMA and others return the clean image, and say nothing, where they fail."""
    model = Network().eval()
    with torch.no_grad():
        model.head.bias[1] = 1e4
    images, labels = batch(model)
    result = FACTORIES[name](**QUICK.get(name, {}))(model, images, labels)
    assert not result.found.any()
    assert torch.isinf(result.distances).all()
    assert torch.equal(result.adversarial_inputs, images)


@pytest.mark.parametrize("shift", [-50.0, 50.0])
@pytest.mark.parametrize("name", ["CW", "EADEN"])
def test_a_shift_of_all_logits_changes_nothing(name, shift):
    """Torchattacks' own CW takes 0 for the largest other logit where all of them are negative."""
    model = Network().eval()
    images, labels = batch(model)
    attack = FACTORIES[name](**QUICK.get(name, {}))
    plain = attack(model, images, labels)
    shifted = attack(lambda x: model(x) + shift, images, labels)
    assert shifted.found.all()
    torch.testing.assert_close(shifted.distances, plain.distances, rtol=0.05, atol=0)


@pytest.mark.parametrize("norm", ["l2", "rmse", "linf"])
@pytest.mark.parametrize("name", ["APGD", "APGDT"])
def test_norms_to_choose_from(name, norm):
    model = Network().eval()
    images, labels = batch(model)
    result = FACTORIES[name](norm=norm, tolerance=0.05)(model, images, labels)
    reference = MinimumNormAttack(norm=norm, bounds=(0, 1))(model, images, labels).distances
    assert (result.distances <= 1.3 * reference).all()


def test_gaussian_noise_has_the_size_it_says():
    """Against a model that decides by the noise's own size, the bisection ends there."""

    def decides_by_roughness(images: torch.Tensor) -> torch.Tensor:
        rough = (images - 0.5).square().flatten(1).mean(1).sqrt()
        return torch.stack([torch.full_like(rough, 0.02) - rough, rough - 0.02], 1)

    images = torch.full((2, 3, 20, 20), 0.5)
    result = FACTORIES["GN"](norm="l2")(decides_by_roughness, images, torch.tensor([0, 0]))
    expected = torch.full((2,), 0.02 * math.sqrt(1200))
    torch.testing.assert_close(result.distances, expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("name", ["FFGSM", "Jitter", "PGDRS", "Pixle"])
def test_the_seed_decides(name):
    model = Network().eval()
    images, labels = batch(model)
    first, again, other = (FACTORIES[name](seed=seed)(model, images, labels) for seed in (0, 0, 5))
    assert torch.equal(first.adversarial_inputs, again.adversarial_inputs)
    assert not torch.equal(first.adversarial_inputs, other.adversarial_inputs)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("PGD", {"epsilon": 3}, r"epsilon: torchattacks:PGD has no such setting; it has \['steps'\]"),
        ("PGD", {"eps": 3}, "eps: torchattacks:PGD has no such setting"),
        ("PGD", {"norm": "rmse"}, "norm: torchattacks:PGD expects 'linf', got 'rmse'"),
        ("PGD", {"steps": 2.5}, "steps: expected a whole number of at least 1, got 2.5"),
        ("PGD", {"tolerance": 2}, r"tolerance: expected a share in \(0, 1\), got 2"),
        ("PGD", {"step_size": -1}, "step_size: expected a positive share, got -1"),
        ("PGD", {"seed": -1}, r"seed: expected a whole number from 0 to 2\*\*32 - 1, got -1"),
        ("PGD", {"bounds": (-1, 1)}, r"bounds: expected \(0, 1\), the box that torchattacks clamps to"),
        ("FGSM", {"step_size": 0.1}, "step_size: torchattacks:FGSM has no step of its own, got 0.1"),
        ("CW", {"norm": "linf"}, "norm: torchattacks:CW expects 'rmse' or 'l2', got 'linf'"),
        ("CW", {"c": math.nan}, "c: expected a finite number of at least 0, got nan"),
        ("CW", {"tolerance": 0.1}, r"tolerance: torchattacks:CW has no such setting; it has \['c', 'kappa'"),
        ("EADL1", {"max_iterations": 9}, "max_iterations: expected a whole number of at least 10, got 9"),
        ("APGD", {"loss": "mse"}, r"loss: expected one of \['ce', 'dlr'\], got 'mse'"),
        ("AutoAttack", {"n_queries": 0}, "n_queries: expected a whole number of at least 1, got 0"),
    ],
)
def test_settings_refused(name, settings, message):
    with pytest.raises(InvalidInputError, match=message):
        FACTORIES[name](**settings)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("DIFGSM", (2, 3, 4, 6), r"inputs: torchattacks:DIFGSM expects images \(N, C, H, W\) \(square, .* got \(2, 3"),
        ("TIFGSM", (2, 1, 6, 6), r"expects images \(N, 3, H, W\)"),
        ("PIFGSM", (2, 108), r"expects images \(N, 3, H, W\).* got \(2, 108\)"),
        ("Square", (2, 3, 4, 4), "at least 5 pixels high and wide"),
        ("OnePixel", (2, 108), r"expects images \(N, C, H, W\)"),
        ("Pixle", (2, 3, 6), r"expects images \(N, C, H, W\)"),
    ],
)
def test_inputs_that_are_not_the_images_it_needs(name, shape, message):
    def model(images):
        raise AssertionError("the model was run")

    with pytest.raises(InvalidInputError, match=message):
        FACTORIES[name]()(model, torch.rand(shape), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "settings", "needed"),
    [("APGDT", {}, 4), ("AutoAttack", {}, 4), ("APGD", {"loss": "dlr"}, 3), ("UPGD", {"loss": "dlr"}, 3)],
)
def test_models_of_too_few_classes(name, settings, needed):
    model = Network(needed - 1).eval()
    images, labels = batch(model)
    with pytest.raises(InvalidInputError, match=f"expects at least {needed} classes, got {needed - 1}"):
        FACTORIES[name](**settings)(model, images, labels)


@pytest.mark.parametrize("name", ["FGSM", "PGDL2", "APGDT", "PGDRS", "GN", "DeepFool", "SparseFool", "JSMA"])
def test_inputs_that_are_no_images(name):
    model = nn.Linear(9, 4)
    with torch.no_grad():
        model.weight.copy_(torch.randn(4, 9, generator=torch.Generator().manual_seed(2)))
    inputs = 0.5 + 0.05 * torch.randn(1, 9, generator=torch.Generator().manual_seed(1))
    attack = FACTORIES[name](**QUICK.get(name, {}))
    result = attack(model, inputs, model(inputs).argmax(1))
    assert result.adversarial_inputs.shape == inputs.shape
    assert result.found.all() or name in {*UNRELIABLE, "JSMA"}
