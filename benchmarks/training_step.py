"""What a training step costs with the Lipschitz penalty, PGD-7 or the Jacobian regularizer, beside a plain one.

    python benchmarks/training_step.py --output steps.json
    python benchmarks/training_step.py --networks resnet18 --modes eager compiled --repeats 15
    python benchmarks/training_step.py --device cuda --networks resnet50 --dtypes bfloat16 --batch 256 --size 224

Prints Markdown: time of a whole step (zero_grad, forward, loss, backward, SGD with momentum), images a second and peak
memory, and their ratios to the plain step of the same run. ``--profile`` prints where the time goes instead. Networks
are torchvision's, untrained, on random images; ReLU is the half-Huber in all methods, plain included.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from profiles import profiles
from records import machine
from steps import METHODS, Method, Setting
from stopwatch import Stopwatch, Timing
from torch import Tensor, nn

from captum_lipschitz import replace_activations

NETWORKS = {"resnet18": 16, "resnet50": 8, "vit_b_16": 4}  # with a batch that suits one CPU thread
_CLASSES = 1000


@dataclass(frozen=True)
class Row:
    """One method in one setting.

    Attributes:
        timing: measured; empty where the method is not possible.
        peak_bytes: of tensors, in a whole cycle.
        impossible: why there is nothing else.
    """

    network: str
    mode: str
    dtype: str
    method: str
    batch: int
    timing: Timing = field(default_factory=Timing)
    peak_bytes: int = 0
    impossible: str = ""


def main() -> None:
    """Measure every method in every setting."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    # Gradients inside a compiled function: torch refuses them otherwise, and older versions always.
    if hasattr(torch._dynamo.config, "trace_autograd_ops"):  # noqa: SLF001
        torch._dynamo.config.trace_autograd_ops = True  # noqa: SLF001
    print(machine(arguments.device), flush=True)
    rows: list[Row] = []
    for network, dtype, mode in itertools.product(arguments.networks, arguments.dtypes, arguments.modes):
        rows += _compared(network, getattr(torch, dtype), mode, arguments)
        # Before the next network is made: its memory must not hold the last one's.
        torch._dynamo.reset()  # noqa: SLF001
        gc.collect()
        if arguments.output:
            arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _compared(network: str, dtype: torch.dtype, mode: str, arguments: argparse.Namespace) -> list[Row]:
    """Measure in one setting and print; with ``--profile`` there is nothing to keep."""
    comparison = Comparison(network, dtype, mode, arguments)
    if arguments.profile:
        print("\n".join(comparison.profiles()), flush=True)
        return []
    rows = comparison.rows()
    print("\n".join(_table(rows, arguments)), flush=True)
    return rows


