"""The page as text: what it holds, what it may load, and that nothing from outside breaks out of its place."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from audits import CLASSES, HOSTILE, METHODS, RHOS, hostile_audit, made_up_audit
from hypothesis import given
from hypothesis import strategies as st

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.estimates import Estimate
from captum_lipschitz.report.content import Audit, Cell, Measure, ModelAudit, Picture, Robustness, Table
from captum_lipschitz.report.html.curve import Line, drawn
from captum_lipschitz.report.html.figures import decimals_of, number, verdict_in_words
from captum_lipschitz.report.html.markup import Html, escaped, tag, visible
from captum_lipschitz.report.page import render

EMPTY = ModelAudit(
    name="net", robustness=None, invalidation=None, fidelity=None, findings=(), images=(), left_out={"ARA": "no labels"}
)
VOID = {"img", "input", "meta", "link", "br", "col", "wbr"}


class Read(HTMLParser):
    """Elements in order, and whether every one that opens is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(*models: ModelAudit, **changes: object) -> str:
    return render(replace(Audit(models=models, settings={}, versions={}, seconds=1.0), **changes))


@pytest.mark.parametrize("audit", [made_up_audit(), made_up_audit(models=("a", "b")), hostile_audit()])
def test_the_page_is_well_formed_with_unique_ids(audit: Audit) -> None:
    read = Read(render(audit))
    assert read.open == []
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = [attributes["href"] for _, attributes in read.elements if (attributes.get("href") or "").startswith("#")]
    assert {href[1:] for href in used} <= set(ids)


