"""What one of two processes does: the real Trainer with its DDP strategy on gloo, case after case."""

import os
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from modules import Classifier, data, fit, flat_parameters, loader
from torch.utils.data import DataLoader, Dataset, TensorDataset

from captum_lipschitz import AdaptiveStrength, MinimumNormAttack
from captum_lipschitz_lightning import AraCallback, LipschitzCallback

PROCESSES = 2
SEED = 5
STRENGTH = 100.0
VALIDATION = 13  # an odd number: the trainer's sampler repeats an image


def attack():
    return MinimumNormAttack(effort="fast", bounds=(0, 1))


class Noted(Classifier):
    """Notes the batches as well: the trainer's sampler shuffles."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        return super().training_step(batch, batch_idx)


def adaptive():
    return AdaptiveStrength(target_loss=2.0, initial=STRENGTH, gain=0.5, rise=1.0, fall=0.2)


def callback(seed=SEED, **settings):
    generator = torch.Generator().manual_seed(seed)
    return LipschitzCallback(strength=adaptive(), generator=generator, radius_every=1, **settings)


def trained(strategy="ddp", *, accumulate=1, **settings):
    module, one = Noted(), callback(**settings)
    train = loader(32, decided=True)
    trainer = fit(module, train, one, strategy=strategy, devices=PROCESSES, accumulate_grad_batches=accumulate)
    return {
        "gradients": module.gradients,
        "batches": module.batches,
        "radius": float(trainer.callback_metrics["lipschitz_median_radius"]),
        "parameters": flat_parameters(module),
        "state": module.net.state_dict(),
    }


def resumed(folder):
    def run(epochs, seed, ckpt_path=None):
        module, one = Classifier(), callback(seed)
        saves = pl.callbacks.ModelCheckpoint(folder / f"{epochs}{seed}", save_last=True)
        fit(module, loader(32), one, saves, strategy="ddp", devices=PROCESSES, max_epochs=epochs, ckpt_path=ckpt_path)
        return flat_parameters(module), saves.last_model_path

    whole, _ = run(3, 5)
    _, path = run(2, 5)
    again, _ = run(3, 6, path)
    return {"whole": whole, "again": again}


class Failing(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((3, 6, 6), torch.nan if index == 5 else 0.5), 0


def area(**settings):
    module, one = Classifier(), AraCallback(max_images=None, attack=attack(), **settings)
    val = DataLoader(TensorDataset(*data(VALIDATION, seed=9)), batch_size=4)
    trainer = fit(module, loader(16), one, strategy="ddp", devices=PROCESSES, val=val)
    return {
        "distances": one.result.distances,
        "area": one.result.area,
        "interval": one.result.interval,
        "logged": float(trainer.callback_metrics["ara"]),
        "state": module.net.state_dict(),
    }


def refused(*callbacks, val=None, strategy="ddp"):
    try:
        fit(Classifier(), loader(16), *callbacks, strategy=strategy, devices=PROCESSES, val=val)
    except Exception as error:  # noqa: BLE001 - what it says is looked at
        return f"{type(error).__name__}: {error}"
    return "nothing"


CASES = {
    "ddp": lambda _: trained(),
    "labels named": lambda _: trained(labels=1, model="net"),
    "find_unused_parameters": lambda _: trained("ddp_find_unused_parameters_true"),
    "static_graph": lambda _: trained(DDPStrategy(static_graph=True)),
    "accumulated": lambda _: trained(accumulate=2),
    "resumed": resumed,
    "area": lambda _: area(),
    "area, doubts": lambda _: area(doubts="quick"),
    "area fails": lambda _: refused(AraCallback(attack=attack()), val=DataLoader(Failing(), batch_size=4)),
    "area, sampler": lambda _: refused(
        AraCallback(),
        val=DataLoader(Failing(), batch_size=8, sampler=torch.utils.data.SubsetRandomSampler([1, 2, 3, 4])),
    ),
}


def run(rank, port, folder):
    """As torchrun starts a process."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(PROCESSES),
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    answers = {name: case(Path(folder)) for name, case in CASES.items()}
    torch.save(answers, Path(folder) / f"{rank}.pt")
