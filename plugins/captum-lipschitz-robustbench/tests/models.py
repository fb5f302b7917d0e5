"""Models in the zoo's form, small; and what is known of them."""

import torch
from robustbench.model_zoo.architectures.utils_architectures import normalize_model
from robustbench.model_zoo.architectures.wide_resnet import WideResNet
from torch import nn

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def linear(classes=10, side=8, seed=0):
    """A linear classifier behind the zoo's own normalisation."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        core = nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, classes))
    return normalize_model(core, MEAN, STD).eval()


def mid_grey(count=12, side=8, seed=1):
    """Images so far from 0 and 1 that the box does not matter."""
    generator = torch.Generator().manual_seed(seed)
    return 0.35 + 0.3 * torch.rand(count, 3, side, side, generator=generator)


def exact_distances(model, images, labels, threat_model):
    """Of a linear model: the nearest boundary's distance, 0 where the label is not the decision; (N,)."""
    weight = model.model[1].weight.detach().double()
    weight = (weight.unflatten(1, (3, -1)) / torch.tensor(STD).double()[:, None]).flatten(1)
    with torch.no_grad():
        logits = model(images).double()
    dual = 2 if threat_model == "L2" else 1
    distances = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        gaps = (row[label] - row) / (weight[label] - weight).norm(p=dual, dim=1)
        gaps[label] = float("inf")
        distances.append(gaps.min().clamp(min=0))
    return torch.stack(distances)


def wide_resnet(seed=0):
    """The zoo's WideResNet, the smallest there is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return WideResNet(depth=10, widen_factor=1).eval()
