"""What a plugin may bring, by which hook, and how what it brings is called. Specifications only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import pluggy

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

if TYPE_CHECKING:
    from torch import Tensor

    from captum_lipschitz._typing import Model
    from captum_lipschitz.attacks import AttackResult
    from captum_lipschitz.criteria import Criterion

PROJECT = "captum_lipschitz"
"""Name of the pluggy project and of the entry-point group."""

API_VERSION = 1
"""Version of the contracts in this file. A component made for another one is refused."""

Kind: TypeAlias = Literal["attack", "attribution", "metric", "training_hook"]

HOOKS: dict[Kind, str] = {
    "attack": "captum_lipschitz_attacks",
    "attribution": "captum_lipschitz_attributions",
    "metric": "captum_lipschitz_metrics",
    "training_hook": "captum_lipschitz_training_hooks",
}
"""The kinds of components, each with the hook that brings them."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function as the implementation of one of the hooks below, which it is named after."""

_NAME = re.compile(r"[\w.:+-]+")
_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


@dataclass(frozen=True)
class ComponentSpec:
    """One component of a plugin, as its hook returns it.

    Attributes:
        name: what users ask for, of letters, digits and ``_ . : + -``; plugins prefix theirs, as in ``"acme:square"``.
        kind: ``"attack"``, ``"attribution"``, ``"metric"`` or ``"training_hook"``; that of the hook returning it.
        factory: makes the component; what it takes and returns is said by the kind's protocol (``AttackLike``, ...).
        summary: one line for listings.
        reference: where the method is described (an arXiv number, an address); may be empty.
        api_version: the ``API_VERSION`` that the component was written for.
        attaches_to: of a training hook, the class whose objects it attaches to, by the name that users import it by, as
            in ``"lightning.pytorch.LightningModule"``; empty for any ``nn.Module``, and for the other kinds.

    Raises:
        InvalidTypeError, InvalidInputError: for a field that cannot be used.

    Example:
        >>> from captum_lipschitz.attacks import PaperAttack
        >>> ComponentSpec("acme:long", "attack", PaperAttack, "450 steps", "arXiv 1906.02896").kind
        'attack'
        >>> hook = ComponentSpec("acme:penalty", "training_hook", print, "in a task", "", attaches_to="acme.Task")
        >>> hook.attaches_to
        'acme.Task'
    """

    name: str
    kind: Kind
    factory: Callable[..., Any]
    summary: str
    reference: str
    api_version: int = API_VERSION
    attaches_to: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "kind", "summary", "reference", "attaches_to"):
            value = getattr(self, field)
            if not isinstance(value, str):
                raise InvalidTypeError(f"{field}: expected a string, got {value!r}")
        if not isinstance(self.api_version, int):
            raise InvalidTypeError(f"api_version: expected a whole number, got {self.api_version!r}")
        if not _NAME.fullmatch(self.name):
            raise InvalidInputError(f"name: expected letters, digits and any of '_ . : + -', got {self.name!r}")
        if self.kind not in HOOKS:
            raise InvalidInputError(f"kind: expected one of {sorted(HOOKS)}, got {self.kind!r}")
        if not callable(self.factory):
            raise InvalidTypeError(f"factory: expected a callable, got {self.factory!r}")
        if self.attaches_to and self.kind != "training_hook":
            raise InvalidInputError(f"attaches_to: expected '' for kind {self.kind!r}, got {self.attaches_to!r}")
        if self.attaches_to and not _CLASS.fullmatch(self.attaches_to):
            raise InvalidInputError(f"attaches_to: expected a class as in 'acme.Task', got {self.attaches_to!r}")


@runtime_checkable
class AttackLike(Protocol):
    """An attack: what ``factory(**settings)`` of a component of kind ``"attack"`` returns."""

    def __call__(
        self, model: Model, inputs: Tensor, labels: Tensor, criterion: Criterion | str = "misclassified"
    ) -> AttackResult:
        """Attack images (N, ...) with labels (N,), and return an ``AttackResult`` of N rows."""


@runtime_checkable
class AttributionLike(Protocol):
    """An attribution method: what ``factory(forward_func)`` of a component of kind ``"attribution"`` returns."""

    @property
    def attribute(self) -> Callable[..., Any]:
        """Called as Captum's: ``attribute(inputs, target=..., ...)``; returns attributions shaped as ``inputs``."""


@runtime_checkable
class MetricLike(Protocol):
    """A metric: what ``factory(**settings)`` of a component of kind ``"metric"`` returns.

    Settings given to the factory are the metric's defaults. (A type checker takes a metric of any settings, because of
    ``*args``; they are passed by keyword.)
    """

    def __call__(
        self,
        model: Model,
        data: tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]],
        *args: Any,
        **settings: Any,
    ) -> Any:
        """Measure a model on (images, labels) or batches of them."""


@runtime_checkable
class Removable(Protocol):
    """The handle of something attached to a model."""

    def remove(self) -> None:
        """Detach it: the model trains as it did before. A second call does nothing."""


@runtime_checkable
class TrainingHookLike(Protocol):
    """A training hook: what ``factory(**settings)`` of a component of kind ``"training_hook"`` returns.

    It is called with any ``nn.Module``, unless its ``ComponentSpec.attaches_to`` names a class of a host (a Trainer,
    say, that is no module): then with objects of that class alone. Anything else it refuses with an exception of
    ``captum_lipschitz.errors`` that names the argument, or the class as ``attaches_to`` does. A host that knows no
    class but ``nn.Module`` uses the hooks whose ``attaches_to`` is empty.
    """

    def __call__(self, model: Any, /) -> Removable:
        """Attach to what somebody else's training loop trains, and return the handle that detaches it again."""


@hookspec
def captum_lipschitz_attacks() -> list[ComponentSpec]:
    """Return the plugin's attacks; each factory, called with settings, makes an ``AttackLike``."""
    return []


@hookspec
def captum_lipschitz_attributions() -> list[ComponentSpec]:
    """Return the plugin's attribution methods; each factory, called with a model, makes an ``AttributionLike``."""
    return []


@hookspec
def captum_lipschitz_metrics() -> list[ComponentSpec]:
    """Return the plugin's metrics; each factory, called with settings, makes a ``MetricLike``."""
    return []


@hookspec
def captum_lipschitz_training_hooks() -> list[ComponentSpec]:
    """Return the plugin's training hooks; each factory, called with settings, makes a ``TrainingHookLike``."""
    return []
