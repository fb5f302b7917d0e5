"""The cases of Captum's generated tests (``captum.testing.attr.helpers.test_config``): which of them are ours, and why.

Every case stands in exactly one list, so a Captum version with other cases is noticed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from captum.attr import Attribution, NoiseTunnel
from captum.testing.attr.helpers.gen_test_utils import get_target_layer
from captum.testing.attr.helpers.test_config import config
from torch import Tensor, nn


def _names(text: str) -> list[str]:
    return text.split()


INPUT_CASES = _names("""
    basic_single_target basic_multi_input basic_multi_target basic_multi_input_multi_target basic_multiple_tuple_target
    basic_tensor_single_target basic_tensor_multi_target basic_multiple_tuple_target_with_internal_batching
""")

NOISE_CASES = _names("""
    basic_multi_input_multi_target_nt basic_multiple_target_with_baseline_nt basic_multiple_tuple_target_nt
    basic_single_tensor_target_nt basic_multi_tensor_target_nt basic_multi_tensor_target_batched_nt
""")

LAYER_CASES = _names("""
    conv_layer_single_target basic_layer_in_place basic_layer_multi_output basic_layer_multi_input
    basic_layer_multiple_target basic_layer_tensor_multiple_target basic_layer_multiple_tuple_target
    basic_layer_multiple_tuple_target_with_internal_batching basic_layer_multi_input_with_internal_batching
    basic_layer_multi_output_with_internal_batching basic_gradient_multi_layer_multi_output
    basic_layer_ig_multi_layer_multi_output basic_layer_ig_multi_layer_multi_output_with_input_wrapper
    basic_layer_lrp basic_layer_lrp_multi_input
""")

# Methods of the input run these too, without the layer: their models are other ones.
OTHER_MODELS = _names("""
    conv_layer_single_target basic_layer_in_place basic_layer_multi_output basic_layer_ig_multi_layer_multi_output
    basic_layer_ig_multi_layer_multi_output_with_input_wrapper
