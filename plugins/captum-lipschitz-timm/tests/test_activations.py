"""Half-Huber activations over timm's families: what is replaced, what is left, and what is refused."""

import copy
from collections import Counter

import pytest
import timm
import torch
from networks import CLASSES, FAMILIES, create, data, explicit_gradient, flat_gradient
from timm import layers
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from captum_lipschitz import HalfHuberReLU
from captum_lipschitz.errors import (
    CaptumLipschitzWarning,
    InvalidInputError,
    InvalidTypeError,
    UnreachableActivationError,
)
from captum_lipschitz_timm import activations, create_robust_model, with_half_huber
from captum_lipschitz_timm.nonlinearities import nonlinearities

SHALLOW = {"depth": 2}
ARCHITECTURES = {  # activations and gates, counted by type in the networks as timm makes them
    "resnet18": {"ReLU": 17},
    "resnet26": {"ReLU": 25},
    "resnet50": {"ReLU": 49},
    "resnext50_32x4d": {"ReLU": 49},
    "resnetv2_50": {"ReLU": 49},
    "resnetv2_50x1_bit": {"ReLU": 49},
    "seresnet50": {"ReLU": 65},
    "ecaresnet26t": {"ReLU": 27},
    "convnext_atto": {"GELU": 12},
    "convnext_femto": {"GELU": 4},
    "convnextv2_atto": {"GELU": 12},
    "efficientnet_b0": {"SiLU": 49},
    "efficientnetv2_rw_t": {"SiLU": 99},
    "tf_efficientnet_b0": {"SiLU": 49},
    "tf_efficientnet_lite0": {"ReLU6": 33},
    "mobilenetv3_small_050": {"Hardswish": 19, "ReLU": 14, "Hardsigmoid": 9},
    "vit_tiny_patch16_224": {"GELU": 12},
    "deit_tiny_distilled_patch16_224": {"GELU": 2},
    "vit_small_patch14_reg4_dinov2": {"GELU": 2},
    "vit_giant_patch14_dinov2": {"SiLU": 2},  # a gated MLP
    "eva02_tiny_patch14_224": {"SiLU": 2},
}
LESS = {
    "convnext_femto": {"depths": (1, 1, 1, 1)},
    "deit_tiny_distilled_patch16_224": SHALLOW,
    "vit_small_patch14_reg4_dinov2": SHALLOW,
    "vit_giant_patch14_dinov2": SHALLOW,
    "eva02_tiny_patch14_224": SHALLOW,
}
ACTIVATIONS = {"relu", "relu_", "silu", "gelu", "hardswish", "hardsigmoid", "hardtanh", "relu6", "leaky_relu", "selu"}


