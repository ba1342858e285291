"""What is a host, what is a path, and what is refused."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.errors import RemoteError
from edgetl.remote.destination import Destination, parse_destination, parse_host
from edgetl.remote.ssh import ssh_command


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pi:models/digits", Destination("pi", "./models", "digits")),
        ("me@pi:/srv/digits", Destination("me@pi", "/srv", "digits")),
        ("me@pi.local:digits", Destination("me@pi.local", ".", "digits")),
        ("pi:/digits", Destination("pi", "/", "digits")),
        ("pi:models/", Destination("pi", "./models", "")),
        ("pi:~/digits", Destination("pi", ".", "digits")),
        ("pi:~//etc/digits", Destination("pi", "./etc", "digits")),
        ("pi:-rf/-x", Destination("pi", "./-rf", "-x")),
        ("pi:a:b", Destination("pi", ".", "a:b")),
        ("[::1]:digits", Destination("::1", ".", "digits")),
        ("me@[fe80::1%eth0]:/srv/a b", Destination("me@fe80::1%eth0", "/srv", "a b")),
        ("a@b@pi:x", Destination("a@b@pi", ".", "x")),
        ("models/digits", Destination(None, "./models", "digits")),
        ("./a:b", Destination(None, "./.", "a:b")),
        ("/a:b", Destination(None, "/", "a:b")),
    ],
)
def test_host_and_path(text: str, expected: Destination) -> None:
    assert parse_destination(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "pi:",
            ":x",
            "@pi:x",
            "me@:x",
            "-oProxyCommand=x:y",
            "me@-oProxyCommand=x:y",
            "-x@pi:y",
            "a b:x",
            "a;b:x",
        ),
        *("$(id):x", "`id`:x", "pi\n:x", "pi:.", "pi:a/..", "pi:~", "pi:~root/x", "ssh://pi/x", "pi:a\0b", "[::1:x"),
    ],
)
def test_what_cannot_be_a_place_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(RemoteError, match=r": (write|give|the home)"):
        parse_destination(text)


@pytest.mark.parametrize("text", ["pi:models/digits", "me@[::1]:/srv/x", "models/x", "/x", "pi:x"])
def test_a_place_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_destination(text)) == text


@given(st.text())
def test_a_host_never_begins_an_option_and_is_one_word(text: str) -> None:
    try:
        host = parse_host(text)
    except RemoteError:
        return
    assert not any(part.startswith("-") for part in (host, host.rpartition("@")[2]))
    assert not set(host) & set(" \t\r\n'\"`$;&|<>()\\*?!#~[]{}^\0")


def test_the_host_stands_behind_the_end_of_options() -> None:
    command = ssh_command("pi", "true", ["Port=22"])
    assert command[-3:] == ["--", "pi", "true"]
    assert command[:3] == ["ssh", "-o", "Port=22"]


@pytest.mark.parametrize("option", ["Port", "=22", "-v", "Port=1\nProxyCommand=x", "Po rt=1"])
def test_options_are_key_and_value(option: str) -> None:
    with pytest.raises(RemoteError, match="KEY=VALUE"):
        ssh_command("pi", "true", [option])


def test_ssh_asks_only_where_somebody_can_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin, silent in ((None, True), (io.StringIO(), True), (_Terminal(), False)):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert ("BatchMode=yes" in ssh_command("pi", "true")) == silent


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
