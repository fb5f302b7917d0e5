"""The sources read no pickle from a file, run no text and start no shell: every file of ours is looked through."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("captum_lipschitz", "plugins", "examples", "benchmarks", ".ci", "docs")
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
HARMLESS = {"pickle.UnpicklingError", "pickle.dumps"}  # of these, what reads nothing
READERS = {  # by what they are called, or end with: what has to be said to them, and what is then safe
    "torch.load": ("weights_only", True),
    ".load_state_dict_from_url": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    ".read_array": ("allow_pickle", False),
    ".extractall": ("filter", "data"),
    ".extract": ("filter", "data"),
    "shutil.unpack_archive": ("filter", "data"),
}
NEVER = (
    "eval", "exec", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all",
    "yaml.full_load_all", "yaml.unsafe_load_all", "torch.hub.load", "torch.jit.load",
    "torch.package.PackageImporter", "pandas.read_pickle", "pd.read_pickle",
)  # fmt: skip
OWN_READER = "examples/imagenet/imagenet_training/index.py"  # in place of torch's, which unpickles


def problems(source: str, name: str = "file.py") -> Iterator[str]:
    """What a file does that none of ours may, one line each."""
    tree = ast.parse(source)
    safe_loaders = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and [ast.unparse(base) for base in node.bases] == ["yaml.SafeLoader"]
    }
    for node in ast.walk(tree):
        told = [f"{name}:{getattr(node, 'lineno', 0)}: {why}" for why in _why(node, safe_loaders, name)]
        yield from told


def _why(node: ast.AST, safe_loaders: set[str], name: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        named = (alias for alias in node.names if alias.name != "pickle" or alias.asname)
        yield from (f"import {alias.name}" for alias in named if alias.name.partition(".")[0] in PICKLES)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            if (str(node.module) in PICKLES and full not in HARMLESS) or full in (*NEVER, "torch.load", "numpy.load"):
                yield f"from {node.module} import {alias.name}"
            if alias.name == "FileSystemReader" and name != OWN_READER:
                yield "torch's reader of checkpoints unpickles"
    elif isinstance(node, ast.Attribute):
        full = ast.unparse(node)
        if full.startswith("pickle.") and full not in HARMLESS:
            yield full
    elif isinstance(node, ast.Call):
        yield from _call(node, safe_loaders)


def _call(node: ast.Call, safe_loaders: set[str]) -> Iterator[str]:
    called = ast.unparse(node.func)
    said = {keyword.arg: keyword.value for keyword in node.keywords}
    for ending, (word, value) in READERS.items():
        found = called.endswith(ending) if ending.startswith(".") else called == ending
        if found and ast.unparse(said.get(word, ast.Constant(None))) != repr(value):
            yield f"{called} without {word}={value!r}"
    if called in NEVER:
        yield called
    if called == "yaml.load" and ast.unparse(said.get("Loader", ast.Constant(None))) not in safe_loaders:
        yield "yaml.load without a loader that constructs what SafeLoader does"
    if called == "Image.open" and "formats" not in said:
        yield "Image.open without formats=, of which some start programs"
    if "shell" in said and ast.unparse(said["shell"]) != "False":
        yield f"{called} with a shell"


def _sources() -> list[Path]:
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if not any(_others(part) for part in path.relative_to(ROOT).parts)]


def _others(folder: str) -> bool:
    """Tests plant what is forbidden; environments and the site are not ours."""
    return folder in ("tests", "site") or folder.startswith(("venv", ".venv"))


def test_no_source_reads_pickles_or_runs_text() -> None:
    paths = _sources()
    assert len(paths) > 250
    found = [
        line for path in paths for line in problems(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import dill", "import joblib", "import shelve", "import marshal", "from pickle import load",
        "import pickle as p", "import pickle\npickle.loads(b'')",
        "import pickle\npickle.Unpickler(f)", "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)", "from torch import load",
        "np.load(path)", "numpy.load(path, allow_pickle=True)", "np.lib.format.read_array(file)", "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)", "eval(text)", "exec(text)", "os.system(text)",
        "subprocess.run(text, shell=True)", "archive.extractall(folder)",
        "archive.extract(one, filter='fully_trusted')",
        "torch.hub.load(where, name)", "torch.hub.load_state_dict_from_url(url)",
        "from torch.distributed.checkpoint import FileSystemReader", "Image.open(path)",
    ],
)  # fmt: skip
def test_what_none_may_do_is_found(source: str) -> None:
    assert list(problems(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()", "torch.load(path, weights_only=True)", "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)", "safetensors.torch.load(content)",
        "class L(yaml.SafeLoader): pass\nyaml.load(text, Loader=L)",
        "import pickle\npickle.dumps(3)",
        "try: pass\nexcept pickle.UnpicklingError: pass", "subprocess.run(command)", "json.loads(text)",
        "archive.extractall(folder, filter='data')", "Image.open(path, formats=('PNG',))",
    ],
)  # fmt: skip
def test_what_all_may_do_is_not(source: str) -> None:
    assert list(problems(source)) == []