class Calls(TorchFunctionMode):
    """Names of the functions that Python code calls."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names[getattr(func, "__name__", "")] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_activation_is_replaced_and_nothing_kinked_is_left(name):
    with torch.device("meta"):
        model = timm.create_model(name, **LESS.get(name, {}))
    keys = list(model.state_dict())
    done = with_half_huber(model)
    assert done.model is model
    assert Counter(text.split(" -> ")[0] for text in done.replaced.values()) == ARCHITECTURES[name]
    found = [module for module in model.modules() if isinstance(module, HalfHuberReLU)]
    gates = ARCHITECTURES[name].get("Hardsigmoid", 0)
    assert len(found) == sum(ARCHITECTURES[name].values()) - gates
    assert list(model.state_dict()) == keys
    assert set(done.kept.values()) <= {"sigmoid", "max_pool2d"}


@pytest.mark.parametrize(
    "name",
    [*FAMILIES, "resnet18", "mobilenetv3_small_050", "seresnet50", "test_efficientnet_gn", "test_vit3"],
)
def test_no_other_activation_is_called_and_the_penalty_has_gradients(name):
    small = {"layers": (1, 1, 1, 1)} if name in ("resnet18", "seresnet50") else {}
    model = with_half_huber(create(name, **small)).model
    ran = []
    for module in model.modules():
        if isinstance(module, HalfHuberReLU):
            module.register_forward_hook(lambda *_: ran.append(1))
    images, labels = data(4)
    with Calls() as calls:
        model(images)
    # A half-Huber activation is made of one relu and one huber_loss.
    assert len(ran) > 0
    assert calls.names["huber_loss"] == calls.names["relu"] == len(ran)
    assert not {known for known in ACTIVATIONS - {"relu"} if calls.names[known]}

    def nothing(logits, _):
        return 0.0 * logits.sum()

    gradient = explicit_gradient(model, images, labels, nothing, strength=1.0)
    assert gradient.isfinite().all()
    assert (gradient != 0).float().mean() > 0.3


def test_create_robust_model_is_create_model_and_the_replacement():
    robust = create_robust_model("test_resnet", num_classes=CLASSES, delta=0.25)
    assert {module.delta for module in robust.modules() if isinstance(module, HalfHuberReLU)} == {0.25}
    assert robust.num_classes == CLASSES


def test_create_robust_model_passes_all_settings_on():
    kept = create_robust_model("test_resnet", keep=["layer1"], input_size=(3, 64, 64))
    assert isinstance(kept.layer1[0].act1, nn.ReLU)
    assert isinstance(kept.layer2[0].act1, HalfHuberReLU)
    with pytest.raises(InvalidInputError, match=r"input_size: expected .* with \(4, 64, 64\)"):
        create_robust_model("test_resnet", input_size=(4, 64, 64))
    assert create_robust_model("test_resnet", input_size=(4, 64, 64), check=False).num_classes == 1000


@pytest.mark.parametrize("size", [64, (64, 96)])
def test_create_robust_model_takes_img_size_as_the_image_s(size, monkeypatch):
    seen = []

    def look(model, input_size):
        seen.append(tuple(input_size))
        return nonlinearities(model, input_size)

    monkeypatch.setattr(activations, "nonlinearities", look)
    create_robust_model("test_vit", img_size=size, in_chans=1)
    create_robust_model("test_vit", img_size=size, input_size=(3, 64, 64), check=False)
    assert seen == [(1, *((64, 64) if size == 64 else size))]


def test_create_robust_model_takes_img_size_where_the_network_does_not_tell_it():
    made = create_robust_model("maxvit_tiny_rw_224", img_size=64, num_classes=2)
    assert made.num_classes == 2


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_and_modes_are_kept_and_checkpoints_load(name):
    model = create(name)
    original = copy.deepcopy(model)
    next(iter(model.children())).eval()
    modes = {path: module.training for path, module in model.named_modules()}
    with_half_huber(model)
    assert {path: module.training for path, module in model.named_modules() if path in modes} == modes
    for (key, value), (other, expected) in zip(model.state_dict().items(), original.state_dict().items(), strict=True):
        assert key == other
        assert torch.equal(value, expected)
    model.load_state_dict(original.state_dict(), strict=True)


def test_a_small_delta_is_the_relu_network():
    model = create("test_resnet").eval()
    images, _ = data(4)
    with torch.no_grad():
        expected = model(images)
        with_half_huber(model, delta=2.0**-20)
        assert torch.allclose(model(images), expected, atol=1e-4)
        assert not torch.equal(model(images), expected)


def test_replacing_twice_changes_nothing_more():
    model = create("test_vit")
    with_half_huber(model)
    modules = list(model.modules())
    assert with_half_huber(model).replaced == {}
    assert list(model.modules()) == modules


def test_smooth_activations_stay_when_asked():
    done = with_half_huber(create("mobilenetv3_small_050"), keep_smooth=True)
    assert len(done.replaced) == 42  # all of these have a kink
    done = with_half_huber(timm.create_model("seresnet50", layers=(1, 1, 1, 1), act_layer="silu"), keep_smooth=True)
    assert set(done.replaced.values()) == {"ReLU -> HalfHuberReLU"}
    assert "silu" in done.kept.values()


def test_what_is_to_stay_stays_and_is_named():
    model = create("test_resnet")
    done = with_half_huber(model, keep=["layer1", "act1"])
    assert isinstance(model.act1, nn.ReLU)
    assert not any(path.startswith("layer1.") or path == "act1" for path in done.replaced)
    assert done.kept["act1"] == "relu"
    assert isinstance(model.layer2[0].act1, HalfHuberReLU)


def test_a_shared_activation_stays_shared():
    act = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), act, nn.Conv2d(4, 4, 3), act)
    done = with_half_huber(model, input_size=(3, 8, 8))
    assert model[2] is model[4]
    assert list(done.replaced) == ["2", "4"]


def test_a_frozen_and_half_precision_network_and_other_channels():
    model = create("test_resnet", in_chans=1).to(torch.bfloat16).requires_grad_(False)
    assert with_half_huber(model).replaced
    assert model(torch.rand(2, 1, 32, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in model.parameters())


class By(nn.Module):
    """A network that calls ``function`` in its code."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, images):
        return self.function(self.body(images)).mean((2, 3))


