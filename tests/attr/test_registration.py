"""Registering with Captum: explicit, counted, undone exactly, and refused before anything is changed."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import captum
import captum.attr
import pytest
import torch
from captum.attr import LRP, Deconvolution, DeepLift, GuidedBackprop
from captum.attr._core import deep_lift, guided_backprop_deconvnet, lrp
from contracts import Breaking
from torch import nn

import captum_lipschitz.attr
from captum_lipschitz import HalfHuberReLU
from captum_lipschitz.attr.registration import CaptumRegistration, register_with_captum
from captum_lipschitz.errors import InvalidInputError, MissingDependencyError

pytestmark = pytest.mark.filterwarnings("ignore:Setting")  # Captum tells of its hooks on every call

CLIPPING = guided_backprop_deconvnet.ModifiedReluGradientAttribution
OURS = [
    name for name in captum_lipschitz.attr.__all__
    if isinstance(getattr(captum_lipschitz.attr, name), type)
    and issubclass(getattr(captum_lipschitz.attr, name), captum.attr.Attribution)
]  # fmt: skip


def captum_state() -> list[list[tuple[Any, int]]]:
    """Every table, method and name, in order, with the identity of what stands there."""
    tables: list[dict[Any, Any]] = [
        deep_lift.SUPPORTED_NON_LINEAR,
        dict(enumerate(lrp.SUPPORTED_NON_LINEAR_LAYERS)),
        lrp.SUPPORTED_LAYERS_WITH_RULES,
        dict(enumerate(captum.attr.__all__)),
        {name: value for name, value in vars(captum.attr).items() if name != "__builtins__"},
        *(dict(sorted(vars(kind).items())) for kind in (DeepLift, LRP, CLIPPING, GuidedBackprop, Deconvolution)),
        {"containers": deep_lift.SUPPORTED_NON_LINEAR, "list": lrp.SUPPORTED_NON_LINEAR_LAYERS},
    ]
    return [[(key, id(value)) for key, value in table.items()] for table in tables]


@pytest.fixture(autouse=True)
def _as_before() -> Any:
    before = captum_state()
    yield
    assert captum_state() == before


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 7), HalfHuberReLU(), nn.Linear(7, 3))


def test_our_classes_stand_in_captum_while_registered() -> None:
    assert "AdversarialAttribution" in OURS
    before = captum_state()
    with register_with_captum():
        for name in OURS:
            assert getattr(captum.attr, name) is getattr(captum_lipschitz.attr, name)
            assert captum.attr.__all__.count(name) == 1
        starred: dict[str, Any] = {}
        exec("from captum.attr import *", starred)  # noqa: S102
        assert set(OURS) <= set(starred)
        assert captum_state() != before
    assert captum_state() == before
    assert not any(hasattr(captum.attr, name) for name in OURS)


def test_it_is_undone_with_the_last_handle_in_whatever_order() -> None:
    before = captum_state()
    first = register_with_captum()
    during = captum_state()
    second = register_with_captum()
    assert captum_state() == during
    first.remove()
    first.remove()  # the same handle counts once
    assert captum_state() == during
    with register_with_captum():
        second.remove()
        assert captum_state() == during
    assert captum_state() == before
    second.remove()
    assert captum_state() == before
    with register_with_captum() as handle:
        assert [len(table) for table in captum_state()] == [len(table) for table in during]
        handle.remove()
        assert captum_state() == before


class Keeping:
    """An object of a user's that keeps its handle."""

    def __init__(self, handle: CaptumRegistration) -> None:
        self.handle = handle


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize("kept", [False, True])
def test_handles_are_not_copied(duplicate: Callable[[object], object], kept: bool) -> None:
    with register_with_captum() as first:
        during = captum_state()
        if not (kept and duplicate is copy.copy):  # whose copy keeps the very same handle
            with pytest.raises(TypeError, match=r"no copy\.copy, .* pickle .* nor of an object that keeps"):
                duplicate(Keeping(first) if kept else first)
        second = register_with_captum()
        first.remove()
        assert captum_state() == during
        second.remove()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_handles_are_not_pickled_by_any_protocol(protocol: int) -> None:
    with register_with_captum() as handle, pytest.raises(TypeError, match="pickle"):
        pickle.dumps(handle, protocol)


def test_a_with_block_that_fails_is_undone() -> None:
    before = captum_state()
    with pytest.raises(KeyboardInterrupt), register_with_captum():
        raise KeyboardInterrupt
    assert captum_state() == before


def test_subclasses_learnt_meanwhile_are_forgotten() -> None:
    class Later(HalfHuberReLU):
        pass

    class Own(HalfHuberReLU):
        pass

    def own(*arguments: Any, eps: float) -> Any:
        return 7 * arguments[-1]  # times the gradient at the output

    model, inputs = nn.Sequential(nn.Linear(5, 5), Later(), nn.Linear(5, 3)), torch.rand(2, 5)
    before = captum_state()
    with register_with_captum():
        DeepLift(model).attribute(inputs, target=1)
        LRP(model).attribute(inputs, target=1)
        assert deep_lift.SUPPORTED_NON_LINEAR[Later] is deep_lift.SUPPORTED_NON_LINEAR[nn.ReLU]
        assert lrp.SUPPORTED_NON_LINEAR_LAYERS.count(Later) == 1
        deep_lift.SUPPORTED_NON_LINEAR[Own] = own
        slope = DeepLift(nn.Sequential(nn.Identity(), Own()), multiply_by_inputs=False).attribute(inputs, target=1)
        assert slope[:, 1].tolist() == [7, 7]  # an entry of one's own comes first
    assert deep_lift.SUPPORTED_NON_LINEAR.pop(Own) is own
    assert captum_state() == before


