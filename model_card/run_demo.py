"""`ast-demo CHECKPOINT_DIR`: a page in the browser to try a model, served from this machine.

It listens on 127.0.0.1 unless told otherwise. What is sent to it lies in a temporary folder of its own, which is removed
when the program ends.
"""

import argparse
import errno
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modeling_ast.audio_flags import add_channels_flag
from modeling_ast.system import atomic_files
from modeling_ast.system.flags import FlagParser
from modeling_ast.system.installation import install_command
from modeling_ast.system.interruption import raise_if_interrupted
from modeling_ast.system.terminal import ended_by, shell_command

EPILOG = """\
Example: ast-demo runs/drums --port 8000. Ctrl-C ends it. --host 0.0.0.0 lets others in the network use the page, without a
password. What web pages elsewhere send is refused. One recording is computed at a time and takes up to 1.2 MB of memory for
each second of --max_minutes (0.7 GB for 10 minutes), beside the model and what it computes with (0.5 GB for AST's 86 million
parameters); what is sent takes up to 100 times --max_megabytes in
the temporary folder and is removed an hour later, or when the program ends."""
HOSTS = "Pass --host 127.0.0.1 for this machine alone, or --host 0.0.0.0 for the network."


@shell_command("ast-demo", after_interruption=None)
def main(argv: list[str] | None = None) -> int:
    """Serve the page until the program is ended.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `int`: 0 when it was ended; 2 if it could not begin with what was given, 1 if it failed, both of which are said on
        the error stream.
    """
    arguments = parse_arguments(argv)
    try:
        with listen(arguments.host, arguments.port) as listener, page_folder():
            server = make_server(*make_page(arguments), make_guard(arguments))
            raise_if_interrupted()  # libraries that are being imported may have caught it
            print(f"{arguments.checkpoint_dir}: {address_of(listener)} (Ctrl-C ends it)", flush=True)
            serve(server, listener)
    except (OSError, ValueError) as error:
        raise_if_interrupted()  # of which a library made this error
        return ended_by("ast-demo", error, str(error))
    return 0


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; importing nothing but the standard library.

    Args:
        argv (`list[str]`, *optional*): arguments after the program's name, by default those of the process.

    Returns:
        `argparse.Namespace` with `checkpoint_dir` (`Path`), `host` (`str`), `port` (`int`), `max_megabytes` and
        `max_minutes` (`float`), `allowed_host` (`list[str]`), and `channels`.
    """
    parser = FlagParser(
        prog="ast-demo",
        description="Open a page to try a fine-tuned model: drop or record audio, see labels and what the model attends to.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "checkpoint_dir", type=Path, metavar="CHECKPOINT_DIR", help="folder of a fine-tuned model, or ast-small"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=7860, help="port, or 0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--max_megabytes", type=_positive, default=50, help="largest file that is taken (default: %(default)s)"
    )
    parser.add_argument(
        "--max_minutes", type=_positive, default=10, help="longest recording that is taken (default: %(default)s)"
    )
    parser.add_argument(
        "--allowed_host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which a proxy or a name server shows the page, beside --host and this machine's own; may be given "
        "several times",
    )
    add_channels_flag(parser)
    return parser.parse_args(argv)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port. Pass a number from 0 to 65535, for example 7860")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def listen(host: str, port: int) -> socket.socket:
    """Take the address, before anything slow is done.

    Args:
        host (`str`): name or address of this machine.
        port (`int`): port; 0 for any free one.

    Returns:
        A socket that listens.

    Raises:
        OSError: if it cannot be had; the message says what to pass instead.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"--host {host} is no address ({error}). {HOSTS}") from None
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        advice = "Pass another --port, or --port 0 for any free one."
        if error.errno == errno.EADDRNOTAVAIL:
            advice = f"That address is not this machine's. {HOSTS}"
        raise OSError(f"Cannot listen on port {port} of {host}: {os.strerror(error.errno)}. {advice}") from None


def address_of(listener: socket.socket) -> str:
    """Tell what to type in a browser on this machine.

    Args:
        listener (`socket.socket`): from [`listen`].

    Returns:
        The address.
    """
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # these mean all addresses and are none
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def page_folder() -> Iterator[Path]:
    """A folder where everything writes its temporary files, Gradio among others; before Gradio is imported.

    Yields:
        The folder, which is removed afterwards.
    """
    import matplotlib  # noqa: F401  the folder that it may make for itself has to outlive the one made here

    before, gradio_before = tempfile.tempdir, os.environ.get("GRADIO_TEMP_DIR")
    with atomic_files.temporary_folder("ast-demo") as folder:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = before
            os.environ.pop("GRADIO_TEMP_DIR")
            if gradio_before is not None:
                os.environ["GRADIO_TEMP_DIR"] = gradio_before


