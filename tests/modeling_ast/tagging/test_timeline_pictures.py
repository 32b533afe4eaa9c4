"""Pictures of time lines: what is drawn where, and where the files go."""

import os
import shutil

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from matplotlib.image import imread

from modeling_ast import run_tagging
from modeling_ast.features.kaldi import kaldi_arguments
from modeling_ast.tagging.tagger import AudioTagger, FileTags, Segment
from modeling_ast.tagging.timeline_pictures import LoudestColumns, draw_timeline, picture_of


def fbank(waveform):
    return torchaudio.compliance.kaldi.fbank(torch.from_numpy(waveform)[None], **kaldi_arguments(16_000, 128)).numpy()


def columns_of(waveform, blocks, most=2400):
    columns = LoudestColumns(16_000, 128, most)
    for block in np.split(waveform, blocks):
        columns.add(block)
    return columns


@pytest.mark.parametrize("blocks", [[], [100, 399, 400, 16_000, 16_159, 50_000]])
def test_a_spectrogram_as_wide_as_its_frames(clips, blocks):
    waveform = soundfile.read(clips[2], dtype="float32")[0]
    columns = columns_of(waveform, blocks)
    np.testing.assert_allclose(columns.log_mel(), fbank(waveform), atol=2e-3)
    assert columns.end == pytest.approx(len(fbank(waveform)) / 100)


@pytest.mark.parametrize("blocks", [[], [*range(700, 51_800, 700)], [30_000, 30_001, 30_100]])
@pytest.mark.parametrize(("most", "of_column"), [(50, 8), (81, 4), (160, 4), (161, 2), (1, 256)])
def test_columns_of_a_longer_one_are_the_loudest_of_their_frames(clips, monkeypatch, blocks, most, of_column):
    monkeypatch.setattr("modeling_ast.tagging.timeline_pictures.BLOCK_SECONDS", 1)
    waveform = soundfile.read(clips[2], dtype="float32")[0]
    frames = fbank(waveform)
    assert len(frames) == 322
    columns = columns_of(waveform, blocks, most)
    expected = [frames[first : first + of_column].max(axis=0) for first in range(0, len(frames), of_column)]
    np.testing.assert_allclose(columns.log_mel(), expected, atol=2e-3)
    assert columns.end == pytest.approx(len(expected) * of_column / 100)


def bars(axes):
    """Of each bar its lane, start, end and opacity."""
    boxes = [
        (path.get_extents(), colour[3])
        for bars in axes.collections
        for path, colour in zip(bars.get_paths(), bars.get_facecolors(), strict=True)
    ]
    return sorted((round((box.y0 + box.y1) / 2), box.x0, box.x1, opacity) for box, opacity in boxes)


def test_segments_lie_below_their_seconds(tmp_path):
    segments = [
        Segment("", 1.0, 3.0, "$kick$", 1.0),
        Segment("", 2.0, 2.5, "tom", 0.5),
        Segment("", 7.0, 9.5, "$kick$", 0.0),
    ]
    log_mel = np.random.default_rng(0).normal(size=(80, 128))
    figure = draw_timeline(log_mel, 10.0, segments, tmp_path / "a.png", "a\n.wav")
    picture, lanes = figure.axes
    assert picture.images[0].get_extent() == [0, 10.0, -0.5, 127.5]
    assert picture.get_xlim() == lanes.get_xlim() == (0, 10)
    assert np.array_equal(picture.images[0].get_array().T, log_mel)
    assert picture.get_title() == r"a\n.wav"
    assert [label.get_text() for label in lanes.get_yticklabels()] == ["$kick$", "tom"]
    assert bars(lanes) == [(0, 1.0, 3.0, 1.0), (0, 7.0, 9.5, 0.25), (1, 2.0, 2.5, 0.625)]
    assert lanes.get_ylim()[0] > lanes.get_ylim()[1]  # the first label is the uppermost


