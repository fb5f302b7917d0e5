"""Rows of a table: which measurements would have to differ, by how much and in their own units.

Two real tables that ship with scikit-learn. Breast tumours (569 women, 30 measurements of cell nuclei, benign or
malignant): why is this tumour benign, and what is the least that would make it malignant? Diabetes (442 patients, 10
measurements, how far the disease had gone a year later): what would have to change for it to go further, if age and
sex cannot?

    python -m pip install ".[demo]"
    python examples/attribution/tabular.py [--save tabular.png]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from captum.attr import IntegratedGradients
from sklearn.datasets import load_breast_cancer, load_diabetes
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import AdaptiveStrength, HalfHuberReLU, LipschitzRegularizer
from captum_lipschitz.attr import AdversarialAttribution, MinimalAdversarialAttribution
from captum_lipschitz.demo.training import train

SEVERE = 200.0  # progression of the disease, on the table's own scale of 25 to 346
TEST_SHARE = 4  # every fourth row, after shuffling, is kept for testing


@dataclass(frozen=True)
class Table:
    """A table split into rows to train on and rows to test on, values in the features' own units.

    Attributes:
        names: of the features.
        train_rows, test_rows: (N, features).
        train_answers, test_answers: classes or amounts, (N,).
    """

    names: list[str]
    train_rows: Tensor
    train_answers: Tensor
    test_rows: Tensor
    test_answers: Tensor

    @property
    def spread(self) -> Tensor:
        """Each feature's standard deviation, (features,): the unit in which changes are compared."""
        return self.train_rows.std(0)

    @property
    def range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of each feature in the whole table, each (features,): changes stay within."""
        # Test rows count as well, which nothing is learnt from here: bounds must hold the rows that are explained, and
        # stand for what is physically possible, of which the whole table says most.
        rows = torch.cat([self.train_rows, self.test_rows])
        return rows.amin(0), rows.amax(0)

    def movable(self, *fixed: str) -> Tensor:
        """1 for the features that may change, 0 for those whose name holds one of the given words, (features,)."""
        return torch.tensor([float(not any(word in name for word in fixed)) for name in self.names])


@dataclass(frozen=True)
class Findings:
    """What an example found out, for its test.

    Attributes:
        quality: share of test rows classified rightly, or share of the answers' variance that is explained.
        rows: those that were explained, (N, features).
        changes: the explanations, in the features' own units.
        delta: achieved size minus rho, (N,).
        before, after: evidence for the target, (N,).
        integrated: Captum's Integrated Gradients of the same rows.
        smallest: of the tumours, the smallest changes that alter the decision; of the diabetes, those after which it
            goes to 200.
        crossed: whether they do, (N,).
    """

    quality: float
    rows: Tensor
    changes: Tensor
    delta: Tensor
    before: Tensor
    after: Tensor
    integrated: Tensor
    smallest: Tensor
    crossed: Tensor


class Standardise(nn.Module):
    """Inside the model, so that explanations are in the features' own units."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("spread", rows.std(0))

    def forward(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.spread


def load(name: str) -> Table:
    """One of the two tables, shuffled and split."""
    data = load_breast_cancer() if name == "tumours" else load_diabetes(scaled=False)
    rows = torch.as_tensor(data.data, dtype=torch.float32)
    answers = torch.as_tensor(data.target, dtype=torch.long if name == "tumours" else torch.float32)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    held_out = torch.arange(len(rows)) % TEST_SHARE == 0
    test, rest = order[held_out], order[~held_out]
    return Table([str(n) for n in data.feature_names], rows[rest], answers[rest], rows[test], answers[test])


def explain_tumours(table: Table, *, epochs: int = 60, rho: float = 3.0) -> Findings:
    """Toward malignant: what would these benign tumours have to look like?"""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(len(table.names), 32), nn.BatchNorm1d(32), HalfHuberReLU(),
        nn.Linear(32, 32), nn.BatchNorm1d(32), HalfHuberReLU(), nn.Linear(32, 2),
    )  # fmt: skip
    standardise = Standardise(table.train_rows)
    # The penalty is on slopes by input, so it wants inputs that are alike in spread: it gets the standardised ones.
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=0.1, initial=1.0))
    train(
        network, standardise(table.train_rows), table.train_answers,
        epochs=epochs, seed=0, regularizer=regularizer, batch_size=32, show_progress=False,
    )  # fmt: skip
    model = nn.Sequential(standardise, network).eval()
    with torch.no_grad():
        guesses = model(table.test_rows).argmax(1)
    accuracy = (guesses == table.test_answers).double().mean().item()
    rows = table.test_rows[(guesses == 1) & (table.test_answers == 1)][:8]

    # The ten "error" columns say how well a mean was measured, not what the nuclei look like: they stay.
    limits = {"norm": "l2", "scale": table.spread, "mask": table.movable("error"), "bounds": table.range}
    attribution = AdversarialAttribution(model)
    changes, delta = attribution.attribute(rows, target=0, rho=rho, return_convergence_delta=True, **limits)
    gained = attribution.compute_log_odds_change(changes, rows, target=0)
    smallest = MinimalAdversarialAttribution(model).attribute(rows, **limits)
    # Integrated Gradients share out a difference between two rows, so they need one to compare with.
    typical = table.train_rows[table.train_answers == 0].mean(0, keepdim=True)

    def log_odds(inputs: Tensor) -> Tensor:
        logits: Tensor = model(inputs)
        return logits[:, 0] - logits[:, 1]

    integrated = IntegratedGradients(log_odds).attribute(rows, baselines=typical)
    with torch.no_grad():
        before, crossed = log_odds(rows), model(rows + smallest).argmax(1) == 0
    return Findings(accuracy, rows, changes, delta, before, before + gained, integrated, smallest, crossed)


