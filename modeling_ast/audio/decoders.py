"""Decode a recording: with libsndfile where it reads it, else with FFmpeg; all that is there, and in words what is not.

libsndfile is given what it reads rightly: a header with true sizes, a stream of whole frames. What it cannot read goes to
torchcodec, and what torchcodec gives less of than the container announces to the `ffmpeg` program, where that is there.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import ffmpeg, flac, formats, mp3, ogg
from .content import Content
from .errors import CUT_OFF, DAMAGED, HEADER, LEFT_OUT, AudioError, AudioNote
from .ffmpeg import FFMPEG_COMMANDS, FFmpegError, FFmpegMissingError, FFmpegSamples
from .limits import READ_AT_ONCE, READ_PER_BYTE, Allowance
from .sample_regions import patched, sample_region
from .tags import leading_tags

FRAMES_OF_TAG = 2  # that the counts of MP3 taggers may be apart: some count the tag itself
# Seconds that torchcodec may fall short of the container before the ffmpeg program is asked.
LESS_THAN_ANNOUNCED = 0.02
MISSED_SHARE, MISSED_SECONDS = 0.01, 0.3  # of what a container announces: encoders' padding is less
SCRAMBLED_SHARE = 0.9  # what torchcodec gives less of than that may be pieces without what lies between them
SPOTS_NAMED = 3
NO_DAMAGE = ogg.PageDamage()
FRAMES_LOST = 100  # times as many as the size of a damaged spot says that an MP3 may say it has lost there
LONGEST_FLAC = 1 << 36  # samples that a header can announce
AGAIN = "Copy or download it again."


@dataclass(frozen=True)
class DecodedAudio:
    """What a file holds, as it is.

    Args:
        samples (`np.ndarray` of shape `(samples, channels)`): float32, full scale at -1 and 1.
        sampling_rate (`int`): in Hz.
        notes (`tuple[AudioNote, ...]`): what of the file was not heard, and what its header says wrongly.
    """

    samples: np.ndarray
    sampling_rate: int
    notes: tuple[AudioNote, ...] = ()


@dataclass
class Stream:
    """What libsndfile is to decode.

    Args:
        content ([`Content`]): a file that it reads rightly.
        notes (`list[AudioNote]`): what is known before it is decoded.
        silences (`list[tuple[float, float]]`): where samples are lost, in seconds of the recording, and for how long; so
            much silence is put there, so that what follows keeps its time.
        announced_share (`float`, *optional*): of a stream that is cut off, how many times as much was announced.
        ends_early (`bool`): whether it is cut off, which shows even where no length was announced.
        skipped (`int`): samples at the beginning of what libsndfile decodes that are not the recording's.
        samples (`int`, *optional*): how many there are, where libsndfile announces others.
        check_holes (`bool`): whether fewer samples than libsndfile announces are lost pages of Ogg.
        of_mp3 ([`Mp3Stream`], *optional*): its frames, if it is such a stream.
    """

    content: Content
    notes: list[AudioNote] = field(default_factory=list)
    silences: list[tuple[float, float]] = field(default_factory=list)
    announced_share: float | None = None
    skipped: int = 0
    samples: int | None = None
    ends_early: bool = False
    check_holes: bool = False
    of_mp3: mp3.Mp3Stream | None = None


def decode_recording(
    content: Content, audio_format: str | None, name: str, seconds: float | None, allowance: Allowance
) -> DecodedAudio:
    """Decode one recording.

    Args:
        content ([`Content`]): the file.
        audio_format (`str`, *optional*): from [`sniff_format`].
        name (`str`): what messages call it.
        seconds (`float`, *optional*): how much of its beginning is wanted; all if not given.
        allowance ([`Allowance`]): what it may become.

    Returns:
        [`DecodedAudio`].

    Raises:
        AudioError: if it cannot be decoded, or becomes more than it may.
    """
    import soundfile

    try:
        if audio_format == "FLAC" and (whole := _whole_flac(content, seconds, allowance)) is not None:
            return whole
        decoded = [
            _decode_stream(stream, name, seconds, allowance)
            for stream in streams_of(content, audio_format, name, seconds)
        ]
        return one_after_the_other(decoded, name, allowance)
    except soundfile.SoundFileError as error:
        if audio_format == "FLAC" and (info := flac.stream_info(content)) is not None:
            stream = _mended_flac(content, info, name)
            if stream is not None:
                with suppress(soundfile.SoundFileError):  # such as 32 bits, which libsndfile has not
                    return _decode_stream(stream, name, seconds, allowance)
        # The text of an error about a stream begins with the stream's address; what went wrong comes last.
        soundfile_words = str(error).rpartition(">: ")[2].rpartition("': ")[2].rstrip(".")
    return _decode_with_ffmpeg(content, audio_format, name, soundfile_words, seconds, allowance)


def streams_of(content: Content, audio_format: str | None, name: str, seconds: float | None = None) -> list[Stream]:
    """Prepare a recording for libsndfile.

    Args:
        content ([`Content`]): see [`decode_recording`].
        audio_format (`str`, *optional*): see [`decode_recording`].
        name (`str`): see [`decode_recording`].
        seconds (`float`, *optional*): see [`decode_recording`].

    Returns:
        `list[Stream]`, to be heard one after the other.
    """
    if audio_format == "MP3":
        return _mp3_streams(content, name, seconds) or [Stream(content)]
    if audio_format == "FLAC":
        return [_flac_stream(content, name)]
    if audio_format == "OGG":
        return [Stream(content, ends_early=ogg.ends_within_page(content), check_holes=True)]
    region = sample_region(content)
    if region is None:
        return [Stream(content)]
    share = region.announced / region.size if region.is_cut_off and region.size else None
    if region.holds_mp3:
        streams = _mp3_streams(content.part(region.offset, region.offset + region.size), name, seconds)
        if streams:
            streams[-1].announced_share = share
            return streams
    notes = []
    if region.has_wrong_header and region.byte_rate:
        notes.append(_wrong_header(name, region.said / region.byte_rate, region.size / region.byte_rate))
    read = patched(content, region) if region.must_be_patched else content
    return [Stream(read, notes, announced_share=share)]


def _wrong_header(name: str, announced: float, there: float) -> AudioNote:
    """That a file holds another number of seconds than its header announces."""
    words = f"it announces {announced:.2f} s of samples; {there:.2f} s are there, which are heard"
    return AudioNote(HEADER, f"{name} has a wrong header: {words}.")


def _cut_off(name: str, seconds: float, share: float | None) -> AudioNote:
    """That a file ends early: seconds that are there, and how many times as much its header announces, if it says so."""
    if share is None:
        words = f"its end is missing, and it does not say how long that was; {seconds:.2f} s are there"
    else:
        words = f"{seconds:.2f} of the {seconds * share:.2f} s that its header announces are there"
    return AudioNote(CUT_OFF, f"{name} is cut off: {words}. {AGAIN}")


def _damaged(
    name: str, spots: list[tuple[float, float]], what: str = "could not be decoded and are heard as silence"
) -> AudioNote:
    """That stretches of a file are damaged: begins and ends in seconds."""
    named = ", ".join(f"{begin:.2f} to {end:.2f} s" for begin, end in spots[:SPOTS_NAMED])
    more = f" and {len(spots) - SPOTS_NAMED} more" if len(spots) > SPOTS_NAMED else ""
    lost = sum(end - begin for begin, end in spots)
    return AudioNote(DAMAGED, f"{name} is damaged: {named}{more} ({lost:.2f} s in all) {what}. {AGAIN}")


def _mp3_streams(content: Content, name: str, seconds: float | None) -> list[Stream]:
    found = mp3.mp3_streams(content, seconds, formats.MOST_RECORDINGS)
    streams = []
    for stream in found:
        header, notes, silences = stream.header, [], []
        frame_seconds = header.samples / header.sampling_rate
        missing = (stream.announced or stream.frames) - stream.frames
        if stream.gaps:
            frame_size = (stream.stop - stream.start) / stream.frames
            lost = [max(1, round((stop - start) / frame_size)) for _, start, stop in stream.gaps]
            if len(lost) == 1 and 0 < missing <= FRAMES_LOST * lost[0]:
                lost = [missing]
            silences = [
                (frames * frame_seconds, count * frame_seconds)
                for (frames, *_), count in zip(stream.gaps, lost, strict=True)
            ]
            earlier, spots = 0.0, []
            for begin, length in silences:
                spots.append((begin + earlier, begin + earlier + length))
                earlier += length
            notes.append(_damaged(name, spots))
        share = None
        if abs(missing) > FRAMES_OF_TAG and not stream.gaps and stream.is_counted:
            if missing < 0 or stream.is_whole:
                notes.append(_wrong_header(name, stream.announced * frame_seconds, stream.seconds))
            else:
                share = stream.announced / stream.frames
        if _is_read_rightly(content, stream, missing, len(found) == 1):
            # libsndfile overlooks a tag behind anything but ID3.
            is_all = len(found) == 1 and stream.start == leading_tags(content)
            part = content if is_all else content.part(stream.start, stream.stop)
            streams.append(Stream(part, notes, silences, share, of_mp3=stream))
        else:
            mended, skipped = mp3.stream_content(content, stream)
            samples = None if header.layer == 3 else stream.frames * header.samples
            streams.append(Stream(mended, notes, silences, share, skipped, samples, of_mp3=stream))
    if len(found) >= formats.MOST_RECORDINGS:
        streams[-1].notes.append(beyond_most_recordings(name))
    return streams


def beyond_most_recordings(name: str) -> AudioNote:
    """Say that a file holds more recordings than are heard.

    Args:
        name (`str`): what to call the file.

    Returns:
        [`AudioNote`].
    """
    words = f"more than {formats.MOST_RECORDINGS} recordings, joined one behind the other; those beyond are not heard."
    return AudioNote(LEFT_OUT, f"{name} holds {words}")


def _is_read_rightly(content: Content, stream: mp3.Mp3Stream, missing: int, is_only: bool) -> bool:
    """Whether libsndfile hears all frames of a stream without help."""
    import soundfile

    if stream.gaps or stream.header.layer != 3 or any(start < stream.stop for start, _ in stream.tags):
        return False
    if stream.announced:
        return abs(missing) <= FRAMES_OF_TAG or not stream.is_counted
    if stream.has_tag or not is_only:
        return False
    try:
        guessed = soundfile.info(content.file()).frames
    except soundfile.SoundFileError:
        return False
    return guessed == stream.frames * stream.header.samples


def _whole_flac(content: Content, seconds: float | None, allowance: Allowance) -> DecodedAudio | None:
    """Decode FLAC as it is; `None` if that does not give what its header announces, or the file holds more."""
    import soundfile

    try:
        source = content.file()
        with soundfile.SoundFile(source) as file:
            if file.frames > LONGEST_FLAC:  # of unknown length
                return None
            wanted = file.frames if seconds is None else min(file.frames, round(seconds * file.samplerate))
            if wanted > allowance.samples(file.channels, file.samplerate):
                info = flac.stream_info(content)
                if info is not None and flac.last_sample(content, info) == info.samples:  # they are there
                    raise allowance.error(file.channels, file.samplerate)
                return None
            samples = _read(file, wanted, allowance)
            if len(samples) < wanted or (wanted == file.frames and goes_on(content, source.tell())):
                return None
            allowance.take(*samples.shape, file.samplerate)
            return DecodedAudio(samples, file.samplerate)
    except soundfile.SoundFileError:
        return None


def goes_on(content: Content, stop: int) -> bool:
    """Tell whether a FLAC file that was read up to a place holds more samples than it announces, and not only tags.

    Args:
        content ([`Content`]): the file.
        stop (`int`): the place in bytes.

    Returns:
        `bool`.
    """
    if stop >= content.size:
        return False
    info = flac.stream_info(content)
    return info is not None and (flac.last_sample(content, info) or 0) > info.samples


def _flac_stream(content: Content, name: str) -> Stream:
    info = flac.stream_info(content)
    if info is None or (info.samples and flac.last_sample(content, info) == info.samples):
        return Stream(content)  # of this length, whether or not frames within it are damaged
    return _mended_flac(content, info, name) or Stream(content)


def _mended_flac(content: Content, info: flac.StreamInfo, name: str) -> Stream | None:
    mended = flac.mended(content, info)
    if mended is None:
        return None
    notes, rate = [], info.sampling_rate
    if mended.damaged:
        notes.append(_damaged(name, [(start / rate, stop / rate) for start, stop in mended.damaged]))
    if 0 < info.samples < mended.samples:
        announced, there = info.samples / rate, mended.samples / rate
        notes.append(_wrong_header(name, announced, there))
    share = info.samples / mended.samples if mended.samples < info.samples else None
    return Stream(mended.content, notes, announced_share=share, ends_early=mended.ends_within_frame)


def _read(file, wanted: int, allowance: Allowance) -> np.ndarray:
    """Read samples of an open `soundfile.SoundFile`.

    Memory is taken for what a file of its size mostly holds, and for more only as far as that has come.

    Args:
        file (`soundfile.SoundFile`): which may announce any number of samples.
        wanted (`int`): samples that are read at most.
        allowance ([`Allowance`]): what the file may become.

    Returns:
        `np.ndarray` of shape `(samples, channels)` and type float32.

    Raises:
        AudioError: if there are more samples than that.
    """
    channels = file.channels
    if wanted * channels <= READ_AT_ONCE:
        # What `SoundFile.read` gives, in a twentieth less of the time that a short clip takes.
        samples = np.empty((wanted, channels), np.float32)
        return samples[: file.buffer_read_into(samples, "float32")] if wanted else samples
    most = allowance.samples(channels, file.samplerate)
    size = min(wanted, max(1, max(READ_AT_ONCE, READ_PER_BYTE * allowance.size) // channels), most + 1)
    samples = np.empty((size, channels), np.float32)
    read = file.buffer_read_into(samples, "float32")
    while read == len(samples) < wanted:
        if read > most:
            raise allowance.error(channels, file.samplerate)
        samples.resize((min(wanted, 2 * read, most + 1), channels), refcheck=False)
        read += file.buffer_read_into(samples[read:], "float32")
    if read > most:
        raise allowance.error(channels, file.samplerate)
    return samples[:read]


def open_stream(stream: Stream):
    """Open a stream.

    Args:
        stream ([`Stream`]): one that libsndfile reads.

    Returns:
        `soundfile.SoundFile`.
    """
    import soundfile

    return soundfile.SoundFile(stream.content.file())


def frames_of(stream: Stream, file) -> int:
    """Tell how many samples libsndfile decodes of a stream.

    Args:
        stream ([`Stream`]): one that libsndfile reads.
        file (`soundfile.SoundFile`): the same, open.

    Returns:
        Samples, with those that are skipped.
    """
    return file.frames if stream.samples is None else stream.samples


def stream_seconds(stream: Stream) -> float:
    """Tell how long a stream lasts when it is decoded, without decoding it.

    Args:
        stream ([`Stream`]): one that libsndfile reads.

    Returns:
        Seconds.
    """
    with open_stream(stream) as file:
        return (frames_of(stream, file) - stream.skipped) / file.samplerate + sum(
            length for _, length in stream.silences
        )


def stream_numbers(stream: Stream) -> int:
    """Tell how many numbers libsndfile announces of a stream.

    Args:
        stream ([`Stream`]): one that libsndfile reads.

    Returns:
        Samples times channels.
    """
    with open_stream(stream) as file:
        return max(0, frames_of(stream, file)) * file.channels


def _decode_stream(stream: Stream, name: str, seconds: float | None, allowance: Allowance) -> DecodedAudio:
    with open_stream(stream) as file:
        announced, rate = frames_of(stream, file), file.samplerate
        wanted = announced if seconds is None else min(announced, round(seconds * rate) + stream.skipped)
        if file.format == "MP3":
            file.seek(0)  # as soundfile.read does: the decoder rounds otherwise before its first seek
        samples = _read(file, wanted, allowance)[stream.skipped :]
        wanted -= stream.skipped
    silences, damage = stream.silences, NO_DAMAGE
    is_all = wanted == announced - stream.skipped
    if stream.check_holes and (is_all or len(samples) < wanted):
        damage = ogg.page_damage(stream.content, rate)
    there = len(samples) if len(samples) < wanted else announced - stream.skipped
    notes = notes_of_stream(stream, name, wanted, len(samples), there, rate, damage)
    if damage.holes:
        if damage.begins_damaged and is_all:  # libsndfile counts from the first whole page on
            most = allowance.samples(samples.shape[1], rate)
            wanted = max(wanted, min(round(damage.seconds * rate), most))
        lost = sum(end - begin for begin, end in damage.holes)
        share = min(1.0, (wanted - len(samples)) / rate / lost)
        notes.append(_damaged(name, damage.holes, "could not be decoded in part and are heard as silence there"))
        silences, earlier = [], 0.0
        for begin, end in damage.holes:
            silences.append((begin - earlier, (end - begin) * share))
            earlier += (end - begin) * share
    return DecodedAudio(_with_silences(samples, silences, rate, allowance), rate, tuple(notes))


def notes_of_stream(
    stream: Stream,
    name: str,
    wanted: int,
    read: int,
    there: int,
    sampling_rate: int,
    damage: ogg.PageDamage = NO_DAMAGE,
) -> list[AudioNote]:
    """Tell what is known of a stream when it is decoded, but for its holes.

    Args:
        stream ([`Stream`]): which one.
        name (`str`): what messages call the file.
        wanted (`int`): samples that were to be decoded.
        read (`int`): how many came.
        there (`int`): how many there are.
        sampling_rate (`int`): in Hz.
        damage ([`modeling_ast.audio.ogg.PageDamage`], *optional*): of its pages.

    Returns:
        `list[AudioNote]`.
    """
    notes, share = list(stream.notes), stream.announced_share
    is_short = wanted - read > max(MISSED_SECONDS * sampling_rate, MISSED_SHARE * wanted)
    if is_short and read and not notes and not damage.holes and share is None:
        share = wanted / read
    if stream.ends_early or damage.ends_damaged or share is not None:
        notes.append(_cut_off(name, there / sampling_rate, share))
    return notes


def _with_silences(
    samples: np.ndarray, silences: list[tuple[float, float]], sampling_rate: int, allowance: Allowance
) -> np.ndarray:
    """Samples with silence put in, counted as what a file becomes.

    Args:
        samples (`np.ndarray` of shape `(samples, channels)`): as decoded.
        silences (`list[tuple[float, float]]`): at which of their seconds, and for how long.
        sampling_rate (`int`): in Hz.
        allowance ([`Allowance`]): of the file.
    """
    channels = samples.shape[1]
    if not silences:
        allowance.take(len(samples), channels, sampling_rate)
        return samples
    lengths = [round(length * sampling_rate) for _, length in silences]
    allowance.take(len(samples) + sum(lengths), channels, sampling_rate)
    pieces, start = [], 0
    for (begin, _), length in zip(silences, lengths, strict=True):
        stop = min(round(begin * sampling_rate), len(samples))
        pieces += [samples[start:stop], np.zeros((length, channels), samples.dtype)]
        start = stop
    return np.concatenate([*pieces, samples[start:]])


def one_after_the_other(decoded: list[DecodedAudio], name: str, allowance: Allowance) -> DecodedAudio:
    """Make one of recordings that were joined in one file: at the sampling rate and with the channels of the first.

    Args:
        decoded (`list[DecodedAudio]`): one or more.
        name (`str`): what messages call the file.
        allowance ([`Allowance`]): of the file; what is taken of it has been counted as it was decoded.

    Returns:
        [`DecodedAudio`], with the notes of all.

    Raises:
        AudioError: if a sampling rate is none that is converted, or the recordings become more than the file may.
    """
    if len(decoded) == 1:
        return decoded[0]
    from .resampling import checked_rate, resample

    rate, channels = decoded[0].sampling_rate, decoded[0].samples.shape[1]
    for part in decoded:
        if (part.sampling_rate, part.samples.shape[1]) != (rate, channels):
            length = -(-len(part.samples) * checked_rate(rate, name) // checked_rate(part.sampling_rate, name))
            allowance.take(length, channels, rate)
    pieces = []
    for part in decoded:
        samples = part.samples
        if samples.shape[1] != channels:
            samples = np.repeat(samples.mean(axis=1, keepdims=True), channels, axis=1)
        if part.sampling_rate != rate and len(samples):
            samples = np.stack([resample(channel, part.sampling_rate, rate) for channel in samples.T.copy()], axis=1)
        pieces.append(samples)
    notes = dict.fromkeys(note for part in decoded for note in part.notes)
    return DecodedAudio(np.concatenate(pieces), rate, tuple(notes))


def _decode_with_ffmpeg(
    content: Content,
    audio_format: str | None,
    name: str,
    soundfile_words: str,
    seconds: float | None,
    allowance: Allowance,
) -> DecodedAudio:
    """Decode what libsndfile cannot, and compare what comes of it with what the container announces."""
    if audio_format is None and (kind := formats.kind_of_no_audio(content)) is not None:
        raise AudioError(f"{name} holds {kind}, not audio. If it had the name of a recording, download it again.")
    described = described_file(name, audio_format)
    if formats.lacks_index(content, audio_format):
        raise AudioError(
            f"{described} is cut off: its index, which stands at the end, is missing, and nothing can be decoded without "
            f"it. {AGAIN}"
        )
    decoded, torchcodec_words = None, None
    try:
        # Times may jump in what announces no length, which a limit of time would cut there.
        limit = None if audio_format in formats.WITHOUT_LENGTH else seconds
        decoded = ffmpeg.decode_with_torchcodec(content, allowance, audio_format not in formats.WITHOUT_LENGTH, limit)
    except FFmpegMissingError as error:
        if not ffmpeg.has_program() or audio_format is None:
            codec = formats.foreign_codec(content, audio_format)
            raise AudioError(_ffmpeg_missing(described, audio_format, codec, soundfile_words)) from error
        torchcodec_words = "FFmpeg's libraries cannot be loaded"
    except FFmpegError as error:
        torchcodec_words = str(error)
    if decoded is not None and seconds is not None and decoded.seconds >= seconds:
        return DecodedAudio(decoded.samples, decoded.sampling_rate)  # of a long one the end is not looked at
    announced = announced_length(
        content, audio_format, decoded.announced if decoded else ffmpeg.announced_seconds(content)
    )
    is_short = decoded is not None and announced is not None and decoded.seconds < announced - LESS_THAN_ANNOUNCED
    asked_program = audio_format is not None and ffmpeg.has_program() and (decoded is None or is_short)
    if asked_program:
        try:
            by_program = ffmpeg.decode_with_program(content, allowance)
        except FFmpegError as error:
            torchcodec_words = torchcodec_words or str(error)
        else:
            decoded = by_program if decoded is None or by_program.seconds > decoded.seconds else decoded
    if decoded is None:
        fault = "cut off" if formats.container_is_cut_off(content, audio_format) else "damaged or not audio"
        hint = (
            "" if ffmpeg.has_program() else " The ffmpeg program, which is not installed, passes over damaged spots."
        )
        raise AudioError(
            f"{described} cannot be decoded: soundfile says '{soundfile_words}', torchcodec says "
            f"'{torchcodec_words}'. The file is probably {fault}: export or download it again.{hint}"
        )
    allowance.take(*decoded.samples.shape, decoded.sampling_rate)
    notes = _notes_of_ffmpeg(content, audio_format, described, decoded, announced, torchcodec_words, asked_program)
    notes = (*notes, *tracks_notes(content, audio_format, described))
    return DecodedAudio(decoded.samples, decoded.sampling_rate, notes)


def described_file(name: str, audio_format: str | None) -> str:
    """Name a file with its format, as messages about FFmpeg do.

    Args:
        name (`str`): what messages call the file.
        audio_format (`str`, *optional*): from [`sniff_format`].

    Returns:
        Words.
    """
    return f"{name} ({audio_format or f'unknown format, suffix {Path(name).suffix!r}'})"


def announced_length(content: Content, audio_format: str | None, seconds: float | None) -> float | None:
    """Tell how long a file that FFmpeg decodes should last.

    Args:
        content ([`Content`]): the file.
        audio_format (`str`, *optional*): from [`sniff_format`].
        seconds (`float`, *optional*): what its container says by FFmpeg.

    Returns:
        Seconds; `None` if nothing tells.
    """
    if audio_format in formats.WITHOUT_LENGTH:
        return None
    if audio_format == "AAC":
        return formats.adts_seconds(content)
    if seconds is None and audio_format == "WebM/Matroska":
        seconds = formats.matroska_seconds(content)
        if seconds is not None:
            seconds -= ffmpeg.begin_seconds(content)
    return seconds


def tracks_notes(content: Content, audio_format: str | None, described: str) -> list[AudioNote]:
    """Say of a file with several audio tracks that one is heard.

    Args:
        content ([`Content`]): the file.
        audio_format (`str`, *optional*): from [`sniff_format`].
        described (`str`): what messages call the file.

    Returns:
        A note, or none.
    """
    _, audio_tracks = formats.tracks(content, audio_format) or (1, 1)
    if audio_tracks < 2:
        return []
    words = "of which one is heard. To hear another, take it out: ffmpeg -i FILE -map 0:a:1 OUT.wav takes the second"
    return [AudioNote(LEFT_OUT, f"{described} holds {audio_tracks} audio tracks, {words}.")]


def _notes_of_ffmpeg(
    content: Content,
    audio_format: str | None,
    name: str,
    decoded: FFmpegSamples,
    announced: float | None,
    torchcodec_words: str | None,
    asked_program: bool,
) -> tuple[AudioNote, ...]:
    """What is to be said of a file that FFmpeg decoded; an error if too little of it came to be of use."""
    missing = 0.0 if announced is None else announced - decoded.seconds
    is_notable = announced is not None and missing > max(MISSED_SECONDS, MISSED_SHARE * announced)
    if formats.container_is_cut_off(content, audio_format):
        share = announced / decoded.seconds if is_notable and decoded.seconds else None
        return (_cut_off(name, decoded.seconds, share),)
    if torchcodec_words is not None and asked_program and decoded.complaint:
        of_announced = f" of the {announced:.2f} s that it announces" if is_notable else ""
        return (
            AudioNote(
                DAMAGED,
                f"{name} is damaged or cut off: {decoded.seconds:.2f} s{of_announced} could be decoded, ffmpeg says "
                f"'{decoded.complaint}'. {AGAIN}",
            ),
        )
    if not is_notable:
        return ()
    if asked_program:  # both agree
        if not formats.is_length_of_audio(content, audio_format):
            return ()
        kind = HEADER if audio_format == "AVI" else DAMAGED
        words = "which may be the truth" if kind == HEADER else "so that the rest is probably damaged or cut off"
        return (
            AudioNote(
                kind,
                f"{name} announces {announced:.2f} s, of which FFmpeg finds {decoded.seconds:.2f} s, {words}.",
            ),
        )
    if decoded.seconds < SCRAMBLED_SHARE * announced:
        raise AudioError(
            f"{name} lasts {announced:.2f} s by its header, of which torchcodec decodes {decoded.seconds:.2f} s, perhaps in "
            "pieces. Install the ffmpeg program, which is asked then, or convert the file to WAV or FLAC."
        )
    return (
        AudioNote(
            DAMAGED,
            f"{name}: torchcodec decodes {decoded.seconds:.2f} of the {announced:.2f} s that its header announces. Install "
            "the ffmpeg program, which may hear more, or convert the file to WAV or FLAC.",
        ),
    )


def _ffmpeg_missing(described: str, audio_format: str | None, codec: str | None, soundfile_words: str) -> str:
    if codec is not None:
        described = f"{described} holds {codec} and"
    if audio_format in formats.SOUNDFILE_FORMATS and codec is None:
        return (
            f"{described} cannot be decoded: soundfile says '{soundfile_words}'. The file is probably damaged: export or "
            "download it again. (An unusual codec within it would need FFmpeg; ast-doctor shows whether it is there.)"
        )
    commands = "; ".join(f"{system}: {command}" for system, command in FFMPEG_COMMANDS.items())
    return (
        f"{described} cannot be decoded: soundfile says '{soundfile_words}', and torchcodec, which reads what "
        f"soundfile cannot, finds no FFmpeg libraries. Install FFmpeg ({commands}) or convert the file to WAV or "
        "FLAC. If FFmpeg is installed, ast-doctor shows what is wrong with it."
    )
