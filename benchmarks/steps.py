"""The training steps that are compared: plain, with the Lipschitz penalty, and with what peers do for robustness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_lipschitz import LipschitzRegularizer
from captum_lipschitz.training import RegularizedModule

STRENGTH = 1.0  # of the penalty: any fixed number costs the same


@dataclass(frozen=True)
class Setting:
    """What the methods of one comparison share.

    Attributes:
        model: in train mode, maps (N, ...) to logits (N, C); the methods train it in turn.
        dtype: of the forward pass: float32, or another one by autocast.
        device: type of the model's device.
        compiled: whether each method compiles what it can.
    """

    model: nn.Module
    dtype: torch.dtype
    device: str
    compiled: bool

    def autocast(self) -> AbstractContextManager[object]:
        """Around the forward pass."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device, dtype=self.dtype)


class Method(ABC):
    """One way to train.

    Attributes:
        cycle: steps after which the cost repeats.
    """

    cycle = 1

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.model = setting.model

    @abstractmethod
    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of one step, to call ``backward()`` on."""

    def step(self, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor) -> Tensor:
        """One whole step of training; returns its loss, detached."""
        optimizer.zero_grad()
        loss = self.loss(inputs, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()


class Plain(Method):
    """Cross entropy."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._forward: Callable[[Tensor], Tensor] = torch.compile(self.model) if setting.compiled else self.model

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with self.setting.autocast():
            return F.cross_entropy(self._forward(inputs), labels)


class Lipschitz(Method):
    """Cross entropy and this library's penalty, formed on each ``every``-th step."""

    def __init__(self, setting: Setting, *, every: int = 1) -> None:
        super().__init__(setting)
        self.cycle = every
        self._regularizer = LipschitzRegularizer(strength=STRENGTH, every=every)
        self._module: nn.Module | None = None
        if setting.compiled:
            self._module = RegularizedModule(self.model, self._regularizer)
            self._module.compile()

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        if self._module is not None:
            with self.setting.autocast():
                logits, penalty = self._module(inputs, labels)
                task_loss = F.cross_entropy(logits, labels)
            return self._regularizer.combine(penalty, task_loss=task_loss).loss
        due = self._regularizer.due
        inputs = inputs.detach().requires_grad_(due)
        with self.setting.autocast(), twice_differentiable() if due else nullcontext():
            logits = self.model(inputs)
            task_loss = F.cross_entropy(logits, labels)
        return self._regularizer(logits, inputs, labels, task_loss=task_loss).loss


class AdversarialTraining(Method):
    """Cross entropy on images that ascended it for 7 steps: PGD-7 in the L-infinity ball, from a random start.

    The network stays in train mode, as is usual; its weights' gradients are not formed while the images are searched
    for, which is the cheapest way.

    References:
        Madry et al. 2018, arXiv 1706.06083.
    """

    ascents = 7
    epsilon = 8 / 255
    ascent = 2 / 255

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._plain = Plain(setting)

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        low, high = (inputs - self.epsilon).clamp(min=0), (inputs + self.epsilon).clamp(max=1)
        attacked = torch.lerp(low, high, torch.rand_like(inputs))
        with _frozen(self.model):
            for _ in range(self.ascents):
                attacked.requires_grad_()
                (slope,) = torch.autograd.grad(self._plain.loss(attacked, labels), attacked)
                attacked = (attacked.detach() + self.ascent * slope.sign()).clamp(low, high)
        return self._plain.loss(attacked, labels)


class JacobianRegularizer(Method):
    """Cross entropy and half the Jacobian's squared Frobenius norm, estimated by one random projection an image.

    ``weight / 2 * C * mean over images of |d(v . logits) / d inputs| ** 2``, v uniform on the unit sphere of R^C.

    References:
        Hoffman, Roberts and Yaida 2019, arXiv 1908.02729; n_proj = 1 and weight 0.01 are its settings.
    """

    weight = 0.01

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        terms: Callable[[Tensor, Tensor], Tensor] = self._terms_of
        self._terms = torch.compile(terms) if setting.compiled else terms

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with twice_differentiable():
            return self._terms(inputs.detach().requires_grad_(), labels)

    def _terms_of(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with self.setting.autocast():
            logits = self.model(inputs)
            task_loss = F.cross_entropy(logits, labels)
        directions = F.normalize(torch.randn_like(logits, dtype=torch.float32), dim=1)
        (slopes,) = torch.autograd.grad((directions * logits).sum(), inputs, create_graph=True)
        squared_norm: Tensor = logits.shape[1] * slopes.square().sum() / len(inputs)
        return task_loss + self.weight / 2 * squared_norm


def twice_differentiable() -> AbstractContextManager[None]:
    """Attention in plain operations: its flash and memory-efficient kernels have no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient; all of them do again afterwards."""
    model.requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        model.requires_grad_(requires_grad=True)


METHODS: dict[str, Callable[[Setting], Method]] = {
    "plain": Plain,
    "exact": Lipschitz,
    "every=4": lambda setting: Lipschitz(setting, every=4),
    "every=8": lambda setting: Lipschitz(setting, every=8),
    "PGD-7": AdversarialTraining,
    "Jacobian": JacobianRegularizer,
}
