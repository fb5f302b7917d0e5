"""The wrapped attacks on models whose smallest perturbation is known, and the traces that they must not leave."""

import math

import pytest
import torch
from known_models import ATTACKS, SHAPE, Linear, exact, grey_images, make
from torch import nn

from captum_lipschitz import LabelFlips
from captum_lipschitz.criteria import Criterion, Reaches
from captum_lipschitz_advlib import AdvLibDDN, AdvLibFMN
from captum_lipschitz_advlib.library import advlib


@pytest.mark.parametrize("norm", ["rmse", "l2"])
@pytest.mark.parametrize("gain", [1e-3, 1.0])
def test_two_classes_closed_form(name, norm, gain):
    model = Linear(2, gain=gain)
    images, labels = grey_images(model)
    result = make(name, norm=norm)(model, images, labels)
    expected = exact(model, images, labels) / (math.sqrt(math.prod(SHAPE)) if norm == "rmse" else 1)
    assert result.found.all()
    torch.testing.assert_close(result.distances, expected, rtol=ATTACKS[name][2], atol=0)
    assert (result.distances >= 0.999 * expected).all()
    assert (model(result.adversarial_inputs).argmax(1) != labels).all()
    assert result.gradient_evaluations.unique().tolist() == [ATTACKS[name][1]["steps"]]


def test_saturated_cross_entropy_moves_at_random_and_repeats():
    """A gain of 1000: DDN's cross entropy has no gradient at the image, so its first steps are drawn."""
    model = Linear(2, gain=1e3)
    images, labels = grey_images(model)
    attack = AdvLibDDN(norm="l2")
    result = attack(model, images, labels)
    torch.testing.assert_close(result.distances, exact(model, images, labels), rtol=0.1, atol=0)
    torch.manual_seed(7)
    assert torch.equal(attack(model, images, labels).adversarial_inputs, result.adversarial_inputs)


@pytest.mark.parametrize("name", ["FMN", "PDPGD"])
def test_linf_closed_form(name):
    model = Linear(3)
    images, labels = grey_images(model)
    result = make(name, norm="linf")(model, images, labels)
    expected = exact(model, images, labels, order=math.inf)
    torch.testing.assert_close(result.distances, expected, rtol=ATTACKS[name][2] + 0.01, atol=0)
    assert (result.distances >= 0.999 * expected).all()


def test_fmn_as_adv_lib_has_it_can_rest_on_the_boundary():
    """What ``overshoot`` is for: images whose boundary is reached and never crossed are not found."""
    model = Linear(5)
    images, labels = grey_images(model)
    bare = AdvLibFMN()(model, images, labels)
    assert not bare.found.all()
    assert torch.isinf(bare.distances[~bare.found]).all()
    assert AdvLibFMN(overshoot=1.01)(model, images, labels).found.all()


def test_below_chance(name):
    """With two classes, chance is the decision boundary; with more, the answer lies on the level of 1 / C."""
    model = Linear(2)
    images, labels = grey_images(model)
    result = make(name, norm="l2")(model, images, labels, "below_chance")
    torch.testing.assert_close(result.distances, exact(model, images, labels), rtol=ATTACKS[name][2], atol=0)
    model = Linear(5)
    images, labels = grey_images(model)
    result = make(name, norm="l2")(model, images, labels, "below_chance")
    assert result.found.all()
    own = model(result.adversarial_inputs).softmax(1).gather(1, labels[:, None])
    assert (own <= 0.2 + 1e-6).all()
    assert (own >= 0.18).all()


def test_reaches_a_target_of_each_image(name):
    """Not merely leaves the label; two of the images are there already."""
    model = Linear(5)
    images, labels = grey_images(model)
    target = (labels + torch.arange(len(labels)) % 3) % 5
    target[:2] = labels[:2]
    result = make(name)(model, images, labels, Reaches(target))
    assert result.found.all()
    assert torch.equal(model(result.adversarial_inputs).argmax(1), target)
    assert (result.distances[:2] == 0).all()
    assert torch.equal(result.gradient_evaluations > 0, target != labels)


