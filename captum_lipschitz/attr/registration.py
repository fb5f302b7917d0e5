"""Makes Captum know the half-Huber ReLU, and puts our attributions where Captum keeps its own."""

# ruff: noqa: SLF001 (Captum keeps its hooks private, and these are the ones wanted)

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NoReturn, final

import captum.attr
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from captum_lipschitz.attr._captum import Places, find_places
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.nn import HalfHuberReLU


@final
class CaptumRegistration:
    """Handle of one ``register_with_captum()``; also a context manager that removes itself at the end. Not copied."""

    def __init__(self) -> None:
        self._outstanding = True

    def remove(self) -> None:
        """Give this handle back; Captum is as it was once every handle is. May be called more than once."""
        with _LOCK:
            if self._outstanding:
                self._outstanding = False
                _release()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse ``copy``, ``deepcopy`` and ``pickle``: a copy's ``remove()`` would give back what another holds."""
        raise InvalidTypeError(
            "CaptumRegistration: expected no copy.copy, copy.deepcopy or pickle of a handle, nor of an object that "
            "keeps one: each handle counts once. Keep it outside of what is copied, and call register_with_captum() "
            "again for another handle."
        )

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
    entry by entry. An entry of one's own for it in Captum's tables comes first.

    DeepLift and clipping are also right where a half-Huber ReLU stands beside a max pooling layer, another activation
    or a skip connection, and ``LayerDeepLift`` at the input of one; beside ``nn.ReLU`` Captum 0.9 then errs. Its other
    limits stay: DeepLift takes an activation module once per forward pass (it says so) and loses part of the difference
    in max pooling whose windows overlap (see the convergence delta); LRP refuses layers without a rule, and its
    relevance means nothing where the network adds or scales outside of modules, as residual networks do. Modules called
    by ``.forward`` without hooks, networks in train mode and ScriptModules are beyond DeepLift's rule, as they are with
    Captum's own activations.

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
            places, attributions = find_places(), _our_attributions()
            _refuse_conflicts(places, attributions)
            _ACTIVE.append(_Registration(places, attributions))
        _ACTIVE[0].holders += 1
    return CaptumRegistration()


class _Registration:
    """What was changed in Captum, how to change it back, and how many handles still want it."""

    def __init__(self, places: Places, attributions: dict[str, type]) -> None:
        self.holders = 0
        self._active = True
        self._places = places
        self._rule = places.rules[nn.ReLU]
        self._undo = ExitStack()
        self._learn(HalfHuberReLU)
        self._wrap(places.deep_lift, "_register_hooks", self._rescale)
        self._wrap(places.lrp, "_check_and_attach_rules", self._pass)
        self._wrap(places.clipping, "_register_hooks", self._clip)
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

    def _rescale(
        self,
        original: Callable[..., Any],
        attribution: Any,
        module: nn.Module,
        attribute_to_layer_input: bool = True,  # noqa: FBT001, FBT002 (Captum's signature)
    ) -> None:
        """DeepLift's ``_register_hooks``: as Captum's, but for the tensors that carry the backward hook."""
        if not isinstance(module, HalfHuberReLU):
            original(attribution, module, attribute_to_layer_input)
            return
        self._learn(type(module))
        at_its_output = not attribute_to_layer_input and module is attribution.layer
        if attribution._can_register_hook(module) and not at_its_output:
            attribution.forward_handles.append(module.register_forward_hook(attribution._forward_hook))
            attribution.forward_handles.append(module.register_forward_pre_hook(attribution._forward_pre_hook))
            attribution.backward_handles += _hook_backward(module, attribution._backward_hook)

    def _pass(self, original: Callable[..., Any], attribution: Any) -> None:
        """LRP's ``_check_and_attach_rules``."""
        for layer in attribution.layers:
            self._learn(type(layer))
        original(attribution)

    def _clip(self, original: Callable[..., Any], attribution: Any, module: nn.Module) -> None:
        """GuidedBackprop's and Deconvolution's ``_register_hooks``."""
        if isinstance(module, HalfHuberReLU):
            attribution.backward_hooks += _hook_backward(module, attribution._backward_hook)
        else:
            original(attribution, module)

    def _wrap(self, owner: type, name: str, replacement: Callable[..., Any]) -> None:
        """Let ``replacement`` stand for a method of Captum's, which it gets as its first argument."""
        original = vars(owner)[name]

        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            return replacement(original, *args, **kwargs) if self._active else original(*args, **kwargs)

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


def _hook_backward(module: nn.Module, hook: Callable[[nn.Module, Tensor, Tensor], Any]) -> list[RemovableHandle]:
    """Let ``hook(module, input_gradient, output_gradient)`` replace the gradient at the input of a module.

    It hooks copies, which belong to the module alone. Captum's own helper hooks the tensors between modules: there, an
    activation before a pooling layer sees the gradient before the pooling layer's rule was applied, and one beside a
    skip connection replaces the gradient of both.
    """
    arrived: dict[torch.device, Tensor] = {}  # a replica of DataParallel's has its own device

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        own = inputs[0].clone()
        if own.requires_grad:
            own.register_hook(lambda gradient: _single(hook(module, gradient, arrived[gradient.device])))
        return own

    def after(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if output.requires_grad:
            output.register_hook(lambda gradient: arrived.update({gradient.device: gradient}))
        return output.clone()

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


def _single(gradient: Tensor | tuple[Tensor, ...]) -> Tensor:
    return gradient[0] if isinstance(gradient, tuple) else gradient


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


def _refuse_conflicts(places: Places, attributions: dict[str, type]) -> None:
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
