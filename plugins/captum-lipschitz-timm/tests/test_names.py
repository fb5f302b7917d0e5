"""The half-Huber ReLU under a name of timm's."""

import importlib
from collections import Counter

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import create_act, get_act_fn, get_act_layer
from torch import nn

from captum_lipschitz import HalfHuberReLU
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz_timm import names, register, with_half_huber


@pytest.fixture(autouse=True)
def _tables(monkeypatch):
    for table in ("_ACT_LAYER_DEFAULT", "_ACT_FN_DEFAULT"):
        monkeypatch.setattr(create_act, table, dict(getattr(create_act, table)))
        getattr(create_act, table).pop("half_huber", None)


COUNTS = {  # HalfHuberReLU modules by the name alone
    "resnet18": 17,
    "resnet50": 49,
    "resnetv2_50": 49,
    "convnext_atto": 12,
    "efficientnet_b0": 49,
    "tf_efficientnetv2_b0": 55,
    "vit_tiny_patch16_224": 12,
}


def kinds(model):
    return Counter(type(module).__name__ for module in model.modules())


@pytest.mark.parametrize("name", COUNTS)
def test_every_family_takes_the_name(name):
    register()
    with torch.device("meta"):
        model = timm.create_model(name, act_layer="half_huber")
    found = kinds(model)
    assert found["HalfHuberReLU"] == COUNTS[name]
    assert not {"ReLU", "SiLU", "GELU"} & set(found)
    assert with_half_huber(model).replaced == {}  # nothing kinked is left either


@pytest.mark.parametrize(("name", "left"), [("seresnet50", {"ReLU": 16}), ("mobilenetv3_small_050", {"ReLU": 14})])
def test_what_the_name_does_not_reach_is_replaced_afterwards(name, left):
    register()
    with torch.device("meta"):
        model = timm.create_model(name, act_layer="half_huber")
    assert kinds(model)["ReLU"] == left["ReLU"]
    assert Counter(with_half_huber(model).replaced.values())["ReLU -> HalfHuberReLU"] == left["ReLU"]


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=8))
def test_the_function_is_the_module(values):
    register()
    x = torch.tensor(values)
    assert torch.equal(get_act_fn("half_huber")(x), HalfHuberReLU()(x))
    assert torch.equal(get_act_fn("Half_Huber")(x, inplace=True), HalfHuberReLU()(x))
    assert torch.equal(x, torch.tensor(values))


def test_the_layer_is_the_core_s_own_with_any_delta():
    register()
    made = get_act_layer("half_huber")(inplace=True, delta=0.25)
    assert type(made) is HalfHuberReLU
    assert made.delta == 0.25


def test_importing_registers_nothing():
    importlib.reload(names)
    assert "half_huber" not in create_act._ACT_LAYER_DEFAULT
    assert "half_huber" not in create_act._ACT_FN_DEFAULT
    with pytest.raises(KeyError):
        get_act_layer("half_huber")


def test_registering_twice_is_once_and_names_that_are_taken_are_refused():
    register()
    register()
    register("own")
    for name in ("relu", "silu", "", "Half_Huber"):
        with pytest.raises(InvalidInputError, match="name: expected"):
            register(name)
    assert get_act_layer("relu") is nn.ReLU
    assert type(get_act_layer("own")()) is HalfHuberReLU
