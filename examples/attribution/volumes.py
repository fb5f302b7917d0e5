"""Grey images and volumes: digits, (N, 1, H, W), and cubes cut out of a brain, (N, 1, D, H, W).

The digits are scikit-learn's. The brain is the MNI152 template, the average of 152 people's magnetic resonance images,
which ships with nilearn; intensities lie in [0, 1], and a voxel is a millimetre wide. A small 3-D network tells whether a
cube of 16 mm lies in the cerebellum or in the cerebrum, from its texture alone. The cubes that it is tested on share no
voxel with those that it learnt from, nor with their mirror images (the template is symmetric).

    python -m pip install ".[demo]" nilearn
    python examples/attribution/volumes.py [--save volumes.png]
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_lipschitz import AdaptiveStrength, AdversarialAttribution, HalfHuberReLU, LipschitzRegularizer
from captum_lipschitz.demo.digits import build_network, load_digits
from captum_lipschitz.demo.training import train

PARTS = ("cerebrum", "cerebellum")
CUBE, BLOCK = 16, 24  # mm; a cube lies within one block, and a block is for training or for testing
OUTSIDE = 0.1  # intensities below are air or fluid


@dataclass(frozen=True)
class Findings:
    """What the example found out about images or volumes.

    Attributes:
        accuracy: share of the test images classified rightly.
        images: those explained, (N, 1, ...).
        changes: of the same shape.
        targets: the class that each was changed toward, (N,).
        delta: achieved size minus rho, (N,).
        before, after: probability of the target, (N,).
    """

    accuracy: float
    images: Tensor
    changes: Tensor
    targets: Tensor
    delta: Tensor
    before: Tensor
    after: Tensor


def explain(
    model: nn.Module, images: Tensor, targets: Tensor, *, rho: float, accuracy: float, mask: Tensor | None = None
) -> Findings:
    """The same call for two and for three dimensions."""
    changes, delta = AdversarialAttribution(model).attribute(
        images, target=targets, rho=rho, bounds=(0, 1), mask=mask, return_convergence_delta=True
    )
    with torch.no_grad():
        before, after = (
            model(x).softmax(1).gather(1, targets[:, None])[:, 0] for x in (images, images + changes)
        )
    return Findings(accuracy, images, changes, targets, delta, before, after)


def explain_digits(*, epochs: int) -> Findings:
    """Toward the class that comes second."""
    digits = load_digits()
    model = build_network(HalfHuberReLU, seed=0)
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=0.1, initial=100.0))
    train(
        model, digits.train_images, digits.train_labels,
        epochs=epochs, seed=0, regularizer=regularizer, show_progress=False,
    )  # fmt: skip
    with torch.no_grad():
        logits = model(digits.test_images)
    accuracy = (logits.argmax(1) == digits.test_labels).double().mean().item()
    runners_up = logits.topk(2).indices[:8, 1]
    return explain(model, digits.test_images[:8], runners_up, rho=0.15, accuracy=accuracy)


def load_cubes(*, per_part: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Cubes, (N, 1, 16, 16, 16), with the part that each comes from, (N,): to train on, and to test on."""
    try:
        datasets = importlib.import_module("nilearn.datasets")
    except ImportError as error:
        raise SystemExit("This example reads a brain that ships with nilearn: python -m pip install nilearn") from error
    template = datasets.load_mni152_template(resolution=1)
    brain = torch.as_tensor(template.get_fdata(), dtype=torch.float32).clamp(0, 1)
    centres = (brain > 3 * OUTSIDE).nonzero()
    # Millimetres right of the middle, in front of and above the anterior commissure. Left is folded onto right.
    right, front, up = (centres + torch.as_tensor(template.affine[:3, 3]).round().long()).unbind(1)
    right = right.abs()
    cerebellum = (front > -85) & (front < -44) & (up > -50) & (up < -24) & (right < 46)
    parts = torch.where(cerebellum, 1, torch.where(up > 8, 0, -1))

    place = torch.stack([right, front + 10 * BLOCK, up + 10 * BLOCK], dim=1)
    block, within = place // BLOCK, place % BLOCK
    inside = ((within >= CUBE // 2) & (within <= BLOCK - CUBE // 2)).all(1)
    for_testing = block.sum(1) % 2 == 1
    generator = torch.Generator().manual_seed(0)

    def cut(half: Tensor) -> tuple[Tensor, Tensor]:
        cubes, labels = [], []
        for part in range(len(PARTS)):
            rows = (half & inside & (parts == part)).nonzero()[:, 0]
            for row in rows[torch.randperm(len(rows), generator=generator)[:per_part]].tolist():
                i, j, k = (centres[row] - CUBE // 2).tolist()
                cubes.append(brain[i : i + CUBE, j : j + CUBE, k : k + CUBE])
                labels.append(part)
        return torch.stack(cubes).unsqueeze(1), torch.tensor(labels)

    return cut(~for_testing), cut(for_testing)


def build_3d_network() -> nn.Module:
    """Three 3-D convolutions and an average over the cube."""

    def stage(channels: int, width: int) -> list[nn.Module]:
        return [nn.Conv3d(channels, width, 3, padding=1), nn.BatchNorm3d(width), HalfHuberReLU()]

    return nn.Sequential(
        *stage(1, 8), nn.AvgPool3d(2), *stage(8, 16), nn.AvgPool3d(2), *stage(16, 32),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, len(PARTS)),
    )  # fmt: skip


def explain_brain(*, epochs: int, per_part: int) -> Findings:
    """Cubes of the cerebrum, toward the cerebellum; only tissue may change, not the fluid around it."""
    torch.manual_seed(0)
    (cubes, parts), (test_cubes, test_parts) = load_cubes(per_part=per_part)
    model = build_3d_network()
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=0.2, initial=100.0))
    train(model, cubes, parts, epochs=epochs, seed=0, regularizer=regularizer, show_progress=False)
    with torch.no_grad():
        guesses = model(test_cubes).argmax(1)
    accuracy = (guesses == test_parts).double().mean().item()
    chosen = test_cubes[(guesses == 0) & (test_parts == 0)][:16]
    cerebellum = torch.full((len(chosen),), PARTS.index("cerebellum"))
    return explain(model, chosen, cerebellum, rho=0.1, accuracy=accuracy, mask=chosen > OUTSIDE)


