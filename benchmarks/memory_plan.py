"""How near is `edgetl plan` to the memory that a training takes?  Linux.

    python benchmarks/memory_plan.py DIRECTORY [--device-python PYTHON] [--stock-python PYTHON] [--pictures 4032x3024]

Prepares ten architectures of timm with random weights, each for head, last:1 and all (kept in DIRECTORY), and
fine-tunes each with both engines on 30 made-up photographs of 640×480, a process each; prints a table of the
largest resident memory while features are extracted and while it trains, measured and predicted. What was
measured is kept in DIRECTORY/measured.jsonl and not measured again. With --pictures, MobileNetV2's head alone is
trained, on made-up photographs of that size, decoded in full and at a part of it, by one and by two threads.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NETWORKS = (
    *("mobilenetv3_small_100", "mobilenetv2_100", "resnet18", "vit_tiny_patch16_224", "efficientnet_b0"),
    *("convnext_atto", "regnetx_002", "ghostnet_050", "densenet121", "mobilevit_xxs"),
)
POLICIES = {"head": (16,), "last:1": (16,), "all": (4, 16)}
"""And the batches that each is trained with; what the first two keep for the way back is next to nothing."""
THREADS = 2
SOURCE = """
import timm, torch
def build():
    torch.manual_seed(0)
    return timm.create_model({name!r}, pretrained=False, num_classes=10).eval()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device-python", default=sys.executable, help="has onnxruntime-training")
    parser.add_argument("--stock-python", default=None, help="has a stock onnxruntime; default: --device-python")
    parser.add_argument("--fit", action="store_true", help="print the factors of edgetl/planning.py, too (needs scipy)")
    parser.add_argument("--pictures", help="width and height of photographs, such as 4032x3024")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(**json.loads(given.measure))))
        return
    pythons = {"ort-training": given.device_python, "portable": given.stock_python or given.device_python}
    given.directory.mkdir(parents=True, exist_ok=True)
    if given.pictures:
        width, height = map(int, given.pictures.split("x"))
        print(photograph_table(given.directory, pythons, (width, height)))
        return
    draw(given.directory / "pictures", (640, 480))
    for network in NETWORKS:
        for policy in POLICIES:
            prepare(given.directory, network, policy)
    rows = list(results(given.directory, pythons))
    print(table(rows))
    if given.fit:
        print("\n" + "\n".join(fits(given.directory, rows)))


def draw(directory: Path, size: tuple[int, int], number: int = 3, detail: int = 1) -> None:
    """Write noise for ten classes; with a `detail` of so many pixels, whose JPEGs are about as large as a camera's."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in range(10):
        (directory / str(label)).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            pixels = rng.integers(0, 256, (size[1] // detail, size[0] // detail, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
            picture.save(directory / str(label) / f"{index}.jpg", quality=90)


def folder(directory: Path, network: str, policy: str) -> Path:
    return directory / f"{network}-{policy.replace(':', '')}"


def prepare(directory: Path, network: str, policy: str) -> None:
    out = folder(directory, network, policy)
    if out.is_dir():
        return
    source = directory / f"{network}.py"
    source.write_text(SOURCE.format(name=network))
    command = ["prepare", f"{source}:build", "--classes", "10", "--train", policy, "--out", str(out)]
    subprocess.run([sys.executable, "-m", "edgetl", *command], check=True)


def results(directory: Path, pythons: dict[str, str]) -> Iterator[dict[str, Any]]:
    kept = directory / "measured.jsonl"
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    by_job = {(row["art"], row["batch"], row["engine"]): row for row in known}
    for network in NETWORKS:
        for policy, batches in POLICIES.items():
            for batch in batches:
                for engine, python in pythons.items():
                    out = folder(directory, network, policy)
                    row = by_job.get((out.name, batch, engine))
                    if row is None:
                        row = measure(
                            python, artifacts=out, batch=batch, engine=engine, pictures=directory / "pictures"
                        )
                        with kept.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                    yield {**row, "network": network, "policy": policy, **predicted(out, batch, engine)}


def measure(python: str, **job: Any) -> dict[str, Any]:
    """Call `measured` in a process of its own."""
    command = [python, __file__, ".", "--measure", json.dumps(job, default=str)]
    row: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return row


def measured(
    artifacts: str, batch: int, engine: str, pictures: str, threads: int = THREADS, decode: str = "scaled"
) -> dict[str, Any]:
    """Fine-tune, and read the largest resident memory of each half; between them the kernel's record is reset."""
    import edgetl
    from edgetl.events import Event, Stage

    found: dict[str, Any] = {"art": Path(artifacts).name, "batch": batch, "engine": engine}

    def on_event(event: Event) -> None:
        if isinstance(event, Stage) and event.text == "training":
            found["features"] = peak_mb()
            Path("/proc/self/clear_refs").write_text("5")

    with tempfile.TemporaryDirectory() as name:
        edgetl.finetune(
            artifacts,
            pictures,
            out=f"{name}/run",
            cache=f"{name}/cache",
            batch_size=batch,
            micro_batch=batch,
            epochs=1,
            engine=engine,
            threads=threads,
            decode=decode,
            on_event=on_event,
        )
    found["training"] = peak_mb()
    return found


