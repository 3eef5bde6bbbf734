"""Augmentation with sound that is not speech: ESPnet's `preprocessor: non_speech`."""

from __future__ import annotations

import numpy as np
from espnet2.train.preprocessor import CommonPreprocessor

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data.corpora import non_speech
from espnet_mlma.errors import MlmaError

# Telephones end at 3.4 kHz; mp3 of speech often at 7.
_HIGHEST_HZ = (3400, SAMPLE_RATE / 2)


class NonSpeechPreprocessor(CommonPreprocessor):
    """Add sound without speech, and quieter clips, to the training data.

    Some clips are replaced by silence, noise, hum or notes of the same length, with an empty text.
    Some are made quieter. Some lose their high frequencies, like mp3 and telephone speech. Some get
    silence or noise around them. A model trained on speech alone outputs words for any sound. A
    model that has met low levels or empty high bands only in non-speech mistakes quiet or
    band-limited speech for noise. The choices come from NumPy's global generator, like those of
    ESPnet's own augmentation, which runs afterwards. Validation and the statistics of stage 10 use
    every clip unchanged.

    Args:
        non_speech_prob: share of clips that are replaced.
        quieter_prob: share of the other clips that are made quieter.
        quieter_decibels: largest reduction of the level, in dB.
        band_limited_prob: share of the clips with speech that lose everything above a frequency
            drawn between 3.4 and 8 kHz.
        silence_prob: share of clips with silence or noise before the speech; the same share, drawn
            separately, has it after the speech.
        silence_seconds: longest silence or noise on each side, in seconds.
        options: arguments of CommonPreprocessor.

    Raises:
        MlmaError: a share is not between 0 and 1, or decibels or seconds are out of range.
    """

    def __init__(
        self,
        *,
        non_speech_prob: float = 0.03,
        quieter_prob: float = 0.1,
        quieter_decibels: float = 30.0,
        band_limited_prob: float = 0.1,
        silence_prob: float = 0.2,
        silence_seconds: float = 1.0,
        **options,
    ):
        super().__init__(**options)
        given = {
            "non_speech_prob": (non_speech_prob, 1.0, "a share from 0 to 1"),
            "quieter_prob": (quieter_prob, 1.0, "a share from 0 to 1"),
            "quieter_decibels": (quieter_decibels, 120.0, "decibels from 0 to 120"),
            "band_limited_prob": (band_limited_prob, 1.0, "a share from 0 to 1"),
            "silence_prob": (silence_prob, 1.0, "a share from 0 to 1"),
            "silence_seconds": (silence_seconds, 60.0, "seconds from 0 to 60"),
        }
        for name, (value, highest, wanted) in given.items():
            if not 0 <= value <= highest:
                raise MlmaError(f"preprocessor_conf: {name} is {value}; give {wanted}")
        self._non_speech_prob = non_speech_prob
        self._quieter_prob = quieter_prob
        self._quieter_decibels = quieter_decibels
        self._band_limited_prob = band_limited_prob
        self._silence_prob = silence_prob
        self._silence_samples = round(silence_seconds * SAMPLE_RATE)

    def __call__(self, uid: str, data: dict[str, str | np.ndarray]) -> dict[str, np.ndarray]:
        if self.train:
            data = self._with_non_speech(data)
        return super().__call__(uid, data)

    def _with_non_speech(self, data: dict[str, str | np.ndarray]) -> dict[str, str | np.ndarray]:
        rng = np.random.default_rng(np.random.randint(2**31))
        speech = recorded = np.asarray(data[self.speech_name])
        if rng.random() < self._non_speech_prob:
            sound = non_speech.draw(rng, len(speech)).astype(speech.dtype)
            return data | {self.speech_name: sound, self.text_name: ""}
        if rng.random() < self._quieter_prob:
            speech = speech * 10 ** (-rng.uniform(0, self._quieter_decibels) / 20)
        if rng.random() < self._band_limited_prob:
            speech = _low_passed(speech, rng.uniform(*_HIGHEST_HZ))
        before, after = (
            non_speech.background(rng, int(rng.integers(self._silence_samples + 1)))
            if rng.random() < self._silence_prob
            else np.zeros(0, np.float32)
            for _ in range(2)
        )
        sound = np.concatenate([before, speech, after]).astype(recorded.dtype)
        return data | {self.speech_name: sound}


def _low_passed(sound: np.ndarray, highest: float) -> np.ndarray:
    """Remove all above a frequency in Hz, as a codec does."""
    if not len(sound):
        return sound
    spectrum = np.fft.rfft(sound)
    spectrum[int(highest * len(sound) / SAMPLE_RATE) + 1 :] = 0
    return np.fft.irfft(spectrum, len(sound))