def explain_diabetes(table: Table, *, epochs: int = 150, rho: float = 1.0) -> Findings:
    """Toward a larger output of a regression, which is a scalar for each row: no target, ``objective="regression"``."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(len(table.names), 16), nn.SiLU(), nn.Linear(16, 1), nn.Flatten(0))
    standardise, centre, unit = Standardise(table.train_rows), table.train_answers.mean(), table.train_answers.std()
    descent = torch.optim.AdamW(network.parameters(), lr=0.003, weight_decay=0.3)
    for _ in range(epochs):
        for batch in torch.randperm(len(table.train_rows)).split(32):
            guesses = network(standardise(table.train_rows[batch]))
            descent.zero_grad()
            F.mse_loss(guesses, (table.train_answers[batch] - centre) / unit).backward()
            descent.step()

    def model(rows: Tensor) -> Tensor:
        progression: Tensor = centre + unit * network(standardise(rows))
        return progression

    with torch.no_grad():
        errors = model(table.test_rows) - table.test_answers
    explained = (1 - errors.square().mean() / table.test_answers.var()).item()

    with torch.no_grad():
        rows = table.test_rows[model(table.test_rows) < SEVERE][:8]
    limits = {
        "norm": "l2", "scale": table.spread, "mask": table.movable("age", "sex"), "bounds": table.range,
        "objective": "regression",
    }  # fmt: skip
    attribution = AdversarialAttribution(model)
    changes, delta = attribution.attribute(rows, rho=rho, return_convergence_delta=True, **limits)
    gained = attribution.compute_log_odds_change(changes, rows, objective="regression")  # of the output itself
    smallest = MinimalAdversarialAttribution(model).attribute(rows, threshold=SEVERE, **limits)
    integrated = IntegratedGradients(model).attribute(rows, baselines=table.train_rows.mean(0, keepdim=True))
    with torch.no_grad():
        before, crossed = model(rows), model(rows + smallest) >= SEVERE
    return Findings(explained, rows, changes, delta, before, before + gained, integrated, smallest, crossed)


def show(table: Table, found: Findings, *, row: int = 0, count: int = 6) -> None:
    """The largest changes of one row, beside the smallest that crosses the line, and Integrated Gradients."""
    in_spreads = found.changes[row] / table.spread
    print(f"  {'feature':<22}{'value':>9}{'change':>9}{'in spreads':>12}{'to cross':>10}{'Integrated Gradients':>22}")
    for i in in_spreads.abs().argsort(descending=True)[:count].tolist():
        print(
            f"  {table.names[i]:<22}{found.rows[row, i]:>9.4g}{found.changes[row, i]:>+9.3g}{in_spreads[i]:>+12.2f}"
            f"{found.smallest[row, i]:>+10.3g}{found.integrated[row, i]:>+22.3g}"
        )
    sizes = (x[row].div(table.spread).norm() for x in (found.changes, found.smallest))
    print("  size: {:.2f} spreads; {:.2f} are enough to cross".format(*sizes))


def save(path: str, tables: dict[str, tuple[Table, Findings]]) -> None:
    """Bars of the first row's changes and of Integrated Gradients, each table a row of the picture."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(tables), 2, figsize=(12, 9), width_ratios=[1, 1], layout="constrained")
    for (name, (table, found)), (left, right) in zip(tables.items(), axes, strict=True):
        left.barh(table.names, found.changes[0] / table.spread, color="tab:red")
        left.set(title=f"{name}: change", xlabel="standard deviations of the feature")
        right.barh(table.names, found.integrated[0], color="tab:blue")
        right.set(title=f"{name}: Integrated Gradients", xlabel="share of the output")
        for axis in (left, right):
            axis.invert_yaxis()
            axis.tick_params(axis="y", labelsize=7)
    figure.savefig(path)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, Findings]:
    """Train, explain, print; the findings by table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60, help="of training")
    parser.add_argument("--save", metavar="PNG", help="also draw the first row of each table")
    options = parser.parse_args(arguments)

    tumours, diabetes = load("tumours"), load("diabetes")
    malignant = explain_tumours(tumours, epochs=options.epochs)
    print(f"Tumours: {malignant.quality:.1%} of {len(tumours.test_rows)} test rows right.")
    print("What a benign tumour would have to measure to look malignant to the network (to cross: to be called so):")
    show(tumours, malignant)
    print(f"  log-odds of malignant: {malignant.before[0]:+.1f}, after the change {malignant.after[0]:+.1f}\n")

    further = explain_diabetes(diabetes, epochs=2 * options.epochs)
    print(f"Diabetes: {further.quality:.0%} of the variance of {len(diabetes.test_rows)} test rows explained.")
    print(f"For this patient's disease to go further, at the same age and sex (to cross: {SEVERE:.0f}):")
    show(diabetes, further)
    print(f"  progression: {further.before[0]:.0f}, after the change {further.after[0]:.0f}")
    if options.save:
        save(options.save, {"tumours": (tumours, malignant), "diabetes": (diabetes, further)})
    return {"tumours": malignant, "diabetes": further}


if __name__ == "__main__":
    main()
