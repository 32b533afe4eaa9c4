"""The loopback Hub behaves as huggingface_hub's unmodified client expects of the real one."""

import hashlib
import json
import os
import subprocess

import pytest
from hub_repositories import check_card

BIG = bytes(range(256)) * 1500  # 384,000 bytes
CARD = "---\nlicense: apache-2.0\npipeline_tag: audio-classification\n---\n# A model\n"


@pytest.fixture
def folder(tmp_path):
    """A folder to push: three small texts, a large file and a picture."""
    folder = tmp_path / "folder"
    (folder / "figures").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text("{}")
    (folder / "figures" / "curve of losses.txt").write_text("1 0.5 0.25")
    (folder / "figures" / "picture.png").write_bytes(b"\x89PNG\0" * 10)
    (folder / "model.safetensors").write_bytes(BIG)
    return folder


def push(folder, **given) -> str:
    """Code of a client that makes a repository and uploads the folder in one commit."""
    return f"""
import huggingface_hub
huggingface_hub.create_repo("user/name", exist_ok=True)
print(huggingface_hub.upload_folder(repo_id="user/name", folder_path={str(folder)!r}, **{given}).oid)
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_is_uploaded_is_what_is_listed_and_downloaded(hub, folder):
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    done = hub.run(
        push(folder)
        + """
import json, pathlib
api = huggingface_hub.HfApi()
snapshot = pathlib.Path(huggingface_hub.snapshot_download("user/name"))
with huggingface_hub.HfFileSystem().open("user/name/model.safetensors") as file:
    file.seek(1000)
    middle = file.read(7).hex()
tree = api.list_repo_tree("user/name", recursive=True, expand=True)
info = api.get_paths_info("user/name", ["figures", "model.safetensors", "missing"])
print(json.dumps({
    "files": {str(path.relative_to(snapshot)): path.stat().st_size for path in snapshot.rglob("*") if path.is_file()},
    "same": snapshot.joinpath("model.safetensors").read_bytes() == bytes(range(256)) * 1500,
    "cached_as": snapshot.joinpath("model.safetensors").resolve().name,
    "middle": middle,
    "listed": api.list_repo_files("user/name"),
    "last_changes": {entry.path: entry.last_commit.title for entry in tree},
    "oids": {entry.path: entry.blob_id for entry in info if hasattr(entry, "blob_id")},
    "sha256": info[1].lfs.sha256,
    "asked_paths": [entry.path for entry in info],
    "top": [entry.path for entry in api.list_repo_tree("user/name")],
    "task": api.model_info("user/name").pipeline_tag,
    "branches": {branch.name: branch.target_commit for branch in api.list_repo_refs("user/name").branches},
    "commits": [commit.title for commit in api.list_repo_commits("user/name")],
}))
"""
    )
    commit, report = done.stdout.splitlines()
    report = json.loads(report)
    assert sorted(report["listed"]) == sorted(report["files"]) == [".gitattributes", *names]
    assert report["same"]
    assert report["cached_as"] == sha256(BIG)
    assert report["middle"] == BIG[1000:1007].hex()
    assert report["sha256"] == sha256(BIG)
    assert report["asked_paths"] == ["figures", "model.safetensors"]
    assert report["top"] == [".gitattributes", "README.md", "config.json", "figures", "model.safetensors"]
    assert report["last_changes"][".gitattributes"] == "initial commit"
    assert report["last_changes"]["figures"] == "Upload folder using huggingface_hub"
    assert report["task"] == "audio-classification"
    assert report["branches"] == {"main": commit}
    assert report["commits"] == ["Upload folder using huggingface_hub", "initial commit"]

    assert hub.files("user/name") == {name: (folder / name).read_bytes() for name in names}
    ranged = [request for request in hub.requests if "Range" in request.headers]
    assert [request.status for request in ranged][-1] == 206


def test_hashes_are_git_s_and_what_is_binary_or_listed_is_large(hub, folder):
    (folder / "text.bin").write_text("listed in .gitattributes")
    hub.run(push(folder))
    files = hub.repos["models", "user/name"].commit("main").files
    for name, stored in {"config.json": b"{}", "model.safetensors": files["model.safetensors"].pointer}.items():
        done = subprocess.run(["git", "hash-object", "--stdin"], input=stored, capture_output=True, check=True)
        assert files[name].oid == done.stdout.decode().strip()
    assert f"oid sha256:{sha256(BIG)}\nsize {len(BIG)}\n" in files["model.safetensors"].pointer.decode()
    assert {name for name, file in files.items() if file.large} == {
        "model.safetensors", "figures/picture.png", "text.bin",
    }  # fmt: skip


def test_unchanged_files_and_known_objects_are_not_sent_again(hub, folder):
    first = hub.run(push(folder)).stdout
    assert hub.run(push(folder)).stdout == first  # nothing changed, no commit
    (folder / "config.json").write_text('{"changed": 1}')
    (folder / "copy.safetensors").write_bytes(BIG)
    hub.run(push(folder))
    assert hub.bytes_received[sha256(BIG)] == len(BIG)
    assert [commit.title for commit in hub.commits("user/name")].count("initial commit") == 1
    assert len(hub.commits("user/name")) == 3
    assert hub.files("user/name")["copy.safetensors"] == BIG


def test_an_upload_that_breaks_off_is_taken_up_by_the_client(hub, folder):
    hub.cut("PUT", sha256(BIG), after=1000)
    hub.run(push(folder))
    assert hub.bytes_received[sha256(BIG)] == 1000 + len(BIG)
    assert hub.files("user/name")["model.safetensors"] == BIG


def test_a_commit_that_breaks_off_has_no_effect_and_one_whose_answer_is_lost_is_there(hub, folder):
    hub.cut("POST", "/commit/", after=10)
    assert "RemoteProtocolError" in hub.run(push(folder), returncode=1).stderr
    assert len(hub.commits("user/name")) == 1
    hub.run(push(folder))
    assert hub.bytes_received[sha256(BIG)] == len(BIG)  # the second call sends the commit only

    (folder / "config.json").write_text('{"changed": 1}')
    hub.lose_answer("POST", "/commit/")
    assert "RemoteProtocolError" in hub.run(push(folder), returncode=1).stderr
    assert hub.files("user/name")["config.json"] == b'{"changed": 1}'


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub, folder):
    chunk = 10 * 1024**2  # the client keeps whole chunks
    content = bytes(chunk) + BIG
    (folder / "model.safetensors").write_bytes(content)
    hub.cut("GET", sha256(content), after=chunk + 1000)
    hub.fail("HEAD", "/resolve/", status=503)
    done = hub.run(
        push(folder)
        + """
