"""What tagging refuses, whoever notices it."""


class TaggingError(ValueError):
    """An option that cannot be used for tagging with a model; the message says what to pass instead."""