def wavelength(cubes: Tensor) -> Tensor:
    """Typical width of the pattern in each cube, in mm: one over the mean frequency, weighted by power, (N,)."""
    centred = cubes - cubes.mean((2, 3, 4), keepdim=True)
    power = torch.fft.fftn(centred, dim=(2, 3, 4)).abs().square()[:, 0]
    steps = torch.fft.fftfreq(cubes.shape[-1])
    frequency = (steps[:, None, None] ** 2 + steps[:, None] ** 2 + steps**2).sqrt()
    return power.sum((1, 2, 3)) / (power * frequency).sum((1, 2, 3))


def show_digit(found: Findings) -> None:
    """The first digit in characters: ink (#), what would be added (+) and taken away (-)."""
    image, change = found.images[0, 0, ::2], found.changes[0, 0, ::2]
    for row, moves in zip(image, change, strict=True):
        signs = ("+" if m > 0.15 else "-" if m < -0.15 else "#" if p > 0.5 else "." for p, m in zip(row, moves, strict=True))
        print("  " + "".join(signs))
    print(
        f"  probability of {int(found.targets[0])}: {found.before[0]:.2f}, after the change {found.after[0]:.2f}"
    )


def show_brain(found: Findings) -> None:
    """How much brighter or darker each kind of tissue would have to be, and how fine the pattern is."""
    for name, low, high in (("dark (fluid, grey matter)", OUTSIDE, 0.6), ("medium", 0.6, 0.75), ("bright (white matter)", 0.75, 1.1)):
        tissue = (found.images > low) & (found.images <= high)
        share, change = tissue.double().mean(), found.changes[tissue].mean()
        print(f"  {name:<28}{share:>5.0%} of the voxels, {'brighter' if change > 0 else 'darker'} by {change.abs():.3f}")
    widths = (wavelength(x).median() for x in (found.images, found.changes))
    print("  width of the pattern: {:.1f} mm in the cubes, {:.1f} mm in the change".format(*widths))
    print(f"  probability of cerebellum: {found.before.median():.2f}, after the change {found.after.median():.2f}")


def save(path: str, digits: Findings, brain: Findings, columns: int = 6) -> None:
    """Image, change and sum, one column each; of cubes, the slice in the middle."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(6, columns, figsize=(1.7 * columns, 10), layout="constrained")
    for top, found in ((0, digits), (3, brain)):
        images, changes = (
            x[:columns, 0] if x.dim() == 4 else x[:columns, 0, CUBE // 2] for x in (found.images, found.changes)
        )
        limit = changes.abs().max()
        for column in range(columns):
            axes[top, column].imshow(images[column], cmap="gray", vmin=0, vmax=1)
            axes[top + 1, column].imshow(changes[column], cmap="seismic", vmin=-limit, vmax=limit)
            axes[top + 2, column].imshow((images + changes)[column], cmap="gray", vmin=0, vmax=1)
            goal = str(int(found.targets[column])) if top == 0 else PARTS[int(found.targets[column])]
            axes[top, column].set_title(f"toward {goal}", fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(path)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, Findings]:
    """Train, explain, print; the findings for "digits" and for "brain"."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6, help="of training")
    parser.add_argument("--cubes", type=int, default=500, help="of each part of the brain, to train on")
    parser.add_argument("--save", metavar="PNG", help="also draw some images and slices of volumes")
    options = parser.parse_args(arguments)

    digits = explain_digits(epochs=options.epochs)
    print(f"Digits: {digits.accuracy:.1%} of the test images right. Toward the class that comes second:")
    show_digit(digits)
    brain = explain_brain(epochs=options.epochs, per_part=options.cubes)
    print(f"Brain: {brain.accuracy:.1%} of the test cubes right. What would make the cerebrum look like the cerebellum?")
    show_brain(brain)
    if options.save:
        save(options.save, digits, brain)
    return {"digits": digits, "brain": brain}


if __name__ == "__main__":
    main()
