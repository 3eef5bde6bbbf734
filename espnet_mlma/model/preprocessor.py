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
    and some get silence or noise around them. A model that has only heard speech writes words for
    whatever it hears. Drawn from NumPy's global generator, as ESPnet's own augmentation, which
    follows. Validation and the statistics of stage 10 hear every clip as it is.

    Args:
        non_speech_prob: share of clips that are replaced.
        silence_prob: share of clips that get a background at their beginning; likewise at the end.
        silence_seconds: its longest.
        options: those of CommonPreprocessor.

    Raises:
        MlmaError: a share is not between 0 and 1, or the length is negative.
    """

    def __init__(
        self,
        *,
        non_speech_prob: float = 0.03,
        silence_prob: float = 0.2,
        silence_seconds: float = 1.0,
        **options,
    ):
        super().__init__(**options)
        shares = {"non_speech_prob": non_speech_prob, "silence_prob": silence_prob}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise MlmaError(f"preprocessor_conf: {name} is {share}; give a share from 0 to 1")
        if not 0 <= silence_seconds < float("inf"):
            raise MlmaError(
                f"preprocessor_conf: silence_seconds is {silence_seconds}; give seconds, 0 or more"
            )
        self._non_speech_prob = non_speech_prob
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
        before, after = (
            non_speech.background(rng, rng.integers(self._silence_samples + 1))
            if rng.random() < self._silence_prob
            else np.zeros(0, np.float32)
            for _ in range(2)
        )
        sound = np.concatenate([before, speech, after]).astype(speech.dtype)
        return data | {self.speech_name: sound}
