"""Train a robust classifier, measure it against a plain one, and look at why it decides as it does."""

import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional as F

from captum_lipschitz import (
    AdaptiveStrength,
    AdversarialAttribution,
    HalfHuberReLU,
    LipschitzRegularizer,
    accuracy_robustness_area,
    compare,
)
from captum_lipschitz.demo.digits import build_network, load_digits

torch.manual_seed(0)
digits = load_digits()
test = (digits.test_images, digits.test_labels)


def train(model: nn.Module, regularizer: LipschitzRegularizer | None = None, epochs: int = 30) -> nn.Module:
    """Train in place; with a regularizer, robustly."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    steps = epochs * -(-len(digits.train_labels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(digits.train_labels)).split(64):
            images, labels = digits.train_images[rows].clone().requires_grad_(), digits.train_labels[rows]
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            if regularizer is not None:  # this is all that robust training adds to a loop
                loss = regularizer(logits, images, labels, task_loss=loss).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


strength = AdaptiveStrength(target_loss=0.1, initial=100.0)
plain = train(build_network(nn.ReLU, seed=0))
robust = train(build_network(HalfHuberReLU, seed=0), LipschitzRegularizer(strength=strength))

areas = {name: accuracy_robustness_area(model, test) for name, model in (("plain", plain), ("robust", robust))}
print(*(f"{name}: {area}" for name, area in areas.items()), compare(areas["robust"], areas["plain"]), sep="\n")

explanation = AdversarialAttribution(robust).attribute(digits.test_images[:4], target=digits.test_labels[:4], rho=0.15)
areas["plain"].plot(areas["robust"].plot(label="robust"), label="plain")
plt.savefig("curves.png")
print("What the robust network would add to four digits:", tuple(explanation.shape), "and curves.png")
