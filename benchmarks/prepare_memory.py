"""How much memory does `edgetl prepare --train all` take?  Linux, as root (for a control group); timm, no network.

    python benchmarks/prepare_memory.py [--only resnet50] [--limit 12000]

Each architecture of timm gets random weights in a file, and is prepared at its full size for ten classes by the command
line in a process of its own, in a control group of --limit MB without swap. `peak MB` is that process's largest
resident memory, VmHWM, and `bound` is 1,500 MB and four times the weights.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from memory_limit import control_group

ARCHITECTURES = (
    "mobilenetv2_100",
    "efficientnet_b0",
    "densenet121",
    "convmixer_768_32",
    "vit_small_patch16_224",
    "convmixer_1024_20_ks9_p14",
    "resnet50",
    "swin_tiny_patch4_window7_224",
    "convnext_tiny",
    "wide_resnet50_2",
    "vgg11_bn",
    "vgg16_bn",
)
FIXED_MB, TIMES = 1500, 4

_WEIGHTS = """
import sys, timm, torch
from safetensors.torch import save_file
torch.manual_seed(0)
network = timm.create_model(sys.argv[1], pretrained=False)
save_file(network.state_dict(), sys.argv[2])
print(sum(parameter.nbytes for parameter in network.parameters()))
"""

_PREPARE = """
import atexit
from edgetl.__main__ import run
from edgetl.runtime import peak_rss_mb
atexit.register(lambda: print(peak_rss_mb()))
run()
"""


def weights(name: str, file: Path) -> float:
    """Write random weights of an architecture and return their size in MB."""
    made = subprocess.run([sys.executable, "-c", _WEIGHTS, name, file], capture_output=True, text=True, check=True)
    return int(made.stdout) / 1e6


def prepare(name: str, file: Path, out: Path, limit_mb: float) -> tuple[str, float]:
    """Prepare an architecture; return its peak in MB, or how it ended, and the seconds of processor time."""
    options = ["--weights", str(file), "--train", "all", "--classes", "10", "--out", str(out)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with control_group(limit_mb) as group:
        enter = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
        command = [sys.executable, "-c", _PREPARE, "prepare", f"timm:{name}", *options]
        done = subprocess.run(["sh", "-c", enter, str(group), *command], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode < 0:
        return "killed", seconds
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1], seconds
    return f"{float(done.stdout.split()[-1]):,.0f}", seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="ARCHITECTURE", help="of timm; may be repeated")
    parser.add_argument("--limit", type=float, default=12_000, help="MB, 10^6 bytes")
    given = parser.parse_args()
    print("| architecture | weights MB | peak MB | bound MB | processor seconds |\n|---|---|---|---|---|")
    for name in given.only or ARCHITECTURES:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "weights.safetensors")
            size = weights(name, file)
            peak, seconds = prepare(name, file, Path(directory, "artifacts"), given.limit)
        bound = FIXED_MB + TIMES * size
        print(f"| `{name}` | {size:,.0f} | {peak} | {bound:,.0f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
