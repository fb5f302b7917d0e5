"""Out of memory: half as many images at once, the same answers as of chunks of that size, and one warning."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from strategies import build_batch, build_convolutional
from torch import Tensor, nn

from captum_lipschitz import (
    AdversarialAttribution,
    AdversarialTraining,
    AttackResult,
    ContrastiveAdversarialAttribution,
    EnsembleAttack,
    FixedSizeAttack,
    LayerAdversarialAttribution,
    MinimalAdversarialAttribution,
    MinimumNormAttack,
    PaperAttack,
    Reaches,
    _memory,
    accuracy_robustness_area,
    fit_temperature,
    local_lipschitz,
    margin_radius,
    multilabel_robustness_areas,
)
from captum_lipschitz._memory import as_many_as_fit, in_chunks, one_room
from captum_lipschitz.errors import CaptumLipschitzWarning
from captum_lipschitz.metrics import invalidation
from captum_lipschitz.metrics.confinement import confined_distances

CPU = torch.device("cpu")
IMAGES, ROOM = 11, 3  # 11, 5, 2: what fits after two halvings
FITTING = 2
CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"
ERRORS = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU_MESSAGE), MemoryError()]
MESSAGES = [
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory (MPS allocated: 9 GB)",
]


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going through everything that the tests have imported takes long; what they look at is freed without."""
    monkeypatch.setattr(_memory, "_free", lambda: None)


class Limited(nn.Module):
    """A model with room for so many images."""

    def __init__(self, model: nn.Module, room: int = ROOM, error: Exception = ERRORS[0]) -> None:
        super().__init__()
        self.model = model
        self.room = room
        self.error = error
        self.largest = 0
        self.seen: list[weakref.ref[Tensor]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs * 1
        self.seen.append(weakref.ref(hidden))
        if len(inputs) > self.room:
            raise type(self.error)(*self.error.args)
        self.largest = max(self.largest, len(inputs))
        logits: Tensor = self.model(hidden)
        return logits


def noisy_attack(model: Any, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    model(inputs)
    return inputs + sizes[:, None, None, None] * torch.randn(inputs.shape, dtype=inputs.dtype).sign()


class Foreign:
    """An attack that is none of ours: the paper's, which knows nothing of memory."""

    def __call__(self, model: Any, inputs: Tensor, labels: Tensor, criterion: Any = "misclassified") -> AttackResult:
        with torch.no_grad():
            model(inputs)
        return AttackResult(inputs, torch.zeros(len(inputs)), torch.zeros(len(inputs)).bool(), torch.ones(len(inputs)))


def saliency(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    def explain(images: Tensor, targets: Tensor) -> Tensor:
        images.requires_grad_()
        return torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images)[0]

    return explain


def _whole(model: nn.Module, images: Tensor, labels: Tensor, **settings: Any) -> Any:
    return accuracy_robustness_area(model, (images, labels), attack=MinimumNormAttack(steps=4), **settings).distances


Call = Callable[[nn.Module, Tensor, Tensor], Any]
CALLS: dict[str, Call] = {
    "minimum_norm": MinimumNormAttack(steps=8),
    "minimum_norm_reaches": lambda m, x, y: MinimumNormAttack(steps=8)(m, x, y, Reaches(1)),
    "paper": PaperAttack(steps=6, rho=1.0),
    "ensemble": EnsembleAttack([MinimumNormAttack(steps=4), PaperAttack(steps=4, rho=1.0)]),
    "sized_noise": FixedSizeAttack(noisy_attack, rounds=4),
    "adversarial": lambda m, x, y: AdversarialAttribution(m).attribute(x, y, n_steps=3),
    "contrastive": lambda m, x, y: ContrastiveAdversarialAttribution(m).attribute(x, y, n_steps=3),
    "layer": lambda m, x, y: LayerAdversarialAttribution(m, m.model[0]).attribute(x, y, n_steps=3),
    "minimal": lambda m, x, y: MinimalAdversarialAttribution(m).attribute(x, y, n_steps=6),
    "local_lipschitz": lambda m, x, _: local_lipschitz(m, x, iterations=5),
    "margin_radius": margin_radius,
    "confined": lambda m, x, y: confined_distances(m, x, y, x[:, 0] > 0.5, attack=MinimumNormAttack(steps=4)),
    "invalidation": lambda m, x, y: (
        invalidation(m, x, y, explain=saliency(m), attack=MinimumNormAttack(steps=4)).same_class.cosine
    ),
    "area": _whole,
}


def flat(answer: Any) -> list[Tensor]:
    return list(vars(answer).values()) if isinstance(answer, AttackResult) else [answer]


def case(error: Exception = ERRORS[0], room: int = ROOM) -> tuple[Limited, Tensor, Tensor]:
    inputs, _ = build_batch(5, IMAGES)
    network = build_convolutional(6)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    return Limited(network, room, error).eval(), inputs, labels


@pytest.mark.parametrize("name", CALLS)
def test_the_answers_are_those_of_smaller_chunks(name: str) -> None:
    model, inputs, labels = case()
    state = torch.get_rng_state()
    with pytest.warns(
        CaptumLipschitzWarning, match=f"out of memory with .*{IMAGES}, 5.* going on with {FITTING}"
    ) as seen:
        answer = CALLS[name](model, inputs, labels)
    assert len(seen) == 1
    assert torch.equal(state, torch.get_rng_state())
    assert model.largest == FITTING
    if name == "area":  # the bootstrap, and an attack that starts from the data, look at all images at once
        whole = CALLS[name](model.model, inputs, labels)
        torch.testing.assert_close(answer, whole, rtol=1e-6, atol=1e-9)
        return
    model.room = IMAGES
    parts = [CALLS[name](model, *part) for part in zip(inputs.split(FITTING), labels.split(FITTING), strict=True)]
    for found, *expected in zip(flat(answer), *map(flat, parts), strict=True):
        torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_kind_of_memory_error(error: Exception) -> None:
    model, inputs, labels = case(error)
    with pytest.warns(CaptumLipschitzWarning, match=f"going on with {FITTING}"):
        MinimumNormAttack(steps=2)(model, inputs, labels)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "invalidation"])
