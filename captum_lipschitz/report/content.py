"""What an audit found, as plain values: what the runner writes, and the page, the JSON and the CSV files show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from captum_lipschitz.metrics.estimates import Estimate, Verdict

Support = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture within the report.

    Attributes:
        png: its bytes.
        text: what it shows, for those who cannot see it.
        rho: size of the change that it shows, RMSE; ``None`` for maps, which have none.
    """

    png: bytes
    text: str
    rho: float | None = None


@dataclass(frozen=True, kw_only=True)
class ExplainedImage:
    """One image of the explanation grid.

    Attributes:
        number: its place in the data.
        name: of its file, or ``"image 12"``.
        label: name of its class; ``None`` where there is none.
        prediction: name of the class that the model gives it; ``None`` where it decides for no label at all.
        original: the image itself; ``None`` with ``--no-images``.
        explanations: by name of the class explained, then of the method: one picture, or for those of a size one for
            each rho, the smallest first.
    """

    number: int
    name: str
    label: str | None
    prediction: str | None
    original: Picture | None
    explanations: Mapping[str, Mapping[str, tuple[Picture, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of a table: a method's mean, and how it differs from the one that the table compares with.

    Attributes:
        value: the mean over images.
        difference: this one minus the compared one's, on the same images; ``None`` for the compared one itself.
        verdict: of ``difference`` against 0.
        values: one per image, for the JSON and CSV files; NaN where there is none.
    """

    value: Estimate
    difference: Estimate | None = None
    verdict: Verdict | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A column of a table.

    Attributes:
        key: short, for files: ``"rank_correlation"``.
        title: of the column.
        text: one sentence: what it is, with its unit or range.
        better: which way is better for an explanation; ``None`` where neither is.
    """

    key: str
    title: str
    text: str
    better: Literal["higher", "lower"] | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Measures by method.

    Attributes:
        title: of the table.
        text: what it shows, in a sentence or two.
        measures: its columns.
        rows: by name of the method, then by key of the measure; a missing cell is one that cannot be.
        compared_with: the method that ``Cell.difference`` refers to; ``None`` where there is none.
    """

    title: str
    text: str
    measures: tuple[Measure, ...]
    rows: Mapping[str, Mapping[str, Cell]]
    compared_with: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A claim in plain words, and whether the figures support it.

    Attributes:
        claim: as it is made: "Attacks leave Grad-CAM's map as it was while they change the decision."
        support: what the figures say to it.
        text: why, with the figures.
        figures: by what they are.
    """

    claim: str
    support: Support
    text: str
    figures: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Accuracy and area.

    Attributes:
        accuracy: of the images measured, a fraction.
        ara: ``AraResult.to_dict()``.
        curve_rho: sizes, RMSE.
        curve_accuracy: accuracy at each.
        doubts: reasons to distrust the area, each a sentence.
    """

    accuracy: float
    ara: Mapping[str, Any]
    curve_rho: tuple[float, ...]
    curve_accuracy: tuple[float, ...]
    doubts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ModelAudit:
    """Everything found about one model.

    Attributes:
        name: of the model.
        robustness: ``None`` where it cannot be measured, with the reason in ``left_out``.
        invalidation: claim 2 of the paper.
        fidelity: claim 3.
        findings: in plain words.
        images: of the explanation grid.
        left_out: what could not be done, to why: ``{"Grad-CAM": "the model has no convolution"}``.
    """

    name: str
    robustness: Robustness | None
    invalidation: Table | None
    fidelity: Table | None
    findings: tuple[Finding, ...]
    images: tuple[ExplainedImage, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """A whole audit: one model, or two on the same images.

    Attributes:
        models: one or two.
        comparison: second minus first, paired, by what it is; empty for one.
        settings: as given, JSON's types.
        versions: of packages, by name.
        seconds: that it took.
    """

    models: tuple[ModelAudit, ...]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float
    comparison: Mapping[str, Estimate] = field(default_factory=dict)
