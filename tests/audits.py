"""Audits made up for tests: every figure and picture is drawn at random, none was measured."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import replace
from functools import cache

import torch

from captum_lipschitz.metrics.estimates import estimate, paired_difference
from captum_lipschitz.report.content import (
    Audit,
    Cell,
    ExplainedImage,
    Finding,
    Measure,
    ModelAudit,
    Picture,
    Robustness,
    Table,
)

METHODS = (
    "Adversarial",
    "Saliency",
    "InputXGradient",
    "IntegratedGradients",
    "SmoothGrad",
    "GuidedBackprop",
    "Grad-CAM",
    "Occlusion",
    "LIME",
    "Random",
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RHOS = (0.02, 0.05, 0.1, 0.2)
HOSTILE = (
    "<script>document.title='taken'</script>",
    '"><img src=x onerror="document.title=`taken`">',
    "</style></script><h1 id=taken>taken</h1>",
    "'; document.title='taken'; '",
    "left \u202ethgir\u202c \u2066isolated",
    "cat\udcff\x00\x1b[31m&amp;&lt;",
)
INVALIDATION = (
    Measure(
        key="rank_correlation",
        title="Rank correlation",
        text="Of the explanation before and after the attack, from -1 to 1.",
        better="lower",
    ),
    Measure(
        key="top_overlap",
        title="Top-10% overlap",
        text="Share of the most important tenth of pixels that stays so, from 0 to 1.",
        better="lower",
    ),
    Measure(
        key="ssim",
        title="SSIM",
        text="Structural similarity of the explanation before and after, from -1 to 1.",
        better="lower",
    ),
    Measure(
        key="outside",
        title="Energy outside",
        text="Share of the perturbation's energy outside the region that the explanation calls important.",
        better="lower",
    ),
    Measure(
        key="within_strength",
        title="Attack within",
        text="Size of the free attack over that of one confined to the important region: 1 where nothing is lost.",
        better="higher",
    ),
    Measure(
        key="seconds",
        title="Time",
        text="Seconds per image on the machine named below.",
        better=None,
    ),
)
FIDELITY = (
    Measure(
        key="insertion",
        title="Insertion",
        text="Area under the class's probability as the important pixels are put in first, from 0 to 1.",
        better="higher",
    ),
    Measure(
        key="deletion",
        title="Deletion",
        text="Area under the class's probability as the important pixels are taken out first, from 0 to 1.",
        better="lower",
    ),
    Measure(
        key="infidelity",
        title="Infidelity",
        text="Mean squared error of the change that the explanation predicts for a random change, normalised.",
        better="lower",
    ),
    Measure(
        key="stability",
        title="Stability",
        text="Rank correlation of the explanations of near-identical inputs, from -1 to 1.",
        better="higher",
    ),
)


def png(width: int = 8, height: int = 8, *, generator: torch.Generator, enlarged: int = 1) -> bytes:
    """A picture of drawn blots, its pixels ``enlarged`` to squares."""
    coarse = torch.rand(1, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0]
    noise = 0.1 * torch.randn(smooth.shape, generator=generator)
    pixels = (255 * (smooth + noise).clamp(0, 1)).permute(1, 2, 0).byte()
    pixels = pixels.repeat_interleave(enlarged, 0).repeat_interleave(enlarged, 1)
    rows = b"".join(b"\0" + bytes(row.flatten().tolist()) for row in pixels)
    header = struct.pack(">IIBBBBB", width * enlarged, height * enlarged, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def made_up_table(
    measures: tuple[Measure, ...],
    *,
    methods: tuple[str, ...] = METHODS,
    images: int = 32,
    generator: torch.Generator,
    title: str = "Made up",
) -> Table:
    """A table of drawn values, the first method the one compared with; the last method's first cell is missing."""
    rows: dict[str, dict[str, Cell]] = {name: {} for name in methods}
    for measure in measures:
        first = torch.rand(images, generator=generator, dtype=torch.float64)
        for i, name in enumerate(methods):
            if name == methods[-1] and measure is measures[0] and len(methods) > 2:
                continue
            shift = 0.5 * torch.rand((), generator=generator) - 0.25 if i else 0.0
            noise = 0.15 * torch.randn(images, generator=generator, dtype=torch.float64) if i else 0.0
            values = first + shift + noise
            values[0] = math.nan if i == 1 else values[0]
            difference = paired_difference(values, first) if i else None
            rows[name][measure.key] = Cell(
                value=estimate(values),
                difference=difference,
                verdict=difference.compared_with(0.0) if difference else None,
                values=tuple(values.tolist()),
            )
    text = "Made up: every figure is drawn at random for a test."
    return Table(title=title, text=text, measures=measures, rows=rows, compared_with=methods[0])


