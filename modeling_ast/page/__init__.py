"""A page that hears in the browser: static files around a model of `ast-export --waveform`, for any host of files."""
