"""Words are dropped where the sound cannot be speech, offline and live alike; others are kept."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from babble import babble

import espnet_mlma
from espnet_mlma.data.corpora import espeak, non_speech
from espnet_mlma.data.corpora.espeak import SynthesisLine
from espnet_mlma.decode import Decoding
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.decode.speech2text import Speech2Text
from espnet_mlma.decode.speech_guard import SpeechGuard
from espnet_mlma.decode.streaming import StreamingTranscriber

RATE = 16000


def noise(seconds: float, level: float, slope: float = 0.0) -> np.ndarray:
    """Noise of a level in dBFS, whose power falls with the frequency to the power of `slope`."""
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(round(seconds * RATE)))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** (-slope / 2)
    sound = np.fft.irfft(spectrum, round(seconds * RATE))
    return (sound * 10 ** (level / 20) / np.sqrt(np.mean(sound**2))).astype(np.float32)


def tones(seconds: float, level: float, *pitches: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * pitch * time + pitch) for pitch in pitches)
    return (sound * 10 ** (level / 20)).astype(np.float32)


def click(seconds: float) -> np.ndarray:
    sound = np.zeros(round(seconds * RATE), np.float32)
    sound[len(sound) // 2 : len(sound) // 2 + 20] = 0.9
    return sound


SECONDS = 2
SOUNDS = {
    "zeros": np.zeros(SECONDS * RATE, np.float32),
    "one sample": np.full(1, 0.1, np.float32),
    "10 ms": noise(0.01, -20),
    "100 ms": noise(0.1, -20),
    "200 ms": noise(0.2, -20),
    "dither": np.round(noise(SECONDS, 0)) / 32768,
    "faint": noise(SECONDS, -70),
    "white": noise(SECONDS, -20),
    "pink": noise(SECONDS, -35, 1),
    "brown": noise(SECONDS, -20, 2),
    "offset": np.full(SECONDS * RATE, 0.1, np.float32),
    "50 Hz": tones(SECONDS, -30, *range(50, 1000, 50)),
    "60 Hz in noise": tones(SECONDS, -40, *range(60, 1000, 60)) + noise(SECONDS, -60),
    "tone": tones(SECONDS, -20, 440),
    "chord": tones(SECONDS, -30, 262, 330, 392, 523),
    "click": click(SECONDS),
    "noise begins": np.concatenate([np.zeros(RATE, np.float32), noise(2, -30)]),
    "long": noise(14, -40),
}


@pytest.fixture(scope="module")
def guarded(experiment) -> Recogniser:
    return espnet_mlma.load(experiment, device="cpu")


def with_decoding(recogniser: Recogniser, **options) -> Recogniser:
    """Return a recogniser with the same model and other options."""
    return Recogniser(recogniser.acoustic, recogniser.config, Decoding(**options))


@pytest.fixture(scope="module")
def unguarded(guarded) -> Recogniser:
    return with_decoding(guarded, speech_guard=False)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Speak a sentence of some three seconds with eSpeak NG, (time,) float32."""
    text = "The old boat is in the harbour and the children look at it."
    line = SynthesisLine("a-1", "a", text, "en-us+f1", 140, 50, 35)
    sound = espeak.finish(espeak.Espeak().speak(line), 35, np.random.default_rng(0))
    return sound.astype(np.float32)


def live(recogniser: Recogniser, samples: np.ndarray, size: int = 4000) -> tuple[list, list]:
    """Return the final words of a stream, and all partial texts."""
    stream = StreamingTranscriber(recogniser)
    updates = [stream.push(samples[i : i + size]) for i in range(0, len(samples), size)]
    updates.append(stream.finish())
    words = [word for update in updates for word in update.final]
    return words, [update.partial for update in updates if update.partial]


@pytest.mark.parametrize("sound", SOUNDS)
def test_nothing_is_written_for_what_cannot_be_speech(sound, guarded):
    samples = SOUNDS[sound]
    transcript = guarded.transcribe(samples)
    assert (transcript.text, transcript.words, transcript.tokens) == ("", (), ())
    assert transcript.language is None
    assert guarded.transcribe_batch([samples])[0].words == ()
    assert live(guarded, samples) == ([], [])
    assert transcript.duration == len(samples) / RATE


def test_the_guard_can_be_switched_off(unguarded, experiment):
    samples = SOUNDS["white"]
    assert unguarded.transcribe(samples).words
    assert unguarded.transcribe_batch([samples])[0].words
    words, partial = live(unguarded, samples)
    assert words and partial
    files = experiment / "config.yaml", experiment / "valid.cer_ctc.ave.pth"
    assert Speech2Text(*files, speech_guard=False)(samples)[0][0]
    ((text, tokens, token_ids, _),) = Speech2Text(*files)(samples)
    assert (text, tokens, token_ids) == ("", [], [])


def test_a_beam_search_is_guarded_too(guarded):
    recogniser = with_decoding(guarded, beam_size=4)
    assert recogniser.transcribe(SOUNDS["white"]).text == ""
    assert recogniser.transcribe(babble(RATE)).text != ""