def made_up_robustness(*, images: int = 32, reach: float = 0.1, generator: torch.Generator) -> Robustness:
    """Drawn distances, their curve and area."""
    distances = reach * torch.rand(images, generator=generator, dtype=torch.float64) * 2
    distances[0] = 0.0
    rho = torch.linspace(0, float(distances.max()), 33, dtype=torch.float64)
    accuracy = [float((distances > size).double().mean()) for size in rho]
    areas = (distances.mean() * 0.9).item()
    ara = {
        "area": areas,
        "interval": [areas * 0.85, areas * 1.15],
        "not_found": 0,
        "clean_accuracy": accuracy[0],
        "chance_accuracy": 0.1,
        "distances": distances.tolist(),
        "labels": [i % 10 for i in range(images)],
        "correct": (distances > 0).tolist(),
        "norm": "rmse",
        "criterion": "Misclassified()",
        "attack": "MinimumNormAttack",
    }
    doubts = ("More effort found smaller changes for 3 of 32 images (made up). Use effort='thorough'.",)
    return Robustness(
        accuracy=accuracy[0],
        ara=ara,
        curve_rho=tuple(rho.tolist()),
        curve_accuracy=tuple(accuracy),
        doubts=doubts,
    )


def made_up_findings(table: Table) -> tuple[Finding, ...]:
    """One of each kind of support, with figures of ``table``."""
    figures = {
        f"{method}: {measure.title}": table.rows[method][measure.key].value
        for measure in table.measures[:2]
        for method in list(table.rows)[:2]
    }
    return (
        Finding(
            claim="Attacks leave Saliency's map as it was while they change the decision.",
            support="supported",
            text="After the decision changed, most maps are still the same (drawn at random for a test).",
            figures=figures,
        ),
        Finding(
            claim="Adversarial explanations are more faithful than Saliency's.",
            support="contradicted",
            text="By insertion they are less faithful (drawn at random for a test).",
            figures=dict(list(figures.items())[:1]),
        ),
        Finding(
            claim="Adversarial explanations are more stable than SmoothGrad's.",
            support="undecided",
            text="The sample is too small to tell (drawn at random for a test).",
        ),
    )


def made_up_image(
    number: int,
    *,
    methods: tuple[str, ...] = METHODS,
    classes: tuple[str, ...] = CLASSES,
    explained: int = 2,
    side: int = 8,
    enlarged: int = 1,
    with_image: bool = True,
    original: Picture | None = None,
    generator: torch.Generator,
) -> ExplainedImage:
    """Random pictures; the first method has one for each of ``RHOS``."""
    label = number % len(classes)
    prediction = (label + (number % 4 == 1)) % len(classes)
    names = [classes[i] for i in dict.fromkeys([prediction, label, *range(len(classes))])][:explained]

    def drawn(text: str, rho: float | None = None) -> Picture:
        return Picture(png=png(side, side, generator=generator, enlarged=enlarged), text=text, rho=rho)

    explanations = {
        name: {
            method: tuple(drawn(f"{method} for {name} at {rho}", rho) for rho in RHOS)
            if i == 0
            else (drawn(f"{method} for {name}"),)
            for i, method in enumerate(methods)
        }
        for name in names
    }
    return ExplainedImage(
        number=number,
        name=f"image {number}",
        label=classes[label],
        prediction=classes[prediction],
        original=(original or drawn(f"image {number}")) if with_image else None,
        explanations=explanations,
    )


