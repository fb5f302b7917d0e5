"""Tiny models and data as users of the Trainer have them, and what their gradients should be."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from captum_lipschitz import AdaptiveStrength, LipschitzRegularizer

CLASSES = 4
SIDE = 16
STRENGTH = 3000.0
SEED = 5
LEARNING_RATE = 0.001  # small, so that the steps' own rounding adds little to the gradients'


def vit(seed=0, **settings):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(**sizes, image_size=SIDE, patch_size=4, num_labels=CLASSES, initializer_range=0.3, **settings)
    return ViTForImageClassification(config)


def resnet(seed=0):
    torch.manual_seed(seed)
    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", hidden_act="gelu", num_labels=CLASSES
    )
    return ResNetForImageClassification(config)


class ConvNet(nn.Module):
    """No model of transformers: a module that returns loss and logits; ``more`` is how the Trainer tells the kinds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 5, 4), nn.GELU(), nn.Flatten(), nn.Linear(36, CLASSES))

    def forward(self, images, labels=None):
        logits = self.net(images)
        answer = {"logits": logits}
        if labels is not None:
            answer = {"loss": F.cross_entropy(logits, labels), **answer}
        return answer


class ForgetfulConvNet(ConvNet):
    """Accepts the number of items, and returns the batch's mean all the same, as some models do."""

    def forward(self, images, labels=None, **more):
        return super().forward(images, labels)


class Images(Dataset):
    """Dicts, as the Trainer takes them."""

    def __init__(self, count=8, seed=1, *, name="pixel_values", label="labels", multi=False, decided_by=None):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(count, 3, SIDE, SIDE, generator=generator)
        self.labels = torch.randint(CLASSES, (count,), generator=generator)
        if multi:
            self.labels = torch.randint(2, (count, CLASSES), generator=generator).float()
        if decided_by is not None:
            self.labels = decided_by(self.images).logits.argmax(1)
        self.name, self.label = name, label

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {self.name: self.images[index], self.label: self.labels[index]}

    def batches(self, size=8):
        return list(zip(self.images.split(size), self.labels.split(size), strict=True))


class Noted(TrainerCallback):
    """Notes the gradient that each optimiser step is made with."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append(flat_gradient(model))


def arguments(**settings):
    defaults = {
        "output_dir": "out",
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "num_train_epochs": 1,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "disable_tqdm": True,
        "max_grad_norm": 0.0,
        "optim": "sgd",
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "train_sampling_strategy": "sequential",
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**defaults, **settings})


def adaptive():
    return AdaptiveStrength(target_loss=2.0, initial=STRENGTH, gain=0.5, rise=1.0, fall=0.2)


def regularizer(strength=STRENGTH, seed=SEED, **settings):
    return LipschitzRegularizer(strength=strength, generator=torch.Generator().manual_seed(seed), **settings)


def flat_gradient(module):
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).clone()


def flat_parameters(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def relative_error(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def logits_of(model, images):
    """As users write it in a loop of their own, attention in the form that has a second derivative."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return model(images).logits if hasattr(model, "config") else model(images)["logits"]


def explicit_steps(
    model, regularizers, shares, *, lr=LEARNING_RATE, accumulate=1, dtype=torch.float64, loss=F.cross_entropy
):
    """Gradient of each optimiser step of the loop that adds the penalty by itself, in one process; trains ``model``.

    ``shares`` are the processes' batches, and ``regularizers`` theirs. Each micro-batch weighs by its number of images.
    """
    model = model.to(dtype).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    gradients = []
    count = len(shares[0])
    for start in range(0, count, accumulate):
        numbers = range(start, min(start + accumulate, count))
        total = sum(len(batches[number][0]) for batches in shares for number in numbers)
        for number in numbers:
            outputs = []
            for one, batches in zip(regularizers, shares, strict=True):
                images, labels = batches[number]
                images = images.to(dtype).requires_grad_()
                logits = logits_of(model, images)
                labels = labels.to(dtype) if labels.is_floating_point() else labels
                outputs.append((loss(logits, labels), one.penalty(logits, images, labels), len(images)))
            mean_loss = torch.stack([task_loss.detach() for task_loss, _, _ in outputs]).mean()
            for one, (task_loss, penalty, size) in zip(regularizers, outputs, strict=True):
                combined = one.combine(penalty, task_loss=mean_loss).loss - mean_loss
                ((task_loss + combined) * size / total).backward()
        for one in regularizers:
            one.step()
        gradients.append(flat_gradient(model))
        optimizer.step()
        optimizer.zero_grad()
    return gradients
