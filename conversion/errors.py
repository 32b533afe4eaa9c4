"""The one error of this package."""


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message says what was given, what was expected and what to type."""
