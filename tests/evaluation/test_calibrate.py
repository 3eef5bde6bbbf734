import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from babble import babble
from espnet2.main_funcs.pack_funcs import pack

import espnet_mlma
from espnet_mlma.data import tables
from espnet_mlma.decode.best_path import Path as TokenPath
from espnet_mlma.decode.transcript import Transcript
from espnet_mlma.decode.words import Calibration, timed_tokens, timed_words, token_groups
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation import calibrate
from espnet_mlma.evaluation.calibrate import JudgedWord, fit, judged_words, subsample

CONF = Path(__file__).parents[2] / "conf" / "decode_ctc_best_path.yaml"


def words_that_follow(truth: Calibration, number: int) -> list[JudgedWord]:
    """Draw words that are right with the probability of a calibration."""
    rng = np.random.default_rng(0)
    scores = [tuple(-rng.exponential(0.3, rng.integers(1, 9))) for _ in range(number)]
    return [JudgedWord(of, rng.random() < truth.confidence(of)) for of in scores]


def test_the_fit_recovers_a_calibration():
    truth = Calibration(total=1.5, mean=2.0, bias=1.0)
    words = words_that_follow(truth, 20000)
    found = fit(words)
    assert (found.total, found.mean, found.bias) == pytest.approx((1.5, 2.0, 1.0), abs=0.2)
    confidences = np.array([found.confidence(word.scores) for word in words])
    right = np.array([word.is_right for word in words])
    assert confidences.mean() == pytest.approx(right.mean(), abs=1e-4)
    sure = confidences > 0.7
    assert confidences[sure].mean() == pytest.approx(right[sure].mean(), abs=0.02)


def test_separable_words_have_finite_weights():
    words = [JudgedWord((-0.1,), True)] * 60 + [JudgedWord((-40.0, -80.0), False)] * 60
    found = fit(words)
    assert np.isfinite([found.total, found.mean, found.bias]).all()
    assert found.confidence(words[0].scores) > 0.9
    assert found.confidence(words[-1].scores) < 0.1


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (49, 50, "99 words recognised, 49 of them right"),
        (0, 200, "200 words recognised, 0 of them right"),
        (200, 0, "200 words recognised, 200 of them right"),
        (0, 0, "0 words recognised"),
    ],
)
def test_too_few_or_one_sided_words_are_an_error(right, wrong, message):
    with pytest.raises(MlmaError, match=message):
        fit([JudgedWord((-0.1,), True)] * right + [JudgedWord((-2.0,), False)] * wrong)


def test_words_are_judged_by_the_alignment_of_scoring(experiment):
    acoustic = espnet_mlma.load(experiment, device="cpu").acoustic
    ids = [acoustic.tokens.index(c) for c in ("a", "<space>", "b", "c", "<space>", "a")]
    frames = tuple(range(6))
    path = TokenPath(tuple(ids), 0.0, frames, frames[1:] + (6,), (-0.1, -9, -0.2, -0.3, -9, -0.4))
    tokens = timed_tokens(path, acoustic.tokens, 0, 0.04)
    words = timed_words(token_groups(tokens, "char"), "char", 1.0)
    transcript = Transcript("a bc a", words, None, 0.0, 1.0, tokens)
    judged = judged_words(transcript, "j bc a", acoustic)
    assert [word.is_right for word in judged] == [False, True, True]
    assert [word.scores for word in judged] == [(-0.1,), (-0.2, -0.3), (-0.4,)]
    # Only the inserted word is wrong.
    judged = judged_words(transcript, "a a", acoustic)
    assert [word.is_right for word in judged] == [True, False, True]
    assert [word.is_right for word in judged_words(transcript, "", acoustic)] == [False] * 3


def test_a_subsample_is_spread_over_the_set():
    lengths = {f"u{i:03}": 16000 for i in range(100)}
    assert subsample(lengths, 100) == lengths
    assert list(subsample(lengths, 99)) == list(lengths)[::2]
    assert list(subsample(lengths, 10)) == list(lengths)[::10]
    assert subsample({}, 10) == {}


@pytest.fixture(scope="module")
def trained(experiment, tmp_path_factory) -> Path:
    """Copy the experiment."""
    return Path(shutil.copytree(experiment, tmp_path_factory.mktemp("recipe") / "exp" / "asr"))


@pytest.fixture(scope="module")
def valid_set(trained) -> Path:
    """Noise whose text is what the model recognises, with every other word replaced."""
    recogniser = espnet_mlma.load(trained, device="cpu")
    folder = trained.parents[1] / "dev"
    folder.mkdir()
    columns: dict[str, list] = {"wav.scp": [], "utt2num_samples": [], "text": []}
    for i in range(16):
        samples = babble(64000, seed=i)
        soundfile.write(folder / f"u{i}.wav", samples, 16000, subtype="FLOAT")
        words = recogniser.transcribe_batch([samples])[0].text.split()
        text = " ".join("x" if n % 2 else word for n, word in enumerate(words))
        for name, value in zip(columns, (folder / f"u{i}.wav", len(samples), text), strict=True):
            columns[name].append((f"u{i}", value))
    for name, rows in columns.items():
        tables.write(folder / name, rows)
    return folder


