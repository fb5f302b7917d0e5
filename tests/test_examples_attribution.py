"""The worked examples run, on real data and offline, and find what they say they find."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl
import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "attribution"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


@pytest.fixture(autouse=True)
def _as_a_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples are run from their folder, without a display and without a hub."""
    mpl.use("Agg")
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield
    for name in (*SCRIPTS, "_manuals"):
        sys.modules.pop(name, None)


def _example(name: str) -> ModuleType:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).parent == FOLDER
    return module


def _rmse(changes: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    return (changes / scale).flatten(1).square().mean(1).sqrt()


def test_each_is_in_the_readme() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(SCRIPTS) == 5
    assert [name for name in SCRIPTS if f"{name}.py" not in text] == []


def test_tumours(capsys: pytest.CaptureFixture[str]) -> None:
    tabular = _example("tabular")
    table = tabular.load("tumours")
    found = tabular.explain_tumours(table, epochs=15)
    assert found.quality > 0.9
    assert (found.after > found.before).all()
    moved = found.changes.abs().amax(0) > 0
    errors = torch.tensor(["error" in name for name in table.names])
    assert errors.sum() == 10
    assert not moved[errors].any()
    assert moved[~errors].all()
    size = (found.changes / table.spread).norm(dim=1)
    torch.testing.assert_close(size - 3.0, found.delta, rtol=0, atol=1e-5)
    assert (found.delta.abs() < 0.3).all()
    changed = found.rows + found.changes
    lower, upper = table.range
    assert ((changed >= lower) & (changed <= upper)).all()

    assert found.crossed.all()
    assert (found.smallest[:, errors] == 0).all()
    # The smallest change is no larger than a given one that crosses as well.
    crosses = found.after > 0
    assert crosses.any()
    assert ((found.smallest / table.spread).norm(dim=1) <= size + 1e-4)[crosses].all()
    # Integrated Gradients have no say in what can change.
    assert (found.integrated[:, errors] != 0).any()
    tabular.show(table, found)
    assert "worst" in capsys.readouterr().out


def test_diabetes_a_regression() -> None:
    tabular = _example("tabular")
    table = tabular.load("diabetes")
    found = tabular.explain_diabetes(table, epochs=60)
    assert found.quality > 0.3  # linear regression explains about as much
    assert (found.after > found.before + 10).all()
    fixed = torch.tensor([name in ("age", "sex") for name in table.names])
    for changes in (found.changes, found.smallest):
        assert (changes[:, fixed] == 0).all()
        assert (changes[:, ~fixed] != 0).any(0).all()
    assert (found.delta.abs() < 0.1).all()
    assert found.crossed.all()


def test_time_series(tmp_path: Path) -> None:
    pytest.importorskip("sktime", reason="the recordings ship with sktime, which is optional")
    found = _example("time_series").main(["--epochs", "60", "--save", str(tmp_path / "picture.png")])
    assert found.accuracy > 0.9
    assert found.changes.shape == found.recordings.shape
    assert found.changes.shape[1:] == (6, 100)
    assert (found.after > found.before + 0.1).all()
    assert (found.turning[:, :3] == 0).all()
    assert (found.turning[:, 3:] != 0).any()
    assert (found.after_turning > found.before).all()
    assert (found.delta.abs() < 0.2).all()
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_frequencies_are_in_hertz() -> None:
    pytest.importorskip("sklearn")
    time_series = _example("time_series")
    seconds = torch.arange(100) / 10
    waves = torch.stack([torch.sin(2 * torch.pi * f * seconds) + 3 for f in (0.5, 2.0)])
    torch.testing.assert_close(time_series.loudest_frequency(waves), torch.tensor([0.5, 2.0]))


def test_grey_images() -> None:
    found = _example("volumes").explain_digits(epochs=3)
    assert found.accuracy > 0.9
    assert found.changes.shape == (8, 1, 32, 32)
    assert (found.gained > 0).all()
    torch.testing.assert_close(_rmse(found.changes) - 0.15, found.delta, rtol=0, atol=1e-5)
    assert (found.delta.abs() < 0.05).all()
    changed = found.images + found.changes
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.slow
def test_volumes() -> None:
    pytest.importorskip("nilearn", reason="the brain ships with nilearn, which is optional")
    volumes = _example("volumes")
    found = volumes.explain_brain(epochs=4, per_tissue=1000)
    assert found.accuracy > 0.9
    assert found.changes.shape == (64, 1, 9, 9, 9)
    assert (found.gained > 0).all()
    assert (found.changes[found.images <= 0.1] == 0).all()
    # White matter is bright, and its place is the middle: that is where it has to become darker.
    near = volumes.is_near()
    assert found.changes[..., near].mean() < -0.05
    squares = found.changes.square()
    assert squares[..., near].sum() / squares.sum() > 3 * near.double().mean()


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    found = _example("text").main(["--epochs", "4"])
    assert found.accuracy > 0.85  # manuals change with their versions
    padding = torch.arange(found.sizes.shape[1]) >= found.passages.lengths[:, None]
    assert padding.any()
    assert (found.sizes[padding] == 0).all()
    assert (found.sizes[~padding] > 0).all()
    assert (found.after > found.before).all()
    assert (found.delta.abs() < 0.5).all()
    assert (found.signs.abs() <= found.sizes + 1e-6).all()
    # With a mask, without one, and as a change of the layer: the same.
    torch.testing.assert_close(found.unmasked, found.changes)
    torch.testing.assert_close(found.by_layer, found.changes)
    assert "tensor" in capsys.readouterr().out.partition("words move toward:")[2]


def test_hugging_face(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the example explains one of its models; it is optional")
    found = _example("hugging_face").main(["--epochs", "8", "--save", str(tmp_path / "picture.png")])
    assert found.accuracy > 0.85
    assert (found.gained > 0).all()
    assert (tmp_path / "picture.png").stat().st_size > 1000
    torch.testing.assert_close(_rmse(found.changes) - 0.15, found.delta, rtol=0, atol=1e-5)
    assert (found.images + found.changes).min() >= 0
    assert "ImageClassifierOutput" in found.refusal
    assert "function" in found.refusal


def test_constants_move_with_their_networks() -> None:
    tabular, time_series, text = (_example(name) for name in ("tabular", "time_series", "text"))
    meta = torch.device("meta")  # knows which device a tensor is on, and refuses to mix it with others
    standardise = tabular.Standardise(torch.rand(4, 3)).to(meta)
    assert standardise(torch.empty(2, 3, device=meta)).device == meta
    assert {"mean", "spread"} == set(standardise.state_dict())
    network = time_series.build_network(torch.ones(1, 6, 1)).to(meta)
    assert network(torch.empty(2, 6, 100, device=meta)).device == meta
    reader = text.Reader(7).to(meta)
    tokens, lengths = torch.zeros(2, 5, dtype=torch.long, device=meta), torch.ones(2, dtype=torch.long, device=meta)
    assert reader(tokens, lengths).device == meta


@pytest.mark.parametrize(
    ("name", "package"), [("time_series", "sktime"), ("hugging_face", "transformers"), ("volumes", "nilearn")]
)
def test_a_missing_package_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = _example(name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.datasets", None)
    with pytest.raises(SystemExit, match=f"pip install {package}"):
        module.main(["--epochs", "1"])
