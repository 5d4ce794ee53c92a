"""A Hugging Face hub on this machine: it keeps what is pushed to it in memory, and serves it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from local_server import Handler, LocalServer

__all__ = ["HubServer"]


class HubServer(LocalServer):
    """What the client of huggingface_hub needs to create, push and fetch models.

    Attributes:
        commits: For each repository its commits, oldest first, each with all files by name.
        tokens: The header Authorization of every request.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.tokens: list[str | None] = []

    def push(self, repository: str, changes: dict[str, bytes]) -> str:
        """Add a commit, and return its name."""
        commits = self.commits.setdefault(repository, [])
        commits.append({**(commits[-1] if commits else {}), **changes})
        return self.commit(repository, "main")

    def commit(self, repository: str, revision: str) -> str:
        """The name of the commit at a revision: "main", or a name itself."""
        newest = len(self.commits[repository])
        number = newest if revision == "main" else int(revision, 16)
        if not 0 < number <= newest:
            raise KeyError(revision)
        return f"{number:040x}"

    def files(self, repository: str, commit: str) -> dict[str, bytes]:
        """All files of a commit."""
        return self.commits[repository][int(commit, 16) - 1]


class _Handler(Handler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # noqa: N802  (its name there)
        self.server.tokens.append(self.headers["Authorization"])
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(x for x in (asked.get("organization"), asked["name"]) if x)
            self.server.commits.setdefault(name, [{".gitattributes": b""}])
            self._answer({"url": f"{self.server.address}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            names = [each["path"] for each in json.loads(body)["files"]]
            files = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self._answer({"files": files})
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            lines = [json.loads(line) for line in body.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            changes = {each["path"]: base64.b64decode(each["content"]) for each in files}
            commit = self.server.push(match[1], changes)
            # by an address of its own: older clients read no other in what they are told
            address = f"https://huggingface.co/{match[1]}/commit/{commit}"
            self._answer({"commitUrl": address, "commitOid": commit, "success": True})
        else:
            self._refuse("no such place")

    def do_GET(self) -> None:  # noqa: N802  (its name there)
        self.server.tokens.append(self.headers["Authorization"])
        path = self.path.partition("?")[0]
        try:
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                commit = self.server.commit(match[1], match[2] or "main")
                names = [{"rfilename": n} for n in self.server.files(match[1], commit)]
                self._answer({"id": match[1], "sha": commit, "siblings": names})
            elif match := re.fullmatch(r"/api/models/(.+)/tree/([^/]+)", path):
                files = self.server.files(match[1], match[2])
                sizes = {name: len(content) for name, content in files.items()}
                entry = {"type": "file", "oid": "0" * 40}
                self._answer([{**entry, "path": n, "size": size} for n, size in sizes.items()])
            elif match := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
                commit = self.server.commit(match[1], match[2])
                content = self.server.files(match[1], commit)[match[3]]
                etag = f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"'
                self._send(200, content, {"ETag": etag, "X-Repo-Commit": commit})
            else:
                self._refuse("no such place")
        except (KeyError, ValueError, IndexError):
            self._refuse("Repository not found", **{"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self) -> None:  # noqa: N802  (its name there)
        self.do_GET()

    def _answer(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, message: str, **headers: str) -> None:
        self._send(404, b"{}", {**headers, "X-Error-Message": message})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
