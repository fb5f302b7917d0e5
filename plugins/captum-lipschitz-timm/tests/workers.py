"""What one of two processes does, as timm's loop starts it: DistributedDataParallel on gloo, case after case."""

import os
from pathlib import Path

import torch
from networks import create, data, flat_gradient, flat_parameters
from torch import distributed, nn

from captum_lipschitz import AdaptiveStrength, LipschitzRegularizer
from captum_lipschitz_timm import LipschitzClassificationTask, regularize_task, with_half_huber

PROCESSES = 2
SEED = 5
IMAGES = 4  # of one process's micro-batch


def adaptive():
    return AdaptiveStrength(target_loss=30.0, initial=300.0, gain=0.5, rise=1.0, fall=0.2)


def regularizer(rank, accumulate=1):
    return LipschitzRegularizer(
        strength=adaptive(), generator=torch.Generator().manual_seed(SEED + rank), accumulation_steps=accumulate
    )


def network():
    """Without batch statistics, which each process takes of its own images."""
    return with_half_huber(create("test_convnext"), check=False).model


def share(rank, batch):
    images, labels = data(IMAGES * PROCESSES, seed=20 + batch)
    part = slice(rank * IMAGES, (rank + 1) * IMAGES)
    return images[part], labels[part]


def trained(rank, *, accumulate=1, steps=2, attached=False, **ddp):
    from timm.task import ClassificationTask

    if attached:
        task = ClassificationTask(network(), nn.CrossEntropyLoss(), verbose=False)
        task.prepare_distributed(**ddp)
        regularize_task(task, regularizer(rank, accumulate))
    else:
        one = regularizer(rank, accumulate)
        task = LipschitzClassificationTask(network(), nn.CrossEntropyLoss(), regularizer=one, verbose=False)
        task.prepare_distributed(**ddp)
    module = task.get_trainable_module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    gradients, strengths = [], []
    for step in range(steps):
        for micro in range(accumulate):
            last = micro == accumulate - 1
            with torch.enable_grad() if last else task.no_sync():
                result = task(*share(rank, step * accumulate + micro))
                loss = result["loss"]
                if accumulate > 1:
                    loss /= accumulate
                loss.backward()
            strengths.append(float(result["strength"]))
        gradients.append(flat_gradient(module))
        optimizer.step()
        optimizer.zero_grad()
    return {"gradients": gradients, "strengths": strengths, "parameters": flat_parameters(module), "task": task}


def case(rank, **settings):
    answer = trained(rank, **settings)
    del answer["task"]
    return answer


def resumed(rank):
    """Loads the state of process 0, as a file of timm's has it."""
    task = trained(rank, steps=1)["task"]
    states = [task.get_task_state() if rank == 0 else None]
    distributed.broadcast_object_list(states, src=0)
    task.load_task_state(states[0])
    saved = states[0]["captum_lipschitz"]
    return {
        "generator": task.regularizer.generator.get_state(),
        "saved": saved["generator"],
        "controllers": (task.regularizer.state_dict()["controller"], saved["controller"]),
    }


CASES = {
    "ddp": case,
    "find_unused_parameters": lambda rank: case(rank, find_unused_parameters=True),
    "bucket views": lambda rank: case(rank, gradient_as_bucket_view=True),
    "accumulated": lambda rank: case(rank, accumulate=2),
    "attached after wrapping": lambda rank: case(rank, attached=True),
    "resumed": resumed,
}


def run(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    try:
        answers = {name: run_case(rank) for name, run_case in CASES.items()}
        torch.save(answers, Path(folder) / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()
