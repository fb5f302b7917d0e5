"""Makes Captum know the half-Huber ReLU, and puts our attributions where Captum keeps its own."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple, final

import captum
import captum.attr
from torch import nn

from captum_lipschitz.errors import InvalidInputError, MissingDependencyError
from captum_lipschitz.nn import HalfHuberReLU


@final
class CaptumRegistration:
    """Handle of one ``register_with_captum()``; also a context manager that removes itself at the end."""

    def __init__(self) -> None:
        self._outstanding = True

    def remove(self) -> None:
        """Give this handle back; Captum is as it was once every handle is. May be called more than once."""
        with _LOCK:
            if self._outstanding:
                self._outstanding = False
                _release()

    def __enter__(self) -> CaptumRegistration:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def register_with_captum() -> CaptumRegistration:
    """Let Captum's methods that treat activations specially treat ``HalfHuberReLU`` as such, and find our attributions.

    Captum knows activations by their class. On networks with ``HalfHuberReLU`` its DeepLift and GuidedBackprop thus
    fall back to the plain gradient without a word, and its LRP refuses. While registered, with h the half-Huber ReLU:

    - ``DeepLift``, ``DeepLiftShap`` and their layer and neuron forms use the rescale rule: the multiplier is
      ``(h(x) - h(x0)) / (x - x0)`` for input x and baseline x0, and ``h'(x)`` where they are (almost) equal. The
      attributions then sum to the difference of the outputs.
    - ``LRP`` and ``LayerLRP`` pass relevance through unchanged, as they do for ReLU.
    - ``GuidedBackprop``, ``NeuronGuidedBackprop`` and ``GuidedGradCam`` clip the gradient at each half-Huber ReLU:
      g becomes ``h'(x) * max(g, 0)``. ``Deconvolution`` and ``NeuronDeconvolution`` pass on ``max(g, 0)``, whatever x.

    Every attribution class of ``captum_lipschitz.attr`` is also found in ``captum.attr`` and its ``__all__``, by the
    tools that look there. Other activations, ``nn.ReLU`` among them, give the same bits as before.

    A subclass of ``HalfHuberReLU``, also one defined later, counts as one: the rules hold for whatever it computes
    entry by entry. An entry of one's own for it in Captum's tables comes first. Captum's limits stay: DeepLift takes
    each activation module once per forward pass, and LRP only the layers that it has rules for.

    The registration is global to the process. Each call returns its own handle and further calls change nothing;
    the registration ends with the last handle that is removed. A handle that is thrown away is never removed, so the
    registration stays. What others changed in Captum meanwhile is left to them.

    Returns:
        A handle with ``remove()``, which may be called twice and is called at the end of a ``with`` block.

    Raises:
        InvalidInputError: ``captum.attr`` has something else under the name of one of our classes, or Captum's table
            another rule for ``HalfHuberReLU``. Nothing was changed.
        MissingDependencyError: the installed Captum does not keep its activations where 0.9 does. Nothing was changed.

    Example:
        >>> from captum.attr import DeepLift
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), HalfHuberReLU(), torch.nn.Linear(8, 3))
        >>> inputs, baselines = torch.rand(2, 4), torch.zeros(2, 4)
        >>> with register_with_captum():
        ...     _, delta = DeepLift(model).attribute(inputs, baselines, target=1, return_convergence_delta=True)
        >>> bool((delta.abs() < 1e-6).all())
        True

    References:
        Shrikumar et al. 2017, arXiv 1704.02685 (DeepLIFT, rescale rule); Springenberg et al. 2014, arXiv 1412.6806
        (guided backpropagation); Zeiler and Fergus 2013, arXiv 1311.2901 (deconvolution); Bach et al. 2015, "On
        pixel-wise explanations for non-linear classifier decisions by layer-wise relevance propagation", PLoS ONE
        10(7); Woods, Chen and Teuscher 2019, arXiv 1906.02896 (half-Huber ReLU).
    """
    with _LOCK:
        if not _ACTIVE:
            places, attributions = _find_places(), _our_attributions()
            _refuse_conflicts(places, attributions)
            _ACTIVE.append(_Registration(places, attributions))
        _ACTIVE[0].holders += 1
    return CaptumRegistration()


class _Places(NamedTuple):
    """Where Captum decides what an activation is."""

    deep_lift: type
    rules: dict[type, Callable[..., Any]]
    lrp: type
    passing: list[type]
    clipping: type
    register_backward_hook: Callable[..., list[Any]]
    exported: list[str]


class _Registration:
    """What was changed in Captum, how to change it back, and how many handles still want it."""

    def __init__(self, places: _Places, attributions: dict[str, type]) -> None:
        self.holders = 0
        self._active = True
        self._places = places
        self._rule = places.rules[nn.ReLU]
        self._undo = ExitStack()
        self._learn(HalfHuberReLU)
        self._precede(places.deep_lift, "_is_non_linear", lambda _, module: self._learn(type(module)))
        self._precede(places.lrp, "_check_and_attach_rules", self._learn_layers)
        self._precede(places.clipping, "_register_hooks", self._clip)
        for name, attribution in attributions.items():
            self._export(name, attribution)

    def undo(self) -> None:
        self._active = False  # for a method of ours that somebody wrapped meanwhile, and still calls
        self._undo.close()

    def _learn(self, kind: type) -> None:
        """Enter a kind of half-Huber ReLU into the tables, which know exact types only."""
        if not issubclass(kind, HalfHuberReLU):
            return
        if kind not in self._places.rules:
            self._places.rules[kind] = self._rule
            self._undo.callback(_forget, self._places.rules, kind, self._rule)
        if kind not in self._places.passing:
            self._places.passing.append(kind)
            self._undo.callback(_discard, self._places.passing, kind)

    def _learn_layers(self, attribution: Any) -> None:
        for layer in attribution.layers:
            self._learn(type(layer))

    def _clip(self, attribution: Any, module: nn.Module) -> None:
        if isinstance(module, HalfHuberReLU) and not isinstance(module, nn.ReLU):  # Captum sees to an nn.ReLU
            clip = attribution._backward_hook  # noqa: SLF001 (Captum's own clipping is the one wanted)
            attribution.backward_hooks += self._places.register_backward_hook(module, clip, attribution)

    def _precede(self, owner: type, name: str, first: Callable[..., None]) -> None:
        """Call ``first`` before a method of Captum's, with its arguments."""
        original = vars(owner)[name]

        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            if self._active:
                first(*args, **kwargs)
            return original(*args, **kwargs)

        setattr(owner, name, method)
        self._undo.callback(_restore, owner, name, method, original)

    def _export(self, name: str, attribution: type) -> None:
        if name not in vars(captum.attr):
            setattr(captum.attr, name, attribution)
            self._undo.callback(_forget, vars(captum.attr), name, attribution)
        if name not in self._places.exported:
            self._places.exported.append(name)
            self._undo.callback(_discard, self._places.exported, name)


