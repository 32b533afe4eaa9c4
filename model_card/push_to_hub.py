"""Publishes a checkpoint folder on the Hugging Face Hub: what belongs to it, in one commit, after it was checked.

The upload is that of `huggingface_hub`; here files are chosen, errors are said in words, and what the client does once
only, as the request for the commit itself, is tried again when a connection fails, not where a server is silent. What has
arrived is not sent again: the Hub keeps files by their content.
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import yaml
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    SpaceInfo,
    constants,
    get_token,
    is_offline_mode,
    metadata_load,
    whoami,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from tqdm import tqdm

from modeling_ast.checkpoints.fields import CONFIG, read_settings
from modeling_ast.loading import has_frame_head
from modeling_ast.system.atomic_files import temporary_folder
from modeling_ast.system.hub_answers import HubSilentError, hub_answers, interruptibly
from modeling_ast.system.surroundings import OFFLINE, offline_variable
from modeling_ast.system.terminal import FAILED

from .checkpoint_checks import check_checkpoint, files_to_publish, has_classifier
from .file_names import (
    ADAPTER_FILES,
    CARD_NAME,
    KNOWN_CLIPS_NAME,
    PICTURES,
    RECIPE_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    WEIGHTS_PART,
)
from .licenses import NOTICE_NAME, is_notice
from .published_names import names_in_words, read_recipe, without_names
from .render import is_rendered, render_model_card
from .run_summary import FIELDS_OF_LABELS, RUN_SUMMARY_NAME, is_place, shown_name
from .space import PACKAGE, write_space, write_static_card

MODEL, SPACE = constants.REPO_TYPE_MODEL, constants.REPO_TYPE_SPACE
PAUSES = (1.0, 2.0)  # seconds before a step is tried a second and a third time
TEMPORARY_STATUS = (408, 429, 500, 502, 503, 504)
_COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
_NO_BRANCH = re.compile(
    r"[\s~^:?*\[\\\x00-\x1f]|\.\.|@\{|//|^[-/.]|^@$|^refs/|/\.|[/.]$|\.lock(/|$)"
)  # git-check-ref-format
_QUOTED_BY_OLDER_VERSIONS = re.compile(r"; it begins with b.*?(?=\. A web page or a Git LFS pointer saved under)")
_OWN_FILES = {
    WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    RUN_SUMMARY_NAME,
    RECIPE_NAME,
    *PICTURES,
    KNOWN_CLIPS_NAME,
    *ADAPTER_FILES,
}
_Result = TypeVar("_Result")


class PushError(ValueError):
    """Something cannot be published; the message says why, and what to type.

    Args:
        message (`str`): in words.
        exit_code (`int`, *optional*): of a command that ends by it, if that is not what it was given.
    """

    def __init__(self, message: str, exit_code: int | None = None):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub that is written to.

    Args:
        id (`str`): `user/name`.
        kind (`str`): `"model"` or `"space"`.
        private (`bool`, *optional*): whether it is to be private; as it is, or as the Hub makes new ones, if not given.
        branch (`str`): where the commit goes, made if it is not there.
        token (`str`, *optional*): with write permission; the one that `hf auth login` or `HF_TOKEN` gives if not given.
    """

    id: str
    kind: str = MODEL
    private: bool | None = None
    branch: str = constants.DEFAULT_REVISION
    token: str | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Of its page."""
        return f"{constants.ENDPOINT}/{'spaces/' if self.kind == SPACE else ''}{self.id}"


def push_to_hub(
    checkpoint_dir: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    dry_run: bool = False,
    space: bool | str | None = False,
    runtime_package: str | os.PathLike | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    hide_names: bool = False,
    report: Callable[[str], None] = print,
) -> CommitInfo | None:
    """Publish a checkpoint folder in one commit, or say what would be published.

    A folder that is there already as it is makes no commit. Of an older push nothing of this kit's own is left that the
    folder no longer has; other files in the repository stay. The card, unless somebody edited it, is published with the
    repository's id in its snippets, the recipe with the names only of what lies at absolute paths.

    Args:
        checkpoint_dir (`str` or `os.PathLike`): see [`files_to_publish`] for what of it is published.
        repo_id (`str`): `user/name`; the repository is made if it is not there.
        private (`bool`, *optional*): whether a new repository is private. One that is there has to be as asked for.
        revision (`str`, *optional*): branch, by default `main`; made from `main` if it is not there.
        dry_run (`bool`, defaults to `False`): only check and list; no request is made and no token needed.
        space (`bool` or `str`, defaults to `False`): then publish a page of the model too, as a Space of the same id: `"gradio"`
            or `True` for the demo page, `"static"` for one that computes in the browser, see [`export_page`].
        runtime_package (`str` or `os.PathLike`, *optional*): for a static page, see [`export_page`].
        token (`str`, *optional*): with write permission, by default that of `hf auth login` or `HF_TOKEN`.
        commit_message (`str`, *optional*): title of the commit.
        hide_names (`bool`, defaults to `False`): publish no names of files and folders of this machine; see
            [`without_names`].
        report (`Callable`): takes lines for the user.

    Returns:
        `huggingface_hub.CommitInfo` of the commit, of the last one if nothing was to be done; `None` after a dry run.

    Raises:
        FileNotFoundError: if the folder or a file in it is missing.
        ValueError: if the folder should not be published as it is; see [`check_checkpoint`].
        PushError: if the names are no good, there is no token or none with the rights, or the Hub cannot be reached or
            refuses. There is the whole commit then or none of it, and the same call goes on with what has arrived.
    """
    folder = Path(checkpoint_dir)
    check_names(repo_id, revision)
    repository = Repository(repo_id, MODEL, private, revision or constants.DEFAULT_REVISION, token)
    files = files_to_publish(folder)
    space = "gradio" if space is True else space
    if space == "gradio" and has_frame_head(read_settings(folder / CONFIG)):
        raise ValueError(
            f"{folder} has a frame head, and the demo page shows labels of clips. Pass --space static, or leave it out."
        )
    if space and not has_classifier(folder):
        raise ValueError(
            f"{folder} has no trained classifier, so that the labels of a demo page would be random. Fine-tune it first (ast-finetune) "
            "and push that, or leave out --space."
        )
    if not dry_run:
        check_access(repository)
        if space:
            check_access(Repository(repo_id, SPACE, private, token=token))
    notes = check_checkpoint(folder)
    report(f"{folder} -> {repository.address}, branch {repository.branch}")
    message = commit_message or f"Upload {repo_id.split('/')[1] if hide_names else folder.resolve().name}"
    if dry_run:
        for line in _plan(repository, message):
            report(line)
    with temporary_folder("ast-push") as written:
        if is_rendered(folder):
            files[CARD_NAME] = written / CARD_NAME
            files[CARD_NAME].write_text(render_model_card(folder, repo_id), encoding="utf-8")
        named = names_in_words(files)
        if hide_names:
            named = [] if is_rendered(folder) else [f"{CARD_NAME} is published as it is, with what names it has."]
            files = without_names(files, folder, written, repo_id, is_rendered(folder))
        if RUN_SUMMARY_NAME in files:
            files[RUN_SUMMARY_NAME] = _without_content(files[RUN_SUMMARY_NAME], written)
        if RECIPE_NAME in files:
            files[RECIPE_NAME] = _without_places(files[RECIPE_NAME], written)
        _list_files(files, report)
        for line in named:
            report(line)
        for note in notes:
            report(f"Note: {note}")
        page = {}
        if space == "static":
            name = repo_id.split("/")[1]
            page = _write_static_page(
                written / "space", repository, folder, name, runtime_package, not hide_names, report
            )
        elif space:
            page = _write_page(written / "space", repository, folder)
        commit = None if dry_run else _publish(repository, files, _is_own, message, report)
        if space:
            _publish_page(repository, page, space, dry_run, message, report)
    if dry_run:
        report("Nothing was sent. Leave out --dry_run to publish it.")
    return commit


def _plan(repository: Repository, message: str) -> list[str]:
    """What a push would do beside sending files, in words that need no request: who could see it, branch and commit."""
    seen_by = {
        None: "as public or private as the Hub makes your new ones (--private makes it private); one that is there stays as "
        "it is",
        True: "private, if it is not there yet; one that is there is not changed and has to be private already",
        False: "public, if it is not there yet; one that is there is not changed and has to be public already",
    }
    lines = [f"Repository: {seen_by[repository.private]}"]
    if repository.branch != constants.DEFAULT_REVISION:
        lines.append(f"Branch: {repository.branch}, made from {constants.DEFAULT_REVISION} if it is not there yet")
    return [*lines, f"Commit: {message!r}; files of an older push that this folder no longer has are removed"]


def _without_content(summary: Path, folder: Path) -> Path:
    """The run summary, or if an older version quoted files that are no audio in it a copy in `folder` that does not."""
    text = summary.read_text(encoding="utf-8")
    shown = _QUOTED_BY_OLDER_VERSIONS.sub("", text)
    if shown == text:
        return summary
    copy = folder / summary.name
    copy.write_text(shown, encoding="utf-8")
    return copy


def _without_places(recipe: Path, folder: Path) -> Path:
    """The recipe, or if it says where something lies on this machine a copy in `folder` that has only the names."""
    fields = read_recipe(recipe)
    if fields is None:
        return recipe
    shown = {name: value if name in FIELDS_OF_LABELS else _without_place(value) for name, value in fields.items()}
    if shown == fields:
        return recipe
    lines = recipe.read_text(encoding="utf-8").splitlines(keepends=True)
    comments = "".join(line for line in lines if line.startswith("#"))
    copy = folder / recipe.name
    copy.write_text(comments + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return copy


def _without_place(value):
    if isinstance(value, dict):
        return {name: _without_place(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_place(item) for item in value]
    return shown_name(value) if isinstance(value, str) and is_place(value) else value


def _write_page(space_dir: Path, model: Repository, folder: Path) -> dict[str, Path]:
    """Write the demo page of a model; path in the Space's repository to the file."""
    license = metadata_load(folder / CARD_NAME).get("license")
    revision = None if model.branch == constants.DEFAULT_REVISION else model.branch
    paths = write_space(space_dir, model.id, license=license, revision=revision)
    return {path.relative_to(space_dir).as_posix(): path for path in paths}


