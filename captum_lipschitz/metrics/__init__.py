"""Measures of robustness: pure functions of a model and data."""

from captum_lipschitz.metrics.ara import accuracy_robustness_area as accuracy_robustness_area
from captum_lipschitz.metrics.comparison import AraComparison as AraComparison
from captum_lipschitz.metrics.comparison import compare as compare
from captum_lipschitz.metrics.result import AraResult as AraResult

__all__ = ["AraComparison", "AraResult", "accuracy_robustness_area", "compare"]
