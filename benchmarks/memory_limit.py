"""Does a planned run stay within a limit that kills an unplanned one?  Linux, as root (for a control group).

    python benchmarks/memory_limit.py ARTIFACTS PICTURES [--limit 600] [--engine portable] [--batch-size 32]

All runs are the same command in a control group of --limit MB without swap: unplanned, with `--memory LIMIT`, with
neither, and with a micro-batch that does not fit. ARTIFACTS is a prepared directory whose step for a whole batch needs
more than that.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def control_group(limit_mb: float) -> Iterator[Path]:
    """A group whose processes together may hold so much memory, of either version of cgroups(7)."""
    version_1 = GROUPS / "memory"
    group = (version_1 if version_1.is_dir() else GROUPS) / f"edgetl-{os.getpid()}"
    group.mkdir()
    limit = str(int(limit_mb * 1e6))
    if version_1.is_dir():
        (group / "memory.limit_in_bytes").write_text(limit)
        with contextlib.suppress(OSError):  # where swap is not accounted for, there is none
            (group / "memory.memsw.limit_in_bytes").write_text(limit)
    else:
        (group / "memory.max").write_text(limit)
        with contextlib.suppress(OSError):
            (group / "memory.swap.max").write_text("0")
    try:
        yield group
    finally:
        group.rmdir()


def run(command: list[str], limit_mb: float) -> str:
    """Run a command within the limit and say how it ended."""
    with control_group(limit_mb) as group:
        enter = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
        done = subprocess.run(["sh", "-c", enter, str(group), *command], capture_output=True, text=True, check=False)
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    last = (done.stdout or done.stderr).strip().splitlines() or [""]
    summary = next((line for line in last if " MB" in line), last[-1])
    return f"status {done.returncode}: {summary.strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--limit", type=float, default=600, help="MB, 10^6 bytes")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--batch-size", type=int, default=32)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        whole = ["--micro-batch", str(given.batch_size)]
        for what, options in (
            # a memory that there is not, so that nothing is planned
            ("a whole batch at once", ["--memory", "1e6", *whole]),
            (f"--memory {given.limit:g}", ["--memory", f"{given.limit:g}"]),
            ("as the group's limit has it", []),
            (f"that, and {' '.join(whole)}", whole),
        ):
            command = [
                *(sys.executable, "-m", "edgetl", "finetune", str(given.artifacts), str(given.pictures)),
                *("--out", f"{name}/run", "--cache", f"{name}/cache", "--force", "--epochs", "1"),
                *("--batch-size", str(given.batch_size), "--engine", given.engine, *options),
            ]
            print(f"{what}: {run(command, given.limit)}", flush=True)


if __name__ == "__main__":
    main()
