"""As a user meets the plugin: by name, through its entry point, beside the Accuracy-Robustness Area."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from captum_lipschitz import MinimumNormAttack, accuracy_robustness_area, create_attack
from captum_lipschitz.errors import MissingDependencyError
from captum_lipschitz.plugin import AttackLike, components, plugins

COUNT = 36  # of torchattacks' 39 classes
NAMES = ["torchattacks:PGDL2", "torchattacks:FAB", "torchattacks:DeepFool", "torchattacks:APGD"]
README = Path(__file__).parents[1] / "README.md"


def _installed() -> bool:
    try:
        metadata.distribution("captum-lipschitz-torchattacks")
    except metadata.PackageNotFoundError:
        return False
    return True


installed = pytest.mark.skipif(
    not _installed(), reason="captum-lipschitz-torchattacks is not installed, so has no entry point: pip install -e ."
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(48, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)
    ).eval()


@pytest.fixture
def data(model):
    images = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return images, model(images).argmax(1)


def test_hook_brings_one_component_for_each_class():
    import captum_lipschitz_torchattacks as plugin

    brought = plugin.captum_lipschitz_attacks()
    assert len({component.name for component in brought}) == len(brought) == COUNT
    assert set(NAMES) <= {component.name for component in brought}
    assert all(component.summary and component.reference for component in brought)
    made = [component.factory() for component in brought]
    assert all(isinstance(attack, AttackLike) for attack in made)
    assert [attack.name for attack in made] == [component.name for component in brought]


@installed
def test_loaded_through_the_entry_point():
    (record,) = [record for record in plugins() if record.distribution == "captum-lipschitz-torchattacks"]
    assert (record.name, record.status, record.error) == ("torchattacks", "loaded", None)
    assert record.version == metadata.version("captum-lipschitz-torchattacks")
    assert len(record.components) == COUNT
    assert set(NAMES) <= {component.name for component in components("attack")}


@installed
@pytest.mark.parametrize("name", NAMES)
def test_accuracy_robustness_area_by_name(name, model, data):
    result = accuracy_robustness_area(model, data, attack=create_attack(name), bounds=(0, 1))
    reference = accuracy_robustness_area(model, data, attack=MinimumNormAttack(bounds=(0, 1)), bounds=(0, 1))
    assert result.not_found == 0
    # Weaker attacks: larger areas, though not by much on so small a network.
    assert 0.99 * reference.area <= result.area <= 1.1 * reference.area
    assert result.attack == name


def test_importing_the_plugin_does_not_import_torchattacks():
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; import captum_lipschitz_torchattacks as plugin; "
        "[component.factory() for component in plugin.captum_lipschitz_attacks()]; "
        "sys.exit(', '.join({'torchattacks', 'torchvision', 'captum', 'matplotlib'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@installed
def test_without_torchattacks_the_error_says_how_to_install_it(model, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    attack = create_attack("torchattacks:PGDL2")
    with pytest.raises(MissingDependencyError, match="pip install captum-lipschitz-torchattacks"):
        attack(model, *data)


@installed
def test_readme_snippet_runs(capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(snippet, str(README), "exec"), {})  # noqa: S102 - our own README
    assert capsys.readouterr().out.startswith("ARA ")