def run(monkeypatch, trained: Path, valid_set: Path, *options: str) -> None:
    arguments = ["--asr_train_config", trained / "config.yaml", "--config", CONF]
    arguments += ["--asr_model_file", trained / "valid.cer_ctc.ave.pth", "--data_dir", valid_set]
    arguments += ["--output", trained / "calibration.yaml", *options]
    monkeypatch.setattr(sys, "argv", ["calibrate", *map(str, arguments)])
    calibrate.main()


@pytest.fixture
def calibrated(trained, valid_set, monkeypatch) -> Path:
    run(monkeypatch, trained, valid_set)
    return trained


def samples() -> np.ndarray:
    return babble(32000, seed=99)


def test_a_folder_is_loaded_with_its_calibration(calibrated):
    recogniser = espnet_mlma.load(calibrated, device="cpu")
    transcript = recogniser.transcribe(samples())
    judged = judged_words(transcript, "", recogniser.acoustic)
    assert transcript.words
    assert [word.confidence for word in transcript.words] == [
        recogniser.calibration.confidence(word.scores) for word in judged
    ]
    text = (calibrated / "calibration.yaml").read_text()
    assert "\n# fitted to " in text and " words of 16 utterances of dev, " in text


def test_it_is_fitted_once(calibrated, valid_set, monkeypatch, capsys):
    text = (calibrated / "calibration.yaml").read_text()
    run(monkeypatch, calibrated, valid_set / "is not read")
    assert capsys.readouterr().out.endswith("calibration.yaml: already fitted to this checkpoint\n")
    assert (calibrated / "calibration.yaml").read_text() == text


def test_a_pack_is_loaded_with_its_calibration(calibrated, tmp_path, monkeypatch):
    expected = espnet_mlma.load(calibrated, device="cpu").calibration
    monkeypatch.chdir(calibrated.parents[1])
    pack(
        {"asr_model_file": "exp/asr/valid.cer_ctc.ave.pth"},
        {"asr_train_config": "exp/asr/config.yaml"},
        tmp_path / "asr.zip",
        ["exp/asr/calibration.yaml"],
    )
    shutil.unpack_archive(tmp_path / "asr.zip", tmp_path / "unpacked")
    monkeypatch.chdir("/")
    for path in (tmp_path / "asr.zip", tmp_path / "unpacked"):
        assert espnet_mlma.load(path, device="cpu").calibration == expected


def test_another_checkpoint_has_none(calibrated, valid_set, tmp_path, monkeypatch):
    state = torch.load(calibrated / "valid.cer_ctc.ave.pth")
    state["ctc.ctc_lo.bias"] += 0.01
    torch.save(state, tmp_path / "other.pth")
    assert espnet_mlma.load(calibrated, tmp_path / "other.pth", device="cpu").calibration is None
    shutil.copy(calibrated / "valid.cer_ctc.ave.pth", tmp_path / "same.pth")
    assert espnet_mlma.load(calibrated, tmp_path / "same.pth", device="cpu").calibration is not None


def test_a_calibration_of_another_checkpoint_is_replaced(calibrated, valid_set, monkeypatch):
    file = calibrated / "calibration.yaml"
    text = file.read_text()
    file.write_text("total: 1.0\nmean: 1.0\nbias: 1.0\ncheckpoint: another\n")
    run(monkeypatch, calibrated, valid_set)
    assert file.read_text() == text


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "- 1\n",
        "a: [\n",
        "total: 1\nmean: 1\nbias: 1\n",
        "total: a\nmean: 1\nbias: 1\ncheckpoint: b\n",
        "total: 1\nmean: 1\nleast: 1\ncheckpoint: b\n",
    ],
)
def test_a_broken_calibration_is_named(tmp_path, broken):
    (tmp_path / "calibration.yaml").write_text(broken)
    with pytest.raises(MlmaError, match="calibration.yaml: not a calibration; delete it"):
        Calibration.read(tmp_path / "calibration.yaml", tmp_path / "model.pth")


def test_too_little_audio_writes_nothing(trained, valid_set, monkeypatch):
    (trained / "calibration.yaml").unlink(missing_ok=True)
    with pytest.raises(MlmaError, match=r"dev: \d\d? words recognised, .*; give more audio"):
        run(monkeypatch, trained, valid_set, "--seconds", "4")
    assert not list(trained.glob("*calibration*"))


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        ("text", [("u0", "a b")], r"text: u1 is missing; run stage 4 again"),
        ("utt2num_samples", [("u0", "long")], r"utt2num_samples: no number of samples of u0"),
    ],
)
def test_mismatched_tables_are_named(
    trained, valid_set, tmp_path, monkeypatch, table, rows, message
):
    (trained / "calibration.yaml").unlink(missing_ok=True)
    folder = Path(shutil.copytree(valid_set, tmp_path / "dev"))
    tables.write(folder / table, rows)
    with pytest.raises(MlmaError, match=message):
        run(monkeypatch, trained, folder)
