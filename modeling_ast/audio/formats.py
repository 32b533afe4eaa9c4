"""What a file is by its first bytes, how many recordings were joined in it, and whether its container is whole."""

import codecs
import itertools
import struct
import unicodedata
from collections.abc import Iterator

from . import flac, ogg
from .content import Content
from .limits import MOST_TAGS
from .mp3 import first_frame, frame_header
from .sample_regions import AU_SAMPLE_BYTES, CHUNK_NAME, W64_RIFF, W64_WAVE, sample_region
from .tags import id3_size, leading_tags, trailing_tags

MOST_RECORDINGS = 1000  # in one file; what looks like more is no audio but made to keep a decoder busy
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
MATROSKA_SEGMENT = bytes.fromhex("18538067")
BOXES = frozenset(  # the outermost ones of MP4
    b"ftyp styp moov moof mdat mfra free skip wide uuid meta pnot udta sidx ssix emsg prft pdin pict junk".split()
)
LARGEST_FTYP = 1024  # bytes
MOST_BOXES = 100_000  # one behind the other; a day in fragments of a second has as many
ASF_AUDIO = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
ASF_STREAM_PROPERTIES = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
MATROSKA_TRACKS, MATROSKA_TRACK, MATROSKA_TRACK_TYPE = bytes.fromhex("1654ae6b"), b"\xae", b"\x83"
ADTS = (b"\xff\xf1", b"\xff\xf9", b"\xff\xf0", b"\xff\xf8")
ADTS_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)

# (offset, first bytes, format), from the formats' own specifications; those of WAV and AIFF are read below.
_SIGNATURES = (
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "OGG"),
    (0, b".snd", "AU"),
    (0, b"dns.", "AU"),
    (0, b"caff", "CAF"),
    (0, W64_RIFF, "W64"),
    (4, b"ftyp", "MP4/M4A"),
    (4, b"moov", "MP4/M4A"),
    (0, b"\x1a\x45\xdf\xa3", "WebM/Matroska"),
    (0, ASF_HEADER[:4], "WMA"),
    (0, b"#!AMR", "AMR"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "TTA"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"\x0b\x77", "AC-3"),
    (0, b"\x00\x00\x01\xba", "MPEG program stream"),
    (0, b"Creative Voice File", "VOC"),
    (0, b"NIST_1A", "NIST SPHERE"),
    (0, b".RMF", "RealMedia"),
    (0, b"FLV\x01", "FLV"),
    (0, b"MThd", "MIDI"),
)
# Where their sync byte stands and how long they are; the latter of camcorders. Source: ISO/IEC 13818-1, 2.4.3.
TRANSPORT_PACKETS = ((0, 188), (4, 192))
# What announces no length: FFmpeg tells one by the bit rate of the beginning or by time stamps, which may jump.
WITHOUT_LENGTH = frozenset(("AC-3", "AMR", "MPEG program stream", "MPEG transport stream"))
_MARKUP = (b"<!doctype", b"<html", b"<?xml")
# First bytes and what such a file is, from the formats' own specifications.
_NO_AUDIO = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PAR1", "a Parquet table"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x7fELF", "a program"),
)
_TEXTS = (
    (b"<!doctype", "text (a web page)"),
    (b"<html", "text (a web page)"),
    (b"<?xml", "text (XML)"),
    (b"version https://git-lfs", "text (a Git LFS pointer; git lfs pull gets the file)"),
)
SOUNDFILE_FORMATS = frozenset(
    ("WAV", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "VOC", "NIST SPHERE")
)  # which need no FFmpeg, but for rare codecs within
WAV_CODECS = {  # of those that libsndfile does not decode, by their numbers in a WAV's header
    0x0050: "MPEG layer 2",
    0x00FF: "AAC",
    0x0160: "WMA 1",
    0x0161: "WMA 2",
    0x0162: "WMA Pro",
    0x0163: "WMA Lossless",
    0x2000: "AC-3",
    0x2001: "DTS",
}
SOUNDFILE_WAV_CODECS = frozenset((1, 2, 3, 6, 7, 0x11, 0x31, 0x40, 0x45, 0x55, 0x64, 0x65, 0xFFFE))


