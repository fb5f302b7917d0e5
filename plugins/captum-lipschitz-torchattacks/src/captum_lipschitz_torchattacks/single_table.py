"""The classes of torchattacks 3.5.1 that choose the size by themselves, and those that are not wrapped."""

from __future__ import annotations

from captum_lipschitz_torchattacks.entry import Entry, Setting

_EUCLIDEAN = ("rmse", "l2")
_REPORTED = ("rmse", "l2", "linf")
_ELASTIC: dict[str, Setting] = {
    "kappa": 0.0,
    "lr": 0.01,
    "binary_search_steps": 9,
    "max_iterations": 100,
    "initial_const": 0.001,
    "beta": 0.001,
}

SINGLE = (
    Entry(
        "CW",
        "Adam on squared L2 length and margin together",
        "arXiv 1608.04644",
        _EUCLIDEAN,
        settings={"c": 1.0, "kappa": 0.0, "steps": 50, "lr": 0.01},
        alone=True,
        lift_logits=True,
    ),
    Entry(
        "DeepFool",
        "steps onto the nearest linearised boundary",
        "arXiv 1511.04599",
        _EUCLIDEAN,
        settings={"steps": 50, "overshoot": 0.02},
    ),
    Entry(
        "EADEN",
        "elastic net: squared L2 and L1 length with the margin",
        "arXiv 1709.04114",
        _REPORTED,
        settings=_ELASTIC,
        at_least={"max_iterations": 10},
        alone=True,
        float32=True,
        lift_logits=True,
    ),
    Entry(
        "EADL1",
        "elastic net, the answer of smallest L1 length",
        "arXiv 1709.04114",
        _REPORTED,
        settings=_ELASTIC,
        at_least={"max_iterations": 10},
        alone=True,
        float32=True,
        lift_logits=True,
    ),
    Entry(
        "SparseFool",
        "few pixels, by DeepFool's boundary",
        "arXiv 1811.02248",
        _REPORTED,
        settings={"steps": 10, "lam": 3.0, "overshoot": 0.02},
    ),
    Entry(
        "JSMA",
        "few features, by the Jacobian's saliency, toward the likeliest other class",
        "arXiv 1511.07528",
        _REPORTED,
        settings={"theta": 1.0, "gamma": 0.1},
        float32=True,
        toward_runner_up=True,
    ),
    Entry(
        "OnePixel",
        "some pixels, by differential evolution, without gradients",
        "arXiv 1710.08864",
        _REPORTED,
        settings={"pixels": 1, "steps": 10, "popsize": 10, "inf_batch": 128},
        alone=True,
        needs_images=True,
    ),
    Entry(
        "Pixle",
        "pixels moved elsewhere at random, without gradients",
        "arXiv 2202.02236",
        _REPORTED,
        settings={
            "restarts": 20,
            "max_iterations": 10,
            "pixel_mapping": ("random", "similarity", "similarity_random", "distance", "distance_random"),
        },
        alone=True,
        needs_images=True,
        square=True,
        min_side=2,
    ),
)

NOT_APPLICABLE = {
    "VANILA": "returns its images unchanged",
    "MultiAttack": "runs other attacks in turn: captum_lipschitz.EnsembleAttack keeps the smallest answer of several",
    "LGV": "trains copies of the model on a training set first, and attacks those: a transfer attack",
}
