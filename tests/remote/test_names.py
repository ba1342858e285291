"""Names and paths of any characters arrive as they are, whatever shell is there; nothing in them is executed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetl.errors import RemoteError
from edgetl.remote import pull, push, rollback, run_remote

pytest_plugins = ["loopback_fixtures"]

HOSTILE = (
    *(
        "a b",
        " a",
        "a ",
        "-rf",
        "--",
        "-n",
        "'",
        '"',
        "''\"\"'",
        "$(touch EVIL)",
        "`touch EVIL`",
        "$HOME",
        "a;touch EVIL",
    ),
    *(
        "a\ntouch EVIL",
        "\n",
        "a\n",
        "&& touch EVIL",
        "| touch EVIL",
        "> EVIL",
        "*",
        "?",
        "[a-z]",
        "{a,b}",
        "~",
        "~root",
    ),
    *(
        "\\",
        "\\'",
        "\\n",
        "a\\",
        "!!",
        "#",
        "%s",
        "%%",
        "äöü",
        "日本",
        "\x1b[31m",
        "\t",
        "\x7f",
        "é",
        os.fsdecode(b"\xff\xfe"),
    ),
    *("edgetl: done", "a:b", "host:x", ".hidden", "...", "=", "(", ")", "EVIL $(id)"),
)
names = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30),
    st.text(st.sampled_from(" '\"$`\\;&|<>(){}[]*?!#~\n\t-a=%^"), min_size=1, max_size=12),
).filter(lambda name: name not in (".", ".."))
LOGIN_SHELLS = [
    shell for shell in ("sh", "bash", "busybox sh", "zsh", "fish", "csh -f") if shutil.which(shell.split()[0])
]
Make = Callable[[str, str], Path]
many = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where whatever is executed by mistake leaves its file."""
    here = tmp_path / "working directory"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@many
@given(parent=names, name=names)
def test_a_file_at_a_path_of_any_characters(here: str, empty: Path, parent: str, name: str) -> None:
    top, source = empty / "device", empty / "source"
    clear(empty)
    for content in (b"old", b"new"):
        source.write_bytes(content)
        result = push(source, f"{here}:device/{parent}/{name}")
    assert result.destination == f"{here}:device/{parent}/{name}"
    rollback(f"{here}:device/{parent}/{name}")
    found = {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    assert found == {Path(parent, name): b"old", Path(parent, f"{name}.previous"): b"new"}
    pull(f"{here}:device/{parent}/{name}", empty / "pulled")
    assert (empty / "pulled").read_bytes() == b"old"
    assert sorted(entry.name for entry in empty.iterdir()) == ["device", "pulled", "source"]


@many
@given(name=names, inner=st.sets(names, min_size=1, max_size=3))
def test_a_directory_with_names_of_any_characters(here: str, empty: Path, name: str, inner: set[str]) -> None:
    source, top = empty / "source", empty / "device"
    clear(empty)
    for entry in inner:
        (source / entry).mkdir(parents=True)
        (source / entry / entry).write_bytes(os.fsencode(entry))
    (source / "args.yaml").write_text("x: 1\n")
    push(source, f"{here}:device/{name}")
    (source / "args.yaml").write_text("x: 2\n")
    result = push(source, f"{here}:device/{name}")
    assert result.sent_files == 1
    assert contents(top / name) == contents(source)
    skipped = {entry for entry in inner if entry == ".lock" or entry.endswith(".partial")}
    if any("\n" in entry for entry in inner - skipped):
        with pytest.raises(RemoteError, match="line break in its name"):
            pull(f"{here}:device/{name}", empty / "pulled")
    else:
        pull(f"{here}:device/{name}", empty / "pulled")
        assert contents(empty / "pulled") == contents(source)
    rollback(f"{here}:device/{name}")
    assert (top / name / "args.yaml").read_text() == "x: 1\n"
    assert {entry.name for entry in empty.iterdir()} <= {"device", "pulled", "source"}


def clear(directory: Path) -> None:
    """Remove what an earlier example left."""
    shutil.rmtree(directory)
    directory.mkdir()
    os.chdir(directory)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_whatever_the_login_shell_is(
    shell: str, here: str, stand_in: Make, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN_SHELL", shell)
    program = stand_in("program", f'printf "%s\\0" "$@" >"{empty}/arguments"')
    assert run_remote(here, HOSTILE, program=str(program)) == 0
    assert (empty / "arguments").read_bytes() == b"".join(os.fsencode(f"{text}\0") for text in HOSTILE)
    (empty / "source").write_bytes(b"model")
    for name in HOSTILE[:: len(HOSTILE) // 3]:
        push(empty / "source", f"{here}:device/{name}")
    assert {entry.name for entry in (empty / "device").iterdir()} == set(HOSTILE[:: len(HOSTILE) // 3])
    assert sorted(entry.name for entry in empty.iterdir()) == ["arguments", "device", "source"]


@many
@given(
    words=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=5)
)
def test_arguments_of_any_characters(here: str, stand_in: Make, empty: Path, words: list[str]) -> None:
    program = stand_in("program", f'printf "%s\\0" "$@" >"{empty}/arguments"; exit $#')
    assert run_remote(here, words, program=str(program)) == len(words)
    if words:
        assert (empty / "arguments").read_bytes() == b"".join(f"{word}\0".encode() for word in words)
    assert {entry.name for entry in empty.iterdir()} <= {"arguments"}