import hashlib
file = huggingface_hub.hf_hub_download("user/name", "model.safetensors")
print(hashlib.sha256(open(file, "rb").read()).hexdigest())
"""
    )
    assert done.stdout.split()[1] == sha256(content)
    assert "peer closed connection" in done.stderr
    first, second = (
        request for request in hub.requests if request.method == "GET" and sha256(content) in request.path
    )
    assert first.headers["Range"] is None
    assert (second.headers["Range"], second.status) == (f"bytes={chunk}-", 206)


def test_busy_answers_are_retried(hub, folder):
    hub.fail("POST", "/preupload/", status=429)
    hub.fail("POST", "/objects/batch", status=500)
    hub.run(push(folder))
    statuses = [request.status for request in hub.requests if "/preupload/" in request.path or "batch" in request.path]
    assert statuses == [429, 200, 500, 200]


def test_each_token_reaches_what_is_its_own(hub):
    done = hub.run(
        """
import huggingface_hub, json
from huggingface_hub.errors import HfHubHTTPError

for name, private in {"user/private": True, "user/public": False}.items():
    huggingface_hub.create_repo(name, private=private)
    huggingface_hub.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=name)

def refusals(token):
    api = huggingface_hub.HfApi(token=token)
    cache = {"cache_dir": f"cache_of_{token}"}
    yield refusal(api.list_repo_files, "user/public")
    yield refusal(api.hf_hub_download, "user/private", "config.json", **cache)
    yield refusal(api.dataset_info, "user/private")
    yield refusal(api.upload_file, path_or_fileobj=b"1", path_in_repo="new.txt", repo_id="user/public")
    yield refusal(api.create_branch, "user/public", branch="new")
    yield refusal(api.create_repo, "user/another")

