"""What the wheels and sdists in a folder hold, and what they must not: ``python .ci/look_into_packages.py DIST``.

Prints a line for each file, and ends with status 1 where one of them is not as it should be.
"""

from __future__ import annotations

import email
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
UNWANTED = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".ci", ".git"}
OF_WHEELS = {"tests", "docs", "examples", "benchmarks", "plugins"}
OF_THE_CORE = ("captum_lipschitz", "tests", "docs", "examples", "benchmarks")
ASSETS = sorted(path.name for path in (ROOT / "captum_lipschitz" / "report" / "assets").iterdir())


def main(folder: Path) -> int:
    """Look into every distribution; the number of those in which something is wrong is printed."""
    wrong = 0
    for source in SOURCES:
        name = source.name.replace("-", "_") if source != ROOT else "captum_lipschitz"
        for pattern, look in ((f"{name}-[0-9]*.whl", _wheel), (f"{name}-[0-9]*.tar.gz", _sdist)):
            files = list(folder.glob(pattern))
            faults = look(files[0], name, source) if len(files) == 1 else [f"expected one {pattern}, got {len(files)}"]
            wrong += bool(faults)
            print(f"{files[0].name if files else name}: {'; '.join(faults) or 'as it should be'}")
    print(f"{2 * len(SOURCES)} files, {wrong} with faults")
    return int(wrong > 0)


def _wheel(path: Path, name: str, source: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (metadata,) = (entry for entry in names if entry.endswith(".dist-info/METADATA"))
        fields = email.message_from_bytes(archive.read(metadata))
    faults = _unwanted(names, UNWANTED | OF_WHEELS)
    info = metadata.rpartition("/")[0]
    code = source if source == ROOT else source / "src"
    expected = {entry.relative_to(code).as_posix() for entry in (code / name).rglob("*.py")} | {f"{name}/py.typed"}
    expected |= {f"{info}/licenses/LICENSE", f"{info}/RECORD"}
    if source == ROOT:
        expected |= {f"captum_lipschitz/report/assets/{asset}" for asset in ASSETS} | {f"{info}/entry_points.txt"}
    faults += [f"lacks {entry}" for entry in sorted(expected - set(names))]
    tops = {PurePosixPath(entry).parts[0] for entry in names} - {name, info}
    faults += [f"has {top} at its top" for top in sorted(tops)]
    if fields["License-Expression"] != "MIT":
        faults.append(f"License-Expression is {fields['License-Expression']}")
    required = [line for line in fields.get_all("Requires-Dist", []) if line.startswith("captum-lipschitz<")]
    if source != ROOT and required != ["captum-lipschitz<2,>=1.0"]:
        faults.append(f"requires {required} of the core")
    return faults


def _sdist(path: Path, name: str, source: Path) -> list[str]:
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
    faults = _unwanted(names, UNWANTED)
    folders = OF_THE_CORE if source == ROOT else (f"src/{name}", "tests")
    files = {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"} | ({"CHANGELOG.md"} if source == ROOT else set())
    for folder in folders:
        files |= {
            entry.relative_to(source).as_posix()
            for entry in (source / folder).rglob("*")
            if entry.suffix in {".py", ".md", ".png", ".yaml", ".html", ".css", ".js", ".typed"}
        }
    files = {entry for entry in files if not UNWANTED & set(PurePosixPath(entry).parts)}
    if source == ROOT:
        faults += _unwanted(names, {"plugins"})
    return faults + [f"lacks {entry}" for entry in sorted(files - names)]


def _unwanted(names: list[str] | set[str], unwanted: set[str]) -> list[str]:
    return [f"has {entry}" for entry in sorted(names) if unwanted & set(PurePosixPath(entry).parts[:-1])]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
