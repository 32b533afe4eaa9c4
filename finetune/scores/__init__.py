"""How well a model does: metrics, the scoring of clips, thresholds of labels."""
