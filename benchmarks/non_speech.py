"""Count words that a model writes for an hour without speech, offline and live.

    python benchmarks/non_speech.py --model EXPERIMENT [--data dump/raw/test_x ...] [--json FILE]

The sounds are seeded and do not share code with those of training (`corpora/non_speech.py`). Each
kind lasts 200 seconds, in clips of 0.2 to 100 seconds; a last clip has ten minutes of all kinds. A
clip is transcribed as a file, live in pieces of 0.32 s, and up to 30 s in a batch, with and without
the decoder's speech guard. --data adds word errors on speech, as recorded, at -45 dBFS and in white
noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from common import model_arguments, prepare, report
from streaming import read_set

import espnet_mlma
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.decode import Decoding, Word
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.decode.speech_guard import SpeechGuard
from espnet_mlma.decode.streaming import StreamingTranscriber
from espnet_mlma.evaluation.score.align import count_errors, total_errors

LENGTHS = (0.2, 0.3, 0.6, 1.0, 2.0, 4.0, 8.0, 12.0, 30.0, 41.9, 100.0)  # 200 in all
MIXED_SECONDS = 600
BATCH_SECONDS = 30
PIECE = round(0.32 * SAMPLE_RATE)
Source = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def decibels(level: float) -> float:
    return 10 ** (level / 20)


def to_level(sound: np.ndarray, level: float) -> np.ndarray:
    """Scale to a root mean square of `level` dBFS."""
    return sound * decibels(level) / max(np.sqrt(np.mean(sound**2)), 1e-12)


def coloured(rng: np.random.Generator, samples: int, slope: float) -> np.ndarray:
    """Make noise whose power falls with the frequency to the power of `slope`."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** (-slope / 2)
    return np.fft.irfft(spectrum, samples)


def noise(slope: float, *levels: float) -> Source:
    def make(rng, time):
        return to_level(coloured(rng, len(time), slope), rng.choice(levels))

    return make


def zeros(_, time):
    return np.zeros(len(time))


def dither(rng, time):
    return np.round(rng.triangular(-1, 0, 1, len(time))) / 32768


def offset(rng, time):
    return rng.choice((-0.3, -0.02, 0.02, 0.3)) + 1e-4 * rng.standard_normal(len(time))


def hum(rng, time):
    """Make a hum of 50 or 60 Hz whose odd harmonics are louder than the even ones."""
    mains = rng.choice((50, 60)) * (1 + 0.001 * rng.standard_normal())
    sound = sum(
        (1.0 if order % 2 else 0.3) / order * np.sin(2 * np.pi * mains * order * time + order)
        for order in range(1, 25)
    )
    return to_level(sound, rng.uniform(-70, -20)) + to_level(coloured(rng, len(time), 1), -75)


def fan(rng, time):
    """Make the broad noise and the drifting blade tones of a fan."""
    turns = np.cumsum(24 + 0.2 * np.sin(0.3 * time)) / SAMPLE_RATE
    blades = sum(np.sin(2 * np.pi * 7 * k * turns) / k for k in range(1, 6))
    sound = to_level(coloured(rng, len(time), 1.3), -10) + to_level(blades, -20)
    return to_level(sound, rng.uniform(-55, -25))


def swelling(rng, time):
    """Make noise whose colour and level change within seconds, like wind or surf."""
    low, high = (coloured(rng, len(time), slope) for slope in (2.0, 0.3))
    share = 0.5 + 0.5 * np.sin(2 * np.pi * time / rng.uniform(4, 9) + rng.uniform(0, 6))
    return to_level(to_level(low, 0) * share + to_level(high, -8) * (1 - share), -32)


def tone(rng, time):
    return decibels(rng.uniform(-60, -15)) * np.sin(2 * np.pi * rng.uniform(80, 3000) * time)


