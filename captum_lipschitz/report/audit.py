"""The audit: every step once, and what they say put together as a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from captum_lipschitz.measure.data import open_data
from captum_lipschitz.measure.machine import described, pick_device, repeatable
from captum_lipschitz.metrics.fidelity import FIDELITY_MEASURES
from captum_lipschitz.report.content import Audit, Finding, Measure, ModelAudit, Table
from captum_lipschitz.report.explanations.methods import TITLES
from captum_lipschitz.report.images.unshown import OUTLINING, forget_images, pictured_methods
from captum_lipschitz.report.outputs import remove_report, write_report
from captum_lipschitz.report.robust import area_of, robustness_of
from captum_lipschitz.report.settings import AuditSettings
from captum_lipschitz.report.steps import as_image
from captum_lipschitz.report.store import StepStore
from captum_lipschitz.report.subject import Subject, subject_of
from captum_lipschitz.report.verdicts.compared import Measured, comparison, robust_finding, robustness_finding
from captum_lipschitz.report.verdicts.findings import OURS, fidelity_findings, invalidation_findings
from captum_lipschitz.report.verdicts.tabled import INVALIDATION, table, with_derived
from captum_lipschitz.report.work import ATTACK, DOUBTS, FIDELITY, LABELS, PICTURES, Work, carry_out, jobs_of
from captum_lipschitz.report.work import INVALIDATION as ATTACKED

_PARTS = {ATTACK: "Robustness", LABELS: "Robustness", DOUBTS: "Doubts about the area", PICTURES: "Explanation grid"}
_TABLES = {ATTACKED: "invalidation", FIDELITY: "fidelity"}
_STEPS = ("first", "second")  # folders of the models' finished steps

FAITHFUL = tuple(Measure(key=m.key, title=m.title, text=m.text, better=m.better) for m in FIDELITY_MEASURES.values())
"""The columns of the table on claim 3."""


def run_audit(settings: AuditSettings, say: Callable[[str], None] = print, *, show_progress: bool = True) -> Audit:
    """Audit a model, or two on the same images, going on from what an earlier run of the same settings left.

    What cannot be done of a model, or by a method, is left out with its reason, and the rest goes on. Finished steps
    lie under ``settings.output / "first"`` (and ``"second"``): they are not repeated after a kill, and the figures are
    those of an undisturbed run to the bit, on the same kind of machine.

    Args:
        settings: see ``AuditSettings``. ``report.html``, ``report.json`` and CSV files are written to its ``output``.
        say: takes lines of text: the most important figures, and where the files lie.
        show_progress: a bar with the time left, on the error stream.

    Returns:
        What the report shows.

    Raises:
        InvalidInputError, InvalidTypeError, UnknownNameError, MissingDependencyError: for settings, weights or images
            that cannot be used, before any work.
        ModelOutputError: for a model whose output is no decision.
        OSError: the disk is full, or gone.
    """
    device = pick_device(settings.device, 0)
    with repeatable(device, settings.threads):
        data = open_data(settings.measured(0), several_labels=True)
        data.check(0, len(data.labels))
        subjects = [subject_of(settings, which, data, device) for which in range(len(settings.models()))]
        works = [
            Work(subject, _claimed(settings, subject, which), jobs_of(subject, settings, which))
            for which, subject in enumerate(subjects)
        ]
        if not settings.images:
            own = {
                folder: [job.name for work in works[i : i + 1] for job in work.jobs if job.kind.part == PICTURES]
                for i, folder in enumerate(_STEPS)
            }
            forget_images(settings.output, own)
        carry_out(works, settings, show_progress=show_progress)
        audit = _assembled(works, settings, described(device))
    for work in works:
        work.store.check()  # another run may have begun anew here meanwhile
    for model in audit.models:
        say(_told(model))
    say(f"The report is {write_report(settings.output, audit)}; beside it lie the same figures as JSON and CSV.")
    return audit


def _claimed(settings: AuditSettings, subject: Subject, which: int) -> StepStore:
    store = StepStore(settings.output / _STEPS[which], subject.identity)
    if settings.restart:
        store.clear()
        for folder in _STEPS[len(settings.models()) :]:
            StepStore(settings.output / folder, {}).clear()
        remove_report(settings.output)
    store.claim()
    return store


def _assembled(works: list[Work], settings: AuditSettings, machine: Mapping[str, str]) -> Audit:
    measured = [_measured(work) for work in works]
    findings = [[*invalidation_findings(m.invalidation), *fidelity_findings(m.fidelity)] for m in measured]
    compared = {}
    if len(measured) == 2:
        first, second = measured
        compared = comparison(first, second, INVALIDATION)
        found = robustness_finding(first, second)
        findings[1] += [found] if found else []
        advantage = robust_finding(first, second)
        if advantage is not None:
            findings[advantage[0]].append(advantage[1])
    models = [
        _model_audit(work, one, told, settings) for work, one, told in zip(works, measured, findings, strict=True)
    ]
    versions: Mapping[str, str] = works[0].subject.identity["versions"]
    return Audit(
        models=tuple(models),
        settings={**settings.to_dict(), "costs": _costs(works[0].subject), "machine": dict(machine)},
        versions={**versions, "python": machine["python"]},
        seconds=sum(step.seconds for work in works for step in work.done.values()),
        comparison=compared,
    )


def _measured(work: Work) -> Measured:
    return Measured(
        name=work.subject.name,
        area=area_of(work),
        invalidation=with_derived(_values(work, ATTACKED)),
        fidelity=_values(work, FIDELITY),
    )


def _values(work: Work, part: str) -> dict[str, dict[str, Tensor]]:
    """By method and measure, of all images; a measure that some chunk has no value of is not there."""
    found = {}
    for method in work.subject.methods:
        steps = work.of(part, method)
        if steps:
            keys = [key for key in steps[0].values if all(key in step.values for step in steps)]
            found[method] = {key: torch.cat([step.values[key] for step in steps]) for key in keys}
    return found


def _model_audit(work: Work, measured: Measured, findings: list[Finding], settings: AuditSettings) -> ModelAudit:
    return ModelAudit(
        name=work.subject.name,
        robustness=robustness_of(work),
        invalidation=_invalidation_table(measured, settings),
        fidelity=_fidelity_table(measured),
        findings=tuple(findings),
        images=tuple(as_image(notes) for step in work.so_far(PICTURES) for notes in step.notes["images"]),
        left_out=_left_out(work, settings),
    )


def _invalidation_table(measured: Measured, settings: AuditSettings) -> Table | None:
    confined = settings.plan.confined
    sizes = (
        "" if confined is None else f" Confined attacks are of effort {confined}, which finds changes a little larger."
    )
    return table(
        measured.invalidation,
        INVALIDATION,
        title="Attacks and explanations",
        text="What becomes of each method's map when attacks change the decision, on images decided rightly, and "
        f"what the map says about where the attack works.{sizes}",
        compared_with=OURS,
    )


def _fidelity_table(measured: Measured) -> Table | None:
    return table(
        measured.fidelity,
        FAITHFUL,
        title="Fidelity of explanations",
        text="How faithfully each method's explanation of the model's own decision tells what the model does, on the "
        "same images: insertion, deletion, infidelity and ROAD. The others are of something else, and decide nothing "
        "here. What is behind a mean is the difference from adversarial explanations, image by image.",
        compared_with=OURS,
    )


def _left_out(work: Work, settings: AuditSettings) -> dict[str, str]:
    """What could not be done, to why: of the model's kind, by a method, or because a step raised."""
    found = {f"{what.capitalize()} table": why for what, why in work.subject.head.left_out.items()}
    found |= {TITLES[name]: why for name, why in work.subject.left_out.items()}
    found |= _pictures_left_out(work, settings)
    for (part, method), why in work.failed.items():
        if method and (part != ATTACKED or (ATTACK, "") not in work.failed):
            found[f"{TITLES[method]}, {_TABLES[part]}"] = why
        elif part == PICTURES and (count := sum(len(step.notes["images"]) for step in work.so_far(PICTURES))):
            found[_PARTS[part]] = f"of all but {count} images: {why}"
        elif not method and (part != DOUBTS or (ATTACK, "") not in work.failed):
            found[_PARTS[part]] = why
    if (ATTACK, "") in work.failed:
        found["Invalidation table"] = "there is no attack to go by"
    area = area_of(work)
    if area is not None and not area.clean_accuracy:
        found["Attacks that change a decision"] = "no image was decided rightly, so that there is none to change"
    elif settings.plan.confined is None and ATTACKED not in work.subject.head.left_out:
        found["Attacks confined to a region"] = f"effort {settings.effort} leaves them out"
    return found | _measures_left_out(work)


