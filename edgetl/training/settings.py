"""The settings of a run: checked, settled, and compared with those of a run that is to be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import zip_longest
from typing import Any

from edgetl import defaults
from edgetl.artifacts import Artifacts
from edgetl.choices import (
    AUTO_SCHEDULES,
    CACHE_PRECISIONS,
    CLASS_WEIGHTS,
    DECODINGS,
    INITIALIZATIONS,
    OPTIMIZERS,
    RANGES,
    RATES,
    STRENGTHS,
    check_choice,
    check_number,
)
from edgetl.data.depth import check_pixel_range
from edgetl.device.planning import plan_for
from edgetl.device.profile import THIS, Device, load_device, this_device
from edgetl.engines.registry import choose_micro_batch, resolve_engine
from edgetl.errors import DeviceError, EngineError, RunError
from edgetl.events import Note, OnEvent
from edgetl.files import storage
from edgetl.runs.run import (
    ARGS,
    BEST,
    CONFUSION,
    CURVES,
    FINAL,
    LAST,
    LOCK,
    METRICS,
    REPORT,
    RESULTS,
    SAMPLES,
    VALIDATION,
    Checkpoint,
    Run,
    RunArgs,
    UsedSample,
)
from edgetl.runtime import sessions
from edgetl.runtime.providers import PROVIDERS, Provider, resolve_provider
from edgetl.tasks.figures import metrics_of
from edgetl.training.rate import PRETRAINED_WARMUP


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse arguments of `finetune`, by name, that the command line would not let through.

    Raises:
        EdgetlError: a word is none of the choices, or a number out of range.
    """
    for name, choices in (
        ("optimizer", OPTIMIZERS),
        ("schedule", AUTO_SCHEDULES),
        ("init", INITIALIZATIONS),
        ("decode", DECODINGS),
    ):
        check_choice(name, given[name], choices)
    for name, some in (
        ("class_weights", CLASS_WEIGHTS),
        ("augment", STRENGTHS),
        ("cache_precision", CACHE_PRECISIONS),
    ):
        if given[name] is not None:
            check_choice(name, given[name], some)
    if given["pixel_range"] is not None:
        check_pixel_range(given["pixel_range"])
    if isinstance(given["lr"], str):
        check_choice("lr", given["lr"], RATES)
    for name in RANGES:
        if given[name] is not None and not (name == "lr" and isinstance(given["lr"], str)):
            check_number(name, given[name])


@dataclass(frozen=True)
class Resources:
    """What a run computes with: as it was asked for, or else as the device has it, or else by default.

    Attributes:
        device: None if none was named and no memory given.
        memory_mb: what the process may take, 10^6 bytes; None for no limit.
        decoding_mb: what decoding samples may take of it; None for no limit.
    """

    engine: str
    provider: Provider
    threads: int
    batch_size: int
    cache_precision: str
    device: Device | None
    device_name: str
    memory_mb: float | None
    decoding_mb: float | None = None


def resources(given: Mapping[str, Any], on_event: OnEvent) -> Resources:
    """Settle what the arguments of `finetune`, by name, leave to the device.

    Raises:
        DeviceError: there is no such device, or nothing trains on it.
        EngineError: the engine or provider is not installed.
    """
    name = given["device"] or THIS
    device = load_device(name) if given["device"] or given["memory_mb"] else None
    if device is not None and not device.engines:
        raise DeviceError(f"no engine of edgetl runs on {name}: train elsewhere and deploy for it")
    engine, provider, options = given["engine"], given["provider"], given["provider_options"]
    if device is not None and name != THIS:
        engine = _first_installed(device.engines) if engine == "auto" else engine
        if provider is None:
            provider, options = _first_available(device, on_event)
    return Resources(
        engine=resolve_engine(engine),
        provider=resolve_provider(provider, options, allow_fallback=given["allow_fallback"], on_event=on_event),
        threads=sessions.usable_threads(given["threads"] or (device.threads if device else None), on_event),
        batch_size=given["batch_size"] or (device.batch_size if device else defaults.BATCH_SIZE),
        cache_precision=given["cache_precision"] or (device.cache_precision if device else "float32"),
        device=device,
        device_name=name,
        memory_mb=given["memory_mb"] or (device.training_memory_mb if device else None),
    )


