"""A tool that knows no component: it trains, attacks and explains with whatever is installed."""

import sys
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from captum_lipschitz.plugin import components, create, get, plugins

SETTINGS = {"lipschitz": {"strength": 1.0}}  # those without which one cannot be made
DIGITS = load_digits()
IMAGES, LABELS = torch.tensor(DIGITS.images[:, None] / 16).float(), torch.tensor(DIGITS.target)
TEST = (IMAGES[-8:], LABELS[-8:])


def train(hook: str | None = None) -> nn.Module:
    """The host's own training loop; all that it does for a hook is to attach and to remove it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Softplus(), nn.Linear(32, 10))
    handle = create("training_hook", hook, **SETTINGS.get(hook, {}))(model) if hook else None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for rows in torch.randperm(1000).repeat(5).split(64):
        optimizer.zero_grad()
        F.cross_entropy(model(IMAGES[rows]), LABELS[rows]).backward()
        optimizer.step()
    if handle is not None:
        handle.remove()
    return model.eval()


def use(kind: str, name: str, model: nn.Module) -> str:
    """What came of one component, found by its kind and name."""
    if kind == "training_hook":
        host = get(kind, name).attaches_to
        return f"not used: it attaches to a {host}" if host else use("attack", "minimum_norm", train(name))
    if kind == "attribution":
        found = create("attribution", name, model, **SETTINGS.get(name, {})).attribute(TEST[0], target=TEST[1])
        return f"size {found.square().mean().sqrt():.3f}"
    result = create("attack", name, **SETTINGS.get(name, {}))(model, *TEST)
    return f"{int(result.found.sum())} of 8 found, median distance {result.distances.median():.3f}"


def main(names: Sequence[str] = ()) -> None:
    """Say which plugins there are, and use the components of these names, or all."""
    print(*plugins(), sep="\n")
    model = train()
    for found in components():
        if found.kind != "metric" and (not names or found.name in names):
            try:
                told = use(found.kind, found.name, model)
            except (TypeError, ValueError, LookupError, ImportError) as error:
                told = f"not used: {error}"  # not for these images, or not without settings
            print(found.kind, found.name, told, sep=": ")


if __name__ == "__main__":
    main(sys.argv[1:])
