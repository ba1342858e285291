from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.cli.main import main
from edgetl.device.profile import THIS, device_names, load_device, this_device
from edgetl.errors import DeviceError
from edgetl.runtime import process

MINE = """
title = "A board"
architecture = "aarch64"
cores = 4
threads = 2
memory_mb = 1000
training_memory_mb = 500.5
storage_mb = 4000
python = ["3.11"]
engines = ["portable"]
batch_size = 8
cache_precision = "float16"
deploy_precision = "int8"

[[providers]]
name = "openvino"
options = {device_type = "GPU"}
package = "onnxruntime-openvino"

[[providers]]
name = "cpu"
options = {}
package = "onnxruntime"

[sources]
"""
KEYS = [line.partition(" ")[0] for line in MINE.splitlines() if " = " in line]
FIELDS = [*dict.fromkeys(key for key in KEYS if key not in ("name", "options", "package")), "providers"]
MINE += "\n".join(f'{key} = "measured"' for key in FIELDS)


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_the_profiles_that_come_with_edgetl_are_valid() -> None:
    names = device_names()
    assert {"raspberry-pi-zero-2-w", "raspberry-pi-3b-plus", "raspberry-pi-4", "raspberry-pi-5"} < set(names)
    assert {"jetson-orin-nano", "x86-64-mini-pc", "intel-openvino", "arm64-phone", THIS} < set(names)
    for name in names:
        device = load_device(name)
        assert device.training_memory_mb < device.memory_mb
        if device.architecture == "aarch64":
            assert "ort-training" not in device.engines, "there is no onnxruntime-training for Linux on ARM"


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    device = load_device(written(tmp_path, MINE))
    assert (device.threads, device.training_memory_mb, device.engines) == (2, 500.5, ("portable",))
    assert device.providers[0].options == {"device_type": "GPU"}


def test_this_machine_is_measured() -> None:
    device = this_device()
    assert device.cores == process.available_cores()
    assert device.engines
    assert 0 < device.training_memory_mb < device.memory_mb


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cores = 4", "cores = 0", "cores must be a positive number, not 0"),
        ("cores = 4", 'cores = "four"', "field 'cores' has the wrong type"),
        ("cores = 4\n", "", "field 'cores' is missing"),
        ("cores = 4", "cores = 4\ncolour = 3", "there is no field 'colour'"),
        ("threads = 2", "threads = 5", r"threads \(5\) are more than cores \(4\)"),
        ("training_memory_mb = 500.5", "training_memory_mb = 1001", "is more than memory_mb"),
        ("training_memory_mb = 500.5", "training_memory_mb = nan", "must be a positive number, not nan"),
        ('engines = ["portable"]', 'engines = ["tensorflow"]', "engines: there is no 'tensorflow', only"),
        ('"float16"', '"int8"', "cache_precision: there is no 'int8'"),
        ('name = "cpu"', 'name = "cuda"', "the last of the providers must be cpu"),
        ('storage_mb = "measured"', "", "says nothing of storage_mb"),
        ('title = "A board"', 'title = "A board', "is not TOML"),
    ],
)
def test_what_is_wrong_with_a_profile_is_said(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINE
    with pytest.raises(DeviceError, match=rf"mine\.toml.*{message}"):
        load_device(
            written(tmp_path, MINE.replace(old, new, 1) if old != 'storage_mb = "measured"' else MINE.replace(old, new))
        )


@pytest.mark.parametrize("name", ["raspberry-pi-6", "../secrets", "./nothing.toml", ""])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(DeviceError, match=r"there is no device .* choose one of .*raspberry-pi-4.*\./mine\.toml"):
        load_device(name)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(MINE) - 1), st.characters())
def test_a_damaged_profile_is_a_sentence_or_a_device(position: int, character: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "mine.toml"
        file.write_bytes((MINE[:position] + character + MINE[position + 1 :]).encode("utf-8", "surrogatepass"))
        problem = ""
        try:
            load_device(str(file))
        except DeviceError as error:
            problem = str(error)
        assert not problem or problem.startswith(str(file))


def test_the_command(tmp_path: Path) -> None:
    listed = CliRunner().invoke(main, ["devices"])
    assert listed.exit_code == 0
    assert len(listed.stdout.splitlines()) == 1 + len(device_names())
    shown = CliRunner().invoke(main, ["devices", written(tmp_path, MINE)])
    assert "training_memory_mb: 500.5\n    measured\n" in shown.stdout
    assert CliRunner().invoke(main, ["devices", "nothing"]).exit_code == 1


def test_equal_profiles_are_equal(tmp_path: Path) -> None:
    device = load_device(written(tmp_path, MINE))
    assert replace(device, cores=5) != device == load_device(written(tmp_path, MINE))
