"""The way from samples to scores around an exported transformer, as nodes of the same ONNX graph.

Before it: frames, Kaldi's log-mel filter bank, normalisation, padding and mask as the feature extractor makes them. Behind it:
sigmoid or softmax. All that is linear in a frame (pre-emphasis, window, Fourier transform) is one matrix, made in float64. ONNX's
own `DFT` is not used: `MatMul` is there in every runtime, and faster (docs/deploy.md). The mean of a frame is taken off first, as
a constant offset would cost digits in the matrix.
"""

import numpy as np
from transformers.utils import PaddingStrategy

from .features.kaldi import (
    PRE_EMPHASIS,
    SMALLEST_ENERGY,
    fft_length,
    frame_length,
    frame_shift,
    mel_filter_bank,
)

PREFIX = "waveform/"  # of the names of nodes and values, none of which the transformer has
SCORES = "scores"
ACTIVATIONS = {  # nodes that make scores of logits, as modeling_ast.scores does
    "multi_label_classification": ("Sigmoid", {}),
    "single_label_classification": ("Softmax", {"axis": -1}),
    "regression": ("Identity", {}),
}


def spectrum_matrix(sampling_rate: int, num_mel_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Make the matrices by which frames become mel energies: `square(frames @ first) @ second`.

    Args:
        sampling_rate (`int`): in Hz.
        num_mel_bins (`int`): mel bins.

    Returns:
        Two `np.ndarray` of float32: of shape `(window length, 2 * bins)`, cosines and sines of the bins of the Fourier transform
        that any filter covers, behind pre-emphasis and window; and of shape `(2 * bins, num_mel_bins)`, the filters for both.

    Source: Kaldi's `compute-fbank-feats` as `torchaudio.compliance.kaldi.fbank` computes it.
    """
    length, points = frame_length(sampling_rate), fft_length(sampling_rate)
    filters = mel_filter_bank(num_mel_bins, sampling_rate).numpy()
    covered = np.flatnonzero(filters.any(axis=1))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))
    emphasis = np.eye(length) - PRE_EMPHASIS * np.eye(length, k=1)  # sample j less a part of sample j - 1
    # In whole numbers first, so that the angle of a late sample has all its digits.
    angles = 2 * np.pi / points * (np.arange(length)[:, None] * covered % points)
    waves = np.concatenate([np.cos(angles), -np.sin(angles)], axis=1)
    matrix = emphasis @ (window[:, None] * waves)  # the window is zero at the first sample, which has none before it
    return matrix.astype(np.float32), np.concatenate([filters[covered]] * 2)


class _Nodes:
    """Nodes and constants of a graph, each named by what it gives."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value, dtype) -> str:
        from onnx import numpy_helper

        name = f"{PREFIX}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def float(self, value: float) -> str:
        return self.constant(value, np.float32)

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes) -> str:
        from onnx import helper

        name = name or f"{PREFIX}{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"{PREFIX}node_{len(self.nodes)}", **attributes))
        return name


