"""The whole way once, on real images that come with scikit-learn: train, measure, explain."""

from captum_lipschitz.demo.run import DemoSettings as DemoSettings
from captum_lipschitz.demo.run import run_demo as run_demo

__all__ = ["DemoSettings", "run_demo"]
