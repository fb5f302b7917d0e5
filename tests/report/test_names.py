"""Names of classes: given, from a file, from a class index, from folders, and all different."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.report.names import class_names


@pytest.mark.parametrize(("name", "content"), [("n.txt", "cat\n\n dog \n"), ("n.json", '["cat", "dog"]')])
def test_names_from_a_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert class_names([str(tmp_path / name)], 2) == ("cat", "dog")


def test_names_from_an_index_go_before_folders(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"n01": [1, "tench"], "0": ["n00", "goldfish"], "n02": 2}))
    assert class_names([], 4, class_index=path, folders={1: "n01", 2: "n02"}) == ("goldfish", "tench", "n02", "class 3")


def test_a_name_tells_one_class() -> None:
    assert class_names(["crane", "crane", "cat"], 3) == ("crane (0)", "crane (1)", "cat")


def test_files_that_hold_no_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    path.write_text('{"cat": 0}')
    with pytest.raises(InvalidInputError, match="class_names: expected a JSON list of names"):
        class_names([str(path)], 2)
    path.write_text("[")
    with pytest.raises(InvalidInputError, match=r"class_names: .* cannot be read"):
        class_names([str(path)], 2)
