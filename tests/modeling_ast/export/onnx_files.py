"""What is looked at in ONNX files, and what goes through them."""

import numpy as np

from modeling_ast.quantization import Candidate

LABELS = ("clap", "Überschlag", "tom-tom")
MAX_LENGTH = 96
CANDIDATES = ["QInt8", "QInt8 reduced range", "QUInt8", "QUInt8 reduced range"]


def noise(frames, seed):
    """Features of the scale that normalising gives, in long waves so that neighbouring frames are alike."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(1, frames, 128)) / 2 + generator.normal(size=(1, 1, 128))).astype(np.float32)


def run(path, values, mask):
    """Logits that ONNX Runtime gives, `(batch, labels)`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_values": values, "attention_mask": mask})[0]


def metadata(path):
    """What a file says of itself."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def candidate(name="QInt8", **changes):
    values = {
        "weight_type": "QInt8",
        "reduce_range": False,
        "num_bytes": 26,
        "size_ratio": 0.26,
        "seconds": 1.0,
    }
    values |= {"speedup": 2.0, "largest_difference": 0.1, "labels_kept": 1000}
    return Candidate(name=name, **values | changes)
