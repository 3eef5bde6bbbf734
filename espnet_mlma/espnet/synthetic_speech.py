"""New synthetic speech in each epoch: ESPnet's `preprocessor: espeak`."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from espnet_mlma.data.corpora import espeak, synthetic
from espnet_mlma.data.tables import without_speed
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.preprocessor import NonSpeechPreprocessor
from espnet_mlma.text import normalise
from espnet_mlma.text.language import split_language


class SpeakingPreprocessor(NonSpeechPreprocessor):
    """Re-synthesise clips with eSpeak NG on each access in training.

    Voice, rate, pitch and noise come from NumPy's global generator, like the choices of ESPnet's
    own augmentation, which runs afterwards. The clips on disk give the texts, and the lengths by
    which batches are formed. A speed-perturbed copy is synthesised like its original. Clips that
    eSpeak did not make are used unchanged, and so are all clips in validation.

    Args:
        sentences: data folder of stage 1 of the training set, such as data/train_synthetic. Its
            wav.scp leads to the sentences that eSpeak read. Required.
        options: arguments of NonSpeechPreprocessor.

    Raises:
        MlmaError: the folder is missing, or has no clips made by eSpeak.
    """

    def __init__(self, *, sentences: str | Path | None = None, **options):
        if sentences is None:
            raise MlmaError("preprocessor espeak: preprocessor_conf has no `sentences`; add it")
        super().__init__(**options)
        self._folder = Path(sentences)
        if self.train:  # decoding must work without the training set
            self._sentences = espeak.synthesised_sentences(self._folder)
            synthetic_clips = sum(sentence is not None for sentence in self._sentences.values())
            logging.info(
                f"{self._folder}: {synthetic_clips} of {len(self._sentences)} clips are "
                "re-synthesised on each access"
            )
        self._speaker: tuple[int, espeak.Espeak] | None = None

    def __call__(self, uid: str, data: dict[str, str | np.ndarray]) -> dict[str, np.ndarray]:
        if not self.train:
            return super().__call__(uid, data)
        original = without_speed(uid)
        if original not in self._sentences:
            raise MlmaError(
                f"{uid}: not in {self._folder}; give as `sentences` the training set's data folder"
            )
        if source := self._sentences[original]:
            sentence, lang = source
            if split_language(str(data[self.text_name]))[1] != normalise(sentence, lang):
                raise MlmaError(
                    f"{uid}: its text differs from its sentence {sentence!r}; "
                    "run stages 1 to 10 again"
                )
            data = data | {self.speech_name: self._synthesise(uid, sentence, lang)}
        return super().__call__(uid, data)

    def _synthesise(self, uid: str, sentence: str, lang: str) -> np.ndarray:
        """Synthesise a sentence, (samples,) float32 at 16 kHz."""
        # A forked process needs its own eSpeak.
        if self._speaker is None or self._speaker[0] != os.getpid():
            self._speaker = os.getpid(), espeak.Espeak()
        rng = np.random.default_rng(np.random.randint(2**31))
        line = replace(synthetic.draw(lang, "train", 0, sentence, rng), id=uid)
        return espeak.finish(self._speaker[1].speak(line), line.snr, rng).astype(np.float32)
