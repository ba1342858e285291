"""Who may import whom, and that the device side runs without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgetl

ROOT = Path(edgetl.__file__).parent
WORKSTATION = {"preparation", "demo"}
DEVICE_MODULES = sorted(
    ".".join(("edgetl", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0] not in WORKSTATION and path.name != "__main__.py"
)
# lower may not know of higher
ORDER = ["errors", "suggest", "choices", "defaults", "metrics", "schema", "events", "storage", "npz", "seal", "kinds",
         "artifacts", "targets", "schedule", "rate", "external_data", "unfolding", "runtime", "machine", "providers",
         "graphs", "initialization", "data", "engines", "devices", "planning", "observation",
         "equalization", "correction", "quantization", "features",
         "outcome", "run", "belongings", "runs", "report", "loop", "settings", "train", "deployed", "benchmarking",
         "deployment", "adaptation", "inspection", "verification", "doctor", "remote", "console", "outline",
         "cli"]  # fmt: skip

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
"""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def run(code: str, *blocked: str) -> str:
    code = BLOCK.format(blocked=set(blocked)) + code
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_device_modules_import_without_torch() -> None:
    code = "import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in DEVICE_MODULES)
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


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_downwards(module: str) -> None:
    files = [ROOT / f"{module}.py"] if (ROOT / f"{module}.py").is_file() else list((ROOT / module).glob("*.py"))
    assert files
    above = ORDER[ORDER.index(module) + 1 :]
    for file in files:
        for name in imports(file):
            part = name.split(".")
            if part[0] == "edgetl" and len(part) > 1:
                assert part[1] not in above, f"{file} imports {name}"
                assert part[1] not in WORKSTATION or module in ("adaptation", "cli"), f"{file} imports {name}"


def test_the_loop_knows_only_the_seam() -> None:
    assert not any("ort_training" in name or "portable" in name for name in imports(ROOT / "train.py"))


def test_the_exported_names_exist() -> None:
    assert all(callable(getattr(edgetl, name)) for name in edgetl.__all__ if name != "__version__")
    with pytest.raises(AttributeError):
        _ = edgetl.nothing
