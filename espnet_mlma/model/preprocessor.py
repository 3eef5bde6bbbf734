"""NonSpeechPreprocessor, the class ESPnet builds from `preprocessor: non_speech`."""

from __future__ import annotations

import numpy as np
from espnet2.train.preprocessor import CommonPreprocessor

from espnet_mlma.corpora import non_speech
from espnet_mlma.corpora.audio import SAMPLE_RATE
from espnet_mlma.errors import MlmaError


class NonSpeechPreprocessor(CommonPreprocessor):
    """ESPnet's, which in training also shows the model sound without speech.

    Some clips are replaced by silence, noise, hum or notes of the same length with an empty text,
    some are made quieter, and some get silence or noise around them. A model that has only heard
    speech writes words for whatever it hears; one that has heard speech at one level alone takes
    quiet speech for noise. Drawn from NumPy's global generator, as ESPnet's own augmentation, which
    follows. Validation and the statistics of stage 10 hear every clip as it is.

    Args:
        non_speech_prob: share of clips that are replaced.
        quieter_prob: share of the others that are made quieter.
        quieter_decibels: by how much at most.
        silence_prob: share of clips that get a background at their beginning; likewise at the end.
        silence_seconds: its longest.
        options: those of CommonPreprocessor.

    Raises:
        MlmaError: a share is not between 0 and 1, or the length is out of its range.
    """

    def __init__(
        self,
        *,
        non_speech_prob: float = 0.03,
        quieter_prob: float = 0.1,
        quieter_decibels: float = 30.0,
        silence_prob: float = 0.2,
        silence_seconds: float = 1.0,
        **options,
    ):
        super().__init__(**options)
        given = {
            "non_speech_prob": (non_speech_prob, 1.0, "a share from 0 to 1"),
            "quieter_prob": (quieter_prob, 1.0, "a share from 0 to 1"),
            "quieter_decibels": (quieter_decibels, 120.0, "decibels from 0 to 120"),
            "silence_prob": (silence_prob, 1.0, "a share from 0 to 1"),
            "silence_seconds": (silence_seconds, 60.0, "seconds from 0 to 60"),
        }
        for name, (value, highest, wanted) in given.items():
            if not 0 <= value <= highest:
                raise MlmaError(f"preprocessor_conf: {name} is {value}; give {wanted}")
        self._non_speech_prob = non_speech_prob
        self._quieter_prob = quieter_prob
        self._quieter_decibels = quieter_decibels
        self._silence_prob = silence_prob
        self._silence_samples = round(silence_seconds * SAMPLE_RATE)

    def __call__(self, uid: str, data: dict[str, str | np.ndarray]) -> dict[str, np.ndarray]:
        if self.train:
            data = self._with_non_speech(data)
        return super().__call__(uid, data)

    def _with_non_speech(self, data: dict[str, str | np.ndarray]) -> dict[str, str | np.ndarray]:
        rng = np.random.default_rng(np.random.randint(2**31))
        speech = data[self.speech_name]
        if rng.random() < self._non_speech_prob:
            sound = non_speech.draw(rng, len(speech)).astype(speech.dtype)
            return data | {self.speech_name: sound, self.text_name: ""}
        if rng.random() < self._quieter_prob:
            speech = speech * 10 ** (-rng.uniform(0, self._quieter_decibels) / 20)
        before, after = (
            non_speech.background(rng, rng.integers(self._silence_samples + 1))
            if rng.random() < self._silence_prob
            else np.zeros(0, np.float32)
            for _ in range(2)
        )
        sound = np.concatenate([before, speech, after]).astype(data[self.speech_name].dtype)
        return data | {self.speech_name: sound}
