"""What is said of each of the files of `benchmarks/flawed_audio.py`, as it begins."""

from benchmarks.flawed_audio import RATE, write_flawed

__all__ = ["RATE", "WORDS", "write_flawed"]

WORDS = {
    "cut_off": "cut_off.wav is cut off: 0.40 of the 0.80 s that its header announces are there",
    "damaged": "damaged.flac is damaged: ",
    "left_out": "left_out.wav: recording 2 of the 2 that are joined in it is not heard",
    "cancelled": "cancelled.wav: its 2 channels cancel, and their mean, which is what is heard, is silent. Pass --channels left.",
    "silent": "silent.wav is silent. Check the microphone and its volume",
    "header": "header.wav has a wrong header",
}
