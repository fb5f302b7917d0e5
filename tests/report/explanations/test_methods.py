"""The ten methods: any kind of input, who is left out, neither neighbours nor traces."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from audited import CLASSES, SHAPES, batch, build
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import HalfHuberReLU
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, ModelOutputError
from captum_lipschitz.metrics import position_maps
from captum_lipschitz.report.explanations.methods import TITLES, Method, all_methods

DRAWING = ["smooth_grad", "lime", "random"]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("activation", [nn.ReLU, HalfHuberReLU])
def test_all_that_can_be_explain_every_kind_of_input(kind: str, activation: Callable[[], nn.Module]) -> None:
    model, (images, targets) = build(kind, activation), batch(kind)
    methods, left_out = all_methods(model, images[:1], effort="fast", bounds=(0, 1))
    assert left_out.keys() == ({"grad_cam"} if kind == "row" else set())
    assert list(methods) == [name for name in TITLES if name not in left_out]
    for name, method in methods.items():
        found = method.make(model)(images, targets)
        maps = position_maps(found, images)
        assert maps.shape == ((3, *SHAPES[kind][1:]) if kind != "row" else (3, 6)), name
        assert torch.isfinite(maps).all()
        assert not found.requires_grad
        assert method.title == TITLES[name]
        assert method.cost


@settings(max_examples=4, phases=[Phase.explicit, Phase.generate])
@given(order=st.permutations(range(5)), rows=st.integers(1, 5), kind=st.sampled_from(["row", "colour"]))
def test_neighbours_and_chunks_do_not_matter(order: list[int], rows: int, kind: str) -> None:
    model, (images, targets) = build(kind).double(), batch(kind, 5)
    images = images.double()
    whole, _ = all_methods(model, images[:1], effort="fast")
    parts, _ = all_methods(model, images[:1], effort="fast", rows=rows)
    for name in whole:
        expected = whole[name].make(model)(images, targets)[order]
        method = whole[name] if name == "smooth_grad" else parts[name]  # its draws depend on the rows
        explain = method.make(model)
        found = torch.cat([explain(images[k], targets[k]) for k in (order[:2], order[2:])])
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("name", DRAWING)
def test_the_generator_decides_the_draws(name: str) -> None:
    model, (images, targets) = build("colour"), batch("colour")

    def explained(seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        methods, _ = all_methods(model, images[:1], effort="fast", generator=generator)
        return methods[name].make(model)(images, targets)

    assert torch.equal(explained(1), explained(1))
    assert torch.equal(explained(None), explained(None))
    assert not torch.equal(explained(1), explained(2))


class _Fails(nn.Module):
    """Raises once it has run for some times."""

    def __init__(self, inner: nn.Module, after: int) -> None:
        super().__init__()
        self.inner, self.left = inner, after

    def forward(self, inputs: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.inner(inputs)


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("activation", [nn.ReLU, HalfHuberReLU])
def test_nothing_is_left_behind(activation: Callable[[], nn.Module], failing: bool) -> None:
    model, (images, targets) = _Fails(build("colour", activation), 10**6), batch("colour")
    model.train()
    model.inner[1].eval()
    methods, _ = all_methods(model, images[:1], effort="fast")
    before = (copy.deepcopy(model.state_dict()), [m.training for m in model.modules()], images.clone(), targets.clone())
    state = torch.get_rng_state()
    for name, method in methods.items():
        # The error comes where the hooks stand: Captum's own are set before the model runs.
        model.left = 0 if failing else 10**6
        if failing and name != "random":
            with pytest.raises(KeyboardInterrupt):
                method.make(model)(images, targets)
        else:
            method.make(model)(images, targets)
        for module in model.modules():
            hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
            assert not any(hooks), name
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == before[1]
    assert all(torch.equal(value, before[0][key]) for key, value in model.state_dict().items())
    assert torch.equal(images, before[2])
    assert torch.equal(targets, before[3])
    assert not images.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_a_method_explains_other_weights_too() -> None:
    model, (images, targets) = build("colour"), batch("colour")
    other = build("colour", seed=5)
    methods, _ = all_methods(model, images[:1], effort="fast")
    fresh, _ = all_methods(other, images[:1], effort="fast")
    for name in methods:
        assert torch.equal(methods[name].make(other)(images, targets), fresh[name].make(other)(images, targets)), name
        if name != "random":
            first = methods[name].make(model)(images, targets)
            assert not torch.equal(methods[name].make(other)(images, targets), first), name


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(F.relu(self.act(self.first(inputs)) + 1))


class _Patched(nn.Module):
    """As vision transformers begin."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 4, 4, stride=4), nn.Linear(4, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.embed(inputs).flatten(2).mean(2))


def _no_gradient(inputs: Tensor) -> Tensor:
    return inputs.detach().flatten(1)[:, :CLASSES]


