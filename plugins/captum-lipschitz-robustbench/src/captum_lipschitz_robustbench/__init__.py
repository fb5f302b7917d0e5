"""Captum_lipschitz beside RobustBench: the ARA of models in the form of its zoo. Importing this does not import it."""

from captum_lipschitz_robustbench.autoattack import provide_autoattack as provide_autoattack
from captum_lipschitz_robustbench.benchmark import benchmark_ara as benchmark_ara
from captum_lipschitz_robustbench.result import BenchmarkAra as BenchmarkAra

__all__ = ["BenchmarkAra", "benchmark_ara", "provide_autoattack"]
