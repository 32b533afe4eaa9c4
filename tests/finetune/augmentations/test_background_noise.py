"""Background noise: the ratio that was drawn, stretches of long, short and other recordings, silence, and what is refused."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch
from scipy import stats
from tiny_trainings import flags, write_tones
from torchaudio.functional import resample

from finetune.arguments.groups import AugmentationArguments
from finetune.augmentations.augmentation import Augmentation
from finetune.augmentations.augmentation_step import TrainingClip
from finetune.augmentations.background_noise import BackgroundNoise
from finetune.augmentations.sound_folder import SoundFile, SoundFolder
from finetune.run_finetune import main
from modeling_ast.audio import AudioError

RATE = 16_000


def random_sound(seconds: float, rate: int = RATE, seed: int = 0, channels: int = 1) -> np.ndarray:
    sound = 0.1 * np.random.default_rng(seed).standard_normal((int(seconds * rate), channels))
    return sound.astype(np.float32)[:, 0] if channels == 1 else sound.astype(np.float32)


def write(path, sound, rate: int = RATE):
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, sound, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def noisy(folder, clip: np.ndarray, place: float = 0.5, snr_db: float = 10.0, file: float = 0.0) -> np.ndarray:
    step = BackgroundNoise(noise_dir=str(folder))
    drawn = {"snr_db": snr_db, "file": file, "place": place}
    return step.change_waveform(TrainingClip(clip, 0, RATE), drawn, None).waveform


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.5])
def test_a_stretch_is_added_at_the_ratio_and_only_it_is_read(tmp_path, monkeypatch, snr_db):
    noise, clip = random_sound(60) - 0.3, random_sound(0.5, seed=1) + 0.2  # an offset is no power
    write(tmp_path / "noises" / "long.wav", noise)
    read, of_file = [], soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: read.append(of_file(*a, **k)) or read[-1])
    mixed = noisy(tmp_path / "noises", clip, 0.3, snr_db)
    assert sum(map(len, read)) == len(clip) == len(mixed)
    added = mixed.astype(np.float64) - clip
    assert abs(added.mean()) < 1e-6
    assert 10 * np.log10(np.var(clip, dtype=np.float64) / np.mean(added**2)) == pytest.approx(snr_db, abs=1e-4)
    first = int(0.3 * (len(noise) - len(clip) + 1))
    stretch = noise[first : first + len(clip)].astype(np.float64)
    assert np.corrcoef(added, stretch)[0, 1] > 1 - 1e-9


def test_a_short_noise_is_repeated_and_the_last_places_of_a_long_one_are_reached(tmp_path):
    noise = random_sound(0.1)
    file = SoundFile(str(write(tmp_path / "short.wav", noise)), 0.1, len(noise), RATE)
    heard = file.stretch(0.25, 4_000, RATE)
    np.testing.assert_array_equal(heard, np.take(noise, (np.arange(4_000) + 400) % 1600))
    np.testing.assert_array_equal(file.stretch(0.0, len(noise), RATE), noise)
    np.testing.assert_array_equal(file.stretch(np.nextafter(1, 0), 100, RATE), noise[-100:])


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_a_stretch_of_a_compressed_noise_is_that_of_the_whole(tmp_path, suffix):
    path = write(tmp_path / f"noise.{suffix}", random_sound(14, 44_100, channels=2), 44_100)
    whole = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    file = SoundFile(str(path), 14.0, len(whole), 44_100)
    for place in (0.0, 0.4, np.nextafter(1, 0)):
        first = int(place * (len(whole) - 300 + 1))
        heard = file.stretch(place, 300, 44_100)
        np.testing.assert_allclose(heard, whole[first : first + 300], rtol=0, atol=2e-7)


def test_other_rates_and_several_channels(tmp_path):
    noise = random_sound(2, 44_100, channels=2)
    file = SoundFolder(str(write(tmp_path / "stereo.flac", noise, 44_100)), "noise_dir").files[0]
    first = int(0.5 * (88_200 - 22_050 + 1))
    whole = soundfile.read(tmp_path / "stereo.flac", dtype="float32")[0].mean(axis=1)[first : first + 22_050]
    heard = file.stretch(0.5, 8_000, RATE)
    np.testing.assert_allclose(heard, resample(torch.from_numpy(whole), 441, 160).numpy(), atol=1e-6)
    # Of a noise at another rate that is short, all repetitions are alike.
    repeated = file.stretch(0.0, 70_000, RATE)
    np.testing.assert_array_equal(repeated[:32_000], repeated[32_000:64_000])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")
def test_what_only_ffmpeg_reads_is_decoded_as_far_as_needed(tmp_path):
    noise = random_sound(20)
    write(tmp_path / "noise.wav", noise)
    encoded = tmp_path / "noises" / "noise.m4a"
    encoded.parent.mkdir()
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "noise.wav", "-b:a", "128k", encoded], check=True)
    file = SoundFolder(str(tmp_path / "noises"), "noise_dir").files[0]
    assert file.samples is None
    heard = file.stretch(0.5, 8_000, RATE)
    lags = [np.corrcoef(heard, noise[start : start + 8_000])[0, 1] for start in range(155_500, 157_500)]
    assert max(lags) > 0.9  # the codec loses some, and its estimate of the length moves the place
    np.testing.assert_array_equal(heard, file.stretch(0.5, 8_000, RATE))


def test_silence_on_either_side_leaves_the_clip_as_it_is(tmp_path):
    clip, dither = random_sound(0.1), np.tile(np.float32([0, 1 / 32768]), 4_000)
    for number, silence in enumerate((np.zeros(8_000, np.float32), dither, np.full(8_000, 0.3, np.float32))):
        write(tmp_path / f"{number}" / "silent.wav", silence)
        np.testing.assert_array_equal(noisy(tmp_path / f"{number}", clip), clip)
    write(tmp_path / "noises" / "noise.wav", random_sound(1))
    for silence in (np.zeros(1_600, np.float32), dither[:1_600]):
        np.testing.assert_array_equal(noisy(tmp_path / "noises", silence), silence)


def test_share_ratios_and_files_are_drawn_uniformly_and_the_draws_of_others_stay(tmp_path):
    augmentation = Augmentation(noise_dir=str(tmp_path), noise_probability=0.3, min_snr_db=-5, max_snr_db=10)
    drawn = [augmentation.draw(0, 0, index, 9)["background_noise"] for index in range(1_500)]
    ratios = [one["snr_db"] for one in drawn if one["snr_db"] is not None]
    assert len(ratios) / 1_500 == pytest.approx(0.3, abs=0.047)  # 4 standard deviations
    assert stats.kstest(ratios, stats.uniform(-5, 15).cdf).pvalue > 1e-3
    for name in ("file", "place"):
        assert stats.kstest([one[name] for one in drawn], "uniform").pvalue > 1e-3
    others = {"mixup_probability": 0.5}
    both = Augmentation(noise_dir=str(tmp_path), noise_probability=0.3, **others).draw(0, 0, 5, 9)
    assert both["mixup"] == Augmentation(**others).draw(0, 0, 5, 9)["mixup"]
    assert Augmentation(noise_probability=1).active == ()


def test_files_that_cannot_be_used_are_one_message(tmp_path):
    (tmp_path / "empty").mkdir()
    folder = tmp_path / "noises"
    write(folder / "good.wav", random_sound(1))
    (folder / "bad.wav").write_bytes(b"RIFF" + bytes(40))
    (folder / "none.flac").write_bytes(b"")
    for path, message in (
        (tmp_path / "empty", "--noise_dir .*empty gives no sounds.* hold no audio file"),
        (tmp_path / "nowhere", "--noise_dir .*nowhere gives no sounds.*no file or folder"),
        (folder, r"2 of 3 files of --noise_dir .* cannot be used\. .*bad\.wav.*none\.flac.* Mend or remove them\."),
    ):
        with pytest.raises(AudioError, match=message):
            Augmentation(noise_dir=str(path)).look_at_files()
    (folder / "none.flac").unlink()
    write(folder / "bad.wav", np.full(8_000, np.nan, np.float32))
    with pytest.raises(AudioError, match=r"bad\.wav holds NaN"):
        noisy(folder, random_sound(0.1))
    assert Augmentation(noise_dir=str(folder)).look_at_files() == [f"noises: 2 file(s), 1.5 s, in {folder}"]
    (folder / "good.wav").unlink()
    step = BackgroundNoise(noise_dir=str(folder))
    assert step.look_at_files()
    (folder / "bad.wav").unlink()
    with pytest.raises(AudioError, match=r"bad\.wav cannot be decoded"):
        step.change_waveform(TrainingClip(random_sound(0.1), 0, RATE), {"snr_db": 1, "file": 0, "place": 0}, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"noise_probability": 1.5}, "noise_probability=1.5 is a share"),
        ({"noise_probability": -1}, "noise_probability=-1 is negative"),
        ({"min_snr_db": 20, "max_snr_db": -5}, "min_snr_db=20 is above max_snr_db=-5"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    for make in (Augmentation, AugmentationArguments):
        with pytest.raises(ValueError, match=message):
            make(noise_dir="noises", **fields)
    with pytest.raises(ValueError, match=r"noise_probability change.* Leave out --noise_dir and --noise_probability;"):
        Augmentation(noise_dir="noises").refuse_without_waveforms()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    write_tones(folder / "clips", count=6)
    for number, seconds in enumerate((3, 0.2)):
        write(folder / "noises" / f"{number}.wav", random_sound(seconds, 22_050, seed=number), 22_050)
    response = np.zeros(2_000, np.float32)
    response[[50, 900, 1_700]] = 0.5, 0.2, -0.1
    write(folder / "rooms" / "hall.wav", response)
    return folder


def test_trainings_resume_bit_for_bit_with_any_workers_wherever_the_sounds_lie(sounds, tmp_path, capsys):
    fields = {
        "mixup_probability": 0.5, "noise_dir": sounds / "noises", "noise_probability": 0.7,
        "impulse_response_dir": sounds / "rooms", "save_total_limit": 2, "memory_for_clips": 0, "eval_fraction": 0.3,
    }  # fmt: skip
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert main(flags(sounds / "clips", whole, **fields)) == 0
    said = capsys.readouterr().out
    assert f"noises: 2 file(s), 3.2 s, in {sounds / 'noises'}" in said
    assert f"impulse responses: 1 file(s), 0.1 s, in {sounds / 'rooms'}" in said
    steps = sorted(whole.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.copytree(steps[0], resumed / steps[0].name)
    # Elsewhere, read by a process of its own, kept in memory: nothing of this changes a sample.
    moved = shutil.copytree(sounds / "noises", tmp_path / "other")
    again = fields | {"noise_dir": moved, "memory_for_clips": 0.25, "dataloader_num_workers": 1}
    assert main(flags(sounds / "clips", resumed, **again, resume_from_checkpoint="true")) == 0
    for name in ("model.safetensors", f"{steps[1].name}/optimizer.pt"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()

    summary = (whole / "run_summary.json").read_text()
    recorded = json.loads(summary)["training"]["augmentation"]
    assert (recorded["noise_dir"], recorded["noises"]["files"], recorded["max_snr_db"]) == ("noises", 2, 20)
    assert str(sounds) not in summary + (whole / "README.md").read_text()
    assert "| augmentation: noise probability | 0.7 |" in (whole / "README.md").read_text()

    write(moved / "third.wav", random_sound(1))
    shutil.rmtree(resumed)
    shutil.copytree(steps[0], resumed / steps[0].name)
    assert main(flags(sounds / "clips", resumed, **again, resume_from_checkpoint="true")) == 2
    assert "training settings" in capsys.readouterr().err