def peak_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def photograph_table(directory: Path, pythons: dict[str, str], size: tuple[int, int]) -> str:
    from edgetl.artifacts import load_artifacts
    from edgetl.data.decode import enough_pixels
    from edgetl.data.memory import photograph_mb
    from edgetl.planning import predict

    pictures = directory / "x".join(map(str, size))
    draw(pictures, size, number=2, detail=8)
    prepare(directory, "mobilenetv2_100", "head")
    out = folder(directory, "mobilenetv2_100", "head")
    manifest = load_artifacts(out).manifest
    assert manifest.preprocessing is not None
    lines = ["| engine | decoded | threads | measured MB | predicted | error |", "|---|---|---:|---:|---:|---:|"]
    for engine, python in pythons.items():
        for decode in ("scaled", "full"):
            decoding = photograph_mb(*size, manifest.preprocessing, enough_pixels(manifest.preprocessing, decode))
            for threads in (1, 2):
                job = {"artifacts": out, "batch": 16, "pictures": pictures, "threads": threads, "decode": decode}
                peak = measure(python, engine=engine, **job)["features"]
                expected = predict(manifest, engine, threads, 16, decoding).features_mb
                cells = f"{peak:.0f} | {expected:.0f} | {expected / peak - 1:+.0%}"
                lines.append(f"| {engine} | {decode} | {threads} | {cells} |")
    return "\n".join(lines)


def predicted(artifacts: Path, batch: int, engine: str) -> dict[str, float]:
    from edgetl.artifacts import load_artifacts
    from edgetl.planning import predict

    memory = predict(load_artifacts(artifacts).manifest, engine, THREADS, batch)
    return {"predicted_features": memory.features_mb, "predicted_training": memory.training_mb}


def fits(directory: Path, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Fit each half for each engine; the largest relative error is as small as it can be, and no factor negative."""
    import numpy as np

    for engine in ("ort-training", "portable"):
        for half in ("features", "training"):
            chosen = [row for row in rows if row["engine"] == engine]
            if half == "training":
                # where the other half is larger, how large this one is matters to nobody
                chosen = [row for row in chosen if row["training"] > 1.02 * row["features"]]
            held = np.array([holds(folder(directory, row["network"], row["policy"]), row, half) for row in chosen])
            peaks = np.array([row[half] for row in chosen])
            factors = fit(held, peaks)
            errors = held @ factors / peaks - 1
            others = [row["network"] for row in chosen]
            left_out = np.concatenate(
                [held[others_are] @ fit(held[~others_are], peaks[~others_are]) / peaks[others_are] - 1
                 for others_are in (np.array(others) == network for network in NETWORKS)]
            )  # fmt: skip
            yield (
                f"{engine}, {half}: {', '.join(f'{factor:.2f}' for factor in factors)}; largest error "
                f"{np.abs(errors).max():.0%}; a network left out: largest {np.abs(left_out).max():.0%}, mean "
                f"{np.abs(left_out).mean():.0%}"
            )


def holds(artifacts: Path, row: dict[str, Any], half: str) -> list[float]:
    """What the factors of `edgetl.planning._Fit` are multiplied with, in their order."""
    from edgetl.artifacts import load_artifacts

    manifest = load_artifacts(artifacts).manifest
    if half == "features":
        frozen = manifest.backbone_memory
        return [1, 0, 0] if frozen is None else [1, frozen.fixed_mb, THREADS * frozen.per_sample_mb]
    step = manifest.step_memory if row["engine"] == "portable" else manifest.ort_step_memory
    assert step is not None
    trainable_mb = sum(spec.nbytes for spec in manifest.trainable) / 1e6
    return [1, trainable_mb, row["batch"] * step.per_sample_mb, step.per_sample_mb, step.nodes / 1e3]


def fit(held: Any, peaks: Any) -> Any:
    import numpy as np
    from scipy.optimize import linprog

    relative = held / peaks[:, None]
    ones = np.ones(len(peaks))
    bounds = np.vstack([np.column_stack([relative, -ones]), np.column_stack([-relative, -ones])])
    found = linprog([*[0] * held.shape[1], 1], A_ub=bounds, b_ub=np.concatenate([ones, -ones]))
    return found.x[:-1]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | trains | batch | engine | features: measured MB | predicted | training: measured MB | predicted | "
        "peak: error |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    errors = []
    for row in rows:
        peak = max(row["features"], row["training"])
        error = max(row["predicted_features"], row["predicted_training"]) / peak - 1
        errors.append(abs(error))
        job = f"| {row['network']} | {row['policy']} | {row['batch']} | {row['engine']} |"
        halves = f" {row['features']:.0f} | {row['predicted_features']:.0f} | {row['training']:.0f} |"
        lines.append(f"{job}{halves} {row['predicted_training']:.0f} | {error:+.0%} |")
    lines.append(f"\n{len(rows)} trainings: largest error {max(errors):.0%}, mean {sum(errors) / len(errors):.0%}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
