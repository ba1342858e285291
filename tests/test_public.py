"""The names that `import edgetl` offers."""

import inspect
import subprocess
import sys

import pytest
from conftest import HAS_TORCH

import edgetl


def test_every_public_name_is_listed_and_has_a_docstring() -> None:
    assert set(edgetl.__all__) <= set(dir(edgetl))
    assert {"prepare", "finetune", "deploy", "push", "pull", "examine", "DeployedModel", "EdgetlError"} <= set(
        edgetl.__all__
    )
    for name in edgetl.__all__:
        if name.startswith("__") or (name == "prepare" and not HAS_TORCH):
            continue
        assert inspect.getdoc(getattr(edgetl, name)), name


def test_dir_imports_nothing() -> None:
    code = "import sys, edgetl; before = set(sys.modules); dir(edgetl); print(len(set(sys.modules) - before))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0\n"


def test_python_m_edgetl() -> None:
    done = subprocess.run([sys.executable, "-m", "edgetl", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(edgetl.__version__)


@pytest.mark.parametrize(
    "name", ["labels", "task", "modality", "batch", "decode", "placement", "feeds", "run", "wanted"]
)
def test_the_deployed_model_is_documented(name: str) -> None:
    found = inspect.getdoc(inspect.getattr_static(edgetl.DeployedModel, name))
    assert found
    assert found != "See above."
