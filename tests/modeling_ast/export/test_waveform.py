"""`ast-export --waveform`: from samples to the scores that stock Transformers' feature extractor and model give."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
import transformers
from onnx_files import LABELS, MAX_LENGTH, metadata

from modeling_ast import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioFrameClassification,
    export_onnx,
    onnx_sessions,
    quantization,
    run_export,
    run_tagging,
)
from modeling_ast.audio import CUT_OFF
from modeling_ast.audio.resampling import StreamResampler, resample
from modeling_ast.checkpoints import folder
from modeling_ast.checkpoints.fields import CheckpointError
from modeling_ast.checkpoints.folder import weights_of
from modeling_ast.export_onnx import card_facts
from modeling_ast.quantization import size_of
from modeling_ast.runtime import OnnxTagger
from modeling_ast.tagging import backends
from modeling_ast.tagging.tagger import AudioTagger, TaggingError
from modeling_ast.waveform_graph import with_waveform

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TOLERANCE = 1e-4  # of scores: the Fourier transform is a matrix here, summed in float32
WINDOW = 400 + (MAX_LENGTH - 1) * 160


@pytest.fixture(scope="module")
def clips(recordings):
    """Drum clips at 16 kHz, of odd lengths."""
    sounds = [soundfile.read(file, dtype="float32") for file in sorted(recordings.iterdir())]
    assert {rate for _, rate in sounds} == {16_000}
    return [sound[: WINDOW - 37 * number] for number, (sound, _) in enumerate(sounds)]


def run_on(path, clips):
    return onnx_sessions.run_session(onnx_sessions.open_file(path), onnx_sessions.joined_waveforms(clips))


def stock_scores(checkpoint, clips):
    extractor = transformers.ASTFeatureExtractor.from_pretrained(checkpoint)
    model = transformers.ASTForAudioClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        logits = [model(**extractor(clip, sampling_rate=16_000, return_tensors="pt")).logits[0] for clip in clips]
    return torch.stack(logits).sigmoid().numpy()


def test_scores_are_those_of_stock_transformers_in_any_batch(checkpoint, heard, clips):
    expected = stock_scores(checkpoint, clips)
    assert np.ptp(expected, axis=0).max() > 0.05  # otherwise any clip would do
    np.testing.assert_allclose(run_on(heard, clips), expected, atol=TOLERANCE)
    alone = np.concatenate([run_on(heard, [clip]) for clip in clips])
    np.testing.assert_allclose(alone, expected, atol=TOLERANCE)


def test_short_and_loud_and_offset_sounds_are_heard_alike(checkpoint, heard):
    generator, times = np.random.default_rng(0), np.arange(WINDOW) / 16_000
    sounds = [
        generator.normal(size=401) / 10,
        np.sin(2 * np.pi * 440 * times),
        generator.normal(size=5_003) / 1e4 + 0.5,
        np.zeros(3_000),
    ]
    sounds = [sound.astype(np.float32) for sound in sounds]
    np.testing.assert_allclose(run_on(heard, sounds), stock_scores(checkpoint, sounds), atol=TOLERANCE)


def test_longer_clips_are_heard_as_a_whole_beside_short_ones(heard, model, extractor):
    generator = np.random.default_rng(1)
    sounds = [generator.normal(size=size).astype(np.float32) / 9 for size in (WINDOW * 3 // 2 + 11, 4_001, WINDOW)]
    expected = [export_onnx.scores_in_pytorch(sound, model, extractor) for sound in sounds]
    np.testing.assert_allclose(run_on(heard, sounds), expected, atol=TOLERANCE)
    cut = export_onnx.scores_in_pytorch(sounds[0][:WINDOW], model, extractor)
    assert np.abs(cut - expected[0]).max() > TOLERANCE


@pytest.mark.parametrize(("padding", "masks"), [("max_length", True), ("longest", False), ("longest", True)])
def test_padding_is_masked_as_the_extractor_is_set(checkpoint, exported, model, clips, tmp_path, padding, masks):
    extractor = ASTFeatureExtractor.from_pretrained(checkpoint, padding=padding, return_attention_mask=masks)
    onnx.save(export_onnx.waveform_onnx(onnx.load(exported), model, extractor), tmp_path / "m.onnx")
    sounds = [clips[0][:4_000], clips[1][:9_001], clips[2][:500]]
    with torch.no_grad():
        expected = [
            model(**extractor([sound], sampling_rate=16_000, return_tensors="pt")).logits[0].sigmoid().numpy()
            for sound in sounds
        ]
    np.testing.assert_allclose(run_on(tmp_path / "m.onnx", sounds), expected, atol=TOLERANCE)


def test_scores_are_made_by_the_kind_of_problem(exported, model, extractor, clips, tmp_path):
    plain = onnx.load(exported)
    found = {}
    for kind in ("multi_label_classification", "single_label_classification", "regression"):
        onnx.save(with_waveform(plain, model.config, extractor, kind, {}), tmp_path / "m.onnx")
        found[kind] = run_on(tmp_path / "m.onnx", clips[:3])
    logits = torch.from_numpy(found["regression"])
    np.testing.assert_allclose(found["multi_label_classification"], logits.sigmoid(), atol=1e-6)
    np.testing.assert_allclose(found["single_label_classification"], logits.softmax(-1), atol=1e-6)


def test_the_graph_is_valid(heard):
    graph = onnx.load(heard)
    onnx.checker.check_model(graph, full_check=True)
    onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True)
    assert [item.name for item in (*graph.graph.input, *graph.graph.output)] == ["waveform", "lengths", "scores"]


def test_the_file_says_all_that_a_program_needs(checkpoint, heard, exported):
    entries = metadata(heard)
    assert (entries["input"], entries["sampling_rate"]) == ("waveform", "16000")
    assert float(entries["window_seconds"]) == WINDOW / 16_000
    tagger = AudioTagger.from_pretrained(heard)
    assert float(entries["hop_seconds"]) == tagger._hop_samples(None, tagger.window_samples) / 16_000 == 0.48
    assert metadata(exported).keys() < entries.keys()
    assert "license" not in entries  # the folder has no card


def test_the_card_says_licence_and_figures(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nlicense: apache-2.0\nmodel-index:\n- name: m\n  results:\n  - task:\n      type: audio-classification\n"
        "    dataset:\n      name: drums\n      type: local\n      split: test\n    metrics:\n    - type: accuracy\n"
        "      value: 0.25\n      name: Accuracy\n---\n"
    )
    facts = export_onnx.card_facts(tmp_path)
    assert facts["license"] == "apache-2.0"
    assert json.loads(facts["figures"]) == [{"dataset": "drums", "split": "test", "metric": "Accuracy", "value": 0.25}]
    assert export_onnx.card_facts(tmp_path / "gone") == {}


def test_int8_keeps_most_labels(checkpoint, heard, without_export, recordings, clips, tmp_path):
    path = tmp_path / "m.onnx"
    assert run_export.main([str(checkpoint), str(path), "--waveform", "--int8", "--clips", str(recordings)]) == 0
    report = json.loads((tmp_path / "m.quantization.json").read_text())
    (chosen,) = [item for item in report["candidates"] if item["name"] == report["chosen"]]
    assert path.stat().st_size == chosen["num_bytes"]
    expected, found = (np.concatenate([run_on(each, [clip]) for clip in clips]) for each in (heard, path))
    assert 1e-4 < np.abs(found - expected).max() < 0.1
    kept = (found.argmax(1) == expected.argmax(1)).sum()
    assert kept >= 0.9 * len(clips)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)
    assert onnx.load(path).ir_version == 9  # with 10 ONNX Runtime 1.17 reads none


@pytest.mark.parametrize("waveform", [[], ["--waveform"]])
def test_float16_is_inside_alone(checkpoint, heard, exported, without_export, clips, capsys, tmp_path, waveform):
    path = tmp_path / "m.onnx"
    assert run_export.main([str(checkpoint), str(path), "--float16", *waveform]) == 0
    whole = onnx.load(path)
    onnx.checker.check_model(whole, full_check=True)
    onnx.shape_inference.infer_shapes(whole, check_type=True, strict_mode=True)
    assert whole.ir_version == 9
    graph = whole.graph
    floats = {item.type.tensor_type.elem_type for item in (*graph.input, *graph.output)}
    assert floats == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    kinds = [item.data_type for item in graph.initializer if tuple(item.dims) == (32, 32)]
    assert set(kinds) == {onnx.TensorProto.FLOAT16}
    assert "for one, leave --float16 out, or pass --int8 in its place." in capsys.readouterr().out
    if waveform:
        np.testing.assert_allclose(run_on(path, clips), run_on(heard, clips), atol=0.01)
        assert path.stat().st_size < heard.stat().st_size


def test_what_one_file_does_not_hold_lies_beside_it(checkpoint, heard, without_export, clips, monkeypatch, tmp_path):
    for module in (export_onnx, quantization):
        monkeypatch.setattr(module, "LARGEST_FILE", 100_000)
    path = tmp_path / "m.onnx"
    assert run_export.main([str(checkpoint), str(path), "--waveform"]) == 0
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data"]
    assert path.stat().st_size < 200_000 < (tmp_path / "m.onnx.data").stat().st_size
    np.testing.assert_array_equal(run_on(path, clips[:2]), run_on(heard, clips[:2]))
    onnx.checker.check_model(str(path), full_check=True)
    (tmp_path / "m.onnx").unlink()
    assert run_export.main([str(checkpoint), str(path)]) == 2  # weights without their graph are not overwritten
    monkeypatch.setattr(export_onnx, "LARGEST_FILE", 2**30)
    assert run_export.main([str(checkpoint), str(path), "--overwrite"]) == 0
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_an_interruption_leaves_a_graph_with_its_own_weights(heard, clips, monkeypatch, tmp_path):
    monkeypatch.setattr(export_onnx, "LARGEST_FILE", 100_000)
    path, old, new = tmp_path / "m.onnx", onnx.load(heard), onnx.load(heard)
    for tensor in new.graph.initializer:
        if len(tensor.raw_data) == 4 * 32 * 32:
            tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * 2).tobytes()
    export_onnx.save_onnx(old, path)
    expected, replace = run_on(path, clips[:2]), os.replace

    def interrupted(source, target):
        if target == path:
            raise KeyboardInterrupt
        replace(source, target)

    for _ in range(2):  # the second time there is a rest of the first
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupted)
            with pytest.raises(KeyboardInterrupt):
                export_onnx.save_onnx(new, path)
        np.testing.assert_array_equal(run_on(path, clips[:2]), expected)
    for graph, name in ((new, "m.onnx.2.data"), (old, "m.onnx.data")):
        export_onnx.save_onnx(graph, path)
        assert sorted(os.listdir(tmp_path)) == ["m.onnx", name]
        found = run_on(path, clips[:2])
        assert np.array_equal(found, expected) == (graph is old)
    monkeypatch.setattr(export_onnx, "LARGEST_FILE", 2**30)
    export_onnx.save_onnx(old, path)
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_weights_that_a_killed_run_left_are_not_the_files(heard, monkeypatch, tmp_path):
    graph, path = onnx.load(heard), tmp_path / "m.onnx"
    path.write_bytes(heard.read_bytes())
    beside = [tmp_path / "m.onnx.data", tmp_path / "m.onnx.2.data"]
    digest = backends._digest_of(path)
    beside[1].write_bytes(b"left")
    assert (weights_of(path), size_of(path)) == ([], heard.stat().st_size)
    assert backends._digest_of(path) == digest
    beside[1].unlink()
    onnx.save_model(graph, path, save_as_external_data=True, location=beside[0].name)
    size, digest = size_of(path), backends._digest_of(path)
    beside[1].write_bytes(b"left")
    assert size == size_of(path) == path.stat().st_size + beside[0].stat().st_size
    assert backends._digest_of(path) == digest
    beside[0].write_bytes(beside[0].read_bytes()[::-1])
    assert backends._digest_of(path) != digest
    content = path.read_bytes()
    place = content.index(b"location")
    for piece in (16, place - 3, place + 4, place + 9, place + 15):  # of which it is read
        monkeypatch.setattr(folder, "_PIECE", piece)
        assert weights_of(path) == [beside[0]]
    path.write_bytes(content.replace(b"m.onnx.data", b"../m.o.data"))
    assert weights_of(path) == []


def test_two_kinds_of_weights_are_refused(checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_export.main([str(checkpoint), str(tmp_path / "m.onnx"), "--int8", "--float16"])
    assert "two kinds of weights. Pass one of them." in capsys.readouterr().err


@pytest.fixture(scope="module")
def sounds(tmp_path_factory, drum_rows):
    folder, generator = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    shutil.copy(drum_rows[0]["path"], folder)
    long = np.cumsum(generator.normal(size=(5 * 44_100, 2)), axis=0) / 300
    soundfile.write(folder / "stereo.wav", np.tanh(long - long.mean(axis=0)), 44_100)
    return sorted(folder.iterdir())


def tags_of(model, sounds, **settings):
    tagger = AudioTagger.from_pretrained(model, "cpu", frame_heads=True)
    return list(tagger.tag_files(sounds, **settings))


@pytest.mark.parametrize("settings", [{}, {"timeline": True, "hop": 0.3, "threshold": 0.3}, {"window": 0.5}])
def test_files_are_tagged_as_with_the_folder(checkpoint, heard, sounds, settings):
    for expected, found in zip(
        tags_of(checkpoint, sounds, **settings), tags_of(heard, sounds, **settings), strict=True
    ):
        assert {tag.label: tag.score for tag in found.labels} == pytest.approx(
            {tag.label: tag.score for tag in expected.labels}, abs=TOLERANCE
        )
        stretches = [
            [(each.start, each.end, each.label) for each in tags.segments or ()] for tags in (expected, found)
        ]
        assert stretches[0] == stretches[1]
        assert bool(stretches[0]) == ("timeline" in settings)


def test_frames_are_told_from_samples_too(tmp_path, sounds):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = ASTForAudioFrameClassification(
        ASTConfig(**sizes, max_length=MAX_LENGTH, id2label=dict(enumerate(LABELS))),
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    ASTFeatureExtractor(max_length=MAX_LENGTH, mean=-5.5, std=3.25).save_pretrained(tmp_path)
    assert run_export.main([str(tmp_path), str(tmp_path / "m.onnx"), "--waveform"]) == 0
    entries = metadata(tmp_path / "m.onnx")
    assert entries["frames"].startswith("scores are (batch, columns, labels)")
    for changes, words in (
        ({"time_stride": "5"}, "min_length=16 and time_stride=5 make 17 columns of 96 frames, the graph makes 9"),
        ({"head": "clips"}, "head='frames' is missing and the scores are of frames"),
    ):
        graph = onnx.load(tmp_path / "m.onnx")
        onnx.helper.set_model_props(graph, entries | changes)
        onnx.save(graph, tmp_path / "changed.onnx")
        with pytest.raises(CheckpointError, match=f"changed.onnx: {words}"):
            OnnxTagger(tmp_path / "changed.onnx")
    expected, found = (tags_of(each, sounds, timeline=True, threshold=0.4) for each in (tmp_path, tmp_path / "m.onnx"))
    assert sum(len(tags.segments) for tags in expected) > 2
    for one, other in zip(expected, found, strict=True):
        assert [(each.start, each.end, each.label) for each in one.segments] == [
            (each.start, each.end, each.label) for each in other.segments
        ]
        assert [each.score for each in one.segments] == pytest.approx(
            [each.score for each in other.segments], abs=1e-4
        )


def test_several_models_may_be_of_both_kinds(checkpoint, heard, sounds, capsys):
    printed = []
    for models in ([checkpoint, checkpoint], [checkpoint, heard], [heard, heard]):
        command = [*map(str, sounds), "--format", "jsonl", "--model_name_or_path", *map(str, models)]
        assert run_tagging.main(command) == 0
        printed.append([json.loads(line)["labels"] for line in capsys.readouterr().out.splitlines()])
    for others in printed[1:]:
        for one, other in zip(printed[0], others, strict=True):
            assert {tag["label"]: tag["score"] for tag in one} == pytest.approx(
                {tag["label"]: tag["score"] for tag in other}, abs=TOLERANCE
            )


def test_a_tagger_without_pytorch_is_made_of_a_file_in_either_way(heard, exported, checkpoint, sounds):
    (expected,) = OnnxTagger(heard, "left").tag_files(sounds[1:])
    loaded = OnnxTagger.from_pretrained(str(heard), channels="left")
    assert type(loaded) is OnnxTagger
    assert next(loaded.tag_files(sounds[1:])) == expected
    (refusing,) = OnnxTagger.from_pretrained(heard, refused=frozenset({CUT_OFF})).members
    assert refusing.reader.refused == {CUT_OFF}
    for settings, words in (
        ({"device": "cuda"}, "runs in ONNX Runtime on the CPU, not on 'cuda'"),
        ({"compiled": True}, "--compile is about models in PyTorch"),
        ({"tokens_merged_per_layer": 2}, "--tokens_merged_per_layer is about models in PyTorch"),
    ):
        with pytest.raises(TaggingError, match=words):
            OnnxTagger.from_pretrained(heard, **settings)
    with pytest.raises(CheckpointError, match="does not end in .onnx. Pass a file of ast-export --waveform, or load"):
        OnnxTagger.from_pretrained(checkpoint)
    with pytest.raises(CheckpointError, match="tiny.onnx takes features, which PyTorch computes"):
        OnnxTagger.from_pretrained(exported)


def test_a_wrong_path_is_told_before_settings(checkpoint, tmp_path):
    settings = [{"device": "cuda"}, {"compiled": True}, {"tokens_merged_per_layer": 2}]
    for setting in settings:
        with pytest.raises(CheckpointError, match="does not end in .onnx"):
            OnnxTagger.from_pretrained(checkpoint, **setting)
        for way in (OnnxTagger.from_pretrained, AudioTagger.from_pretrained):
            with pytest.raises(CheckpointError, match=r"gone.onnx cannot be read: No such file or directory\."):
                way(tmp_path / "gone.onnx", **setting)


def test_channels_that_cannot_be_are_told_by_every_way_to_load(heard, checkpoint):
    ways = [OnnxTagger, OnnxTagger.from_pretrained, AudioTagger.from_pretrained]
    calls = [(way, heard) for way in ways] + [(AudioTagger.from_pretrained, checkpoint)]
    for way, model in calls:
        with pytest.raises(ValueError, match=r"^channels='foo' is none of mean, left, .* in Python channels='left'"):
            way(model, channels="foo")
    assert OnnxTagger(heard, channels=2).reader.channels == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"id2label": json.dumps(dict(enumerate([*LABELS, "x"])))},
            "m.onnx: id2label has 4 labels and the graph gives scores of 3",
        ),
        (
            {"channels": '"foo"'},
            r"m.onnx: channels='foo' is none of .* counted from 1\. That is in its metadata: export the model again with ast-export\.$",
        ),
        (
            {"resampler": "foo"},
            r"m.onnx: resampler='foo' is not known here, expected 'soxr' or 'torchaudio'\. That is in its metadata",
        ),
        ({"label_thresholds": '{"clap": 7}'}, "m.onnx: label_thresholds has 7 for 'clap', expected a score"),
        ({"event_rules": '{"z": {"on": 0.5}}'}, "m.onnx: event_rules has some for 'z'"),
    ],
)
def test_metadata_that_do_not_fit_are_told_with_the_file(heard, tmp_path, changes, words):
    graph = onnx.load(heard)
    onnx.helper.set_model_props(graph, metadata(heard) | changes)
    onnx.save(graph, tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match=words):
        OnnxTagger(tmp_path / "m.onnx")


def test_neither_torch_nor_transformers_is_imported(heard, sounds, tmp_path):
    script = (
        "import sys\n"
        "from modeling_ast.run_tagging import main\n"
        "from modeling_ast.runtime import OnnxTagger\n"
        "model, *files = sys.argv[1:]\n"
        "assert main([*files, '--model_name_or_path', model, '--timeline', '--format', 'csv', '--hop', '0.3']) == 0\n"
        "(tags, _) = OnnxTagger(model).tag_files(files)\n"
        "assert tags.error is None and len(tags.labels) == 3\n"
        "print(sorted({'torch', 'transformers', 'numba', 'scipy', 'torchaudio'} & set(sys.modules)))\n"
    )
    graph = onnx.load(heard)
    assert metadata(heard)["resampler"] == "torchaudio"
    onnx.helper.set_model_props(graph, metadata(heard) | {"resampler": "soxr"})
    onnx.save(graph, tmp_path / "m.onnx")
    for path in (heard, tmp_path / "m.onnx"):
        command = [sys.executable, "-c", script, str(path), *map(str, sounds)]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        assert child.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 44_117, 192_000])
def test_torchaudios_resampler_is_there_without_torch(rate):
    sound = np.random.default_rng(0).normal(size=rate * 2 + 17).astype(np.float32) / 9
    found = resample(sound, rate, 16_000, "torchaudio in NumPy")
    expected = resample(sound, rate, 16_000, "torchaudio")
    if rate != 44_117:  # of which torchaudio's own table would be huge
        expected = torchaudio.functional.resample(torch.from_numpy(sound), rate, 16_000).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)  # its table is computed at places in float32
    stream = StreamResampler(rate, 16_000, "torchaudio in NumPy")
    parts = [stream.add(sound[start : start + 9_001]) for start in range(0, len(sound), 9_001)]
    np.testing.assert_array_equal(np.concatenate([*parts, stream.finish()]), found)


@pytest.mark.parametrize(
    ("given", "flags", "words"),
    [
        (
            "folder",
            [],
            "runs in PyTorch, which is not installed here. Pass a file that ast-export --waveform made of it",
        ),
        ("features", [], "takes features, which PyTorch computes, and that is not installed here"),
        ("samples", ["--timeline", "--picture", "p.png"], "--picture needs PyTorch and Matplotlib"),
    ],
)
def test_what_needs_pytorch_is_told_where_it_is_not_there(
    checkpoint, exported, heard, sounds, monkeypatch, capsys, tmp_path, given, flags, words
):
    for module in (run_tagging, backends):
        monkeypatch.setattr(module, "find_spec", lambda _name: None)
    monkeypatch.chdir(tmp_path)
    model = {"folder": checkpoint, "features": exported, "samples": heard}[given]
    with pytest.raises(SystemExit) as ended:
        run_tagging.main([str(sounds[0]), "--model_name_or_path", str(model), *flags])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("front_matter", ["license: [a", "\tlicense: mit"])
def test_a_card_that_cannot_be_read_says_nothing(tmp_path, front_matter):
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# A model\n")
    assert card_facts(tmp_path) == {}
