"""visualize: the panels show what their titles say, readers can tell them apart, and matplotlib stays as it was."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from captum.attr import visualization as captum_visualization
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage, imread
from strategies import build_batch, build_convolutional
from torch import Tensor, nn

from captum_lipschitz import AdversarialAttribution
from captum_lipschitz.attr._panels import fitted, percent
from captum_lipschitz.attr.visualization import visualize
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, ModelOutputError
from captum_lipschitz.models import PreActResNet44

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def _images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)))


def _attributions(*shape: int, size: float = 0.3) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(7))


def _linear(channels: int = 3, num_classes: int = 4) -> nn.Module:
    layer = nn.Linear(channels * 64, num_classes)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        nn.init.normal_(layer.weight, std=0.2)
    return nn.Sequential(nn.Flatten(), layer)


def _maps(figure: Any) -> list[AxesImage]:
    """The heat maps, in the order they were drawn."""
    return [image for axes in figure.axes for image in axes.images if image.get_clim()[0] < 0]


def _pictures(figure: Any) -> list[np.ndarray[Any, Any]]:
    """The images and perturbed images, in the order they were drawn."""
    images = [image for axes in figure.axes for image in axes.images if image.get_clim()[0] == 0]
    return [np.asarray(image.get_array()) for image in images]


def _bars(figure: Any) -> list[Axes]:
    """The panels of probabilities, in the order they were drawn."""
    return [axes for axes in figure.axes if axes.containers]


def _texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def _written(figure: Any) -> list[str]:
    """Every text of the panels, and above, below and beside them."""
    words = [w for a in figure.axes for w in (a.get_title(), a.get_xlabel(), a.get_ylabel(), *_texts(a))]
    return [word for word in words if word]


def _as_drawn(images: Tensor) -> np.ndarray[Any, Any]:
    return images.movedim(-3, -1).numpy()


@pytest.mark.parametrize(("num_images", "num_columns"), [(1, 2), (3, 4), (2, 10)])
def test_every_panel_shows_what_it_says(num_images: int, num_columns: int) -> None:
    images, deltas = _images(num_images, 3, 8, 8), _attributions(num_images, num_columns, 3, 8, 8)
    figure = visualize(deltas, images, model=_linear())
    assert len(figure.axes) == num_images * (1 + 3 * num_columns) + 1  # image; three panels a column; colour bar
    pictures = iter(_pictures(figure))
    for n in range(num_images):
        np.testing.assert_array_equal(next(pictures), _as_drawn(images[n]))
        for k in range(num_columns):
            np.testing.assert_array_equal(next(pictures), _as_drawn((images[n] + deltas[n, k]).clamp(0, 1)))
    assert next(pictures, None) is None
    maps = [image.get_array() for image in _maps(figure)]
    np.testing.assert_array_equal(np.stack(maps), deltas.flatten(0, 1).sum(1).numpy())
    assert all(image.get_interpolation() == "nearest" for axes in figure.axes for image in axes.images)


@pytest.mark.parametrize("scale", ["all", "image", "column", "panel"])
def test_colour_scales_are_symmetric_and_shared_as_asked(scale: str) -> None:
    factors = torch.tensor([[1.0, 2.0, 3.0], [40.0, 50.0, 60.0]])[..., None, None, None]
    deltas = factors * _attributions(2, 3, 3, 8, 8)
    figure = visualize(deltas, _images(2, 3, 8, 8), scale=scale, percentile=100)  # type: ignore[arg-type]
    limits = np.array([image.get_clim() for image in _maps(figure)]).reshape(2, 3, 2)
    np.testing.assert_array_equal(limits[..., 0], -limits[..., 1])
    axes = {"all": (0, 1), "image": (1,), "column": (0,), "panel": ()}[scale]
    largest = deltas.sum(2).abs().amax((-1, -2)).numpy()
    expected = np.broadcast_to(np.max(largest, axis=axes, keepdims=True), (2, 3))
    np.testing.assert_array_equal(limits[..., 1], expected)
    bars = [a for a in figure.axes if any("\N{MINUS SIGN}" in t.get_text() for t in a.get_yticklabels())]
    inside = [child for a in figure.axes for child in a.child_axes]
    assert (len(bars), len(inside)) == {"all": (1, 0), "image": (2, 0), "column": (0, 6), "panel": (0, 6)}[scale]
    shown = [t.get_text() for t in (bars or inside)[-1].get_yticklabels() + (bars or inside)[-1].get_xticklabels()]
    assert {f"+{limits[-1, -1, 1]:.2g}", f"\N{MINUS SIGN}{limits[-1, -1, 1]:.2g}"} <= set(shown)


def test_the_colour_scale_ends_at_the_percentile_and_shows_that_values_lie_beyond() -> None:
    deltas = torch.zeros(1, 1, 8, 8)
    deltas.view(-1)[:] = torch.arange(-31.0, 33.0) / 100
    bars = []
    for percentile, limit in ((100, 0.32), (50, float(np.percentile(np.abs(deltas.numpy()), 50)))):
        figure = visualize(deltas, _images(1, 1, 8, 8), percentile=percentile)
        assert _maps(figure)[0].get_clim() == pytest.approx((-limit, limit))
        bars.append(_maps(figure)[0].colorbar)
    assert [bar.extend for bar in bars if bar is not None] == ["neither", "both"]


def test_attributions_that_are_zero_everywhere_or_nearly() -> None:
    deltas = torch.zeros(2, 1, 8, 8)
    figure = visualize(deltas, _images(2, 1, 8, 8), scale="image")
    assert _maps(figure)[0].get_clim() == (-1, 1)
    deltas[0, 0, 3, 3] = -0.25
    assert _maps(visualize(deltas, _images(2, 1, 8, 8), percentile=90))[0].get_clim() == (-0.25, 0.25)


def test_probabilities_are_the_models_for_the_pictures_as_drawn() -> None:
    images, deltas, model = _images(2, 3, 8, 8), _attributions(2, 3, 3, 8, 8), _linear()
    figure = visualize(deltas, images, model=model, classes=[2, 0, 3], top=4, class_names=["ant", "bee", "cow", "dog"])
    panels = _bars(figure)
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
        assert _texts(axes) == expected
        assert [text.get_fontweight() for text in axes.texts] == ["bold"] * 2 + ["normal"] * 6
        widths = torch.tensor([bar.get_width() for bar in axes.patches], dtype=torch.float32).reshape(4, 2)
        torch.testing.assert_close(widths, torch.stack([before[n, order], after[n, k, order]], 1))
    given = visualize(deltas, images, probabilities=(before, after.numpy()), classes=[2, 0, 3], top=4)
    bars = [[bar.get_width() for axes in _bars(f) for bar in axes.patches] for f in (figure, given)]
    np.testing.assert_allclose(bars[0], bars[1], rtol=1e-5)
    best = before[0].argmax()
    assert f"predicted: class {best} {percent(float(before[0, best]))}%" in given.axes[0].get_xlabel()


def test_titles_come_from_classes_names_mappings_or_the_caller() -> None:
    images, deltas = _images(2, 3, 8, 8), _attributions(2, 2, 3, 8, 8)
    by_class = visualize(deltas, images, classes=torch.tensor([[0, 1], [1, 5]]), class_names={0: "red_fox", 1: "crow"})
    titles = [word for word in _written(by_class) if word in ("red fox", "crow", "class 5")]
    assert titles == ["red fox", "crow", "crow", "class 5"]
    methods = {"ours": deltas[:, 0], "theirs": deltas[:, 1, :1]}
    assert [w for w in _written(visualize(methods, images)) if w in methods] == ["ours", "theirs"] * 2
    renamed = _written(visualize(methods, images, titles=["A", "B"], image_titles=["first", "second"]))
    assert [w for w in renamed if w in {"A", "B", "first", "second"}] == ["first", "A", "B", "second", "A", "B"]
    single = _written(visualize(deltas[:, 0], images, classes=[3, 1]))
    assert [word for word in single if word.startswith("class")] == ["class 3", "class 1"]
    assert {"image", "image + perturbation", "heat map"} <= set(single)


def test_texts_are_cut_only_where_they_do_not_fit() -> None:
    assert fitted("Integrated Gradients", 1.6, 9.5, bold=True) == "Integrated Gradients"
    parts = [fitted("Integrated Gradients", inches, 9.5, bold=True) for inches in (1.2, 0.8, 0.4, 0.01)]
    assert parts[-1] == ""
    assert all(a > b for a, b in itertools.pairwise(map(len, parts)))
    assert all(
        "Integrated Gradients".startswith(part[:-1]) and part[-1] == "\N{HORIZONTAL ELLIPSIS}" for part in parts[:-1]
    )


@pytest.mark.parametrize("scale", ["all", "image", "panel"])
@pytest.mark.parametrize(("num_images", "num_columns", "height"), [(1, 1, 8), (3, 1, 4), (1, 3, 12), (2, 10, 8)])
@pytest.mark.parametrize("show", [None, ("image", "heat_map"), ("heat_map", "probabilities")])
def test_nothing_overlaps_and_nothing_is_cut_off(
    scale: Any, num_images: int, num_columns: int, height: int, show: tuple[str, ...] | None
) -> None:
    images = _images(num_images, 3, height, 8)
    deltas = _attributions(num_images, num_columns, 3, height, 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * height, 12))
    names = ["a very long name of a class, indeed"] * 12
    figure = visualize(
        deltas, images, model=model, classes=range(num_columns), class_names=names, scale=scale, show=show
    )
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[arg-type]
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [legend.get_tightbbox(renderer) for legend in figure.legends]
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


def test_every_kind_of_array() -> None:
    images, deltas = _images(2, 3, 8, 8), _attributions(2, 3, 8, 8)
    expected = _pictures(visualize(deltas, images))
    for convert in (
        lambda t: t.clone().requires_grad_(),
        lambda t: t.double(),
        lambda t: t.numpy().astype(np.float64),
        lambda t: t.numpy()[..., ::-1][..., ::-1],
        lambda t: t.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    ):
        for found, wanted in zip(_pictures(visualize(convert(deltas), convert(images))), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)
    with torch.inference_mode():
        visualize(deltas * 1, images * 1, model=_linear())
    half = _pictures(visualize(deltas.bfloat16(), images.bfloat16(), model=_linear().bfloat16()))
    for found, wanted in zip(half, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=0.01)
    one = visualize(deltas[0], images[0], model=_linear())
    np.testing.assert_array_equal(_pictures(one)[1], expected[1])
    columns = visualize(deltas, images[0], model=_linear())  # one image, two columns
    np.testing.assert_array_equal(_pictures(columns)[2], _as_drawn((images[0] + deltas[1]).clamp(0, 1)))
    numpy = visualize(deltas.numpy().astype(np.float64), images.numpy().astype(np.float64), model=_linear())
    assert len(_bars(numpy)) == 2


def test_grey_images_other_bounds_and_other_channels() -> None:
    images, deltas = 10 * _images(1, 8, 8) - 5, _attributions(1, 8, 8)
    image, perturbed = _pictures(visualize(deltas, images, bounds=(-5, 5)))
    np.testing.assert_allclose(image, (images[0] + 5).numpy() / 10, atol=1e-6)
    np.testing.assert_allclose(perturbed, ((images + deltas)[0].clamp(-5, 5) + 5).numpy() / 10, atol=1e-6)
    figure = visualize(_attributions(5, 8, 8), _images(5, 8, 8), show="heat_map", model=_linear(5))
    np.testing.assert_array_equal(_maps(figure)[0].get_array(), _attributions(5, 8, 8).sum(0).numpy())
    assert "attribution, summed over 5 channels" in [axes.get_ylabel() for axes in figure.axes]


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()])
def test_the_model_is_left_as_it_was(error: BaseException | None) -> None:
    images, _ = build_batch(0, 3, dtype=torch.float32)
    model = half_frozen(build_convolutional(1, dtype=torch.float32))
    deltas = _attributions(3, 4, 2, 5, 5)
    run = model if error is None else Breaking(model, 2, error).train()
    images.requires_grad_()
    before = snapshot(run, images, deltas)
    if error is None:
        figure = visualize(deltas, images, show=("heat_map", "probabilities"), model=run, classes=range(4), top=1)
        (shown, *_) = _bars(figure)
        evaluated = build_convolutional(1, dtype=torch.float32).eval()(images).softmax(-1)
        assert shown.patches[0].get_width() == pytest.approx(float(evaluated[0, 0].detach()))  # type: ignore[attr-defined]
    else:
        with pytest.raises(type(error)):
            visualize(deltas, images, show=("heat_map", "probabilities"), model=run)
    assert_unchanged(before, snapshot(run, images, deltas))


def test_pyplot_and_its_settings_are_left_alone(tmp_path: Path) -> None:
    mpl.use("Agg")
    mine = plt.figure()
    before = (plt.get_fignums(), dict(mpl.rcParams), mpl.get_backend())
    visualize(_attributions(3, 8, 8), _images(3, 8, 8), model=_linear(), save=tmp_path / "a.png")
    assert (plt.get_fignums(), dict(mpl.rcParams), mpl.get_backend()) == before
    assert plt.gcf() is mine
    assert mine.axes == []
    plt.close(mine)


def test_saving_by_suffix(tmp_path: Path) -> None:
    deltas, images = _attributions(3, 8, 8), _images(3, 8, 8)
    figure = visualize(deltas, images, save=str(tmp_path / "a.PNG"), dpi=60)
    width, height = figure.get_size_inches()
    assert imread(tmp_path / "a.PNG", format="png").shape == (int(height * 60), int(width * 60), 4)
    for suffix, start in ((".pdf", b"%PDF"), (".svg", b"<?xml")):
        visualize(deltas, images, save=tmp_path / f"a{suffix}", figsize=(4, 3))
        assert (tmp_path / f"a{suffix}").read_bytes().startswith(start)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.PNG", "a.pdf", "a.svg"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        visualize(_attributions(3, 8, 8), _images(3, 8, 8), save=path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_into_a_figure_or_a_part_of_one(tmp_path: Path) -> None:
    whole = Figure(figsize=(12, 4))
    left, right = whole.subfigures(1, 2)
    for part in (left, right):
        assert visualize(_attributions(3, 8, 8), _images(3, 8, 8), figure=part, save=tmp_path / "a.png") is part
    assert len(whole.axes) == 8
    assert imread(tmp_path / "a.png").shape == (600, 1800, 4)


def test_a_notebook_shows_the_figure() -> None:
    figure = visualize(_attributions(3, 8, 8), _images(3, 8, 8))
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "%matplotlib inline", "import matplotlib.pyplot as plt"])
def test_a_notebook_shows_it_once_whatever_its_backend(first: str) -> None:
    client, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    setup = f"import sys; sys.path[:0] = {sys.path!r}\nimport torch\n"
    setup += "from captum_lipschitz.attr.visualization import visualize\n"
    call = "visualize(torch.rand(3, 8, 8) - 0.5, torch.rand(3, 8, 8))"
    cells = [nbformat.v4.new_code_cell(c) for c in (first or "pass", setup + f"figure = {call}", call)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    pictures = [["image/png" in out.get("data", {}) for out in cell.outputs] for cell in cells]
    assert [sum(cell) for cell in pictures] == [0, 0, 1]
    assert len(cells[2].outputs) == 1


def test_captums_own_methods_stand_beside_ours() -> None:
    images, model = _images(2, 3, 8, 8), _linear().eval()
    target = torch.tensor([1, 3])
    ours = AdversarialAttribution(model).attribute(images, target=target)
    theirs = IntegratedGradients(model).attribute(images, target=target, n_steps=8)
    figure = visualize(
        {"Adversarial": ours, "Integrated Gradients": theirs}, images, show=("image", "heat_map"), scale="column"
    )
    first, second, third, fourth = _maps(figure)
    assert first.get_clim() == third.get_clim() != second.get_clim() == fourth.get_clim()
    np.testing.assert_allclose(second.get_array(), theirs[0].sum(0).numpy(), rtol=1e-6)
    assert len(_pictures(figure)) == 2  # the images, and no perturbed ones


def test_captums_visualization_takes_ours() -> None:
    image = _images(1, 3, 8, 8)
    delta = AdversarialAttribution(_linear()).attribute(image, target=1)
    figure, axes = captum_visualization.visualize_image_attr_multiple(
        _as_drawn(delta[0]), _as_drawn(image[0]), ["original_image", "heat_map"], ["all", "all"], use_pyplot=False,
        outlier_perc=0,
    )  # fmt: skip
    total = delta[0].sum(0)
    np.testing.assert_allclose(axes[1].images[0].get_array(), (total / total.abs().max()).numpy(), rtol=1e-5)
    assert len(figure.axes) == 2


def test_the_papers_figure_on_the_authors_network(
    robust_network: PreActResNet44, cifar10_test: tuple[Tensor, Tensor]
) -> None:
    images, labels = cifar10_test[0][:2], cifar10_test[1][:2]
    model = robust_network.eval()
    targets = torch.stack([labels, (labels + 4) % 10], 1)
    deltas = torch.stack(
        [AdversarialAttribution(model).attribute(images, target=t, n_steps=10) for t in targets.unbind(1)], 1
    )
    figure = visualize(deltas, images, model=model, classes=targets, class_names=CIFAR10)
    for axes, target in zip(_bars(figure), targets.reshape(-1).tolist(), strict=True):
        assert _texts(axes)[0] == CIFAR10[target]
        before, after = axes.patches[0].get_width(), axes.patches[1].get_width()  # type: ignore[attr-defined]
        assert after > before


IMAGES, DELTAS = torch.full((2, 3, 8, 8), 0.5), torch.full((2, 3, 8, 8), 0.1)
GIVEN = (torch.full((2, 4), 0.25), torch.full((2, 1, 4), 0.25))
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"images": "cat.png"}, InvalidTypeError, "images: expected a tensor or a NumPy array, got str"),
    ({"images": (255 * IMAGES).byte()}, InvalidTypeError, r"images: .*uint8; convert with images / 255"),
    ({"images": torch.rand(8, 8)}, InvalidInputError, r"images: expected \(C, H, W\) or .*\(8, 8\)"),
    ({"images": torch.rand(8, 5, 3)}, InvalidInputError, r"images: expected channels first.*\(8, 5, 3\).*movedim"),
    ({"images": 3 * IMAGES}, InvalidInputError, r"images: expected values within bounds \(0, 1\), got 1.5 to 1.5"),
    ({"images": IMAGES * torch.nan}, InvalidInputError, "images: expected finite values"),
    ({"attributions": DELTAS * torch.inf}, InvalidInputError, "attributions: expected finite values"),
    ({"attributions": DELTAS[:1]}, InvalidInputError, r"attributions: .*\(2, 3, 8, 8\).*got \(1, 3, 8, 8\)"),
    ({"attributions": DELTAS[:, :2]}, InvalidInputError, r"attributions: .*got \(2, 2, 8, 8\)"),
    ({"attributions": DELTAS[..., :7]}, InvalidInputError, r"attributions: .*got \(2, 3, 8, 7\)"),
    ({"attributions": DELTAS[None, None]}, InvalidInputError, r"attributions: .*got \(1, 1, 2, 3, 8, 8\)"),
    ({"attributions": {"a": DELTAS, "b": DELTAS[0]}}, InvalidInputError, r"attributions\['b'\]: .*got \(3, 8, 8\)"),
    ({"attributions": [DELTAS, None]}, InvalidTypeError, r"attributions\[1\]: .*got NoneType"),
    ({"attributions": []}, InvalidInputError, "attributions: expected at least one"),
    ({"show": ("image",)}, InvalidInputError, r"show: expected some of .* got \('image',\)"),
    ({"show": ("heatmap",)}, InvalidInputError, "show: .*'heat_map'.* got .*'heatmap'"),
    ({"show": "probabilities"}, InvalidInputError, "show: expected a model or probabilities"),
    ({"images": IMAGES[:, :2], "attributions": DELTAS[:, :2]}, InvalidInputError, "images: expected 1 or 3 .*got 2"),
    ({"model": _linear(), "probabilities": GIVEN}, InvalidInputError, "probabilities: expected either"),
    ({"model": nn.Flatten(0)}, ModelOutputError, r"model: expected floating logits of shape \(2, C\)"),
    ({"probabilities": GIVEN[0]}, InvalidTypeError, "probabilities: expected a pair .*got Tensor"),
    ({"probabilities": (GIVEN[0][:1], GIVEN[1])}, InvalidInputError, r"probabilities: expected \(2, .*got \(1, 4\)"),
    ({"probabilities": (GIVEN[0], GIVEN[1][..., 1:])}, InvalidInputError, r"probabilities: .*got \(2, 1, 3\)"),
    ({"probabilities": (4 + GIVEN[0], GIVEN[1])}, InvalidInputError, r"probabilities: expected values in \[0, 1\]"),
    ({"classes": [1, 2, 3]}, InvalidInputError, r"classes: expected one for each column, \(1,\).*got \(3,\)"),
    ({"classes": [1, 4], "model": _linear()}, InvalidInputError, r"classes: expected classes in 0..3, got 4"),
    ({"classes": [-1, 2]}, InvalidInputError, "classes: expected classes in 0..C-1, got -1..2"),
    ({"classes": [0.5, 1.0]}, InvalidTypeError, "classes: expected integer classes"),
    ({"titles": ["a", "b"]}, InvalidInputError, "titles: expected 1 of them, got 2"),
    ({"image_titles": "ab"}, InvalidTypeError, "image_titles: expected a list of 2 texts, got the single text 'ab'"),
    ({"top": 0}, InvalidInputError, "top: expected at least 1, got 0"),
    ({"bounds": None}, InvalidTypeError, "bounds: expected the pair"),
    ({"bounds": (1, 0)}, InvalidInputError, "bounds: expected lower < upper"),
    ({"scale": "row"}, InvalidInputError, "scale: expected one of .*'column'.* got 'row'"),
    ({"percentile": 0}, InvalidInputError, r"percentile: expected a number in \(0, 100\], got 0"),
    ({"cmap": "jetty"}, InvalidInputError, "cmap: expected a name .*got 'jetty'"),
    ({"save": "picture"}, InvalidInputError, "save: expected a file name ending in .*'png'.*got 'picture'"),
    ({"save": "no/such/folder/a.png"}, InvalidInputError, "save: expected a folder that exists, got 'no/such/folder'"),
]


@pytest.mark.parametrize(("changed", "error", "message"), WRONG, ids=[message[:40] for *_, message in WRONG])
def test_what_does_not_fit_is_named(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"attributions": DELTAS, "images": IMAGES, **changed}
    with pytest.raises(error, match=message):
        visualize(arguments.pop("attributions"), arguments.pop("images"), **arguments)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    images, deltas = _images(2, 3, 8, 8).cuda(), _attributions(2, 3, 3, 8, 8).cuda()
    figure = visualize(deltas, images, model=_linear().cuda())
    np.testing.assert_array_equal(_maps(figure)[0].get_array(), deltas[0, 0].sum(0).cpu().numpy())
    assert len(visualize(deltas.cpu().numpy(), images.cpu().numpy(), model=_linear().cuda()).axes) == len(figure.axes)