def timbre(time: np.ndarray, pitch: float, brightness: float) -> np.ndarray:
    """Make a tone with the harmonics of a sawtooth, darkened."""
    base = 261.63 * 2 ** (pitch / 12)
    orders = range(1, int(min(14, 7000 / base)) + 1)
    return sum(brightness**k * np.sin(2 * np.pi * base * k * time) / k for k in orders)


def played(rng, time, seconds: float, chords: list[list[int]]) -> np.ndarray:
    """Play chords, given in half tones above middle C, each struck and decaying."""
    sound, size = np.zeros(len(time)), int(seconds * SAMPLE_RATE)
    local = np.arange(int(1.5 * size)) / SAMPLE_RATE
    envelope = np.minimum(1, local / 0.01) * np.exp(-local / seconds)
    brightness = rng.uniform(0.4, 0.9)
    for number, start in enumerate(range(0, len(time), size)):
        for pitch in chords[number % len(chords)]:
            part = sound[start : start + len(local)]
            part += (envelope * timbre(local, pitch, brightness))[: len(part)]
    return to_level(sound, rng.uniform(-40, -18))


def chords(rng, time):
    return played(rng, time, rng.uniform(1, 3), [[-12, 0, 4, 7], [-7, 0, 5, 9], [-5, -1, 2, 7]])


def melody(rng, time):
    scale = (0, 2, 4, 5, 7, 9, 11, 12)
    return played(rng, time, rng.uniform(0.2, 0.6), [[rng.choice(scale)] for _ in range(16)])


def arpeggio(rng, time):
    return played(rng, time, rng.uniform(0.1, 0.25), [[0], [4], [7], [12], [7], [4]])


def clicks(rng, time):
    """Make single clicks in silence, some a second or several seconds apart."""
    sound = np.zeros(len(time))
    places = np.cumsum(rng.exponential(rng.choice((0.3, 1, 5)) * SAMPLE_RATE, 2000)).astype(int)
    for place in places[places < len(sound)]:
        part = sound[place : place + rng.integers(1, 80)]
        part += rng.uniform(0.05, 0.9) * np.exp(-np.arange(len(part)) / 12)
    return sound


KINDS: dict[str, Source] = {
    "zeros": zeros,
    "dither": dither,
    "offset": offset,
    "white noise, -90 to -65 dBFS": noise(0, -90, -80, -65),
    "white noise, -50 to -20 dBFS": noise(0, -50, -35, -20),
    "pink noise": noise(1, -80, -60, -40, -20),
    "brown noise": noise(2, -80, -60, -40, -20),
    "mains hum": hum,
    "fan": fan,
    "swelling noise": swelling,
    "one tone": tone,
    "chords": chords,
    "melody": melody,
    "arpeggio": arpeggio,
    "clicks": clicks,
}


