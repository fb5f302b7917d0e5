"""Every recipe takes steps, learns, is saved, read and measured; settings are checked."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from cifar10_training.adversary import ProjectedGradient
from cifar10_training.images import Part, synthetic_images
from cifar10_training.measuring import Instrument, area_of, decided, said
from cifar10_training.methods import METHODS
from cifar10_training.network import build_network
from cifar10_training.recipe import Recipe, overrides
from cifar10_training.recipes import RECIPES, SHORTENED
from cifar10_training.runs import read_network, read_run, save_figures, save_network
from cifar10_training.training import Training, pace
from versions import compiles

from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.criteria import as_criterion
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.models import PreActResNet44


def _small(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with everything of its own but size and length: ten steps of a small network."""
    small = {"widths": [8, 16], "blocks": 1, "first_stride": 2, "batch_size": 32, "epochs": 2.5}
    # At the published pace a penalty would not be seen in ten steps.
    return recipe.changed(**(small | changes))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_each_recipe_learns_saves_loads_and_measures(name: str, tmp_path: Path) -> None:
    images = synthetic_images(128, 64, 32)
    training = Training(_small(RECIPES[name], learning_rate=0.05), images.train, seed=0)
    losses = [float(training.take_step().loss) for _ in range(9)]
    trained = training.finish()
    assert trained.steps == 10
    assert sum(losses[-3:]) < sum(losses[:3])
    save_network(tmp_path / "run", name, training, trained, images)
    network = read_network(tmp_path / "run")
    inputs = images.test.inputs()
    assert torch.equal(network(inputs), trained.network(inputs))
    figures = Instrument("fast", images=8, below_chance=4, batch=4).measure(network, images)
    run = save_figures(tmp_path / "run", figures)
    assert read_run(tmp_path / "run") == run
    assert (run.recipe, run.seed, run.figures) == (training.recipe, 0, figures)
    run.check(training.recipe, 0, images)
    for recipe, seed, other in (
        (training.recipe.changed(epochs=1.0), 0, images),
        (training.recipe, 1, images),
        (training.recipe, 0, synthetic_images(128, 64, 32, seed=1)),
    ):
        with pytest.raises(InvalidInputError, match="expected a folder of its own"):
            run.check(recipe, seed, other)
    area = area_of(run.figures["attack"])
    assert area.area == figures["attack"]["area"]
    assert area.interval == tuple(figures["attack"]["interval"])
    assert len(area) == 8
    assert run.figures["accuracy"] == sum(run.figures["correct"]) / 32


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_same_seed_trains_the_same_network(name: str) -> None:
    part = synthetic_images(64).train
    before = torch.get_rng_state()
    first, second = (Training(_small(RECIPES[name], epochs=1.0), part, seed=5).finish().network for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(before, torch.get_rng_state())


def test_the_authors_recipes_are_the_published_settings() -> None:
    robust = RECIPES["robust"]
    assert (robust.target_loss, robust.initial_strength, robust.gain, robust.rise, robust.fall) == (
        1.5,
        220,
        0.02,
        1,
        0.01,
    )
    assert (robust.epochs, robust.batch_size, robust.learning_rate, robust.weight_decay) == (200, 128, 0.1, 1e-4)
    assert [pace(robust, step, 200) for step in (0, 169, 170, 194, 195, 199)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert isinstance(build_network(robust, seed=0), PreActResNet44)
    assert RECIPES["standard"].target_loss is None
    assert (RECIPES["all"].attack, RECIPES["all"].attacked, RECIPES["all"].attack_rho) == ("minimal", 0.5, 0.1)


def test_one_cycle_rises_and_ends_near_zero() -> None:
    recipe = SHORTENED.of(RECIPES["standard"])
    paces = [pace(recipe, step, 100) for step in range(100)]
    assert max(paces) == 1.0
    assert paces.index(1.0) == 19
    assert paces[-1] == pytest.approx(1 / 80)
    assert all(0 < one <= 1 for one in paces)


@compiles
def test_compiled_training_takes_the_same_steps() -> None:
    part = synthetic_images(64).train
    recipe = _small(RECIPES["robust"], epochs=1.0, widths=[4, 8])
    eager = Training(recipe, part, seed=0)
    compiled = Training(recipe, part, seed=0)
    compiled._module.compile(backend="aot_eager")
    for _ in range(2):
        first, second = eager.take_step(), compiled.take_step()
        assert float(first.loss) == pytest.approx(float(second.loss), rel=1e-4)
        assert float(first.penalty) == pytest.approx(float(second.penalty), rel=1e-3)


def test_averaged_weights_are_what_is_measured() -> None:
    part = synthetic_images(64).train
    training = Training(_small(RECIPES["standard"], average=0.5), part, seed=0)
    weights = []
    for _ in range(3):
        training.take_step()
        weights.append(next(training.network.parameters()).detach().clone())
    # Of the old ones at most a half is kept, and less at the beginning: 2 / 11 at the second step, 3 / 12 at the third.
    second = 2 / 11 * weights[0] + 9 / 11 * weights[1]
    expected = 3 / 12 * second + 9 / 12 * weights[2]
    assert torch.allclose(next(training.measured().parameters()), expected, atol=1e-6)


def test_a_shortened_modern_network_is_measured_with_weights_that_have_learnt() -> None:
    images = synthetic_images(256, 64, 64)
    recipe = SHORTENED.of(RECIPES["modern"]).changed(widths=[8, 16], batch_size=32, epochs=20.0, target_loss=None)
    trained = Training(recipe.changed(attack=None), images.train, seed=0).finish()
    assert float(decided(trained.network, images.test).double().mean()) > 0.3  # guessing: 0.1


def test_projected_gradient_moves_a_linear_models_image_straight_across() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    inputs = torch.rand(16, 3, 2, 2)
    labels = model(inputs).argmax(1)
    problem = Problem(model, inputs, labels, as_criterion("misclassified"))
    delta = ProjectedGradient(rho=0.03, steps=7).search(problem).perturbations.flatten(1).detach()
    across = (model[1].weight[1 - labels] - model[1].weight[labels]).detach()
    expected = 0.03 * across / across.square().mean(1, keepdim=True).sqrt()
    assert torch.allclose(delta, expected, rtol=1e-4, atol=1e-7)


def test_a_network_that_decides_the_same_everywhere_is_measured_and_said() -> None:
    images = synthetic_images(16, 20, 20)
    constant = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10)).requires_grad_(False)
    constant[1].weight.zero_()
    constant[1].bias.copy_(torch.nn.functional.one_hot(images.test.labels.mode().values, 10))
    figures = Instrument("fast", images=20, below_chance=0).measure(constant, images)
    assert figures["attack"]["area"] is None
    assert said(figures["attack"]).startswith("inf (truncated 0.00000, ")


