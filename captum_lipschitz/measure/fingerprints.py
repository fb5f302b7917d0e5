"""What tells one model from another, so that finished work counts only for the model that it was done with."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.measure.data import ImageData
from captum_lipschitz.measure.models import TORCHVISION, Normalised, named_object

_ANSWERS = 4  # images whose outputs tell one function from another


def identity_of(spec: str, model: Model, data: ImageData, device: torch.device) -> dict[str, Any]:
    """What a model and images are, wherever they lie: fingerprints, JSON's types."""
    return {
        "weights": model_hash(model),
        "answers": answers_hash(model, data.images(0, min(_ANSWERS, len(data.labels))).to(device)),
        "source": source_hash(spec, model),
        "data": data.identity,
        "images": len(data.labels),
    }


def model_hash(model: Model) -> str:
    """A fingerprint of a module's kinds of layers, their settings and every weight; of a function, its name alone.

    Weights outside ``state_dict()`` count too: buffers that are not persistent, tensors and modules kept as attributes
    or in lists, tuples and dicts. What a function holds cannot be seen: ``answers_hash`` is for those.
    """
    if not isinstance(model, nn.Module):
        return f"a function, {getattr(model, '__qualname__', type(model).__qualname__)}"
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        settings = re.sub(r"0x[0-9a-f]+", "", module.extra_repr())  # addresses differ from process to process
        digest.update(f"{name}: {type(module).__qualname__}({settings})\n".encode())
    registered = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    for name, tensor in (*registered.items(), *_others(model)):
        digest.update(f"{name}: {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def answers_hash(model: Model, images: Tensor) -> str | None:
    """A fingerprint of a function's outputs for some images, to the bit; ``None`` for a module.

    A function that answers differently from run to run cannot be told from another by this, and is not.
    """
    inner = model.model if isinstance(model, Normalised) else model
    if isinstance(inner, nn.Module):
        return None
    outputs = []
    for _ in range(2):
        with settled(), no_trace(model, images), torch.no_grad():
            torch.manual_seed(0)
            outputs.append(model(images).detach().cpu().contiguous())
    if not torch.equal(*outputs):
        return "changes from run to run"
    return hashlib.sha256(outputs[0].reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _others(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that belong to a module and not to its ``state_dict()``, by a name that says where they are."""
    registered = {id(value) for value in model.state_dict(keep_vars=True).values()}
    yield from _unregistered("", model, seen=registered | set(map(id, model.modules())))


def _unregistered(place: str, module: nn.Module, *, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    for path, part in module.named_modules():
        for name, buffer in part.named_buffers(recurse=False):
            yield from _within(f"{place}{path}.{name} (not persistent)", buffer, seen=seen)
        for name, value in vars(part).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                yield from _within(f"{place}{path}.{name} (attribute)", value, seen=seen)


def _within(place: str, value: object, *, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """What is in a value and was not seen yet; things may hold one another in circles."""
    if id(value) in seen or not isinstance(value, (Tensor, nn.Module, Mapping, list, tuple)):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.layout is torch.strided and value.device.type != "meta":
            yield place, value
    elif isinstance(value, nn.Module):
        for name, tensor in value.named_parameters():
            yield from _within(f"{place}.{name}", tensor, seen=seen)
        yield from _unregistered(f"{place}.", value, seen=seen)
    else:
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _within(f"{place}[{key!r}]", item, seen=seen)


def source_hash(spec: str, model: Model) -> str | None:
    """A fingerprint of the code that makes and is a model: the files of its callable and of its modules' classes.

    ``None`` for torchvision's, whose version tells; so does torch's for its own layers. What these files import in turn
    is not looked at.
    """
    source, _, name = spec.partition(":")
    if source == TORCHVISION:
        return None
    inner = model.model if isinstance(model, Normalised) else model
    parts = inner.modules() if isinstance(inner, nn.Module) else ()
    names = {source, *(getattr(part, "__module__", source) for part in (named_object(source, name), inner, *parts))}
    contents = {_source(module) for module in names if module.partition(".")[0] != "torch"}
    return hashlib.sha256("".join(sorted(contents)).encode()).hexdigest()


def _source(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    try:
        return "" if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:  # as of a module within an archive
        return ""