class Comparison:
    """The methods of one network, precision and mode: they train the same weights in turn, on the same images."""

    def __init__(self, network: str, dtype: torch.dtype, mode: str, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self._names = (network, mode, str(dtype).removeprefix("torch."))
        self._arguments = arguments
        device = torch.device(arguments.device)
        layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
        model = _network(network, arguments.size, arguments.activation).to(device).to(memory_format=layout)
        batch = arguments.batch or (256 if device.type == "cuda" else NETWORKS[network])
        shape = (batch, 3, arguments.size, arguments.size)
        self._images = torch.rand(shape, device=device).to(memory_format=layout)
        self._labels = torch.randint(_CLASSES, (batch,), device=device)
        self._model = model.train()
        self._optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        self._setting = Setting(self._model, dtype, device.type, compiled=mode == "compiled")
        self._stopwatch = Stopwatch(device, block=8 if device.type == "cuda" else 1)

    def rows(self) -> list[Row]:
        """Warm up, then measure time in turns, then memory."""
        methods, impossible = self._warm()
        steps = {name: partial(self._step, method) for name, method in methods.items()}
        others = {name: (steps[name], methods[name].cycle) for name in steps if name != "plain"}
        timings = self._stopwatch.take_turns(steps["plain"], others, rounds=self._arguments.repeats)
        peaks = {name: self._peak(method) for name, method in methods.items()}
        made = {name: Row(*self._names, name, len(self._images), timings[name], peaks[name]) for name in methods}
        for name, reason in impossible.items():
            made[name] = Row(*self._names, name, len(self._images), impossible=reason)
        return [made[name] for name in self._arguments.methods]

    def profiles(self) -> Iterator[str]:
        """Where the time of a plain and of an exact step goes."""
        methods, _ = self._warm(["plain", "exact"])
        yield "\n" + ", ".join(self._names)
        steps = {name: partial(self._step, method) for name, method in methods.items()}
        yield from profiles(steps, cuda=self._images.is_cuda)

    def _warm(self, names: list[str] | None = None) -> tuple[dict[str, Method], dict[str, str]]:
        """Every method after a cycle, in which it compiles; and why others are not possible."""
        methods: dict[str, Method] = {}
        impossible: dict[str, str] = {}
        for name in names or self._arguments.methods:
            try:
                method = METHODS[name](self._setting)
                for _ in range(method.cycle + 1):
                    loss = self._step(method)
            except Exception as error:  # noqa: BLE001 (whatever a compiler or a full device raises is the finding)
                impossible[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                continue
            if not loss.isfinite():
                raise RuntimeError(f"{self._names}, {name}: the loss is {loss.item()}, so that its time tells nothing")
            methods[name] = method
        return methods, impossible

    def _step(self, method: Method) -> Tensor:
        return method.step(self._optimizer, self._images, self._labels)

    def _peak(self, method: Method) -> int:
        self._optimizer.zero_grad()
        gc.collect()
        momenta = [state["momentum_buffer"] for state in self._optimizer.state.values()]
        held = sum(tensor.nbytes for tensor in (*self._model.state_dict().values(), *momenta, self._images))
        return self._stopwatch.peak_bytes(partial(self._step, method), method.cycle, held)


def _network(name: str, size: int, activation: str) -> nn.Module:
    models = import_module("torchvision.models")
    settings = {"image_size": size} if name.startswith("vit") else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=_CLASSES, **settings)
    has_relu = any(isinstance(module, nn.ReLU) for module in model.modules())
    return replace_activations(model) if has_relu and activation == "half-huber" else model


def _table(rows: list[Row], arguments: argparse.Namespace) -> Iterator[str]:
    plain = next(row for row in rows if row.method == "plain")
    layout = ", channels last" if arguments.channels_last else ""
    yield f"\n**{plain.network}**, {plain.mode}, {plain.dtype}, batch {plain.batch}, {arguments.size} px{layout}\n"
    yield "| step | ms | images/s | ratio (quartiles) | ratio in CPU time | peak MB | ratio |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        if row.impossible:
            yield f"| {row.method} | not possible: {row.impossible} | | | | | |"
            continue
        seconds = row.timing.median_seconds
        yield (
            f"| {row.method} | {1000 * seconds:.1f} | {row.batch / seconds:.1f} | {_spread(row.timing.ratios)} "
            f"| {statistics.median(row.timing.processor_ratios):.2f} | {row.peak_bytes / 1e6:.0f} "
            f"| {row.peak_bytes / plain.peak_bytes:.2f} |"
        )


def _spread(ratios: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return f"**{middle:.2f}** ({low:.2f} to {high:.2f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--modes", nargs="+", choices=["eager", "compiled"], help="default: both on CUDA")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], help="default: both on CUDA")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="plain is always one")
    parser.add_argument("--activation", choices=["half-huber", "relu"], default="half-huber")
    parser.add_argument(
        "--batch", type=int, help="default: 256 on CUDA; otherwise 16 for ResNet-18, 8 for ResNet-50, 4 for ViT"
    )
    parser.add_argument("--size", type=int, help="pixels of a side, for ViT a multiple of 16; default: 224 or 64")
    parser.add_argument("--repeats", type=int, help="rounds; default: 20 on CUDA, 5 otherwise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, help="default: on CUDA")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    cuda = arguments.device.startswith("cuda")
    defaults = {
        # On one CPU thread compiling takes minutes a network, and bfloat16 is mostly emulated: only where asked for.
        "modes": ["eager", "compiled"] if cuda else ["eager"],
        "dtypes": ["float32", "bfloat16"] if cuda else ["float32"],
        "size": 224 if cuda else 64,
        "repeats": 20 if cuda else 5,
        "channels_last": cuda,
    }
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    arguments.methods = ["plain", *(name for name in arguments.methods if name != "plain")]
    return arguments


if __name__ == "__main__":
    main()
