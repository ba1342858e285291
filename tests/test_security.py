"""Nothing is unpickled, evaluated or handed to a shell: a search of the code itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgetl

ROOT = Path(edgetl.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
UNPICKLE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """Each call's dotted name, and its keyword arguments that are constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found = {
                word.arg: word.value.value
                for word in node.keywords
                if word.arg and isinstance(word.value, ast.Constant)
            }
            yield ast.unparse(node.func), found


def problems(code: str) -> list[str]:
    tree = ast.parse(code)
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"imports {name}" for name in names if name.split(".")[0] in UNPICKLE]
    for name, words in calls(tree):
        last = name.rpartition(".")[2]
        if name in ("np.load", "numpy.load") or last in ("read_array", "write_array"):
            found += [] if words.get("allow_pickle") is False else [f"{name} without allow_pickle=False"]
        if name == "torch.load" or last == "get_state_dict":
            found += [] if words.get("weights_only") is True else [f"{name} without weights_only=True"]
        if name.endswith("saving.load_model"):
            found += [] if words.get("safe_mode") is True else [f"{name} without safe_mode=True"]
        if name in ("eval", "exec", "os.system", "os.popen", "yaml.load") or words.get("shell") is True:
            found.append(f"calls {name}")
    return found


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_no_file_unpickles_or_evaluates(file: Path) -> None:
    assert problems(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "np.load(file)",
        "numpy.load(file, allow_pickle=True)",
        "np.lib.format.read_array(stream)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "keras.saving.load_model(file)",
    ],
)
def test_the_search_finds_what_it_searches_for(code: str) -> None:
    assert problems(code)
