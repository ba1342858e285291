import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import HAS_TORCH

from edgetl.cli.main import main
from edgetl.device.doctor import examine


def test_it_says_what_this_environment_can_do() -> None:
    found = examine()
    assert found.problem is None
    assert len(found.distributions) == 1
    has_training = "onnxruntime-training-cpu" in found.distributions
    assert found.engine == ("ort-training" if has_training else "portable")
    assert "CPUExecutionProvider" in found.providers
    assert found.finetune.works
    assert found.deploy.works
    assert found.prepare.works == (HAS_TORCH and has_training)
    assert found.cores >= 1
    assert found.memory_mb is None or found.memory_mb > 100


def test_a_clash_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tuple(examine().distributions)
    monkeypatch.setattr("edgetl.runtime.sessions.installed_distributions", lambda: (*installed, "numpy"))
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert "pip uninstall -y" in found["problem"]
    assert not any(found[name]["works"] for name in ("prepare", "finetune", "deploy"))


def test_without_any_onnxruntime() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "import edgetl.runtime.sessions as r; r.installed_distributions = lambda: ()\n"
        "from edgetl.cli import main; main(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot finetune: onnxruntime is not installed: pip install" in done.stdout
    assert done.stderr == ""


def test_text_for_people() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    assert "can    finetune: engine" in result.stdout


def test_every_extra_of_the_metadata_is_listed() -> None:
    import importlib.metadata

    known = importlib.metadata.metadata("edgetl").get_all("Provides-Extra") or []
    assert {"text", "zoo", "prepare"} <= set(known)
    extras = examine().extras
    assert set(extras) == set(known)
    assert extras["text"].works
    assert extras["text"].why.startswith("tokenizers ")
    assert extras["prepare"].works == HAS_TORCH


def test_what_an_extra_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    version = importlib.metadata.version

    def without(name: str) -> str:
        if name == "tokenizers":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("importlib.metadata.version", without)
    extras = examine().extras
    assert extras["text"].why == "lacks tokenizers: pip install 'edgetl[text]'"
    assert "tokenizers" in extras["zoo"].why, "it contains edgetl[text]"
