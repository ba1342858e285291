from pathlib import Path

import pytest

from edgetl.runtime import machine, process


def test_it_knows_where_it_runs() -> None:
    found = machine.this_machine()
    assert found.processor
    assert found.cores == process.available_cores()
    assert found.onnxruntime.startswith("onnxruntime")
    assert found.memory_mb is None or found.memory_mb > 100


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\x00"}, "Raspberry Pi 5 Model B Rev 1.0"),
        ({"/proc/cpuinfo": "processor\t: 0\nmodel\t: 17\nmodel name\t: AMD EPYC\n"}, "AMD EPYC"),
    ],
)
def test_boards_and_processors(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: str) -> None:
    def read(path: Path, **options: str) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    assert machine._processor() == expected