class Own(nn.ReLU):
    def forward(self, inputs):
        return super().forward(inputs) + inputs


FUNCTIONS = {
    "relu": F.relu,
    "Tensor.relu_": lambda x: (x + 0).relu_(),
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, x.new_full((1,), 0.25)),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "selu": F.selu,
    "elu of 2": lambda x: F.elu(x, 2.0),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "clamp": lambda x: x.clamp(min=0),
    "clamp between": lambda x: torch.clamp(x, 0, 6),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "hard_mish": layers.activations.hard_mish,
    "softshrink": F.softshrink,
    "clamp to -1 and 1": lambda x: x.clamp(-1, 1),
    "clamp, largest": lambda x: x.clamp(max=6),
    "clamp_max_": lambda x: (x + 0).clamp_max_(2.0),
    "clamp, least 1": lambda x: x.clamp_min(1.0),
    "clamp of a guard and a largest": lambda x: x.clamp(1e-6, 1.0),
    "abs": torch.abs,
    "Tensor.max of two": lambda x: x.max(0.1 * x),
    "elu": F.elu,
    "celu": lambda x: F.celu(x, 2.0),
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": layers.activations.gelu_tanh,
    "quick_gelu": layers.activations.quick_gelu,
    "mish": F.mish,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "a guarded division": lambda x: x / x.norm(dim=1, keepdim=True).clamp(min=1e-6),
    "a clamp of integers": lambda x: x * torch.arange(3).clamp(min=0, max=1).abs()[2],
    "nothing": lambda x: 2 * x,
}


def has_a_jump(function):
    """Whether the derivative of an element-wise function jumps somewhere in [-4, 7], looked at closely."""
    x = torch.arange(-4.00005, 7, 1e-3, dtype=torch.float64).view(1, 1, -1, 1).requires_grad_()
    (slopes,) = torch.autograd.grad(function(x).sum(), x)
    return bool(slopes.flatten().diff().abs().max() > 0.05)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_with_a_kink_in_the_code_is_refused_and_no_other(name):
    function = FUNCTIONS[name]
    model = By(function)
    if has_a_jump(function):
        with pytest.raises(UnreachableActivationError, match=r"\(the model itself\): By calls \w+"):
            with_half_huber(model, input_size=(3, 8, 8))
        assert isinstance(model.body[2], nn.ReLU)
        done = with_half_huber(model, input_size=(3, 8, 8), keep=[""])
        assert done.kept.get("")
    else:
        done = with_half_huber(model, input_size=(3, 8, 8))
    assert done.replaced == {"body.2": "ReLU -> HalfHuberReLU"}


POOLINGS = {
    "amax": lambda x: x.amax((2, 3), keepdim=True),
    "amin": lambda x: x.amin(1, keepdim=True),
    "max": lambda x: x.max(dim=1, keepdim=True).values,
    "min": lambda x: x.min(dim=1, keepdim=True)[0],
}


@pytest.mark.parametrize("name", POOLINGS)
def test_a_maximum_over_a_dimension_is_pooling_and_named(name):
    assert with_half_huber(By(POOLINGS[name]), input_size=(3, 8, 8)).kept == {"": name}


