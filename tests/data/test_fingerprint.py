"""Held-out audio is found again in any coding, and other readings of a sentence are not."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

from espnet_mlma.audio import SAMPLE_RATE, read_audio
from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data import audio_match, fingerprint, tables
from espnet_mlma.data.audio_match import HeldOutAudio
from espnet_mlma.data.corpora import commonvoice, librispeech, mls
from espnet_mlma.data.filter import LengthLimits, filter_folder
from espnet_mlma.data.filter import main as filter_main
from espnet_mlma.data.fingerprint import NO_WORD, Fingerprints
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.data.speed_perturb import perturb
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError

LIMITS = LengthLimits(0.1, 60.0)
SHORTEST = 2.5  # seconds of the clips that are copied


def encode(samples: np.ndarray, file, container: str, codec: str, rate: int, bits: int) -> None:
    """Encode a sound with FFmpeg; `bits` a second."""
    pcm = np.clip(soxr.resample(samples, SAMPLE_RATE, rate) * 32767, -32768, 32767)
    frame = av.AudioFrame.from_ndarray(pcm.astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate = rate
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = bits
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or None)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))


def coded(*how) -> Callable[[np.ndarray], np.ndarray]:
    def run(samples: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        encode(samples, file, *how)
        file.seek(0)
        return read_audio(file, name="copy")

    return run


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, round(seconds * SAMPLE_RATE))


COPIES = {
    "opus": coded("ogg", "libopus", 48000, 24_000),
    "mp3": coded("mp3", "libmp3lame", 44100, 64_000),
    "mp3, 32 kbit/s": coded("mp3", "libmp3lame", 16000, 32_000),
    "flac, 16 bit": coded("flac", "flac", 16000, 0),
    "8 kHz": lambda x: soxr.resample(soxr.resample(x, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE),
    "quieter": lambda x: 0.1 * x,
    "half a frame cut": lambda x: x[fingerprint.HOP // 2 :],
    "5 frames cut": lambda x: x[5 * fingerprint.HOP + 77 :],
    "inside a recording": lambda x: np.concatenate([noise(3, 1), x, noise(3, 2)]),
    "a part": lambda x: x[len(x) // 4 :],
}


def clips(utterances: list[Utterance], shortest: float = SHORTEST) -> dict[str, np.ndarray]:
    """Read the clips that are long enough."""
    sounds = {u.id: read_audio(u.audio.path, u.start, u.end) for u in utterances}
    return {id_: of for id_, of in sounds.items() if len(of) > shortest * SAMPLE_RATE}


def prints(sounds: dict[str, np.ndarray]) -> Fingerprints:
    return Fingerprints.join([(id_, fingerprint.fingerprint(of)) for id_, of in sounds.items()])


@pytest.fixture(scope="module")
def originals(shared_corpora: Path) -> dict[str, np.ndarray]:
    """Test clips of three corpora in four languages."""
    found = [
        *list(librispeech.prepare(shared_corpora / "LibriSpeech", "en", "test-clean"))[::4],
        *commonvoice.prepare(shared_corpora / "commonvoice", "de", "test"),
        *list(mls.prepare(shared_corpora / "mls", "es", "test"))[::5],
        *list(mls.prepare(shared_corpora / "mls", "it", "test"))[::5],
    ]
    sounds = clips(found)
    assert len(sounds) > 20
    return sounds


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_found_and_nothing_else(originals, name: str) -> None:
    copies = {f"copy of {id_}": COPIES[name](of) for id_, of in originals.items()}
    found = HeldOutAudio([prints(originals)]).matches(prints(copies))
    assert found == {f"copy of {id_}": id_ for id_ in originals}


def test_a_longer_held_out_clip_is_found_by_a_part(originals) -> None:
    whole = np.concatenate(list(originals.values()))
    found = HeldOutAudio([prints({"whole": whole})]).matches(prints(originals))
    assert found == dict.fromkeys(originals, "whole")


# Numbers of a reader's clips in MLS: the same sentence, or nearly the same, read twice.
READINGS = [
    ("fr", "3102-10102", 128, 193),
    ("fr", "3102-10102", 24, 235),
    ("fr", "9620-10120", 214, 584),
    ("fr", "9620-10120", 11, 137),
    ("it", "6115-10115", 73, 112),
]


@pytest.mark.parametrize(("lang", "reader", "one", "other"), READINGS)
def test_another_reading_by_the_same_reader_does_not_match(
    shared_corpora: Path, lang: str, reader: str, one: int, other: int
) -> None:
    utterances = {u.id: u for u in mls.prepare(shared_corpora / "mls", lang, "train")}
    first, second = (utterances[f"mls_{lang}_{reader}_{number:06d}"] for number in (one, other))
    assert len(set(first.text.split()) & set(second.text.split())) >= 4
    index = HeldOutAudio([prints(clips([first], 1.5))])
    assert index.matches(prints(clips([second], 1.5))) == {}
    copy = {"copy": COPIES["mp3, 32 kbit/s"](read_audio(first.audio.path))}
    assert index.matches(prints(copy)) == {"copy": first.id}


def odd_sounds() -> dict[str, np.ndarray]:
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    return {
        "empty": np.zeros(0),
        "one sample": np.ones(1),
        "silence": np.zeros(3 * SAMPLE_RATE),
        "dither": np.random.default_rng(0).integers(-1, 2, 3 * SAMPLE_RATE) / 32768,
        "constant": np.full(3 * SAMPLE_RATE, 0.5),
        "tone": tone,
        "short noise": noise(0.2, 0),
    }


@pytest.mark.parametrize("name", odd_sounds())
def test_a_sound_without_changes_has_no_words(name: str) -> None:
    words = fingerprint.fingerprint(odd_sounds()[name])
    assert words.dtype == np.uint32
    assert (words == NO_WORD).all()


def test_odd_sounds_match_nothing(originals) -> None:
    odd = {f"{name} {copy}": of for name, of in odd_sounds().items() for copy in (1, 2)}
    odd |= {f"noise {seed}": noise(4, seed) for seed in range(20)}
    first = dict(list(originals.items())[:1])
    short = {"short": next(iter(first.values()))[SAMPLE_RATE // 2 : SAMPLE_RATE]}
    index = HeldOutAudio([prints(odd | first)])
    assert index.matches(prints({f"also {id_}": of for id_, of in odd.items()} | short)) == {
        f"also noise {seed}": f"noise {seed}" for seed in range(20)
    }
    assert HeldOutAudio([]).matches(prints(first)) == {}


def make_set(folder: Path, utterances: list[Utterance]) -> Path:
    """Run stages 1 and 3."""
    write_set(folder / "data", utterances, nj=1)
    format_folder(folder / "data", folder / "dump", nj=1)
    return folder / "dump"


def test_a_test_clip_in_the_training_set_of_another_corpus_is_excluded(
    shared_corpora: Path, tmp_path: Path
) -> None:
    """It is an mp3 in Common Voice, and inside a longer recording."""
    test = list(mls.prepare(shared_corpora / "mls", "it", "test"))
    held, *_ = (u for u in test if u.id in clips([u]))
    sound = read_audio(held.audio.path)
    own = list(commonvoice.prepare(shared_corpora / "commonvoice", "it", "train"))[:3]
    copies = []
    for name, samples in {
        "copied": sound,
        "inside": np.concatenate([noise(2, 3), sound, noise(2, 4)]),
    }.items():
        with open(tmp_path / f"{name}.mp3", "wb") as file:
            encode(samples, file, "mp3", "libmp3lame", 48000, 64_000)
        audio = AudioFile(tmp_path / f"{name}.mp3")
        speaker = f"cv_it_{name}"
        copies.append(Utterance(f"{speaker}-1", audio, "un altro testo", speaker, "it"))
    org = make_set(tmp_path / "train", [*own, *copies])
    dump = make_set(tmp_path / "test", test)
    counts = filter_folder(org, tmp_path / "out", LIMITS, [dump])
    assert counts == {"kept": 3, "audio_in_test": 2}
    assert list(tables.read(tmp_path / "out/text", "")) == sorted(u.id for u in own)
    dropped = (tmp_path / "out/dropped.tsv").read_text().splitlines()[1:]
    assert dropped == [f"{u.id}\taudio_in_test\thas audio of {held.id}" for u in copies]
    report = (tmp_path / "out/excluded.md").read_text()
    hours = (2 * len(sound) / SAMPLE_RATE + 4) / 3600
    assert f"| audio_in_test | cv | it | 2 | {hours:.3f} |" in report


def test_copies_at_other_speeds_are_excluded_too(shared_corpora: Path, tmp_path: Path) -> None:
    test = list(mls.prepare(shared_corpora / "mls", "it", "test"))
    held, *others = (u for u in test if u.id in clips([u]))
    write_set(tmp_path / "data", [held, others[0]], nj=1)
    perturb(tmp_path / "data", tmp_path / "data_sp", [0.9, 1.0, 1.1])
    format_folder(tmp_path / "data_sp", tmp_path / "org", nj=1)
    dump = make_set(tmp_path / "test", [held])
    counts = filter_folder(tmp_path / "org", tmp_path / "out", LIMITS, [dump])
    assert counts == {"kept": 3, "audio_in_test": 3}


def test_a_validation_set_may_share_audio_with_itself(make_data, tmp_path: Path) -> None:
    format_folder(make_data(3), tmp_path / "org", nj=1)
    options = ["--data", tmp_path / "org", "--output", tmp_path / "out", "--min_seconds", "0.1"]
    filter_main([*map(str, options), "--max_seconds", "20", "--held_out"])
    assert len(tables.read(tmp_path / "out/text", "")) == 3


@pytest.mark.parametrize("damage", ["missing", "cut off", "no zip", "encrypted", "of another set"])
def test_a_set_without_whole_fingerprints_is_an_error(
    make_data, tmp_path: Path, damage: str
) -> None:
    org = tmp_path / "org"
    format_folder(make_data(2), org, nj=1)
    path = org / "data/shard.00001.fp"
    if damage == "missing":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "no zip":
        with open(path, "wb") as file:
            np.save(file, np.arange(3))
    elif damage == "encrypted":  # one flag, as a disk error sets it
        whole = bytearray(path.read_bytes())
        whole[whole.index(b"PK\1\2") + 8] |= 1
        path.write_bytes(whole)
    else:
        fingerprint.write(path, prints({"another": noise(1, 1)}))
    with pytest.raises(MlmaError, match=r"run stage 3 again") as error:
        filter_folder(org, tmp_path / "out", LIMITS, [org])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_stage_3_mends_fingerprints(make_data, tmp_path: Path, damage: str, capsys) -> None:
    data, org = make_data(2, seconds=2.0), tmp_path / "org"
    format_folder(data, org, nj=1)
    path = org / "data/shard.00001.fp"
    whole = fingerprint.read(path)
    assert len(whole.words) > 100 and whole.ids == list(tables.read(org / "text", ""))
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-40])
    format_folder(data, org, nj=1, verify=damage == "cut off")
    assert (fingerprint.read(path).words == whole.words).all()
    assert ("shard.00001.fp is damaged" in capsys.readouterr().out) == (damage == "cut off")


def test_unreadable_audio_has_no_fingerprint(tone, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.flac", tone(2.0), SAMPLE_RATE)
    soundfile.write(tmp_path / "bad.flac", tone(2.0), SAMPLE_RATE)
    made = [
        Utterance(f"cv_en_a-{n}", AudioFile(tmp_path / f"{n}.flac"), "good day", "cv_en_a", "en")
        for n in ("bad", "good")
    ]
    write_set(tmp_path / "data", made, nj=1)
    (tmp_path / "bad.flac").write_bytes(b"nothing")
    format_folder(tmp_path / "data", tmp_path / "dump", nj=1)
    [found] = audio_match.read_folder(tmp_path / "dump")
    assert found.ids == ["cv_en_a-good"]
