"""Rooms: convolution as SciPy's, a direct sound that keeps place, level and sign, and what is no impulse response."""

import numpy as np
import pytest
import soundfile
from scipy.signal import convolve

from finetune.augmentations.augmentation import Augmentation
from finetune.augmentations.augmentation_step import TrainingClip
from finetune.augmentations.room import Room
from modeling_ast.audio import AudioError

RATE = 16_000
CLIP = (0.1 * np.random.default_rng(0).standard_normal(8_000)).astype(np.float32)


def write(folder, response: np.ndarray, rate: int = RATE, name: str = "room.wav"):
    folder.mkdir(exist_ok=True)
    soundfile.write(folder / name, response.astype(np.float32), rate, subtype="FLOAT")
    return folder


def in_room(folder, clip: np.ndarray = CLIP) -> np.ndarray:
    step = Room(impulse_response_dir=str(folder))
    return step.change_waveform(TrainingClip(clip, 0, RATE), {"file": 0.0}, None).waveform


@pytest.mark.parametrize("direct", [0, 300, 9_000])
@pytest.mark.parametrize("level", [1.0, -0.02])
def test_a_clip_stays_as_it_is_where_there_is_no_reverberation(tmp_path, direct, level):
    response = np.zeros(10_000)
    response[direct] = level
    np.testing.assert_allclose(in_room(write(tmp_path, response)), CLIP, atol=1e-6)


@pytest.mark.parametrize("taps", [500, 30_000])
def test_reverberation_is_that_of_scipy_beside_a_direct_sound_of_its_own_level(tmp_path, taps):
    generator = np.random.default_rng(1)
    response = 0.05 * generator.standard_normal(taps) * np.exp(-np.arange(taps) / 3_000)
    response[200] = 0.4
    expected = convolve(CLIP.astype(np.float64), response / response[200])[200 : 200 + len(CLIP)]
    changed = in_room(write(tmp_path, response))
    np.testing.assert_allclose(changed, expected, atol=2e-6)
    assert changed.dtype == np.float32
    # One ear of two, and what comes after the clip has no part in it.
    second = generator.standard_normal(taps)
    both = write(tmp_path / "both", np.stack([response, second], axis=1))
    np.testing.assert_array_equal(in_room(both), changed)


def test_a_response_of_another_rate_has_its_echo_at_its_time(tmp_path):
    response = np.zeros(48_000)
    response[480], response[480 + 4_800] = 0.5, 0.25  # 100 ms later, half as loud
    impulse = np.zeros(8_000, np.float32)
    impulse[1_000] = 1
    changed = in_room(write(tmp_path, response, 48_000), impulse)
    assert changed[1_000] == pytest.approx(1, abs=1e-3)
    assert np.abs(changed).argsort()[-2:].tolist() == [2_600, 1_000]
    assert changed[2_600] == pytest.approx(0.5, abs=1e-3)


def test_share_is_drawn_and_bad_responses_are_one_message(tmp_path):
    augmentation = Augmentation(impulse_response_dir=str(tmp_path), impulse_response_probability=0.25)
    drawn = [augmentation.draw(0, 0, index, 9)["room"]["file"] for index in range(1_000)]
    assert sum(file is not None for file in drawn) / 1_000 == pytest.approx(0.25, abs=0.055)
    write(tmp_path, np.eye(1, 500).ravel())
    write(tmp_path, np.zeros(500), name="silent.wav")
    with pytest.raises(AudioError, match=r"1 of 2 files of --impulse_response_dir .*silent\.wav.* Mend or remove"):
        augmentation.look_at_files()
    write(tmp_path, np.ones(31 * RATE) * 0.1, name="long.wav")
    with pytest.raises(AudioError, match=r"1 of 3 files .*long\.wav lasts 31 s.*: noises go into --noise_dir\."):
        Augmentation(impulse_response_dir=str(tmp_path)).look_at_files()
    for value, words in ((1.5, "is a share"), (-0.5, "is negative")):
        with pytest.raises(ValueError, match=f"impulse_response_probability={value} {words}"):
            Augmentation(impulse_response_dir=str(tmp_path), impulse_response_probability=value)