def sniff_format(content: Content) -> str | None:
    """Name the format by a file's first bytes, which say more than a suffix does.

    Args:
        content ([`Content`]): the file.

    Returns:
        The format's name, such as `"WAV"`; `None` if it is none of those known.
    """
    start = leading_tags(content)
    head = content.read(start, 40)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return {b"WAVE": "WAV" if head[:3] == b"RIF" else "RF64", b"AVI ": "AVI"}.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC", b"8SVX"):
        return "AIFF"
    for offset, signature, audio_format in _SIGNATURES:
        if head.startswith(signature, offset):
            return audio_format
    if head[:2] in ADTS and frame_header(head[:4]) is None:
        return "AAC"
    for offset, length in TRANSPORT_PACKETS:
        if all(content.read(start + offset + number * length, 1) == b"G" for number in range(3)):
            return "MPEG transport stream"
    # A recording of a broadcast begins within a frame.
    return "MP3" if first_frame(content, start) >= 0 else None


def recordings(content: Content, audio_format: str | None) -> list[Content]:
    """Take apart what was joined byte for byte, as `cat` and recorders of broadcasts do.

    MP3 is not taken apart here, and what FFmpeg hears on through by itself is not either.

    Args:
        content ([`Content`]): the file.
        audio_format (`str`, *optional*): from [`sniff_format`].

    Returns:
        `list[Content]`: a file each, in their order, without tags around them that decoders stumble over; the content
        itself if it is only one without such tags. Of more than `MOST_RECORDINGS` one more, which holds the rest.
    """
    content = without_tags(content, audio_format)
    starts = [0, *itertools.islice(_later_beginnings(content, audio_format), MOST_RECORDINGS)]
    stops = [*starts[1:], content.size]
    return [content.part(start, stop) for start, stop in zip(starts, stops, strict=True)]


def without_tags(content: Content, audio_format: str | None) -> Content:
    """Take the tags around a recording away, where decoders would stumble over them.

    Args:
        content ([`Content`]): the file.
        audio_format (`str`, *optional*): from [`sniff_format`].

    Returns:
        [`Content`] of the recording.
    """
    if audio_format in (None, "MP3", "AAC"):  # whose decoders know them
        return content
    # FFmpeg takes a tag behind WavPack, which is usual there, for a damaged block.
    stop = trailing_tags(content) if audio_format == "WavPack" else content.size
    return content.part(leading_tags(content), stop)


