"""The steps of an audit in their order, each carried out once: by this run, or by one before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from captum_lipschitz._memory import one_room
from captum_lipschitz.attacks import AttackResult
from captum_lipschitz.measure.chunks import spans
from captum_lipschitz.measure.settings import fingerprint
from captum_lipschitz.report import steps
from captum_lipschitz.report.images.unshown import pictured_methods
from captum_lipschitz.report.progress import Kind, Progress
from captum_lipschitz.report.settings import AuditSettings
from captum_lipschitz.report.steps import Chunk
from captum_lipschitz.report.store import Step, StepStore
from captum_lipschitz.report.stored import fits
from captum_lipschitz.report.subject import Subject

ATTACK, INVALIDATION, FIDELITY, PICTURES, DOUBTS, LABELS = (
    "attack", "invalidation", "fidelity", "pictures", "doubts", "labels"
)  # fmt: skip
_NEEDS = {INVALIDATION: ATTACK, DOUBTS: ATTACK}  # what a part builds on


@dataclass(frozen=True)
class Job:
    """One step that has to be there: of a model, on images ``start`` to ``stop``."""

    kind: Kind
    start: int
    stop: int
    variant: str = ""

    @property
    def name(self) -> str:
        """Of its file."""
        parts = (self.kind.part, self.kind.method, self.variant, f"{self.start:06d}")
        return "-".join(part for part in parts if part)


@dataclass
class Work:
    """What is done of one model.

    Attributes:
        subject: the model.
        store: where finished steps lie.
        jobs: all of them, in order.
        done: finished ones, by name.
        failed: part and method (or ``""``) that raised, to why; nothing more is tried of these.
        attack: the last attack's step, and what it found: no file holds that, for images could be had from it.
    """

    subject: Subject
    store: StepStore
    jobs: Sequence[Job]
    done: dict[str, Step] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    attack: tuple[str, AttackResult] | None = None

    def of(self, part: str, method: str = "") -> list[Step] | None:
        """All steps of a part, in the images' order; ``None`` where it failed or was never asked for."""
        names = [job.name for job in self.jobs if (job.kind.part, job.kind.method) == (part, method)]
        return [self.done[name] for name in names] if names and (part, method) not in self.failed else None

    def so_far(self, part: str) -> list[Step]:
        """The steps of a part that were finished, though it failed later."""
        return [self.done[job.name] for job in self.jobs if job.kind.part == part and job.name in self.done]


def jobs_of(subject: Subject, settings: AuditSettings, model: int) -> list[Job]:
    """The steps of one model, chunk by chunk: so the first chunk tells how long each kind takes."""
    total = len(subject.labels)
    variant = _variant(subject, settings)
    parts = [part for part in (INVALIDATION, FIDELITY) if part not in subject.head.left_out]
    found: list[Job] = []
    for start, stop in spans(total, settings.chunk_size):
        several = subject.head.kind == "multi_label"
        kinds = [] if several else [Kind(model, ATTACK, "")]
        kinds += [Kind(model, part, method) for method in subject.methods for part in parts]
        found += [Job(kind, start, stop) for kind in kinds]
        found.append(Job(Kind(model, PICTURES, ""), start, stop, variant))
    last = LABELS if subject.head.kind == "multi_label" else DOUBTS
    return [*found, Job(Kind(model, last, ""), 0, total)]


@one_room()
def carry_out(works: Sequence[Work], settings: AuditSettings, *, show_progress: bool) -> None:
    """Do every job that is not on disk; each finished one is there before the next begins.

    What a step raises is noted and the rest goes on; nothing that happens to files or images is taken for that.
    """
    with closing(Progress([job.kind for work in works for job in work.jobs], shown=show_progress)) as progress:
        for work in works:
            pictures = [job.name for job in work.jobs if job.kind.part == PICTURES]
            work.store.remove_others(f"{PICTURES}-", pictures)
            for job in work.jobs:
                step, outputs = work.store.load(job.name), work.subject.head.outputs
                if step is None or not fits(step, job.kind.part, job.stop - job.start, outputs=outputs):
                    progress.begins(_told(job, len(works)))
                    step = _done(work, job, settings)
                if step is not None:
                    work.done[job.name] = step
                progress.finished(job.kind, None if step is None else step.seconds)


