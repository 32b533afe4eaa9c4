"""Where windows lie on a waveform, by the rule that `AudioTagger.tag_files` states."""


def window_starts(num_samples, window_samples, hop_samples):
    last = max(num_samples - window_samples, 0)
    return [*range(0, last, hop_samples), last]
