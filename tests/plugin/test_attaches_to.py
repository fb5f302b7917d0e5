"""Hosts see, before they use a training hook, whose objects it attaches to: in Python, on the command line."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from captum_lipschitz.cli import main
from captum_lipschitz.plugin import get

pytestmark = pytest.mark.usefixtures("loader")

HOST_TOOL = Path(__file__).resolve().parents[2] / "examples" / "host_tool" / "host_tool.py"
SOURCE = """
from captum_lipschitz.plugin import ComponentSpec, hookimpl

def factory(*, strength):
    raise AssertionError("a host that has no such object has made it")

@hookimpl
def captum_lipschitz_training_hooks():
    return [ComponentSpec("acme:penalty", "training_hook", factory, "in a task", "", attaches_to="acme.tasks.Task")]
"""


def test_it_is_known_before_the_component_is_made(install):
    install("acme", SOURCE)
    assert get("training_hook", "acme:penalty").attaches_to == "acme.tasks.Task"
    assert get("training_hook", "lipschitz").attaches_to == ""


def test_it_is_listed(install, capsys):
    install("acme", SOURCE)
    assert main(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (theirs,) = [line for line in lines if "acme:penalty" in line]
    assert theirs.endswith(" in a task (attaches to acme.tasks.Task)")
    (ours,) = [line for line in lines if line.split()[:2] == ["training_hook", "lipschitz"]]
    assert "attaches to" not in ours
    assert main(["plugins", "--json"]) == 0
    listed = [c for record in json.loads(capsys.readouterr().out) for c in record["components"]]
    attaching = {c["name"]: c["attaches_to"] for c in listed if c["kind"] == "training_hook"}
    assert attaching["acme:penalty"] == "acme.tasks.Task"
    assert attaching["lipschitz"] == ""


def test_the_example_of_a_host_uses_none_that_attaches_to_something_else(install, capsys):
    pytest.importorskip("sklearn", reason="the example's digits ship with scikit-learn")
    install("acme", SOURCE)
    runpy.run_path(str(HOST_TOOL))["main"](["acme:penalty"])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "training_hook: acme:penalty: not used: it attaches to a acme.tasks.Task"
    )
