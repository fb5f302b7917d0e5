"""PNG files that read back, and what pictures show and say."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from captum_lipschitz.report.images.pictures import (
    BAR_COLOURS,
    Look,
    bars_picture,
    change_picture,
    image_picture,
    map_picture,
)
from captum_lipschitz.report.images.png import png


def _read(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))


@given(seed=st.integers(0, 2**31), height=st.integers(1, 24), width=st.integers(1, 24), levels=st.integers(1, 256))
def test_a_file_reads_back_to_the_bit(seed: int, height: int, width: int, levels: int) -> None:
    draws = np.random.default_rng(seed)
    for shape in ((height, width), (height, width, 3)):
        pixels = draws.integers(0, levels, shape, dtype=np.uint8)
        assert (_read(png(pixels)) == pixels).all()


def test_few_colours_make_a_small_file() -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (64, 64, 1), dtype=np.uint8).repeat(3, 2) * 255
    assert len(png(pixels)) < 64 * 64 / 4


def test_an_image_is_shown_as_it_is() -> None:
    image = torch.rand(3, 6, 5)
    shown = image_picture(image, "a cat", Look())
    assert (_read(shown.png) == (image * 255).round().byte().movedim(0, -1).numpy()).all()
    assert shown.text == "a cat"
    grey = image_picture(image[:1] * 4 - 2, "g", Look(-2, 2))
    assert (_read(grey.png) == (image[0] * 255).round().byte().numpy()).all()
    assert _read(image_picture(torch.rand(5, 4, 4), "", Look()).png).shape == (4, 4)  # other channels: their mean


def test_large_images_are_averaged_down() -> None:
    shown = _read(image_picture(torch.full((3, 300, 200), 0.5), "", Look(side=60)).png)
    assert shown.shape == (60, 40, 3)
    assert (shown == 128).all()


def test_a_volume_shows_its_middle_slice() -> None:
    volume = torch.zeros(1, 5, 4, 4)
    volume[0, 2] = 1
    shown = image_picture(volume, "scan", Look())
    assert (_read(shown.png) == 255).all()
    assert shown.text == "scan, slice 3 of 5"
    attributions = torch.zeros(1, 1, 5, 4, 4)
    attributions[0, 0, 2, 0, 0] = 1
    text = map_picture(attributions, volume[None], "map", Look()).text
    assert text == "map, slice 3 of 5; red speaks for it, blue against; strongest at the top left"


def test_a_map_is_red_for_blue_against_white_at_nothing() -> None:
    attributions = torch.zeros(1, 3, 9, 9)
    attributions[0, :, 7, 7], attributions[0, :, 0, 4] = 1, -0.5
    pixels = _read(map_picture(attributions, torch.zeros(1, 3, 9, 9), "m", Look(), beneath=False).png)
    assert (pixels[7, 7] == BAR_COLOURS["positive"]).all()
    assert pixels[0, 4, 2] > pixels[0, 4, 1] > pixels[0, 4, 0]
    assert (pixels[3, 3] == 255).all()
    image = torch.zeros(1, 3, 9, 9)
    image[..., 4:] = 1
    over = _read(map_picture(torch.zeros(1, 3, 9, 9), image, "m", Look()).png)
    assert (over[:, 4:] == 255).all()
    assert (over[:, :4] < 200).all()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_scale_is_the_maps_own_and_symmetric(scale: float) -> None:
    values = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image = torch.zeros(1, 1, 8, 8)
    plain, scaled = (map_picture(v, image, "m", Look(), beneath=False) for v in (values, values * scale))
    assert plain.png == scaled.png
    pixels, mirrored = (_read(map_picture(v, image, "m", Look(), beneath=False).png) for v in (values, -values))
    red, blue = BAR_COLOURS["positive"], BAR_COLOURS["negative"]
    top = tuple(int(i) for i in np.unravel_index(values.abs().argmax().item(), (8, 8)))
    first, second = (red, blue) if float(values[0, 0][top]) > 0 else (blue, red)
    assert (pixels[top] == first).all()
    assert (mirrored[top] == second).all()


def test_maps_without_numbers_do_not_break_the_picture() -> None:
    nothing = torch.full((1, 1, 4, 4), float("nan"))
    shown = map_picture(nothing, torch.rand(1, 3, 8, 8), "m", Look(), signed=False)
    assert _read(shown.png).shape == (8, 8, 3)
    assert shown.text == "m; red speaks for it; the same everywhere"


def test_a_change_is_shown_at_its_own_strength() -> None:
    image, change = torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), 0.1)
    added = change_picture(change, image, "toward cat", Look(), rho=0.1)
    alone = change_picture(change, image, "change", Look(), rho=0.1, added=False)
    assert (_read(added.png) == 77).all()  # 0.3 * 255 = 76.5, as float32 a little more
    assert (_read(alone.png) == 153).all()
    assert added.rho == alone.rho == 0.1


@pytest.mark.parametrize("values", [torch.tensor([0.5, -2.0, 0.0, 1.0]), torch.randn(1000), torch.zeros(3)])
def test_bars_say_and_show_the_largest(values: Tensor) -> None:
    shown = bars_picture(values, "row 3")
    pixels = _read(shown.png)
    assert pixels.shape[1] <= 192
    if len(values) == 4:
        assert shown.text == "row 3; largest: feature 1 -2, feature 3 +1, feature 0 +0.5"
        assert (pixels[40, 8:15] == BAR_COLOURS["negative"]).all()
        assert (pixels[20, 24:31] == BAR_COLOURS["positive"]).all()
    assert (pixels[32] == 160).all()


def test_rows_and_sequences_are_bars() -> None:
    for shape in ((1, 6), (1, 2, 7)):
        inputs = torch.rand(shape)
        assert "largest: feature" in map_picture(torch.randn(shape), inputs, "m", Look()).text
        assert "largest: feature" in image_picture(inputs[0], "row", Look()).text
        assert change_picture(torch.randn(shape)[0], inputs[0], "c", Look(), rho=0.2).rho == 0.2


def test_the_range_shown_is_the_bounds_or_the_images_own() -> None:
    inside, outside = torch.tensor([[[0.2, 0.9]]]), torch.tensor([[[-2.0, 3.0]]])
    assert Look.of(inside)[:2] == (0, 1)
    assert Look.of(outside)[:2] == (-2, 3)
    assert Look.of(outside, (-5.0, 5.0))[:2] == (-5, 5)
    assert Look.of(outside, (torch.tensor([-1.0, -4.0]), torch.tensor([2.0, 6.0])))[:2] == (-4, 6)