@pytest.mark.parametrize("changes", [{"images": 0}, {"below_chance": -1}, {"batch": 0}])
def test_numbers_of_images_that_cannot_be_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(changes))):
        Instrument(**changes)


def test_the_measured_accuracy_does_not_depend_on_chunks() -> None:
    images = synthetic_images(32, 40, 40)
    network = build_network(_small(RECIPES["standard"]), seed=0).eval()
    whole = Instrument("fast", 6, 0, 6).measure(network, images)
    parts = Instrument("fast", 6, 0, 2).measure(network, images)
    assert whole["accuracy"] == parts["accuracy"]
    assert whole["attack"]["distances"] == pytest.approx(parts["attack"]["distances"], rel=1e-3)


@pytest.mark.parametrize("shortened", [False, True])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_each_method_has_settings_that_differ_in_the_knob_alone(name: str, *, shortened: bool) -> None:
    recipes = dict(METHODS[name].recipes(shortened=shortened))
    assert len(recipes) >= 4
    plain = {value: recipe.changed(**{METHODS[name].knob: 1.0}) for value, recipe in recipes.items()}
    assert len(set(map(repr, plain.values()))) == 1
    assert len(set(map(repr, recipes.values()))) == len(recipes)


def test_entries_from_a_command_line() -> None:
    entries = overrides(["epochs=2", "widths=[8, 16]", "target_loss=null", "activation=silu"])
    recipe = RECIPES["robust"].changed(**entries)
    assert (recipe.epochs, recipe.widths, recipe.target_loss, recipe.activation) == (2.0, (8, 16), None, "silu")
    assert Recipe().changed(**recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"epoch": 2}, "expected entries among"),
        ({"epochs": "two"}, "epochs: expected a number"),
        ({"epochs": True}, "epochs: expected a number"),
        ({"epochs": math.nan}, "epochs: expected a finite number"),
        ({"epochs": math.inf}, "epochs: expected a finite number"),
        ({"batch_size": 2.5}, "batch_size: expected a whole number"),
        ({"widths": 16}, "widths: expected"),
        ({"widths": [16, 0]}, "widths: expected numbers of channels"),
        ({"activation": "tanh"}, "activation: expected one of"),
        ({"attacked": 1.5}, "attacked: expected a share"),
        ({"learning_rate": None}, "learning_rate: expected a value"),
        ({"target_loss": -1.0}, "target_loss: expected a loss above 0"),
    ],
)
def test_entries_that_cannot_be_used_are_refused(entries: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Recipe().changed(**entries)


def test_a_batch_larger_than_the_images_is_refused() -> None:
    part = Part(torch.zeros(8, 3, 32, 32, dtype=torch.uint8), torch.zeros(8, dtype=torch.long))
    with pytest.raises(InvalidInputError, match="batch_size"):
        Training(Recipe(), part, seed=0)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"recipe": 3}')
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InvalidInputError, match=r"expected a folder that reproduce\.py wrote"):
            read_run(folder)
