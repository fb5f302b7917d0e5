"""What pip-audit answered, one line for each finding; the exit status of .ci/audit for one distribution."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_TOLD = 3  # packages that were not looked up, by name


def main(path: Path) -> int:
    """0: nothing is known of any package; 1: something is; 2: not all were looked up."""
    try:
        lines, status = told(json.loads(path.read_text(encoding="utf-8"))["dependencies"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        lines, status = ["not looked up: pip-audit gave no answer"], 2
    print("\n".join(lines))
    return status


def told(packages: list[dict[str, Any]]) -> tuple[list[str], int]:
    """The lines, and the status."""
    skipped = [package for package in packages if "skip_reason" in package]
    known = [(package, one) for package in packages for one in package.get("vulns", ())]
    lines = []
    for package, one in known:
        mended = ", ".join(one.get("fix_versions", ())) or "no version yet"
        lines.append(f"{package['name']} {package['version']}: {one['id']}, mended in {mended}")
    lines += [f"not looked up: {package['skip_reason']}" for package in skipped[:_TOLD]]
    looked_up = len(packages) - len(skipped)
    lines.append(f"{looked_up} packages looked up, {len(known)} known vulnerabilities, {len(skipped)} not looked up")
    return lines, 2 if skipped or not packages else 1 if known else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
