"""A result's figures, curve and pictures in an MLflow run."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import torch
from mlflow.entities import Metric
from mlflow.models.evaluation import EvaluationArtifact, EvaluationResult
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.uri import append_to_uri_path

from captum_lipschitz import AraResult
from captum_lipschitz.errors import CaptumLipschitzWarning
from captum_lipschitz_mlflow.pictures import curve_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def log_ara(
    result: AraResult,
    *,
    name: str = "ara",
    explanations: Figure | Callable[[], Figure] | None = None,
    settings: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    model_id: str | None = None,
    step: int = 0,
) -> EvaluationResult:
    """Log what a measurement found to a run: its figures as metrics, the rest as files.

    Metrics are those of ``metrics_of``; files ``{name}.json`` (everything), ``{name}_curve.csv``, ``{name}_curve.png``
    and, where a figure is given, ``{name}_explanations.png``.

    Args:
        result: of ``accuracy_robustness_area``.
        name: what metrics and files begin with.
        explanations: a figure of ``captum_lipschitz.visualize``, or ``None``; or what draws it, which is called when
            everything else has been logged.
        settings: of the measurement, JSON's types; kept in ``{name}.json``.
        run_id: of the run; ``None`` for the active one, or one that is started for it.
        model_id: of the logged model that the metrics are of, which then has them too; ``None`` for none.
        step: of the metrics.

    Returns:
        Metrics and artifacts, as ``mlflow.models.evaluate`` returns them and ``mlflow.validate_evaluation_results``
        takes them.

    Warns:
        CaptumLipschitzWarning: ``explanations`` was called and failed, so there is no such picture.

    Example:
        >>> from captum_lipschitz import accuracy_robustness_area
        >>> images, labels = torch.rand(8, 4), torch.arange(8) % 3
        >>> with mlflow.start_run():
        ...     logged = log_ara(accuracy_robustness_area(torch.nn.Linear(4, 3), (images, labels)), name="ara_test")
        >>> sorted(logged.artifacts)
        ['ara_test', 'ara_test_curve', 'ara_test_curve_plot']
    """
    metrics = metrics_of(result, name)
    with _run(run_id) as run, tempfile.TemporaryDirectory() as folder:
        moment = get_current_time_millis()
        client = MlflowClient()
        client.log_batch(
            run,
            metrics=[Metric(key, value, moment, step, model_id=model_id, run_id=run) for key, value in metrics.items()],
        )
        files = _write(Path(folder), result, name, settings)
        for file in files.values():
            client.log_artifact(run, str(file))
        # Last, so that what fails in drawing loses the picture and not the measurement.
        picture = _drawn(explanations)
        if picture is not None:
            files[f"{name}_explanations"] = file = Path(folder) / f"{name}_explanations.png"
            picture.savefig(file, dpi=DPI)
            client.log_artifact(run, str(file))
        root = client.get_run(run).info.artifact_uri
        artifacts = {key: _artifact(file, append_to_uri_path(root, file.name)) for key, file in files.items()}
        return EvaluationResult(metrics, artifacts, run)


def metrics_of(result: AraResult, name: str = "ara") -> dict[str, float]:
    """The figures of a result, by their names in a run.

    The area and its bounds are ``inf`` where the images without an answer exceed a share of chance; a store in a
    database keeps that as its largest number. ``{name}_truncated`` is always finite.
    """
    low, high = result.interval
    figures: dict[str, float] = {
        "": result.area,
        "_low": low,
        "_high": high,
        "_truncated": result.truncated_area,
        "_not_found": result.not_found,
        "_clean_accuracy": result.clean_accuracy,
        "_chance_accuracy": result.chance_accuracy,
        "_images": len(result),
        "_doubts": len(result.doubts),
    }
    return {name + suffix: float(value) for suffix, value in figures.items()}


def curve_table(result: AraResult) -> pd.DataFrame:
    """The curve's corners: from each ``perturbation_size`` on, to the next, accuracy is ``accuracy``."""
    finite = result.distances[torch.isfinite(result.distances)]
    sizes = torch.cat([torch.zeros(1, dtype=torch.float64), finite]).unique()
    return pd.DataFrame({"perturbation_size": sizes.numpy(), "accuracy": result.curve(sizes).numpy()})


@contextmanager
def _run(run_id: str | None) -> Iterator[str]:
    """The run's id; a run that has to be started ends here."""
    active = mlflow.active_run()
    if run_id is not None:
        yield run_id
    elif active is not None:
        yield active.info.run_id
    else:
        with mlflow.start_run() as run:
            yield run.info.run_id


def _drawn(explanations: Figure | Callable[[], Figure] | None) -> Figure | None:
    if not callable(explanations):
        return explanations
    try:
        return explanations()
    except Exception as error:  # noqa: BLE001  a network's own code is run again here
        warnings.warn(
            f"explanations: could not be drawn ({type(error).__name__}: {error}); everything else is logged",
            CaptumLipschitzWarning,
            stacklevel=3,
        )
        return None


def _write(folder: Path, result: AraResult, name: str, settings: Mapping[str, Any] | None) -> dict[str, Path]:
    """The files, by the names that they have in an ``EvaluationResult``."""
    files = {name: folder / f"{name}.json", f"{name}_curve": folder / f"{name}_curve.csv"}
    files[f"{name}_curve_plot"] = folder / f"{name}_curve.png"
    content = {**result.to_dict(), **({} if settings is None else {"settings": dict(settings)})}
    files[name].write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    curve_table(result).to_csv(files[f"{name}_curve"], index=False)
    curve_figure(result).savefig(files[f"{name}_curve_plot"], dpi=DPI)
    return files


def _artifact(file: Path, uri: str) -> EvaluationArtifact:
    """The file as MLflow's results hold it, with its content, which their ``save`` writes."""
    from mlflow.models.evaluation import artifacts  # imports pyplot

    if file.suffix == ".json":
        return artifacts.JsonEvaluationArtifact(uri, json.loads(file.read_text(encoding="utf-8")))
    if file.suffix == ".csv":
        return artifacts.CsvEvaluationArtifact(uri, pd.read_csv(file, float_precision="round_trip"))
    from PIL import Image

    with Image.open(file, formats=("PNG",)) as picture:
        picture.load()
        return artifacts.ImageEvaluationArtifact(uri, picture.copy())