def _done(work: Work, job: Job, settings: AuditSettings) -> Step | None:
    """Carry out one job and keep what it found; ``None``, and why in ``failed``, where it cannot be done."""
    part, method = job.kind.part, job.kind.method
    needed = _NEEDS.get(part, part)
    if (part, method) in work.failed or (needed, "") in work.failed:
        if (needed, "") in work.failed:
            work.failed.setdefault((part, method), work.failed[needed, ""])
        return None
    subject = work.subject
    images, labels = subject.images(job.start, job.stop), subject.labels[job.start : job.stop].to(subject.device)
    began = time.monotonic()
    torch.manual_seed(job.start)  # of what draws without a generator: what ran before makes no difference
    try:
        step = _RUN[part](work, job, Chunk(images, labels, job.start), settings)
    except Exception as error:  # noqa: BLE001 (other people's models and methods raise anything; the rest can go on)
        work.failed[part, method] = steps.reason(error)
        return None
    step = replace(step, seconds=time.monotonic() - began)
    if not step.notes.get("failed"):  # the next run tries again
        work.store.save(job.name, step)
    return step


def _attack(work: Work, job: Job, chunk: Chunk, settings: AuditSettings) -> Step:
    del settings
    step, result = steps.attacked(work.subject, chunk)
    work.attack = job.name, result
    return step


def _invalidation(work: Work, job: Job, chunk: Chunk, settings: AuditSettings) -> Step:
    name = Job(Kind(job.kind.model, ATTACK, ""), job.start, job.stop).name
    if work.attack is None or work.attack[0] != name:  # an earlier run's: the same attack again finds the same
        work.attack = name, steps.attacked(work.subject, chunk)[1]
        torch.manual_seed(job.start)
    return steps.invalidated(work.subject, chunk, work.subject.methods[job.kind.method], work.attack[1], settings.plan)


def _fidelity(work: Work, job: Job, chunk: Chunk, settings: AuditSettings) -> Step:
    return steps.faithful(work.subject, chunk, work.subject.methods[job.kind.method], settings)


def _pictures(work: Work, job: Job, chunk: Chunk, settings: AuditSettings) -> Step:
    del job
    return steps.pictured(work.subject, chunk, settings)


def _doubts(work: Work, job: Job, chunk: Chunk, settings: AuditSettings) -> Step:
    del job, chunk, settings
    return steps.doubts(work.subject, distances_of(work))


def _labels(work: Work, job: Job, chunk: Chunk, settings: AuditSettings) -> Step:
    del job, settings
    return steps.label_by_label(work.subject, chunk)


_RUN: dict[str, Callable[[Work, Job, Chunk, AuditSettings], Step]] = {
    ATTACK: _attack,
    INVALIDATION: _invalidation,
    FIDELITY: _fidelity,
    PICTURES: _pictures,
    DOUBTS: _doubts,
    LABELS: _labels,
}


def distances_of(work: Work) -> Tensor:
    """The attack's distances on all images, (N,)."""
    return torch.cat([step.values["distances"] for step in work.of(ATTACK) or ()])


def _variant(subject: Subject, settings: AuditSettings) -> str:
    """What pictures depend on besides the store's identity."""
    shown = {
        "classes": subject.classes,
        "images": settings.images,
        "methods": list(pictured_methods(subject.methods, images=settings.images)),
        "of_each": [settings.plan.classes, *settings.plan.sizes],
    }
    return fingerprint(shown)[:12]


def _told(job: Job, models: int) -> str:
    parts: Iterator[str] = (part.replace("_", " ") for part in (job.kind.part, job.kind.method) if part)
    which = f"model {job.kind.model + 1}, " if models > 1 else ""
    return f"{which}{', '.join(parts)}, images {job.start + 1} to {job.stop}"
