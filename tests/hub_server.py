"""A small Hugging Face Hub on loopback, for the unmodified client (huggingface_hub 2.4, plain HTTP without Xet).

    def test_something(hub):                             # a fresh, empty Hub; users "user" and "other"
        done = hub.run("from huggingface_hub import HfApi; print(HfApi().whoami()['name'])")
        assert done.stdout == "user\\n"
        hub.run(["-m", "model_card.run_push", folder, "--repo_id", "user/name"], token="hf_read", returncode=1)
        hub.cut("PUT", after=1000)                       # the next upload of a large file breaks off at byte 1000
        hub.fail("POST", "/commit/", status=503, times=2)
        hub.files("user/name")["model.safetensors"]      # bytes on the main branch
        hub.commits("user/name")[0].title                # the newest commit
        hub.bytes_received[sha256]                       # bytes of a large file that came, broken attempts included
        [(request.method, request.path, request.status) for request in hub.requests]

`hub.run` is the way to a client: HF_ENDPOINT and HF_HUB_DISABLE_XET have to stand before huggingface_hub is imported,
so it starts a child process, with a Hugging Face home for each token that lasts as long as the fixture. Tokens:
`hf_user` (default) and `hf_other` may write in their own namespace only, `hf_read` is user's and may only read, `None`
is nobody. A fault is used up after `times` requests. `after` counts the request's body, then the answer's: an upload
cut before its last byte has no effect. `hub.lose_answer("POST", "/commit/")` has the commit made but not answered,
`hub.fall_silent("PUT", after=1000)` reads so many bytes of the upload and then does nothing, with the connection open.

Small files and the API are at `hub.endpoint`, large files in a blob store on another port, reached through signed links,
which refuses a token as Amazon's does. A large file that the store has already, from whichever attempt, is not asked for
again.

The child's other HTTP traffic is led here by proxy variables, so nothing leaves the machine. A request that this
server doesn't know is answered 404 and listed in `hub.unexpected`; the fixture fails if there is one.

Source: the requests in huggingface_hub's `hf_api`, `_commit_api`, `lfs`, `file_download` and `hf_file_system`, and in
`datasets`. Left out: pull requests, tags, `.gitignore`, gated repositories, organisations, the dataset viewer (404), uploads in parts
(of files beyond 5 GB), listings in pages (beyond 1000 entries).
"""

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import parse_qs, unquote

import forked_python
from hub_http import Fault, HubError, Log, LoopbackServer, Reply, Request
from hub_repositories import Commit, File, Repo, card_metadata, check_card

TOKENS = {"hf_user": ("user", "write"), "hf_read": ("user", "read"), "hf_other": ("other", "write")}
LFS_SIZE = 10_000_000  # longer text is a large file too
LFS_EXTENSIONS = ("bin", "onnx", "pt", "pth", "npz", "parquet", "arrow", "safetensors", "wav", "flac", "ogg", "mp3")
GIT_ATTRIBUTES = "".join(f"*.{extension} filter=lfs diff=lfs merge=lfs -text\n" for extension in LFS_EXTENSIONS)