def _write_static_page(
    space_dir: Path,
    model: Repository,
    folder: Path,
    title: str,
    runtime_package: str | os.PathLike | None,
    with_figures: bool,
    report: Callable[[str], None],
) -> dict[str, Path]:
    """Write the page of a model that needs no server; path in the Space's repository to the file."""
    from modeling_ast.checkpoint_export import ExportSettings
    from modeling_ast.page.writing import export_page

    space_dir.mkdir()
    _, notes = export_page(folder, space_dir, title, runtime_package, ExportSettings(with_figures=with_figures))
    for note in notes:
        report(f"Note: {note}")
    write_static_card(space_dir, model.id, metadata_load(folder / CARD_NAME).get("license"))
    return {path.relative_to(space_dir).as_posix(): path for path in sorted(space_dir.rglob("*")) if path.is_file()}


def _publish_page(
    model: Repository,
    files: Mapping[str, Path],
    space: str,
    dry_run: bool,
    message: str,
    report: Callable[[str], None],
):
    private = model.private
    if private is None and not dry_run:  # a public page could not load a private model
        private = _patiently(lambda: _info(model), model).private or None
    repository = Repository(model.id, SPACE, private, token=model.token)
    report(f"Demo page -> {repository.address}")
    if dry_run:
        seen_by = "as its model" if private is None else "private" if private else "public"
        report(
            f"Space: {seen_by}, if it is not there yet, on the branch {repository.branch}; same title of the commit"
        )
    _list_files(files, report)
    if not dry_run:
        _publish(repository, files, lambda path: path.startswith((f"{PACKAGE}/", "runtime/")), message, report, space)


