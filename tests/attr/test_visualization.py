"""visualize: the panels show what their titles say, and readers can tell them apart."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from drawn import (
    as_drawn,
    bars_in,
    heat_maps,
    linear_model,
    pictures_in,
    random_attributions,
    random_images,
    texts_in,
    written,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from captum_lipschitz.attr._figure.panels import fitted, percent, short
from captum_lipschitz.attr.visualization import visualize


@pytest.mark.parametrize(("num_images", "num_columns"), [(1, 2), (3, 4), (2, 10)])
def test_every_panel_shows_what_it_says(num_images: int, num_columns: int) -> None:
    images, deltas = random_images(num_images, 3, 8, 8), random_attributions(num_images, num_columns, 3, 8, 8)
    figure = visualize(deltas, images, model=linear_model())
    assert len(figure.axes) == num_images * (1 + 3 * num_columns) + 1  # image; three panels a column; colour bar
    pictures = iter(pictures_in(figure))
    for n in range(num_images):
        np.testing.assert_array_equal(next(pictures), as_drawn(images[n]))
        for k in range(num_columns):
            np.testing.assert_array_equal(next(pictures), as_drawn((images[n] + deltas[n, k]).clamp(0, 1)))
    assert next(pictures, None) is None
    maps = [image.get_array() for image in heat_maps(figure)]
    np.testing.assert_array_equal(np.stack(maps), deltas.flatten(0, 1).sum(1).numpy())
    assert all(image.get_interpolation() == "nearest" for axes in figure.axes for image in axes.images)


@pytest.mark.parametrize("scale", ["all", "image", "column", "panel"])
def test_colour_scales_are_symmetric_and_shared_as_asked(scale: str) -> None:
    factors = torch.tensor([[1.0, 2.0, 3.0], [40.0, 50.0, 60.0]])[..., None, None, None]
    deltas = factors * random_attributions(2, 3, 3, 8, 8)
    figure = visualize(deltas, random_images(2, 3, 8, 8), scale=scale, percentile=100)  # type: ignore[arg-type]
    limits = np.array([image.get_clim() for image in heat_maps(figure)]).reshape(2, 3, 2)
    np.testing.assert_array_equal(limits[..., 0], -limits[..., 1])
    axes = {"all": (0, 1), "image": (1,), "column": (0,), "panel": ()}[scale]
    largest = deltas.sum(2).abs().amax((-1, -2)).numpy()
    expected = np.broadcast_to(np.max(largest, axis=axes, keepdims=True), (2, 3))
    np.testing.assert_array_equal(limits[..., 1], expected)
    bars = [a for a in figure.axes if any("\N{MINUS SIGN}" in t.get_text() for t in a.get_yticklabels())]
    inside = [child for a in figure.axes for child in a.child_axes]
    assert (len(bars), len(inside)) == {"all": (1, 0), "image": (2, 0), "column": (0, 6), "panel": (0, 6)}[scale]
    shown = [t.get_text() for t in (bars or inside)[-1].get_yticklabels() + (bars or inside)[-1].get_xticklabels()]
    end = next(text[1:] for text in shown if text.startswith("+"))
    assert float(end) == float(f"{limits[-1, -1, 1]:.2g}")
    assert {f"+{end}", f"\N{MINUS SIGN}{end}"} <= set(shown)


def test_the_colour_scale_ends_at_the_percentile_and_shows_that_values_lie_beyond() -> None:
    deltas = torch.zeros(1, 1, 8, 8)
    deltas.view(-1)[:] = torch.arange(-31.0, 33.0) / 100
    bars = []
    for percentile, limit in ((100, 0.32), (50, float(np.percentile(np.abs(deltas.numpy()), 50)))):
        figure = visualize(deltas, random_images(1, 1, 8, 8), percentile=percentile)
        assert heat_maps(figure)[0].get_clim() == pytest.approx((-limit, limit))
        bars.append(heat_maps(figure)[0].colorbar)
    assert [bar.extend for bar in bars if bar is not None] == ["neither", "both"]


def test_attributions_that_are_zero_everywhere_or_nearly() -> None:
    deltas = torch.zeros(2, 1, 8, 8)
    figure = visualize(deltas, random_images(2, 1, 8, 8), scale="image")
    assert heat_maps(figure)[0].get_clim() == (-1, 1)
    deltas[0, 0, 3, 3] = -0.25
    assert heat_maps(visualize(deltas, random_images(2, 1, 8, 8), percentile=90))[0].get_clim() == (-0.25, 0.25)


def test_probabilities_are_the_models_for_the_pictures_as_drawn() -> None:
    images, deltas, model = random_images(2, 3, 8, 8), random_attributions(2, 3, 3, 8, 8), linear_model()
    figure = visualize(deltas, images, model=model, classes=[2, 0, 3], top=4, class_names=["ant", "bee", "cow", "dog"])
    panels = bars_in(figure)
    assert len(panels) == 6
    with torch.no_grad():
        before = model(images).softmax(-1)
        after = model((images[:, None] + deltas).clamp(0, 1).flatten(0, 1)).softmax(-1).unflatten(0, (2, 3))
    for axes, (n, k) in zip(panels, itertools.product(range(2), range(3)), strict=True):
        own = (2, 0, 3)[k]
        top = torch.maximum(before[n], after[n, k])
        order = [own] + [c for c in top.argsort(descending=True).tolist() if c != own]
        expected = [
            text
            for c in order
            for text in (
                ("ant", "bee", "cow", "dog")[c],
                f"{percent(float(before[n, c]))} \N{RIGHTWARDS ARROW} {percent(float(after[n, k, c]))}%",
            )
        ]
        assert texts_in(axes) == expected
        assert [text.get_fontweight() for text in axes.texts] == ["bold"] * 2 + ["normal"] * 6
        widths = torch.tensor([bar.get_width() for bar in axes.patches], dtype=torch.float32).reshape(4, 2)
        torch.testing.assert_close(widths, torch.stack([before[n, order], after[n, k, order]], 1))
    given = visualize(deltas, images, probabilities=(before, after.numpy()), classes=[2, 0, 3], top=4)
    bars = [[bar.get_width() for axes in bars_in(f) for bar in axes.patches] for f in (figure, given)]
    np.testing.assert_allclose(bars[0], bars[1], rtol=1e-5)
    best = before[0].argmax()
    assert f"predicted: class {best} {percent(float(before[0, best]))}%" in given.axes[0].get_xlabel()


def test_titles_come_from_classes_names_mappings_or_the_caller() -> None:
    images, deltas = random_images(2, 3, 8, 8), random_attributions(2, 2, 3, 8, 8)
    by_class = visualize(deltas, images, classes=torch.tensor([[0, 1], [1, 5]]), class_names={0: "red_fox", 1: "crow"})
    titles = [word for word in written(by_class) if word in ("red fox", "crow", "class 5")]
    assert titles == ["red fox", "crow", "crow", "class 5"]
    methods = {"ours": deltas[:, 0], "theirs": deltas[:, 1, :1]}
    assert [w for w in written(visualize(methods, images)) if w in methods] == ["ours", "theirs"] * 2
    renamed = written(visualize(methods, images, titles=["A", "B"], image_titles=["first", "second"]))
    assert [w for w in renamed if w in {"A", "B", "first", "second"}] == ["first", "A", "B", "second", "A", "B"]
    single = written(visualize(deltas[:, 0], images, classes=[3, 1]))
    assert [word for word in single if word.startswith("class")] == ["class 3", "class 1"]
    assert {"image", "image + perturbation", "heat map"} <= set(single)


def test_red_brightens_blue_darkens_and_grey_stands_for_before() -> None:
    figure = visualize(random_attributions(2, 3, 3, 8, 8), random_images(2, 3, 8, 8), model=linear_model())
    heat = heat_maps(figure)[0]
    limit = heat.get_clim()[1]
    (red, _, blue, _), (red_below, _, blue_below, _) = heat.to_rgba([limit, -limit])
    assert red > blue
    assert blue_below > red_below
    (label,) = (axes.get_ylabel() for axes in figure.axes if "brighter" in axes.get_ylabel())
    assert label == "darker \N{LEFT RIGHT ARROW} brighter, summed over RGB"  # the negative end is below
    (bar,) = (axes for axes in figure.axes if axes.get_ylabel() == label)
    assert bar.get_ylim() == (-limit, limit)
    before, after = figure.legends[0].get_patches()
    names = [text.get_text().split(":")[0] for text in figure.legends[0].get_texts()]
    assert names == ["before", "after"]
    assert before.get_facecolor() != after.get_facecolor()
    for axes in bars_in(figure):
        colours = [bar.get_facecolor() for bar in axes.patches]
        assert colours == [before.get_facecolor(), after.get_facecolor()] * (len(colours) // 2)


def test_texts_are_cut_only_where_they_do_not_fit() -> None:
    assert fitted("Integrated Gradients", 1.6, 9.5, bold=True) == "Integrated Gradients"
    parts = [fitted("Integrated Gradients", inches, 9.5, bold=True) for inches in (1.2, 0.8, 0.4, 0.01)]
    assert parts[-1] == ""
    assert all(a > b for a, b in itertools.pairwise(map(len, parts)))
    assert all(
        "Integrated Gradients".startswith(part[:-1]) and part[-1] == "\N{HORIZONTAL ELLIPSIS}" for part in parts[:-1]
    )


SIZES = [(1, 1, 8), (3, 1, 4), (1, 3, 12), (2, 10, 8)]  # images, columns, height
SHOWN = [None, ("image", "heat_map"), ("heat_map", "probabilities")]
PLACED = [*itertools.product(["all", "image", "panel"], SIZES, SHOWN)]
PLACED += [*itertools.product(["all"], SIZES, [("perturbed",), ("probabilities",)])]


@pytest.mark.parametrize(("scale", "sizes", "show"), PLACED)
def test_nothing_overlaps_and_nothing_is_cut_off(
    scale: Any, sizes: tuple[int, int, int], show: tuple[str, ...] | None
) -> None:
    num_images, num_columns, height = sizes
    images = random_images(num_images, 3, height, 8)
    deltas = random_attributions(num_images, num_columns, 3, height, 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * height, 12))
    names = ["a very long name of a class, indeed"] * 12
    figure = visualize(
        deltas, images, model=model, classes=range(num_columns), class_names=names, scale=scale, show=show
    )
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[arg-type]
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [foot.get_tightbbox(renderer) for foot in (*figure.legends, *figure.texts)]
    for first, second in itertools.combinations(boxes, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height_shared = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(width, height_shared) < 2, f"{first} overlaps {second}"  # hairlines may touch
    whole = figure.bbox
    for box in boxes:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1


RGB, CHANGES = "summed over RGB", "darker \N{LEFT RIGHT ARROW} brighter"
METHODS = {"Integrated Gradients": random_attributions(2, 3, 8, 8), "Saliency": random_attributions(2, 3, 8, 8)}


@pytest.mark.parametrize(
    ("attributions", "show", "label", "after"),
    [
        (random_attributions(2, 4, 3, 8, 8), None, f"{CHANGES}, {RGB}", "image + perturbation"),
        (random_attributions(2, 4, 1, 8, 8), None, "attribution", "image + attribution"),
        (random_attributions(2, 1, 8, 8), ("perturbed", "heat_map", "probabilities"), CHANGES, "image + perturbation"),
        (METHODS, None, f"attribution, {RGB}", "image + attribution"),
        (list(METHODS.values()), None, f"attribution, {RGB}", "image + attribution"),
        (METHODS, ("perturbed", "heat_map"), f"{CHANGES}, {RGB}", None),
        (METHODS, ("heat_map", "probabilities"), f"{CHANGES}, {RGB}", "image + perturbation"),
        (METHODS, ("image", "heat_map"), f"attribution, {RGB}", None),
        (METHODS["Saliency"], ("heat_map", "probabilities"), f"{CHANGES}, {RGB}", "image + perturbation"),
        (METHODS["Saliency"], ("image", "heat_map"), f"attribution, {RGB}", None),
        ({**METHODS, "map": random_attributions(2, 1, 8, 8)}, None, "attribution, summed over channels", None),
    ],
)
def test_the_words_say_whether_attributions_are_changes_of_the_image(
    attributions: Any, show: tuple[str, ...] | None, label: str, after: str | None
) -> None:
    figure = visualize(attributions, random_images(2, 3, 8, 8), show=show, model=linear_model())
    assert [a.get_ylabel() for a in figure.axes if {CHANGES, "attribution"} & set(a.get_ylabel().split(", "))] == [
        label
    ]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    if after is not None:
        assert legends[1].removeprefix("after: ").split(",")[0] == after
    titles = [word.replace("\n", " ") for word in written(figure)]
    asked = label.startswith(CHANGES) and (show is None or "perturbed" in show)
    assert ("image + perturbation" in " ".join(titles)) == asked


@pytest.mark.parametrize("scale", ["column", "panel"])
def test_what_was_summed_stands_beside_heat_maps_with_bars_of_their_own(scale: Any) -> None:
    for channels, unit in ((3, f"heat map\n{RGB}"), (1, "heat map")):
        deltas = random_attributions(2, 2, channels, 8, 8)
        figure = visualize(deltas, random_images(2, 3, 8, 8), scale=scale)
        assert [word for word in written(figure) if word.startswith("heat map")] == [unit] * 2


@pytest.mark.parametrize("show", [None, ("perturbed", "heat_map"), ("probabilities",), ("image", "heat_map")])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.5, 3.0)])
def test_clamping_is_mentioned_where_it_changed_what_is_shown(
    show: tuple[str, ...] | None, bounds: tuple[float, float]
) -> None:
    images, model = torch.full((1, 3, 8, 8), 0.5), linear_model()
    for row, clamped in ((0, False), (1, True)):
        deltas = torch.zeros(1, 2, 3, 8, 8)
        deltas[0, row, 1, 2, 3] = bounds[1] - 0.5 + 0.01 * row  # to the bound, or beyond
        shown = [deltas, deltas[:, row]] + [deltas * 0.999 + 1e-3 * deltas] * (not clamped)  # and rounding
        for attributions in shown:
            figure = visualize(attributions, images, show=show, model=model, bounds=bounds)
            words = [text.get_text() for text in figure.texts]
            words += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
            expected = f"clamped to [{bounds[0]:g}, {bounds[1]:g}]"
            assert any(w.endswith(expected) for w in words) == (clamped and show != ("image", "heat_map"))
    given = visualize(deltas, images, show="probabilities", probabilities=(torch.ones(1, 1), torch.ones(1, 2, 1)))
    assert [text.get_text() for text in given.legends[0].get_texts()] == [
        "before: image",
        "after: image + perturbation",
    ]


@pytest.mark.parametrize(
    ("size", "text"),
    [(258.0, "260"), (99_000.0, "99000"), (100_000.0, "1e+05"), (0.001, "0.001"), (0.000_012_3, "1.2e-05"), (1.0, "1")],
)
def test_marks_of_colour_bars_are_plain_numbers(size: float, text: str) -> None:
    assert short(size) == text
    deltas = torch.full((1, 1, 8, 8), size, dtype=torch.float64)
    figure = visualize(deltas, random_images(1, 1, 8, 8), show="heat_map", percentile=100)
    assert [t.get_text() for t in figure.axes[-1].get_yticklabels()] == [f"\N{MINUS SIGN}{text}", "0", f"+{text}"]
