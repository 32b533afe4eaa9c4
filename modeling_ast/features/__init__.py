"""Log-mel features from waveforms, as Kaldi computes them."""