def check_names(repo_id: str, revision: str | None):
    """Check the id of a repository with its owner, and the name of a branch, without a network.

    Args:
        repo_id (`str`): such as `user/name`.
        revision (`str`, *optional*): a branch.

    Raises:
        PushError: for what can be none.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(f"{error} Pass --repo_id user/name.") from error
    if "/" not in repo_id:
        raise PushError(
            f"repo_id={repo_id!r} names no owner. Pass --repo_id user/{repo_id}, with your name on the Hub."
        )
    if revision is None:
        return
    if _COMMIT_HASH.fullmatch(revision):
        raise PushError(
            f"revision={revision!r} is a commit, to which nothing can be added. Pass a branch: --revision main."
        )
    if not revision or _NO_BRANCH.search(revision):
        raise PushError(
            f"revision={revision!r} cannot be the name of a branch. Pass for example --revision experiment-2."
        )


def check_access(repository: Repository):
    """Find out, before anything is sent, whether it could be written to a repository.

    Args:
        repository ([`Repository`]): which one; it need not be there.

    Raises:
        PushError: if there is no network or no token, the token may not write there, or the repository is public where a
            private one is asked for, or the other way round.
    """
    account = _account(repository)
    name, owner = account.get("name"), repository.id.split("/")[0]
    access = account.get("auth", {}).get("accessToken", {})
    if access.get("role") == "read":
        raise PushError(f"The token of {name} has read permission only. {_how_to_log_in()}")
    owners = [name, *(organization["name"] for organization in account.get("orgs", []))]
    if account.get("type") == "user" and owner.lower() not in [str(known).lower() for known in owners]:
        raise PushError(
            f"The token is {name}'s, who has no part in {owner}. Pass --repo_id {name}/{repository.id.split('/')[1]}, or log in "
            f"as a member of {owner}."
        )
    info = _patiently(lambda: _info(repository), repository)
    if info is not None and repository.private is not None and info.private != repository.private:
        is_, asked = ("private", "public") if info.private else ("public", "private")
        raise PushError(
            f"{repository.address} is there already and is {is_}, and a {asked} one was asked for; a push does not change that. "
            f"Change it at {repository.address}/settings, or leave out {'--private' if asked == 'private' else 'private=False'}."
        )


def with_owner(name: str, token: str | None = None) -> str:
    """Complete the id of a repository by the token's owner, if its name has no owner yet.

    Args:
        name (`str`): `name` or `user/name`.
        token (`str`, *optional*): see [`Repository`].

    Returns:
        The id, such as `user/name`.

    Raises:
        PushError: if there is no network or no valid token.
    """
    return name if "/" in name else f"{_account(Repository(name, token=token))['name']}/{name}"


def _account(repository: Repository) -> dict:
    """Who the token is of."""
    if is_offline_mode():
        raise PushError(
            f"{offline_variable()} is set and forbids every connection. Type unset {' '.join(OFFLINE)} and try again."
        )
    token = repository.token or get_token()
    if not token:
        raise PushError(f"There is no token for {constants.ENDPOINT}. {_how_to_log_in()}")
    if not re.fullmatch(r"[!-~]+", token):  # the client would quote it in its own error
        raise PushError(f"The token holds a space, line break or sign that no token has. {_how_to_log_in()}")
    return _patiently(lambda: whoami(token, cache=True), repository)


def _how_to_log_in() -> str:
    return (
        f"Make one with write permission at {constants.ENDPOINT}/settings/tokens, then type hf auth login, or set HF_TOKEN to "
        "it."
    )


def _info(repository: Repository) -> ModelInfo | SpaceInfo | None:
    """What the Hub tells of a repository, `None` if it is not there."""
    try:
        return HfApi().repo_info(repository.id, repo_type=repository.kind, token=repository.token)
    except RepositoryNotFoundError:
        return None


def _list_files(files: Mapping[str, Path], report: Callable[[str], None]):
    sizes = {name: path.stat().st_size for name, path in files.items()}
    width = max(map(len, sizes))
    for name, size in sizes.items():
        report(f"  {name:{width}}  {tqdm.format_sizeof(size, 'B'):>7}")
    report(f"{len(sizes)} files, {tqdm.format_sizeof(sum(sizes.values()), 'B')} ({sum(sizes.values()):,} bytes)")


def _is_own(path: str) -> bool:
    """Whether a file in a model's repository can only be from an older push; a user may have put others there."""
    return path in _OWN_FILES or WEIGHTS_PART.fullmatch(path) is not None


