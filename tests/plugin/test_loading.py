"""Guarded loading: whatever one plugin does wrong is recorded and warned of, and the others are there."""

import sys
import threading
import warnings
from typing import NamedTuple

import pytest

from captum_lipschitz.errors import CaptumLipschitzWarning, PluginError
from captum_lipschitz.plugin import components, plugins
from captum_lipschitz.plugin.manager import STRICT, Loader, PluginRecord

pytestmark = pytest.mark.usefixtures("loader")

HEAD = "from captum_lipschitz.plugin import ComponentSpec, hookimpl\n"


def bringing(*names: str, hook: str = "captum_lipschitz_attacks", kind: str = "attack", extra: str = "") -> str:
    specs = ", ".join(f"ComponentSpec({name!r}, {kind!r}, dict, '', ''{extra})" for name in names)
    return f"{HEAD}@hookimpl\ndef {hook}():\n    return [{specs}]\n"


def hook(body: str, *, name: str = "captum_lipschitz_attacks", mark: str = "@hookimpl", arguments: str = "") -> str:
    return f"{HEAD}{mark}\ndef {name}({arguments}):\n    {body}\n"


class Broken(NamedTuple):
    source: str
    status: str
    error: str
    entry: str | None = None


BROKEN = {
    "import fails": Broken("import no_such_module_anywhere", "failed to import", "No module named"),
    "import exits": Broken("raise SystemExit(3)", "failed to import", "SystemExit: 3"),
    "not Python": Broken("def", "failed to import", "SyntaxError"),
    "unprintable error": Broken(
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "failed to import", "E: <exception str"
    ),
    "module absent": Broken("", "failed to import", "No module named 'fake_absent'", "fake_absent"),
    "object absent": Broken("", "failed to import", "has no attribute 'absent'", "fake_broken:absent"),
    "entry point is no name": Broken("", "failed to import", "Error", "not a name!"),
    "empty module": Broken("", "invalid hook", "no function marked with captum_lipschitz.plugin.hookimpl"),
    "object is None": Broken("nothing = None", "invalid hook", "no function marked", "fake_broken:nothing"),
    "misspelt": Broken(
        hook("return []", name="captum_lipschitz_atacks"),
        "invalid hook",
        "no hook is named 'captum_lipschitz_atacks'; there are ['captum_lipschitz_attacks', ",
    ),
    "misspelt, foreign prefix": Broken(hook("return []", name="attacks"), "invalid hook", "no hook is named 'attacks'"),
    "misspelt in specname": Broken(
        hook("return []", name="it", mark="@hookimpl(specname='captum_lipschitz_all')"),
        "invalid hook",
        "no hook is named 'captum_lipschitz_all'",
    ),
    "misspelt, unmarked": Broken(
        bringing("acme:it") + "def captum_lipschitz_metric(): return []",
        "invalid hook",
        "'captum_lipschitz_metric' looks like a hook and is none; there are ",
    ),
    "unmarked": Broken(hook("return []", mark=""), "invalid hook", "is none; mark it with @hookimpl"),
    "argument": Broken(hook("return []", arguments="config"), "invalid hook", "config"),
    "wrapper": Broken(hook("return (yield)", mark="@hookimpl(wrapper=True)"), "invalid hook", "wrappers would change"),
    "register fails": Broken(
        "class It:\n    def __dir__(self): raise OSError('no directory')\nit = It()",
        "failed to register",
        "OSError: no directory",
        "fake_broken:it",
    ),
    "hook raises": Broken(hook("return 1 / 0"), "hook failed", "captum_lipschitz_attacks raised ZeroDivisionError"),
    "hook exits": Broken(hook("raise SystemExit"), "hook failed", "captum_lipschitz_attacks raised SystemExit"),
    "class, not object": Broken(
        f"{HEAD}class It:\n    @hookimpl\n    def captum_lipschitz_attacks(self): return []",
        "hook failed",
        "missing 1 required positional argument: 'self'",
        "fake_broken:It",
    ),
    "component refused": Broken(
        hook("return [ComponentSpec('two words', 'attack', dict, '', '')]"), "hook failed", "InvalidInputError: name: "
    ),
    "returns nothing": Broken(hook("pass"), "invalid components", "expected a list, got NoneType"),
    "returns a component": Broken(
        hook("return ComponentSpec('acme:it', 'attack', dict, '', '')"), "invalid components", "got ComponentSpec"
    ),
    "returns a generator": Broken(hook("yield"), "invalid components", "expected a list, got generator"),
    "returns strings": Broken(hook("return ['it']"), "invalid components", "a list of ComponentSpec, got one of str"),
    "wrong kind": Broken(
        bringing("acme:it", kind="metric"), "invalid components", "expected kind 'attack', got 'metric' of 'acme:it'"
    ),
    "name taken": Broken(
        bringing("acme:it", "paper"), "clash", "attack 'paper' is already registered by 'builtin' of captum-lipschitz"
    ),
    "name twice": Broken(bringing("acme:it", "acme:it"), "clash", "attack 'acme:it' is declared twice"),
    "other version": Broken(
        bringing("acme:it", extra=", api_version=2"),
        "wrong api version",
        "'acme:it' is written for version 2, this is version 1",
    ),
    "half broken": Broken(
        bringing("acme:it") + "@hookimpl\ndef captum_lipschitz_metrics():\n    raise ValueError('half')",
        "hook failed",
        "captum_lipschitz_metrics raised ValueError: half",
    ),
}


