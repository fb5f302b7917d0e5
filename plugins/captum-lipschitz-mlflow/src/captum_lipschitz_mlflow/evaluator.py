"""The evaluator that MLflow finds by its entry point, ``captum_lipschitz``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mlflow.models.evaluation import EvaluationResult, ModelEvaluator

if TYPE_CHECKING:
    from mlflow.models.evaluation import EvaluationDataset

MODEL_TYPE = "classifier"
OPT_IN = "bounds"
"""The setting that asks for this evaluator where ``evaluate`` names none; ``None`` is a value too."""


class AraEvaluator(ModelEvaluator):
    """Measures the Accuracy-Robustness Area of a logged torch classifier, and logs it with curve and explanations.

    ``mlflow.models.evaluate`` asks every installed evaluator where its ``evaluators`` is ``None``. This one then takes
    no part, unless ``bounds`` is in its ``evaluator_config``: nobody's evaluation becomes slower by an installation.

    Example:
        >>> from mlflow.models import list_evaluators
        >>> AraEvaluator.can_evaluate(model_type="classifier", evaluator_config={})
        False
        >>> AraEvaluator.can_evaluate(model_type="classifier", evaluator_config={"bounds": [0, 1]})
        True

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 ("Accuracy-Robustness Area").
    """

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: dict[str, Any] | None, **kwargs: Any) -> bool:
        """Whether the user asked for it: by name, or with ``bounds`` in the configuration of a classifier."""
        # MLflow calls with equal arguments whether it was named without settings, or asked as one of all installed.
        # Only the latter comes from where the evaluators are resolved; an unknown caller counts as such.
        named = sys._getframe(1).f_code.co_name == "_evaluate"  # noqa: SLF001
        return named or (model_type == MODEL_TYPE and OPT_IN in (evaluator_config or {}))

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: EvaluationDataset,
        run_id: str,
        evaluator_config: dict[str, Any] | None,
        model: Any = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Measure and log; MLflow calls this.

        Args:
            model_type: ``"classifier"``.
            dataset: flat features and classes.
            run_id: the run to log to.
            evaluator_config: see ``Settings``.
            model: a ``PyFuncModel`` of the flavor ``mlflow.pytorch``.
            kwargs: what MLflow gives beside it: ``model_id``, and, for other evaluators, ``extra_metrics``,
                ``custom_artifacts`` and ``predictions``.

        Raises:
            InvalidInputError, InvalidTypeError: for settings, data or a model that cannot be used.
            As ``captum_lipschitz.accuracy_robustness_area``.
        """
        # MLflow imports this module for everybody, so torch is imported only where there is something to measure.
        from captum_lipschitz.errors import InvalidInputError
        from captum_lipschitz_mlflow.data import dtype_of, images_of, labels_of, signature_shape
        from captum_lipschitz_mlflow.measure import measured
        from captum_lipschitz_mlflow.network import check_first_pass, network_of
        from captum_lipschitz_mlflow.record import log_ara
        from captum_lipschitz_mlflow.settings import Settings

        if model_type != MODEL_TYPE:
            raise InvalidInputError(f"model_type: expected {MODEL_TYPE!r}, got {model_type!r}")
        settings = Settings.of(evaluator_config)
        network = network_of(model)
        shape = settings.input_shape or signature_shape(model)
        images = images_of(dataset.features_data, shape=shape, dtype=dtype_of(network))
        check_first_pass(network, images, shaped=shape is not None)
        result, draw = measured(network, images, labels_of(dataset.labels_data), settings)
        # No model_id: MLflow logs the metrics that are returned to the logged model, with the data's name and digest.
        return log_ara(
            result,
            name=settings.name,
            explanations=draw,
            settings=settings.to_dict(),
            run_id=run_id,
        )
