"""Whether a finished step that was read from disk says what a step of its part says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from captum_lipschitz.errors import CaptumLipschitzError
from captum_lipschitz.measure.chunks import is_whole
from captum_lipschitz.metrics.doubts import Doubt
from captum_lipschitz.metrics.fidelity import FIDELITY_MEASURES
from captum_lipschitz.report.content import ExplainedImage, Picture
from captum_lipschitz.report.html.pictures import size
from captum_lipschitz.report.steps import as_image, part_of
from captum_lipschitz.report.store import Step


def fits(step: Step, part: str, images: int, *, outputs: int | None = None) -> bool:
    """Whether a step can be used as one of ``part`` on so many images; one that cannot counts as not there.

    Its figures may still be wrong: a folder of finished steps is as good as whoever could write to it.

    Args:
        step: as it was read.
        part: ``"attack"``, ``"invalidation"``, ``"fidelity"``, ``"pictures"``, ``"doubts"`` or ``"labels"``.
        images: number of images that it is of.
        outputs: that the model has, which is how many labels there are; ``None`` where nobody knows.

    Example:
        >>> fits(Step(notes={"doubts": []}), "doubts", 8), fits(Step(notes={"doubts": [3]}), "doubts", 8)
        (True, False)
    """
    try:
        return _FITTING[part](step, images) and (part != "labels" or outputs is None or _last(step) < outputs)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, CaptumLipschitzError):
        return False


def _attack(step: Step, images: int) -> bool:
    return is_whole(part_of(step), images)


def _values(step: Step, images: int) -> bool:
    return all(values.shape == (images,) and values.is_floating_point() for values in step.values.values())


def _fidelity(step: Step, images: int) -> bool:
    return _values(step, images) and all(
        key in FIDELITY_MEASURES and _text(why) for key, why in step.notes["left_out"].items()
    )


def _pictures(step: Step, images: int) -> bool:
    shown = [as_image(notes) for notes in step.notes["images"]]
    texts = (text for method, why in step.notes["failed"] for text in (method, why))
    return len(shown) <= images and all(map(_text, texts)) and all(map(_explained, shown))


def _explained(image: ExplainedImage) -> bool:
    names = [image.name, *image.explanations, *(name for of in image.explanations.values() for name in of)]
    names += [name for name in (image.label, image.prediction) if name is not None]
    pictures = [picture for of in image.explanations.values() for several in of.values() for picture in several]
    pictures += [] if image.original is None else [image.original]
    return type(image.number) is int and all(map(_text, names)) and all(map(_picture, pictures))


def _picture(picture: Picture) -> bool:
    return _text(picture.text) and _number(picture.rho) and size(picture) > (0, 0)


def _doubts(step: Step, images: int) -> bool:
    del images
    found = [Doubt(**plain) for plain in step.notes["doubts"]]
    return all(
        isinstance(text, str) for doubt in found for text in (doubt.name, doubt.severity, doubt.seen, doubt.advice)
    )


def _labels(step: Step, images: int) -> bool:
    del images
    labels = [_label(one) for one in step.notes["labels"]]
    low_high = step.notes["macro_interval"]
    interval = [None, None] if low_high is None else low_high
    return any(labels) and len(interval) == 2 and all(map(_number, (step.notes["macro_area"], *interval)))


def _last(step: Step) -> int:
    """The last label."""
    return max(int(one["label"]) for one in step.notes["labels"])


def _label(one: Mapping[str, Any]) -> bool:
    """Whether a label has an area; one without has ``None`` in its place."""
    result = one["result"]
    if type(one["label"]) is not int or one["label"] < 0:
        raise TypeError(one)
    if result is None:
        return False
    figures = [result[name] for name in ("clean_accuracy", "chance_accuracy", "not_found")]
    figures += [distance for distance in result["distances"] if distance is not None]
    texts = [text for doubt in result["doubts"] for text in (doubt["seen"], doubt["advice"])]
    if not all(map(_text, texts)) or None in figures or not all(map(_number, figures)):
        raise TypeError(one)
    _ = (result["area"], result["interval"], result["norm"], result["attack"])
    return True


def _text(value: object) -> bool:
    return isinstance(value, str)


def _number(value: object) -> bool:
    """Whether it is one that a float can hold, or ``None``."""
    return value is None or (isinstance(value, float | int) and math.isfinite(float(value)))


_FITTING: Mapping[str, Callable[[Step, int], bool]] = {
    "attack": _attack,
    "invalidation": _values,
    "fidelity": _fidelity,
    "pictures": _pictures,
    "doubts": _doubts,
    "labels": _labels,
}
