"""The explanation grid: every method's picture of one image, for some classes and sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds
from captum_lipschitz.metrics.maps import attributed
from captum_lipschitz.report.content import ExplainedImage, Picture
from captum_lipschitz.report.explanations.methods import Method
from captum_lipschitz.report.images.pictures import SIDE, Look, change_picture, image_picture, map_picture


def explained_classes(logits: Tensor, label: int | None = None, *, most: int = 4) -> list[int]:
    """Which classes of an image to explain: its label, what the model decides, then the likeliest others.

    Args:
        logits: (C,).
        label: the true class, where known.
        most: classes, at least 1.

    Example:
        >>> explained_classes(torch.tensor([0.0, 3.0, 1.0, 2.0]), label=0, most=3)
        [0, 1, 3]
    """
    if most < 1:
        raise InvalidInputError(f"most: expected at least 1, got {most}")
    ranked = logits.argsort(descending=True, stable=True).tolist()
    first = [] if label is None else [label]
    return list(dict.fromkeys([*first, *ranked]))[:most]


def explained_image(
    model: Model,
    methods: Mapping[str, Method],
    image: Tensor,
    *,
    number: int,
    name: str,
    label: int | None,
    prediction: int,
    decided: bool = True,
    class_names: Sequence[str],
    classes: Sequence[int],
    rhos: Sequence[float],
    with_images: bool = True,
    bounds: Bounds | tuple[float, float] | None = None,
    side: int = SIDE,
    failing: Callable[[Method, Exception], None] | None = None,
) -> ExplainedImage:
    """Explain one image by all methods, and draw it.

    Maps are drawn over the image in grey; adversarial explanations as the image plus the change, one picture for each
    size. Without images there are the maps alone, the change alone on grey, and ``"image 12"`` for a name; maps of
    input x gradient, guided backpropagation and others like them still look like the image, and are the caller's to
    leave out (``unshown.pictured_methods``).

    Args:
        model: maps inputs to logits; what the methods are made for.
        methods: by name, as ``all_methods`` gives them.
        image: (1, ...).
        number: its place in the data.
        name: of its file.
        label: the true class; ``None`` where there is none.
        prediction: the class that the model decides for, or comes nearest to.
        decided: whether it decides for it; a model of several labels may decide for none.
        class_names: of all classes.
        classes: to explain, see ``explained_classes``.
        rhos: sizes of the changes, RMSE, for methods of a size.
        with_images: show the image itself anywhere.
        bounds: what images lie in.
        side: pixels of a picture's longer side, at most; 32 larger images with every class and size fill a report.
        failing: told of each method that raises and of its error; the method's pictures are then left out. ``None``
            lets the error through.

    Returns:
        The pictures by class name and the method's title. A name that several classes have gets the class's number.

    Raises:
        InvalidInputError: for arguments that cannot be used, before any work is done.

    Example:
        >>> from captum_lipschitz.report.explanations.methods import all_methods
        >>> model, image = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)), torch.rand(1, 3, 4, 4)
        >>> methods, _ = all_methods(model, image, effort="fast")
        >>> found = explained_image(
        ...     model, methods, image, number=0, name="a.png", label=1, prediction=0, class_names=["cat", "dog"],
        ...     classes=[1, 0], rhos=[0.05, 0.1],
        ... )  # fmt: skip
        >>> [picture.rho for picture in found.explanations["dog"]["Adversarial explanation"]]
        [0.05, 0.1]
    """
    check_inputs(image, "image")
    if len(image) != 1:
        raise InvalidInputError(f"image: expected one, (1, ...), got {tuple(image.shape)}")
    known = [] if label is None else [label]
    outside = [c for c in (*classes, prediction, *known) if not 0 <= c < len(class_names)]
    if outside:
        raise InvalidInputError(f"classes: expected classes in 0..{len(class_names) - 1}, got {outside[0]}")
    if not classes or (not rhos and any(method.sized for method in methods.values())):
        raise InvalidInputError(f"classes, rhos: expected at least one of each, got {list(classes)} and {list(rhos)}")
    look = Look.of(image, bounds, side)
    shown = name if with_images else f"image {number}"
    names = {c: class_name(class_names, c) for c in (*classes, prediction, *known)}
    drawn = {}
    for method in methods.values():
        try:
            drawn[method.title] = _drawn(
                model, method, image, classes, names, sorted(rhos), look, shown, with_images=with_images
            )
        except Exception as error:  # noqa: PERF203 (each method by itself)
            if failing is None:
                raise
            failing(method, error)
    return ExplainedImage(
        number=number,
        name=shown,
        label=None if label is None else names[label],
        prediction=names[prediction] if decided else None,
        original=image_picture(image[0], shown, look) if with_images else None,
        explanations={names[c]: {title: found[i] for title, found in drawn.items()} for i, c in enumerate(classes)},
    )


def class_name(class_names: Sequence[str], number: int) -> str:
    """The class's name, with its number where another class has the same.

    Example:
        >>> class_name(["crane", "crane", "cat"], 1), class_name(["crane", "crane", "cat"], 2)
        ('crane (1)', 'cat')
    """
    name = class_names[number]
    return f"{name} ({number})" if list(class_names).count(name) > 1 else name


def _drawn(
    model: Model,
    method: Method,
    image: Tensor,
    classes: Sequence[int],
    names: Mapping[int, str],
    rhos: Sequence[float],
    look: Look,
    shown: str,
    *,
    with_images: bool,
) -> list[tuple[Picture, ...]]:
    """A method's pictures for each class, all classes explained in one batch."""
    targets = torch.tensor(list(classes), device=image.device)
    batch = image.expand(len(targets), *image.shape[1:])
    if method.sized is None:
        found = attributed(method.make(model), batch, targets)
        return [
            (
                map_picture(
                    found[i : i + 1],
                    image,
                    f"{method.title} of {shown} for {names[c]}",
                    look,
                    beneath=with_images,
                    signed=method.signed,
                ),
            )
            for i, c in enumerate(classes)
        ]
    sizes = [attributed(method.at(rho).make(model), batch, targets) for rho in rhos]
    what = f"{shown} changed toward" if with_images else f"change of {shown} toward"
    return [
        tuple(
            change_picture(found[i], image[0], f"{what} {names[c]}, RMSE {rho:g}", look, rho=rho, added=with_images)
            for rho, found in zip(rhos, sizes, strict=True)
        )
        for i, c in enumerate(classes)
    ]
