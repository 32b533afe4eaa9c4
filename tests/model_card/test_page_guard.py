"""What the demo page's server lets in: requests of other pages, other names, too much; in process, with the real page."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from demo_runs import RATE, noise, save_checkpoint

from model_card import run_demo
from modeling_ast.audio import AudioError, AudioLimits, AudioReader
from modeling_ast.tagging.tagger import AudioTagger

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs Gradio")
OWN = "http://127.0.0.1:7860"
FOREIGN = {"origin": "https://evil.example"}
CROSS = {"sec-fetch-site": "cross-site"}


@pytest.fixture(scope="module")
def demo_page():
    """The page's module, whose Gradio takes long to import."""
    return importlib.import_module("model_card.demo_page")


@pytest.fixture(scope="module")
def page_guard():
    """What lets in, which is made of parts of Gradio."""
    return importlib.import_module("model_card.page_guard")


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    folder = save_checkpoint(tmp_path_factory.mktemp("guarded"), "single_label_classification")
    return AudioTagger.from_pretrained(folder, "cpu")


@pytest.fixture(scope="module")
def served(demo_page, page_guard, tagger, tmp_path_factory):
    """The page as `ast-demo --allowed_host proxy.example` serves it, with room for 1 MB a file."""
    from starlette.testclient import TestClient

    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("uploads")
        patched.setenv("GRADIO_TEMP_DIR", str(folder))
        page = demo_page.build_page(
            tagger.model, tagger.feature_extractor, name="tiny", max_megabytes=1, max_minutes=0.5
        )
        guard = page_guard.guarded(1, 20, run_demo.served_names("127.0.0.1"), ["proxy.example"])
        app = run_demo.make_server(page, demo_page.launch_options(1), guard).config.app
        with TestClient(app, base_url=OWN) as client:
            client.folder, client.page = folder, page
            yield client


def upload(client, content=b"RIFF", **request):
    return client.post("/gradio_api/upload", files={"files": ("clip.wav", content)}, **request)


def files_in(folder: Path):
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("headers", [FOREIGN, CROSS, {"sec-fetch-site": "same-site"}, {"origin": "null"}])
def test_what_another_page_sends_is_refused_before_it_is_stored(served, headers):
    before = files_in(served.folder)
    assert upload(served, headers=headers).status_code == 403
    assert files_in(served.folder) == before
    for path in ("queue/join", "call/tag", "run/tag", "reset", "cancel"):
        assert served.post(f"/gradio_api/{path}", json={}, headers=headers).status_code == 403
    assert served.get("/gradio_api/queue/data?session_hash=x", headers=headers).status_code == 403
    assert served.get("/", headers=CROSS).status_code == 200, "a link, or the Hub's frame around a Space"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": OWN},
        {"sec-fetch-site": "same-origin", "origin": "https://any"},
        {"origin": "https://proxy.example"},
    ],
)
def test_its_own_page_and_programs_are_let_in(served, headers):
    assert upload(served, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 400), ("evil.example:7860", 400), ("localhost:1", 200), ("[::1]:7860", 200), ("10.0.0.7", 200)]
    + [("PROXY.example", 200), ("", 400), ("127.0.0.1.evil.example", 400)],
)
def test_only_its_own_names_are_answered(served, host, status):
    answer = served.get("/config", headers={"host": host})
    assert answer.status_code == status
    assert status == 200 or "--allowed_host" in answer.text


def test_a_space_is_reached_under_any_name(page_guard, tagger):
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    app = FastAPI(middleware=[page_guard.guarded(1, 20, None, ["user-drums.hf.space"])])
    app.post("/gradio_api/call/tag")(lambda: "called")
    client = TestClient(app, base_url="http://10.1.2.3")
    for headers, status in (({"host": "user-drums.hf.space"}, 200), ({"origin": "https://user-drums.hf.space"}, 200)):
        assert client.post("/gradio_api/call/tag", headers=headers).status_code == status
    assert client.post("/gradio_api/call/tag", headers=FOREIGN).status_code == 403


def test_too_much_is_refused_and_nothing_of_it_kept(served):
    before = files_in(served.folder)
    answer = upload(served, bytes(1_100_000))
    assert (answer.status_code, "exceeds the maximum allowed size of 1 MB" in answer.text) == (413, True)

    def in_pieces():  # without a length
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
        for _ in range(20):
            yield bytes(100_000)

    def as_fields():  # which Gradio holds in memory
        yield b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n'
        for _ in range(20):
            yield bytes(100_000)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    for body in (in_pieces, as_fields):
        assert served.post("/gradio_api/upload", content=body(), headers=kind).status_code == 413
    assert served.post("/gradio_api/call/tag", json={"data": ["x" * 1_100_000]}).status_code == 400
    assert files_in(served.folder) == before


