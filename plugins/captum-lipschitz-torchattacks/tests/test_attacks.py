"""PGDL2 and FAB on models whose smallest perturbation is known, and the traces that they must not leave."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from captum_lipschitz.criteria import Reaches
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz_torchattacks import TorchattacksFAB, TorchattacksFixedSize
from captum_lipschitz_torchattacks.sized_table import SIZED

PGDL2 = partial(TorchattacksFixedSize, next(entry for entry in SIZED if entry.name == "PGDL2"))
ATTACKS = {"PGDL2": (PGDL2, 0.02), "FAB": (TorchattacksFAB, 0.01)}
SHAPE = (3, 4, 4)


@pytest.fixture(params=ATTACKS)
def attack_class(request):
    return ATTACKS[request.param][0]


class Linear(nn.Module):
    """``z = W x + b`` on images."""

    def __init__(self, classes: int, *, gain: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        features = math.prod(SHAPE)
        self.weight = nn.Parameter(gain * torch.randn(classes, features, generator=generator) / math.sqrt(features))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


def grey_images(model: nn.Module, count: int = 12, dtype: torch.dtype = torch.float32):
    """Images near the middle of the box, so that the nearest boundary lies within it, and the model's own labels."""
    images = 0.5 + 0.02 * torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=dtype)
    with torch.no_grad():
        return images, model(images).argmax(1)


