"""Fine-tune a ten-class head of MobileNetV2 in several ways, each in its own process, and compare them.

The job is the same for all: the training part of a folder of pictures (by default 1000 of CIFAR-10, enlarged to
224×224 by the preprocessing), batches of 16, AdamW with a learning rate of 1e-3, 10 epochs.

- `pytorch`: DataLoader over the pictures every epoch, backbone under no_grad, head trained.
- `onnxruntime-training`: its Module and Optimizer over artifacts of the whole network.
- `pytorch-cached`: features computed once, by hand, then the head on the cached tensors.
- `litert`: features computed once by ai-edge-litert, then the head by its training signatures. It takes part where
  `--litert-python` names its interpreter, and then all resize pictures bilinearly to 224×224 and scale them to -1..1,
  as its files expect.
- `edgetl`: the command `edgetl finetune` with an empty feature cache, and a second run with that cache.
- `edgetl-int8`: the same with `prepare --backbone int8`.

Seconds run from the start of the process to the report that the last step is done; CPU seconds are those of all its
threads in that time, and memory is the process's peak resident memory at that moment; accuracy is measured
afterwards. Exporting a network and making artifacts is preparation and not timed.

    python benchmarks/finetune_head.py --device-python DEVICE_ENV/bin/python --json finetune_head.json

The interpreter that runs this file needs edgetl[dev]; the device's needs edgetl[ort-training] only,
and no torch. Children inherit the environment: where torchvision does not match torch,
PYTHONPATH=tests/torchvision_standin helps. Linux only, for CPU time and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from head_job import NETWORKS, Job

from edgetl.runtime.process import available_cores

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"
SLOW = ("pytorch", "onnxruntime-training")
FAST = ("pytorch-cached", "litert", "edgetl", "edgetl-int8")
SECOND_RUN = ", second run"
LITERT_FILES = ("litert_features.tflite", "litert_linear.tflite")
PACKAGES = ("edgetl", "torch", "timm", "onnxruntime-training-cpu", "ai-edge-litert", "onnx", "numpy", "Pillow")


@dataclass(frozen=True)
class Result:
    """One process: seconds to its last step, peak resident memory (10^6 bytes), share of test pictures recognised."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    accuracy: float


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no child outlives this process
    options = parse_arguments()
    machine = describe_machine(options.device_python, options.litert_python)
    if machine["load"] > 0.5:
        log(f"the load is {machine['load']:.1f}: something else runs here and will disturb the numbers")
    with tempfile.TemporaryDirectory(prefix="edgetl-benchmark-") as directory:
        bench = Bench(Path(directory), options)
        bench.prepare()
        results = []
        for result in bench.run():
            times = f"{result.seconds:.2f} s, {result.cpu_seconds:.2f} s of CPU"
            log(f"{result.name}: {times}, {result.peak_rss_mb:.0f} MB, {result.accuracy:.1%}")
            results.append(result)
    if options.json:
        raw = {"machine": machine, "job": asdict(bench.job), "runs": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    print(table(medians(results)))
    print(f"\n{summary(machine, bench.job, options.repeat, medians(results))}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--only", action="append", choices=[*SLOW, *FAST], help="competitor to run; repeatable")
    parser.add_argument("--repeat", type=int, default=3, help=f"runs of {' and '.join(FAST)}, of which the median")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--device-python", default=sys.executable, help="runs onnxruntime-training and edgetl")
    parser.add_argument("--litert-python", help="runs ai-edge-litert; without it litert is left out")
    parser.add_argument(
        "--litert-models", type=Path, default=SHARED / "peers/models", help=f"holds {' and '.join(LITERT_FILES)}"
    )
    parser.add_argument("--data", type=Path, default=SHARED / "datasets/cifar10", help="holds train/ and test/")
    parser.add_argument("--network", choices=NETWORKS, default=next(iter(NETWORKS)))
    parser.add_argument(
        "--weights", type=Path, help="safetensors under timm's names; default as in ../shared/pretrained"
    )
    parser.add_argument(
        "--camera",
        metavar="WxH",
        help="enlarge the pictures to this size first, as JPEG of quality 90: photographs as cameras write them",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers of every run")
    options = parser.parse_args()
    options.weights = options.weights or SHARED / "pretrained" / NETWORKS[options.network][0]
    needed = [options.data / "train", options.data / "test", options.weights]
    if options.litert_python:
        needed += [options.litert_models / name for name in LITERT_FILES]
    elif "litert" in (options.only or ()):
        parser.error("litert needs --litert-python")
    for path in needed:
        if not path.exists():
            parser.error(f"{path} does not exist")
    for program in (options.device_python, options.litert_python or sys.executable):
        if shutil.which(program) is None:
            parser.error(f"{program} is not a program")
    if options.repeat < 1 or options.epochs < 1:
        parser.error("--repeat and --epochs must be at least 1")
    return options


def enlarged(data: Path, size: tuple[int, int], out: Path) -> Path:
    """Write a data set's pictures anew, enlarged, into `out`."""
    from PIL import Image

    log(f"enlarging the pictures to {size[0]}x{size[1]}")
    for part in ("train", "test"):
        for file in sorted((data / part).glob("*/*")):
            target = (out / part / file.parent.name / file.name).with_suffix(".jpg")
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(file) as picture:
                picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(target, quality=90)
    return out


class Bench:
    """The job, the directory its files lie in, and the interpreters that do it."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        names = options.only or [name for name in (*SLOW, *FAST) if name != "litert" or options.litert_python]
        data = options.data
        if options.camera:
            width, height = map(int, options.camera.split("x"))
            data = enlarged(data, (width, height), directory / "pictures")
        self.job = Job(
            network=options.network,
            weights=str(options.weights.resolve()),
            train=str((data / "train").resolve()),
            test=str((data / "test").resolve()),
            artifacts=str(directory / "artifacts"),
            artifacts_int8=str(directory / "artifacts-int8") if "edgetl-int8" in names else None,
            unsplit=str(directory / "unsplit"),
            epochs=options.epochs,
            litert_models=str(options.litert_models.resolve()) if options.litert_python else None,
        )
        self._directory = directory
        self._job_file = str(directory / "job.json")
        self._device_python = options.device_python
        self._repeat = options.repeat
        self._litert_python = options.litert_python
        self._names = names

    def prepare(self) -> None:
        """Write the artifacts that the competitors start from."""
        log("preparing (not timed)")
        self.job.save(Path(self._job_file))
        run([sys.executable, str(HERE / "head_prepare.py"), self._job_file])

    def run(self) -> Iterator[Result]:
        """Run one process after the other: the slow competitors once, then the fast ones in turns."""
        for name in SLOW:
            if name in self._names:
                yield from self._run(name, 0)
        for repeat in range(self._repeat):
            for name in FAST:
                if name in self._names:
                    yield from self._run(name, repeat)

    def _run(self, name: str, repeat: int) -> Iterator[Result]:
        log(f"{name} runs")
        if name.startswith("edgetl"):
            yield self._run_edgetl(name, repeat)
            yield self._run_edgetl(name, repeat, second=True)
        elif name == "litert":
            yield self._run_script(name, [self._litert_python, str(HERE / "head_litert.py"), self._job_file])
        elif name == "onnxruntime-training":
            script = str(HERE / "head_onnxruntime_training.py")
            yield self._run_script(name, [self._device_python, script, self._job_file])
        else:
            script = str(HERE / "head_pytorch.py")
            yield self._run_script(name, [sys.executable, script, name, self._job_file])

    def _run_script(self, name: str, command: Sequence[str]) -> Result:
        times, (trained, measured) = run(command)
        return Result(name, *times, trained["peak_rss_mb"], measured["accuracy"])

    def _run_edgetl(self, name: str, repeat: int, *, second: bool = False) -> Result:
        """Time the command; deploy its run and measure the deployed file afterwards.

        The command reports when it has also written its checkpoints and the proof for `deploy`.
        """
        own = self._directory / f"{name}-{repeat}"
        artifacts = (self.job.artifacts_int8 if name == "edgetl-int8" else None) or self.job.artifacts
        trained_run = str(own / ("second" if second else "first"))
        model = f"{trained_run}.onnx"
        settings = {
            "--out": trained_run,
            "--cache": str(own / "cache"),
            "--val-fraction": "0",
            "--epochs": str(self.job.epochs),
            "--batch-size": str(self.job.batch_size),
            "--lr": str(self.job.lr),
            "--seed": str(self.job.seed),
        }
        arguments = [text for pair in settings.items() for text in pair]
        times, (trained,) = self._edgetl("finetune", artifacts, self.job.train, *arguments)
        pictures = sum(path.is_file() for path in Path(self.job.train).rglob("*"))
        did = (trained["train_samples"], trained["val_samples"], trained["features_computed"] == 0)
        if did != (pictures, 0, second):
            raise SystemExit(f"{name} did another job than the others: {trained}")
        self._edgetl("deploy", trained_run, "--out", model)
        _, (measured,) = self._edgetl("evaluate", model, self.job.test)
        called = f"{name}{SECOND_RUN}" if second else name
        return Result(called, *times, trained["peak_rss_mb"], measured["accuracy"])

    def _edgetl(self, *arguments: str) -> tuple[tuple[float, float], list[dict[str, Any]]]:
        return run([self._device_python, "-m", "edgetl", *arguments, "--json"])


def run(command: Sequence[str]) -> tuple[tuple[float, float], list[dict[str, Any]]]:
    """Run a process that prints JSON lines; return seconds and CPU seconds until the first of them, and all of them."""
    # modules are compiled once, as they are where a package is installed
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        started = time.monotonic()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8", env=environment
        ) as process:
            assert process.stdout is not None
            try:
                first = process.stdout.readline()
                times = time.monotonic() - started, cpu_seconds(process.pid)
                lines = [first, *process.stdout]
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{errors.read()[-4000:]}")
    return times, [json.loads(line) for line in lines if line.startswith("{")]


def cpu_seconds(process: int) -> float:
    """Return user and system time of all threads of a process that has not been waited for (proc_pid_stat(5))."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def medians(results: Sequence[Result]) -> list[Result]:
    """Return one result per competitor, the median of each column."""
    names = list(dict.fromkeys(result.name for result in results))
    return [median([result for result in results if result.name == name]) for name in names]


def median(runs: Sequence[Result]) -> Result:
    return Result(
        runs[0].name,
        statistics.median(result.seconds for result in runs),
        statistics.median(result.cpu_seconds for result in runs),
        statistics.median(result.peak_rss_mb for result in runs),
        statistics.median(result.accuracy for result in runs),
    )


def table(results: Sequence[Result]) -> str:
    """Return a Markdown table; the last two columns are multiples of edgetl's first run."""
    edgetl = next((result for result in results if result.name == "edgetl"), None)
    rows = [
        "| | seconds | CPU seconds | peak MB | test accuracy | seconds ÷ edgetl | MB ÷ edgetl |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        times = multiple(result.seconds, edgetl.seconds) if edgetl else "–"
        memory = multiple(result.peak_rss_mb, edgetl.peak_rss_mb) if edgetl else "–"
        numbers = f"{result.seconds:.2f} | {result.cpu_seconds:.2f} | {result.peak_rss_mb:.0f} | {result.accuracy:.1%}"
        rows.append(f"| {result.name} | {numbers} | {times} | {memory} |")
    return "\n".join(rows)


def multiple(value: float, unit: float) -> str:
    ratio = value / unit
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2f}"


def summary(machine: dict[str, Any], job: Job, repeat: int, results: Sequence[Result]) -> str:
    """Return in one line what the table was measured with."""
    versions = {**machine["device"], **machine["workstation"]}
    versions |= {name: version for name, version in machine["litert"].items() if not versions[name]}
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    repeated = ", ".join(result.name for result in results if result.name not in SLOW)
    return (
        f"{job.epochs} epochs, batch {job.batch_size}; median of {repeat} for {repeated}; "
        f"{machine['processor']}, {machine['cores']} cores; Python {platform.python_version()}, {packages}"
    )


def describe_machine(device_python: str, litert_python: str | None) -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": available_cores(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "workstation": versions(sys.executable),
        "device": versions(device_python),
        "litert": versions(litert_python) if litert_python else {},
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def versions(python: str) -> dict[str, str | None]:
    """Return the versions of what matters here in the environment of an interpreter; None for what it lacks."""
    code = (
        "import json, sys\n"
        "from importlib.metadata import PackageNotFoundError, version\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = version(name)\n"
        "    except PackageNotFoundError: found[name] = None\n"
        "print(json.dumps(found))"
    )
    _, (found,) = run([python, "-c", code, *PACKAGES])
    return found


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