def _first_installed(engines: Sequence[str]) -> str:
    """Return the first engine that is installed; the first of all, which then says what to install, if none is."""
    for engine in engines:
        try:
            return resolve_engine(engine)
        except EngineError:
            continue
    return engines[0]


def _first_available(device: Device, on_event: OnEvent) -> tuple[str, Mapping[str, str]]:
    available = sessions.import_onnxruntime().get_available_providers()
    for wanted in device.providers:
        if PROVIDERS.get(wanted.name) in available:
            if wanted is not device.providers[0]:
                lacking = device.providers[0]
                on_event(Note(f"this onnxruntime has no {lacking.name}, so {wanted.name} computes"))
            return wanted.name, wanted.options
    return "cpu", {}


def fit(
    found: Resources, prepared: Artifacts, micro_batch: int | None, decoding_mb: float, validated: int
) -> tuple[Resources, int | None]:
    """Keep a run within the memory it may take; return fewer threads where they must be, and the largest micro-batch.

    Where no device and no memory were named, a control group's limit is kept to, which would end the process without
    a word.

    Args:
        decoding_mb: what decoding one of the samples takes, 10^6 bytes.
        validated: how many samples validate.

    Raises:
        DeviceError: it does not fit; the message says what would.
    """
    unasked = found.device is None
    if unasked:
        limit, manifest = sessions.memory_limit_mb(), prepared.manifest
        step = manifest.step_memory if found.engine == "portable" else manifest.ort_step_memory
        if limit is None or step is None:
            return found, None
        found = replace(found, device=this_device(), device_name="this control group", memory_mb=limit)
    assert found.device is not None
    plan = partial(
        plan_for,
        prepared,
        replace(found.device, engines=(found.engine,), threads=found.threads),
        name=found.device_name,
        batch_size=found.batch_size,
        decoding_mb=decoding_mb,
        validated=validated,
    )
    planned = plan(memory_mb=found.memory_mb)
    if not planned.fits and unasked:
        # nobody asked for a reserve; what does not fit even without one would be killed
        planned = plan(memory_mb=found.memory_mb, reserve=1.0)
    if not planned.fits:
        otherwise = "; or name another limit with --memory" if unasked else ""
        raise DeviceError("; ".join(planned.problems) + otherwise)
    if micro_batch is not None and micro_batch > planned.largest_micro_batch:
        raise DeviceError(
            f"--micro-batch {micro_batch} takes more than the {planned.budget_mb:.0f} MB of {found.device_name}: "
            f"{planned.largest_micro_batch} fit"
        )
    return replace(found, threads=planned.threads, decoding_mb=planned.decoding_mb), planned.largest_micro_batch


def check_task(given: Mapping[str, Any], task: str) -> None:
    """Refuse arguments of `finetune`, by name, that do not go with the task, before anything is computed.

    Raises:
        RunError: it names the option.
    """
    if task != "classification" and (
        given["label_smoothing"] or given["class_weights"] or given["init"] == "prototype"
    ):
        raise RunError(
            f"--label-smoothing, --class-weights and --init prototype are for one class per sample, not for {task}"
        )
    if given["metric"] is not None and given["metric"] not in metrics_of(task):
        raise RunError(
            f"--metric {given['metric']} is not measured of {task}: choose one of {', '.join(metrics_of(task))}"
        )


def settle(run: Run, args: RunArgs, prepared: Artifacts, *, largest: int | None, resume: bool) -> RunArgs:
    """Settle what the user left open, by the artifacts, or as the run to be resumed has it.

    Args:
        largest: micro-batch that fits the device; None if none was named.

    Raises:
        RunError: the settings of the run to be resumed are damaged.
    """
    if args.init == "auto":
        args = replace(args, init="zero" if prepared.manifest.head is None else "ridge")
    before = run.read_args() if resume and (run.path / ARGS).is_file() else None
    if args.lr == 0 and before is not None:
        args = replace(args, lr=before.lr)
    if args.micro_batch is None:
        chosen = choose_micro_batch(prepared.manifest, args.batch_size, sessions.available_memory_mb())
        if largest is not None and (chosen or args.batch_size) > largest:
            chosen = largest
        args = replace(args, micro_batch=before.micro_batch if before is not None else chosen)
    return args


