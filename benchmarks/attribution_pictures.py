"""The pictures of docs/attribution.md: each attribution class on a real image, beside Captum's own methods.

    python benchmarks/attribution_pictures.py FOLDER --output pictures
    python benchmarks/attribution_pictures.py FOLDER --output docs --without-image

SqueezeNet 1.0 and an ImageNet image; FOLDER holds imagenet/val/<wnid>/*.jpg, imagenet/classes.json (from wnid to number
and name) and imagenet/squeezenet1_0-fp16.safetensors. The image may be used for research but not handed on, so the
pictures in docs/ are drawn without it; the first command draws them whole. Prints what the page says in numbers.

All in double precision: in single precision the path through a network that was trained plainly depends on rounding,
and so on the number of rows that are run together. How much is printed too.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from captum.attr import (
    DeepLift,
    GradientShap,
    IntegratedGradients,
    LayerActivation,
    LayerAttribution,
    LayerGradCam,
    LayerGradientXActivation,
    Occlusion,
    Saliency,
)
from networks import load
from torch import Tensor, nn

from captum_lipschitz import (
    RMSE,
    AdversarialAttribution,
    ContrastiveAdversarialAttribution,
    LayerAdversarialAttribution,
    MinimalAdversarialAttribution,
    visualize,
)

_BLACK_SWAN, _TABBY = "n01860187", 281
_RHO = 0.02  # a fifth of what suits robust networks: this one is not
_SETTINGS: dict[str, Any] = {"rho": _RHO, "bounds": (0, 1)}


@dataclass(frozen=True)
class Scene:
    """What all pictures are of, and how they are drawn.

    Attributes:
        image: (1, 3, H, W).
        true, runner_up, other: classes.
        names: of all classes.
        parts: panels to draw; those of the image itself only where it may be shown.
    """

    model: nn.Module
    image: Tensor
    true: int
    runner_up: int
    other: int
    names: list[str]
    folder: Path
    with_image: bool

    def draw(self, name: str, attributions: object, *, changes: bool, **settings: object) -> None:
        """Save one figure; with ``changes``, attributions are changes of the image."""
        parts = ["heat_map"]
        if changes:
            parts = ["perturbed", "heat_map", "probabilities"] if self.with_image else ["heat_map", "probabilities"]
        visualize(
            attributions,  # type: ignore[arg-type]
            self.image,
            show=["image", *parts] if self.with_image else parts,
            model=(lambda images: self.model(images.to(self.image))) if changes else None,
            class_names=self.names,
            save=self.folder / f"attribution-{name}.png",
            dpi=80,
            **settings,  # type: ignore[arg-type]
        )


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--class-folder", default=_BLACK_SWAN, help="which of the images, by its folder")
    parser.add_argument("--without-image", action="store_true", help="attributions alone")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    scene = _scene(arguments)
    _rounding(scene)
    for picture in (_adversarial, _contrastive, _minimal, _layer, _beside_captum):
        picture(scene)


def _scene(arguments: argparse.Namespace) -> Scene:
    index = json.loads((arguments.data / "imagenet" / "classes.json").read_text(encoding="utf-8"))
    number = sorted(path.name for path in (arguments.data / "imagenet" / "val").iterdir()).index(arguments.class_folder)
    task = load(arguments.data, "squeezenet", first=number, count=1)
    with torch.no_grad():
        logits = task.model(task.images)[0]
    true = int(task.labels[0])
    runner_up = next(int(k) for k in logits.argsort(descending=True) if int(k) != true)
    names = [f"class {k}" for k in range(len(logits))]
    for number, name in index.values():
        names[number] = name.replace("_", " ")
    return Scene(
        task.model.double(),
        task.images.double(),
        true,
        runner_up,
        _TABBY,
        names,
        arguments.output,
        not arguments.without_image,
    )


def _rounding(scene: Scene) -> None:
    """How far a map depends on what it is run beside, in single and in double precision."""
    for dtype in (torch.float32, torch.float64):
        image, method = scene.image.to(dtype), AdversarialAttribution(scene.model.to(dtype))
        alone = method.attribute(image, scene.true, **_SETTINGS)
        beside = method.attribute(image.repeat(3, 1, 1, 1), scene.true, **_SETTINGS)[:1]
        difference = float(RMSE().size(alone - beside) / RMSE().size(alone))
        print(f"the same map alone and in a batch of three, {dtype}: differ by {difference:.1e} of their size")


def _adversarial(scene: Scene) -> None:
    classes = [scene.true, scene.runner_up, scene.other]
    method = AdversarialAttribution(scene.model)
    changes = method.attribute_classes(scene.image, classes, **_SETTINGS)
    scene.draw("adversarial", changes, changes=True, classes=classes)
    away = method.attribute(scene.image, scene.true, direction="away", **_SETTINGS)
    moved = [float(method.compute_log_odds_change(changes[:, k], scene.image, c)) for k, c in enumerate(classes)]
    back = float(method.compute_log_odds_change(away, scene.image, scene.true))
    names = ", ".join(scene.names[c] for c in classes)
    print(f"adversarial, rho {_RHO}: log-odds moved by {', '.join(f'{m:.1f}' for m in moved)} toward {names}")
    print(f"adversarial, rho {_RHO}, away from {scene.names[scene.true]}: {back:.1f}")


def _contrastive(scene: Scene) -> None:
    toward = AdversarialAttribution(scene.model).attribute(scene.image, scene.true, **_SETTINGS)
    method = ContrastiveAdversarialAttribution(scene.model)
    pairs = {f"toward {scene.names[scene.true]}": toward}
    for other in (scene.runner_up, scene.other):
        change = method.attribute(scene.image, scene.true, baseline_target=other, **_SETTINGS)
        pairs[f"vs. {scene.names[other]}"] = change
        moved = method.compute_log_odds_change(change, scene.image, scene.true, baseline_target=other)
        alike = nn.functional.cosine_similarity(change.flatten(), toward.flatten(), dim=0)
        print(f"contrastive, against {scene.names[other]}: log-odds moved by {float(moved):.1f}, cosine {alike:.2f}")
    scene.draw("contrastive", pairs, changes=False)


def _minimal(scene: Scene) -> None:
    method = MinimalAdversarialAttribution(scene.model)
    loses = method.attribute(scene.image, scene.true, bounds=(0, 1))
    reaches = method.attribute(scene.image, scene.other, criterion="reaches", bounds=(0, 1))
    for name, change in (("no longer", loses), ("reaches", reaches)):
        print(f"minimal, {name}: RMSE {float(RMSE().size(change)):.5f}")
    titles = {f"no longer {scene.names[scene.true]}": loses, f"becomes {scene.names[scene.other]}": reaches}
    scene.draw("minimal", titles, changes=True, scale="column")  # their sizes differ a hundredfold


def _layer(scene: Scene) -> None:
    layer = scene.model.get_submodule("features.12")
    activations = LayerActivation(scene.model, layer).attribute(scene.image)
    rho = 0.02 * float(RMSE().size(activations.detach()))
    method = LayerAdversarialAttribution(scene.model, layer)
    change = method.attribute(scene.image, scene.true, rho=rho, bounds=(0, math.inf))  # they come out of a ReLU
    moved = float(method.compute_log_odds_change(change, scene.image, scene.true))
    print(f"layer, rho 2% of the activations' RMS, {rho:.2f}: log-odds moved by {moved:.1f}")
    maps = {
        "Adversarial": change,
        "Gradient x activation": LayerGradientXActivation(scene.model, layer).attribute(scene.image, scene.true),
        "Grad-CAM": LayerGradCam(scene.model, layer).attribute(scene.image, scene.true),
    }
    size = tuple(scene.image.shape[2:])
    summed = {name: LayerAttribution.interpolate(m.sum(1, keepdim=True).detach(), size) for name, m in maps.items()}
    scene.draw("layer", summed, changes=False, scale="column", label="summed over channels")


def _beside_captum(scene: Scene) -> None:
    model, image, target = scene.model, scene.image, scene.true
    black = torch.zeros_like(image)
    methods = {
        "Adversarial": AdversarialAttribution(model).attribute(image, target, **_SETTINGS),
        "Int. Gradients": IntegratedGradients(model).attribute(image, black, target, internal_batch_size=10),
        "Saliency": Saliency(model).attribute(image, target, abs=False),
        "GradientShap": GradientShap(model).attribute(image, black, target=target),
        "DeepLift": DeepLift(model).attribute(image, black, target),
        "Occlusion": Occlusion(model).attribute(image, (3, 32, 32), target=target, strides=(3, 16, 16)),
    }
    scene.draw("methods", {name: m.detach() for name, m in methods.items()}, changes=False, scale="column")


if __name__ == "__main__":
    main()
