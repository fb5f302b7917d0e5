"""Grey images and volumes: digits, (N, 1, H, W), and cubes cut out of a brain, (N, 1, D, H, W).

The digits are scikit-learn's. The brain is the MNI152 template, the average of 152 people's magnetic resonance
images, which ships with nilearn, as does the map of its white matter; intensities lie in [0, 1], a voxel is a
millimetre wide. A small 3-D network sees a cube of 9 mm and tells whether the voxel in its middle is white matter. So
the right explanation is known: the change ought to be in the middle. Test cubes come from other parts of the brain
than those learnt from.

    python -m pip install ".[demo]" nilearn
    python examples/attribution/volumes.py [--save volumes.png]
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_lipschitz import AdaptiveStrength, AdversarialAttribution, HalfHuberReLU, LipschitzRegularizer
from captum_lipschitz.attr.visualization import visualize
from captum_lipschitz.demo.digits import build_network, load_digits
from captum_lipschitz.demo.training import train

TISSUES = ("other tissue", "white matter")
CUBE, BLOCK = 9, 24  # mm; a cube lies within one block, and a block is for training or for testing
OUTSIDE = 0.1  # intensities below are air
SURE = 0.75  # share of white matter, or of other tissue, in a voxel that counts as such
NEAR = 2  # mm from the middle
INK, FAINT = 0.5, 0.15  # what show_digit draws


@dataclass(frozen=True)
class Findings:
    """What the example found out about images or volumes.

    Attributes:
        accuracy: share of the test images classified rightly.
        images: those explained, (N, 1, ...).
        changes: of the same shape.
        targets: the class that each was changed toward, (N,).
        delta: achieved size minus rho, (N,).
        gained: what the changes add to the target's log-odds, in nats, (N,).
    """

    accuracy: float
    images: Tensor
    changes: Tensor
    targets: Tensor
    delta: Tensor
    gained: Tensor


def explain(
    model: nn.Module, images: Tensor, targets: Tensor, *, rho: float, accuracy: float, mask: Tensor | None = None
) -> Findings:
    """The same call for two and for three dimensions."""
    attribution = AdversarialAttribution(model)
    changes, delta = attribution.attribute(
        images, target=targets, rho=rho, bounds=(0, 1), mask=mask, return_convergence_delta=True
    )
    gained = attribution.compute_log_odds_change(changes, images, target=targets)
    return Findings(accuracy, images, changes, targets, delta, gained)


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


def load_cubes(*, per_tissue: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Cubes, (N, 1, 9, 9, 9), with the tissue in their middle, (N,): to train on, and to test on."""
    try:
        datasets = importlib.import_module("nilearn.datasets")
    except ImportError as error:
        raise SystemExit("This example reads a brain that ships with nilearn: python -m pip install nilearn") from error
    brain, white = (
        torch.as_tensor(load(resolution=1).get_fdata(), dtype=torch.float32).clamp(0, 1)
        for load in (datasets.load_mni152_template, datasets.load_mni152_wm_template)
    )
    middles = ((brain > OUTSIDE) & ((white < 1 - SURE) | (white > SURE))).nonzero()
    # The template's halves are mirror images: left is folded onto right, so that both are in the same block.
    folded = middles.clone()
    folded[:, 0] = (middles[:, 0] - brain.shape[0] // 2).abs()
    block, within = folded // BLOCK, folded % BLOCK
    inside = ((within >= CUBE // 2) & (within < BLOCK - CUBE // 2)).all(1)
    for_testing = block.sum(1) % 2 == 1
    tissues = (white[tuple(middles.T)] > SURE).long()
    generator = torch.Generator().manual_seed(0)

    def cut(half: Tensor) -> tuple[Tensor, Tensor]:
        rows = []
        for tissue in range(len(TISSUES)):
            found = (half & inside & (tissues == tissue)).nonzero()[:, 0]
            rows.append(found[torch.randperm(len(found), generator=generator)[:per_tissue]])
        chosen = torch.cat(rows)
        corners = (middles[chosen] - CUBE // 2).tolist()
        cubes = [brain[i : i + CUBE, j : j + CUBE, k : k + CUBE] for i, j, k in corners]
        return torch.stack(cubes).unsqueeze(1), tissues[chosen]

    return cut(~for_testing), cut(for_testing)


def build_3d_network() -> nn.Module:
    """Three 3-D convolutions, from 9 voxels along each edge to 3, and a linear layer that knows where each is."""

    def stage(channels: int, width: int) -> list[nn.Module]:
        # Smooth and never flat: a ReLU, half-Huber or not, is off everywhere in some cubes of plain white matter,
        # whose explanation is then zero, with a convergence delta of minus rho.
        return [nn.Conv3d(channels, width, 3), nn.BatchNorm3d(width), nn.SiLU()]

    return nn.Sequential(*stage(1, 8), *stage(8, 16), *stage(16, 16), nn.Flatten(), nn.Linear(27 * 16, len(TISSUES)))


def explain_brain(*, epochs: int, per_tissue: int) -> Findings:
    """White matter, toward other tissue; only brain may change, not the air around it."""
    torch.manual_seed(0)
    (cubes, tissues), (test_cubes, test_tissues) = load_cubes(per_tissue=per_tissue)
    model = build_3d_network()
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=0.2, initial=10.0))
    train(model, cubes, tissues, epochs=epochs, seed=0, regularizer=regularizer, show_progress=False)
    with torch.no_grad():
        guesses = model(test_cubes).argmax(1)
    accuracy = (guesses == test_tissues).double().mean().item()
    chosen = test_cubes[(guesses == 1) & (test_tissues == 1)][:64]
    other = torch.full((len(chosen),), TISSUES.index("other tissue"))
    return explain(model, chosen, other, rho=0.1, accuracy=accuracy, mask=chosen > OUTSIDE)


def is_near() -> Tensor:
    """Which voxels of a cube lie within ``NEAR`` mm of its middle, (9, 9, 9)."""
    along = torch.arange(CUBE) - CUBE // 2
    return (along[:, None, None] ** 2 + along[:, None] ** 2 + along**2) <= NEAR**2


def show_digit(found: Findings) -> None:
    """The first digit in characters: ink (#), what would be added (+) and taken away (-)."""
    image, change = found.images[0, 0, ::2], found.changes[0, 0, ::2]
    signs = torch.where(image > INK, ord("#"), ord("."))
    signs = torch.where(change > FAINT, ord("+"), torch.where(change < -FAINT, ord("-"), signs))
    print("\n".join("  " + "".join(map(chr, row)) for row in signs.tolist()))
    print(f"  log-odds of {int(found.targets[0])}: {found.gained[0]:+.1f}")


def show_brain(found: Findings) -> None:
    """Where the change is, and whether it makes the middle brighter or darker."""
    near, squares = is_near(), found.changes.square()
    share = squares[..., near].sum() / squares.sum()
    print(
        f"  within {NEAR} mm of the middle: {share:.0%} of the squared change, {near.double().mean():.0%} of the voxels"
    )
    before, change = found.images[..., near].mean(), found.changes[..., near].mean()
    way = "lower" if change < 0 else "higher"
    print(f"  there the intensity, {before:.2f}, would have to be {way} by {change.abs():.2f}")
    print(f"  log-odds of other tissue: {found.gained.median():+.1f}")


def save(path: str, digits: Findings, brain: Findings, rows: int = 4) -> None:
    """Some digits; and, beside it under the name ...-brain, the slice in the middle of some cubes."""
    visualize(digits.changes[:rows], digits.images[:rows], classes=digits.targets[:rows], save=path)
    changes, images = (x[:rows, :, CUBE // 2] for x in (brain.changes, brain.images))
    beside = Path(path).with_stem(f"{Path(path).stem}-brain")
    visualize(changes, images, classes=brain.targets[:rows], class_names=TISSUES, save=beside)


def main(arguments: list[str] | None = None) -> dict[str, Findings]:
    """Train, explain, print; the findings for "digits" and for "brain"."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6, help="of training")
    parser.add_argument("--cubes", type=int, default=2000, help="of each tissue, to train on")
    parser.add_argument("--save", metavar="PNG", help="also draw some images, and beside them slices of volumes")
    options = parser.parse_args(arguments)

    digits = explain_digits(epochs=options.epochs)
    print(f"Digits: {digits.accuracy:.1%} of the test images right. Toward the class that comes second:")
    show_digit(digits)
    brain = explain_brain(epochs=options.epochs, per_tissue=options.cubes)
    print(f"Brain: {brain.accuracy:.1%} of the test cubes right. What would make white matter look like other tissue?")
    show_brain(brain)
    if options.save:
        save(options.save, digits, brain)
    return {"digits": digits, "brain": brain}


if __name__ == "__main__":
    main()
