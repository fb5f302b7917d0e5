"""What an audit was asked for, and what each effort does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from captum_lipschitz.errors import InvalidInputError, UnknownNameError
from captum_lipschitz.measure.settings import AraSettings
from captum_lipschitz.report.explanations.methods import TITLES

Effort = Literal["fast", "standard"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an effort does: it trades the closeness of the figures for time.

    Attributes:
        attack: effort of the attack that the area and the similarities are measured with.
        confined: effort of the attacks confined to an explanation's region and to the rest; ``None`` leaves them out,
            and with them what they tell.
        fidelity: settings of ``FidelitySettings`` that differ from their defaults.
        classes: of each image that are explained in the grid, at most: the label, the decision, the likeliest others.
        sizes: of the grid's adversarial changes, in units of ``rho``.
    """

    attack: str
    confined: str | None
    fidelity: Mapping[str, Any]
    classes: int
    sizes: tuple[float, ...]


PLANS: Mapping[str, Plan] = {
    "fast": Plan(
        attack="fast",
        confined=None,
        fidelity={"steps": 8, "infidelity_samples": 16, "sensitivity_samples": 1, "stability_draws": 1},
        classes=2,
        sizes=(0.5, 1.0),
    ),
    "standard": Plan(
        attack="standard",
        confined="fast",
        fidelity={"sensitivity_samples": 2, "stability_draws": 1},
        classes=2,
        sizes=(0.5, 1.0, 2.0),
    ),
}
"""By effort. Most of the time goes into explaining images again and again, so that is what there is least of."""


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Everything that ``captum-lipschitz audit`` takes; the command's options of the same names.

    Attributes:
        model: ``"torchvision:NAME"`` or ``"package.module:callable"``.
        data: a folder of class folders of images, or an ``.npz`` file.
        output: folder for the report and for finished steps; made where absent.
        weights: safetensors, or a state dict saved by torch; ``None`` leaves the model as its callable makes it.
        compare: a second model, on the same images prepared in the same way; ``None`` for none.
        compare_weights: of the second model.
        class_index: JSON that gives each class folder its class; ``None`` numbers the folders in sorted order.
        class_names: a file of names (a JSON list, or one name a line), or the names themselves, class 0 first; empty
            for the folders' names, or ``"class 0"`` and so on.
        limit: number of images, at least 1; ``None`` is all of them.
        methods: names of explanation methods (``report.explanations.methods.TITLES``); empty for all ten.
        effort: ``"fast"`` or ``"standard"``; ``PLANS`` says what each does.
        rho: size of the adversarial explanation, RMSE, positive.
        bounds: the box that adversarial images stay in, (low, high); ``None`` for none, as in the paper.
        images: show the images, and name their files. Otherwise no output holds an image, a change of one from which
            it could be had, the name of a file or a picture of a method whose maps are like the image
            (``unshown.OUTLINING``), and those of earlier runs are removed; the other methods' maps are shown, and may
            hint at shapes.
        seed: of everything that draws, at least 0.
        device: torch device; ``"auto"`` is a GPU where there is one.
        chunk_size: images worked on at once and saved together, at least 1.
        threads: of the CPU, at least 1. Another number may change the last bits of the figures.
        resize: see ``AraSettings``, as for the following.
        crop: ...
        mean: ...
        std: ...
        restart: throw away what an earlier run left in ``output``.

    Raises:
        InvalidInputError: for a value out of its range.
        UnknownNameError: for a method that is not there.
    """

    model: str
    data: Path
    output: Path
    weights: Path | None = None
    compare: str | None = None
    compare_weights: Path | None = None
    class_index: Path | None = None
    class_names: tuple[str, ...] = ()
    limit: int | None = 32
    methods: tuple[str, ...] = ()
    effort: Effort = "standard"
    rho: float = 0.1
    bounds: tuple[float, float] | None = None
    images: bool = True
    seed: int = 0
    device: str = "auto"
    chunk_size: int = 8
    threads: int = 1
    resize: int | None = None
    crop: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        if self.effort not in get_args(Effort):
            raise InvalidInputError(f"effort: expected one of {sorted(get_args(Effort))}, got {self.effort!r}")
        unknown = [name for name in self.methods if name not in TITLES]
        if unknown:
            raise UnknownNameError(f"methods: expected some of {sorted(TITLES)}, got {unknown[0]!r}")
        if not 0 < self.rho < float("inf"):
            raise InvalidInputError(f"rho: expected a positive size, got {self.rho}")
        if not 0 <= self.seed < 2**63:
            raise InvalidInputError(f"seed: expected 0 to 2**63 - 1, got {self.seed}")
        if self.compare is None and self.compare_weights is not None:
            raise InvalidInputError("compare_weights: expected with a model to compare with, got none")
        for which in range(len(self.models())):
            self.measured(which)  # raises for what both have in common

    def models(self) -> tuple[str, ...]:
        """The models' names as given: one or two."""
        return (self.model,) if self.compare is None else (self.model, self.compare)

    def chosen(self) -> tuple[str, ...]:
        """Names of the methods asked for, in the order of tables."""
        return tuple(name for name in TITLES if not self.methods or name in self.methods)

    @property
    def plan(self) -> Plan:
        """What the effort does."""
        return PLANS[self.effort]

    def measured(self, which: int) -> AraSettings:
        """The same as settings of ``captum-lipschitz ara``, for the first model or the second."""
        return AraSettings(
            model=self.models()[which],
            weights=(self.weights, self.compare_weights)[which],
            data=self.data,
            output=self.output,
            class_index=self.class_index,
            limit=self.limit,
            effort=self.plan.attack,
            bounds=self.bounds,
            device=self.device,
            chunk_size=self.chunk_size,
            resize=self.resize,
            crop=self.crop,
            mean=self.mean,
            std=self.std,
            threads=self.threads,
            restart=self.restart,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON's types, for the report; without places where no file is to be named."""
        names = ("models", "effort", "rho", "bounds", "limit", "seed", "chunk_size", "threads", "resize", "crop")
        plain: dict[str, Any] = {name: getattr(self, name) for name in (*names[1:], "mean", "std")}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
        places = {"data": self.data, "weights": self.weights, "compare_weights": self.compare_weights}
        told = {name: str(path) for name, path in places.items() if path is not None and self.images}
        plan = self.plan
        confined = "left out" if plan.confined is None else f"effort {plan.confined}"
        return {
            "models": list(self.models()),
            **told,
            **plain,
            "methods": list(self.chosen()),
            "images_shown": self.images,
            "attack": f"minimum_norm, effort {plan.attack}",
            "confined_attacks": confined,
            "fidelity": dict(plan.fidelity),
            "classes_explained": plan.classes,
            "sizes_shown": [factor * self.rho for factor in plan.sizes],
        }