def records() -> dict[str, PluginRecord]:
    return {record.distribution: record for record in plugins()}


def names() -> list[str]:
    return [component.name for component in components()]


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_is_recorded_and_takes_nothing_else_down(case, install):
    broken = BROKEN[case]
    install("before", bringing("before:it"))
    install("broken", broken.source, entry=broken.entry, version="0.3")
    install("later", bringing("later:it"))
    with pytest.warns(CaptumLipschitzWarning, match=f"plugin 'broken' of broken 0.3: {broken.status}") as caught:
        found = names()
    assert len([warning for warning in caught if warning.category is CaptumLipschitzWarning]) == 1
    record = records()["broken"]
    assert (record.name, record.version, record.status, record.components) == ("broken", "0.3", broken.status, ())
    assert broken.error in record.error
    assert "\n" not in record.error
    assert {"before:it", "later:it", "minimum_norm", "ara"} <= set(found)
    assert "acme:it" not in found


def test_failures_are_warned_of_once(install):
    install("one", "raise ValueError")
    install("two", "raise ValueError")
    with pytest.warns(CaptumLipschitzWarning) as caught:
        plugins()
    assert [str(warning.message).split(" 1.0: ")[0] for warning in caught] == [
        "plugin 'one' of one",
        "plugin 'two' of two",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plugins(), components()


def test_warning_turned_into_an_error_leaves_the_components(install):
    install("broken", "raise ValueError")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CaptumLipschitzWarning):
            plugins()
        assert "minimum_norm" in names()


def test_good_plugin(install):
    install("acme-attacks", bringing("acme:one", "acme:two"), version="2.5")
    record = records()["acme-attacks"]
    assert (record.name, record.version, record.status, record.error) == ("acme-attacks", "2.5", "loaded", None)
    assert [component.name for component in record.components] == ["acme:one", "acme:two"]
    assert str(record) == "'acme-attacks' of acme-attacks 2.5: loaded"


def test_plugin_may_be_an_object(install):
    install(
        "acme",
        """
        from captum_lipschitz.plugin import ComponentSpec, hookimpl

        class It:
            @hookimpl
            def captum_lipschitz_attacks(self):
                return [ComponentSpec("acme:it", "attack", dict, "", "")]

        it = It()
        """,
        entry="fake_acme:it",
    )
    assert "acme:it" in names()


def test_hook_by_specname_and_optional_hook_are_taken(install):
    named = bringing("acme:it", hook="mine").replace("@hookimpl", "@hookimpl(specname='captum_lipschitz_attacks')")
    optional = "\n@hookimpl(optionalhook=True)\ndef captum_lipschitz_of_version_2():\n    return []\n"
    install("acme", named + optional)
    assert "acme:it" in names()
    assert records()["acme"].status == "loaded"


