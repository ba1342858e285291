"""A real sshd on the loopback interface, with keys and configuration of its own, and a gate in front of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgetl.artifacts import load_artifacts

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MISSING = None if SSHD and shutil.which("ssh") else "needs OpenSSH: apt-get install openssh-server openssh-client"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """An sshd; `options` let ssh in."""

    port: int
    directory: Path

    def options(self, port: int | None = None) -> tuple[str, ...]:
        return (
            f"Port={port or self.port}",
            f"IdentityFile={self.directory / 'user'}",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            f"UserKnownHostsFile={self.directory / 'known_hosts'}",
            "LogLevel=ERROR",
            # nothing of the tester's own configuration, as far as -o can say so
            "ControlPath=none",
            "ProxyCommand=none",
        )


def free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def start_sshd(directory: Path, *lines: str) -> tuple[subprocess.Popen[bytes], Server]:
    """Start one that knows one key; `lines` are added to its configuration."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", directory / name], check=True)
    shutil.copyfile(directory / "user.pub", directory / "authorized_keys")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = directory / "sshd_config"
    configuration.write_text(
        "\n".join(
            (
                f"Port {port}",
                f"ListenAddress {HOST}",
                f"HostKey {directory / 'host'}",
                f"AuthorizedKeysFile {directory / 'authorized_keys'}",
                f"PidFile {directory / 'pid'}",
                "StrictModes no",
                "PermitRootLogin yes",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "UsePAM no",
                "MaxStartups 100",
                # bash, run by sshd, reads .bashrc, and the tester's may take half a second; not at this depth
                "SetEnv SHLVL=2",
                *lines,
                "",
            )
        )
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", configuration], stderr=log)
    deadline = time.monotonic() + 10
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            pytest.skip(f"sshd does not start here: {(directory / 'log').read_text()[-500:]}")
        time.sleep(0.05)
    return process, Server(port, directory)


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass
class Gate:
    """Passes connections on to the sshd, counts what goes there, and behind `limit` bytes cuts them or falls silent."""

    target: int
    port: int = 0
    up: int = 0
    limit: int | None = None
    stalls: bool = False
    _sockets: list[socket.socket] = field(default_factory=list)

    def serve(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                far = socket.create_connection((HOST, self.target))
                self._sockets += [client, far]
                for source, sink, counted in ((client, far, True), (far, client, False)):
                    threading.Thread(target=self._pass, args=(source, sink, counted), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if counted:
                    self.up += len(data)
                    if self.limit is not None:
                        time.sleep(0.004)  # 1 MB/s: what the far sshd has in its memory when it is cut is lost
                    if self.limit is not None and self.up > self.limit:
                        if self.stalls:
                            return
                        break
                sink.sendall(data)
        self._close(source, sink)

    def _close(self, *sockets: socket.socket) -> None:
        for connection in sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close(self) -> None:
        self._close(*self._sockets)


class Reader(threading.Thread):
    """Reads a version over and over, as a program on the device does, and keeps what it saw."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.seen, self.sizes = path, set[str](), set[int]()
        self.error: Exception | None = None
        self._stop_now = threading.Event()

    def run(self) -> None:
        try:
            while not self._stop_now.is_set():
                self.look()
        except Exception as error:
            self.error = error

    def look(self) -> None:
        for _ in range(20):  # what is missing, or short, for a moment only
            status = self.path.stat()
            self.sizes.add(0 if stat.S_ISDIR(status.st_mode) else status.st_size)
            time.sleep(0.0002)
        if self.path.is_dir():
            self.seen.add(load_artifacts(self.path.resolve()).sha256)
        else:
            self.seen.add(hashlib.sha256(self.path.read_bytes()).hexdigest())

    def __enter__(self) -> Reader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_now.set()
        self.join()
        assert self.error is None, self.error


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def version(path: Path) -> str:
    return load_artifacts(path).sha256


def hidden(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir() if entry.name.startswith("."))