def exact_l2(model: Linear, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Min over the other classes of ``(z_y - z_j) / |w_y - w_j|``."""
    with torch.no_grad():
        logits = model(images)
        own = logits.gather(1, labels[:, None])
        lengths = (model.weight[labels][:, None] - model.weight[None]).norm(dim=2)
        return ((own - logits) / lengths).scatter(1, labels[:, None], math.inf).amin(1)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", ["rmse", "l2"])
@pytest.mark.parametrize("gain", [1e-3, 1.0, 1e3])
def test_two_classes_closed_form(name, norm, gain):
    """A gain of 1000 saturates the cross entropy in float32."""
    make, tolerance = ATTACKS[name]
    model = Linear(2, gain=gain)
    images, labels = grey_images(model)
    result = make(norm=norm)(model, images, labels)
    expected = exact_l2(model, images, labels) / (math.sqrt(math.prod(SHAPE)) if norm == "rmse" else 1)
    assert result.found.all()
    torch.testing.assert_close(result.distances, expected, rtol=tolerance, atol=0)
    assert (result.distances >= 0.999 * expected).all()
    assert (model(result.adversarial_inputs).argmax(1) != labels).all()
    assert (result.gradient_evaluations > 0).all()


@pytest.mark.parametrize("targets", [None, 14, 99])
def test_fab_compares_more_than_ten_classes(targets):
    model = Linear(15)
    images, labels = grey_images(model)
    expected = exact_l2(model, images, labels)
    result = TorchattacksFAB(norm="l2", targets=targets)(model, images, labels)
    torch.testing.assert_close(result.distances, expected, rtol=0.01, atol=0)
    assert result.gradient_evaluations.unique().tolist() == [10 * (15 if targets is None else 14)]


def test_fab_with_fewer_targets_finds_more_distant_ones_at_most():
    model = Linear(15)
    images, labels = grey_images(model)
    all_classes = TorchattacksFAB(norm="l2")(model, images, labels)
    likeliest = TorchattacksFAB(norm="l2", targets=1)(model, images, labels)
    assert (likeliest.distances >= 0.99 * all_classes.distances).all()
    assert likeliest.gradient_evaluations.unique().tolist() == [10]


def test_fab_in_linf():
    model = Linear(2)
    images, labels = grey_images(model)
    with torch.no_grad():
        margin = (model(images) * (1 - 2 * labels[:, None]) * torch.tensor([1, -1])).sum(1)
        expected = margin / (model.weight[0] - model.weight[1]).abs().sum()
    result = TorchattacksFAB(norm="linf")(model, images, labels)
    torch.testing.assert_close(result.distances, expected, rtol=0.01, atol=0)


def test_pgdl2_below_chance():
    """With two classes, chance is the decision boundary; with more it is farther for images near a boundary."""
    model = Linear(2)
    images, labels = grey_images(model)
    attack = PGDL2(norm="l2")
    result = attack(model, images, labels, "below_chance")
    torch.testing.assert_close(result.distances, exact_l2(model, images, labels), rtol=0.02, atol=0)
    model = Linear(5)
    images, labels = grey_images(model)
    result = attack(model, images, labels, "below_chance")
    assert result.found.all()
    own = model(result.adversarial_inputs).softmax(1).gather(1, labels[:, None])
    assert (own <= 0.2 + 1e-6).all()
    assert (own >= 0.19).all()


def test_distances_across_the_box_are_kept(attack_class):
    """No limit of size: the boundary lies half a box away, where torchattacks' own eps has long called it a failure."""
    model = Linear(2, gain=0.1)
    with torch.no_grad():
        model.weight[0].fill_(0.1)
        model.weight[1].zero_()
        model.bias[1] = 0.1 * math.prod(SHAPE) * 0.2
    images = torch.full((2, *SHAPE), 0.9)
    result = attack_class()(model, images, torch.tensor([0, 0]))
    torch.testing.assert_close(result.distances, torch.full((2,), 0.7), rtol=0.02, atol=0)


def test_beyond_the_box_nothing_is_found(attack_class):
    model = Linear(2)
    with torch.no_grad():
        model.bias[0] = 1e4
    images, labels = grey_images(model)
    assert (labels == 0).all()
    result = attack_class()(model, images, labels)
    assert not result.found.any()
    assert torch.isinf(result.distances).all()
    assert torch.equal(result.adversarial_inputs, images)


class Small(nn.Module):
    """Two convolutions with BatchNorm, channels-last inside."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.frozen = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8 * 16, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(memory_format=torch.channels_last)
        return self.head(self.frozen(self.features(images)).flatten(1))


def test_leaves_no_trace(attack_class, capsys, monkeypatch):
    model = Small().train()
    model.frozen.eval()
    model.frozen[0].weight.requires_grad_(False)
    model.head.bias.grad = torch.ones_like(model.head.bias)
    images, labels = grey_images(model.eval())
    model.train().frozen.eval()
    images.requires_grad_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.get_rng_state()

    def refuse(seed):
        raise AssertionError(f"the global random state was seeded with {seed}")

    for module in (torch, torch.random, torch.cuda, torch.cuda.random):
        monkeypatch.setattr(module, "manual_seed", refuse)
    result = attack_class()(model, images, labels)

    assert result.found.any()
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert images.grad is None
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert list(grads) == ["head.bias"]
    assert torch.equal(grads["head.bias"], torch.ones_like(model.head.bias))
    assert capsys.readouterr() == ("", "")


def test_function_without_parameters_is_quiet(attack_class, capsys):
    model = Linear(2)
    images, labels = grey_images(model)
    result = attack_class(norm="l2")(lambda batch: model(batch), images, labels)  # noqa: PLW0108 - no module on purpose
    torch.testing.assert_close(result.distances, exact_l2(model, images, labels), rtol=0.02, atol=0)
    assert model.weight.grad is None
    assert capsys.readouterr() == ("", "")


def test_success_is_of_the_model_in_evaluation_mode(attack_class):
    model = Small().train()
    images, labels = grey_images(model.eval(), 8)
    result = attack_class()(model.train(), images, labels)
    model.eval()
    with torch.no_grad():
        fooled = model(result.adversarial_inputs).argmax(1) != labels
    assert torch.equal(fooled, result.found)
    assert torch.equal(torch.isfinite(result.distances), result.found)
    assert result.adversarial_inputs.min() >= 0
    assert result.adversarial_inputs.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtypes(attack_class, dtype):
    model = Linear(3).to(dtype)
    images, labels = grey_images(model, dtype=dtype)
    result = attack_class(norm="l2")(model, images, labels)
    assert result.distances.dtype == result.adversarial_inputs.dtype == dtype
    assert result.found.all()
    if dtype != torch.bfloat16:
        torch.testing.assert_close(result.distances, exact_l2(model, images, labels), rtol=0.02, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda(attack_class):
    model = Small().eval().cuda()
    images, labels = grey_images(Small().eval())
    result = attack_class()(model, images.cuda(), labels.cuda())
    assert result.distances.device.type == result.adversarial_inputs.device.type == "cuda"
    expected = attack_class()(Small().eval(), images, labels)
    torch.testing.assert_close(result.distances.cpu(), expected.distances, rtol=0.02, atol=0)


@pytest.mark.parametrize("shape", [(2, math.prod(SHAPE)), (2, 6, 8), (2, 1, 2, 3, 8)])
def test_shapes(attack_class, shape):
    model = Linear(2)
    images = torch.linspace(0.4, 0.6, math.prod(shape)).reshape(shape)
    labels = model(images).argmax(1)
    result = attack_class()(model, images, labels)
    assert result.adversarial_inputs.shape == shape
    assert result.found.all()


def test_same_call_same_bits_and_neighbours_do_not_matter(attack_class):
    model = Small().eval()
    images, labels = grey_images(model, 10)
    attack = attack_class(norm="l2")
    whole = attack(model, images, labels)
    assert torch.equal(whole.adversarial_inputs, attack(model, images, labels).adversarial_inputs)
    order = torch.arange(9, -1, -1)
    shuffled = attack(model, images[order], labels[order])
    alone = attack(model, images[3:4], labels[3:4])
    torch.testing.assert_close(shuffled.distances[order], whole.distances, rtol=1e-3, atol=0)
    torch.testing.assert_close(alone.distances, whole.distances[3:4], rtol=1e-3, atol=0)


def test_misclassified_images_are_left_alone(attack_class):
    model = Linear(2)
    images, labels = grey_images(model)
    labels[::2] = 1 - labels[::2]
    result = attack_class()(model, images, labels)
    assert (result.distances[::2] == 0).all()
    assert (result.gradient_evaluations[::2] == 0).all()
    assert (result.distances[1::2] > 0).all()
    assert torch.equal(result.adversarial_inputs[::2], images[::2])


def test_pgdl2_counts_the_gradients_of_each_image():
    model = Small().eval()
    images, labels = grey_images(model, 10)
    result = PGDL2(steps=5)(model, images, labels)
    runs = (result.gradient_evaluations - 1) / 5
    assert torch.equal(runs, runs.round())
    assert len(runs.unique()) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bounds": (0, 2)}, r"bounds: expected \(0, 1\), the box that torchattacks clamps to, got \(0, 2\)"),
        ({"bounds": None}, r"bounds: expected \(0, 1\).*, got None"),
        ({"norm": "l1"}, r"norm: expected one of"),
        ({"steps": 0}, r"steps: expected (a whole number of )?at least 1, got 0"),
    ],
)
def test_settings_refused_by_both(attack_class, settings, message):
    with pytest.raises(InvalidInputError, match=message):
        attack_class(**settings)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (PGDL2, {"norm": "linf"}, r"norm: torchattacks:PGDL2 expects 'rmse' or 'l2', got 'linf'"),
        (PGDL2, {"step_size": 0}, r"step_size: expected a positive share, got 0"),
        (PGDL2, {"tolerance": 1}, r"tolerance: expected a share in \(0, 1\), got 1"),
        (TorchattacksFAB, {"targets": 0}, r"targets: expected at least 1, or None, got 0"),
        (TorchattacksFAB, {"alpha_max": 2}, r"alpha_max: expected a share in \(0, 1\], got 2"),
        (TorchattacksFAB, {"overshoot": 0.9}, r"overshoot: expected a factor of at least 1, got 0.9"),
        (TorchattacksFAB, {"beta": 1}, r"beta: expected a share in \(0, 1\), got 1"),
    ],
)
def test_settings_refused(make, settings, message):
    with pytest.raises(InvalidInputError, match=message):
        make(**settings)


def test_scaled_norm_is_refused(attack_class):
    from captum_lipschitz import RMSE

    with pytest.raises(InvalidInputError, match="norm: expected one without a scale"):
        attack_class(norm=RMSE(scale=2.0))


@pytest.mark.parametrize(
    ("make", "criterion"),
    [(TorchattacksFAB, "below_chance"), (TorchattacksFAB, Reaches(1)), (PGDL2, Reaches(1))],
)
def test_criterion_refused_before_any_work(make, criterion):
    def model(images):
        raise AssertionError("the model was run")

    with pytest.raises(InvalidInputError, match="'minimum_norm' and 'paper' accept any criterion"):
        make()(model, torch.rand(1, *SHAPE), torch.tensor([0]), criterion)


def test_images_outside_the_box_are_refused(attack_class):
    with pytest.raises(InvalidInputError, match=r"inputs: expected values within the bounds \[0.0, 1.0\]"):
        attack_class()(Linear(2), torch.full((1, *SHAPE), 2.0), torch.tensor([0]))
    with pytest.raises(InvalidTypeError, match="inputs: expected floating point"):
        attack_class()(Linear(2), torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.tensor([0]))