def test_earlier_plugin_keeps_the_name_whatever_the_order_on_disk(install):
    install("zeta", bringing("shared", "zeta:own"))
    install("Acme", bringing("shared"))
    with pytest.warns(CaptumLipschitzWarning, match=r"'zeta'.*clash.*'shared' is already registered by 'Acme' of Acme"):
        order = [record.distribution for record in plugins() if record.distribution in ("zeta", "Acme")]
    assert order == ["Acme", "zeta"]
    assert plugins()[0].name == "builtin"
    assert "zeta:own" not in names()


def test_same_name_of_two_kinds_is_no_clash(install):
    install("acme", bringing("paper", kind="metric", hook="captum_lipschitz_metrics"))
    assert sorted(component.kind for component in components() if component.name == "paper") == ["attack", "metric"]


def test_of_two_copies_the_first_on_the_path_is_taken(install, tmp_path, monkeypatch):
    install("acme-it", bringing("acme:it"), version="2.0")
    old = tmp_path / "old"
    (old / "Acme_It-1.0.dist-info").mkdir(parents=True)
    (old / "Acme_It-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: Acme_It\nVersion: 1.0\n")
    (old / "Acme_It-1.0.dist-info" / "entry_points.txt").write_text("[captum_lipschitz]\nold = fake_acme_it\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(old)])
    assert [record.version for record in plugins() if record.distribution.lower().startswith("acme")] == ["2.0"]


def test_damaged_metadata_of_one_distribution(install, tmp_path):
    install("acme", bringing("acme:it"))
    damaged = tmp_path / "damaged-1.0.dist-info"
    damaged.mkdir()
    (damaged / "METADATA").write_text("Metadata-Version: 2.1\nName: damaged\nVersion: 1.0\n")
    (damaged / "entry_points.txt").write_text("[captum_lipschitz]\nno equals sign\n")
    with pytest.warns(CaptumLipschitzWarning, match="'entry_points.txt' of damaged 1.0: failed to import"):
        assert "acme:it" in names()


def test_distribution_without_metadata_still_loads(install, tmp_path):
    install("acme", bringing("acme:it"))
    (tmp_path / "acme-1.0.dist-info" / "METADATA").unlink()
    assert "acme:it" in names()
    assert [record.distribution for record in plugins() if record.name == "acme"] == ["unknown"]


@pytest.mark.parametrize("source", ["raise KeyboardInterrupt", hook("raise KeyboardInterrupt")])
def test_ctrl_c_passes_and_the_next_look_up_loads(source, install, tmp_path):
    install("acme", source)
    with pytest.raises(KeyboardInterrupt):
        plugins()
    (tmp_path / "fake_acme.py").write_text(bringing("acme:it") + "# of another size\n")
    sys.modules.pop("fake_acme", None)
    assert "acme:it" in names()


def test_strict_mode_raises_at_every_look_up_and_names_all_that_failed(install, monkeypatch):
    install("one", "raise ValueError('first')")
    install("two", hook("pass"))
    monkeypatch.setenv(STRICT, "1")
    for look_up in (plugins, components):
        with pytest.raises(PluginError, match=r"'one' of one 1.0: failed .*first.*'two' of two 1.0: inval") as caught:
            look_up()
        assert isinstance(caught.value.__cause__.__cause__, ValueError)


@pytest.mark.parametrize("value", ["0", ""])
def test_strict_mode_off(value, install, monkeypatch):
    install("one", "raise ValueError('first')")
    monkeypatch.setenv(STRICT, value)
    with pytest.warns(CaptumLipschitzWarning):
        assert "minimum_norm" in names()


def test_strict_mode_is_content_with_good_plugins(install, monkeypatch):
    install("acme", bringing("acme:it"))
    monkeypatch.setenv(STRICT, "1")
    assert "acme:it" in names()


def test_plugin_that_looks_up_while_it_is_loaded_is_refused(install):
    install("acme", "from captum_lipschitz.plugin import components\ncomponents()")
    with pytest.warns(CaptumLipschitzWarning, match=r"failed to import.*look them up when called"):
        plugins()


def test_threads_load_once():
    calls, gate = [], threading.Barrier(8)

    def find():
        calls.append(1)
        return []

    loader, seen = Loader(find), []

    def look_up():
        gate.wait()
        seen.append(loader.loaded())

    threads = [threading.Thread(target=look_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(seen) == 8
    assert all(loaded is seen[0] for loaded in seen)