def _publish(
    repository: Repository,
    files: Mapping[str, Path],
    is_own: Callable[[str], bool],
    message: str,
    report: Callable[[str], None],
    sdk: str | None = None,
) -> CommitInfo:
    """Make the repository as it should be: the files as they are here, what else is its own removed."""
    api = HfApi(token=repository.token)
    where = {"repo_id": repository.id, "repo_type": repository.kind}
    before = None  # the last commit of somebody else

    def commit() -> tuple[CommitInfo, list[str]]:
        nonlocal before
        if _info(repository) is None:
            api.create_repo(**where, private=repository.private, space_sdk=sdk, exist_ok=True)
        if repository.branch != constants.DEFAULT_REVISION:
            api.create_branch(**where, branch=repository.branch, exist_ok=True)
        there = api.repo_info(**where, revision=repository.branch)
        before = before or there.sha
        names = [sibling.rfilename for sibling in there.siblings]
        gone = [name for name in names if is_own(name) and name not in files]
        if repository.kind == MODEL and NOTICE_NAME in names and NOTICE_NAME not in files:
            # What the weights of an older push derive from is not true of these.
            with temporary_folder("ast-push") as folder:
                notice = api.hf_hub_download(**where, filename=NOTICE_NAME, revision=there.sha, local_dir=folder)
                gone += [NOTICE_NAME] if is_notice(Path(notice).read_text(encoding="utf-8", errors="replace")) else []
        operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
        operations += [CommitOperationDelete(name) for name in gone]
        done = api.create_commit(**where, operations=operations, commit_message=message, revision=repository.branch)
        return done, gone

    done, gone = _patiently(commit, repository, report)
    if gone:
        report(f"Removed there: {', '.join(gone)}")
    report(f"Nothing has changed since {done.commit_url}" if done.oid == before else f"Published: {done.commit_url}")
    return done


