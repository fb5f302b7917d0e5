"""A Hugging Face model: a forward function that returns the logits is all that it takes.

Models of transformers return a ``ModelOutput``, which holds the logits among other things; attributions follow one
tensor. Here it is a vision transformer that is built from a configuration (nothing is fetched from a hub) and trained
for half a minute on scikit-learn's digits, images (N, 1, 8, 8). A model that you loaded with ``from_pretrained`` is
explained in the same way.

    python -m pip install ".[demo]" transformers
    python examples/attribution/hugging_face.py [--save hugging_face.png]
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from captum_lipschitz import AdversarialAttribution
from captum_lipschitz.attr.visualization import visualize
from captum_lipschitz.demo.training import train
from captum_lipschitz.errors import ModelOutputError

TEST_SHARE = 4


@dataclass(frozen=True)
class Findings:
    """What the example found out.

    Attributes:
        accuracy: share of the test images classified rightly.
        images: those explained, (N, 1, 8, 8).
        changes: toward the class that comes second, (N, 1, 8, 8).
        delta: achieved size minus rho, (N,).
        gained: what they add to that class's log-odds, in nats, (N,).
        targets: that class, (N,).
        model: what was explained, from images to logits.
        refusal: what passing the model itself is answered with.
    """

    accuracy: float
    images: Tensor
    changes: Tensor
    delta: Tensor
    gained: Tensor
    targets: Tensor
    model: Callable[[Tensor], Tensor]
    refusal: str


class Logits(nn.Module):
    """The model's logits alone.

    A function, ``lambda images: model(pixel_values=images).logits``, is enough for an attribution. As a module it can
    also be trained by anybody's loop, and its mode and buffers are looked after.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def build_model() -> Any:
    """A vision transformer of two layers with random weights."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise SystemExit("This example explains a model of transformers: python -m pip install transformers") from error
    configuration = transformers.ViTConfig(
        image_size=8, patch_size=2, num_channels=1, num_labels=10,
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
    )  # fmt: skip
    return transformers.ViTForImageClassification(configuration)


def explain(*, epochs: int, rho: float) -> Findings:
    """Train, then move each of some test images toward the class that comes second."""
    torch.manual_seed(0)
    data = load_digits()
    images = torch.as_tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.as_tensor(data.target)
    held_out = torch.arange(len(images)) % TEST_SHARE == 0
    model = build_model()
    train(
        Logits(model), images[~held_out], labels[~held_out], epochs=epochs, seed=0,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.003), show_progress=False,
    )  # fmt: skip

    def forward_func(pixels: Tensor) -> Tensor:
        logits: Tensor = model(pixel_values=pixels).logits
        return logits

    with torch.no_grad():
        logits = forward_func(images[held_out])
    accuracy = (logits.argmax(1) == labels[held_out]).double().mean().item()
    chosen, targets = images[held_out][:8], logits.topk(2).indices[:8, 1]
    attribution = AdversarialAttribution(forward_func)
    changes, delta = attribution.attribute(
        chosen, target=targets, rho=rho, bounds=(0, 1), return_convergence_delta=True
    )
    gained = attribution.compute_log_odds_change(changes, chosen, target=targets)
    try:
        AdversarialAttribution(model).attribute(chosen, target=targets, rho=rho)
        refusal = ""
    except ModelOutputError as error:
        refusal = str(error)
    return Findings(accuracy, chosen, changes, delta, gained, targets, forward_func, refusal)


def main(arguments: list[str] | None = None) -> Findings:
    """Train, explain, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="of training")
    parser.add_argument("--rho", type=float, default=0.15, help="size of the change; pixels lie in [0, 1]")
    parser.add_argument("--save", metavar="PNG", help="also draw the images")
    options = parser.parse_args(arguments)
    found = explain(epochs=options.epochs, rho=options.rho)
    print(f"{found.accuracy:.1%} of the test images right. Each toward the class that comes second:")
    for i in range(4):
        row, column = divmod(int(found.changes[i, 0].abs().argmax()), 8)
        change = found.changes[i, 0, row, column]
        print(
            f"  toward {int(found.targets[i])}: most of all {'ink' if change > 0 else 'no ink'} in row {row + 1}, "
            f"column {column + 1} of 8 ({change:+.2f}); its log-odds change by {found.gained[i]:+.1f}"
        )
    print(f"Passing the model itself is refused:\n  {found.refusal}")
    if options.save:
        visualize(found.changes, found.images, model=found.model, classes=found.targets, save=options.save)
    return found


if __name__ == "__main__":
    main()
