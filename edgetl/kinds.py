"""What a path is, and which command takes it: for a command that was given something else than it takes."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from edgetl.seal import is_sealed_model
from edgetl.suggest import similar_path

MANIFEST = "manifest.json"
"""The file that makes a directory a prepared one."""
ARGS = "args.yaml"
"""The file that makes a directory a run."""

PREPARED, RUN, MODEL, DATA, ONNX, NETWORK, MADE_BY_EDGETL, RUNS, WEIGHTS = (
    "a prepared directory",
    "a run",
    "a deployed model",
    "data",
    "an ONNX model",
    "a network to prepare",
    "a prepared directory, a run or a deployed model",
    "a folder of runs",
    "a file of weights",
)
"""What commands take, as phrases."""

_MADE_BY = {
    PREPARED: "make one with 'edgetl prepare SOURCE --labels-from DATA --out DIR'",
    RUN: "make one with 'edgetl finetune ARTIFACTS DATA --out RUN'",
    MODEL: "write one with 'edgetl deploy RUN --out FILE.onnx'",
    WEIGHTS: "give a .safetensors file, or a checkpoint by torch.save",
    RUNS: "give a folder that holds what 'edgetl finetune' made",
    DATA: "give a folder with one folder of files per class, a .csv or .jsonl table, or an .npz file",
    MADE_BY_EDGETL: "give what 'edgetl prepare', 'edgetl finetune' or 'edgetl deploy' made",
    NETWORK: "give timm:NAME, torchvision:NAME, hf:ID_OR_DIR, FILE.py:callable, module:callable, or a file MODEL.onnx, "
    "PROGRAM.pt2 or MODEL.keras",
    ONNX: "give an ONNX file, such as one that 'edgetl deploy' wrote",
}
_DATA_FILES = {
    **dict.fromkeys((".csv", ".tsv", ".jsonl", ".ndjson"), "a table"),
    ".npz": "an archive of arrays",
}
_SAMPLES = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"), "a picture"),
    **dict.fromkeys((".wav", ".flac", ".mp3", ".ogg"), "a recording"),
    ".txt": "a text file",
}
_WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_PROGRAMS = (".pt2", ".keras")


@dataclass(frozen=True)
class Thing:
    """What a path is, as a phrase, and what can be done with it; the phrase is empty where that is not known."""

    what: str
    advice: str


def look_at(path: Path) -> Thing:
    """Return what a path is, by what lies there; contents are not read."""
    name, suffix = shlex.quote(str(path)), path.suffix.lower()
    train = f"train on it: edgetl finetune ARTIFACTS {name} --out RUN"
    if (path / MANIFEST).is_file():
        out = shlex.quote(str(_free(Path("runs"), path.resolve().name)))
        return Thing(PREPARED, f"train it first: edgetl finetune {name} DATA --out {out}")
    if (path / ARGS).is_file():
        return Thing(RUN, f"deploy it first: edgetl deploy {name} --out {_free(Path(), 'model', '.onnx')}")
    if path.is_dir():
        return _directory(path, name, train)
    if suffix in _DATA_FILES:
        return Thing(_DATA_FILES[suffix], train)
    if suffix in _SAMPLES:
        return Thing(_SAMPLES[suffix], f"let a deployed model tell what it is: edgetl predict MODEL {name}")
    if suffix in _WEIGHTS:
        return Thing("a file of weights", f"give it to its network: edgetl prepare SOURCE --weights {name} …")
    if is_sealed_model(path):
        return Thing(MODEL, f"use it with: edgetl predict {name} INPUT")
    if suffix in (".onnx", *_PROGRAMS):
        what = (
            "an ONNX model that edgetl has not deployed, or that was altered or damaged"
            if suffix == ".onnx"
            else "a network"
        )
        place = _free(Path(), "artifacts")
        return Thing(what, f"deploy it again, or prepare it: edgetl prepare {name} --labels-from DATA --out {place}")
    if suffix == ".py":
        return Thing("a Python file", f"name its function that returns a network: edgetl prepare {name}:FUNCTION …")
    return Thing("", "")


def _directory(path: Path, name: str, train: str) -> Thing:
    inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    if not inside:
        return Thing("an empty folder", "")
    for marker, kind in ((ARGS, "runs"), (MANIFEST, "prepared directories")):
        if found := [entry for entry in inside if (entry / marker).is_file()]:
            return Thing(f"a folder of {kind}", f"name one of them, such as {shlex.quote(str(found[0]))}")
    if (path / "config.json").is_file():
        return Thing("a model folder of Transformers", f"prepare it first: edgetl prepare hf:{name} …")
    if any(entry.is_dir() or entry.suffix.lower() in (*_DATA_FILES, *_SAMPLES) for entry in inside):
        return Thing("a folder of data", train)
    return Thing("a folder", "")


def mistaken(path: str | Path, wanted: str) -> str:
    """Return the sentence for a path that is not what is wanted: what it is, and what to do.

    Args:
        wanted: one of the phrases above.
    """
    path = Path(path)
    try:
        if not path.exists():
            return f"{path} does not exist{similar_path(path) or ': ' + _MADE_BY[wanted]}"
        thing = look_at(path)
    except (OSError, ValueError) as error:
        return f"{str(path)!r} cannot be read ({error}): {_MADE_BY[wanted]}"
    what = f"{path} is {thing.what}, not {wanted}" if thing.what else f"{path} is not {wanted}"
    return f"{what}: {_way(path, thing, wanted)}"


_NO_WAY = {(PREPARED, DATA), (RUN, DATA), (RUN, NETWORK), (MODEL, DATA), (MODEL, PREPARED), (MODEL, NETWORK)}
"""Things that nothing makes of what is wanted, so that their own next step would not help."""


def _way(path: Path, thing: Thing, wanted: str) -> str:
    """Return what to do to get from a thing to what is wanted."""
    if (thing.what, wanted) == (RUN, PREPARED) and (prepared := _trained_from(path)):
        return f"give {shlex.quote(prepared)}, from which it was trained"
    if (thing.what, wanted) in {*_NO_WAY, (RUN, PREPARED)}:
        return _MADE_BY[wanted]
    return thing.advice or _MADE_BY[wanted]


def _trained_from(run: Path) -> str:
    """Return the prepared directory that a run's record names, if it is there; else nothing."""
    for line in (run / ARGS).read_text(encoding="utf-8", errors="replace").split("\n"):
        key, _, value = line.partition(": ")
        if key == "artifacts":
            try:
                prepared = Path(str(json.loads(value)))
            except ValueError:
                return ""
            here = os.path.relpath(prepared) if prepared.is_relative_to(Path.cwd()) else str(prepared)
            return here if (prepared / MANIFEST).is_file() else ""
    return ""


def belongs_elsewhere(path: Path) -> bool:
    """Return whether a path is something of edgetl's, or a network, which data never are."""
    suffix = path.suffix.lower()
    if path.is_dir():
        try:
            folders = [path, *(entry for entry in path.iterdir() if entry.is_dir())]
            return any((folder / MANIFEST).is_file() or (folder / ARGS).is_file() for folder in folders)
        except OSError:  # who reads it as data says why it cannot be read
            return False
    return path.is_file() and suffix in (".onnx", ".ort", ".py", *_WEIGHTS, *_PROGRAMS)


def _free(folder: Path, stem: str, suffix: str = "") -> Path:
    """Return a path at which nothing lies, so that the advice overwrites nothing."""
    names = (f"{stem}{number}{suffix}" for number in ("", *(f"-{i}" for i in range(2, 1000))))
    return next((folder / name for name in names if not (folder / name).exists()), folder / f"NEW{suffix}")