def test_the_policy_allows_this_style_and_this_script_and_pictures_as_data_only() -> None:
    page = render(made_up_audit())
    (policy,) = [one["content"] for one in Read(page).of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for name in ("style", "script"):
        (text,) = re.findall(rf"<{name}>(.*?)</{name}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"
    assert page.index("Content-Security-Policy") < page.index("<style>")


@pytest.mark.parametrize("audit", [made_up_audit(models=("a", "b")), hostile_audit()])
def test_nothing_refers_to_anywhere_else_and_nothing_is_styled_or_scripted_inline(audit: Audit) -> None:
    for name, attributes in Read(render(audit)).elements:
        for key, value in attributes.items():
            assert not key.startswith("on"), (name, key)
            assert key != "style"
            if key in ("src", "href", "action", "data", "poster", "srcset"):
                assert value.startswith(("data:", "#")), (name, key, value)


def test_hostile_names_become_text() -> None:
    page = render(hostile_audit())
    read = Read(page)
    assert len(read.of("script")) == 1
    assert not [one for one in read.of("img") if one["src"] == "x"]
    assert not [one for _, one in read.elements if one.get("id") == "taken"]
    assert HOSTILE[0] in read.text
    assert page.encode("utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", page)


@given(st.text())
def test_whatever_a_text_holds_it_is_read_back_as_it_is_shown(text: str) -> None:
    read = Read(tag("p", text, title=text))
    assert [name for name, _ in read.elements] == ["p"]
    assert "".join(read.text) == visible(text)
    assert read.of("p")[0]["title"] == visible(text)


def test_only_markup_is_left_unescaped() -> None:
    assert escaped(Html("<b>")) == "<b>"
    assert escaped("<b>") == "&lt;b&gt;"
    assert tag("br") == "<br>"
    assert tag("input", type="range", max=3, hidden=True, checked=False) == '<input type="range" max="3" hidden>'


def test_every_picture_is_held_once_and_has_a_text() -> None:
    audit = made_up_audit(models=("a", "b"), images=3)
    page = render(audit)
    held = re.findall(r"data:image/png;base64,[A-Za-z0-9+/=]+", page)
    pictures = {
        picture.png
        for model in audit.models
        for image in model.images
        for picture in [image.original, *(p for by in image.explanations.values() for ps in by.values() for p in ps)]
    }
    assert len(held) == len(set(held)) == len(pictures)
    read = Read(page)
    assert all(one["alt"] for one in read.of("img"))
    assert all(one.get("aria-label") or one.get("aria-hidden") for one in read.of("svg"))


def test_the_grid_has_a_row_for_each_image_and_class_and_every_size() -> None:
    audit = made_up_audit(images=5, explained=2)
    read = Read(render(audit))
    rows = [one for one in read.of("tr") if "data-shown-for" in one]
    assert len(rows) == sum(len(image.explanations) for image in audit.models[0].images)
    sizes = [float(one["data-rho"]) for one in read.of("span") if "data-rho" in one]
    assert sizes == list(RHOS) * len(rows)
    predicted = [one for one in rows if "predicted" in one["data-shown-for"].split()]
    assert len(predicted) == 5
    (slider,) = [one for one in read.of("input") if one["type"] == "range"]
    assert slider["max"] == str(len(RHOS) - 1)


def test_one_size_needs_no_slider_and_no_image_no_picker() -> None:
    audit = made_up_audit(methods=METHODS[:1])
    first = audit.models[0]
    single = [
        replace(one, explanations={name: {"Grad-CAM": by["Adversarial"][:1]} for name, by in one.explanations.items()})
        for one in first.images
    ]
    page = render(replace(audit, models=(replace(first, images=tuple(single)),)))
    assert 'id="class-picker"' in page
    assert 'id="rho-slider"' not in page
    assert "No image was explained." in page_of(EMPTY)


def test_without_images_only_maps_are_there() -> None:
    read = Read(render(made_up_audit(with_images=False, images=2, methods=METHODS[1:3], explained=1)))
    assert len(read.of("img")) == 2 * (len(RHOS) + 1)
    assert "Input" in read.text


def test_thirty_two_images_with_ten_methods_stay_under_five_megabytes() -> None:
    page = render(made_up_audit(images=32, explained=2, side=32))
    assert 1_000_000 < len(page.encode()) < 5_000_000


def test_an_empty_audit_says_what_is_missing() -> None:
    page = page_of(EMPTY)
    assert "No claim was examined." in page
    assert "no labels" in page
    assert 'id="invalidation"' not in page
    assert "its robustness was not measured" in page


def test_findings_stand_beside_each_other_claim_by_claim() -> None:
    audit = made_up_audit(models=("standard", "robust"))
    second = replace(audit.models[1], findings=audit.models[1].findings[:1])
    page = render(replace(audit, models=(audit.models[0], second)))
    for finding in audit.models[0].findings:
        assert page.count(f"<h3>{escaped(finding.claim)}</h3>") == 1
    assert page.count("Not examined for this model.") == 2
    assert page.count("✗</span> Contradicted.") == 1


def test_a_table_says_in_words_what_differs() -> None:
    lower = Measure(key="m", title="M", text="Mm.", better="lower")
    reference = Cell(value=Estimate(0.5, (0.4, 0.6), 9, 0))
    other = Cell(
        value=Estimate(0.4, (0.3, 0.5), 9, 1), difference=Estimate(-0.1, (-0.15, -0.05), 9, 1), verdict="below"
    )
    few = Cell(value=Estimate(0.4, (math.nan, math.nan), 2, 8), difference=Estimate(-0.1, (math.nan, math.nan), 2, 8))
    rows = {"a": {"m": reference}, "b": {"m": other}, "c": {"m": few}, "d": {}}
    table = Table(title="T", text="Tt.", measures=(lower,), rows=rows, compared_with="a")
    page = page_of(replace(EMPTY, fidelity=table))
    assert '<span class="verdict good">better</span>' in page
    assert "\u22120.100" in page
    assert '<span class="verdict open">too few images</span>' in page
    assert "no interval" in page
    assert '<td data-value=""><span class="mean" aria-hidden="true">—</span><span class="unseen">not available' in page
    assert page.count("compared with</span>") == 1
    assert "Mm. <em>Lower is better.</em>" in page


def test_an_unbounded_area_is_called_so() -> None:
    ara = {"area": None, "interval": [0.5, None], "chance_accuracy": 0.1, "correct": [True] * 4}
    robustness = Robustness(accuracy=1.0, ara=ara, curve_rho=(), curve_accuracy=(), doubts=())
    page = page_of(replace(EMPTY, robustness=robustness))
    assert "unbounded (0.5 or more)" in page
    assert "100% (4 of 4)" in page
    assert "No reason to doubt the area was found" in page


def test_the_curve_is_also_words_and_a_table() -> None:
    robustness = Robustness(
        accuracy=1.0,
        ara={"area": 0.1, "interval": [0.05, 0.15], "chance_accuracy": 0.25, "norm": "rmse"},
        curve_rho=(0.0, 0.1, 0.2, math.inf),
        curve_accuracy=(1.0, 0.5, 0.0, 0.0),
        doubts=("It is loose.",),
    )
    read = Read(page_of(replace(EMPTY, robustness=robustness)))
    (curve,) = [one for one in read.of("svg") if one.get("role") == "img"]
    assert "falls from 100% at a change of 0 to 0% at 0.2 RMSE; half of it is gone at 0.1" in curve["aria-label"]
    points = read.of("polyline")[0]["points"].split()
    assert len(points) == 5  # a corner before each fall
    assert {"accuracy", "size of the change \u03c1 (RMSE)", "50%", "It is loose."} <= set(read.text)


@pytest.mark.parametrize("largest", [5e-324, 1.0, 1e305, 1.7e308])
def test_a_curve_of_any_size_can_be_drawn(largest: float) -> None:
    """An image is as near or as far as floats go: of a file that somebody changed, or in units of their own."""
    line = Line(name="m", rho=(0.0, 0.5 * largest, largest), accuracy=(1.0, 0.5, 0.0), chance=0.25)
    points = Read(drawn([line], unit="RMSE")).of("polyline")[0]["points"]
    assert all(math.isfinite(float(value)) for point in points.split() for value in point.split(","))


def test_a_decision_for_no_label_is_called_so_and_its_row_is_first_shown() -> None:
    audit = made_up_audit(images=1)
    (image,) = audit.models[0].images
    read = render(
        replace(audit, models=(replace(audit.models[0], images=(replace(image, label=None, prediction=None),)),))
    )
    assert '<span class="what">predicted </span><em>none</em>' in read
    assert "decided wrongly" not in read
    assert read.count('data-shown-for="predicted ') == 1


def test_the_shaded_area_is_the_area() -> None:
    rho, accuracy, chance = (0.0, 0.1, 0.4, 0.5), (1.0, 0.75, 0.5, 0.0), 0.25
    area = 0.1 * 0.75 + 0.3 * 0.5 + 0.1 * 0.25  # accuracy above guessing, held until the next size
    drawing = Read(drawn([Line(name="m", rho=rho, accuracy=accuracy, chance=chance)], unit="RMSE"))
    corners = [tuple(map(float, point.split(","))) for point in drawing.of("polygon")[0]["points"].split()]
    turned = zip(corners, corners[1:] + corners[:1], strict=True)
    pixels = abs(sum(x * below - across * y for (x, y), (across, below) in turned)) / 2
    line = [tuple(map(float, point.split(","))) for point in drawing.of("polyline")[0]["points"].split()]
    unit = (line[-1][0] - line[0][0]) / 0.5 * (line[-1][1] - line[0][1])  # pixels to accuracy 1 over size 1
    assert pixels / unit == pytest.approx(area, rel=0.01)  # corners are written to a tenth of a pixel


@pytest.mark.parametrize("better", ["higher", "lower", None])
def test_verdicts_never_depend_on_colour(better: str | None) -> None:
    words = {verdict: verdict_in_words(verdict, better)[0] for verdict in ("above", "below", "undecided", "too few")}
    assert len(set(words.values())) == 4
    assert all(words.values())


@given(st.floats(-1e5, 1e5), st.floats(1e-6, 1e4))
def test_digits_follow_the_interval(mean: float, half: float) -> None:
    decimals = decimals_of(Estimate(mean, (mean - half, mean + half), 9, 0))
    shown = number(mean, decimals=decimals).replace("\u2212", "-")
    if decimals is not None and "\u00d7" not in shown:
        assert abs(float(shown) - mean) <= max(half / 9, 0.5)


def test_numbers_without_digits_are_words_and_signs() -> None:
    assert [number(value) for value in (math.nan, None, math.inf, -math.inf)] == ["—", "—", "∞", "\u2212∞"]
    assert number(-0.0001, decimals=2) == "0.00"
    assert number(1.5e9) == "1.5 \u00d7 10⁹"


@pytest.mark.parametrize(
    ("png", "message"), [(b"<svg onload=alert(1)>", "PNG"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, "PNG")]
)
def test_bytes_that_are_no_picture_are_refused(png: bytes, message: str) -> None:
    audit = made_up_audit(images=1)
    first = audit.models[0]
    image = replace(first.images[0], original=Picture(png=png, text="x"))
    with pytest.raises(InvalidInputError, match=message):
        render(replace(audit, models=(replace(first, images=(image,)),)))


def test_what_is_no_audit_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="audit: expected an Audit, got dict"):
        render({})
    with pytest.raises(InvalidInputError, match="one model or two, got 0"):
        page_of()


def test_the_same_audit_is_the_same_page_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    assert render(made_up_audit(classes=CLASSES[:2])) == render(made_up_audit(classes=CLASSES[:2]))
    assert torch.equal(before, torch.get_rng_state())
