"""Data sets that yield clips for training and scoring beside [`finetune.data`]: features, streams, a cache of waveforms."""
