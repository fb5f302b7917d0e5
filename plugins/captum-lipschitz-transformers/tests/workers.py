"""What one of two processes does: the real Trainer, and Accelerate, with DDP on gloo, case after case."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from models import SEED, Images, Noted, adaptive, arguments, flat_gradient, flat_parameters, regularizer, resnet, vit
from torch.nn import functional as F
from torch.utils.data import DataLoader

from captum_lipschitz import MinimumNormAttack
from captum_lipschitz.training import RegularizedModule
from captum_lipschitz_transformers import AraCallback, LipschitzTrainer, LogitsNetwork

PROCESSES = 2


def attack():
    return MinimumNormAttack(effort="fast", bounds=(0, 1))


class NotedTrainer(LipschitzTrainer):
    """Notes which images this process trains on."""

    def training_step(self, model, inputs, *args, **settings):
        self.__dict__.setdefault("batches", []).append((inputs["pixel_values"].clone(), inputs["labels"].clone()))
        return super().training_step(model, inputs, *args, **settings)


def trained(**settings):
    noted, model = Noted(), vit()
    given = {"train_dataset": Images(32, decided_by=vit()), "callbacks": [noted], "lipschitz": regularizer(adaptive())}
    trainer = NotedTrainer(model, arguments(**settings), **given, lipschitz_radius_every=1)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return {
        "gradients": noted.gradients,
        "batches": trainer.batches,
        "parameters": flat_parameters(model),
        "state": model.state_dict(),
        "rows": rows,
    }


def resumed(folder):
    def run(name, seed, **settings):
        model = resnet()
        options = {"output_dir": str(folder / name), "save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2}
        data = {"train_dataset": Images(32), "lipschitz": regularizer(adaptive(), seed=seed)}
        LipschitzTrainer(model, arguments(**options), **data).train(**settings)
        return flat_parameters(model)

    return {
        "whole": run("whole", SEED),
        "again": run("again", SEED + 1, resume_from_checkpoint=str(folder / "whole" / "checkpoint-2")),
        "files": sorted(path.name for path in (folder / "whole" / "checkpoint-2").glob("lipschitz*")),
    }


def area():
    callback = AraCallback(max_images=5, attack=attack())
    data = Images(8, seed=9, decided_by=vit())
    trainer = LipschitzTrainer(vit(), arguments(), eval_dataset=data, callbacks=[callback], lipschitz=regularizer())
    return {"metrics": trainer.evaluate(), "distances": callback.result.distances}


def accelerated(*, module):
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True)
    one = regularizer(adaptive(), seed=SEED + accelerator.process_index)
    model = vit()
    model.set_attn_implementation("eager")
    network = LogitsNetwork(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    given = RegularizedModule(network, one) if module else network
    wrapped, optimizer, loader = accelerator.prepare(given, optimizer, DataLoader(Images(16), batch_size=4))
    gradients, batches = [], []
    for batch in loader:
        images, labels = batch["pixel_values"], batch["labels"]
        batches.append((images.detach().clone(), labels))
        if module:
            logits, penalty = wrapped(images, labels)
            loss = one.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss
        else:
            logits = wrapped(images.requires_grad_())
            loss = one(logits, images, labels, task_loss=F.cross_entropy(logits, labels)).loss
        accelerator.backward(loss)
        gradients.append(flat_gradient(model))
        optimizer.step()
        optimizer.zero_grad()
    return {"gradients": gradients, "batches": batches, "parameters": flat_parameters(model)}


def refused():
    try:
        LipschitzTrainer(vit(), arguments(ddp_static_graph=True), train_dataset=Images(), lipschitz=regularizer())
    except Exception as error:  # noqa: BLE001 - what it says is looked at
        return f"{type(error).__name__}: {error}"
    return "nothing"


CASES = {
    "ddp": lambda _: trained(),
    "unused found": lambda _: trained(ddp_find_unused_parameters=True),
    "unused not looked for": lambda _: trained(ddp_find_unused_parameters=False),
    "accumulated": lambda _: trained(per_device_train_batch_size=4, gradient_accumulation_steps=2),
    "not averaged": lambda _: trained(average_tokens_across_devices=False),
    "smoothed": lambda _: trained(label_smoothing_factor=0.1),
    "resumed": resumed,
    "area": lambda _: area(),
    "static graph": lambda _: refused(),
    "accelerate, explicit": lambda _: accelerated(module=False),
    "accelerate, module": lambda _: accelerated(module=True),
}


def run(rank, port, folder):
    """As torchrun starts a process."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(PROCESSES),
        "WORLD_SIZE": str(PROCESSES),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    os.chdir(folder)
    answers = {name: case(Path(folder)) for name, case in CASES.items()}
    torch.save(answers, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
