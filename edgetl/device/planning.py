"""plan(): will a job fit a device, and in which form? From the sizes in the manifest, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgetl import defaults
from edgetl.artifacts import Artifacts, GraphMemory, Manifest, ShareSize, load_artifacts
from edgetl.data.decode import enough_pixels
from edgetl.data.memory import photograph_mb
from edgetl.declaration import Range, check_range, takes
from edgetl.device.profile import Device, load_device
from edgetl.device.settings import PlanSettings
from edgetl.engines.registry import specs
from edgetl.errors import DeviceError

LARGEST_BATCH = 1024
RESERVE = 1.2
"""A job fits if so many times its predicted memory does: no prediction in docs/devices.md is further off."""
_INDEX_BYTES = 24
"""Of a sample in the index of the feature cache."""


@dataclass(frozen=True)
class Memory:
    """Predicted largest resident memory of a process, 10^6 bytes, while it computes features and while it trains."""

    features_mb: float
    training_mb: float

    @property
    def peak_mb(self) -> float:
        """The larger of the two."""
        return max(self.features_mb, self.training_mb)


@dataclass(frozen=True)
class Plan:
    """How a job runs on a device, or why it does not.

    Attributes:
        device: its name; `title` is what it is.
        engine: what trains there; None if nothing can.
        threads: how many compute; fewer than the device's where memory is short.
        batch_size: samples of a step, computed `micro_batch` at once.
        memory: predicted for that; None if nothing can train.
        pictures: width and height of the pictures to decode; None if they were not given.
        decoding_mb: what is left of the budget for decoding samples, 10^6 bytes.
        budget_mb: what the training process may take, 10^6 bytes.
        largest_micro_batch: the largest power of two whose samples fit at once; 0 if none does.
        cache_mb, disk_mb: of the features of `images` samples, and of those, the prepared directory and the
            run together; None if their number was not given.
        deploy_precision: what `deploy` should take for the device.
        problems: what stands in the way, a sentence each; empty if the job fits.
    """

    artifacts: str
    device: str
    title: str
    engine: str | None
    threads: int
    batch_size: int
    micro_batch: int
    memory: Memory | None
    budget_mb: float
    largest_micro_batch: int
    pictures: tuple[int, int] | None
    decoding_mb: float
    images: int | None
    cache_mb: float | None
    disk_mb: float | None
    storage_mb: float
    deploy_precision: str
    problems: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.problems


@takes(PlanSettings)
def plan(settings: PlanSettings) -> Plan:
    """Predict whether a prepared directory can be trained on a device, and how.

    Raises:
        ArtifactsError, DeviceError: they cannot be read.
    """
    profile = load_device(settings.device)
    prepared = load_artifacts(Path(settings.artifacts))
    pictures = settings.pictures
    preprocessing, decoding_mb = prepared.manifest.preprocessing, 0.0
    if pictures is not None:
        if preprocessing is None:
            raise DeviceError(f"{prepared.path} takes no pictures, so that --pictures has no meaning for it")
        check_range("pictures", pictures[0] * pictures[1], Range(1, defaults.MAX_PIXELS))
        decoding_mb = photograph_mb(*pictures, preprocessing, enough_pixels(preprocessing, settings.decode))
    return plan_for(
        prepared,
        profile,
        name=settings.device,
        images=settings.images,
        pictures=pictures,
        decoding_mb=decoding_mb,
        validated=round(defaults.VAL_FRACTION * (settings.images or 0)),
        engine=settings.engine,
        batch_size=settings.batch_size,
        cache_precision=settings.cache_precision,
        memory_mb=settings.memory_mb,
    )


def plan_for(
    prepared: Artifacts,
    device: Device,
    *,
    name: str,
    images: int | None = None,
    pictures: tuple[int, int] | None = None,
    decoding_mb: float = 0.0,
    validated: int = 0,
    engine: str | None = None,
    batch_size: int | None = None,
    cache_precision: str | None = None,
    memory_mb: float | None = None,
    reserve: float = RESERVE,
) -> Plan:
    """Do as `plan`, with what has been read.

    Args:
        decoding_mb: what decoding one sample takes, 10^6 bytes.
        validated: how many samples validate, whose logits are all held.
        reserve: how many times what is predicted must be there.
    """
    manifest = prepared.manifest
    batch_size = batch_size or device.batch_size
    budget = memory_mb or device.training_memory_mb
    problems = []
    chosen, problem = _engine(manifest, device, name, engine)
    if problem:
        problems.append(problem)
    threads, micro_batch, memory, largest, left = device.threads, 0, None, 0, 0.0
    if chosen is not None:
        taken = partial(predict, manifest, chosen, decoding_mb=decoding_mb, validated=validated)
        while threads > 1 and reserve * taken(threads, 1).features_mb > budget:
            threads -= 1
        fitting = [size for size in _powers(LARGEST_BATCH) if reserve * taken(threads, size).peak_mb <= budget]
        largest = max(fitting, default=0)
        micro_batch = min(largest, batch_size) or 1
        memory = taken(threads, micro_batch)
        left = max(budget / reserve - predict(manifest, chosen, threads, 1).features_mb, 0.0)
        logits_mb = _logits_mb(manifest, validated)
        problems.extend(_too_large(manifest, chosen, memory, decoding_mb, logits_mb, budget, reserve, name))
    cache_mb = disk_mb = None
    if images is not None:
        cache_mb = images * _cached_bytes(manifest, cache_precision or device.cache_precision) / 1e6
        disk_mb = cache_mb + _directory_mb(prepared) + _run_mb(manifest)
        if disk_mb > device.storage_mb:
            problems.append(
                f"{disk_mb:,.0f} MB of disk are needed, {cache_mb:,.0f} of them for features, where {name} has "
                f"{device.storage_mb:,.0f}: take fewer samples or views, --cache-precision float16, or a share of the "
                "network whose features are smaller"
            )
    return Plan(
        artifacts=str(prepared.path),
        device=name,
        title=device.title,
        engine=chosen,
        threads=threads,
        batch_size=batch_size,
        micro_batch=micro_batch,
        memory=memory,
        budget_mb=budget,
        largest_micro_batch=largest,
        pictures=pictures,
        decoding_mb=left,
        images=images,
        cache_mb=cache_mb,
        disk_mb=disk_mb,
        storage_mb=device.storage_mb,
        deploy_precision=device.deploy_precision,
        problems=tuple(problems),
    )


def predict(
    manifest: Manifest, engine: str, threads: int, micro_batch: int, decoding_mb: float = 0.0, validated: int = 0
) -> Memory:
    """Predict a process's memory from its graphs' sizes; see `memory_of`.

    Args:
        decoding_mb: what decoding one sample takes, 10^6 bytes; each thread may decode one.
        validated: how many samples validate.

    Raises:
        DeviceError: the directory was prepared by an edgetl that did not record the sizes.
    """
    step = specs()[engine].step_memory(manifest)
    if step is None:
        raise DeviceError("the prepared directory does not say what a step takes: prepare it anew with this edgetl")
    trainable_mb = sum(spec.nbytes for spec in manifest.trainable) / 1e6
    memory = memory_of(engine, step, manifest.backbone_memory, trainable_mb, threads, micro_batch)
    return Memory(memory.features_mb + threads * decoding_mb, memory.training_mb + _logits_mb(manifest, validated))


def _logits_mb(manifest: Manifest, validated: int) -> float:
    """Return what the logits of all validation samples take, and a fourth more for what is made of them."""
    return 1.25 * 4 * manifest.outputs * validated / 1e6


def memory_of(
    engine: str, step: GraphMemory, frozen: GraphMemory | None, trainable_mb: float, threads: int, micro_batch: int
) -> Memory:
    """Predict a process's memory from the sizes of its graphs and of the parameters that train, 10^6 bytes.

    The graphs' own sizes (`edgetl.graph.memory`) are what must be held at once. What a process takes
    beyond, the interpreter and its libraries, the runtime's copies of weights, checkpoints while they are
    written, and the gaps in the runtime's arenas, was fitted to measurements (benchmarks/memory_plan.py --fit):
    docs/devices.md has them and the errors.
    """
    features, training = specs()[engine].features, specs()[engine].training
    extraction = features.base_mb
    if frozen is not None:
        extraction += features.fixed * frozen.fixed_mb + features.samples * threads * frozen.per_sample_mb
    return Memory(
        features_mb=extraction,
        training_mb=training.base_mb
        + training.fixed * trainable_mb
        + training.samples * micro_batch * step.per_sample_mb
        + training.one_sample * step.per_sample_mb
        + training.thousand_nodes * step.nodes / 1e3,
    )


def _engine(manifest: Manifest, device: Device, name: str, wanted: str | None) -> tuple[str | None, str | None]:
    """Return what trains there, or why nothing does."""
    if not device.engines:
        return None, f"no engine of edgetl runs on {name}: train elsewhere and deploy for it"
    possible = [engine for engine in device.engines if wanted in (None, "auto", engine)]
    if not possible:
        return None, f"{wanted} does not run on {name}, only {', '.join(device.engines)}"
    for engine in possible:
        if engine in manifest.engines:
            return engine, None
    return None, (
        f"the prepared directory trains with {', '.join(manifest.engines)}, and {name} has {', '.join(possible)}: "
        "let another share of the network train"
    )


def _too_large(
    manifest: Manifest,
    engine: str,
    memory: Memory,
    decoding_mb: float,
    logits_mb: float,
    budget: float,
    reserve: float,
    name: str,
) -> list[str]:
    problems, kept = [], "" if reserve == 1 else ", and a fifth in reserve"
    if reserve * memory.features_mb > budget:
        way, of_which = "take a smaller network, or --backbone int8", ""
        if reserve * (memory.features_mb - decoding_mb) <= budget:
            way = "make the pictures smaller, or, if they are JPEGs, leave out --decode full"
            of_which = f", {decoding_mb:.0f} of them to decode a picture"
        problems.append(
            f"computing features takes {memory.features_mb:.0f} MB on one thread{of_which}{kept}, where {name} "
            f"allows {budget:.0f}: {way}"
        )
    if reserve * memory.training_mb > budget >= reserve * (memory.training_mb - logits_mb):
        problems.append(
            f"training takes {memory.training_mb:.0f} MB{kept}, where {name} allows {budget:.0f}, and "
            f"{logits_mb:.0f} of them are the scores of all validation samples for {manifest.outputs:,} outputs: "
            "let fewer samples validate"
        )
    elif reserve * memory.training_mb > budget:
        smaller = _smaller(manifest, engine, budget)
        way = (
            "and no smaller share would fit: take a smaller network"
            if smaller is None
            else f"prepare again with --train {smaller}, which would fit, or with --train auto --device {name}"
        )
        problems.append(
            f"training takes {memory.training_mb:.0f} MB even for one sample at once{kept}, where "
            f"{name} allows {budget:.0f}: {way}"
        )
    return problems


def _smaller(manifest: Manifest, engine: str, budget: float) -> str | None:
    """Return the largest share, smaller than the prepared one, that would fit, by an estimate of its step."""
    step = specs()[engine].step_memory(manifest)
    if step is None or not manifest.shares:
        return None
    *smaller, whole = manifest.shares
    for share in reversed(smaller):
        estimated = GraphMemory(
            fixed_mb=0.0,
            per_sample_mb=smaller_step(step.per_sample_mb, share, whole),
            nodes=step.nodes * share.nodes // max(whole.nodes, 1),
        )
        if RESERVE * memory_of(engine, estimated, None, share.trainable_mb, 1, 1).training_mb <= budget:
            return share.policy
    return None


def smaller_step(per_sample_mb: float, share: ShareSize, whole: ShareSize) -> float:
    """Estimate what a step of a smaller share holds for one sample, 10^6 bytes.

    What is kept for the backward pass shrinks as what a forward pass makes behind the boundary; what one layer needs
    while it is differentiated, such as a convolution's unfolded input, may not shrink at all. Half is counted as each.
    """
    return per_sample_mb * (1 + share.values_mb / max(whole.values_mb, 1e-9)) / 2


def _powers(largest: int) -> list[int]:
    return [1 << exponent for exponent in range(largest.bit_length())]


def _cached_bytes(manifest: Manifest, precision: str) -> float:
    halved = precision == "float16"
    sizes = (spec.nbytes / 2 if halved and spec.dtype == "float32" else spec.nbytes for spec in manifest.features)
    return sum(sizes) + _INDEX_BYTES


def _directory_mb(prepared: Artifacts) -> float:
    return sum(prepared.file(name).stat().st_size for name in prepared.manifest.files) / 1e6


def _run_mb(manifest: Manifest) -> float:
    """Two checkpoints, each with parameters and the engine's state: parameters again, and two moments."""
    return 2 * 4 * 4 * sum(spec.elements for spec in manifest.trainable) / 1e6


__all__ = ["Memory", "Plan", "memory_of", "plan", "plan_for", "predict", "smaller_step"]
