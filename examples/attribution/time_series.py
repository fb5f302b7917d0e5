"""Time series: what a wrist's motion sensors would have to measure for the network to see another activity.

BasicMotions (UCR/UEA archive), real recordings that ship with sktime: a smart watch's accelerometer and gyroscope,
three axes each, 10 readings a second for 10 seconds, while the wearer stands, walks, runs or plays badminton; 40
recordings to train on, 40 to test on. Inputs are (N, channels, time).

    python -m pip install . sktime
    python examples/attribution/time_series.py [--save time_series.png]
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_lipschitz import AdaptiveStrength, AdversarialAttribution, HalfHuberReLU, LipschitzRegularizer
from captum_lipschitz.demo.training import train

ACTIVITIES = ("standing", "walking", "running", "badminton")
CHANNELS = tuple(f"{sensor} {axis}" for sensor in ("accelerometer", "gyroscope") for axis in "xyz")
READINGS_PER_SECOND = 10


@dataclass(frozen=True)
class Findings:
    """What the example found out.

    Attributes:
        accuracy: share of the test recordings classified rightly.
        recordings: of walking, (N, 6, 100).
        changes: toward running, every channel free to change, (N, 6, 100).
        turning: the same with the accelerometer held fixed, (N, 6, 100).
        delta: achieved size of ``changes`` minus rho, (N,).
        before, after, after_turning: probability of running, (N,).
    """

    accuracy: float
    recordings: Tensor
    changes: Tensor
    turning: Tensor
    delta: Tensor
    before: Tensor
    after: Tensor
    after_turning: Tensor


def load(split: str) -> tuple[Tensor, Tensor]:
    """Recordings, (40, 6, 100), and the number of the activity, (40,)."""
    try:
        datasets = importlib.import_module("sktime.datasets")
    except ImportError as error:
        raise SystemExit("This example reads recordings that ship with sktime: python -m pip install sktime") from error
    recordings, names = datasets.load_basic_motions(split=split, return_type="numpy3D")
    return torch.as_tensor(recordings, dtype=torch.float32), torch.tensor([ACTIVITIES.index(name) for name in names])


class Scale(nn.Module):
    """Inside the model, so that inputs keep the sensors' units."""

    def __init__(self, spread: Tensor) -> None:
        super().__init__()
        self.spread: Tensor
        self.register_buffer("spread", spread)

    def forward(self, recordings: Tensor) -> Tensor:
        return recordings / self.spread


def build_network(spread: Tensor) -> nn.Module:
    """A small 1-D convolutional network that scales the channels itself."""
    return nn.Sequential(
        Scale(spread),
        nn.Conv1d(6, 24, 7, padding=3), nn.BatchNorm1d(24), HalfHuberReLU(), nn.AvgPool1d(2),
        nn.Conv1d(24, 32, 5, padding=2), nn.BatchNorm1d(32), HalfHuberReLU(), nn.AdaptiveAvgPool1d(1),
        nn.Flatten(), nn.Linear(32, len(ACTIVITIES)),
    )  # fmt: skip


def explain(*, epochs: int, rho: float) -> Findings:
    """Train on the one half, and ask of walking in the other: what would make it running?"""
    torch.manual_seed(0)
    (train_recordings, train_activities), (recordings, activities) = load("train"), load("test")
    spread = train_recordings.std((0, 2)).view(1, 6, 1)
    model = build_network(spread)
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=0.1, initial=1.0))
    train(
        model, train_recordings, train_activities,
        epochs=epochs, seed=0, regularizer=regularizer, batch_size=20, show_progress=False,
    )  # fmt: skip
    with torch.no_grad():
        guesses = model(recordings).argmax(1)
    walking = recordings[(guesses == activities) & (activities == ACTIVITIES.index("walking"))]

    running = ACTIVITIES.index("running")
    attribution = AdversarialAttribution(model)
    changes, delta = attribution.attribute(
        walking, target=running, rho=rho, scale=spread, return_convergence_delta=True
    )
    only_gyroscope = torch.tensor([float(name.startswith("gyroscope")) for name in CHANNELS]).view(6, 1)
    turning = attribution.attribute(walking, target=running, rho=rho, scale=spread, mask=only_gyroscope)
    with torch.no_grad():
        probabilities = [model(x).softmax(1)[:, running] for x in (walking, walking + changes, walking + turning)]
    accuracy = (guesses == activities).double().mean().item()
    return Findings(accuracy, walking, changes, turning, delta, *probabilities)


def loudest_frequency(signals: Tensor) -> Tensor:
    """The frequency, in Hz, that carries most of each signal's power, steady parts apart: (..., time) to (...)."""
    power = torch.fft.rfft(signals, dim=-1).abs()[..., 1:].square()
    frequency: Tensor = (power.argmax(-1) + 1) * READINGS_PER_SECOND / signals.shape[-1]
    return frequency


def show(found: Findings) -> None:
    """Which channels change, by how much, and at what rhythm; medians over the recordings."""
    print("  root mean squares, in each sensor's own units")
    print(f"  {'channel':<18}{'recorded':>10}{'change':>10}{'at':>9}")
    for i, name in enumerate(CHANNELS):
        recorded, change = (x[:, i].square().mean(1).sqrt().median() for x in (found.recordings, found.changes))
        rhythm = loudest_frequency(found.changes[:, i]).median()
        print(f"  {name:<18}{recorded:>10.2f}{change:>10.2f}{rhythm:>6.1f} Hz")


def save(path: str, found: Findings) -> None:
    """The first recording and what would be added to it, channel by channel."""
    from matplotlib import pyplot as plt

    seconds = torch.arange(found.recordings.shape[2]) / READINGS_PER_SECOND
    figure, axes = plt.subplots(3, 2, figsize=(12, 7), sharex=True, layout="constrained")
    for i, (name, axis) in enumerate(zip(CHANNELS, axes.T.flat, strict=True)):
        axis.plot(seconds, found.recordings[0, i], color="0.5", label="walking, as recorded")
        axis.plot(seconds, (found.recordings + found.changes)[0, i], color="tab:red", label="with the change")
        axis.set_title(name)
    axes[0, 0].legend()
    axes[2, 0].set_xlabel("seconds")
    figure.suptitle("What the network would add to this walk for more of running")
    figure.savefig(path)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> Findings:
    """Train, explain, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100, help="of training")
    parser.add_argument("--rho", type=float, default=0.5, help="size of the change, in spreads of each channel")
    parser.add_argument("--save", metavar="PNG", help="also draw the first recording")
    options = parser.parse_args(arguments)
    found = explain(epochs=options.epochs, rho=options.rho)
    print(f"{found.accuracy:.1%} of the test recordings right. What would make walking into running?")
    show(found)
    print(f"  probability of running: {found.before.median():.2f}, after the change {found.after.median():.2f}")
    print(f"  where only the gyroscope may change: {found.after_turning.median():.2f}")
    if options.save:
        save(options.save, found)
    return found


if __name__ == "__main__":
    main()
