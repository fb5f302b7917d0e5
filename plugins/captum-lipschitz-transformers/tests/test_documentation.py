"""Every example runs, every module says what it is, and the plugin is found by its entry point."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from models import Images, Noted, arguments, explicit_steps, regularizer, relative_error, vit
from transformers import Trainer

import captum_lipschitz_transformers as plugin
from captum_lipschitz.plugin import Removable, TrainingHookLike, plugins
from captum_lipschitz_transformers import components

MODULES = [plugin.__name__, *(f"{plugin.__name__}.{module.name}" for module in pkgutil.iter_modules(plugin.__path__))]
README = Path(__file__).parents[1] / "README.md"


def _installed():
    try:
        metadata.distribution("captum-lipschitz-transformers")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture(autouse=True)
def _a_new_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(name)
    assert module.__doc__
    failed, _ = doctest.testmod(module)
    assert failed == 0


def test_every_export_exists():
    assert {getattr(plugin, name).__name__ for name in plugin.__all__} == set(plugin.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = plugin.nothing


def test_readme_snippets_run():
    names = {}
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(snippets) == 2
    exec(compile(snippets[0], str(README), "exec"), names)  # noqa: S102 - our own README
    rows = names["trainer"].state.log_history
    assert any("eval_ara" in row for row in rows)
    AcceleratorState._reset_state(reset_partial_state=True)
    exec(compile(snippets[1], str(README), "exec"), names)  # noqa: S102
    assert names["regularizer"].state_dict()["steps"] == 2


def test_the_package_imports_neither_torch_nor_transformers():
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; import captum_lipschitz_transformers; "
        "sys.exit(', '.join({'torch', 'transformers', 'captum_lipschitz'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not _installed(), reason="captum-lipschitz-transformers is not installed, so has no entry point")
def test_loaded_through_the_entry_point():
    (record,) = [record for record in plugins() if record.distribution == "captum-lipschitz-transformers"]
    assert (record.name, record.status, record.error) == ("transformers", "loaded", None)
    assert [component.name for component in record.components] == ["transformers:lipschitz"]


def test_the_training_hook_regularises_a_trainer_until_it_is_removed():
    (spec,) = components.captum_lipschitz_training_hooks()
    hook = spec.factory(strength=100.0, generator=regularizer().generator)
    assert isinstance(hook, TrainingHookLike)
    noted, data = Noted(), Images()
    trainer = Trainer(vit(), arguments(), train_dataset=data, callbacks=[noted])
    handle = hook(trainer)
    assert isinstance(handle, Removable)
    trainer.train()
    (expected,) = explicit_steps(vit(), [regularizer(100.0)], [data.batches()])
    assert relative_error(noted.gradients[0], expected) < 2e-6
    handle.remove()
    assert type(trainer) is Trainer