def _patiently(
    step: Callable[[], _Result], repository: Repository, report: Callable[[str], None] = lambda line: None
) -> _Result:
    """Take a step of which nothing is left undone or done twice when it is tried again.

    Raises:
        PushError: if the Hub refuses it, or could not be reached each time.
    """
    pauses = iter(PAUSES)
    while True:
        try:
            with hub_answers():
                return interruptibly(step)
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            # The client says of which file it is, and in the cause what happened.
            cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
            words = _in_words(cause, repository)
            if words is None:
                raise
            temporary = _is_temporary(cause)
            pause = next(pauses, None) if temporary and not isinstance(cause, HubSilentError) else None
            if pause is None:
                way_on = " Try again later: what has arrived is not sent again." if temporary else ""
                raise PushError(f"{words}{way_on}", FAILED if temporary else None) from error
            report(f"{words} Trying again in {pause:g} s.")
            time.sleep(pause)


def _is_temporary(error: BaseException) -> bool:
    """Whether the same request may be answered otherwise the next time."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TEMPORARY_STATUS
    # The last but one is a gateway's page where JSON was expected, the last what the client for Xet storage raises.
    return isinstance(error, (HTTPError, ConnectionError, TimeoutError, JSONDecodeError, RuntimeError))


def _in_words(error: BaseException, repository: Repository) -> str | None:
    """What went wrong between here and the Hub; `None` if it is something else."""
    host = urlsplit(constants.ENDPOINT).netloc
    if isinstance(error, HfHubHTTPError):
        return _refusal_in_words(error, repository)
    if isinstance(error, HubSilentError):
        return str(error)
    if _is_temporary(error):
        said = " ".join(str(error).split()) or type(error).__name__
        return f"The connection to {host} failed ({said})."
    if type(error) is ValueError:  # of the client itself, which asked the Hub about the card, or for an upload
        return f"{host} refuses it: {' '.join(str(error).split())}"
    return None


def _refusal_in_words(error: HfHubHTTPError, repository: Repository) -> str:
    status = error.response.status_code
    said = f": {error.server_message}" if error.server_message else ""
    if status == 401:
        return f"{constants.ENDPOINT} does not accept the token (HTTP 401{said}). {_how_to_log_in()}"
    if status == 402:
        return f"{repository.address} needs a paid plan (HTTP 402{said})."
    if status == 403:
        return f"The token may not write to {repository.address} (HTTP 403{said}). {_how_to_log_in()}"
    return f"{constants.ENDPOINT} does not take {repository.id} (HTTP {status}{said})."