def choose_schedule(schedule: str, warmup: float | None, *, pretrained: bool) -> tuple[str, float]:
    """Return schedule and warm-up as they were given, or as they suit a head alone or pretrained layers as well."""
    if warmup is None:
        warmup = PRETRAINED_WARMUP if pretrained and schedule == "auto" else 0.0
    return ("linear" if pretrained else "constant") if schedule == "auto" else schedule, warmup


def choose_refit(refit: bool | None, samples: int, *, split: bool, pretrained: bool) -> bool:
    """Return whether the run ends with training on all samples: as it was asked for, or where few would be lost.

    Args:
        samples: how many train and validate.
        split: whether those that validate were taken from the training samples.
        pretrained: whether more than a head trains, so that it takes its time.
    """
    return split and (not pretrained or samples < defaults.REFIT_BELOW) if refit is None else refit


def refuse_others(run: Run, *, resume: bool, force: bool) -> None:
    """Refuse a directory that is there and that a new run may not take the place of.

    Raises:
        EdgetlError: it says what may be done.
    """
    if resume and (run.path / ARGS).is_file():
        return
    left = {LOCK, SAMPLES} if resume else {LOCK}  # by a run that was interrupted before it had begun
    storage.refuse_existing(run.path, force=force or resume, marker=ARGS, hint="add --resume or --force", besides=left)


def begin(
    run: Run, args: RunArgs, samples: Callable[[], Iterator[UsedSample]], *, resume: bool, force: bool
) -> Checkpoint | None:
    """Make the run directory ready: new, or at the last checkpoint of the run to be resumed.

    Raises:
        RunError: there is a run that must not be replaced, or that had other settings or data.
    """
    if resume and (run.path / ARGS).is_file():
        _check_same(run, run.read_args(), args, samples())
        last = run.read_checkpoint(LAST)
        if last is not None and last.epoch >= args.epochs:
            args = replace(args, epochs=last.epoch)
        else:
            (run.path / METRICS).unlink(missing_ok=True)  # it goes on, so what this says does not hold any more
    else:
        refuse_others(run, resume=resume, force=force)
        for name in (REPORT, CURVES, CONFUSION, METRICS, VALIDATION, LAST, BEST, FINAL, RESULTS, SAMPLES, ARGS):
            (run.path / name).unlink(missing_ok=True)
        last = None
    storage.sweep(run.path)
    run.write_samples(samples())
    run.write_args(replace(args, samples_sha256=storage.sha256_file(run.path / SAMPLES)))
    return last


_MAY_DIFFER = {
    *("edgetl_version", "artifacts", "data", "val", "epochs", "device"),
    # follow from the samples, which are compared by their content
    *("input_columns", "label_columns", "target_mean", "target_std", "samples_sha256"),
}


def _check_same(run: Run, before: RunArgs, now: RunArgs, samples: Iterator[UsedSample]) -> None:
    """Refuse to continue a run with other settings or other data."""
    if now.epochs != before.epochs and (now.schedule != "constant" or now.warmup):
        raise RunError(
            f"{run.path} cannot be resumed for {now.epochs} epochs, because its learning rate follows a schedule "
            f"of {before.epochs}: repeat the first command with --resume, or start anew with --force"
        )
    for name in (field.name for field in fields(RunArgs) if field.name not in _MAY_DIFFER):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            what = "the artifacts differ" if name == "artifacts_sha256" else f"{name} was {old!r} and is now {new!r}"
            raise RunError(
                f"{run.path} cannot be resumed, because {what}: repeat the first command with --resume, "
                "or start anew with --force"
            )
    # the names may be others: a sample is known by its content
    pairs = zip_longest(run.read_samples(), samples) if (run.path / SAMPLES).is_file() else ()
    if any(old is None or new is None or old[:-1] != new[:-1] for old, new in pairs):
        raise RunError(
            f"{run.path} cannot be resumed, because the data in {now.data} have changed since it began: "
            "start anew with --force (features of unchanged samples are reused)"
        )