def with_waveform(transformer, config, feature_extractor, problem_type: str, metadata: dict[str, str]):
    """Put the way from samples to features before an exported transformer, and that from logits to scores behind it.

    Args:
        transformer (`onnx.ModelProto`): takes `input_values` and `attention_mask`, gives `logits`; of any kind of weights. It is
            left as it is.
        config ([`ASTConfig`]): the model's.
        feature_extractor ([`ASTFeatureExtractor`]): the one that was saved with it.
        problem_type (`str`): see [`problem_type_of`].
        metadata (`dict[str, str]`): what the file says of itself.

    Returns:
        `onnx.ModelProto` that takes `waveform` of shape `(batch, samples)`, float32, and `lengths` of shape `(batch,)`, int64: how
        many samples of each row are the clip's. Gives `scores` of shape `(batch, labels)`, or `(batch, columns, labels)`.
    """
    from onnx import ModelProto, TensorProto, helper

    rate, patch = feature_extractor.sampling_rate, config.patch_size
    length, shift = frame_length(rate), frame_shift(rate)
    nodes = _Nodes()
    zero, one, minus_one = nodes.integers(0), nodes.integers(1), nodes.integers(-1)
    zero_scalar, one_scalar = nodes.constant(0, np.int64), nodes.constant(1, np.int64)
    int_length, int_shift = nodes.integers(length), nodes.integers(shift)

    def count_frames(samples: str) -> str:
        beyond = nodes.add("Max", nodes.add("Sub", samples, int_length), zero)
        return nodes.add("Add", nodes.add("Div", beyond, int_shift), one)

    # Frames. What is shorter than a window is filled up with zeros.
    samples = nodes.add("Shape", "waveform", start=1, end=2)
    missing = nodes.add("Max", nodes.add("Sub", int_length, samples), zero)
    padded = nodes.add("Pad", "waveform", nodes.add("Concat", nodes.integers(0, 0, 0), missing, axis=0))
    num_frames = count_frames(samples)
    real = count_frames(nodes.add("Min", "lengths", samples))  # (batch,)
    steps = nodes.add("Range", zero_scalar, nodes.add("Squeeze", num_frames, zero), one_scalar)
    begins = nodes.add("Unsqueeze", nodes.add("Mul", steps, int_shift), one)
    places = nodes.add("Add", begins, nodes.constant(np.arange(length), np.int64))
    frames = nodes.add("Gather", padded, places, axis=1)  # (batch, frames, window length)

    # Log-mel energies.
    matrix, filters = spectrum_matrix(rate, config.num_mel_bins)
    centered = nodes.add("Sub", frames, nodes.add("ReduceMean", frames, minus_one, keepdims=1))
    spectrum = nodes.add("MatMul", centered, nodes.constant(matrix, np.float32))
    power = nodes.add("Mul", spectrum, spectrum)
    energies = nodes.add("MatMul", power, nodes.constant(filters, np.float32))  # (batch, frames, mel bins)
    log_mel = nodes.add("Log", nodes.add("Max", energies, nodes.float(SMALLEST_ENERGY)))

    # Padding and normalisation.
    scale, offset = 1.0, 0.0
    if feature_extractor.do_normalize:
        scale, offset = 1 / (2 * feature_extractor.std), -feature_extractor.mean / (2 * feature_extractor.std)
    normalized = nodes.add("Add", nodes.add("Mul", log_mel, nodes.float(scale)), nodes.float(offset))
    column_of_real = nodes.add("Unsqueeze", real, one)  # (batch, 1)
    is_real = nodes.add("Unsqueeze", nodes.add("Less", steps, column_of_real), minus_one)
    padding = nodes.float(scale * feature_extractor.padding_value + offset)
    filled = nodes.add("Where", is_real, normalized, padding)
    hears_padding = heard_padding(feature_extractor)
    fewest = nodes.integers(max(config.max_length, patch) if hears_padding else patch)
    lacking = nodes.add("Max", nodes.add("Sub", fewest, num_frames), zero)
    pads = nodes.add("Concat", nodes.integers(0, 0, 0, 0), lacking, zero, axis=0)
    nodes.add("Pad", filled, pads, padding, name="input_values")

    # Which frames are heard.
    heard = nodes.add("Max", column_of_real, fewest) if hears_padding else column_of_real
    total = nodes.add("Squeeze", nodes.add("Add", num_frames, lacking), zero)
    all_steps = nodes.add("Range", zero_scalar, total, one_scalar)
    nodes.add("Cast", nodes.add("Less", all_steps, heard), to=TensorProto.INT64, name="attention_mask")

    behind = _Nodes()
    kind, attributes = ACTIVATIONS[problem_type]
    behind.nodes.append(helper.make_node(kind, ["logits"], [SCORES], name=f"{PREFIX}{SCORES}", **attributes))

    joined = ModelProto()
    joined.CopyFrom(transformer)
    graph = joined.graph
    between = list(graph.node)
    sizes = list(graph.output[0].type.tensor_type.shape.dim)[1:]
    sizes = [each.dim_value or "columns" for each in sizes]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*nodes.nodes, *between, *behind.nodes])
    graph.initializer.extend(nodes.constants)
    graph.input.extend(
        [
            helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["batch", *sizes]))
    helper.set_model_props(joined, metadata)
    return joined


def heard_padding(feature_extractor) -> bool:
    """Tell whether a model hears the padding of short clips, as it did in training.

    Args:
        feature_extractor ([`ASTFeatureExtractor`]): the model's own.

    Returns:
        `bool`: else padding is masked, and it makes no difference how much of it there is.
    """
    return (
        feature_extractor.padding == PaddingStrategy.MAX_LENGTH.value and not feature_extractor.return_attention_mask
    )