def make_page(arguments: argparse.Namespace):
    """Load the model and build the page.

    Args:
        arguments (`argparse.Namespace`): from [`parse_arguments`].

    Returns:
        The page, a `gradio.Blocks`, and the options it is served with.

    Raises:
        ValueError: if the folder holds no model that can be used, or Gradio is not installed.
    """
    from modeling_ast.checkpoints.folder import check_checkpoint_dir
    from modeling_ast.checkpoints.shipped import folder_of
    from modeling_ast.loading import check_model_name
    from modeling_ast.tagging.tagger import AudioTagger

    folder = Path(folder_of(str(arguments.checkpoint_dir)))
    check_checkpoint_dir(folder)
    check_model_name(folder)  # before Gradio and torch are imported, which takes seconds
    try:
        from .demo_page import build_page, launch_options
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ValueError(
            f"The page is built with Gradio, which is not installed. Type: {install_command('demo')}"
        ) from None

    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading
    card = read_card(folder)
    tagger = AudioTagger.from_pretrained(folder, channels=arguments.channels)
    data = f" trained on {card.eval_results[0].dataset_name}" if card.eval_results else ""
    page = build_page(
        tagger.model,
        tagger.feature_extractor,
        name=folder.resolve().name,
        description=f"Audio Spectrogram Transformer{data}: {tagger.model.config.num_labels} labels.",
        license=card.license,
        known_clips=tagger.known_clips,
        max_megabytes=arguments.max_megabytes,
        max_minutes=arguments.max_minutes,
    )
    return page, launch_options(arguments.max_megabytes)


def read_card(folder: Path):
    """Read the metadata of a checkpoint's card.

    Args:
        folder (`Path`): the checkpoint; its `README.md` is read if it is there.

    Returns:
        `huggingface_hub.ModelCardData`, empty without a card.

    Raises:
        ValueError: if they cannot be read.
    """
    import yaml
    from huggingface_hub import ModelCard, ModelCardData

    from .yaml_files import check_front_matter

    path = folder / "README.md"
    try:
        if path.is_file():
            check_front_matter(path.read_text(encoding="utf-8"), path.name)
        return ModelCard(path.read_text(encoding="utf-8")).data if path.is_file() else ModelCardData()
    except (ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"The metadata at the top of {path} cannot be read: {reason}. Repair them, or type: ast-model-card {folder}"
        ) from error


def make_guard(arguments: argparse.Namespace):
    """Make what lets in only what the page itself sends, under the names that it is served at.

    Args:
        arguments (`argparse.Namespace`): from [`parse_arguments`].

    Returns:
        `starlette.middleware.Middleware`.
    """
    from .demo_page import MOST_WAITING
    from .page_guard import guarded, keep_few_heaps

    keep_few_heaps()
    names = served_names(arguments.host)
    return guarded(arguments.max_megabytes, MOST_WAITING, names, arguments.allowed_host)


def served_names(host: str) -> set[str]:
    """Name all names under which the page is reached without a proxy.

    Args:
        host (`str`): that it listens on; of 0.0.0.0 and :: also the name that this machine has in its network.

    Returns:
        Host names and addresses.
    """
    own = socket.gethostname()
    return {"localhost", host, *((own, f"{own}.local") if host in ("0.0.0.0", "::") else ())}


def make_server(page, options: dict, guard):
    """Make what serves the page.

    Args:
        page (`gradio.Blocks`): from [`make_page`].
        options (`dict`): from [`make_page`].
        guard (`starlette.middleware.Middleware`): from [`make_guard`].

    Returns:
        `uvicorn.Server`.
    """
    import gradio
    import uvicorn
    from fastapi import FastAPI

    app = gradio.mount_gradio_app(FastAPI(openapi_url=None, middleware=[guard]), page, path="/", **options)
    # `launch` sets it, mounting does not; without it a request may name any file of this machine as its recording.
    page.has_launched = True
    # Gradio keeps a connection open to each page that is shown; they are not waited for.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    config.load()  # imports what serves, before the signals are the server's
    return uvicorn.Server(config)


def serve(server, listener: socket.socket):
    """Serve until the program is told to end.

    Args:
        server (`uvicorn.Server`): from [`make_server`], which takes Ctrl-C and SIGTERM itself, and gives them back at its end.
        listener (`socket.socket`): from [`listen`].
    """
    # Windows has no SIGHUP, and by `nohup` it is ignored.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, server.handle_exit)
    server.run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
