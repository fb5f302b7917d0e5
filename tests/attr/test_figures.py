"""visualize as a tool: what it takes, where it draws and saves, and that matplotlib stays as it was."""

from __future__ import annotations

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
from drawn import (
    as_drawn,
    bars_in,
    heat_maps,
    linear_model,
    pictures_in,
    random_attributions,
    random_images,
    texts_in,
)
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from strategies import build_batch, build_convolutional
from torch import Tensor, nn

from captum_lipschitz import AdversarialAttribution
from captum_lipschitz.attr.visualization import visualize
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, ModelOutputError
from captum_lipschitz.models import PreActResNet44

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_every_kind_of_array() -> None:
    images, deltas = random_images(2, 3, 8, 8), random_attributions(2, 3, 8, 8)
    expected = pictures_in(visualize(deltas, images))
    for convert in (
        lambda t: t.clone().requires_grad_(),
        lambda t: t.double(),
        lambda t: t.numpy().astype(np.float64),
        lambda t: t.numpy()[..., ::-1][..., ::-1],
        lambda t: t.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    ):
        for found, wanted in zip(pictures_in(visualize(convert(deltas), convert(images))), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)
    with torch.inference_mode():
        visualize(deltas * 1, images * 1, model=linear_model())
    half = pictures_in(visualize(deltas.bfloat16(), images.bfloat16(), model=linear_model().bfloat16()))
    for found, wanted in zip(half, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=0.01)
    one = visualize(deltas[0], images[0], model=linear_model())
    np.testing.assert_array_equal(pictures_in(one)[1], expected[1])
    columns = visualize(deltas, images[0], model=linear_model())  # one image, two columns
    np.testing.assert_array_equal(pictures_in(columns)[2], as_drawn((images[0] + deltas[1]).clamp(0, 1)))
    numpy = visualize(deltas.numpy().astype(np.float64), images.numpy().astype(np.float64), model=linear_model())
    assert len(bars_in(numpy)) == 2


def test_grey_images_other_bounds_and_other_channels() -> None:
    images, deltas = 10 * random_images(1, 8, 8) - 5, random_attributions(1, 8, 8)
    image, perturbed = pictures_in(visualize(deltas, images, bounds=(-5, 5)))
    np.testing.assert_allclose(image, (images[0] + 5).numpy() / 10, atol=1e-6)
    np.testing.assert_allclose(perturbed, ((images + deltas)[0].clamp(-5, 5) + 5).numpy() / 10, atol=1e-6)
    figure = visualize(random_attributions(5, 8, 8), random_images(5, 8, 8), show="heat_map", model=linear_model(5))
    np.testing.assert_array_equal(heat_maps(figure)[0].get_array(), random_attributions(5, 8, 8).sum(0).numpy())
    assert "attribution, summed over 5 channels" in [axes.get_ylabel() for axes in figure.axes]


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()])
def test_the_model_is_left_as_it_was(error: BaseException | None) -> None:
    images, _ = build_batch(0, 3, dtype=torch.float32)
    model = half_frozen(build_convolutional(1, dtype=torch.float32))
    deltas = random_attributions(3, 4, 2, 5, 5)
    run = model if error is None else Breaking(model, 2, error).train()
    images.requires_grad_()
    before = snapshot(run, images, deltas)
    if error is None:
        figure = visualize(deltas, images, show=("heat_map", "probabilities"), model=run, classes=range(4), top=1)
        (shown, *_) = bars_in(figure)
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
    visualize(random_attributions(3, 8, 8), random_images(3, 8, 8), model=linear_model(), save=tmp_path / "a.png")
    assert (plt.get_fignums(), dict(mpl.rcParams), mpl.get_backend()) == before
    assert plt.gcf() is mine
    assert mine.axes == []
    plt.close(mine)


