"""Make a trained classifier robust in a few epochs: see README.md beside this file.

torchrun --standalone --nproc-per-node 8 examples/imagenet/finetune.py \
    --config examples/imagenet/configs/finetune.yaml --weights torchvision --data imagenet --output runs/tuned --resume
"""

from __future__ import annotations

import sys

from imagenet_training.options import parse_training
from imagenet_training.run import start

if __name__ == "__main__":
    sys.exit(start(*parse_training(__doc__, weights=True)))
