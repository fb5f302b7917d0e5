"""Finished steps: read back to the bit, or counted as not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.report.store import Step, StepStore

STEP = Step(
    values={
        "distances": torch.tensor([0.1, torch.inf, torch.nan], dtype=torch.float64),
        "found": torch.tensor([True, False, True]),
        "nothing": torch.zeros(0, 3),
    },
    notes={"left_out": {"road": "why\nso"}},
    seconds=1.5,
)


def _store(folder: Path, **identity: object) -> StepStore:
    store = StepStore(folder, {"model": "a", **identity})
    store.claim()
    return store


def test_a_step_comes_back_to_the_bit(tmp_path: Path) -> None:
    _store(tmp_path).save("attack-000000", STEP)
    back = _store(tmp_path).load("attack-000000")
    assert back is not None
    assert (back.notes, back.seconds) == (STEP.notes, STEP.seconds)
    assert set(back.values) == set(STEP.values)
    for name, values in STEP.values.items():
        assert back.values[name].dtype == values.dtype
        assert torch.equal(back.values[name].nan_to_num(-1), values.nan_to_num(-1))


def test_views_and_transposes_are_kept_as_they_look(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    _store(tmp_path).save("a", Step(values={"whole": whole, "part": whole[1], "turned": whole.T}))
    back = _store(tmp_path).load("a")
    assert back is not None
    assert back.values["turned"].tolist() == whole.T.tolist()
    assert back.values["part"].tolist() == [3, 4, 5]


@given(at=st.integers(0, 400), kept=st.booleans())
def test_a_damaged_step_is_not_there(tmp_path_factory: pytest.TempPathFactory, at: int, *, kept: bool) -> None:
    store = _store(tmp_path_factory.mktemp("store"))
    store.save("a", STEP)
    path = store.finished / "a.step"
    content = path.read_bytes()
    at %= len(content)
    path.write_bytes(content[:at] + (bytes([content[at] ^ 1]) + content[at + 1 :] if kept else b""))
    assert store.load("a") is None


def test_another_models_steps_count_for_nothing(tmp_path: Path) -> None:
    store = _store(tmp_path / "a")
    store.save("a", STEP)
    other = _store(tmp_path / "b", model="b")
    (other.finished / "a.step").write_bytes((store.finished / "a.step").read_bytes())
    assert other.load("a") is None
    renamed = store.finished / "b.step"
    renamed.write_bytes((store.finished / "a.step").read_bytes())
    assert store.load("b") is None


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    _store(tmp_path, effort="fast")
    with pytest.raises(
        InvalidInputError, match=r"other settings: effort \(fast, now standard\).* throw its steps away"
    ):
        _store(tmp_path, effort="standard")
    changed = StepStore(tmp_path, {"model": "a", "effort": "standard"})
    with pytest.raises(InvalidInputError, match="other settings"):
        changed.save("a", STEP)
    changed.clear()
    changed.claim()
    assert json.loads((tmp_path / "settings.json").read_text())["effort"] == "standard"


def test_only_the_steps_named_so_are_removed(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for name in ("pictures-a-000000", "pictures-b-000000", "attack-000000"):
        store.save(name, STEP)
    store.remove_others("pictures-", ["pictures-b-000000"])
    assert sorted(path.stem for path in store.finished.iterdir()) == ["attack-000000", "pictures-b-000000"]
