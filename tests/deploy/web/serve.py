"""Serve the page, on this machine only; with a browser, until the page has told what it found.

    python serve.py PACKAGES CASES                        # to look at
    python serve.py PACKAGES CASES RESULT.json BROWSER    # headless

PACKAGES is the folder that has node_modules.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue

WEB = Path(__file__).resolve().parent
SECONDS = 120
"""The page needs two."""

FLAGS = (
    "--headless",
    "--no-sandbox",  # root has none, nor has a container; the page is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


class Handler(SimpleHTTPRequestHandler):
    """Files of several folders, by the beginning of the address; what is posted goes into `results`."""

    extensions_map = {  # noqa: RUF012 - as the base class has it
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".json": "application/json",
        ".png": "image/png",
    }

    def __init__(self, *args: object, folders: dict[str, Path], results: Queue[bytes], **options: object) -> None:
        self.folders, self.results = folders, results
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        prefix = next(prefix for prefix in self.folders if path.startswith(prefix))
        self.directory = str(self.folders[prefix])
        return super().translate_path(path.removeprefix(prefix))

    def do_POST(self) -> None:
        self.results.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: what goes wrong the page tells."""


def browse(browser: str, address: str, results: Queue[bytes]) -> bytes:
    """Open the page and return what it told.

    Raises:
        SystemExit: the browser ended, or the time, before it told anything.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, *FLAGS, f"--user-data-dir={profile}", address]
        with subprocess.Popen(command, stdout=sys.stderr) as process:
            try:
                for _ in range(SECONDS):
                    try:
                        return results.get(timeout=1)
                    except Empty:
                        if process.poll() is not None:
                            raise SystemExit(f"{browser} ended with {process.returncode} and no result") from None
                raise SystemExit(f"no result from the page in {SECONDS} s")
            finally:
                process.terminate()


def main(packages: str, cases: str, result: str = "", browser: str = "") -> None:
    """Serve until the result is there, or without one until Ctrl-C."""
    folders = {
        "/packages/": Path(packages) / "node_modules",
        "/cases/": Path(cases),
        "/answers.mjs": WEB.parent / "answers.mjs",
        "/": WEB,
    }
    results: Queue[bytes] = Queue()
    handler = partial(Handler, folders=folders, results=results)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        if not result:
            print(f"{address} (Ctrl-C ends)", flush=True)
            threading.Event().wait()
        else:
            found = json.loads(browse(browser, address, results))
            if "error" in found:
                raise SystemExit(f"the page failed: {found['error']}")
            Path(result).write_text(json.dumps(found))
        server.shutdown()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
