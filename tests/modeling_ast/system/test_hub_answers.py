"""A server on loopback that is silent, drips or is slow, and what is said of it; the limit is shrunk."""

import os
import signal
import threading
import time

import pytest
from hub_http import Log, LoopbackServer, Reply
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import get_session, http_backoff

from modeling_ast.system import hub_answers
from modeling_ast.system.hub_answers import HubSilentError, interruptibly

SECONDS = 0.5


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_answers, "ANSWER_SECONDS", SECONDS)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def server():
    server = LoopbackServer(lambda request: Reply(b"done"), Log())
    yield server
    server.close()


def refused(call) -> tuple[HubSilentError, float]:
    start = time.monotonic()
    with pytest.raises(HubSilentError) as caught, hub_answers.hub_answers():
        call()
    return caught.value, time.monotonic() - start


@pytest.mark.parametrize("drip", [0.0, 0.1])
def test_a_silent_server_is_named_and_not_asked_again_and_again(server, drip):
    server.log.fall_silent("GET", after=0, times=9, drip=drip)
    error, seconds = refused(lambda: http_backoff("GET", server.url))  # which would ask six times
    assert str(error) == (
        f"{server.url.removeprefix('http://')} does not answer: nothing came for up to 0.5 s. Check the connection."
    )
    assert seconds < 3 * SECONDS
    assert len(server.log.requests) == 1


def test_an_upload_may_take_as_long_as_it_moves_and_not_longer(server, monkeypatch):
    seconds_allowed = 3.0  # in which a busy machine runs each of the two threads
    monkeypatch.setattr(hub_answers, "ANSWER_SECONDS", seconds_allowed)
    body = os.urandom(1_000_000) * 6  # of which a kernel would hold 4 MB
    server.log.take("PUT", bytes_a_second=1e6)
    start = time.monotonic()
    with hub_answers.hub_answers():
        assert get_session().put(server.url, content=body).content == b"done"
    assert time.monotonic() - start > 1.5 * seconds_allowed
    assert server.log.requests[0].body == body
    server.log.fall_silent("PUT", after=1_000_000)
    refused(lambda: get_session().put(server.url, content=body))


def test_what_is_silent_is_not_asked_for_the_next_file_and_the_words_come_through(server, tmp_path):
    server.log.fall_silent("HEAD", after=0, times=9)

    def download():
        for name in ("config.json", "model.safetensors"):
            with pytest.raises(OSError, match="cannot find the requested files"):
                hf_hub_download("user/name", name, cache_dir=tmp_path, endpoint=server.url)
        hf_hub_download("user/name", "README.md", cache_dir=tmp_path, endpoint=server.url)

    error, seconds = refused(download)
    assert "does not answer" in str(error)
    assert seconds < 3 * SECONDS
    assert len(server.log.requests) == 1


def test_a_proxy_that_is_silent_is_named_by_its_variable(server, monkeypatch):
    server.log.fall_silent("GET", after=0, times=9)
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//me:secret@"))
    error, _ = refused(lambda: get_session().get("http://hub.invalid/"))
    assert "hub.invalid does not answer, asked through the proxy that http_proxy names" in str(error)
    assert "secret" not in str(error)


def test_a_limit_that_the_client_has_set_itself_is_silence_too(server, monkeypatch):
    monkeypatch.setattr(hub_answers, "ANSWER_SECONDS", 30.0)
    server.log.fall_silent("GET", after=0, times=9)
    _, seconds = refused(lambda: http_backoff("GET", server.url, timeout=0.2))
    assert seconds < 2
    assert len(server.log.requests) == 1


def test_a_signal_ends_a_step_at_once_and_its_threads_too(server, interruptible, monkeypatch):
    monkeypatch.setattr(hub_answers, "ANSWER_SECONDS", 30.0)
    server.log.fall_silent("PUT", after=0)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    ended = threading.Event()

    def step():
        try:
            http_backoff("PUT", server.url, content=b"x")
        finally:
            ended.set()

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), hub_answers.hub_answers():
        interruptibly(step)
    assert ended.is_set()
    assert time.monotonic() - start < 1.5
    assert len(server.log.requests) == 1


@pytest.mark.usefixtures("interruptible")
def test_a_signal_that_another_thread_got_ends_a_step():
    is_over = threading.Event()

    def step():
        time.sleep(0.5)  # until the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # which does not end a wait of the main thread
        is_over.wait(10)

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), hub_answers.hub_answers():
        interruptibly(step)
    assert time.monotonic() - start < 5
    is_over.set()


def test_another_client_that_was_set_stays(monkeypatch):
    from huggingface_hub.utils import _http, set_client_factory

    made = []

    def factory():
        made.append(_http.default_client_factory())
        return made[-1]

    before = _http._GLOBAL_CLIENT_FACTORY
    try:
        set_client_factory(factory)
        with hub_answers.hub_answers():
            assert get_session() is made[0]
        assert get_session() is made[1]
        assert "send" not in vars(made[1])
    finally:
        set_client_factory(before)