def make(kind: Source, rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Make a clip, (samples,) float32."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.clip(kind(rng, time), -1, 1).astype(np.float32)


def clips() -> Iterator[tuple[str, np.ndarray]]:
    """Yield kind and samples of each clip; the last one mixes all kinds."""
    for number, (name, kind) in enumerate(KINDS.items()):
        for place, seconds in enumerate(LENGTHS):
            yield name, make(kind, np.random.default_rng([number, place]), seconds)
    rng, parts, left = np.random.default_rng(99), [], MIXED_SECONDS
    while left > 0:
        seconds = min(left, rng.uniform(0.3, 12))
        parts.append(make(list(KINDS.values())[rng.integers(len(KINDS))], rng, seconds))
        left -= seconds
    yield "all, one after the other", np.concatenate(parts)


def live(stream: StreamingTranscriber, samples: np.ndarray) -> list[Word]:
    """Return the words of a stream."""
    stream.reset()
    pieces = (samples[i : i + PIECE] for i in range(0, len(samples), PIECE))
    updates = [*map(stream.push, pieces), stream.finish()]
    return [word for update in updates for word in update.final]


def guarded(words: Iterable[Word], samples: np.ndarray) -> list[Word]:
    """Return the words that the guard keeps; it judges each alone, offline and live alike."""
    guard = SpeechGuard.of(samples)
    return [word for word in words if guard.has_speech(word.start, word.end)]


def false_words(recogniser: Recogniser, args) -> None:
    """Report words by kind of sound, way of decoding, and guard."""
    stream = StreamingTranscriber(recogniser)
    kinds = [*KINDS, "all, one after the other"]
    found, seconds = {name: np.zeros(6, int) for name in kinds}, dict.fromkeys(kinds, 0.0)
    left_out = 0
    for name, samples in clips():
        if len(samples) > args.longest * SAMPLE_RATE:
            left_out += 1
            continue
        seconds[name] += len(samples) / SAMPLE_RATE
        ways = [recogniser.transcribe(samples).words, live(stream, samples), ()]
        if len(samples) <= BATCH_SECONDS * SAMPLE_RATE:
            ways[2] = recogniser.transcribe_batch([samples])[0].words
        for place, words in enumerate(ways):
            found[name][2 * place :][:2] += len(words), len(guarded(words, samples))
        print(f"  {sum(seconds.values()):.0f} s", end="\r", flush=True)
    if left_out:
        print(f"{left_out} clips of more than {args.longest:g} s are left out")
    rows = [[name, f"{seconds[name] / 60:.1f}", *found[name]] for name in kinds if seconds[name]]
    hours = sum(seconds.values()) / 3600
    all_words = sum(found.values())
    rows.append(["all, words", f"{60 * hours:.1f}", *all_words])
    rows.append(["all, words per hour", "", *(f"{number / hours:.0f}" for number in all_words)])
    names = ("as files", "live", "in batches")
    header = ["sound", "minutes", *(f"{n}{g}" for n in names for g in ("", ", guard"))]
    rows = [list(map(str, row)) for row in rows]
    report(f"False words, {args.name}", header, rows, args)


def speech(recogniser: Recogniser, args) -> None:
    """Report word error rates with and without the guard."""
    conditions = {
        "as recorded": lambda rng, x: x,
        "at -45 dBFS": lambda rng, x: to_level(x, -45).astype(np.float32),
        "in white noise, SNR 5 dB": lambda rng, x: (
            x + np.sqrt(np.mean(x**2)) * decibels(-5) * rng.standard_normal(len(x))
        ).astype(np.float32),
    }
    utterances = [utterance for folder in args.data for utterance in read_set(folder)]
    stream, rows = StreamingTranscriber(recogniser), []
    for name, change in conditions.items():
        counts, kept = [[], [], [], []], [0, 0]
        for number, (samples, text) in enumerate(utterances):
            changed = change(np.random.default_rng(number), samples)
            ways = [recogniser.transcribe_batch([changed])[0].words]
            if name == "as recorded":
                ways.append(live(stream, changed))
            both = [words for way in ways for words in (way, guarded(way, changed))]
            kept = [kept[0] + len(both[0]), kept[1] + len(both[1])]
            for of, words in zip(counts, both, strict=False):
                of.append(count_errors(text.split(), [word.text for word in words]))
        rates = [f"{total_errors(of).rate:.2f}" if of else "-" for of in counts]
        rows.append([name, *rates, *map(str, kept)])
    header = ["speech", "WER (%)", "guard", "live (%)", "live, guard", "words", "words, guard"]
    title = f"Speech, {args.name}, {len(utterances)} utterances"
    report(title, header, rows, args)


def main() -> None:
    parser = model_arguments(__doc__.splitlines()[0])
    parser.add_argument("--name", default="the model", help="the model's name in titles")
    parser.add_argument(
        "--longest", type=float, default=float("inf"), help="leave out longer clips; seconds"
    )
    args = parser.parse_args()
    if not args.model:
        parser.error("give --model")
    prepare(args)
    decoding = Decoding(speech_guard=False)
    recogniser = espnet_mlma.load(args.model, device="cpu", decoding=decoding)
    false_words(recogniser, args)
    if args.data:
        speech(recogniser, args)


if __name__ == "__main__":
    main()