def test_a_full_disk_share_is_told_in_words(page_guard, served, monkeypatch):
    monkeypatch.setattr(page_guard, "MOST_FILES_KEPT", 1)
    (served.folder / "earlier").write_bytes(bytes(999_000))
    answer = upload(served, bytes(10_000))
    (served.folder / "earlier").unlink()
    assert (answer.status_code, "has no room for another" in answer.text) == (507, True)
    assert upload(served, bytes(10_000)).status_code == 200


def test_a_full_queue_is_told_in_words(served, monkeypatch):
    monkeypatch.setattr(served.page._queue, "max_size", 0)
    call = {"data": [None, "All (rollout)", "All (mean)"]}
    answer = served.post("/gradio_api/call/tag", json=call)
    assert answer.status_code == 429
    assert answer.json()["detail"].startswith("The page is busy: 20 requests are waiting")


def asked(client, path: Path):
    """The event and the message of a call with a recording."""
    sent = upload(client, path.read_bytes()).json()[0]
    file = {"path": sent, "meta": {"_type": "gradio.FileData"}, "orig_name": path.name}
    call = client.post("/gradio_api/call/tag", json={"data": [file, "All (rollout)", "All (mean)"]})
    event, _, data = client.get(f"/gradio_api/call/tag/{call.json()['event_id']}").text.partition("\ndata: ")
    return event, json.loads(data.strip())


def clips():
    """Unusual recordings by name: samples, rate."""
    return {
        "none": (np.zeros(0), RATE),
        "one": (np.full(1, 0.5), RATE),
        "silent": (np.zeros(RATE), RATE),
        "huge": (np.full(RATE, 1e38), RATE),
        "nan": (np.full(RATE, np.nan), RATE),
        "slow": (noise(1), 1),
    }


@pytest.mark.parametrize("name", [*clips(), "image", "text"])
def test_an_unusual_recording_gets_words(served, tmp_path, name):
    path = tmp_path / "clip.wav"
    if name in clips():
        soundfile.write(path, *clips()[name], subtype="FLOAT")
    else:
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500) if name == "image" else b"hello " * 99)
    event, data = asked(served, path)
    assert event == "event: complete"
    assert 'role="alert"' in json.dumps(data[0]).replace("\\", "")


def test_a_fault_that_nobody_foresaw_is_a_sentence_and_a_line(demo_page, served, tmp_path, monkeypatch, caplog):
    soundfile.write(tmp_path / "clip.wav", noise(2)[: RATE + 7], RATE)

    def broken(*_):
        raise ZeroDivisionError("the reason\nand more")

    monkeypatch.setattr(demo_page, "tag_recording", broken)
    event, data = asked(served, tmp_path / "clip.wav")
    assert event == "event: complete"
    assert "met a fault of the page" in json.dumps(data[0])
    assert [record.message for record in caplog.records if "not answered" in record.message] == [
        "A recording was not answered, ZeroDivisionError: the reason"
    ]


def test_limits_are_kept_while_decoding(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(3), RATE)
    soundfile.write(tmp_path / "wide.wav", np.tile(noise(3)[:, None], 8), 96_000)
    reader = AudioReader(limits=AudioLimits(seconds=2, numbers=2 * 96_000))
    with pytest.raises(AudioError, match="lasts longer than the 0.0333333 minutes"):
        reader.hear(tmp_path / "long.wav")
    with pytest.raises(AudioError, match=r"has 8 channel\(s\) at 96000 Hz, of which 0.25 s are taken here"):
        reader.hear(tmp_path / "wide.wav")
    assert AudioReader(limits=AudioLimits(3, 3 * RATE)).hear(tmp_path / "long.wav").waveform.size == noise(3).size


def test_a_recording_is_decoded_once(demo_page, tagger, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "clip.wav", noise(3), RATE)
    decoded = []
    decode = AudioReader.decode
    monkeypatch.setattr(AudioReader, "decode", lambda *given: (decoded.append(1), decode(*given))[1])
    monkeypatch.setattr(tagger, "reader", demo_page.page_reader(tagger.feature_extractor, 1))
    demo_page.tag_recording(tagger, tmp_path / "clip.wav")
    demo_page.draw_attention(tagger, tmp_path / "clip.wav", 1.0)
    assert len(decoded) == 1
