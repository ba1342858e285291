"""Fixtures of the tests here, which name it in `pytest_plugins`: a second conftest.py would hide the first."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import HOST, MISSING, Gate, Server, start_sshd

from edgetl.artifacts import MANIFEST
from edgetl.files.seal import seal_json


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if MISSING:
        pytest.skip(MISSING)
    process, server = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    process.terminate()
    process.wait()


@pytest.fixture
def gate(sshd: Server) -> Iterator[Gate]:
    with socket.create_server((HOST, 0)) as server:
        gate = Gate(sshd.port, port=server.getsockname()[1])
        thread = threading.Thread(target=gate.serve, args=(server,), daemon=True)
        thread.start()
        yield gate
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    gate.close()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a program of one's own in front of the system's: `stand_in("dd", "exit 1")`."""
    directory = tmp_path / "stand-ins"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def write(name: str, script: str) -> Path:
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
        return directory / name

    return write


@pytest.fixture
def here(stand_in: Callable[[str, str], Path]) -> str:
    """The name of a host that is this machine, by an ssh that only hands its command to a login shell."""
    stand_in("ssh", 'for last; do :; done\nexec ${LOGIN_SHELL:-sh} -c "$last"')
    return "here"


@pytest.fixture
def variant(digits_artifacts: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes other prepared directories: `variant("b", "backbone.onnx")` differs in that file."""

    def make(label: str, *changed: str, size: int = 20_000) -> Path:
        out = tmp_path / f"source {label}"
        shutil.copytree(digits_artifacts, out)
        manifest = json.loads((out / MANIFEST).read_text())
        manifest["edgetl_version"] = label
        for name in changed:
            data = random.Random(label + name).randbytes(size)
            (out / name).write_bytes(data)
            manifest["files"][name] = hashlib.sha256(data).hexdigest()
        (out / MANIFEST).write_text(json.dumps(seal_json(manifest)))
        return out

    return make


@pytest.fixture
def options(sshd: Server) -> tuple[str, ...]:
    return sshd.options()
