"""Models by name: torchvision's with as many classes as the weights, callables of the user's, their fingerprints."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from captum_lipschitz import HalfHuberReLU, replace_activations
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, MissingDependencyError
from captum_lipschitz.measure.fingerprints import answers_hash, model_hash, source_hash
from captum_lipschitz.measure.models import Normalised, load_model


@pytest.mark.parametrize("classes", [1000, 7])
def test_a_torchvision_model_has_as_many_classes_as_its_weights(tmp_path: Path, classes: int) -> None:
    torchvision = pytest.importorskip("torchvision")
    saved = torchvision.models.squeezenet1_1(num_classes=classes).eval()
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    loaded = load_model("torchvision:squeezenet1_1", weights=tmp_path / "w.pt")
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded(images), saved(images))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("auxiliary", [True, False])
@pytest.mark.parametrize(("name", "side"), [("inception_v3", 75), ("googlenet", 64)])
def test_published_weights_that_expect_transformed_images(
    tmp_path: Path, name: str, side: int, auxiliary: bool
) -> None:
    torchvision = pytest.importorskip("torchvision")
    saved = torchvision.models.get_model(
        name, transform_input=True, aux_logits=auxiliary, init_weights=False, num_classes=3
    ).eval()
    torch.save({f"module.{key}": tensor for key, tensor in saved.state_dict().items()}, tmp_path / "w.pt")
    loaded = load_model(f"torchvision:{name}", weights=tmp_path / "w.pt")
    assert loaded.transform_input
    images = torch.rand(1, 3, side, side)
    with torch.no_grad():
        assert torch.equal(loaded(images), saved(images))


def test_random_weights_are_refused() -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(InvalidInputError, match=r"weights: .* would be random.*get_model\('resnet18'"):
        load_model("torchvision:resnet18")
    with pytest.raises(InvalidInputError, match=r"model: expected one of .*'resnet18'.*got 'resnet17'"):
        load_model("torchvision:resnet17")


def test_an_absent_torchvision_gives_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "captum-lipschitz\[vision\]"'):
        load_model("torchvision:resnet18")


@pytest.mark.parametrize("name", ["small", "function", "made"])
def test_callables_of_the_current_folder(work: Path, name: str) -> None:
    model = load_model(f"measured_models:{name}")
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 5)


def test_the_current_folder_is_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("class Made:\n    make = staticmethod(lambda: lambda images: images)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert load_model("only_here:Made.make")(3) == 3


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("resnet50", InvalidInputError, "expected torchvision:NAME or package.module:callable, got 'resnet50'"),
        ("measured_models:absent", InvalidInputError, "'measured_models' has no 'absent'"),
        ("no_such_module:make", InvalidInputError, "'no_such_module' cannot be imported"),
        ("measured_models:broken", InvalidInputError, "calling .*broken without arguments failed: .*no such weights"),
        ("measured_models:number", InvalidTypeError, "to return a module or a function of images, got int"),
        ("measured_models:constant", InvalidTypeError, "to be callable, got int"),
    ],
)
def test_specs_that_cannot_be_used(work: Path, spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"model: .*{message}"):
        load_model(spec)


def test_edited_code_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, making, own = (tmp_path / f"edited_{name}.py" for name in ("layers", "making", "own"))
    layers.write_text("from torch import nn\nclass Layer(nn.Identity):\n    pass\n")
    making.write_text("import edited_layers\ndef make():\n    return edited_layers.Layer()\n")
    own.write_text("from edited_making import make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = "edited_own:make"
    model = load_model(spec, mean=[0.5], std=[0.5])
    seen = [source_hash(spec, model)]
    for file in (layers, making, own):
        assert source_hash(spec, model) == seen[-1]
        file.write_text(file.read_text() + "# edited\n")
        seen.append(source_hash(spec, model))
    assert len(set(seen)) == 4
    assert source_hash("torchvision:resnet18", nn.Identity()) is None


def test_normalisation_stands_inside_the_model() -> None:
    images = torch.rand(2, 3, 4, 4)
    model = Normalised(lambda x: x, [0.5, 0.4, 0.3], [0.2, 0.1, 0.3])
    expected = (images - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.1, 0.3])[:, None, None]
    assert torch.equal(model(images), expected)


def test_the_fingerprint_tells_weights_and_layers() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.BatchNorm1d(3))

    first = model_hash(network())
    assert first == model_hash(network())
    assert first != model_hash(replace_activations(network(), HalfHuberReLU))
    assert model_hash(nn.Sequential(HalfHuberReLU(0.5))) != model_hash(nn.Sequential(HalfHuberReLU(0.6)))
    moved = network()
    moved[2].running_mean += 1e-6
    assert first != model_hash(moved)
    assert "function" in model_hash(lambda images: images)


class _Hiding(nn.Module):
    """Keeps weights where ``state_dict()`` does not look."""

    def __init__(self, change: str = "") -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.networks = [nn.Linear(3, 2)]
            self.by_name = {"scale": torch.ones(2)}
            self.shift = torch.zeros(2)
        self.register_buffer("offset", torch.zeros(2), persistent=False)
        with torch.no_grad():
            tensors = {
                "list": self.networks[0].bias, "dict": self.by_name["scale"], "attribute": self.shift,
                "buffer": self.get_buffer("offset"),
            }  # fmt: skip
            if change:
                tensors[change] += 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.networks[0](images) * self.by_name["scale"] + self.shift + self.offset
        return outputs


@pytest.mark.parametrize("change", ["list", "dict", "attribute", "buffer"])
def test_the_fingerprint_tells_weights_outside_the_state_dict(change: str) -> None:
    assert not _Hiding().state_dict()
    assert model_hash(_Hiding()) == model_hash(_Hiding())
    assert model_hash(_Hiding()) != model_hash(_Hiding(change))


def test_modules_that_hold_one_another_have_a_fingerprint() -> None:
    first, second = _Hiding(), _Hiding("list")
    first.networks.append(second)  # type: ignore[arg-type]
    second.networks.append(first)  # type: ignore[arg-type]
    first.by_name["itself"] = first.by_name  # type: ignore[assignment]
    assert model_hash(first) not in (model_hash(_Hiding()), model_hash(second))


def test_functions_are_told_by_their_answers() -> None:
    images, first, second = torch.rand(3, 3), _Hiding(), _Hiding("list")
    assert answers_hash(first, images) is None  # a module's weights tell
    told = [answers_hash(lambda x, m=m: m(x), images) for m in (first, first, second)]
    assert told[0] == told[1] != told[2]
    inside = Normalised(lambda x: second(x.flatten(1)), [0.5], [0.5])
    assert answers_hash(inside, images[:, :, None, None]) not in (None, told[2])
    draws = torch.Generator().manual_seed(0)
    assert answers_hash(lambda x: x + torch.rand(3, 3, generator=draws), images) == "changes from run to run"
    assert answers_hash(lambda x: x + torch.rand(3, 3), images) == answers_hash(lambda x: x + torch.rand(3, 3), images)
