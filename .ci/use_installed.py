"""Uses what is installed, as a user does: every public name, and an Accuracy-Robustness Area in two lines."""

from __future__ import annotations

import importlib
import pkgutil

import torch
from torch import nn

import captum_lipschitz

assert "site-packages" in captum_lipschitz.__file__, f"not the installed package, but {captum_lipschitz.__file__}"

public = [module.name for module in pkgutil.walk_packages(captum_lipschitz.__path__, "captum_lipschitz.")]
public = [name for name in public if not any(part.startswith("_") for part in name.split("."))]
for name in captum_lipschitz.__all__:
    assert getattr(captum_lipschitz, name) is not None, name
for module in public:
    imported = importlib.import_module(module)
    for name in getattr(imported, "__all__", ()):
        assert getattr(imported, name) is not None, f"{module}.{name}"
print(f"{len(captum_lipschitz.__all__)} public names and {len(public)} public modules")

torch.manual_seed(0)
model, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.rand(12, 1, 4, 4)
labels = model(images).argmax(1)  # all are decided rightly, so that the area is not 0
area = captum_lipschitz.accuracy_robustness_area(model, (images, labels), bounds=(0, 1))
print(area)
assert 0 < area.area < 1
attack = captum_lipschitz.create_attack("advlib:DDN", norm="l2", bounds=(0, 1))
print("advlib:DDN found", int(attack(model, images, labels).found.sum()), "of", len(labels))