def test_a_clamp_of_a_weight_does_not_count():
    class Scaled(By):
        def __init__(self):
            super().__init__(nn.Identity())
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return super().forward(images) * self.scale.view(1, 1).clamp(max=4.6).exp()

    assert with_half_huber(Scaled(), input_size=(3, 8, 8)).kept == {}


def test_what_is_not_seen_as_the_readme_says():
    """Once this fails, the README's list of what stays unseen has to be changed."""
    for unseen in (lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: x * (x > 0), lambda x: x.clamp(x.new_zeros(()))):
        assert has_a_jump(unseen)
        assert with_half_huber(By(unseen), input_size=(3, 8, 8)).kept == {}


OTHERS = {  # positional embeddings of four dimensions, convolutions behind an embedding, positions that are clamped
    "volo_d1_224": 23,
    "sam2_hiera_tiny": 12,
    "pit_ti_224": 12,
    "gemma4_vit_167m": 16,
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_network_s_own_image_size_is_found(name):
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    with torch.device("meta"):
        model = timm.create_model(name)
    assert len(with_half_huber(model).replaced) == OTHERS[name]


@pytest.mark.parametrize(
    ("module", "call"), [(nn.PReLU(), "_prelu_kernel|prelu"), (Own(), "relu"), (nn.Hardtanh(), "hardtanh")]
)
def test_a_module_with_a_kink_that_is_unknown_is_refused(module, call):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), module)
    with pytest.raises(UnreachableActivationError, match=f"3: {type(module).__name__} calls ({call})"):
        with_half_huber(model, input_size=(3, 8, 8))
    assert isinstance(model[2], nn.ReLU)


def test_the_order_and_place_of_functions():
    seen = nonlinearities(create("test_resnet"), (3, 32, 32))
    assert (seen[0].path, seen[0].function, seen[0].nature) == ("conv1.2", "relu", "kinked")
    assert ("maxpool", "max_pool2d", "pooling") in [tuple(one) for one in seen]


def test_the_network_is_left_alone_by_a_look_at_it():
    model = create("test_efficientnet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    nonlinearities(model, (3, 32, 32))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.training


BAD = [
    (lambda: with_half_huber("resnet18"), InvalidTypeError, "model: expected an nn.Module, got str"),
    (lambda: with_half_huber(nn.ReLU()), InvalidInputError, "model: expected a network, got an activation, ReLU"),
    (lambda: with_half_huber(create("test_vit"), delta=0), InvalidInputError, "delta: expected a positive value"),
    (lambda: with_half_huber(create("test_vit"), keep="norm"), InvalidTypeError, "keep: expected several paths"),
    (lambda: with_half_huber(create("test_vit"), keep=["norn"]), InvalidInputError, r"keep: .*got \['norn'\]"),
    (lambda: with_half_huber(create("test_vit"), input_size=(4, 32, 32)), InvalidInputError, "input_size: expected"),
    (lambda: with_half_huber(nn.Linear(3, 2), check=False), InvalidInputError, "model: expected activations"),
    (lambda: create_robust_model("no_such_network"), RuntimeError, "Unknown model"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_network_without_normalisation_is_warned_of():
    with pytest.warns(CaptumLipschitzWarning, match="VGG has no normalisation layer"):
        with_half_huber(timm.create_model("vgg11", num_classes=CLASSES, in_chans=3), check=False)


def test_a_converted_network_can_be_scripted():
    model = with_half_huber(create("test_resnet")).model.eval()
    images, _ = data(2)
    with pytest.warns(FutureWarning, match="torch.jit.script"), torch.no_grad():
        assert torch.allclose(torch.jit.script(model)(images), model(images), atol=1e-6)


def test_gradients_exist_beside_an_explicit_cross_entropy():
    model = with_half_huber(create("test_convnext")).model
    images, labels = data(4)
    F.cross_entropy(model(images), labels).backward()
    assert flat_gradient(model).norm() > 0
