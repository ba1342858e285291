"""Who may import whom, and that the device side runs without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgetl

ROOT = Path(edgetl.__file__).parent

FLOORS = """
errors defaults suggest
declaration tasks files
events
shared_settings
runtime
losses optimizers
artifacts
graph data
quantization engines
gradients device
runs
preparation training
deployment
adaptation
demo remote
cli
"""
"""The rooms of the package, from the bottom up. A room imports from lower floors only; those of one floor do not know
each other."""

WORKSTATION = {"preparation", "gradients", "graph"}
"""Rooms that need what only a workstation has; `graph` needs onnx, which the device side imports when it must."""

TORCH = {"preparation", "demo"}
"""Rooms that may import torch; the demo does only where it makes its network."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS.split("\n")) for room in rooms.split()}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem not in ("__init__", "__main__"))


def name_of(path: Path) -> str:
    return ".".join(("edgetl", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, *, types_too: bool = False) -> Iterator[str]:
    """Yield what a file imports, wherever in the file it does; what only type checkers read is left out."""
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types_too:
            nodes.extend(node.orelse)
        else:
            nodes.extend(ast.iter_child_nodes(node))


def upward(path: Path) -> list[str]:
    """Imports of other rooms that do not lie below."""
    rooms = {name: name.split(".")[1] for name in imports(path) if name.startswith("edgetl.")}
    own = room_of(path)
    return [name for name, room in rooms.items() if room in FLOOR and room != own and FLOOR[room] >= FLOOR[own]]


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(path) for path in FILES}
    assert rooms == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    assert upward(path) == []


def test_an_import_that_points_upwards_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "runs" / "wrong.py"
    file.parent.mkdir()
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "from edgetl.files import storage\nfrom edgetl.data.sample import Sample\n"
        "if TYPE_CHECKING:\n    import edgetl.cli.main\n"
        "def late():\n    from edgetl.training.loop import train\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert upward(file) == ["edgetl.training.loop.train"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_workstation_imports_torch(path: Path) -> None:
    packages = {name.split(".")[0] for name in imports(path)}
    if room_of(path) not in TORCH:
        assert not {"torch", "timm", "torchvision", "transformers", "keras"} & packages
    if room_of(path) not in WORKSTATION:
        assert "onnxscript" not in packages


@pytest.mark.parametrize("path", [path for path in ROOT.rglob("__init__.py") if path.parent != ROOT], ids=name_of)
def test_rooms_define_nothing_at_their_door(path: Path) -> None:
    """A package's `__init__.py` says what the room is for, and at most names what others may take from it."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert ast.get_docstring(ast.Module(body, []))
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) for node in body)


def test_the_loop_knows_only_the_seam() -> None:
    loop = set(imports(ROOT / "training" / "loop.py"))
    assert "edgetl.engines.registry.open_engine" in loop
    assert not any("ort_training" in name or "portable" in name or name.startswith("onnx") for name in loop)


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
"""


def run(code: str, *blocked: str) -> str:
    code = BLOCK.format(blocked=set(blocked)) + code
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_device_modules_import_without_what_only_workstations_have() -> None:
    names = [name_of(path) for path in FILES if room_of(path) not in WORKSTATION]
    names.remove("edgetl.demo.network")
    code = "import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names)
    run(code, "torch", "timm", "torchvision", "onnxscript")


def test_finetune_and_predict_need_neither_torch_nor_onnx_nor_rich(
    digits: Path, digits_artifacts: Path, digits_model: Path, tmp_path: Path
) -> None:
    run(
        f"import edgetl\n"
        f"data, out = {str(digits / 'train')!r}, {str(tmp_path / 'run')!r}\n"
        f"edgetl.finetune({str(digits_artifacts)!r}, data, out=out, epochs=1)\n"
        f"edgetl.evaluate({str(digits_model)!r}, {str(digits)!r})\n",
        "torch", "onnx", "rich", "click",
    )  # fmt: skip


def test_help_and_import_load_nothing_heavy() -> None:
    loaded = run("import edgetl, edgetl.cli, sys; print(*sys.modules)").split()
    assert not {"numpy", "onnx", "onnxruntime", "PIL", "rich", "torch"} & set(loaded)


def test_the_exported_names_exist() -> None:
    assert all(callable(getattr(edgetl, name)) for name in edgetl.__all__ if name != "__version__")
    with pytest.raises(AttributeError):
        _ = edgetl.nothing