def made_up_model(
    name: str,
    *,
    methods: tuple[str, ...] = METHODS,
    classes: tuple[str, ...] = CLASSES,
    images: int = 4,
    explained: int = 2,
    side: int = 8,
    enlarged: int = 1,
    reach: float = 0.1,
    with_images: bool = True,
    originals: tuple[Picture | None, ...] = (),
    generator: torch.Generator,
) -> ModelAudit:
    """Everything about one model, drawn."""
    fidelity = made_up_table(FIDELITY, methods=methods, generator=generator, title="Fidelity (made up)")
    invalidation = made_up_table(INVALIDATION, methods=methods, generator=generator, title="Invalidation (made up)")
    return ModelAudit(
        name=name,
        robustness=made_up_robustness(reach=reach, generator=generator),
        invalidation=invalidation,
        fidelity=fidelity,
        findings=made_up_findings(fidelity),
        images=tuple(
            made_up_image(
                number,
                methods=methods,
                classes=classes,
                explained=explained,
                side=side,
                enlarged=enlarged,
                with_image=with_images,
                original=originals[number] if originals else None,
                generator=generator,
            )
            for number in range(images)
        ),
        left_out={"ROAD": "Quantus is not installed (made up)", "DeepLift": "not asked for (made up)"},
    )


@cache  # nothing in it can be changed, and its intervals take their time
def made_up_audit(
    *,
    models: tuple[str, ...] = ("made-up network",),
    methods: tuple[str, ...] = METHODS,
    classes: tuple[str, ...] = CLASSES,
    images: int = 4,
    explained: int = 2,
    side: int = 8,
    enlarged: int = 1,
    with_images: bool = True,
    seed: int = 0,
) -> Audit:
    """A whole audit in which nothing was measured, of one model, or two on the same images."""
    generator = torch.Generator().manual_seed(seed)
    audits: list[ModelAudit] = []
    for i, name in enumerate(models):
        audits.append(
            made_up_model(
                name,
                methods=methods,
                classes=classes,
                images=images,
                explained=explained,
                side=side,
                enlarged=enlarged,
                reach=0.1 * (i + 1),
                with_images=with_images,
                originals=tuple(image.original for image in audits[0].images) if audits else (),
                generator=generator,
            )
        )
    drawn = torch.randn(32, generator=generator, dtype=torch.float64)
    comparison = {
        "Accuracy-Robustness Area": estimate(drawn + 3),
        "accuracy": estimate(drawn * 0.1),
        "rank correlation of Saliency": estimate(drawn - 3),
        "insertion of Adversarial": estimate(drawn[:4]),
    }
    return Audit(
        models=tuple(audits),
        settings={
            "values": "drawn at random for a test",
            "images": 32,
            "seed": seed,
            "bounds": [0.0, 1.0],
            "norm": None,
        },
        versions={"captum_lipschitz": "0.1.0", "torch": "2.15.0"},
        seconds=492.4,
        comparison=comparison if len(models) > 1 else {},
    )


@cache
def hostile_audit() -> Audit:
    """Two models in which every name and text tries to break out of where it stands."""
    audit = made_up_audit(models=HOSTILE[:2], methods=HOSTILE, classes=HOSTILE, explained=4)
    evil = " ".join(HOSTILE)
    models = []
    for model in audit.models:
        assert model.robustness is not None
        assert model.fidelity is not None
        images = tuple(
            replace(
                image,
                name=evil,
                original=replace(image.original, text=evil) if image.original else None,
            )
            for image in model.images
        )
        measures = tuple(replace(one, title=evil, text=evil) for one in model.fidelity.measures)
        findings = tuple(replace(one, claim=evil + one.support, text=evil) for one in model.findings)
        doubts = (evil,)
        ara = {**model.robustness.ara, "attack": evil, "norm": evil}
        models.append(
            replace(
                model,
                images=images,
                fidelity=replace(model.fidelity, title=evil, text=evil, measures=measures),
                findings=findings,
                robustness=replace(model.robustness, ara=ara, doubts=doubts),
                left_out={evil: evil},
            )
        )
    comparison = {evil: next(iter(audit.comparison.values()))}
    hostile = {evil: {evil: [evil, math.nan]}}
    return replace(audit, models=tuple(models), settings=hostile, versions={evil: evil}, comparison=comparison)