def _pictures_left_out(work: Work, settings: AuditSettings) -> dict[str, str]:
    """Methods without pictures: of all images where none are shown, or of those that they raised on."""
    methods = work.subject.methods
    unshown = set(methods) - set(pictured_methods(methods, images=settings.images))
    reasons = {name: OUTLINING[name] for name in methods if name in unshown}
    failed: dict[str, list[str]] = {}
    for step in work.so_far(PICTURES):
        for name, why in step.notes["failed"]:
            failed.setdefault(name, []).append(why)
    count = sum(len(step.notes["images"]) for step in work.so_far(PICTURES))
    for name, whys in failed.items():
        reasons[name] = whys[0] if len(whys) == count else f"of {len(whys)} of {count} images: {whys[0]}"
    return {f"{TITLES[name]}, pictures": reasons[name] for name in TITLES if name in reasons}


def _measures_left_out(work: Work) -> dict[str, str]:
    """Fidelity's measures: once where the reason is all methods' own, else by method."""
    reasons: dict[str, dict[str, str]] = {}
    for method in work.subject.methods:
        for step in work.of(FIDELITY, method) or ():
            for key, why in step.notes["left_out"].items():
                reasons.setdefault(key, {})[method] = why
    found: dict[str, str] = {}
    for key, by_method in reasons.items():
        title = FIDELITY_MEASURES[key].title
        if len(by_method) == len(work.subject.methods) and len(set(by_method.values())) == 1:
            found[title] = next(iter(by_method.values()))
        else:
            found |= {f"{title} of {TITLES[method]}": why for method, why in by_method.items()}
    return found


def _costs(subject: Subject) -> dict[str, str]:
    return {method.title: method.cost for method in subject.methods.values()}


def _told(model: ModelAudit) -> str:
    count = {s: sum(f.support == s for f in model.findings) for s in ("supported", "contradicted", "undecided")}
    claims = ", ".join(f"{number} {support}" for support, number in count.items())
    area = None if model.robustness is None else model.robustness.ara["area"]
    robust = "" if model.robustness is None else f"accuracy {model.robustness.accuracy:.3f}, "
    size = "" if area is None or math.isnan(area) else f"ARA {area:.4g}, "
    left_out = f"; left out: {', '.join(model.left_out)}" if model.left_out else ""
    return f"{model.name}: {robust}{size}claims: {claims}{left_out}"
