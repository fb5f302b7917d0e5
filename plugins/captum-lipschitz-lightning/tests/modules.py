"""Modules as users write them, which know nothing of the penalty, and what their gradients should be."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 4


def network(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.GELU()]
    net = nn.Sequential(*layers, nn.Linear(16, CLASSES))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)  # so that its slopes matter
    return net


def data(count=32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 6, 6, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def loader(count=32, batch_size=8, seed=1, *, decided=False):
    """Batches of random images; with ``decided`` their labels are those that ``network()`` gives them."""
    images, labels = data(count, seed)
    if decided:
        labels = network()(images).argmax(1)
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size)


class Classifier(pl.LightningModule):
    """Notes the gradients that each optimiser step is made with."""

    def __init__(self, net=None, *, lr=0.05):
        super().__init__()
        self.net = network() if net is None else net
        self.lr = lr
        self.gradients = []

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def on_before_optimizer_step(self, optimizer):
        self.gradients.append(flat_gradient(self))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def flat_gradient(module):
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()]).clone()


def flat_parameters(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def fit(module, train, *callbacks, val=None, ckpt_path=None, **settings):
    settings = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1, **settings}
    trainer = pl.Trainer(
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=any(isinstance(one, pl.callbacks.ModelCheckpoint) for one in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=settings.pop("num_sanity_val_steps", 0),
        **settings,
    )
    trainer.fit(module, train, val, ckpt_path=ckpt_path)
    return trainer


def relative_error(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def explicit_steps(net, regularizers, shares, *, lr=0.05, accumulate=1, dtype=torch.float64, smoothing=0.0):
    """Gradient of each optimiser step of the loop that adds the penalty by itself, in one process; trains ``net``.

    ``shares`` are the processes' batches, and ``regularizers`` theirs; the gradient is the mean over the processes.
    """
    net = net.to(dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    gradients = []
    count = len(shares[0])
    for number in range(count):
        outputs = []
        for regularizer, batches in zip(regularizers, shares, strict=True):
            images, labels = batches[number]
            images = images.to(dtype).requires_grad_()
            logits = net(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            outputs.append((loss, regularizer.penalty(logits, images, labels)))
        mean_loss = torch.stack([loss.detach() for loss, _ in outputs]).mean()
        for regularizer, (loss, penalty) in zip(regularizers, outputs, strict=True):
            combined = regularizer.combine(penalty, task_loss=mean_loss).loss - mean_loss
            ((loss + combined) / accumulate / len(shares)).backward()
        if (number + 1) % accumulate == 0 or number + 1 == count:
            for regularizer in regularizers:
                regularizer.step()
            gradients.append(flat_gradient(net))
            optimizer.step()
            optimizer.zero_grad()
    return gradients
