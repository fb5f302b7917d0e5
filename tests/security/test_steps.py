"""Finished steps of an audit that were written by somebody else: used where they fit, done again where not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from captum_lipschitz.report.content import ExplainedImage, Picture
from captum_lipschitz.report.images.png import png
from captum_lipschitz.report.steps import as_notes
from captum_lipschitz.report.store import Step
from captum_lipschitz.report.stored import fits

HUGE = 10**399  # JSON has it, a float has not
PICTURE = Picture(png=png(np.zeros((2, 2), np.uint8)), text="a map", rho=0.1)
IMAGE = ExplainedImage(
    number=0,
    name="a.png",
    label="cat",
    prediction=None,
    original=PICTURE,
    explanations={"cat": {"Saliency": (PICTURE,)}},
)
RESULT = {
    "clean_accuracy": 1.0, "chance_accuracy": 0.5, "not_found": 0, "norm": "rmse", "attack": "a", "area": 0.1,
    "interval": [0.0, 0.2], "distances": [0.1, None], "doubts": [{"seen": "s", "advice": "a"}],
}  # fmt: skip
WHOLE: dict[str, Step] = {
    "attack": Step(
        values={
            "distances": torch.tensor([0.5, torch.inf], dtype=torch.float64),
            "labels": torch.tensor([0, 1]),
            "correct": torch.tensor([True, True]),
            "gradient_evaluations": torch.tensor([1, 2]),
        },
        notes={"num_classes": 2},
    ),
    "invalidation": Step(values={"cosine": torch.zeros(2)}),
    "fidelity": Step(values={"insertion": torch.zeros(2)}, notes={"left_out": {}}),
    "pictures": Step(notes={"images": [as_notes(IMAGE)], "failed": [["saliency", "why"]]}),
    "doubts": Step(notes={"doubts": [{"name": "n", "severity": "note", "seen": "s", "advice": "a", "evidence": {}}]}),
    "labels": Step(notes={"labels": [{"label": 0, "result": RESULT}], "macro_area": None, "macro_interval": [0, 1]}),
}


@pytest.mark.parametrize("part", WHOLE)
def test_steps_as_they_are_written_fit(part: str) -> None:
    assert fits(WHOLE[part], part, 2)
    assert fits(WHOLE[part], part, 2, outputs=1)


@pytest.mark.parametrize("part", WHOLE)
def test_steps_of_another_part_do_not(part: str) -> None:
    others = [other for other in WHOLE if other != part and {part, other} != {"invalidation", "attack"}]
    found = [other for other in others if WHOLE[other].notes != WHOLE[part].notes and fits(WHOLE[other], part, 2)]
    assert part == "invalidation" or found == []


CHANGES: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("attack", lambda values, _: values.update(distances=torch.zeros(3))),
    ("attack", lambda values, _: values.update(distances=torch.full((2,), torch.nan, dtype=torch.float64))),
    ("attack", lambda values, _: values.pop("labels")),
    ("attack", lambda _, notes: notes.update(num_classes="2")),
    ("attack", lambda _, notes: notes.update(num_classes=HUGE)),
    ("invalidation", lambda values, _: values.update(cosine=torch.zeros(3))),
    ("invalidation", lambda values, _: values.update(cosine=torch.zeros(2, dtype=torch.bool))),
    ("fidelity", lambda _, notes: notes.update(left_out={"no measure": "why"})),
    ("fidelity", lambda _, notes: notes.update(left_out=[3])),
    ("pictures", lambda _, notes: notes["images"][0].update(number="0")),
    ("pictures", lambda _, notes: notes["images"][0].update(name=3)),
    ("pictures", lambda _, notes: notes["images"][0].update(original=3)),
    ("pictures", lambda _, notes: notes["images"][0]["original"].update(png="AAAA")),
    ("pictures", lambda _, notes: notes["images"][0]["original"].update(text=None)),
    ("pictures", lambda _, notes: notes["images"][0].update(explanations=[])),
    ("pictures", lambda _, notes: notes.update(failed=[["one"]])),
    ("pictures", lambda _, notes: notes.update(images=notes["images"] * 3)),
    ("doubts", lambda _, notes: notes.update(doubts=[{"name": 3}])),
    ("doubts", lambda _, notes: notes["doubts"][0].update(seen=3)),
    ("labels", lambda _, notes: notes["labels"][0].update(label="0")),
    ("labels", lambda _, notes: notes["labels"][0]["result"].update(distances=["far"])),
    ("labels", lambda _, notes: notes["labels"][0]["result"].pop("area")),
    ("labels", lambda _, notes: notes.update(labels=[])),
    ("labels", lambda _, notes: notes.update(macro_area=HUGE)),
    ("labels", lambda _, notes: notes.update(macro_interval=[0, HUGE])),
    ("labels", lambda _, notes: notes.update(macro_interval=[0, 1, 2])),
    ("labels", lambda _, notes: notes["labels"][0].update(label=HUGE)),
    ("labels", lambda _, notes: notes["labels"][0].update(label=3)),
    ("labels", lambda _, notes: notes["labels"][0]["result"].update(clean_accuracy=HUGE)),
    ("labels", lambda _, notes: notes["labels"][0]["result"].update(chance_accuracy=None)),
    ("labels", lambda _, notes: notes["labels"][0]["result"].update(distances=[HUGE])),
    ("pictures", lambda _, notes: notes["images"][0]["original"].update(rho=HUGE)),
]


@pytest.mark.parametrize(("part", "change"), CHANGES)
def test_steps_that_say_something_else_do_not_fit(part: str, change: Callable[[Any, Any], Any]) -> None:
    values, notes = dict(WHOLE[part].values), copy.deepcopy(dict(WHOLE[part].notes))
    change(values, notes)
    assert not fits(Step(values=values, notes=notes), part, 2, outputs=3)