_LOCK = threading.RLock()
_ACTIVE: list[_Registration] = []  # at most one


def _release() -> None:
    _ACTIVE[0].holders -= 1
    if not _ACTIVE[0].holders:
        _ACTIVE.pop().undo()


def _forget(table: dict[Any, Any], key: object, value: object) -> None:
    if table.get(key) is value:
        del table[key]


def _discard(table: list[Any], item: object) -> None:
    if item in table:
        table.remove(item)


def _restore(owner: type, name: str, ours: object, original: object) -> None:
    if vars(owner).get(name) is ours:
        setattr(owner, name, original)


def _our_attributions() -> dict[str, type]:
    import captum_lipschitz.attr as ours  # not above: that package imports this module

    public = {name: getattr(ours, name) for name in ours.__all__}
    return {n: it for n, it in public.items() if isinstance(it, type) and issubclass(it, captum.attr.Attribution)}


def _find_places() -> _Places:
    try:
        from captum._utils.common import _register_backward_hook
        from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR, DeepLift
        from captum.attr._core.guided_backprop_deconvnet import ModifiedReluGradientAttribution
        from captum.attr._core.lrp import LRP, SUPPORTED_NON_LINEAR_LAYERS
    except ImportError as error:
        raise _unsupported(str(error)) from error
    exported = getattr(captum.attr, "__all__", None)
    expected = {
        "a dict SUPPORTED_NON_LINEAR with nn.ReLU": _has_relu(SUPPORTED_NON_LINEAR, dict),
        "a list SUPPORTED_NON_LINEAR_LAYERS with nn.ReLU": _has_relu(SUPPORTED_NON_LINEAR_LAYERS, list),
        "a list captum.attr.__all__": isinstance(exported, list),
        "DeepLift._is_non_linear": "_is_non_linear" in vars(DeepLift),
        "LRP._check_and_attach_rules": "_check_and_attach_rules" in vars(LRP),
        "ModifiedReluGradientAttribution._register_hooks": "_register_hooks" in vars(ModifiedReluGradientAttribution),
        "ModifiedReluGradientAttribution._backward_hook": hasattr(ModifiedReluGradientAttribution, "_backward_hook"),
    }
    missing = [name for name, present in expected.items() if not present]
    if missing or not isinstance(exported, list):
        raise _unsupported(f"there is not {', nor '.join(missing)}")
    return _Places(
        DeepLift,
        SUPPORTED_NON_LINEAR,
        LRP,
        SUPPORTED_NON_LINEAR_LAYERS,
        ModifiedReluGradientAttribution,
        _register_backward_hook,
        exported,
    )


def _has_relu(table: object, kind: type) -> bool:
    return isinstance(table, kind) and nn.ReLU in table  # type: ignore[operator]


def _unsupported(reason: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"register_with_captum: expected Captum's tables of activations where Captum 0.9 has them, got Captum "
        f'{captum.__version__}: {reason}. Nothing was changed. A version that works: pip install "captum==0.9.*"'
    )


def _refuse_conflicts(places: _Places, attributions: dict[str, type]) -> None:
    for name, attribution in attributions.items():
        present = vars(captum.attr).get(name, attribution)
        if present is not attribution:
            raise InvalidInputError(
                f"register_with_captum: expected no captum.attr.{name} but ours, got {present!r}. Nothing was changed."
            )
    rule = places.rules[nn.ReLU]
    present = places.rules.get(HalfHuberReLU, rule)
    if present is not rule:
        raise InvalidInputError(
            f"register_with_captum: expected no rule for HalfHuberReLU in captum's DeepLift, or {rule!r}, "
            f"got {present!r}. Nothing was changed."
        )