""")

LEFT_OUT = {
    "baselines: our methods start at the input itself and compare it with no other one": _names("""
        basic_multiple_tuple_target_with_baselines basic_tensor_single_target_with_baselines basic_dl_shap
        basic_multi_input_dl_shap basic_multiple_target_dl_shap basic_multiple_tuple_target_dl_shap
        basic_single_tensor_targe_dl_shap basic_multi_tensor_target_dl_shap
        basic_multi_inp_with_single_baseline_grad_shap basic_multiple_target_with_single_baseline_grad_shap
        basic_multiple_tuple_target_with_single_baseline_grad_shap
        basic_single_tensor_target_with_single_baseline_grad_shap
        basic_multi_tensor_target_with_single_baseline_grad_shap
        relu_layer_multi_inp_dl_shap basic_layer_multi_output_dl_shap basic_layer_multi_inp_multi_target_dl_shap
        basic_layer_multiple_target_dl_shap relu_layer_multi_inp_grad_shap basic_layer_multi_output_grad_shap
        basic_layer_multi_inp_multi_target_grad_shap
    """),
    "perturbations_per_eval, sliding windows: of methods that try feature after feature": _names("""
        conv_with_perturbations_per_eval basic_multiple_tuple_target_with_perturbations_per_eval
        conv_occlusion_with_perturbations_per_eval basic_multi_input_with_perturbations_per_eval_occlusion
        basic_multiple_tuple_target_occlusion basic_layer_multi_input_with_perturbations_per_eval
        basic_layer_multi_output_perturbations_per_eval conv_layer_with_perturbations_per_eval
    """),
    "neurons: what moves one neuron is AdversarialAttribution of a forward function that returns it": _names("""
        basic_neuron conv_neuron basic_neuron_multi_input basic_neuron_single_target basic_neuron_multiple_target
        conv_neuron_single_target basic_neuron_multi_input_multi_target basic_neuron_tensor_multiple_target
        basic_neuron_multiple_tuple_target basic_neuron_multiple_tuple_target_with_internal_batching
        basic_neuron_multi_input_multi_target_with_internal_batching basic_neuron_grad_shap
        basic_neuron_multi_inp_grad_shap basic_neuron_dl_shap basic_neuron_multi_input_dl_shap
        conv_neuron_with_perturbations_per_eval basic_neuron_multiple_input_with_baselines_and_perturbations_per_eval
        basic_neuron_multi_input_function_selector conv_neuron_slice_selector
    """),
    "no target though the model has two outputs: activations need none, an explanation of an output does": _names("""
        basic_activation_multi_layer_multi_output
    """),
}

_TUNNEL_ONLY = ("nt_type", "nt_samples", "nt_samples_batch_size", "stdevs")


@dataclass(frozen=True)
class Case:
    """One case, its model and arguments copied, so that no test sees what another one did."""

    name: str
    model: nn.Module
    arguments: dict[str, Any]
    layer_name: str | list[str] | None = None
    noise_tunnel: bool = False

    @property
    def num_rows(self) -> int:
        inputs = self.arguments["inputs"]
        return len(inputs if isinstance(inputs, Tensor) else inputs[0])

    @property
    def layer(self) -> Any:
        """The module or modules whose activations are explained."""
        return get_target_layer(self.model, self.layer_name)

    @property
    def model_inputs(self) -> tuple[Any, ...]:
        """What the model is called with."""
        inputs, more = self.arguments["inputs"], self.arguments.get("additional_forward_args", ())
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        return (*inputs, *(more if isinstance(more, tuple) else (more,)))

    def plain(self) -> dict[str, Any]:
        """The arguments without those of the NoiseTunnel."""
        return {name: value for name, value in self.arguments.items() if name not in _TUNNEL_ONLY}

    def row(self, index: int) -> Iterator[dict[str, Any]]:
        """The arguments for one example alone, with its target in each form that says the same."""
        target = self.arguments["target"]
        rows = slice(index, index + 1)
        alone = {
            **self.arguments,
            **{
                name: _row(self.arguments[name], rows, self.num_rows)
                for name in ("inputs", "additional_forward_args")
                if name in self.arguments
            },
        }
        if not isinstance(target, (list, Tensor)) or len(target) != self.num_rows:
            yield alone
        else:
            yield {**alone, "target": target[index]}
            yield {**alone, "target": target[rows]}


@dataclass(frozen=True)
class Subject:
    """A class under test.

    Attributes:
        kind: the class.
        settings: keywords of every call of ``attribute``.
        layered: it explains a layer, which it takes beside the model.
        of_classes: it explains a class beside others, so outputs of shape (N, C) alone.
        objectives: what is explained: of Captum's models as they are the output, of those with weights moved the
            log-odds (which Captum's models hold constant, as their classes share all weights).
    """

    kind: type[Attribution]
    settings: dict[str, Any] = field(default_factory=dict)
    layered: bool = False
    of_classes: bool = False
    objectives: tuple[str, ...] = ("output", "log_odds")

    @property
    def name(self) -> str:
        """Of the class, and of settings that differ."""
        return "-".join([self.kind.__name__, *self.settings])

    @property
    def names(self) -> list[str]:
        """The cases that apply."""
        names = LAYER_CASES if self.layered else [*INPUT_CASES, *NOISE_CASES, *OTHER_MODELS]
        return [name for name in names if not (self.of_classes and "tuple_target" in name)]

    def attribute(
        self, case: Case, model: Callable[..., Any] | None = None, *, made: dict[str, Any] | None = None, **given: Any
    ) -> Any:
        """The case's attributions.

        Args:
            case: gives the model and the layer.
            model: another form of the case's model.
            made: further keywords for making the method.
            given: the arguments of ``attribute``; with some of NoiseTunnel's, it is called through one.
        """
        layer = (case.layer,) if self.layered else ()
        method = self.kind(case.model if model is None else model, *layer, **(made or {}))
        if any(name in given for name in _TUNNEL_ONLY):
            method = NoiseTunnel(method)
        return method.attribute(**{**given, **self.settings})


def load(name: str, *, shaken: bool) -> Case:
    """A case by name.

    Args:
        name: of Captum's configuration.
        shaken: move the weights a little, so that classes differ, and the last biases, so that decisions are close.
    """
    (entry,) = (entry for entry in config if entry["name"] == name)
    case = Case(
        name,
        copy.deepcopy(entry["model"]),
        copy.deepcopy(entry["attribute_args"]),
        entry.get("layer"),
        entry.get("noise_tunnel", False),
    )
    if shaken:
        _shake(case)
    return case


def _shake(case: Case) -> None:
    generator = torch.Generator().manual_seed(1)
    linear = [module for module in case.model.modules() if isinstance(module, nn.Linear)]
    last = [module for module in linear if module.out_features == linear[-1].out_features]
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        logits: dict[nn.Module, Tensor] = {}
        handles = [module.register_forward_hook(lambda m, _, out: logits.update({m: out})) for module in last]
        case.model(*case.model_inputs)
        for module, handle in zip(last, handles, strict=True):
            handle.remove()
            module.bias.sub_(logits[module].mean(0))


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of attributions, however nested in lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in value:
            yield from tensors(part)


def _row(value: Any, rows: slice, num_rows: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_row(part, rows, num_rows) for part in value)
    return value[rows] if isinstance(value, Tensor) and len(value) == num_rows else value
