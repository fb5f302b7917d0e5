"""Train a classifier of torchvision's on a folder of images, plainly or robustly: see README.md beside this file.

torchrun --standalone --nproc-per-node 8 examples/imagenet/train.py \
    --config examples/imagenet/configs/resnet50_robust.yaml --data imagenet --output runs/robust --resume
"""

from __future__ import annotations

import sys

from imagenet_training.options import parse_training
from imagenet_training.run import start

if __name__ == "__main__":
    sys.exit(start(*parse_training(__doc__)))