@pytest.mark.parametrize(
    ("model", "kind", "reasons"),
    [
        (_Functional(), "row", {"guided_backprop": "applies ReLU as a function", "grad_cam": "its inputs are rows"}),
        (
            nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, CLASSES)),
            "row",
            {"guided_backprop": "has no ReLU or half-Huber ReLU", "grad_cam": "rows"},
        ),
        (_Patched(), "colour", {"guided_backprop": "no ReLU", "grad_cam": "cuts the image into patches"}),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, CLASSES)),
            "colour",
            {"grad_cam": "no convolution with several positions"},
        ),
        (
            _no_gradient,
            "colour",
            {
                name: "does not depend on its input through differentiable operations"
                for name in TITLES
                if name not in ("occlusion", "lime", "random")
            },
        ),
    ],
)
def test_what_cannot_be_is_left_out_with_the_reason(model: nn.Module, kind: str, reasons: dict[str, str]) -> None:
    generator = torch.Generator().manual_seed(0)
    for weights in model.parameters() if isinstance(model, nn.Module) else ():
        weights.data.uniform_(0, 0.1, generator=generator)  # above 0, so that no ReLU is off for an image
    images, targets = batch(kind)
    methods, left_out = all_methods(model, images[:1], effort="fast")
    assert left_out.keys() == reasons.keys()
    assert methods.keys() == TITLES.keys() - reasons.keys()
    for name, reason in reasons.items():
        assert reason in left_out[name]
    for method in methods.values():
        assert len(method.make(model)(images, targets)) == len(images)


def test_wide_rows_are_not_taken_apart() -> None:
    _, left_out = all_methods(nn.Sequential(nn.Linear(2000, 3)), torch.rand(1, 2000))
    assert "2000 of them are more than 1024" in left_out["occlusion"]
    assert "lime" in left_out


def test_only_a_change_has_a_size() -> None:
    model, (images, targets) = build("colour"), batch("colour")
    methods, _ = all_methods(model, images[:1], rho=0.05)
    assert [name for name, method in methods.items() if method.rho is not None] == ["adversarial"]
    larger: Method = methods["adversarial"].at(0.3)
    assert larger.rho == 0.3
    for method, size in ((methods["adversarial"], 0.05), (larger, 0.3)):
        rmse = method.make(model)(images, targets).square().flatten(1).mean(1).sqrt()
        torch.testing.assert_close(rmse, torch.full((3,), size), rtol=0.2, atol=0)
    with pytest.raises(InvalidInputError, match="rho: expected a method whose attributions are a change"):
        methods["saliency"].at(0.3)


def test_labels_decided_one_by_one_can_be_explained() -> None:
    model, (images, targets) = build("colour", outputs=4), batch("colour")
    one, _ = all_methods(model, images[:1], multi_label=True)
    many, _ = all_methods(model, images[:1])
    found = one["adversarial"].make(model)(images, targets)
    assert not torch.allclose(found, many["adversarial"].make(model)(images, targets))
    moved = model(images + found) - model(images)
    assert (moved.gather(1, targets[:, None]) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_follows_the_images(dtype: torch.dtype) -> None:
    model, (images, targets) = build("colour").to(dtype), batch("colour")
    methods, _ = all_methods(model, images[:1].to(dtype), effort="fast")
    for name, method in methods.items():
        assert method.make(model)(images.to(dtype), targets).dtype == dtype, name


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"effort": "huge"}, InvalidInputError, r"effort: expected one of \['fast', 'standard', 'thorough'\], got 'hu"),
        ({"rho": 0.0}, InvalidInputError, "rho: expected a positive size, got 0.0"),
        ({"rows": 0}, InvalidInputError, "rows: expected at least 1, got 0"),
        ({"baseline": torch.zeros(5)}, InvalidInputError, r"baseline: expected a shape that broadcasts to \(1, 3, 8, "),
        ({"example": torch.rand(2, 3, 8, 8)}, InvalidInputError, r"example: expected one input, .* got \(2, 3, 8, 8\)"),
        ({"example": torch.ones(1, 3, 8, 8).long()}, InvalidTypeError, "example: expected floating point values"),
        ({"model": lambda images: images.sum((1, 2, 3))}, ModelOutputError, r"model: expected .* shape \(1, C\)"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {"model": build("colour"), "example": torch.rand(1, 3, 8, 8), **given}
    with pytest.raises(error, match=message):
        all_methods(**arguments)


def test_targets_that_no_class_has_are_refused() -> None:
    model, (images, targets) = build("colour"), batch("colour")
    methods, _ = all_methods(model, images[:1])
    for method in methods.values():
        with pytest.raises(InvalidInputError, match=r"targets: expected classes in 0\.\.2, got"):
            method.make(model)(images, targets + CLASSES)
