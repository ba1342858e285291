"""How a new head should begin: accuracy before and after training, at 5, 20 and 100 pictures of each class.

    python benchmarks/initialization.py ARTIFACTS PICTURES VALIDATION [--draws 5] [--epochs 10]

From each class of PICTURES (folders of a training set) pictures are drawn, anew for each draw; VALIDATION
(folders, too) is the same for all. `auto` as the rate is measured for each head too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np

import edgetl
from edgetl.run import LAST, Run

SIZES = (5, 20, 100)
HEADS = ("zero", "prototype", "ridge")
RATES = (1e-3, None)


def link(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    classes = sorted(folder for folder in given.pictures.iterdir() if folder.is_dir())
    print("| pictures of each class | head | learning rate | before | after | best |\n|---:|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for size in SIZES:
            for draw in range(given.draws):
                rng = np.random.default_rng([size, draw])
                for folder in classes:
                    files = sorted(folder.iterdir())
                    chosen = [files[i] for i in rng.permutation(len(files))[:size]]
                    link(chosen, work / f"{size}-{draw}" / folder.name)
            for head in HEADS:
                for rate in RATES:
                    found = []
                    for draw in range(given.draws):
                        out = work / "run"
                        edgetl.finetune(
                            given.artifacts,
                            work / f"{size}-{draw}",
                            val=given.validation,
                            out=out,
                            init=head,
                            lr=rate,
                            epochs=given.epochs,
                            force=True,
                        )
                        last = Run(out).read_checkpoint(LAST)
                        assert last is not None
                        accuracies = [end.val_accuracy or 0.0 for end in last.history]
                        found.append((accuracies[0], accuracies[-1], max(accuracies)))
                    means = [f"{statistics.mean(column):.1%}" for column in zip(*found, strict=True)]
                    print(f"| {size} | {head} | {rate or 'auto'} | {' | '.join(means)} |", flush=True)


if __name__ == "__main__":
    main()
