"""The Accuracy-Robustness Area as a job: model, weights and images from files, in chunks that survive a kill."""

from captum_lipschitz.measure.run import run_ara as run_ara
from captum_lipschitz.measure.settings import AraSettings as AraSettings

__all__ = ["AraSettings", "run_ara"]
