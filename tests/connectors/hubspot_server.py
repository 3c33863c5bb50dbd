"""A scripted HTTP server for tests of the HubSpot connector, and the settings that lead to it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from connectors.hubspot.settings import HubSpotSettings

TOKEN = "pat-eu1-very-secret"
Answer = tuple[int, dict[str, str], bytes] | str  # "drop" and "truncate" break the connection


class Server:
    """Answers requests from a script, in order; the last line of the script is repeated."""

    def __init__(self) -> None:
        self.script: list[Answer | Callable[[Any], Answer]] = []
        self.seen: list[tuple[str, str, str | None, bytes]] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                body = self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with outer._lock:
                    outer.seen.append((self.command, self.path, self.headers.get("Authorization"), body))
                    line = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                answer = line(self) if callable(line) else line
                if answer == "drop":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                if answer == "truncate":
                    self.send_response(200)
                    self.send_header("Content-Length", "400")
                    self.end_headers()
                    self.wfile.write(b'{"results": [')
                    self.close_connection = True
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do

            def log_message(self, *args: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def settings(server: Server, **more: Any) -> HubSpotSettings:
    return HubSpotSettings(**{"name": "inbound", "crm": "hubspot", "base_url": server.url, "access_token": TOKEN, **more})


def answer_json(status: int, body: Any, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()