class LogitBelow(Criterion):
    """The label's logit is at most a number of each image's own: a half-space of a linear model."""

    def __init__(self, levels: torch.Tensor) -> None:
        self.levels = levels

    def value(self, logits, labels):
        return logits.gather(1, labels[:, None]).squeeze(1) - self.levels

    def rows(self, index):
        return LogitBelow(self.levels[index])


def test_any_criterion_is_followed_by_its_value(name):
    model = Linear(4)
    images, labels = grey_images(model)
    with torch.no_grad():
        own = model(images).amax(1)
    drop = torch.linspace(0.3, 1.0, len(images))
    result = make(name, norm="l2")(model, images, labels, LogitBelow(own - drop))
    expected = drop / model.weight.detach().norm(dim=1)[labels]
    torch.testing.assert_close(result.distances, expected, rtol=ATTACKS[name][2], atol=0)


@pytest.mark.parametrize("corner", [0.0, 1.0])
def test_answers_stay_in_the_box(name, corner):
    """Half of the features stand at the box's limit, on the wrong side."""
    model = Linear(2)
    with torch.no_grad():
        model.weight[0].fill_(0.1 if corner == 0 else -0.1)
        model.weight[1].zero_()
        model.bias[1] = 0.1 * math.prod(SHAPE) * (0.1 if corner == 0 else -0.9)
    images = torch.full((2, *SHAPE), 0.4 if corner == 0 else 0.6)
    images[:, 0, :2] = corner
    result = make(name, **({"overshoot": 2} if name == "FMN" else {}))(model, images, torch.tensor([0, 0]))
    assert result.found.all()
    assert result.adversarial_inputs.min() >= 0
    assert result.adversarial_inputs.max() <= 1


def test_beyond_the_box_nothing_is_found(name):
    model = Linear(2)
    with torch.no_grad():
        model.bias[0] = 1e4
    images, labels = grey_images(model)
    result = make(name)(model, images, labels)
    assert not result.found.any()
    assert torch.isinf(result.distances).all()
    assert torch.equal(result.adversarial_inputs, images)


def test_adv_lib_knows_only_the_unit_box():
    """What the refusal of other bounds rests on: DDN and FMN refuse such inputs, PDGD clamps without a word."""
    model = Linear(2)
    images, labels = 3 * torch.ones(2, *SHAPE), torch.tensor([0, 0])
    for function, arguments in ((advlib().ddn, ()), (advlib().fmn, (2,))):
        with pytest.raises(ValueError, match=r"\[0, 1\] range"):
            function(model, images, labels, *arguments, steps=2)
    seen = []
    advlib().pdgd(lambda batch: model(seen.append(batch.detach()) or batch), images, labels, num_steps=2)
    assert seen[0].max() == 3
    assert seen[1].max() == 1


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


def test_leaves_no_trace(name, capsys):
    model = Small().train()
    model.frozen.eval()
    model.frozen[0].weight.requires_grad_(False)
    model.head.bias.grad = torch.ones_like(model.head.bias)
    images, labels = grey_images(model.eval())
    model.train().frozen.eval()
    images.requires_grad_()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.get_rng_state()
    result = make(name)(model, images, labels)

    assert result.found.any()
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert images.grad is None
    grads = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
    assert list(grads) == ["head.bias"]
    assert torch.equal(grads["head.bias"], torch.ones_like(model.head.bias))
    assert capsys.readouterr() == ("", "")


