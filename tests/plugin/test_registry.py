"""Look-ups by name: what they return, what they say where there is nothing, and what they leave alone."""

import os
import subprocess
import sys
import textwrap

import pytest

from captum_lipschitz.attacks import MinimumNormAttack, PaperAttack
from captum_lipschitz.errors import CaptumLipschitzWarning, UnknownNameError
from captum_lipschitz.plugin import components, create, create_attack, get, plugins

pytestmark = pytest.mark.usefixtures("loader")

HEAVY = ("captum", "matplotlib", "torchvision", "torchattacks")


def test_get_and_components():
    assert get("attack", "paper").factory is PaperAttack
    assert get("attack", "paper") in components()
    assert {component.kind for component in components("attack")} == {"attack"}
    assert [component.name for component in components()][:2] == ["minimum_norm", "paper"]


def test_returned_lists_are_the_callers_own():
    components().clear(), plugins().clear()
    assert components()
    assert plugins()


def test_create_passes_arguments_on():
    attack = create("attack", "minimum_norm", norm="l2")
    assert isinstance(attack, MinimumNormAttack)
    assert attack.norm.name == "l2"
    assert isinstance(create_attack("paper", steps=3), PaperAttack)
    with pytest.raises(TypeError, match="unexpected keyword argument 'step'"):
        create_attack("paper", step=3)


@pytest.mark.parametrize("look_up", [lambda: get("attack", "minimun_norm"), lambda: create_attack("minimun_norm")])
def test_unknown_name_lists_the_choices_and_the_nearest(look_up):
    with pytest.raises(UnknownNameError, match=r"attack: expected one of \[.*'minimum_norm', 'paper'.*\]") as caught:
        look_up()
    assert "got 'minimun_norm'; did you mean 'minimum_norm'?" in str(caught.value)
    assert isinstance(caught.value, LookupError)
    assert "failed" not in str(caught.value)


def test_unknown_name_without_a_near_one():
    with pytest.raises(UnknownNameError) as caught:
        get("metric", "xyz")
    assert "did you mean" not in str(caught.value)


def test_unknown_name_names_the_plugins_that_failed(install):
    install("acme", "import no_such_module_anywhere", version="0.2")
    with pytest.warns(CaptumLipschitzWarning), pytest.raises(UnknownNameError) as caught:
        get("attack", "acme:square")
    assert "Plugins that failed: 'acme' of acme 0.2: failed to import (ModuleNotFoundError" in str(caught.value)


@pytest.mark.parametrize(
    "look_up", [lambda: get("attacks", "paper"), lambda: components("attacks"), lambda: create("attacks", "paper")]
)
def test_unknown_kind_lists_the_kinds_and_loads_nothing(look_up, loader):
    message = r"kind: expected one of \['attack', 'attribution', 'metric', 'training_hook'\], got 'attacks'"
    with pytest.raises(UnknownNameError, match=message + r"; did you mean 'attack'\?"):
        look_up()
    assert loader._loaded is None


def test_nothing_is_loaded_at_import_and_listing_imports_nothing_heavy(install, tmp_path):
    hook = "from captum_lipschitz.plugin import hookimpl\n@hookimpl\ndef captum_lipschitz_metrics(): return []"
    install("acme", hook)
    program = f"""
        import sys
        import captum_lipschitz.plugin as plugin
        assert "fake_acme" not in sys.modules and "captum_lipschitz.plugin.builtin" not in sys.modules
        assert [record.status for record in plugin.plugins() if record.name == "acme"] == ["loaded"]
        plugin.components(), plugin.create_attack("minimum_norm")
        assert "fake_acme" in sys.modules
        sys.exit(", ".join(name for name in {HEAVY!r} if name in sys.modules) or None)
    """
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout == ""
