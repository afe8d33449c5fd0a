"""A small client of language servers: JSON-RPC over the pipes of a server process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = {
    "validate": True,
    "hover": True,
    "completion": True,
    "schemaStore": {"enable": False},
    "kubernetesCRDStore": {"enable": False},
}
"""What an editor tells yaml-language-server; without the stores it asks nothing of the network."""


@dataclass
class LanguageServer:
    """One server process. Text is opened under a path that need not exist; positions are 0-based.

    A request that the server sends is answered where it concerns settings, else with null.
    """

    process: subprocess.Popen[bytes]
    settings: Mapping[str, Any] = field(default_factory=lambda: SETTINGS)
    last_id: int = 0
    diagnostics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    asked_for: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, command: Sequence[str], root: Path, env: Mapping[str, str]) -> LanguageServer:
        """Start the server and agree on what both can do."""
        process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(env)
        )
        server = cls(process)
        capabilities = {
            "workspace": {"configuration": True, "didChangeConfiguration": {"dynamicRegistration": False}},
            "textDocument": {
                "completion": {"completionItem": {"snippetSupport": True, "documentationFormat": ["plaintext"]}},
                "hover": {"contentFormat": ["plaintext"]},
                "publishDiagnostics": {"relatedInformation": True},
            },
        }
        folder = {"uri": root.as_uri(), "name": root.name}
        server.request(
            "initialize",
            {
                "processId": None,
                "rootUri": root.as_uri(),
                "workspaceFolders": [folder],
                "capabilities": capabilities,
            },
        )
        server.notify("initialized", {})
        server.notify("workspace/didChangeConfiguration", {"settings": {"yaml": dict(server.settings)}})
        return server

    def stop(self) -> None:
        """Ask the server to end, and see that it does."""
        self.request("shutdown", None)
        self.notify("exit", None)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stdout.close()

    def open(self, path: Path, text: str) -> list[dict[str, Any]]:
        """Show a text to the server; what it marks as wrong, in order of place.

        Each path is opened once: after a change nothing tells old diagnostics from new ones.
        """
        uri = path.as_uri()
        assert uri not in self.diagnostics, f"{path} is open"
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})
        while uri not in self.diagnostics:
            self._take(self._read())
        found = self.diagnostics[uri]
        return sorted(found, key=lambda one: (one["range"]["start"]["line"], one["range"]["start"]["character"]))

    def complete(self, path: Path, line: int, column: int) -> dict[str, dict[str, Any]]:
        """What the server offers at a place of a text that it was shown, by label."""
        answer = self.request("textDocument/completion", self._place(path, line, column))
        items = answer["items"] if isinstance(answer, dict) else answer or []
        return {item["label"]: item for item in items}

    def hover(self, path: Path, line: int, column: int) -> str:
        """What the server says about a place of a text that it was shown."""
        answer = self.request("textDocument/hover", self._place(path, line, column))
        if not answer:
            return ""
        contents = answer["contents"]
        return str(contents["value"] if isinstance(contents, dict) else contents)

    def request(self, method: str, params: Any) -> Any:
        """Send a request and read on until its answer is there."""
        self.last_id += 1
        self._send({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})
        while True:
            message = self._read()
            if message.get("id") == self.last_id and "method" not in message:
                assert "error" not in message, message["error"]
                return message.get("result")
            self._take(message)

    def notify(self, method: str, params: Any) -> None:
        """Send what needs no answer."""
        self._send({"jsonrpc": "2.0", "method": method, "params": params})

    def _place(self, path: Path, line: int, column: int) -> dict[str, Any]:
        return {"textDocument": {"uri": path.as_uri()}, "position": {"line": line, "character": column}}

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("method") == "textDocument/publishDiagnostics":
            self.diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "id" in message and "method" in message:
            self.asked_for.append(message["method"])
            result = None
            if message["method"] == "workspace/configuration":
                sections = [item.get("section") for item in message["params"]["items"]]
                result = [dict(self.settings) if section == "yaml" else {} for section in sections]
            self._send({"jsonrpc": "2.0", "id": message["id"], "result": result})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        length = 0
        while line := self.process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert length, "the language server ended"
        message: dict[str, Any] = json.loads(self.process.stdout.read(length))
        return message