def test_what_others_changed_meanwhile_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = chain(), torch.rand(2, 5)
    plain = GuidedBackprop(model).attribute(inputs, target=1)
    seen = []
    with monkeypatch.context() as patch:
        handle = register_with_captum()
        ours = CLIPPING._register_hooks

        def theirs(self: Any, module: nn.Module) -> None:
            seen.append(module)
            ours(self, module)

        patch.setattr(CLIPPING, "_register_hooks", theirs)
        clipped = GuidedBackprop(model).attribute(inputs, target=1)
        handle.remove()
        assert CLIPPING._register_hooks is theirs
        assert not torch.equal(clipped, plain)
        assert torch.equal(GuidedBackprop(model).attribute(inputs, target=1), plain)  # ours, inside theirs, is idle
        with register_with_captum():
            assert torch.equal(GuidedBackprop(model).attribute(inputs, target=1), clipped)
    assert seen
    CLIPPING._register_hooks = ours.__wrapped__  # what monkeypatch put back is our idle method


def test_entries_of_ones_own_are_kept() -> None:
    rule = deep_lift.SUPPORTED_NON_LINEAR[nn.ReLU]
    deep_lift.SUPPORTED_NON_LINEAR[HalfHuberReLU] = rule
    lrp.SUPPORTED_NON_LINEAR_LAYERS.append(HalfHuberReLU)
    before = captum_state()
    try:
        with register_with_captum():
            assert lrp.SUPPORTED_NON_LINEAR_LAYERS.count(HalfHuberReLU) == 1
        assert captum_state() == before
        assert deep_lift.SUPPORTED_NON_LINEAR[HalfHuberReLU] is rule
    finally:
        del deep_lift.SUPPORTED_NON_LINEAR[HalfHuberReLU]
        lrp.SUPPORTED_NON_LINEAR_LAYERS.remove(HalfHuberReLU)


def test_a_name_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        with monkeypatch.context() as patch:
            patch.setattr(captum.attr, name, DeepLift, raising=False)
            before = captum_state()
            with pytest.raises(InvalidInputError, match=rf"no captum\.attr\.{name} but ours, got <class .*DeepLift"):
                register_with_captum()
            assert captum_state() == before


def test_another_rule_for_half_huber_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(deep_lift.SUPPORTED_NON_LINEAR, HalfHuberReLU, deep_lift.softmax)
    before = captum_state()
    with pytest.raises(
        InvalidInputError, match=r"no rule for HalfHuberReLU in captum's DeepLift.*got <function softmax"
    ):
        register_with_captum()
    assert captum_state() == before
    monkeypatch.undo()


TABLES = [
    (deep_lift, "SUPPORTED_NON_LINEAR"),
    (lrp, "SUPPORTED_NON_LINEAR_LAYERS"),
    (captum.attr, "__all__"),
]
ABSENT = object()


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        *((owner, name, ABSENT) for owner, name in TABLES),
        *((owner, name, ("something", "else")) for owner, name in TABLES),
        (deep_lift, "SUPPORTED_NON_LINEAR", {}),
        (lrp, "SUPPORTED_NON_LINEAR_LAYERS", []),
        (guided_backprop_deconvnet, "ModifiedReluGradientAttribution", ABSENT),
        *((DeepLift, f"_{name}", ABSENT) for name in ("register_hooks", "can_register_hook", "backward_hook")),
        *((DeepLift, f"_{name}", ABSENT) for name in ("forward_hook", "forward_pre_hook")),
        (LRP, "_check_and_attach_rules", ABSENT),
        (CLIPPING, "_register_hooks", ABSENT),
        (CLIPPING, "_backward_hook", ABSENT),
    ],
)
def test_another_captum_is_refused(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, value: object) -> None:
    places = (captum.attr, deep_lift, lrp, guided_backprop_deconvnet, DeepLift, LRP, CLIPPING)
    with monkeypatch.context() as patch:
        if value is ABSENT:
            patch.delattr(owner, name)
        else:
            patch.setattr(owner, name, value)
        before = [sorted((key, id(there)) for key, there in vars(place).items()) for place in places]
        with pytest.raises(MissingDependencyError, match=rf"got Captum {captum.__version__}: .*{name}.*captum==0\.9"):
            register_with_captum()
        assert [sorted((key, id(there)) for key, there in vars(place).items()) for place in places] == before
        if value is not ABSENT:
            assert not value or value == ("something", "else")


@pytest.mark.parametrize("method", [DeepLift, LRP, GuidedBackprop, Deconvolution])
def test_an_error_inside_leaves_no_hooks(method: Any) -> None:
    inner = chain()
    model = Breaking(inner, 0 if method is not LRP else 1, RuntimeError("broken"))

    def hooks() -> list[int]:
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return [len(getattr(module, kind)) for module in model.modules() for kind in kinds]

    assert not any(hooks())
    with register_with_captum(), pytest.raises(RuntimeError, match="broken"):
        method(model).attribute(torch.rand(2, 5), target=1)
    assert not any(hooks())


def test_importing_changes_nothing_in_captum() -> None:
    code = """
import captum.attr
from captum.attr._core import deep_lift, guided_backprop_deconvnet, lrp
places = (captum.attr, deep_lift.DeepLift, lrp.LRP, guided_backprop_deconvnet.ModifiedReluGradientAttribution)
def state():
    tables = (deep_lift.SUPPORTED_NON_LINEAR, lrp.SUPPORTED_NON_LINEAR_LAYERS, captum.attr.__all__)
    return [*map(list, tables), *([(n, id(v)) for n, v in vars(place).items()] for place in places)]
before = state()
import captum_lipschitz.attr.registration
assert state() == before
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