def changed(condition: str, speech: np.ndarray) -> np.ndarray:
    level = 20 * np.log10(np.sqrt(np.mean(speech**2)))
    if condition == "whispered level":
        return speech * 10 ** ((-45 - level) / 20)
    if condition == "white noise, 5 dB":
        return speech + noise(len(speech) / RATE, level - 5)
    if condition == "pink noise, 0 dB":
        return speech + noise(len(speech) / RATE, level, 1)
    if condition == "8 kHz":
        spectrum = np.fft.rfft(speech)
        spectrum[len(spectrum) // 2 :] = 0
        return np.fft.irfft(spectrum, len(speech))
    return speech


CONDITIONS = ("clean", "whispered level", "white noise, 5 dB", "pink noise, 0 dB", "8 kHz")


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_part_of_speech_is_speech(condition, speech):
    guard = SpeechGuard.of(changed(condition, speech).astype(np.float32))
    places = np.arange(0.1, len(speech) / RATE - 0.2, 0.05)
    assert all(guard.has_speech(place, place + 0.1) for place in places)


@pytest.mark.parametrize(
    "lang, word", [("en", "No."), ("it", "Sì."), ("de", "Ja."), ("fr", "Oui.")]
)
def test_a_single_word_is_speech(lang, word):
    line = SynthesisLine("a-1", "a", word, espeak.voice_of(lang, "m1"), 150, 50, 35)
    samples = espeak.finish(espeak.Espeak().speak(line), 35, np.random.default_rng(0))
    silence = np.zeros(RATE, np.float32)
    for sound in (samples, np.concatenate([silence, samples, silence])):
        seconds = len(sound) / RATE
        assert SpeechGuard.of(sound.astype(np.float32)).has_speech(seconds / 2 - 0.1, seconds / 2)


def test_speech_after_silence_keeps_its_words_and_silence_loses_them(unguarded, guarded, speech):
    """The times of the words that are left stay the same."""
    samples = np.concatenate([SOUNDS["faint"], speech, SOUNDS["50 Hz"]])
    start, end = SECONDS, SECONDS + len(speech) / RATE
    for found, everything in (
        (guarded.transcribe(samples).words, unguarded.transcribe(samples).words),
        (live(guarded, samples)[0], live(unguarded, samples)[0]),
    ):
        assert [w for w in everything if w.end < start - 1.2 or w.start > end + 1.2]
        assert not [w for w in found if w.end < start - 1.2 or w.start > end + 1.2]
        spoken = [w for w in everything if w.start > start + 0.1 and w.end < end - 0.1]
        assert spoken and set(spoken) <= set(found)


def test_a_stream_of_any_pieces_drops_the_same(guarded, speech):
    samples = np.concatenate([SOUNDS["white"], speech[: 2 * RATE], SOUNDS["zeros"]])
    expected, _ = live(guarded, samples, len(samples))
    assert expected
    for size in (320, 999, 16000):
        words, _ = live(guarded, samples, size)
        assert [w.text for w in words] == [w.text for w in expected]
        assert [w.start for w in words] == pytest.approx([w.start for w in expected])


def test_a_stream_drops_the_words_that_the_whole_recording_drops(unguarded, guarded, speech):
    samples = np.concatenate([SOUNDS["pink"], speech, SOUNDS["chord"]])
    guard = SpeechGuard.of(samples)
    every, _ = live(unguarded, samples)
    expected = [word for word in every if guard.has_speech(word.start, word.end)]
    assert 0 < len(expected) < len(every)
    assert live(guarded, samples)[0] == expected


def test_memory_does_not_grow():
    guard = SpeechGuard()
    for second in range(60):
        guard.push(babble(RATE, seed=second))
        guard.forget(second)
    assert len(guard._changed) < 200
    assert guard.has_speech(58, 59) is True


def test_symbols_of_dropped_words_are_dropped(unguarded, guarded, speech, tmp_path):
    samples = np.concatenate([SOUNDS["white"], speech, SOUNDS["white"]])
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    transcript = guarded.transcribe(tmp_path / "a.wav")
    written = "".join(token.text for token in transcript.tokens)
    assert transcript.text == " ".join(written.replace("<space>", " ").split())
    (batch,) = guarded.transcribe_batch([samples])
    symbols = [token.text for token in batch.tokens]
    assert symbols[0] != "<space>" != symbols[-1]
    assert ("<space>", "<space>") not in list(zip(symbols, symbols[1:], strict=False))
    assert len(unguarded.transcribe_batch([samples])[0].words) > len(batch.words) > 0


def test_a_given_language_stays(guarded):
    recogniser = Recogniser(guarded.acoustic, guarded.config, language="it")
    assert recogniser.transcribe(SOUNDS["zeros"]).language == "it"


def test_a_configuration_can_switch_the_guard_off():
    assert Decoding.from_dict({"speech_guard": False}, "x") == replace(
        Decoding(), speech_guard=False
    )


def test_the_silence_and_noise_of_training_are_no_speech():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        guard = SpeechGuard.of(non_speech.silence(rng, 2 * RATE).astype(np.float32))
        assert not guard.has_speech(0.5, 1.5)