def refusal(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except HfHubHTTPError as error:
        return f"{type(error).__name__} {error.response.status_code}"

for token in ("hf_user", "hf_read", "hf_other", "hf_wrong", False):
    print(json.dumps(list(refusals(token))))
"""
    )
    invisible, forbidden, bad = "RepositoryNotFoundError 404", "HfHubHTTPError 403", "HfHubHTTPError 401"
    anonymous = "RepositoryNotFoundError 401"
    user, read, other, wrong, nobody = map(json.loads, done.stdout.splitlines())
    assert user == [None, None, invisible, None, None, None]
    assert read == [None, None, invisible, forbidden, forbidden, forbidden]
    assert other == [None, invisible, invisible, forbidden, forbidden, forbidden]
    assert wrong == [bad] * 6
    assert nobody == [None, anonymous, anonymous, bad, bad, bad]


def test_who_a_token_is_of_is_told_and_of_a_bad_one_it_is_not(hub):
    done = hub.run(
        """
from huggingface_hub import whoami
for token in ("hf_user", "hf_read", "hf_other"):
    print(whoami(token)["name"], whoami(token)["auth"]["accessToken"]["role"])
try:
    whoami("hf_wrong")
except Exception as error:
    print(error)
"""
    )
    assert done.stdout.splitlines() == ["user write", "user read", "other write", "Invalid user token."]


def test_revisions_parents_and_entries_that_are_not_there(hub, folder):
    done = hub.run(
        push(folder)
        + """
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
import json
api = huggingface_hub.HfApi()
api.create_branch("user/name", branch="try/1")
def commit(*operations, **options):
    return api.create_commit("user/name", operations, commit_message="change", **options)
def error_of(call, *args, **options):
    try:
        call(*args, **options)
    except Exception as error:
        return [type(error).__name__, error.response.status_code]
first = api.model_info("user/name").sha
commit(
    CommitOperationDelete("figures/"), CommitOperationDelete("config.json"),
    CommitOperationCopy("model.safetensors", "copy.safetensors"), CommitOperationAdd("figures", b"now a file"),
    revision="try/1", parent_commit=first,
)
print(json.dumps([
    error_of(commit, CommitOperationAdd("a", b"1"), revision="try/1", parent_commit=first),
    error_of(commit, CommitOperationAdd("a", b"1"), revision="nowhere"),
    error_of(commit, CommitOperationDelete("missing.txt")),
    error_of(api.create_branch, "user/name", branch="try/1"),
    error_of(api.create_repo, "user/name"),
    error_of(huggingface_hub.hf_hub_download, "user/name", "config.json", revision="try/1"),
    error_of(huggingface_hub.hf_hub_download, "user/name", "config.json", revision="nowhere"),
    sorted(api.list_repo_files("user/name", revision="try/1")),
    open(huggingface_hub.hf_hub_download("user/name", "config.json", revision=first)).read(),
]))
"""
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [
        ["HfHubHTTPError", 412],
        ["RevisionNotFoundError", 404],
        ["RemoteEntryNotFoundError", 404],
        ["HfHubHTTPError", 409],
        ["HfHubHTTPError", 409],
        ["RemoteEntryNotFoundError", 404],
        ["RevisionNotFoundError", 404],
        [".gitattributes", "README.md", "copy.safetensors", "figures", "model.safetensors"],
        "{}",
    ]
    assert "config.json" in hub.files("user/name")


def test_a_card_with_wrong_metadata_is_refused_before_anything_is_sent(hub, folder):
    (folder / "README.md").write_text("---\nbase_model: ./runs/mine\n---\n")
    error = hub.run(push(folder), returncode=1).stderr
    assert 'Invalid metadata in README.md.\n- "base_model" with value "./runs/mine" is not valid' in error
    assert not hub.bytes_received


@pytest.mark.parametrize(
    ("metadata", "repo_type", "words"),
    [
        ("license: [", "model", "YAML: while parsing"),
        ("- a\n- b", "model", "must be a mapping"),
        ("license: 3", "model", '"license" must be a string'),
        ("datasets: [user/a, b/c/d]", "model", '"datasets" with value "b/c/d" is not valid'),
        ("model-index:\n- results: []", "model", "needs a name and a task type"),
        ("model-index:\n- {name: a, results: [{task: {}, metrics: []}]}", "model", "needs a name and a task type"),
        ("model-index:\n- {name: a, results: [{task: {type: b}, metrics: [{type: c}]}]}", "model", "type and value"),
        ("title: A page", "space", '"sdk" must be one of'),
    ],
)
def test_each_field_in_which_the_hub_is_strict_is_checked(metadata, repo_type, words):
    (error,), warnings = check_card(f"---\n{metadata}\n---\n# A title\n", repo_type)
    assert words in error
    assert not warnings


def test_good_metadata_has_no_error_and_none_at_all_is_a_warning():
    assert check_card(CARD, "model") == ([], [])
    assert check_card("---\nsdk: gradio\n---\n", "space") == ([], [])
    assert check_card("# A title\n", "model") == ([], ["empty or missing yaml metadata in repo card"])


def test_an_object_that_is_not_what_its_name_says_is_refused(hub, folder):
    done = hub.run(
        push(folder).replace(
            "import",
            """
import huggingface_hub.lfs
huggingface_hub.lfs.sha_fileobj = lambda file: bytes(32)
import""",
            1,
        ),
        returncode=1,
    )
    assert "400 Bad Request" in done.stderr
    assert not hub.blobs


def test_the_blob_store_wants_a_signature_and_no_token(hub, folder):
    hub.run(push(folder))
    done = hub.run(
        f"""
import huggingface_hub
from huggingface_hub.utils import get_session
link = {hub._link(sha256(BIG), "read")!r}
print(get_session().get(link).status_code, get_session().get(link.split("?")[0]).status_code)
print(get_session().get(link, headers={{"Authorization": "Bearer hf_user"}}).status_code)
print(get_session().get(link, headers={{"Range": "bytes=999999-"}}).status_code, get_session().put(link).status_code)
"""
    )
    assert done.stdout.split() == ["200", "403", "400", "416", "403"]


def test_what_the_server_does_not_know_is_reported_and_nothing_leaves_the_machine(hub):
    hub.run(
        """
import contextlib
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session
for url in ("http://example.org/page", "https://example.org/page"):
    with contextlib.suppress(Exception):
        get_session().get(url)
with contextlib.suppress(Exception):
    list(HfApi().list_models())
"""
    )
    assert hub.unexpected == ["GET http://example.org/page", "CONNECT example.org:443", "GET /api/models"]
    hub.unexpected.clear()


def test_the_child_has_neither_the_tokens_nor_the_settings_of_this_process(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    done = hub.run("import os, huggingface_hub; print(huggingface_hub.get_token(), *sorted(os.environ))", token=None)
    assert done.stdout.split()[0] == "None"
    assert not {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} & set(done.stdout.split())
    assert "HF_HUB_OFFLINE" in os.environ
