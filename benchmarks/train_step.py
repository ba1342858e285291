"""What a training step costs: time and memory of PyTorch, onnxruntime-training and the portable engine.

For each network and each share of it that trains, every competitor does steps of AdamW on one batch
of random pictures, in a process of its own, in turns with the others; repetitions give a median and
a spread.

- `pytorch`: the whole network on pictures at every step, as PyTorch's users do it.
- `ort-training`: edgetl's engine of that name, on features.
- `portable`: edgetl's portable engine in onnxruntime-training's onnxruntime, on features.
- `portable-stock`: the same in the onnxruntime of --stock-python, on features.

    python benchmarks/train_step.py --device-python DEVICE_ENV/bin/python \\
        --stock-python STOCK_ENV/bin/python --json train_step.json

The interpreter that runs this file needs edgetl[dev]; the device's edgetl[ort-training] and the stock
one edgetl[device] only, both without torch, which would count as memory. Children
inherit the environment: where torchvision does not match torch, PYTHONPATH=tests/torchvision_standin
helps. Linux only, for the peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_head import log, processor, versions
from step_job import NETWORKS, Job

from edgetl.runtime.process import available_cores

HERE = Path(__file__).resolve().parent
POLICIES = ("head", "last:1", "all")
COMPETITORS = ("pytorch", "ort-training", "portable", "portable-stock")

Run = dict[str, Any]


def main() -> None:
    options = parse_arguments()
    load = os.getloadavg()[0]
    if load > 0.5:
        log(f"the load is {load:.1f}: something else runs here and will disturb the numbers")
    with tempfile.TemporaryDirectory(prefix="edgetl-benchmark-") as directory:
        jobs = [
            Job(
                network=network,
                policy=policy,
                artifacts=str((options.artifacts or Path(directory)) / f"{network}-{policy.replace(':', '')}"),
                batch_size=options.batch_size,
                steps=options.steps,
                threads=options.threads,
            )
            for network in options.networks
            for policy in options.policies
        ]
        prepare(jobs)
        runs = list(measure(jobs, options))
    if options.json:
        machine = {"processor": processor(), "threads": options.threads, "load": load}
        for name in ("workstation", "device", "stock"):
            machine[name] = versions(sys.executable if name == "workstation" else getattr(options, f"{name}_python"))
        options.json.write_text(json.dumps({"machine": machine, "runs": runs}, indent=2) + "\n", encoding="utf-8")
    print(table(runs))
    print(f"\nBatch {options.batch_size}, {options.threads} threads, median of {options.repeat}; {processor()}.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), help="what trains")
    parser.add_argument("--competitors", nargs="+", choices=COMPETITORS, default=list(COMPETITORS))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5, help="steps of each process, of which the median")
    parser.add_argument("--repeat", type=int, default=3, help="processes of each competitor, of which the median")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--device-python", default=sys.executable, help="runs ort-training and portable")
    parser.add_argument("--stock-python", default=sys.executable, help="runs portable-stock")
    parser.add_argument(
        "--artifacts", type=Path, help="keep the prepared directories here, and use those that are there"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers of every run")
    options = parser.parse_args()
    for python in (options.device_python, options.stock_python):
        if shutil.which(python) is None:
            parser.error(f"{python} is no program")
    if min(options.repeat, options.steps, options.batch_size, options.threads) < 1:
        parser.error("--repeat, --steps, --batch-size and --threads must be at least 1")
    return options


def prepare(jobs: Sequence[Job]) -> None:
    """Write every job's artifacts, unless they are there."""
    for job in jobs:
        if not Path(job.artifacts).exists():
            log(f"preparing {job.network}, {job.policy} (not timed)")
            Path(job.artifacts).parent.mkdir(parents=True, exist_ok=True)
            run([sys.executable, str(HERE / "step_prepare.py"), job.save()])


def measure(jobs: Sequence[Job], options: argparse.Namespace) -> list[Run]:
    """Run one process after the other: for each job, the competitors in turns."""
    runs = []
    for job in jobs:
        for _ in range(options.repeat):
            for name in options.competitors:
                found = json.loads(run(command(name, job, options)).splitlines()[-1])
                numbers = f"{found['wall_ms']:.1f} ms, CPU {found['cpu_ms']:.1f} ms, {found['peak_rss_mb']:.0f} MB"
                log(f"{job.network}, {job.policy}, {name}: {numbers}")
                runs.append({"network": job.network, "policy": job.policy, "competitor": name, **found})
    return runs


def command(name: str, job: Job, options: argparse.Namespace) -> list[str]:
    if name == "pytorch":
        return [sys.executable, str(HERE / "step_pytorch.py"), job.save()]
    python = options.stock_python if name == "portable-stock" else options.device_python
    return [python, str(HERE / "step_edgetl.py"), name.removesuffix("-stock"), job.save()]


def run(arguments: Sequence[str]) -> str:
    """Run a process and return what it prints; its errors go to this process's."""
    return subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout


def table(runs: Sequence[Run]) -> str:
    """Return a Markdown table: medians, and from the smallest to the largest in brackets."""
    grouped: dict[tuple[str, str], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for item in runs:
        grouped[item["network"], item["policy"]][item["competitor"]].append(item)
    rows = [
        "| network | trains | engine | ms per image | CPU ms per image | peak MB | of it imports | features once, ms |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for (network, policy), by_name in grouped.items():
        for name, items in by_name.items():
            wall = [item["wall_ms"] for item in items]
            spread = f"{statistics.median(wall):.2f} ({min(wall):.2f}–{max(wall):.2f})"
            cpu, peak, baseline, once = (
                statistics.median(item.get(key, 0) for item in items)
                for key in ("cpu_ms", "peak_rss_mb", "baseline_mb", "extraction_ms")
            )
            rows.append(
                f"| {network} | {policy} | {name} | {spread} | {cpu:.2f} | {peak:.0f} | {baseline:.0f} "
                f"| {f'{once:.1f}' if once else '–'} |"
            )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