def _later_beginnings(content: Content, audio_format: str | None) -> Iterator[int]:
    if audio_format in ("WAV", "RF64"):
        if int.from_bytes(content.read(4, 4), "little") == content.size - 8:  # it says itself that it is all
            return
        for at in content.find_all(b"WAVE", 12):
            if content.read(at - 8, 4) in (b"RIFF", b"RIFX", b"RF64", b"BW64") and _is_chunk(content, at + 4):
                yield at - 8
    elif audio_format == "W64":
        for at in content.find_all(W64_RIFF, 1):
            if content.read(at + 24, 16) == W64_WAVE:
                yield at
    elif audio_format == "AIFF":
        for form in (b"AIFF", b"AIFC"):
            for at in content.find_all(form, 12):
                if content.read(at - 8, 4) == b"FORM" and _is_chunk(content, at + 4):
                    yield at - 8
    elif audio_format == "AU":
        yield from _au_beginnings(content)
    elif audio_format == "CAF":
        yield from content.find_all(b"caff\x00\x01\x00\x00desc", 1)
    elif audio_format == "FLAC":
        info = flac.stream_info(content)
        for at in content.find_all(b"fLaC", info.frames_offset if info else 4):
            block = content.read(at + 4, 4)
            if block in (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22"):  # STREAMINFO, with others behind it or alone
                yield at
    elif audio_format == "OGG":
        yield from ogg.beginnings(content)[1:]
    elif audio_format == "MP4/M4A":
        end = 0
        for offset, name, stop in _boxes(content):
            if name == b"ftyp" and offset:
                yield offset
            end = stop
        for at in content.find_all(b"ftyp", end):  # behind something that is no box
            if 8 <= int.from_bytes(content.read(at - 4, 4), "big") <= LARGEST_FTYP:
                yield at - 4
    elif audio_format == "WMA":
        yield from content.find_all(ASF_HEADER, 1)
    elif audio_format == "FLV":
        for at in content.find_all(b"FLV\x01", 1):
            if content.read(at + 5, 8) == b"\0\0\0\x09\0\0\0\0":
                yield at
    elif audio_format == "TTA":
        yield from content.find_all(content.read(0, 6), 22)
    elif audio_format == "WavPack":
        yield from _wavpack_beginnings(content)


def _au_beginnings(content: Content) -> Iterator[int]:
    name = content.read(0, 4)
    order = ">" if name == b".snd" else "<"
    if sum(struct.unpack(f"{order}2I", content.read(4, 8).ljust(8, b"\0"))) == content.size:  # it says that it is all
        return
    for at in content.find_all(name, 24):
        head = content.read(at + 4, 20)
        if len(head) == 20:
            offset, _, encoding, rate, channels = struct.unpack(f"{order}5I", head)
            is_header = 24 <= offset < 1 << 16 and encoding in AU_SAMPLE_BYTES
            if is_header and 0 < rate < 1 << 20 and 0 < channels < 256:
                yield at


def _is_chunk(content: Content, offset: int) -> bool:
    """Whether a chunk's name stands there."""
    name = content.read(offset, 4)
    return len(name) == 4 and set(name) <= CHUNK_NAME


def _wavpack_beginnings(content: Content) -> Iterator[int]:
    for offset in content.find_all(b"wvpk", 4):
        head = content.read(offset, 32)
        if len(head) == 32:
            version, index, samples, flags = struct.unpack_from("<H6xIII", head, 8)
            # The first channels of a recording's first block.
            if 0x402 <= version <= 0x410 and index == 0 and samples and flags & 0x800:
                yield offset


def _boxes(content: Content) -> Iterator[tuple[int, bytes, int]]:
    """The outermost boxes of an MP4 file up to something else: where each begins, its name and where it ends by its word."""
    offset = 0
    for _ in range(MOST_BOXES):
        head = content.read(offset, 16)
        if len(head) < 8:
            return
        size, name = struct.unpack_from(">I4s", head)
        if name not in BOXES:
            return
        if size == 1 and len(head) == 16:
            size = struct.unpack_from(">Q", head, 8)[0]
        elif size == 0:
            size = content.size - offset
        yield offset, name, offset + size
        if size < 8:
            return
        offset += size


def _elements(content: Content, offset: int, stop: int, wanted: bytes) -> Iterator[tuple[int, int]]:
    """Where the content of the Matroska elements of one kind begins and ends, of those that follow each other in a stretch."""
    for _ in range(MOST_BOXES):
        if offset >= stop:
            return
        head = content.read(offset, 12)
        name_length = 9 - head[0].bit_length() if head else 0
        if len(head) <= name_length or not head[name_length] or not head[0]:
            return
        size_length = 9 - head[name_length].bit_length()
        size = int.from_bytes(head[name_length : name_length + size_length], "big") & (1 << 7 * size_length) - 1
        offset += name_length + size_length
        is_known = size != (1 << 7 * size_length) - 1
        end = offset + size if is_known else stop
        if head[:name_length] == wanted:
            yield offset, end
        offset = end


def tracks(content: Content, audio_format: str | None) -> tuple[int, int] | None:
    """Count the tracks of a container.

    Args:
        content ([`Content`]): the file.
        audio_format (`str`, *optional*): from [`sniff_format`].

    Returns:
        How many it holds, and how many of these are audio; `None` of formats where that is not read.

    Sources: Microsoft's ASF and AVI, ISO/IEC 14496-12, RFC 9559.
    """
    if audio_format == "WMA":
        header = content.part(0, min(content.size, int.from_bytes(content.read(16, 8), "little")))
        kinds = [
            header.read(at + 24, 16) == ASF_AUDIO
            for at in itertools.islice(header.find_all(ASF_STREAM_PROPERTIES), MOST_TAGS)
        ]
    elif audio_format == "AVI":
        samples = content.find(b"movi")  # of the first file, where several are joined
        header = content.part(0, samples if samples >= 0 else min(content.size, 1 << 16))
        kinds = [header.read(at + 8, 4) == b"auds" for at in itertools.islice(header.find_all(b"strh"), MOST_TAGS)]
    elif audio_format == "MP4/M4A":
        indexes = [content.part(at, min(stop, content.size)) for at, name, stop in _boxes(content) if name == b"moov"]
        kinds = [
            index.read(index.find(b"hdlr", at) + 12, 4) == b"soun"
            for index in indexes[:1]
            for at in itertools.islice(index.find_all(b"trak"), MOST_TAGS)
        ]
    elif audio_format == "WebM/Matroska":
        kinds = [
            any(content.read(at, stop - at) == b"\x02" for at, stop in _elements(content, *track, MATROSKA_TRACK_TYPE))
            for segment in itertools.islice(_elements(content, 0, content.size, MATROSKA_SEGMENT), 1)
            for found in _elements(content, *segment, MATROSKA_TRACKS)
            for track in _elements(content, *found, MATROSKA_TRACK)
        ]
    else:
        return None
    return len(kinds), sum(kinds)


def is_length_of_audio(content: Content, audio_format: str | None) -> bool:
    """Tell whether the length that a container announces is that of its audio, and not of the longest of several tracks.

    Args:
        content ([`Content`]): the file.
        audio_format (`str`, *optional*): from [`sniff_format`].

    Returns:
        `bool`.
    """
    return audio_format not in ("WMA", "WebM/Matroska") or tracks(content, audio_format)[0] <= 1


def lacks_index(content: Content, audio_format: str | None) -> bool:
    """Tell whether an MP4 file ends before its index, without which nothing of it can be decoded.

    Args:
        content ([`Content`]): the file.
        audio_format (`str`, *optional*): from [`sniff_format`].

    Returns:
        `bool`.
    """
    if audio_format != "MP4/M4A":
        return False
    whole = {name for _, name, stop in _boxes(content) if stop <= content.size}
    return not whole & {b"moov", b"moof"} and any(name == b"mdat" for _, name, _ in _boxes(content))


def container_is_cut_off(content: Content, audio_format: str | None) -> bool:
    """Tell whether the container announces more bytes than there are.

    Args:
        content ([`Content`]): the file.
        audio_format (`str`, *optional*): from [`sniff_format`].

    Returns:
        `bool`; `False` also where the container does not say.
    """
    if audio_format == "AVI":
        return struct.unpack("<I", content.read(4, 4))[0] > content.size
    if audio_format == "MP4/M4A":
        return any(stop > content.size for *_, stop in _boxes(content))
    if audio_format == "WMA":
        at = content.find(ASF_FILE_PROPERTIES)
        announced = content.read(at + 40, 8) if at >= 0 else b""
        return len(announced) == 8 and struct.unpack("<Q", announced)[0] > content.size
    if audio_format == "WebM/Matroska":
        return any(stop > content.size for _, stop in _elements(content, 0, content.size, MATROSKA_SEGMENT))
    if audio_format == "OGG":
        return ogg.ends_within_page(content)
    region = sample_region(content)
    return region is not None and region.is_cut_off


def matroska_seconds(content: Content) -> float | None:
    """Read the length that a WebM or Matroska file announces, which torchcodec does not tell.

    Args:
        content ([`Content`]): the file.

    Returns:
        Seconds; `None` if there is none.
    """
    head = content.read(0, 4096)
    scale, at = 1_000_000, head.find(b"\x2a\xd7\xb1\x83")  # nanoseconds of a unit, in three bytes
    if at >= 0:
        scale = int.from_bytes(head[at + 4 : at + 7], "big")
    for mark, layout in ((b"\x44\x89\x88", ">d"), (b"\x44\x89\x84", ">f")):
        at = head.find(mark)
        if at >= 0:
            return struct.unpack_from(layout, head, at + 3)[0] * scale / 1e9
    return None


def adts_seconds(content: Content) -> float:
    """Count how long the frames of an AAC file last, which has no header; FFmpeg concludes that from the bit rate of the
    first.

    Args:
        content ([`Content`]): the file.

    Returns:
        Seconds.
    """
    seconds, offset = 0.0, 0
    while offset < content.size:
        head = content.read(offset, 10)
        if size := id3_size(head):  # also between frames, as in streams cut into segments
            offset += size
        elif (frame := _adts_frame(head)) and offset + frame[0] <= content.size:
            offset += frame[0]
            seconds += frame[1]
        else:
            offset = content.find(b"\xff", offset + 1)
            if offset < 0:
                break
    return seconds


def _adts_frame(head: bytes) -> tuple[int, float] | None:
    """Bytes and seconds of the frame that begins there; `None` if none does. Source: ISO/IEC 13818-7, 6.2."""
    rate_index = head[2] >> 2 & 15 if len(head) >= 7 and head[:2] in ADTS else len(ADTS_RATES)
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 if rate_index < len(ADTS_RATES) else 0
    return (size, 1024 * (1 + (head[6] & 3)) / ADTS_RATES[rate_index]) if size >= 7 else None


def foreign_codec(content: Content, audio_format: str | None) -> str | None:
    """Name the codec within a file whose container libsndfile reads, if it is one that only FFmpeg decodes.

    Args:
        content ([`Content`]): the file.
        audio_format (`str`, *optional*): from [`sniff_format`].

    Returns:
        The codec's name; `None` if libsndfile decodes it.
    """
    if audio_format in ("WAV", "RF64", "W64"):
        region = sample_region(content)
        number = int.from_bytes(region.format_chunk[:2], "little") if region else 1
        return None if number in SOUNDFILE_WAV_CODECS else WAV_CODECS.get(number, f"codec number 0x{number:04X}")
    if audio_format == "OGG":
        head = content.read(0, 64)
        return next((name for mark, name in ((b"\x7fFLAC", "FLAC"), (b"Speex ", "Speex")) if mark in head), None)
    if audio_format == "CAF":
        at = content.find(b"desc")
        name = content.read(at + 20, 4).decode("latin-1")
        return None if name in ("lpcm", "alaw", "ulaw", "ima4") else name
    return None


def kind_of_no_audio(content: Content) -> str | None:
    """What a file is that is no audio, in words of this kit: nothing of what it holds may stand in a message.

    Args:
        content ([`Content`]): of no format that [`sniff_format`] knows.

    Returns:
        `str`, or `None` if that is not known.
    """
    head = content.read(0, 512)
    for signature, kind in _NO_AUDIO:
        if head.startswith(signature):
            return kind
    if not looks_like_text(content):
        return None
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return next((kind for beginning, kind in _TEXTS if text.startswith(beginning)), "text")


def looks_like_text(content: Content) -> bool:
    """Tell whether the first bytes are text, as of a web page or a Git LFS pointer saved under an audio file's name.

    Args:
        content ([`Content`]): the file.

    Returns:
        `bool`.
    """
    head = content.read(0, 512)
    if head.lstrip()[:14].lower().startswith(_MARKUP):  # whatever its encoding
        return True
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        # A character that is cut in two is one only where the content goes on.
        text = codecs.getincrementaldecoder(encoding)().decode(head, final=len(head) == content.size)
    except UnicodeDecodeError:
        return False
    unprintable = ("Cc", "Cn", "Co", "Cs")  # control characters, and what is no character
    return all(character in "\t\n\r\f" or unicodedata.category(character) not in unprintable for character in text)