def test_success_is_of_the_model_in_evaluation_mode(name):
    model = Small().train()
    images, labels = grey_images(model.eval(), 8)
    result = make(name)(model.train(), images, labels)
    model.eval()
    with torch.no_grad():
        fooled = model(result.adversarial_inputs).argmax(1) != labels
    assert torch.equal(fooled, result.found)
    assert torch.equal(torch.isfinite(result.distances), result.found)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes(name, dtype):
    model = Linear(2).to(dtype)
    images, labels = grey_images(model, dtype=dtype)
    result = make(name, norm="l2")(model, images, labels)
    assert result.distances.dtype == result.adversarial_inputs.dtype == dtype
    assert result.found.all()
    rtol = ATTACKS[name][2] + (0.02 if dtype == torch.bfloat16 else 0)
    torch.testing.assert_close(result.distances, exact(model, images, labels), rtol=rtol, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda(name):
    model = Small().eval().cuda()
    images, labels = grey_images(Small().eval())
    result = make(name)(model, images.cuda(), labels.cuda())
    assert result.distances.device.type == result.adversarial_inputs.device.type == "cuda"
    expected = make(name)(Small().eval(), images, labels)
    torch.testing.assert_close(result.distances.cpu(), expected.distances, rtol=0.05, atol=0)


@pytest.mark.parametrize("shape", [(2, math.prod(SHAPE)), (2, 1, 2, 3, 8)])
def test_shapes(name, shape):
    model = Linear(2)
    images = torch.linspace(0.4, 0.6, math.prod(shape)).reshape(shape)
    labels = model(images).argmax(1)
    result = make(name)(model, images, labels)
    assert result.adversarial_inputs.shape == shape
    assert result.found.all()


def test_memory_format_does_not_matter(name):
    """adv-lib projects flattened views in place, which a channels-last tensor has none of."""
    model = Linear(2)
    images, labels = grey_images(model)
    plain = make(name)(model, images, labels)
    turned = make(name)(model, images.to(memory_format=torch.channels_last), labels)
    assert torch.equal(plain.distances, turned.distances)


def test_same_call_same_bits_and_neighbours_do_not_matter(name):
    model = Small().eval()
    images, labels = grey_images(model, 10)
    attack = make(name, norm="l2")
    whole = attack(model, images, labels)
    assert torch.equal(whole.adversarial_inputs, attack(model, images, labels).adversarial_inputs)
    order = torch.arange(9, -1, -1)
    shuffled = attack(model, images[order], labels[order])
    alone = attack(model, images[3:4], labels[3:4])
    torch.testing.assert_close(shuffled.distances[order], whole.distances, rtol=0.02, atol=0)
    torch.testing.assert_close(alone.distances, whole.distances[3:4], rtol=0.02, atol=0)


@pytest.mark.parametrize("criterion", ["misclassified", "below_chance", Reaches(1)])
def test_logits_that_are_not_finite_are_no_success(name, criterion):
    """Brighter than the box's middle the model breaks down; darker it can be fooled."""

    class Broken(Linear):
        def forward(self, images):
            logits = super().forward(images)
            return torch.where((images.flatten(1).mean(1) > 0.53)[:, None], math.nan, logits)

    model = Broken(2)
    images, labels = grey_images(model)
    labels = torch.zeros_like(labels)
    result = make(name)(model, images, labels, criterion)
    with torch.no_grad():
        logits = model(result.adversarial_inputs)
    assert torch.isfinite(logits).all()
    assert (logits.argmax(1)[result.found] == 1).all()


def test_misclassified_images_are_left_alone(name):
    model = Linear(2)
    images, labels = grey_images(model)
    labels[::2] = 1 - labels[::2]
    result = make(name)(model, images, labels)
    assert (result.distances[::2] == 0).all()
    assert (result.gradient_evaluations[::2] == 0).all()
    assert (result.distances[1::2] > 0).all()
    assert torch.equal(result.adversarial_inputs[::2], images[::2])


@pytest.mark.parametrize("columns", [2, 3])
def test_label_sets(name, columns):
    """Labels are (N, K) there."""
    model = Linear(columns)
    images, _ = grey_images(model)
    with torch.no_grad():
        labels = (model(images) > 0).long()
    result = make(name, norm="l2")(model, images, labels, LabelFlips(label=1))
    with torch.no_grad():
        expected = model(images)[:, 1].abs() / model.weight[1].norm()
        flipped = (model(result.adversarial_inputs)[:, 1] > 0).long() != labels[:, 1]
    assert result.found.all()
    assert flipped.all()
    assert result.gradient_evaluations.shape == (len(images),)
    torch.testing.assert_close(result.distances, expected, rtol=ATTACKS[name][2], atol=1e-3)


def test_ddn_levels_round_the_images():
    model = Linear(2)
    images, labels = grey_images(model)
    result = AdvLibDDN(levels=256)(model, images, labels)
    steps = 255 * result.adversarial_inputs
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    assert result.found.all()