def test_one_image_is_the_end(name: str, error: Exception) -> None:
    model, inputs, labels = case(error, room=0)
    with pytest.raises(type(error), match=r"out of memory with one image at once \(tried 11, 5, 2, 1\)") as met:
        CALLS[name](model, inputs, labels)
    assert isinstance(met.value.__cause__, type(error))
    assert len(model.seen) == 4  # nothing is tried again from outside


@pytest.mark.parametrize("name", CALLS)
def test_other_errors_are_not_swallowed(name: str) -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    model, inputs, labels = case(error)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        CALLS[name](model, inputs, labels)
    assert len(model.seen) == 1


def test_internal_batch_size_is_where_it_starts() -> None:
    model, inputs, labels = case()
    attribution = AdversarialAttribution(model)
    with pytest.warns(CaptumLipschitzWarning, match="out of memory with 8, 4 images at once; going on with 2"):
        answer = attribution.attribute(inputs, labels, n_steps=3, internal_batch_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(answer, attribution.attribute(inputs, labels, n_steps=3, internal_batch_size=2))
    with pytest.warns(CaptumLipschitzWarning):
        change = attribution.compute_log_odds_change(answer, inputs, labels)
    assert torch.equal(change, attribution.compute_log_odds_change(answer, inputs, labels, internal_batch_size=2))


def test_batch_statistics_are_never_halved() -> None:
    model, inputs, labels = case()
    model.train()
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory$"):
        AdversarialAttribution(model).attribute(inputs, labels, n_steps=3)
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory$"):
        AdversarialTraining(probability=1.0)(model, inputs, labels)
    assert len(model.seen) == 2


def test_batch_norm_without_averages_is_never_halved() -> None:
    """It takes the statistics of the batch in evaluation mode too."""
    inputs, _ = build_batch(5, IMAGES)
    norm = nn.BatchNorm2d(inputs.shape[1], track_running_stats=False)
    model = Limited(nn.Sequential(norm, nn.Flatten(), nn.Linear(inputs[0].numel(), 3)).to(inputs)).eval()
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory$"):
        AdversarialAttribution(model).attribute(inputs, 0, n_steps=3)
    assert len(model.seen) == 1


def test_attacks_within_attacks_are_not_halved_in_training() -> None:
    """A member of an ensemble cuts by itself where it is called alone; what it runs together is then its statistics."""

    class OnlyGradients(Limited):
        def forward(self, inputs: Tensor) -> Tensor:
            self.room = ROOM if inputs.requires_grad else IMAGES
            return super().forward(inputs)

    limited, inputs, labels = case()
    adversary = AdversarialTraining(attack=EnsembleAttack([MinimumNormAttack(steps=2)]), probability=1.0)
    for mode in (True, False):
        model = OnlyGradients(limited.model).train(mode)
        with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory$"):
            adversary(model, inputs, labels)
        assert model.training == mode
    with pytest.warns(CaptumLipschitzWarning, match="going on with 2"):  # and afterwards all is as it was
        adversary.attack(limited.eval(), inputs, labels)


def test_one_warning_for_many_batches_and_all_that_an_area_does() -> None:
    model, inputs, labels = case()
    batches = [(inputs, labels), (inputs.flip(0), labels.flip(0)), (inputs, labels)]
    with pytest.warns(CaptumLipschitzWarning) as seen:
        result = accuracy_robustness_area(model, batches, attack=MinimumNormAttack(steps=3), doubts="full")
    assert len(seen) == 1
    whole = accuracy_robustness_area(model.model, batches, attack=MinimumNormAttack(steps=3), doubts="full")
    torch.testing.assert_close(result.distances, whole.distances, rtol=1e-6, atol=1e-9)


def test_a_foreign_attack_is_halved_from_outside() -> None:
    model, inputs, labels = case()
    with pytest.warns(CaptumLipschitzWarning, match="Foreign: out of memory"):
        result = accuracy_robustness_area(model, (inputs, labels), attack=Foreign(), doubts="off")
    assert torch.isinf(result.distances[result.distances > 0]).all()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no such layer")], ids=["memory", "other"])
def test_what_a_foreign_attack_leaves_behind_when_it_fails(error: Exception) -> None:
    """It is undone before half as many images are tried, and where all has failed."""

    class Careless(Foreign):
        modes: ClassVar[list[tuple[bool, bool]]] = []

        def __call__(self, model: Any, inputs: Tensor, labels: Tensor, criterion: Any = "misclassified") -> Any:
            self.modes.append((model.training, torch.is_grad_enabled()))
            model.train()
            torch.set_grad_enabled(False)
            torch.rand(3)
            raise error

    limited, inputs, labels = case()
    attack, state = Careless(), torch.get_rng_state()
    attack.modes.clear()
    with pytest.raises(type(error)):
        accuracy_robustness_area(limited.model, (inputs, labels), attack=attack, doubts="off")
    assert set(attack.modes) == {(False, True)}
    assert not any(module.training for module in limited.modules())
    assert torch.is_grad_enabled()
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.filterwarnings("ignore:Steep claimed")
def test_a_foreign_attack_in_inference_mode() -> None:
    class Steep(Foreign):
        def __call__(self, model: Any, inputs: Tensor, labels: Tensor, criterion: Any = "misclassified") -> Any:
            leaf = inputs.requires_grad_()
            (slope,) = torch.autograd.grad(model(leaf).gather(1, labels[:, None]).sum(), leaf)
            inputs = inputs.detach()
            return AttackResult(inputs - 9 * slope, torch.zeros(len(inputs)), labels >= 0, torch.ones(len(inputs)))

    limited, inputs, labels = case()
    expected = accuracy_robustness_area(limited.model, (inputs, labels), attack=Steep(), doubts="off").distances
    with torch.inference_mode():
        made = inputs.clone(), labels.clone()
        found = accuracy_robustness_area(limited.model, made, attack=Steep(), doubts="off").distances
    assert torch.equal(found, expected)
    assert ((expected > 0) & torch.isfinite(expected)).any()


def test_several_labels_and_temperatures() -> None:
    model, inputs, labels = case()
    wrong = (labels + (torch.arange(IMAGES) % 3 == 0)) % 4
    sets = torch.nn.functional.one_hot(wrong, 4)
    with pytest.warns(CaptumLipschitzWarning) as seen:
        areas = multilabel_robustness_areas(model, (inputs, sets), which=[0, 1], attack=MinimumNormAttack(steps=3))
    assert len(seen) == 1
    assert set(areas.labels) == {0, 1}
    with pytest.warns(CaptumLipschitzWarning):
        fitted = fit_temperature(model, (inputs, wrong))
    assert fitted == pytest.approx(fit_temperature(model.model, (inputs, wrong)))


def test_what_was_tried_is_freed() -> None:
    """Frames of a failed try hold its tensors; none of them is alive when half as many images are tried."""
    alive: list[int] = []
    tensors: list[weakref.ref[Tensor]] = []

    def work(start: int, stop: int) -> int:
        gc.disable()
        alive.append(sum(ref() is not None for ref in tensors))
        large = torch.zeros(stop - start, 1000)
        tensors.append(weakref.ref(large))
        if stop - start > 1:
            raise torch.OutOfMemoryError(f"with {len(large)}")
        return start

    try:
        with pytest.warns(CaptumLipschitzWarning, match="tests: out of memory with 8, 4, 2 images"):
            assert in_chunks(work, 8, what="tests", device=CPU) == list(range(8))
    finally:
        gc.enable()
    assert alive == [0] * 11


def test_what_fitted_is_remembered_within_one_call() -> None:
    tried: list[int] = []

    def work(start: int, stop: int) -> int:
        tried.append(stop - start)
        if stop - start > 2:
            raise MemoryError
        return stop - start

    @one_room()
    def call() -> int:
        for what in ("a", "a", "b"):
            in_chunks(work, 4, what=what, device=CPU)
        return as_many_as_fit(lambda n: work(0, n), 8, what="c", device=CPU)

    with pytest.warns(CaptumLipschitzWarning) as seen:
        assert call() == 2
    assert len(seen) == 1
    assert tried == [4, 2, 2, 2, 2, 4, 2, 2, 8, 4, 2]
    with pytest.warns(CaptumLipschitzWarning):  # the next call knows nothing of it
        in_chunks(work, 4, what="a", device=CPU)


def test_draws_of_a_failed_try_are_drawn_again() -> None:
    def work(start: int, stop: int) -> Tensor:
        drawn = torch.rand(stop - start)
        if stop - start > 2:
            raise MemoryError
        return drawn

    torch.manual_seed(0)
    with pytest.warns(CaptumLipschitzWarning):
        found = torch.cat(in_chunks(work, 5, what="tests", device=CPU))
    torch.manual_seed(0)
    assert torch.equal(found, torch.cat(in_chunks(work, 5, what="tests", device=CPU, at_once=2)))


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_of_libraries(message: str) -> None:
    def work(start: int, stop: int) -> int:
        if stop - start > 2:
            raise RuntimeError(message)
        return stop - start

    with pytest.warns(CaptumLipschitzWarning, match="tests: out of memory with 4"):
        assert in_chunks(work, 4, what="tests", device=CPU) == [2, 2]


def test_an_error_of_the_model_that_only_sounds_like_it() -> None:
    def work(start: int, stop: int) -> None:
        raise RuntimeError("the address book is out of memory cards")

    with pytest.raises(RuntimeError, match="cards"):
        in_chunks(work, 4, what="tests", device=CPU)
