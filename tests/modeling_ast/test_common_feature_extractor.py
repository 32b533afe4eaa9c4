"""The common feature-extractor tests of Transformers, by the library's names, on a tiny configuration, as those in test_common_model.py."""

import json
import types

import numpy as np
import pytest
import torch
from transformers import BatchFeature

from modeling_ast import ASTFeatureExtractor, ASTModel


class ASTFeatureExtractionTester:
    """Settings far from the defaults, and waveforms of several lengths."""

    num_samples = (400, 1200, 2000, 4000)  # one window, then more; the frames follow from them
    max_samples = max(num_samples)
    settings = types.MappingProxyType(
        {
            "num_mel_bins": 20,
            "max_length": 30,
            "padding_value": -1.5,
            "mean": -3.0,
            "std": 2.0,
            "return_attention_mask": True,
        }
    )

    def frames(self) -> list[int]:
        return [1 + (count - 400) // 160 for count in self.num_samples]  # 25 ms every 10 ms at 16 kHz

    def extractor(self, **changes) -> ASTFeatureExtractor:
        return ASTFeatureExtractor(**{**self.settings, **changes})

    def padding(self) -> float:
        """What stands at padding in normalised features."""
        return (self.settings["padding_value"] - self.settings["mean"]) / (2 * self.settings["std"])

    def inputs(self, equal_length: bool = False, as_arrays: bool = False) -> list:
        generator = np.random.default_rng(0)
        counts = [self.max_samples] * len(self.num_samples) if equal_length else self.num_samples
        waveforms = [generator.uniform(-1, 1, count).astype(np.float32) for count in counts]
        return waveforms if as_arrays else [waveform.tolist() for waveform in waveforms]


@pytest.fixture
def extraction():
    return ASTFeatureExtractionTester()


class TestASTFeatureExtractor:
    def test_feat_extract_common_properties(self, extraction):
        extractor = extraction.extractor(padding="longest", do_normalize=False)
        changes = {"padding": "longest", "do_normalize": False, "feature_size": 1, "sampling_rate": 16_000}
        for name, value in {**extraction.settings, **changes}.items():
            assert getattr(extractor, name) == value

    def test_init_without_params(self):
        assert ASTFeatureExtractor().model_input_names[0] == ASTModel.main_input_name

    def test_feat_extract_to_json_string(self, extraction):
        settings = json.loads(extraction.extractor().to_json_string())
        assert {name: settings[name] for name in extraction.settings} == dict(extraction.settings)

    def test_feat_extract_to_json_file(self, extraction, tmp_path):
        first = extraction.extractor()
        first.to_json_file(tmp_path / "settings.json")
        assert ASTFeatureExtractor.from_json_file(tmp_path / "settings.json").to_dict() == first.to_dict()

    def test_feat_extract_from_and_save_pretrained(self, extraction, tmp_path):
        first = extraction.extractor()
        (file,) = first.save_pretrained(tmp_path)
        assert file == str(tmp_path / "preprocessor_config.json")
        assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == json.loads(first.to_json_string())
        assert ASTFeatureExtractor.from_pretrained(tmp_path).to_dict() == first.to_dict()

    @pytest.mark.parametrize("return_tensors", [None, "np"])
    def test_batch_feature(self, extraction, return_tensors):
        """The library wraps waveforms in its container; here it is what comes out of the extractor."""
        batch = extraction.extractor()(
            extraction.inputs(equal_length=True), sampling_rate=16_000, return_tensors=return_tensors
        )
        assert type(batch) is BatchFeature
        assert list(batch) == ["input_values", "attention_mask"]
        assert type(batch.input_values) is (np.ndarray if return_tensors else list)
        assert np.shape(batch["input_values"]) == (len(extraction.num_samples), 30, 20)

    def test_batch_feature_pt(self, extraction):
        batch = extraction.extractor()(extraction.inputs(equal_length=True), sampling_rate=16_000, return_tensors="pt")
        assert batch.input_values.shape == (len(extraction.num_samples), 30, 20)
        assert batch.to(torch.float64).input_values.dtype is torch.float64

    def test_call(self, extraction):
        lists, arrays = extraction.inputs(), extraction.inputs(as_arrays=True)
        extractor = extraction.extractor()

        def features(raw_speech, **kwargs):
            return extractor(raw_speech, sampling_rate=16_000, return_tensors="np", **kwargs).input_values

        assert np.array_equal(features(lists[0]), features(arrays[0]))
        assert np.array_equal(features(lists, padding=True), features(arrays, padding=True))
        equal = extraction.inputs(equal_length=True, as_arrays=True)
        assert np.array_equal(features(np.stack(equal)), features(equal)), "a 2-D array is a batch"

    def check_padding(self, extraction, waveforms):
        """The library pads what is given; here waveforms become features first, and it is these that are padded, before
        they are normalised. A clip of less than a patch is padded even without padding."""
        extractor, frames = extraction.extractor(), extraction.frames()
        unpadded = extractor(waveforms, sampling_rate=16_000, padding=False).input_values
        assert [len(clip) for clip in unpadded] == [max(count, 16) for count in frames]
        longest = extractor(waveforms, sampling_rate=16_000, padding="longest", return_tensors="np").input_values
        assert longest.shape == (len(frames), max(frames), 20)
        assert np.array_equal(
            longest, extractor(waveforms, sampling_rate=16_000, padding=True, return_tensors="np").input_values
        )
        default = extractor(waveforms, sampling_rate=16_000, return_tensors="np").input_values
        assert default.shape == (len(frames), 30, 20)
        further = extractor(waveforms, sampling_rate=16_000, max_length=50, return_tensors="np").input_values
        assert further.shape == (len(frames), 50, 20)
        for clip, count in enumerate(frames):
            for padded in (longest, default, further):
                assert np.array_equal(padded[clip, :count], unpadded[clip][:count])
                assert np.allclose(padded[clip, count:], extraction.padding())

    def test_padding_from_list(self, extraction):
        self.check_padding(extraction, extraction.inputs())

    def test_padding_from_array(self, extraction):
        self.check_padding(extraction, extraction.inputs(as_arrays=True))

    def check_truncation(self, extraction, waveforms):
        """The library truncates only with `padding="max_length"` and only if told; here a clip is cut at `max_length`
        with every kind of padding unless told otherwise."""
        extractor, frames = extraction.extractor(), extraction.frames()
        shortest_that_cuts = 18
        assert min(frames) < shortest_that_cuts < max(frames)
        whole = extractor(
            waveforms, sampling_rate=16_000, padding="longest", truncation=False, max_length=18, return_tensors="np"
        ).input_values
        assert whole.shape[1] == max(frames)
        for padding in ("longest", "max_length"):
            cut = extractor(waveforms, sampling_rate=16_000, padding=padding, max_length=18, return_tensors="np")
            assert np.array_equal(cut.input_values, whole[:, :18])
        lengths = [
            len(c) for c in extractor(waveforms, sampling_rate=16_000, padding=False, max_length=18).input_values
        ]
        assert lengths == [min(max(count, 16), 18) for count in frames]

    def test_truncation_from_list(self, extraction):
        self.check_truncation(extraction, extraction.inputs())

    def test_truncation_from_array(self, extraction):
        self.check_truncation(extraction, extraction.inputs(as_arrays=True))

    def test_padding_accepts_tensors_pt(self, extraction):
        extractor, arrays = extraction.extractor(), extraction.inputs(as_arrays=True)
        tensors = [torch.from_numpy(array) for array in arrays]
        expected = extractor(arrays, sampling_rate=16_000, padding="longest", return_tensors="np")
        found = extractor(tensors, sampling_rate=16_000, padding="longest", return_tensors="pt")
        for name in ("input_values", "attention_mask"):
            assert np.array_equal(found[name].numpy(), expected[name])

    @pytest.mark.parametrize("padding", ["longest", "max_length"])
    def test_attention_mask(self, extraction, padding):
        batch = extraction.extractor()(extraction.inputs(), sampling_rate=16_000, padding=padding, return_tensors="np")
        assert batch.attention_mask.shape == batch.input_values.shape[:2]
        assert batch.attention_mask.sum(axis=1).tolist() == extraction.frames()
        assert batch.attention_mask.dtype == np.int64
        for mask, count in zip(batch.attention_mask, extraction.frames(), strict=True):
            assert mask[:count].all(), "real frames come first"

    def test_attention_mask_with_truncation(self, extraction):
        batch = extraction.extractor()(extraction.inputs(), sampling_rate=16_000, max_length=18, return_tensors="np")
        assert batch.attention_mask.shape == (len(extraction.num_samples), 18)
        assert batch.attention_mask.sum(axis=1).tolist() == [min(count, 18) for count in extraction.frames()]

    def test_double_precision_pad(self, extraction):
        waveforms = [array.astype(np.float64) for array in extraction.inputs(as_arrays=True)]
        for given in (waveforms, [waveform.tolist() for waveform in waveforms]):
            for return_tensors, dtype in (("np", np.float32), ("pt", torch.float32)):
                batch = extraction.extractor()(given, sampling_rate=16_000, return_tensors=return_tensors)
                assert batch.input_values.dtype == dtype
