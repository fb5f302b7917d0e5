"""A folder for finished work that belongs to one identity, whoever comes later."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captum_lipschitz._files import create_whole, remove_leftovers
from captum_lipschitz._reading import read_json
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.files import as_json
from captum_lipschitz.measure.settings import differences, fingerprint

_SETTINGS = "settings.json"


class ClaimedFolder:
    """Base of stores: the folder's ``settings.json`` says what the finished work in it was made with.

    Args:
        folder: of the whole run.
        identity: everything that the work depends on, as JSON's types.
        finished: name of the folder within, where finished work lies.

    Attributes:
        finished: that folder.
        fingerprint: of the identity.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, finished: str) -> None:
        self._folder = folder
        self._identity = dict(identity)
        self.finished = folder / finished
        self.fingerprint = fingerprint(identity)

    def clear(self) -> None:
        """Throw away all finished work, and whose it was."""
        (self._folder / _SETTINGS).unlink(missing_ok=True)
        shutil.rmtree(self.finished, ignore_errors=True)

    def claim(self) -> None:
        """Make the folder this identity's, or find that it is already.

        Raises:
            InvalidInputError: it is another's; the message names what differs. Or it cannot be written to.
        """
        try:
            self.finished.mkdir(parents=True, exist_ok=True)
            for folder in (self._folder, self.finished):
                remove_leftovers(folder)
            created = create_whole(self._folder / _SETTINGS, as_json(self._identity))
        except OSError as error:
            raise InvalidInputError(
                f"output: expected a folder that can be written to, got {self._folder} ({error})"
            ) from error
        if not created:
            self.check()

    def check(self) -> None:
        """Raise ``InvalidInputError`` unless the folder is this identity's."""
        path = self._folder / _SETTINGS
        try:
            earlier = read_json(path)
            if not isinstance(earlier, dict):
                raise ValueError(f"expected a JSON object, got {type(earlier).__name__}")  # noqa: TRY301, TRY004
        except (OSError, ValueError) as error:
            raise InvalidInputError(
                f"output: {path} cannot be read ({error}); --restart begins anew in this folder"
            ) from error
        changed = differences(earlier, self._identity)
        if changed:
            raise InvalidInputError(
                f"output: {self._folder} holds a run with other settings: {'; '.join(changed)}. Take another folder, "
                f"or --restart to throw its {self.finished.name} away"
            )
