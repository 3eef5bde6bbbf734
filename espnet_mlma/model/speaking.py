"""SpeakingPreprocessor, the class ESPnet builds from `preprocessor: espeak`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from espnet2.train.preprocessor import CommonPreprocessor

from espnet_mlma.corpora import espeak, synthetic
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import normalise
from espnet_mlma.text.language import split_language


class SpeakingPreprocessor(CommonPreprocessor):
    """ESPnet's, which in training has eSpeak NG say a clip anew whenever it is heard.

    Voice, rate, pitch and noise are drawn from NumPy's global generator, as ESPnet draws its own
    augmentation, which follows. The clips on disk give their texts, and the lengths that batches
    are made by; other corpora's are heard as they are, and so is everything in validation.

    Args:
        sentences: data folder of stage 1, such as data/train_synthetic, whose wav.scp leads to what
            eSpeak was told to say.
        options: those of CommonPreprocessor.

    Raises:
        MlmaError: the folder is not there, or has no clips that eSpeak said.
    """

    def __init__(self, *, sentences: str | Path, **options):
        super().__init__(**options)
        self._sentences = espeak.told(Path(sentences)) if self.train else {}
        self._speaker: tuple[int, espeak.Espeak] | None = None

    def __call__(self, uid: str, data: dict[str, str | np.ndarray]) -> dict[str, np.ndarray]:
        if uid in self._sentences:
            sentence, lang = self._sentences[uid]
            if split_language(data[self.text_name])[1] != normalise(sentence, lang):
                raise MlmaError(
                    f"{uid}: its sentence is now {sentence!r}, its text is another; "
                    "run the stages from 1 to 10 again"
                )
            data = data | {self.speech_name: self._say(uid, sentence, lang)}
        return super().__call__(uid, data)

    def _say(self, uid: str, sentence: str, lang: str) -> np.ndarray:
        """(samples,) float32 at 16 kHz."""
        # a process that was forked gets an eSpeak of its own
        if self._speaker is None or self._speaker[0] != os.getpid():
            self._speaker = os.getpid(), espeak.Espeak()
        rng = np.random.default_rng(np.random.randint(2**31))
        line = replace(synthetic.draw(lang, "train", 0, sentence, rng), id=uid)
        return espeak.finish(self._speaker[1].say(line), line.snr, rng).astype(np.float32)
