"""Hold a demo's results.json against what the README promises of it; exit status 1 where it falls short.

python benchmarks/check_demo.py captum-lipschitz-demo/results.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

LEAST_RATIO = 2.4  # of the attack ARA, regularised over plain
MOST_ACCURACY_LOST = 0.01


def main(path: str) -> int:
    """Compare, say what was found, and return the exit status."""
    results = json.loads(Path(path).read_text(encoding="utf-8"))
    ratio = results["attack_ara_ratio"]
    lost = results["plain"]["clean_accuracy"] - results["regularised"]["clean_accuracy"]
    missing = sum(results[name][f"{kind}_not_found"] for name in ("plain", "regularised") for kind in ("attack", "btr"))
    print(f"attack ARA ratio {ratio:.2f}, clean accuracy lost {lost:.4f}, images not found {missing}")
    return 0 if ratio >= LEAST_RATIO and lost <= MOST_ACCURACY_LOST else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
