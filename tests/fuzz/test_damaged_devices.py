"""Device profiles: damaged bytes, and values of any kind."""

import random
from pathlib import Path
from typing import Any

import pytest
from damage import damaged, explore, withstand
from hypothesis import strategies as st

from edgetl.device.profile import _shipped, load_device
from edgetl.errors import DeviceError

SHIPPED = sorted(_shipped().glob("*.toml"))


def check(file: Path) -> None:
    device = load_device(str(file))
    assert 0 < device.threads <= device.cores < 1e12
    assert 0 < device.training_memory_mb <= device.memory_mb < 1e12
    assert 0 < device.storage_mb < 1e12
    assert device.batch_size > 0
    assert device.providers[-1].name == "cpu"
    assert all(isinstance(text, str) for text in (device.title, *device.python, *device.sources.values()))


@pytest.mark.parametrize("times", [80, pytest.param(1500, marks=pytest.mark.long)])
def test_damaged_bytes(times: int, tmp_path: Path) -> None:
    contents = [file.read_bytes() for file in SHIPPED]
    assert contents

    def case(rng: random.Random) -> None:
        content = rng.choice(contents)
        # most of a profile says where its figures are from
        cut = content.index(b"[sources]")
        figures, sources = content[:cut], content[cut:]
        if rng.random() < 0.7:
            figures = damaged(figures, rng, most=2)
        else:
            sources = damaged(sources, rng)
        (tmp_path / "d.toml").write_bytes(figures + sources)
        check(tmp_path / "d.toml")

    withstand(case, times=times, seed=31, refusal=DeviceError)


LITERALS = st.sampled_from(
    [
        *("0", "-1", "1", "4", "1e3", "nan", "inf", "-inf", "1e999", "true", '"4"', '""', "[]", "{}", "[[]]", "[4]"),
        *("1" + "0" * 400, "1" + "0" * 5000, "0x" + "f" * 6000, "1979-05-27T07:32:00Z", "07:32:00", "2026-13-45"),
        *('["cpu"]', '[{name = "cpu"}]', '[{name = "cpu", options = {a = 1}, package = ""}]', "[" * 3000, '"\\u0000"'),
        *('["no such"]', '["portable"]', '"int8"', '"float16"', "{a = {b = 1}}", "'''\n'''", '"\\uD800"'),
    ]
) | st.text(max_size=20)


@pytest.mark.parametrize("times", [80, pytest.param(1500, marks=pytest.mark.long)])
def test_any_values(times: int, tmp_path: Path) -> None:
    lines = SHIPPED[0].read_text(encoding="utf-8").splitlines()
    fields = [number for number, line in enumerate(lines) if " = " in line]

    def case(drawn: dict[int, Any]) -> None:
        changed = lines.copy()
        for number, literal in drawn.items():
            changed[number] = f"{lines[number].partition(' = ')[0]} = {literal}"
        (tmp_path / "d.toml").write_text("\n".join(changed), encoding="utf-8", errors="surrogatepass")
        check(tmp_path / "d.toml")

    explore(st.dictionaries(st.sampled_from(fields), LITERALS, max_size=3), case, times=times, refusal=DeviceError)
