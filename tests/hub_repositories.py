"""Repositories of the loopback Hub (`hub_server.py`): files, commits, branches, and the check of a card's metadata."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePosixPath

import yaml
from hub_http import HubError


@dataclass(frozen=True)
class File:
    """A file of a commit.

    Args:
        content (`bytes`): what is downloaded.
        large (`bool`): kept in the blob store; git has a pointer to it.
    """

    content: bytes
    large: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return text.encode()

    @cached_property
    def oid(self) -> str:
        """Git's hash of what is in git."""
        stored = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    def entry(self, path: str) -> dict:
        """As a listing shows it."""
        entry = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry


@dataclass
class Commit:
    title: str
    message: str
    author: str
    files: dict[str, File]
    parent: "Commit | None" = None
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))

    def __post_init__(self):
        state = [self.title, self.message, self.date, self.parent and self.parent.sha]
        state += sorted((path, file.oid) for path, file in self.files.items())
        self.sha = hashlib.sha1(json.dumps(state).encode()).hexdigest()

    def history(self) -> "Iterator[Commit]":
        """This commit and those before it, newest first."""
        commit = self
        while commit:
            yield commit
            commit = commit.parent

    def below(self, folder: str) -> list[str]:
        """Files and folders below a folder, `""` being the root."""
        folders = {str(folder) for path in self.files for folder in PurePosixPath(path).parents} - {"."}
        return sorted(path for path in folders.union(self.files) if path.startswith(folder + "/" if folder else ""))

    def entries(self, paths: list[str], expand: bool) -> list[dict]:
        """As a listing shows files and folders; `expand` tells the commit of the last change too."""
        entries = []
        for path in paths:
            folder = {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}
            entries.append(self.files[path].entry(path) if path in self.files else folder)
            if expand:
                last = self._last_change(path)
                entries[-1]["lastCommit"] = {"id": last.sha, "title": last.title, "date": last.date}
        return entries

    def _last_change(self, path: str) -> "Commit":
        def state(commit: Commit | None) -> list:
            return [commit.files.get(name) for name in (path, *commit.below(path))] if commit else [None]

        return next(commit for commit in self.history() if state(commit) != state(commit.parent))


@dataclass
class Repo:
    kind: str  # models, datasets or spaces
    id: str
    private: bool
    branches: dict[str, Commit]

    def commit(self, revision: str) -> Commit:
        """The commit at a branch or of a hash."""
        commits = {commit.sha: commit for head in self.branches.values() for commit in head.history()}
        try:
            return (commits | self.branches)[revision]
        except KeyError:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound") from None


def card_metadata(card: str) -> dict:
    """The YAML block at the head of a card; empty if there is none."""
    block = re.match(r"---\r?\n(.*?)\r?\n---\s*?(?:\n|$)", card, re.DOTALL)
    return (yaml.safe_load(block[1]) if block else None) or {}


def check_card(card: str, repo_type: str) -> tuple[list[str], list[str]]:
    """Errors and warnings on a card's metadata: the fields about which the Hub is strict.

    Source: the messages of the Hub's model card specification, docs/hub/model-cards.
    """
    try:
        data = card_metadata(card)
    except yaml.YAMLError as error:
        return [f"YAML: {error}"], []
    if not isinstance(data, dict):
        return ["YAML metadata must be a mapping"], []
    if not data and repo_type != "space":
        return [], ["empty or missing yaml metadata in repo card"]
    errors = []
    for name in ("license", "library_name", "pipeline_tag"):
        if not isinstance(data.get(name, ""), str):
            errors.append(f'"{name}" must be a string')
    for name, pattern in {"base_model": REPO_ID, "datasets": REPO_ID, "metrics": ".+", "tags": ".+"}.items():
        values = data.get(name, [])
        for value in values if isinstance(values, list) else [values]:
            if not re.fullmatch(pattern, str(value)):
                errors.append(f'"{name}" with value "{value}" is not valid')
    for place, model in enumerate(data.get("model-index", [])):
        results = model.get("results", [])
        metrics = [metric for result in results for metric in result["metrics"]]
        if not model.get("name") or not all(result["task"].get("type") for result in results):
            errors.append(f'"model-index[{place}]" needs a name and a task type for each result')
        if not all("type" in metric and "value" in metric for metric in metrics):
            errors.append(f'"model-index[{place}]": each metric needs type and value')
    if repo_type == "space" and data.get("sdk") not in ("gradio", "docker", "static"):
        errors.append('"sdk" must be one of [gradio, docker, static]')
    return errors, []


REPO_ID = r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*"
