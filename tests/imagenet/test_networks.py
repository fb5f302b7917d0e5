"""Torchvision's networks as training wants them: one output, any number of classes, weights from elsewhere."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from imagenet_training.network import build_network
from imagenet_training.processes import Processes
from imagenet_training.recipe import Recipe
from imagenet_training.training import Training
from imagenet_training.validation import median_radius
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VisionTransformer

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.models import Normalised


def _built(model: str, classes: int, **options: Any) -> Normalised:
    return build_network(Recipe(model=model, **{"resolution": 64, "resize": 64, **options}), classes)


def _saved(network: Normalised, folder: Path) -> str:
    save_file(
        {name: tensor.contiguous() for name, tensor in network.model.state_dict().items()}, folder / "w.safetensors"
    )
    return str(folder / "w.safetensors")


def _differing(a: nn.Module, b: nn.Module) -> set[str]:
    """Names of the tensors that are not the same."""
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    return {name for name in first if first[name].shape != second[name].shape or not first[name].equal(second[name])}


@pytest.mark.parametrize(("model", "side"), [("googlenet", 64), ("inception_v3", 96)])
def test_networks_with_auxiliary_classifiers_give_logits_in_training(model: str, side: int) -> None:
    network = _built(model, 3, resolution=side, resize=side).train()
    with torch.no_grad():
        logits = network(torch.rand(2, 3, side, side))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 3)


def test_published_weights_with_auxiliary_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    published = torchvision.models.googlenet(num_classes=3, aux_logits=True, init_weights=False)
    network = _with_published("googlenet", published, 3, monkeypatch)
    left = {name for name in published.state_dict() if not name.startswith("aux")}
    assert network.model.state_dict().keys() == left
    assert all(tensor.equal(published.state_dict()[name]) for name, tensor in network.model.state_dict().items())
    assert network.model.transform_input
    assert _built("googlenet", 3).model.transform_input, "or the finished run's network would be another"


def _with_published(
    model: str, published: nn.Module, classes: int, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> Normalised:
    """As built where torchvision's own weights, which are not downloaded, were ``published``."""
    get_model = torchvision.models.get_model

    def given(name: str, **keywords: Any) -> nn.Module:
        return published if keywords.get("weights") == "DEFAULT" else get_model(name, **keywords)

    monkeypatch.setattr(torchvision.models, "get_model", given)
    return _built(model, classes, weights="torchvision", **options)


@pytest.mark.parametrize(
    ("model", "head"),
    [
        ("squeezenet1_1", {"classifier.1.weight", "classifier.1.bias"}),
        ("shufflenet_v2_x0_5", {"fc.weight", "fc.bias"}),
        ("mobilenet_v3_small", {"classifier.3.weight", "classifier.3.bias"}),
    ],
)
def test_weights_of_another_number_of_classes_keep_all_but_the_last_layer(
    model: str, head: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = _built(model, 7, seed=1)
    network = _built(model, 3, weights=_saved(trained, tmp_path)).eval()
    assert _differing(network, trained) == {f"model.{name}" for name in head}
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 3)
    last = head.pop().rpartition(".")[0]
    assert capsys.readouterr().out == f"weights: 7 classes, and the data have 3: the last layer, {last}, starts anew\n"
    again = _with_published(model, trained.model, 3, monkeypatch)
    assert _differing(again, network) == set()


def test_weights_of_the_same_number_of_classes_are_taken_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = _built("squeezenet1_1", 3, seed=1)
    assert _differing(_built("squeezenet1_1", 3, weights=_saved(trained, tmp_path)), trained) == set()
    assert capsys.readouterr().out == ""


def test_weights_of_another_network_do_not_fit(tmp_path: Path) -> None:
    path = _saved(_built("shufflenet_v2_x0_5", 7), tmp_path)
    with pytest.raises(InvalidInputError, match="does not hold the weights of SqueezeNet"):
        _built("squeezenet1_1", 3, weights=path)
    with pytest.raises(InvalidInputError, match="does not hold the weights of ShuffleNetV2: other shapes"):
        _built("shufflenet_v2_x1_0", 3, weights=path)


def test_positions_of_a_vit_are_brought_to_the_resolution(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def small(_: str, *, image_size: int = 96, num_classes: int = 3, weights: str | None = None) -> VisionTransformer:
        made = VisionTransformer(image_size, 32, 1, 1, 8, 8, num_classes=num_classes)
        if weights == "DEFAULT":  # a ramp across each row of three patches: interpolated, the ramp's points between
            ramp = torch.tensor([-1.0, 0.0, 1.0]).repeat(3).reshape(1, 9, 1).expand(1, 9, 8)
            made.encoder.pos_embedding.data = torch.cat([torch.full((1, 1, 8), 7.0), ramp], 1)
        return made

    monkeypatch.setattr(torchvision.models, "get_model", small)
    network = _built("vit_b_32", 3, resolution=160, resize=160, weights="torchvision")
    found = network.model.encoder.pos_embedding[0]
    assert found[0].tolist() == [7.0] * 8
    for row in found[1:, 0].reshape(5, 5).tolist():
        assert row[::2] == pytest.approx([-1, 0, 1], abs=1e-6)
        assert -1 < row[1] < 0 < row[3] < 1
    assert network.eval()(torch.rand(1, 3, 160, 160)).shape == (1, 3)
    assert capsys.readouterr().out == "weights: positions of 9 patches, interpolated to 25\n"


def test_a_resolution_that_a_network_cannot_have() -> None:
    with pytest.raises(InvalidInputError, match="resolution: expected one that vit_b_32 can have, such as 224, got 72"):
        _built("vit_b_32", 3, resolution=72, resize=72)
    with pytest.raises(InvalidInputError, match="resolution: expected one that maxvit_t can have, such as 224, got 96"):
        _built("maxvit_t", 3, resolution=96, resize=96)


def test_a_compiled_network_stays_uncompiled_where_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[Any] = []
    backend = lambda graph, _: graphs.append(graph) or graph.forward  # noqa: E731 - no C++ compiler is needed
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    recipe = Recipe(model="squeezenet1_1", resolution=32, resize=32, compile=True, precision="float32")
    training = Training(recipe, 3, steps_per_epoch=1000, processes=Processes(0, 1, torch.device("cpu")))
    images, labels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 2])
    before = training.network.model.classifier[1].bias.clone()
    training.take_step(images, labels)
    assert not training.network.model.classifier[1].bias.equal(before)
    compiled = len(graphs)
    assert compiled
    assert isinstance(median_radius(training, images, labels), float)  # inductor's backward pass cannot be retained
    assert len(graphs) == compiled
    assert not any("_orig_mod" in name for name in training.network.state_dict())
