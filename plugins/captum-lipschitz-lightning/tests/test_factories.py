"""Lightning finds the factories by their entry points, and they attach nothing that was not asked for."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric import Fabric
from modules import Classifier, data, explicit_steps, fit, loader, relative_error
from torch.nn import functional as F

from captum_lipschitz import AdaptiveStrength, LipschitzRegularizer, MinimumNormAttack
from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError, UnsupportedLossError
from captum_lipschitz.plugin import Removable, TrainingHookLike, plugins
from captum_lipschitz_lightning import AraCallback, FabricLipschitz, LipschitzCallback, components
from captum_lipschitz_lightning.configuration import FILE, VARIABLE
from captum_lipschitz_lightning.factories import fabric_callbacks, trainer_callbacks

README = Path(__file__).parents[1] / "README.md"
ASKED = {
    "lipschitz": {"strength": {"target_loss": 1.5}, "model": "net", "labels": 1, "every": 2},
    "ara": {"every_n_epochs": 2, "max_images": 8, "bounds": [0, 1], "attack": "minimum_norm"},
    "fabric": {"strength": 3.0},
}


def _installed():
    try:
        metadata.distribution("captum-lipschitz-lightning")
    except metadata.PackageNotFoundError:
        return False
    return True


installed = pytest.mark.skipif(
    not _installed(), reason="captum-lipschitz-lightning is not installed, so has no entry points: pip install -e ."
)


def _ours(callbacks):
    return [type(one).__name__ for one in callbacks if type(one).__module__.startswith("captum_lipschitz")]


def test_nothing_by_default_nor_for_an_empty_variable(monkeypatch):
    assert trainer_callbacks() == fabric_callbacks() == []
    monkeypatch.setenv(VARIABLE, "  ")
    Path(FILE).write_text(json.dumps(ASKED))
    assert trainer_callbacks() == fabric_callbacks() == []


@pytest.mark.parametrize("way", ["variable", "path", "file"])
def test_what_was_asked_for(monkeypatch, tmp_path, way):
    if way == "variable":
        monkeypatch.setenv(VARIABLE, json.dumps(ASKED))
    else:
        path = tmp_path / (FILE if way == "file" else "mine.json")
        path.write_text(json.dumps(ASKED))
        if way == "path":
            monkeypatch.setenv(VARIABLE, str(path))
    lipschitz, ara = trainer_callbacks()
    (fabric,) = fabric_callbacks()
    assert (type(lipschitz), type(ara), type(fabric)) == (LipschitzCallback, AraCallback, FabricLipschitz)
    assert isinstance(lipschitz.regularizer.controller, AdaptiveStrength)
    assert (lipschitz.regularizer.every, lipschitz.model, lipschitz.labels) == (2, "net", 1)
    assert (ara.every_n_epochs, ara.max_images, ara.settings["bounds"]) == (2, 8, (0, 1))
    assert isinstance(ara.settings["attack"], MinimumNormAttack)
    assert float(fabric.regularizer.controller.strength) == 3.0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nowhere.json", f"{VARIABLE}: expected a JSON object, .* got 'nowhere.json', a file that cannot be read"),
        ("{", f"{VARIABLE}: expected a JSON object.* got no JSON"),
        ('{"lipschitz": 3}', "got {'lipschitz': 3}"),
        ('{"lipshitz": {}}', r"got the sections \['lipshitz'\]"),
        ('{"lipschitz": {}}', "lipschitz.strength: expected a number"),
    ],
)
def test_what_cannot_be_used_is_said(monkeypatch, value, words):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(InvalidInputError, match=words):
        trainer_callbacks()


@installed
def test_lightning_loads_them(monkeypatch):
    quiet = {"logger": False, "accelerator": "cpu", "enable_checkpointing": False}
    assert _ours(pl.Trainer(**quiet).callbacks) == []
    assert _ours(Fabric(accelerator="cpu")._callbacks) == []
    monkeypatch.setenv(VARIABLE, json.dumps(ASKED))
    assert _ours(pl.Trainer(**quiet).callbacks) == ["LipschitzCallback", "AraCallback"]
    assert _ours(Fabric(accelerator="cpu")._callbacks) == ["FabricLipschitz"]


@installed
def test_loaded_through_the_entry_point_of_captum_lipschitz():
    (record,) = [record for record in plugins() if record.distribution == "captum-lipschitz-lightning"]
    assert (record.name, record.status, record.error) == ("lightning", "loaded", None)
    assert [component.name for component in record.components] == ["lightning:lipschitz"]


def test_factories_import_nothing_that_was_not_asked_for():
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; from captum_lipschitz_lightning import factories; "
        "assert factories.trainer_callbacks() == factories.fabric_callbacks() == []; "
        "sys.exit(', '.join({'torch', 'lightning', 'captum_lipschitz', 'captum'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _explicit(net):
    regularizer = LipschitzRegularizer(strength=100.0, generator=torch.Generator().manual_seed(5))
    return explicit_steps(net, [regularizer], [list(loader(8))])


def test_the_training_hook_regularises_a_module_until_it_is_removed():
    (spec,) = components.captum_lipschitz_training_hooks()
    hook = spec.factory(strength=100.0, generator=torch.Generator().manual_seed(5))
    assert isinstance(hook, TrainingHookLike)
    module = Classifier()
    handle = hook(module)
    assert isinstance(handle, Removable)
    fit(module, loader(8))
    (expected,) = _explicit(Classifier().net)
    assert relative_error(module.gradients[0], expected) < 2e-6
    handle.remove()
    handle.remove()
    assert "training_step" not in vars(module)


def test_fabric_trains_with_the_explicit_losss_gradients():
    callback = FabricLipschitz(strength=100.0, generator=torch.Generator().manual_seed(5))
    fabric = Fabric(accelerator="cpu", callbacks=[callback])
    net = Classifier().net
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=0.1))
    images, labels = data(8)
    fabric.backward(F.cross_entropy(model(images), labels))
    found = torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
    optimizer.step()
    (expected,) = _explicit(Classifier().net)
    assert relative_error(found, expected) < 2e-6
    assert callback.state_dict()["steps"] == 1
    again = FabricLipschitz(strength=100.0)
    again.load_state_dict(callback.state_dict())
    assert torch.equal(again.state_dict()["generator"], callback.state_dict()["generator"])


def test_fabric_refuses_what_it_cannot_read_and_a_second_model():
    fabric = Fabric(accelerator="cpu", callbacks=[FabricLipschitz(strength=1.0)])
    model = fabric.setup(Classifier().net)
    images, labels = data(8)
    with pytest.raises(UnsupportedLossError, match="label smoothing"):
        fabric.backward(F.cross_entropy(model(images), labels, label_smoothing=0.1))
    with pytest.raises(CaptumLipschitzError, match="expected one model per FabricLipschitz"):
        fabric.setup(Classifier().net)


def test_readme_snippet_runs():
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {}
    exec(compile(snippet, str(README), "exec"), names)  # noqa: S102 - our own README
    assert names["ara"].result.area >= 0
    assert float(names["trainer"].callback_metrics["lipschitz_penalty"]) > 0
