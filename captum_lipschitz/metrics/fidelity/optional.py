"""What Quantus measures, where it is installed and the model and the images are such that it can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from warnings import simplefilter

import numpy as np
from torch import Tensor, nn

from captum_lipschitz._shared import ignored_warnings
from captum_lipschitz._trace import taking_turns, undone
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError, MissingDependencyError

_ABSENT = "Quantus is not installed; run: pip install quantus"


def left_out_of_quantus(model: Model, images: Tensor) -> dict[str, str]:
    """Measures of Quantus's that cannot be taken, ``road`` or ``parameter_randomisation``, to why."""
    if find_spec("quantus") is None:
        return {"road": _ABSENT, "parameter_randomisation": _ABSENT}
    left_out = {}
    if images.dim() != 4:
        left_out["road"] = "ROAD fills in pixels from their neighbours: it is for pictures, (N, C, H, W)"
    if not isinstance(model, nn.Module):
        left_out["parameter_randomisation"] = "the model is a function: it has no parameters to randomise"
    elif not any(hasattr(module, "reset_parameters") for module in model.modules()):
        left_out["parameter_randomisation"] = "the model has no layer with reset_parameters()"
    return left_out


def check_possible(measure: str, model: Model, images: Tensor) -> None:
    """Raise unless a measure of Quantus's can be taken."""
    why = left_out_of_quantus(model, images).get(measure)
    if why == _ABSENT:
        raise MissingDependencyError(f"quantus: expected it to be installed, got no such module; {_ABSENT}")
    if why is not None:
        raise InvalidInputError(f"{'images' if measure == 'road' else 'model'}: {why}")


@contextmanager
def quietly() -> Iterator[None]:
    """Inside, Quantus warns of nothing, and NumPy's global random state is free to be used: it is restored.

    Threads take turns; warnings of others are lost meanwhile.
    """
    with taking_turns():
        state = np.random.get_state()  # noqa: NPY002 - the one that Quantus draws from
        with undone(lambda: np.random.set_state(state)), _ALL_IGNORED.within():  # noqa: NPY002
            yield


_ALL_IGNORED = ignored_warnings(partial(simplefilter, "ignore"))
