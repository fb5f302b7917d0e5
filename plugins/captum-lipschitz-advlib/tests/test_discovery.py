"""As a user meets the plugin: by name, through its entry point, beside the Accuracy-Robustness Area."""

import doctest
import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest
import torch

from captum_lipschitz import MinimumNormAttack, accuracy_robustness_area, create_attack
from captum_lipschitz.errors import MissingDependencyError
from captum_lipschitz.plugin import AttackLike, components, plugins

NAMES = ["advlib:DDN", "advlib:FMN", "advlib:PDGD", "advlib:PDPGD"]
README = Path(__file__).parents[1] / "README.md"


def _installed() -> bool:
    try:
        metadata.distribution("captum-lipschitz-advlib")
    except metadata.PackageNotFoundError:
        return False
    return True


installed = pytest.mark.skipif(
    not _installed(), reason="captum-lipschitz-advlib is not installed, so has no entry point: pip install -e ."
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(48, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)
    ).eval()


@pytest.fixture
def data(model):
    images = 0.5 + 0.1 * torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return images, model(images).argmax(1)


def test_hook_brings_all_attacks():
    import captum_lipschitz_advlib as plugin

    brought = plugin.captum_lipschitz_attacks()
    assert [component.name for component in brought] == NAMES
    assert all(component.summary and component.reference for component in brought)
    assert [component.factory.__name__ for component in brought] == plugin.__all__
    assert all(isinstance(component.factory(), AttackLike) for component in brought)


@installed
def test_loaded_through_the_entry_point():
    (record,) = [record for record in plugins() if record.distribution == "captum-lipschitz-advlib"]
    assert (record.name, record.status, record.error) == ("advlib", "loaded", None)
    assert record.version == metadata.version("captum-lipschitz-advlib")
    assert [component.name for component in record.components] == NAMES
    assert set(NAMES) <= {component.name for component in components("attack")}


@installed
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("criterion", ["misclassified", "below_chance"])
def test_accuracy_robustness_area_by_name(name, criterion, model, data):
    attack = create_attack(name, steps=200, **({"overshoot": 2} if name == "advlib:FMN" else {}))
    result = accuracy_robustness_area(model, data, attack=attack, criterion=criterion, bounds=(0, 1))
    strong = MinimumNormAttack(bounds=(0, 1))
    reference = accuracy_robustness_area(model, data, attack=strong, criterion=criterion, bounds=(0, 1))
    assert result.not_found == 0
    assert 0.97 * reference.area <= result.area <= 1.6 * reference.area
    assert result.attack.startswith("AdvLib")


def test_adv_lib_is_imported_at_first_use_quietly_and_without_visdom():
    """Whether visdom is installed or not; afterwards it is not there for anybody else."""
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; import captum_lipschitz_advlib as plugin\n"
        "[component.factory() for component in plugin.captum_lipschitz_attacks()]\n"
        "early = {'adv_lib', 'visdom', 'torchvision', 'captum', 'matplotlib'} & set(sys.modules)\n"
        "from importlib import util; found = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'visdom' else found(name, *rest)\n"
        "from captum_lipschitz_advlib.library import advlib; assert advlib() is advlib()\n"
        "sys.exit(f'{early} imported early' if early else 'visdom left' if 'visdom' in sys.modules else None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_adv_lib_the_error_says_how_to_install_it(model, data, monkeypatch):
    from captum_lipschitz_advlib import AdvLibDDN

    monkeypatch.delitem(sys.modules, "adv_lib.attacks", raising=False)
    monkeypatch.setitem(sys.modules, "adv_lib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps adv-lib==0.2.8"):
        AdvLibDDN()(model, *data)


@pytest.mark.parametrize("module", ["ddn", "fmn", "primal_dual"])
def test_examples(module):
    result = doctest.testmod(import_module(f"captum_lipschitz_advlib.{module}"), extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0


@installed
def test_readme_snippet_runs(capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(snippet, str(README), "exec"), {})  # noqa: S102 - our own README
    assert capsys.readouterr().out.startswith("ARA ")