def test_saving_by_suffix(tmp_path: Path) -> None:
    deltas, images = random_attributions(3, 8, 8), random_images(3, 8, 8)
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
        visualize(random_attributions(3, 8, 8), random_images(3, 8, 8), save=path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_into_a_figure_or_a_part_of_one(tmp_path: Path) -> None:
    whole = Figure(figsize=(12, 4))
    left, right = whole.subfigures(1, 2)
    for part in (left, right):
        assert (
            visualize(random_attributions(3, 8, 8), random_images(3, 8, 8), figure=part, save=tmp_path / "a.png")
            is part
        )
    assert len(whole.axes) == 8
    assert imread(tmp_path / "a.png").shape == (600, 1800, 4)


def test_a_notebook_shows_the_figure() -> None:
    figure = visualize(random_attributions(3, 8, 8), random_images(3, 8, 8))
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
    images, model = random_images(2, 3, 8, 8), linear_model().eval()
    target = torch.tensor([1, 3])
    ours = AdversarialAttribution(model).attribute(images, target=target)
    theirs = IntegratedGradients(model).attribute(images, target=target, n_steps=8)
    figure = visualize(
        {"Adversarial": ours, "Integrated Gradients": theirs}, images, show=("image", "heat_map"), scale="column"
    )
    first, second, third, fourth = heat_maps(figure)
    assert first.get_clim() == third.get_clim() != second.get_clim() == fourth.get_clim()
    np.testing.assert_allclose(second.get_array(), theirs[0].sum(0).numpy(), rtol=1e-6)
    assert len(pictures_in(figure)) == 2  # the images, and no perturbed ones


def test_captums_visualization_takes_ours() -> None:
    image = random_images(1, 3, 8, 8)
    delta = AdversarialAttribution(linear_model()).attribute(image, target=1)
    figure, axes = captum_visualization.visualize_image_attr_multiple(
        as_drawn(delta[0]), as_drawn(image[0]), ["original_image", "heat_map"], ["all", "all"], use_pyplot=False,
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
    for axes, target in zip(bars_in(figure), targets.reshape(-1).tolist(), strict=True):
        assert texts_in(axes)[0] == CIFAR10[target]
        before, after = axes.patches[0].get_width(), axes.patches[1].get_width()  # type: ignore[attr-defined]
        assert after > before


@pytest.mark.filterwarnings("error")
def test_the_callers_texts_are_no_formulas(tmp_path: Path) -> None:
    hard = ["cost $5 and $6", r"$\foo$"]
    images, deltas = random_images(2, 3, 8, 8), random_attributions(2, 2, 3, 8, 8)
    settings: dict[str, Any] = {"model": linear_model(), "class_names": hard * 2, "image_titles": hard}
    for columns, scale in ((deltas, "all"), (deltas[:, 0], "all"), (deltas, "panel"), (deltas[:, 0], "panel")):
        figure = visualize(
            columns, images, scale=scale, titles=hard[: 1 if columns.dim() == 4 else 2], label=hard[1],
            save=tmp_path / "a.png", dpi=50, **settings,
        )  # fmt: skip
        texts = [text for axes in figure.axes for text in axes.findobj(Text) if "$" in text.get_text()]
        assert len(texts) > 8
        assert not any(text.get_parse_math() for text in texts)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "settings",
    [{"image.origin": "lower"}, {"figure.autolayout": True}, {"figure.constrained_layout.use": True}],
)
def test_settings_of_matplotlib_move_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    drawn, model = [], linear_model()
    for given in ({}, settings):
        with mpl.rc_context(given):
            visualize(random_attributions(3, 8, 8), random_images(3, 8, 8), model=model, save=tmp_path / "a.png")
        drawn.append(imread(tmp_path / "a.png"))
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize("style", ["default", "dark_background", "ggplot"])
def test_bars_are_seen_on_any_background(style: str) -> None:
    with plt.style.context(style):
        figure = visualize(random_attributions(3, 8, 8), random_images(3, 8, 8), model=linear_model())
        back = np.mean(figure.get_facecolor()[:3])
        before, after = (np.mean(bar.get_facecolor()[:3]) for bar in figure.legends[0].get_patches())
        assert abs(before - back) > 0.35
        assert abs(after - back) > 0.7
        assert abs(before - after) > 0.35


def test_small_changes_of_half_precision_images_are_drawn() -> None:
    images = torch.full((3, 8, 8), 0.75, dtype=torch.bfloat16)
    deltas = torch.full((3, 8, 8), 1e-3)
    image, perturbed = pictures_in(visualize(deltas, images, model=linear_model().bfloat16()))
    np.testing.assert_allclose(perturbed - image, 1e-3, rtol=1e-3)


def test_a_folder_is_no_file_to_save_to_and_no_model_runs_for_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()

    def model(_: Tensor) -> Tensor:
        raise AssertionError("ran")

    with pytest.raises(InvalidInputError, match="save: expected a file, got the folder"):
        visualize(random_attributions(3, 8, 8), random_images(3, 8, 8), model=model, save=tmp_path / "a.png")


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
    ({"model": linear_model(), "probabilities": GIVEN}, InvalidInputError, "probabilities: expected either"),
    ({"model": nn.Flatten(0)}, ModelOutputError, r"model: expected floating logits of shape \(2, C\)"),
    ({"probabilities": GIVEN[0]}, InvalidTypeError, "probabilities: expected a pair .*got Tensor"),
    ({"probabilities": (GIVEN[0][:1], GIVEN[1])}, InvalidInputError, r"probabilities: expected \(2, .*got \(1, 4\)"),
    ({"probabilities": (GIVEN[0], GIVEN[1][..., 1:])}, InvalidInputError, r"probabilities: .*got \(2, 1, 3\)"),
    ({"probabilities": (4 + GIVEN[0], GIVEN[1])}, InvalidInputError, r"probabilities: expected values in \[0, 1\]"),
    ({"classes": [1, 2, 3]}, InvalidInputError, r"classes: expected one for each column, \(1,\).*got \(3,\)"),
    ({"classes": [1, 4], "model": linear_model()}, InvalidInputError, r"classes: expected classes in 0..3, got 4"),
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
    images, deltas = random_images(2, 3, 8, 8).cuda(), random_attributions(2, 3, 3, 8, 8).cuda()
    figure = visualize(deltas, images, model=linear_model().cuda())
    np.testing.assert_array_equal(heat_maps(figure)[0].get_array(), deltas[0, 0].sum(0).cpu().numpy())
    assert len(visualize(deltas.cpu().numpy(), images.cpu().numpy(), model=linear_model().cuda()).axes) == len(
        figure.axes
    )
