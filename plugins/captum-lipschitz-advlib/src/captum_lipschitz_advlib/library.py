"""adv-lib, imported at first use."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, util
from types import ModuleType

from captum_lipschitz.errors import MissingDependencyError

_INSTALL = "pip install torchvision && pip install --no-deps adv-lib==0.2.8"
if sys.version_info >= (3, 12):
    _INSTALL = _INSTALL.replace("torchvision", "torchvision setuptools")


def advlib() -> ModuleType:
    """The module ``adv_lib.attacks``.

    Raises:
        MissingDependencyError: it, or something that it needs, is absent; the message says how to install both.
    """
    if "adv_lib.attacks" in sys.modules:
        return import_module("adv_lib.attacks")
    try:
        with _visdom_or_a_stand_in(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its use of distutils
            return import_module("adv_lib.attacks")
    except ImportError as error:
        raise MissingDependencyError(f"adv_lib: cannot be imported ({error}); install it with: {_INSTALL}") from error


@contextmanager
def _visdom_or_a_stand_in() -> Iterator[None]:
    """adv-lib imports visdom for a logger that nobody has to use; where it is absent, an empty module takes its place.

    Only while adv-lib is imported: afterwards visdom is as absent for everybody else as before.
    """
    if "visdom" in sys.modules or util.find_spec("visdom") is not None:
        yield
        return
    stand_in = ModuleType("visdom")
    sys.modules["visdom"] = stand_in
    try:
        yield
    finally:
        if sys.modules.get("visdom") is stand_in:
            del sys.modules["visdom"]
