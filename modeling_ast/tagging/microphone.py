"""Sound of a microphone or another recording device, as it comes, through PortAudio by the package `sounddevice`."""

import queue
from collections.abc import Iterator

import numpy as np

from ..audio import AudioError
from ..audio.channels import channel_number
from ..audio.resampling import checked_rate
from ..system.installation import INSTALL_PORTAUDIO, install_command

BLOCK_SECONDS = 0.02  # of sound that comes at once
MOST_CHANNELS = 2  # that are heard where none is named: some systems offer dozens, nearly all of them silent
PATIENCE = 0.5  # seconds after which it is looked whether the device is still there


class Microphone:
    """A recording device.

    Args:
        device (`str`, *optional*): its number or a part of its name; the system's own choice if not given.
        channels (`str` or `int`, *optional*, defaults to `"mean"`): which of its channels are wanted; see [`AudioReader`].

    Attributes:
        sampling_rate (`int`): of the device, in Hz.
        name (`str`): what the system calls it.
        losses (`int`): how often sound was lost because nobody took it in time.

    Raises:
        AudioError: if `sounddevice` cannot be imported, or there is no such device.
    """

    def __init__(self, device: str | None = None, channels: str | int = "mean"):
        self._library = _sounddevice()
        self._device = int(device) if device is not None and device.isdecimal() else device
        try:
            described = self._library.query_devices(self._device, kind="input")
        except (ValueError, self._library.PortAudioError) as error:
            raise self._not_there(str(error)) from error
        self.name = described["name"]
        self.sampling_rate = checked_rate(round(described["default_samplerate"]), self.name)
        self.channels = min(described["max_input_channels"], max(channel_number(channels) or 0, MOST_CHANNELS))
        self.losses = 0

    def chunks(self) -> Iterator[np.ndarray]:
        """Record.

        Yields:
            Samples of shape `(samples, channels)`, float32, full scale at -1 and 1, until the device is gone.

        Raises:
            AudioError: if it cannot be opened.
        """
        heard: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

        def take(samples, _frames, _time, status):
            self.losses += bool(status.input_overflow)
            heard.put(samples.copy())  # the library's own memory, which it writes to again

        try:
            stream = self._library.InputStream(
                samplerate=self.sampling_rate, blocksize=round(BLOCK_SECONDS * self.sampling_rate), device=self._device,
                channels=self.channels, dtype="float32", callback=take,
            )  # fmt: skip
            stream.start()
        except self._library.PortAudioError as error:
            raise AudioError(f"{self.name} cannot be opened: {error}. Another program may hold it.") from error
        try:
            while True:
                try:
                    yield heard.get(timeout=PATIENCE)
                except queue.Empty:
                    if not stream.active:
                        return
        finally:
            stream.close()

    def _not_there(self, said: str) -> AudioError:
        devices = [f"{each['index']} {each['name']}" for each in self._inputs()]
        if not devices:
            return AudioError(
                f"There is no device here to record from ({said}). Plug in a microphone, or pipe a WAV into ast-tag -."
            )
        wanted = "no device that is chosen by itself" if self._device is None else f"no one device {self._device!r}"
        return AudioError(
            f"There is {wanted} to record from ({said}). Pass --microphone with the number or a part of the name of one of: "
            f"{', '.join(devices)}."
        )

    def _inputs(self) -> list[dict]:
        try:
            return [each for each in self._library.query_devices() if each["max_input_channels"] > 0]
        except self._library.PortAudioError:
            return []


def _sounddevice():
    try:
        import sounddevice
    except ImportError as error:
        raise AudioError(
            f"--microphone needs the package sounddevice, which cannot be imported ({error}). Type: {install_command('microphone')}"
        ) from error
    except OSError as error:  # of the package, where PortAudio itself is missing
        raise AudioError(f"--microphone: {error}. Install it, on {INSTALL_PORTAUDIO}") from error
    return sounddevice
