"""The command line, as a process of its own: the demo in its quick form, the plugin listing, errors."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from captum_lipschitz import HalfHuberReLU, accuracy_robustness_area
from captum_lipschitz.cli import main
from captum_lipschitz.demo.digits import build_network, load_digits
from captum_lipschitz.demo.files import replaced, write_json
from captum_lipschitz.demo.run import wilson_interval

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'captum-lipschitz[demo]'")


def _run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "captum_lipschitz", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of a quick demo, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = _run("demo", "--quick", "--seed", "3", "--output", "out", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout, done.stderr


def test_the_demo_writes_all_that_it_says(demo: tuple[Path, str, str]) -> None:
    folder, output, progress = demo
    names = {"curves.png", "explanations.png", "plain.safetensors", "regularised.safetensors", "results.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert all(name in output for name in names)
    for picture in ("curves.png", "explanations.png"):
        with Image.open(folder / picture) as image:
            assert image.width > 600
            assert len(image.convert("L").getcolors(256) or []) > 20  # not blank
    assert "Training, regularised: 100%" in progress


def test_the_results_hold_the_figures_of_the_table(demo: tuple[Path, str, str]) -> None:
    folder, output, _ = demo
    results = json.loads((folder / "results.json").read_text())
    for network in ("plain", "regularised"):
        found = results[network]
        for figure in ("clean_accuracy", "attack_ara", "btr_ara"):
            low, high = found[f"{figure}_interval"]
            assert low <= found[figure] <= high
        assert found["training_seconds"] > 0
        assert f"{found['attack_ara']:.4f} [" in output
    assert results["attack_ara_ratio"] == pytest.approx(
        results["regularised"]["attack_ara"] / results["plain"]["attack_ara"]
    )
    assert results["btr_ara_ratio"] == pytest.approx(results["regularised"]["btr_ara"] / results["plain"]["btr_ara"])
    assert results["seed"] == results["settings"]["seed"] == 3
    assert results["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_the_networks_written_are_those_that_were_measured(demo: tuple[Path, str, str]) -> None:
    folder, _, _ = demo
    results = json.loads((folder / "results.json").read_text())
    model = build_network(HalfHuberReLU, seed=0)
    model.load_state_dict(load_file(folder / "regularised.safetensors"))
    digits = load_digits()
    count = results["settings"]["test_images"]
    from captum_lipschitz import MinimumNormAttack

    again = accuracy_robustness_area(
        model.eval(),
        (digits.test_images[:count], digits.test_labels[:count]),
        attack=MinimumNormAttack(steps=results["settings"]["attack_steps"]),
    )
    assert again.area == pytest.approx(results["regularised"]["attack_ara"], rel=1e-3)


def test_plugins_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    assert "minimum_norm" in capsys.readouterr().out
    listed = json.loads(_run("plugins", "--json", folder=tmp_path).stdout)
    ours = next(record for record in listed if record["name"] == "builtin")
    assert ours["status"] == "loaded"
    assert {(c["kind"], c["name"]) for c in ours["components"]} >= {("attack", "paper"), ("training_hook", "lipschitz")}


def test_a_reader_that_has_had_enough_is_no_error_to_tell_of(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "captum_lipschitz", "plugins"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # long before the first line is written
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_wrong_usage_says_what_is_right(tmp_path: Path) -> None:
    for arguments in ([], ["train"], ["demo", "--sead", "1"]):
        done = _run(*arguments, folder=tmp_path)
        assert done.returncode == 2
        assert "usage: captum-lipschitz" in done.stderr
    (tmp_path / "file").write_text("")
    for wrong in (["--output", "file"], ["--device", "abacus"]):
        done = _run("demo", "--quick", *wrong, folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("captum-lipschitz: ")
        assert "Traceback" not in done.stderr


def test_a_full_disk_takes_no_figures_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, *arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("captum_lipschitz.demo.run.write_json", full)
    assert main(["demo", "--quick", "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "ratio (paired)" in captured.out
    assert "captum-lipschitz: [Errno 28] No space left on device" in captured.err


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError), replaced(path) as temporary:
        temporary.write_text(b"half")  # type: ignore[arg-type]
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]


def test_wilson_interval_by_hand() -> None:
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(1.0, 10)[1] == pytest.approx(1.0)
