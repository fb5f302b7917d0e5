"""The paper's CIFAR network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from captum_lipschitz import HalfHuberReLU
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.models import PreActResNet44


def test_residual_branches_start_at_zero() -> None:
    model = PreActResNet44(num_classes=7, activation=nn.ReLU)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    last = [m.main[-1].weight for m in model.modules() if hasattr(m, "main")]
    assert len(last) == 21
    assert all(not weight.any() for weight in last)
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in model.pipe.modules()) == 45


def test_saved_networks_load_with_the_activation_that_is_named(tmp_path: Path) -> None:
    model = PreActResNet44().eval()
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    loaded = PreActResNet44.from_safetensors(tmp_path / "own.safetensors", HalfHuberReLU)
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded(image), model(image))


def test_files_that_carry_delta_load_as_they_are(tmp_path: Path) -> None:
    model = PreActResNet44().eval()
    activations = {name for name, module in model.named_modules() if isinstance(module, HalfHuberReLU)}
    state = {**model.state_dict(), **{f"{name}.d": torch.tensor(0.25) for name in activations}}
    save_file(state, tmp_path / "authors.safetensors")
    for loaded in (PreActResNet44.from_safetensors(tmp_path / "authors.safetensors"), PreActResNet44()):
        loaded.load_state_dict(state)
        assert {m.delta for m in loaded.modules() if isinstance(m, HalfHuberReLU)} == {0.25}
    assert len(activations) == 43


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InvalidInputError, match="does not hold a PreActResNet44"):
        PreActResNet44.from_safetensors(tmp_path / "other.safetensors")
    save_file({"pipe.7.bias": torch.zeros(10)}, tmp_path / "part.safetensors")
    with pytest.raises(InvalidInputError, match="does not hold a PreActResNet44"):
        PreActResNet44.from_safetensors(tmp_path / "part.safetensors")


@pytest.mark.parametrize(("name", "accuracy"), [("standard", 0.939), ("robust", 0.669)])
def test_authors_networks_have_their_accuracy(
    name: str, accuracy: float, cifar10_test: tuple[Tensor, Tensor], request: pytest.FixtureRequest
) -> None:
    model: PreActResNet44 = request.getfixturevalue(f"{name}_network")
    images, labels = cifar10_test
    with torch.no_grad():
        predicted = torch.cat([model(batch).argmax(1) for batch in images.split(256)])
    assert round(float((predicted == labels).double().mean()), 3) == accuracy
    assert any(isinstance(m, HalfHuberReLU) for m in model.modules()) == (name == "robust")
