"""An audit that shows no images: which methods' pictures it leaves out, and what of earlier runs it removes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from captum_lipschitz._reading import read_json, read_regular
from captum_lipschitz.report.explanations.methods import Method
from captum_lipschitz.report.outputs import PAGE, REPORT, remove_report

OUTLINING: Mapping[str, str] = {
    "input_x_gradient": "its map is multiplied by the image and would show it",
    "integrated_gradients": "its map is multiplied by the image and would show it",
    "guided_backprop": "its map shows the outlines of what is in the image",
}
"""Methods whose maps are like the image, by name, to why a report without images has no picture of them."""


def pictured_methods(methods: Mapping[str, Method], *, images: bool) -> dict[str, Method]:
    """Those of the methods that the grid has pictures of, by name.

    Args:
        methods: by name.
        images: whether images are shown.
    """
    return {name: method for name, method in methods.items() if images or name not in OUTLINING}


def forget_images(output: Path, folders: Mapping[str, Collection[str]]) -> None:
    """Remove what earlier runs in a folder left that shows an image, names its file or would give it back.

    A report that was written without images stays until the new one is there.

    Args:
        output: of the audit.
        folders: its folders of finished steps, by name; to each the names of steps with pictures that may stay.

    Raises:
        OSError: something cannot be removed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     picture = Path(folder, "second", "steps", "pictures-old-000000.step")
        ...     picture.parent.mkdir(parents=True)
        ...     _ = picture.write_bytes(b"")
        ...     forget_images(Path(folder), {"first": (), "second": ()})
        ...     picture.exists()
        False
    """
    if not _without_images(output / REPORT):
        remove_report(output)
    for name, kept in folders.items():
        for path in _showing(output / name / "steps", {f"{step}.step" for step in kept}):
            path.unlink(missing_ok=True)
    for path in output.glob(f".{PAGE}.*"):  # half-written, by a run that was killed
        path.unlink(missing_ok=True)


def _without_images(report: Path) -> bool:
    try:
        return read_json(report)["settings"]["images_shown"] is False
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _showing(steps: Path, kept: Collection[str]) -> Iterator[Path]:
    yield from (path for path in steps.glob("pictures-*.step") if path.name not in kept)
    yield from steps.glob(".pictures-*")
    # Steps of earlier versions held the change that the attack made.
    yield from (path for path in steps.glob("attack-*.step") if _holds_change(path))


def _holds_change(path: Path) -> bool:
    try:
        return b'"perturbations"' in read_regular(path)
    except OSError:  # no file, or more than any step has: nothing that is wanted
        return True