class HubServer:
    """See the head of this file.

    Args:
        home (`Path`): folder for the clients' caches, and their working directory.
    """

    def __init__(self, home: Path):
        self.home = home
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}  # the blob store, by SHA-256
        self.log = Log()

    def __enter__(self) -> "HubServer":
        self.home.mkdir(parents=True)
        self._servers = [LoopbackServer(self._answer, self.log), LoopbackServer(self._answer_of_blob_store, self.log)]
        self.endpoint, self.blob_store = (server.url for server in self._servers)
        return self

    def __exit__(self, *error) -> None:
        for server in self._servers:
            server.close()

    # What tests tell the server and ask it.

    def run(
        self, command: str | list, token: str | None = "hf_user", returncode: int = 0, **environment: str
    ) -> subprocess.CompletedProcess:
        """Run Python, a client of this Hub, in a child process.

        Args:
            command (`str` or `list`): code, or the arguments of `python`, as `["-m", "module", "--flag", "value"]`.
            token (`str`, *optional*): one of `TOKENS`, a bad one, or `None`.
            returncode (`int`): the expected one.
            environment (`str`): further variables of the child.

        Returns:
            `subprocess.CompletedProcess`: with `stdout` and `stderr` as text.

        Raises:
            AssertionError: with all that the child printed, if it ended with another return code.
        """
        arguments = ["-c", command] if isinstance(command, str) else [str(argument) for argument in command]
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
        }
        settings = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home / f"huggingface_of_{token}"),  # a cached file would need no permission
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "http_proxy": self.endpoint,
            "https_proxy": self.endpoint,
            "no_proxy": "127.0.0.1",
        }
        env = inherited | settings | ({"HF_TOKEN": token} if token else {}) | environment
        if arguments[0] in ("-c", "-m") and "PYTHONPATH" not in environment:
            done = forked_python.run(arguments, env, self.home)
        else:
            done = subprocess.run(
                [sys.executable, *arguments],
                env=env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
            )
        assert done.returncode == returncode, f"ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def fail(self, method: str, path: str = "", status: int = 503, times: int = 1) -> None:
        """Answer the next requests whose path contains the regular expression with an error, `Retry-After: 0`."""
        self.log.faults.append(Fault(method, path, times, status=status))

    def cut(self, method: str, path: str = "", after: int = 0, times: int = 1) -> None:
        """Cut the connection of the next such requests after so many bytes of the body, then of the answer's."""
        self.log.faults.append(Fault(method, path, times, after=after))

    def lose_answer(self, method: str, path: str = "", times: int = 1) -> None:
        """Do what the next such requests ask, but cut the connection before the answer."""
        self.log.faults.append(Fault(method, path, times, lost=True))

    def fall_silent(self, method: str, path: str = "", after: int = 0, times: int = 1, drip: float = 0.0) -> None:
        """Read so many bytes of the next such requests and then neither read nor answer; of an answer without an end send a
        byte every `drip` seconds, if that is not 0."""
        self.log.fall_silent(method, path, after, times, drip)

    @property
    def requests(self) -> list[Request]:
        """All requests, in the order in which they came."""
        return self.log.requests

    @property
    def unexpected(self) -> list[str]:
        """What clients asked for that is not here, and failures of this server."""
        return self.log.unexpected

    @property
    def bytes_received(self) -> Counter:
        """Bytes of uploads to the blob store, by SHA-256."""
        counts = Counter()
        for request in self.requests:
            if request.method == "PUT":
                counts[request.path[1:]] += len(request.body)
        return counts

    def files(self, repo_id: str, kind: str = "models", revision: str = "main") -> dict[str, bytes]:
        """Contents by path, without the Hub's own `.gitattributes`; `kind` is models, datasets or spaces."""
        files = self.repos[kind, repo_id].commit(revision).files
        return {path: file.content for path, file in files.items() if path != ".gitattributes"}

    def commits(self, repo_id: str, kind: str = "models", revision: str = "main") -> list[Commit]:
        """History of a branch, newest first; the last one is the Hub's own, with `.gitattributes`."""
        return list(self.repos[kind, repo_id].commit(revision).history())

    # The blob store.

    def _answer_of_blob_store(self, request: Request) -> Reply:
        sha256, verb = request.path[1:], "write" if request.method == "PUT" else "read"
        if "Authorization" in request.headers:
            raise HubError(400, "Only one auth mechanism allowed")
        if request.query.get("signature") != self._signature(sha256, verb):
            raise HubError(403, "SignatureDoesNotMatch")
        with self.log.lock:
            if verb == "read":
                return request.content(self.blobs[sha256], {"ETag": f'"{sha256}"'})
            if hashlib.sha256(request.body).hexdigest() != sha256:
                raise HubError(400, "XAmzContentSHA256Mismatch")
            self.blobs[sha256] = request.body
            return Reply()

    def _signature(self, sha256: str, verb: str) -> str:
        return hmac.new(b"the Hub's own", f"{verb} {sha256}".encode(), "sha256").hexdigest()

    def _link(self, sha256: str, verb: str) -> str:
        return f"{self.blob_store}/{sha256}?signature={self._signature(sha256, verb)}"

    # The API.

    def _answer(self, request: Request) -> Reply:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise HubError(401, "Invalid credentials in Authorization header")
        request.user, request.role = TOKENS.get(token, (None, None))
        for methods, pattern, route in ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and request.method in methods:
                named = {name: unquote(text) for name, text in match.groupdict().items() if text}
                with self.log.lock:
                    return route(self, request, **named)
        self.unexpected.append(f"{request.method} {request.path}")
        raise HubError(404, "Sorry, we can't find the page you are looking for.")

    def _repo(self, request: Request, kind: str, repo_id: str, write: bool = False) -> Repo:
        """The repository, if the request's user may read or write it; one that may not be seen does not exist."""
        repo = self.repos.get((kind, repo_id))
        own = request.user == repo_id.split("/")[0]
        if repo is None or (repo.private and not own):
            raise HubError(404 if request.user else 401, "Repository not found", "RepoNotFound")
        if write and request.user is None:
            raise HubError(401, "Invalid username or password.")
        if write and not (own and request.role == "write"):
            raise HubError(403, "Forbidden: you don't have the rights to write in this repository")
        return repo

    def _url(self, repo: Repo) -> str:
        return f"{self.endpoint}/{'' if repo.kind == 'models' else repo.kind + '/'}{repo.id}"

    def whoami(self, request: Request) -> Reply:
        if request.user is None:
            raise HubError(401, "Invalid username or password.")
        access = {"type": "access_token", "accessToken": {"displayName": "test", "role": request.role}}
        return Reply({"type": "user", "name": request.user, "fullname": request.user, "orgs": [], "auth": access})

    def create_repo(self, request: Request) -> Reply:
        if request.user is None:
            raise HubError(401, "Invalid username or password.")
        wanted = request.json()
        kind, owner = wanted.get("type", "model") + "s", wanted["organization"] or request.user
        if owner != request.user or request.role != "write":
            raise HubError(403, f'You don\'t have the rights to create a {kind[:-1]} under the namespace "{owner}"')
        repo_id = f"{owner}/{wanted['name']}"
        if known := self.repos.get((kind, repo_id)):
            return Reply({"error": f"You already created this {kind[:-1]} repo", "url": self._url(known)}, 409)
        first = Commit("initial commit", "", owner, {".gitattributes": File(GIT_ATTRIBUTES.encode())})
        repo = Repo(kind, repo_id, wanted.get("visibility") == "private", {"main": first})
        self.repos[kind, repo_id] = repo
        return Reply({"url": self._url(repo), "name": repo_id})

    def validate_yaml(self, request: Request) -> Reply:
        asked = request.json()
        errors, warnings = check_card(asked["content"], asked["repoType"])
        found = {
            "errors": [{"message": text} for text in errors],
            "warnings": [{"message": text} for text in warnings],
        }
        return Reply(found, 400 if errors else 200)

    def repo_info(self, request: Request, kind: str, repo_id: str, revision: str = "main") -> Reply:
        repo = self._repo(request, kind, repo_id)
        commit = repo.commit(revision)
        card = card_metadata(commit.files["README.md"].content.decode()) if "README.md" in commit.files else {}
        info = {
            "id": repo.id,
            "author": repo.id.split("/")[0],
            "sha": commit.sha,
            "private": repo.private,
            "lastModified": commit.date,
            "createdAt": list(commit.history())[-1].date,
            "cardData": card,
            "siblings": [{"rfilename": path} for path in commit.files],
        }
        return Reply(
            info | {name: card[name] for name in ("tags", "pipeline_tag", "library_name", "sdk") if name in card}
        )

    def refs(self, request: Request, kind: str, repo_id: str) -> Reply:
        heads = self._repo(request, kind, repo_id).branches.items()
        branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": head.sha} for name, head in heads]
        return Reply({"branches": branches, "tags": [], "converts": [], "pullRequests": []})

    def commit_list(self, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
        commits = [
            {"id": each.sha, "title": each.title, "message": each.message, "date": each.date}
            | {"authors": [{"user": each.author}]}
            for each in self._repo(request, kind, repo_id).commit(revision).history()
        ]
        return Reply(commits)

    def create_branch(self, request: Request, kind: str, repo_id: str, branch: str) -> Reply:
        repo = self._repo(request, kind, repo_id, write=True)
        if branch in repo.branches:
            raise HubError(409, f"Reference already exists: refs/heads/{branch}")
        repo.branches[branch] = repo.commit(request.json().get("startingPoint", "main"))
        return Reply({})

    def preupload(self, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
        present = self._repo(request, kind, repo_id, write=True).commit(revision).files
        patterns = [line.split()[0] for line in present[".gitattributes"].content.decode().splitlines()]
        answers = []
        for asked in request.json()["files"]:
            binary = b"\0" in base64.b64decode(asked["sample"])
            listed = any(fnmatch(asked["path"], pattern) for pattern in patterns)
            mode = "lfs" if binary or listed or asked["size"] > LFS_SIZE else "regular"
            file = present.get(asked["path"])
            oid = {"oid": file.sha256 if file.large else file.oid} if file else {}
            answers.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
        return Reply({"files": answers})

    def lfs_batch(self, request: Request, repo_id: str, kind: str = "models") -> Reply:
        repo = self._repo(request, kind, repo_id, write=True)
        objects = [self._lfs_object(repo, asked["oid"], asked["size"]) for asked in request.json()["objects"]]
        return Reply({"transfer": "basic", "objects": objects})

    def _lfs_object(self, repo: Repo, oid: str, size: int) -> dict:
        if oid in self.blobs:
            return {"oid": oid, "size": size}
        verify = {"href": f"{self._url(repo)}.git/info/lfs/objects/verify"}
        return {"oid": oid, "size": size, "actions": {"upload": {"href": self._link(oid, "write")}, "verify": verify}}

    def lfs_verify(self, request: Request, repo_id: str, kind: str = "models") -> Reply:
        self._repo(request, kind, repo_id, write=True)
        asked = request.json()
        if len(self.blobs.get(asked["oid"], b"")) != asked["size"]:
            raise HubError(404, "Object does not exist")
        return Reply({})

    def commit(self, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
        repo = self._repo(request, kind, repo_id, write=True)
        if revision not in repo.branches:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        parent = repo.branches[revision]
        header, *changes = (json.loads(line) for line in request.body.splitlines())
        if header["value"].get("parentCommit", parent.sha) != parent.sha:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for change in changes:
            self._apply(change["key"], change["value"], files)
        readme = files.get("README.md", File(b"")).content.decode()
        if readme and (errors := check_card(readme, kind[:-1])[0]):
            raise HubError(400, f"Invalid metadata in README.md: {errors}")
        new = Commit(header["value"]["summary"], header["value"]["description"], request.user, files, parent)
        repo.branches[revision] = new
        return Reply({"success": True, "commitOid": new.sha, "commitUrl": f"{self._url(repo)}/commit/{new.sha}"})

    def _apply(self, key: str, change: dict, files: dict[str, File]) -> None:
        path = change["path"]
        match key:
            case "file":
                files[path] = File(base64.b64decode(change["content"]))
            case "lfsFile":
                if change["oid"] not in self.blobs:
                    raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
                files[path] = File(self.blobs[change["oid"]], large=True)
            case "deletedFile":
                if files.pop(path, None) is None:
                    raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            case "deletedFolder":
                for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
                    del files[name]
            case _:
                raise HubError(400, f"Unknown key {key} in a commit")

    def tree(self, request: Request, kind: str, repo_id: str, revision: str, folder: str = "") -> Reply:
        commit = self._repo(request, kind, repo_id).commit(revision)
        paths = commit.below(folder)
        if folder and not paths:
            raise HubError(404, f'{folder} does not exist on "{revision}"', "EntryNotFound")
        if request.query["recursive"] == "false":
            paths = [path for path in paths if "/" not in path.removeprefix(folder + "/")]
        return Reply(commit.entries(paths, expand=request.query["expand"] == "true"))

    def paths_info(self, request: Request, kind: str, repo_id: str, revision: str) -> Reply:
        commit = self._repo(request, kind, repo_id).commit(revision)
        form = parse_qs(request.body.decode())
        known = commit.below("")
        paths = [path.rstrip("/") for path in form["paths"] if path.rstrip("/") in known]
        return Reply(commit.entries(paths, expand=form["expand"] == ["true"]))

    def resolve(self, request: Request, repo_id: str, revision: str, path: str, kind: str = "models") -> Reply:
        commit = self._repo(request, kind, repo_id).commit(revision)
        file = commit.files.get(path)
        if file is None:
            raise HubError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.sha)
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
        if not file.large:
            return request.content(file.content, headers)
        linked = {"X-Linked-Size": str(len(file.content)), "X-Linked-ETag": f'"{file.sha256}"'}
        return Reply(b"Found", 302, headers | linked | {"Location": self._link(file.sha256, "read")})

    def dataset_viewer(self, request: Request) -> Reply:
        raise HubError(404, "The dataset viewer has not seen this data set", "ResponseNotFound")


_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo_id>[^/]+/[^/]+)"
_REPO = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo_id>[^/]+/[^/]+?)"
_REVISION = r"(?P<revision>[^/]+)"
_READ = ("GET", "HEAD")
ROUTES = [  # methods, pattern of the percent-encoded path, what answers
    (_READ, r"/api/whoami-v2", HubServer.whoami),
    (("POST",), r"/api/repos/create", HubServer.create_repo),
    (("POST",), r"/api/validate-yaml", HubServer.validate_yaml),
    (_READ, rf"{_API}(?:/revision/{_REVISION})?", HubServer.repo_info),
    (_READ, rf"{_API}/refs", HubServer.refs),
    (_READ, rf"{_API}/commits/{_REVISION}", HubServer.commit_list),
    (_READ, rf"{_API}/tree/{_REVISION}(?:/(?P<folder>.+))?", HubServer.tree),
    (("POST",), rf"{_API}/paths-info/{_REVISION}", HubServer.paths_info),
    (("POST",), rf"{_API}/branch/(?P<branch>[^/]+)", HubServer.create_branch),
    (("POST",), rf"{_API}/preupload/{_REVISION}", HubServer.preupload),
    (("POST",), rf"{_API}/commit/{_REVISION}", HubServer.commit),
    (("POST",), rf"{_REPO}\.git/info/lfs/objects/batch", HubServer.lfs_batch),
    (("POST",), rf"{_REPO}\.git/info/lfs/objects/verify", HubServer.lfs_verify),
    (_READ, rf"{_REPO}/resolve/{_REVISION}/(?P<path>.+)", HubServer.resolve),
    (_READ, r"http://datasets-server\.127\.0\.0\.1:\d+/(?:info|parquet)", HubServer.dataset_viewer),
]
