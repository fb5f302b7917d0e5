"""What a full run takes, from one measured speed: GPU hours, wall time, disk, bytes to read per second.

torchrun --standalone --nproc-per-node 8 examples/imagenet/train.py --config CONFIG --synthetic 200000 --stop-after 200 --output speed
python examples/imagenet/cost.py --config CONFIG --images-per-second SPEED_OF_THE_LAST_LINE --gpus-measured 8
"""  # noqa: E501 - a command that is pasted

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from imagenet_training.recipe import read_recipe

from captum_lipschitz.errors import CaptumLipschitzError

_IMAGES = 1_281_167  # of ImageNet's training set


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="recipe")
    parser.add_argument("--images-per-second", type=float, required=True, help="of a run with --synthetic")
    parser.add_argument("--gpus-measured", type=int, default=1, help="that it ran on (default: %(default)s)")
    parser.add_argument("--images", type=int, default=_IMAGES, help="in the training set (default: %(default)s)")
    parser.add_argument("--kib-per-image", type=float, default=110.0, help="of a file (default: %(default)s)")
    parser.add_argument(
        "--efficiency", type=float, default=0.9, help="of many GPUs, share of linear (default: %(default)s)"
    )
    parsed = parser.parse_args()
    try:
        recipe = read_recipe(parsed.config)
    except CaptumLipschitzError as error:
        sys.stderr.write(f"cost.py: {error}\n")
        return 1
    each = parsed.images_per_second / parsed.gpus_measured
    steps = parsed.images // recipe.batch_size * recipe.epochs
    print(f"{recipe.model}: {recipe.epochs} epochs, {steps} steps of {recipe.batch_size} images")
    print(f"data: {parsed.images * parsed.kib_per_image / 2**20:.0f} GiB, read {recipe.epochs} times")
    print(f"{'GPUs':>5} {'hours':>8} {'GPU hours':>10} {'images/s':>9} {'MiB/s read':>11} {'images of each GPU':>19}")
    for gpus in (1, 8, 64):
        speed = each * gpus * (1.0 if gpus <= parsed.gpus_measured else parsed.efficiency)
        hours = steps * recipe.batch_size / speed / 3600
        read = speed * parsed.kib_per_image / 1024
        print(
            f"{gpus:>5} {hours:>8.1f} {hours * gpus:>10.1f} {speed:>9.0f} {read:>11.0f} {recipe.batch_size / gpus:>19g}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
