"""The explanation grid: images by rows, methods by columns, one row for each class explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from captum_lipschitz.report.content import Audit, ExplainedImage, ModelAudit, Picture
from captum_lipschitz.report.html.figures import RHO, missing, number
from captum_lipschitz.report.html.markup import Html, heading_name, joined, named, scrolled, tag
from captum_lipschitz.report.html.pictures import Pictures, size

_WIDE = 1.8  # a picture so much wider than high is a chart: it needs more room to be read
_ROLES = {
    "predicted": "the class that the model predicts",
    "true": "the true class",
    "other": "other likely classes",
}


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One image, explained for one class by one model."""

    model: ModelAudit
    image: ExplainedImage
    explained: str

    @property
    def roles(self) -> list[str]:
        found = []
        likeliest = next(iter(self.image.explanations))  # stands in for a prediction where there is none
        if self.explained == (likeliest if self.image.prediction is None else self.image.prediction):
            found.append("predicted")
        if self.explained == self.image.label:
            found.append("true")
        return found or ["other"]


class Grid:
    """The grid of an audit; whatever it shows is in ``pictures`` afterwards.

    Without JavaScript every row and every size is there to be read. The script then shows one class and one size.
    """

    def __init__(self, audit: Audit) -> None:
        self._several = len(audit.models) > 1
        self._rows = list(_rows(audit))
        methods = (name for row in self._rows for name in row.image.explanations[row.explained])
        self._methods = list(dict.fromkeys(methods))
        self._classes = list(dict.fromkeys(row.explained for row in self._rows))
        self.pictures = Pictures(self._shown())

    def markup(self) -> Html:
        """Controls, and the table; the class and the size first shown are the prediction and the smallest."""
        if not self._rows:
            return tag("p", "No image was explained.")
        has_images = any(row.image.original is not None for row in self._rows)
        titles = [tag("th", heading_name(name), scope="col") for name in self._methods]
        head = tag("tr", tag("th", "Image" if has_images else "Input", scope="col"), *titles)
        body = [self._row(row) for row in self._rows]
        caption = tag("caption", "Explanations by image and method", class_="unseen")
        look = "explanations large" if self._is_wide() else "explanations"
        table = tag("table", caption, tag("thead", head), tag("tbody", *body), class_=look, id="explanations")
        fits = "tall fits" if len(self._methods) <= 10 and not self._is_wide() else "tall"
        return joined([self._controls(), scrolled(table, "Explanations by image and method", class_=fits)])

    def _shown(self) -> Iterator[Picture]:
        for row in self._rows:
            if row.image.original is not None:
                yield row.image.original
            for pictures in row.image.explanations[row.explained].values():
                yield from pictures

    def _sizes(self) -> list[float]:
        rhos = {picture.rho for picture in self._shown() if picture.rho is not None}
        return sorted(rhos)

    def _is_wide(self) -> bool:
        shapes = [size(picture) for picture in self._shown()]
        return any(width >= _WIDE * height for width, height in shapes)

    def _controls(self) -> Html:
        picker = tag("label", "Class explained ", tag("select", *self._options(), id="class-picker"))
        sizes = self._sizes()
        slider = tag(
            "label",
            f"Size of the change {RHO} ",
            tag(
                "input",
                type="range",
                id="rho-slider",
                min=0,
                max=len(sizes) - 1,
                step=1,
                value=0,
                data_values=" ".join(repr(rho) for rho in sizes),
                data_texts="|".join(f"{number(rho)} RMSE" for rho in sizes),
            ),
            tag("output", id="rho-value", for_="rho-slider"),
        )
        larger = tag("label", tag("input", type="checkbox", id="larger", checked=self._is_wide()), " Larger pictures")
        parts = [picker, *([slider] if len(sizes) > 1 else []), larger]
        status = tag("p", id="shown", role="status", class_="note")
        return joined([tag("form", *parts, id="controls", class_="controls", hidden=True), status])

    def _options(self) -> list[Html]:
        present = {role for row in self._rows for role in row.roles}
        roles = [tag("option", text, value=role) for role, text in _ROLES.items() if role in present]
        names = [tag("option", name, value=f"class-{i}", dir="auto") for i, name in enumerate(self._classes)]
        every = [tag("option", "every class explained", value="every")]
        return [tag("optgroup", *roles, *every, label="By role"), tag("optgroup", *names, label="By name")]

    def _row(self, row: _Row) -> Html:
        explained = row.image.explanations[row.explained]
        keys = " ".join([*row.roles, f"class-{self._classes.index(row.explained)}", "every"])
        cells = [self._cell(explained.get(name, ())) for name in self._methods]
        return tag("tr", self._head(row), *cells, data_shown_for=keys, data_image=row.image.number)

    def _head(self, row: _Row) -> Html:
        image = row.image
        shown = [self.pictures.show(image.original)] if image.original is not None else []
        lines = [("", named(image.name)), *([("model ", named(row.model.name))] if self._several else [])]
        if image.label is not None:
            lines.append(("true ", named(image.label)))
        lines.append(("predicted ", tag("em", "none") if image.prediction is None else named(image.prediction)))
        lines.append(("explained ", tag("strong", named(row.explained))))
        written = [tag("span", tag("span", what, class_="what") if what else "", name) for what, name in lines]
        wrong = [tag("span", "decided wrongly", class_="wrong")] if image.label not in (None, image.prediction) else []
        names = tag("span", *written, *wrong, class_="names")
        return tag("th", tag("span", *shown, names, class_="head"), scope="row")

    def _cell(self, pictures: Sequence[Picture]) -> Html:
        if not pictures:
            return tag("td", missing("not available"))
        shown = [tag("span", self.pictures.show(picture), *_sized(picture), **_rho(picture)) for picture in pictures]
        return tag("td", *shown, class_="sizes" if len(pictures) > 1 else None)


def _rows(audit: Audit) -> Iterator[_Row]:
    """Image by image, class by class, the second model's row below the first one's."""
    numbers = dict.fromkeys(image.number for model in audit.models for image in model.images)
    for place in numbers:
        found = [(model, image) for model in audit.models for image in model.images if image.number == place]
        classes = dict.fromkeys(name for _, image in found for name in image.explanations)
        for name in classes:
            for model, image in found:
                if name in image.explanations:
                    yield _Row(model=model, image=image, explained=name)


def _sized(picture: Picture) -> list[Html]:
    return [] if picture.rho is None else [tag("span", f"{RHO} = {number(picture.rho)}", class_="rho")]


def _rho(picture: Picture) -> dict[str, str]:
    return {} if picture.rho is None else {"data_rho": repr(picture.rho)}
