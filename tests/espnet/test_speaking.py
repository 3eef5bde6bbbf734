"""`preprocessor: espeak`: clips of the mixture `synthetic` are re-synthesised on each access."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from espnet2.tasks.asr import ASRTask
from espnet2.train.preprocessor import AbsPreprocessor

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora import synthetic
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.synthetic_speech import SpeakingPreprocessor
from espnet_mlma.text import LANGUAGES

RATE = 16000
SHORT, LONG = "La casa sola.", "La casa sola e la via, la via e la casa sola, e la casa."


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a corpus of 60 sentences in each language, synthesised once."""
    root = tmp_path_factory.mktemp("texts")
    others = [f"La sola {a}{b}a casa." for a in "bcdfgl" for b in "abcdefghij"]
    for lang in LANGUAGES:
        lines = [*others[:2], SHORT, LONG, *others[2:]]  # two of fifty are held out
        (root / f"{lang}.txt").write_text("\n".join(lines), encoding="utf-8")
    synthetic.generate(root)
    return root


@pytest.fixture(scope="module")
def data(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data folder of the corpus in Italian and German, and of one natural clip."""
    folder = tmp_path_factory.mktemp("data")
    soundfile.write(folder / "clip.flac", np.full(RATE, 0.25), RATE)
    utterances = [u for lang in ("it", "de") for u in synthetic.prepare(spoken, lang, "train")]
    clip = AudioFile(folder / "clip.flac")
    utterances.append(Utterance("cv_it_x-1", clip, "la casa", "cv_it_x", "it"))
    write_set(folder / "train", utterances, nj=1)
    return folder / "train"


def preprocessor(data: Path, train: bool, *options: str) -> AbsPreprocessor:
    """Build the preprocessor as the trainer does."""
    words = ["--output_dir", "unused", "--token_type", "char", *options]
    words += ["--preprocessor", "espeak", "--preprocessor_conf", f"sentences={data}"]
    for share in ("non_speech", "quieter", "band_limited", "silence"):
        words += ["--preprocessor_conf", f"{share}_prob=0"]
    args = ASRTask.get_parser().parse_args(words)
    args.token_list = ["<blank>", "<unk>", "<space>", *"abcdefghijlosv", "<sos/eos>"]
    return ASRTask.build_preprocess_fn(args, train)


def table(data: Path, name: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in (data / name).read_text().splitlines())


def utterance(data: Path, sentence: str, lang: str) -> str:
    """Return the id of a sentence's clip."""
    words = sentence.lower().translate({ord(c): None for c in ",."})
    texts = table(data, "text").items()
    return next(key for key, text in texts if text == words and key.startswith(f"syn_{lang}"))


def samples_of(data: Path, uid: str, seed: int) -> np.ndarray:
    """Return the samples of a clip, read by a new preprocessor."""
    np.random.seed(seed)
    clip = {"speech": np.zeros(RATE, np.float32), "text": table(data, "text")[uid]}
    return preprocessor(data, True)(uid, clip)["speech"]


def in_a_worker(*arguments: object) -> np.ndarray:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(samples_of, arguments)


def test_each_access_differs_and_a_seed_repeats_it(data):
    uid = utterance(data, SHORT, "it")
    first, again, other = (in_a_worker(data, uid, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32 and 0.1 < np.abs(first).max() <= 0.95
    assert first.shape != other.shape
    np.random.seed(3)
    read, clip = preprocessor(data, True), {"text": table(data, "text")[uid]}
    lengths = [len(read(uid, clip | {"speech": first})["speech"]) for _ in range(20)]
    assert len(set(lengths)) > 15 and max(lengths) > 1.3 * min(lengths)


def test_the_sentence_is_synthesised_and_the_text_unchanged(data):
    read = preprocessor(data, True)
    np.random.seed(4)
    seconds = {}
    for sentence in (SHORT, LONG):
        uid = utterance(data, sentence, "de")
        clip = {"speech": np.zeros(RATE, np.float32), "text": table(data, "text")[uid]}
        several = [read(uid, dict(clip)) for _ in range(8)]
        seconds[sentence] = np.median([len(one["speech"]) / RATE for one in several])
        plain = preprocessor(data, False)(uid, dict(clip))["text"]
        assert all(np.array_equal(one["text"], plain) for one in several)
    assert 2.5 < seconds[LONG] / seconds[SHORT] < 6, "14 words and 3"


def test_other_clips_and_validation_are_unchanged(data):
    sound = np.full(RATE, 0.25, np.float32)
    uid = utterance(data, SHORT, "it")
    for of, train in (("cv_it_x-1", True), (uid, False)):
        clip = {"speech": sound, "text": table(data, "text")[of]}
        np.testing.assert_array_equal(preprocessor(data, train)(of, clip)["speech"], sound)


def test_it_works_with_language_tokens_and_augmentation(data):
    uid = utterance(data, SHORT, "it")
    clip = {"speech": np.zeros(RATE, np.float32), "text": f"<it> {table(data, 'text')[uid]}"}
    half = ["fs=16000", "data_aug_prob=1.0", "data_aug_effects=[[1, speed_perturb, {factor: 0.5}]]"]
    slower = [word for pair in half for word in ("--preprocessor_conf", pair)]
    lengths = []
    for read in (preprocessor(data, True), preprocessor(data, True, *slower)):
        np.random.seed(5)
        lengths.append(len(read(uid, dict(clip))["speech"]))
    assert lengths[1] / lengths[0] == pytest.approx(2, rel=0.05)


def test_a_copy_at_another_speed_is_synthesised_too(data):
    uid = utterance(data, SHORT, "it")
    silence = np.zeros(RATE, np.float32)
    clip = {"speech": silence, "text": table(data, "text")[uid]}
    assert np.abs(preprocessor(data, True)(f"sp1.1-{uid}", clip)["speech"]).max() > 0.1


def test_a_clip_of_another_training_set_is_refused(data):
    clip = {"speech": np.zeros(RATE, np.float32), "text": "la casa"}
    with pytest.raises(MlmaError, match=r"cv_it_x-2: not in .*train; give as `sentences`"):
        preprocessor(data, True)("cv_it_x-2", clip)


def test_a_text_that_differs_from_the_sentence_is_refused(data):
    uid = utterance(data, SHORT, "it")
    clip = {"speech": np.zeros(RATE, np.float32), "text": "la casa nuova"}
    with pytest.raises(
        MlmaError, match=rf"{uid}: its text differs from its sentence 'La casa sola\.'"
    ):
        preprocessor(data, True)(uid, clip)


def test_a_folder_without_synthetic_clips_is_refused(data, tmp_path):
    (tmp_path / "wav.scp").write_text("cv_it_x-1 clip.flac\nb ffmpeg -i x.mp3 - |\n")
    with pytest.raises(MlmaError, match=r"wav\.scp: .*give a data folder"):
        preprocessor(tmp_path, True)
    with pytest.raises(MlmaError, match=r"absent/wav\.scp: no such file; give a data folder of st"):
        preprocessor(tmp_path / "absent", True)
    with pytest.raises(MlmaError, match="preprocessor_conf has no `sentences`"):
        SpeakingPreprocessor(train=True)
    assert preprocessor(tmp_path / "absent", False), "decoding needs no training data"
