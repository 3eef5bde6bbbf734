"""Audio fingerprints: their cost, copies found after coding, and false matches.

    python benchmarks/fingerprints.py --db_root CORPORA [--mixture real] [--copies 300]
        [--json FILE]

False matches are looked for between all pairs of clips of the mixture. Some corpora have a
recording twice, so the waveforms of clips that match are compared.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from common import ROOT, arguments, report
from scipy.signal import fftconvolve

from espnet_mlma.audio import SAMPLE_RATE, read_audio
from espnet_mlma.audio.archives import iter_archive
from espnet_mlma.data.audio_match import HeldOutAudio
from espnet_mlma.data.fingerprint import NO_WORD, Fingerprints, fingerprint
from espnet_mlma.data.mixtures import CORPORA, load
from espnet_mlma.data.utterance import Utterance

SAME_WAVEFORM = 0.9  # correlation
SHORTEST = 48  # frames with a word that a match needs


def coded(samples: np.ndarray, container: str, codec: str, rate: int, bits: int) -> np.ndarray:
    """Encode and decode a sound; `bits` a second."""
    file = io.BytesIO()
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
    file.seek(0)
    return read_audio(file, name=codec)


def as_flac(samples: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    file.seek(0)
    return read_audio(file, name="flac")


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "FLAC, 16 bit": as_flac,
    "Opus, 32 kbit/s": lambda x: coded(x, "ogg", "libopus", 48000, 32_000),
    "Opus, 16 kbit/s": lambda x: coded(x, "ogg", "libopus", 48000, 16_000),
    "MP3, 64 kbit/s, 48 kHz": lambda x: coded(x, "mp3", "libmp3lame", 48000, 64_000),
    "MP3, 32 kbit/s, 16 kHz": lambda x: coded(x, "mp3", "libmp3lame", 16000, 32_000),
    "8 kHz and back": lambda x: soxr.resample(soxr.resample(x, SAMPLE_RATE, 8000), 8000, 16000),
    "gain of -20 dB": lambda x: as_flac(0.1 * x),
    "gain of +6 dB, clipped": lambda x: np.clip(2 * x, -1, 1),
    "first 8 ms cut": lambda x: x[128:],
    "first 100 ms cut": lambda x: x[1600:],
    "between noise of 5 s": lambda x: np.concatenate([noise(5.0), x, noise(5.0)]),
    "first half": lambda x: x[: len(x) // 2],
}


def noise(seconds: float) -> np.ndarray:
    generator = np.random.default_rng(round(1000 * seconds))
    return generator.normal(0, 0.05, round(seconds * SAMPLE_RATE)).astype(np.float32)


def read(utterance: Utterance) -> np.ndarray:
    audio = utterance.audio
    if audio.member is None:
        return read_audio(audio.path, utterance.start, utterance.end)
    [(_, content)] = iter_archive(audio.path, [audio.member])
    return read_audio(io.BytesIO(content.read()), name=str(audio))


def all_pairs(clips: list[tuple[str, np.ndarray]]) -> set[tuple[str, str]]:
    """Find pairs of clips that match; any two are on different sides in some round."""
    pairs = set()
    for bit in range(len(clips).bit_length()):
        sides: tuple[list, list] = ([], [])
        for number, clip in enumerate(clips):
            sides[number >> bit & 1].append(clip)
        index, asked = map(Fingerprints.join, sides)
        for one, other in HeldOutAudio([index]).matches(asked).items():
            pairs.add((min(one, other), max(one, other)))
    return pairs


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest correlation of half a second of one sound with a part of another."""
    if len(one) > len(other):
        one, other = other, one
    size = min(SAMPLE_RATE // 2, len(one))
    energy = np.cumsum(np.concatenate([[0.0], np.square(other, dtype=np.float64)]))
    norms = np.sqrt(np.maximum(energy[size:] - energy[:-size], 1e-9))
    best = 0.0
    for start in range(0, len(one) - size + 1, size // 2):
        block = one[start : start + size]
        if block.std() > 0.01:
            products = fftconvolve(other, block[::-1], "valid")
            best = max(best, float(np.max(products / norms) / np.linalg.norm(block)))
    return best


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--db_root", type=Path, required=True, help="the corpora")
    parser.add_argument("--mixture", default="real")
    parser.add_argument("--copies", type=int, default=300, help="clips that are coded")
    args = parser.parse_args()
    roots = {corpus: args.db_root / folder for corpus, folder in CORPORA.items()}
    mixture = load(ROOT / "conf" / "mixtures.yaml", args.mixture)
    splits = mixture.train + mixture.valid + mixture.test
    utterances = [
        (f"{source.split}:{u.id}", u)
        for source in splits
        for u in source.utterances(roots)
        if isinstance(u, Utterance)
    ]
    clips, seconds, spent = [], 0.0, 0.0
    for name, utterance in utterances:
        samples = read(utterance)
        started = time.process_time()
        clips.append((name, fingerprint(samples)))
        spent += time.process_time() - started
        seconds += len(samples) / SAMPLE_RATE
    started = time.process_time()
    pairs = all_pairs(clips)
    rounds = len(clips).bit_length()
    matching = (time.process_time() - started) / rounds
    by_name = dict(utterances)
    others = []
    for pair in sorted(pairs):
        alike = correlation(*(read(by_name[name]) for name in pair))
        if alike < SAME_WAVEFORM:
            others.append(pair)
            print(f"match of waveforms that correlate by {alike:.2f}:", *pair)
    usable = [len(words[words != NO_WORD]) for _, words in clips]
    long = [number for number, frames in enumerate(usable) if frames >= SHORTEST]
    rows = [
        ["clips", len(clips)],
        ["hours", f"{seconds / 3600:.2f}"],
        ["clips too short to match", len(clips) - len(long)],
        ["CPU s an hour: fingerprints", f"{spent / seconds * 3600:.2f}"],
        ["CPU s an hour: half of them looked up in the others", f"{matching * 7200 / seconds:.2f}"],
        ["pairs of clips", len(clips) * (len(clips) - 1) // 2],
        ["pairs that match", len(pairs)],
        ["pairs that match with different waveforms", len(others)],
    ]
    report("Fingerprints of clips", ["what", "number"], rows, args)

    chosen = random.Random(0).sample(long, min(args.copies, len(long)))
    originals = HeldOutAudio([Fingerprints.join([clips[number] for number in chosen])])
    rows = []
    for name, copy in COPIES.items():
        copies = [(clips[n][0], fingerprint(copy(read(utterances[n][1])))) for n in chosen]
        found = originals.matches(Fingerprints.join(copies))
        long_copies = sum(int((words != NO_WORD).sum()) >= SHORTEST for _, words in copies)
        wrong = sum(
            one != other and (min(one, other), max(one, other)) not in pairs
            for one, other in found.items()
        )
        rows.append([name, len(copies), long_copies, len(found), wrong])
    header = ["copy", "clips", "long enough", "found", "wrong"]
    report("Copies of clips found by their fingerprints", header, rows, args)


if __name__ == "__main__":
    main()