def test_thousands_of_segments_are_drawn_at_once(tmp_path):
    segments = [Segment("", n, n + 0.5, f"label {n % 3}", n / 3000) for n in range(3000)]
    _, lanes = draw_timeline(np.ones((80, 128)), 3000.0, segments, tmp_path / "a.png", "a.wav").axes
    assert len(lanes.collections) == 3
    assert [bar[1] for bar in bars(lanes) if bar[0] == 0] == [*range(0, 3000, 3)]


def test_of_many_labels_those_with_the_highest_scores_are_shown(tmp_path):
    segments = [Segment("", n, n + 1.0, f"label {n}", n / 40) for n in range(40)]
    _, lanes = draw_timeline(np.ones((80, 128)), 41.0, segments, tmp_path / "a.png", "a.wav").axes
    assert [label.get_text() for label in lanes.get_yticklabels()] == [f"label {n}" for n in range(10, 40)]
    assert lanes.get_xlabel() == "seconds (10 labels with lower scores are not shown)"


@pytest.mark.pictures
def test_what_is_drawn_is_seen(multi_label, clips, tmp_path):
    tagger = AudioTagger.from_pretrained(multi_label, "cpu")
    picture_of(
        tagger,
        FileTags(str(clips[2]), [], [Segment("", 1.0, 2.0, "clap", 1.0)], seconds=51_800 / 16_000),
        tmp_path / "a.png",
    )
    picture_of(tagger, FileTags(str(clips[2]), [], [], seconds=51_800 / 16_000), tmp_path / "none.png")
    blue = [np.abs(imread(tmp_path / name)[..., :3] - [0x3B / 255, 0x6F / 255, 0xB6 / 255]).max(axis=2) < 0.02
            for name in ("a.png", "none.png")]  # fmt: skip
    columns = np.flatnonzero(blue[0].sum(axis=0) > 10)
    share = (columns.max() - columns.min()) / blue[0].shape[1]
    assert 0.25 < share < 1 / (51_800 / 16_000)  # of the width, in which there are names, too
    assert blue[1].sum() == 0


def command(model, *words):
    return run_tagging.main(
        [str(word) for word in (*words, "--model_name_or_path", model, "--device", "cpu", "--timeline")]
    )


def test_pictures_of_one_file_and_of_a_folder(multi_label, clips, tmp_path, capsys):
    assert command(multi_label, clips[0], "--picture", tmp_path / "one.png") == 0
    for folder in ("x", "y"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        shutil.copy(clips[0], tmp_path / "in" / folder / "a.wav")
    (tmp_path / "in" / "broken.wav").write_bytes(b"")
    flags = ("--picture", tmp_path / "pictures", "--output", tmp_path / "tags")
    assert command(multi_label, tmp_path / "in", *flags) == 1
    assert sorted(os.listdir(tmp_path)) == ["in", "one.png", "pictures", "tags"]
    assert sorted(os.listdir(tmp_path / "pictures")) == ["x_a.png", "y_a.png"]
    (tmp_path / "pictures" / "x_a.png").unlink()
    assert command(multi_label, clips[0], "--picture", tmp_path / "pictures") == 0
    assert sorted(os.listdir(tmp_path / "pictures")) == ["a_short.png", "y_a.png"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--picture", "a.png"], "--picture is about segments. Add --timeline, or leave it out."),
        (["--timeline", "--picture", "none/a.png"], "--picture none/a.png: there is no folder none."),
        (["{other}", "--timeline", "--picture", "a.png"], "a.png is no folder, and there are 2 audio files."),
        (["{other}", "--timeline", "--picture", "{other}"], "is no folder, and there are 2 audio files."),
        (["--timeline", "--picture", "a.png", "--output", "a.png"], "--picture a.png is the --output itself."),
    ],
)
def test_flags_without_effect_are_refused(multi_label, clips, capsys, flags, words):
    flags = [flag.format(other=clips[1]) for flag in flags]
    with pytest.raises(SystemExit) as ended:
        run_tagging.main([str(clips[0]), *flags, "--model_name_or_path", str(multi_label)])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
