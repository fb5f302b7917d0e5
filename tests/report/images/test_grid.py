"""The explanation grid of one image."""

from __future__ import annotations

import pytest
import torch
from audited import SHAPES, batch, build

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.report.content import ExplainedImage
from captum_lipschitz.report.explanations.methods import TITLES, all_methods
from captum_lipschitz.report.images.grid import class_name, explained_classes, explained_image

NAMES = ["cat", "dog", "cow"]


def _explained(kind: str = "colour", **given: object) -> ExplainedImage:
    model, (images, _) = build(kind), batch(kind)
    methods, _ = all_methods(model, images[:1], effort="fast", bounds=(0, 1))
    settings = {
        "number": 7, "name": "<b>.png", "label": 1, "prediction": 0, "class_names": NAMES, "classes": [1, 0],
        "rhos": [0.1, 0.05], "bounds": (0, 1), **given,
    }  # fmt: skip
    return explained_image(model, methods, images[:1], **settings)


def test_every_method_explains_every_class() -> None:
    found = _explained()
    assert (found.number, found.name, found.label, found.prediction) == (7, "<b>.png", "dog", "cat")
    assert list(found.explanations) == ["dog", "cat"]
    for name, row in found.explanations.items():
        assert list(row) == list(TITLES.values())
        assert [picture.rho for picture in row["Adversarial explanation"]] == [0.05, 0.1]
        for title, pictures in row.items():
            assert all(name in picture.text for picture in pictures)
            assert all(picture.png.startswith(b"\x89PNG") for picture in pictures)
            assert len(pictures) == (2 if title == "Adversarial explanation" else 1)
    assert found.explanations["dog"]["Saliency"][0].png != found.explanations["cat"]["Saliency"][0].png
    assert found.original is not None
    assert found.original.text == "<b>.png"


def test_without_images_nothing_of_them_is_shown() -> None:
    found = _explained(with_images=False)
    assert found.original is None
    assert found.name == "image 7"
    texts = [picture.text for row in found.explanations.values() for p in row.values() for picture in p]
    assert not any("<b>" in text for text in texts)
    shown = _explained()
    for title in TITLES.values():
        assert found.explanations["dog"][title][0].png != shown.explanations["dog"][title][0].png


@pytest.mark.parametrize("kind", SHAPES)
def test_every_kind_of_input_has_a_grid(kind: str) -> None:
    found = _explained(kind, label=None)
    assert found.label is None
    assert ("Grad-CAM" in found.explanations["dog"]) == (kind != "row")


def test_the_label_and_the_decision_come_first() -> None:
    logits = torch.tensor([1.0, 5.0, 3.0, 4.0, 2.0])
    assert explained_classes(logits) == [1, 3, 2, 4]
    assert explained_classes(logits, 0) == [0, 1, 3, 2]
    assert explained_classes(logits, 1, most=2) == [1, 3]
    with pytest.raises(InvalidInputError, match="most: expected at least 1, got 0"):
        explained_classes(logits, most=0)


def test_equal_names_are_told_apart() -> None:
    assert class_name(["crane", "crane"], 1) == "crane (1)"
    assert list(_explained(class_names=["x", "x", "y"]).explanations) == ["x (1)", "x (0)"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classes": [3]}, r"classes: expected classes in 0\.\.2, got 3"),
        ({"label": -1}, r"classes: expected classes in 0\.\.2, got -1"),
        ({"classes": []}, "classes, rhos: expected at least one of each"),
        ({"rhos": []}, "classes, rhos: expected at least one of each"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        _explained(**given)
