"""Read a torch.export archive without executing what it holds.

`torch.export.load` unpickles, evaluates symbolic expressions and guards as Python, and calls
operators by name. So an archive is read here first: tensors stored as plain bytes only, operators of
PyTorch's own sets only, names and expressions of a plain form only. What passes is written anew and
loaded; pickled example inputs, guards, metadata and extra files are left out.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.errors import ModelError, first_line
from edgetl.preparation.sources.archive import refuse_bomb
from edgetl.preparation.sources.quiet import quiet

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_MODEL = "models/model.json"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_EXAMPLES = "data/sample_inputs/model.pt"
_KEPT = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder|\.data/\w+|version"
)
_NAME = re.compile(r"[\w.]*")
_STRINGS = {
    "target": re.compile(
        r"torch\.ops\.(aten|prims)\.(?!from_file)\w+\.\w+|torch\.sym_\w+|math\.(ceil|floor|trunc)|"
        r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge)|"
        r"torch\.ops\.higher_order\.wrap_with_set_grad_enabled"
    ),
    "expr_str": re.compile(
        r"(Symbol\('[suz]\d+'(, [a-z]+=(True|False))*\)|(?<![\w.])([suz]?\d+|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|"
        r"FloorDiv|CleanDiv|CeilDiv|PythonMod|IntTrueDiv)(?![\w.])|[-+*/(), <>=])*"
    ),
    "in_spec": re.compile(
        r'([\[\]{}:, \d]|null|"(type|context|children_spec|null|\[\]|builtins\.(tuple|list|dict))")*'
    ),
    "torch_version": re.compile(r"[\w.+]*"),
}
_STRINGS["out_spec"] = _STRINGS["in_spec"]


def read_program(file: Path) -> ExportedProgram:
    """Load the program.

    Raises:
        ModelError: the file is no such archive, or holds anything that would be executed.
    """
    import torch

    try:
        members = _members(file)
        model = json.loads(members[_MODEL])
        configs = [json.loads(members[name]) for name in _CONFIGS]
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ModelError(
            f"{file} is no archive of torch.export.save, or one of a PyTorch older than 2.8: save it anew ({error})"
        ) from None
    for config in configs:
        for name, entry in config.get("config", {}).items():
            if entry.get("use_pickle", True) or not re.fullmatch(r"(weight|tensor)_\d+", entry.get("path_name", "")):
                raise ModelError(f"{file} holds {name!r} as a pickle, which could execute anything, so it is not read")
    model["guards_code"] = []
    _refuse_code(file, model, "")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for name, content in members.items():
            if _KEPT.fullmatch(name) or name in _CONFIGS:
                out.writestr(f"model/{name}", content)
        out.writestr(f"model/{_MODEL}", json.dumps(model))
        out.writestr(f"model/{_EXAMPLES}", b"")
    archive.seek(0)
    try:
        with quiet():
            return torch.export.load(archive)
    except Exception as error:  # the deserializer raises whatever it stumbles over
        raise ModelError(f"{file} cannot be loaded by PyTorch {torch.__version__}: {first_line(error)}") from None


def _members(file: Path) -> dict[str, bytes]:
    """Return the archive's files without the folder that they all lie in."""
    refuse_bomb(file)
    with zipfile.ZipFile(file) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def _refuse_code(file: Path, value: Any, key: str) -> None:
    """Refuse strings that could become code; the graph's metadata, which is free text, is emptied."""
    if isinstance(value, dict):
        if "metadata" in value:
            value["metadata"] = {}
        for name, item in value.items():
            _refuse_code(file, name, "")
            _refuse_code(file, item, name)
    elif isinstance(value, list):
        for item in value:
            _refuse_code(file, item, key)
    elif isinstance(value, str) and not _STRINGS.get(key, _NAME).fullmatch(value):
        raise ModelError(f"{file} holds {value[:60]!r}, which could execute code or is not known, so it is not read")
