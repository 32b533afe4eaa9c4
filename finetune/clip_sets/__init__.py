"""Data sets that yield clips for training and scoring: waveforms, features, streams, a cache; checks, augmentation, batches."""
