import inspect
from typing import get_type_hints

import numpy as np
import pytest
import torch
from babble import babble
from espnet2.bin import asr_inference

import espnet_mlma
from espnet_mlma.decode.speech2text import _ONLY, _WITHOUT_EFFECT, Speech2Text
from espnet_mlma.errors import MlmaError


@pytest.fixture(scope="module")
def files(experiment):
    return experiment / "config.yaml", experiment / "valid.cer_ctc.ave.pth"


@pytest.fixture(scope="module")
def theirs(files):
    return asr_inference.Speech2Text(*files, ctc_weight=1.0, beam_size=4, nbest=2, maxlenratio=-3)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return babble(16000)


def test_results_have_espnets_types(files, theirs, samples):
    expected = theirs(samples)
    results = Speech2Text(*files, beam_size=4, nbest=2)(samples)
    assert len(results) == len(expected) == 2
    for ours, other in zip(results, expected, strict=True):
        assert [type(part) for part in ours] == [type(part) for part in other]
        text, tokens, token_ids, hypothesis = ours
        assert [type(part[0]) for part in (tokens, token_ids)] == [str, int]
        for name in ("yseq", "score"):
            mine, their = getattr(hypothesis, name), getattr(other[3], name)
            assert (mine.dtype, mine.dim()) == (their.dtype, their.dim())
        assert hypothesis.yseq[[0, -1]].tolist() == other[3].yseq[[0, -1]].tolist()
        assert set(hypothesis.scores) <= set(other[3].scores)
        # ESPnet's class converts our hypothesis to the same result.
        ((spaced, *rest),) = theirs._hyps_to_results([hypothesis])
        assert rest[:2] == [tokens, token_ids] and " ".join(spaced.split()) == text
    assert results[0][3].score >= results[1][3].score


def test_the_text_is_the_recognisers(files, experiment, samples):
    recogniser = espnet_mlma.load(experiment, device="cpu")
    ((text, _, token_ids, hypothesis),) = Speech2Text(*files)(samples)
    transcript = recogniser.transcribe_batch([samples])[0]
    assert text and text == transcript.text
    assert token_ids == [token.id for token in transcript.tokens]
    assert float(hypothesis.score) == pytest.approx(transcript.score)


def test_a_list_is_a_batch(files, samples):
    speech2text = Speech2Text(*files)
    first, second = speech2text([samples, torch.from_numpy(samples[:9000])])
    assert first[0][2] == speech2text(samples)[0][2]
    assert second[0][2] == speech2text(samples[:9000])[0][2]
    with pytest.raises(MlmaError, match=r"\(16000, 2\); give one channel"):
        speech2text(np.zeros((16000, 2)))


def test_from_pretrained_and_from_the_checkpoint_alone(files, experiment, samples):
    expected = Speech2Text(*files)(samples)[0][2]
    assert Speech2Text.from_pretrained(str(experiment))(samples)[0][2] == expected
    assert Speech2Text.from_pretrained(asr_model_file=files[1])(samples)[0][2] == expected
    with pytest.raises(MlmaError, match="neither asr_train_config nor asr_model_file"):
        Speech2Text()


def test_the_text_of_an_s2t_model_has_no_special_symbols(s2t_experiment, samples):
    ((text, tokens, token_ids, _),) = Speech2Text(s2t_experiment)(samples)
    assert any(token.startswith("<") for token in tokens) and len(tokens) == len(token_ids)
    assert text and "<" not in text


def test_every_argument_of_espnet_is_accepted_or_refused(files):
    theirs = inspect.signature(asr_inference.Speech2Text.__init__).parameters
    ours = set(inspect.signature(Speech2Text.__init__).parameters)
    ours -= {"others", "speech_guard"}  # the second is ours alone
    assert not _WITHOUT_EFFECT & set(_ONLY)
    assert ours | _WITHOUT_EFFECT | set(_ONLY) == set(theirs)
    hints = get_type_hints(asr_inference.Speech2Text.__init__)
    neutral = {name: value for name, (value, _) in _ONLY.items()}
    for name, value in neutral.items():
        assert value is None or isinstance(value, hints[name])
    Speech2Text(*files, **neutral, lm_weight=0.3, batch_size=1)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"ctc_weight": 0.3}, "ctc_weight is 0.3; Speech2Text takes only 1.0: only the CTC head"),
        ({"lm_file": "lm.pth"}, r"lm_file is 'lm\.pth'; .*Decoding\(lm=\.\.\.\)"),
        ({"streaming": True}, "streaming is True; .*StreamingTranscriber"),
    ],
)
def test_unsupported_values_are_refused(files, argument, message):
    with pytest.raises(MlmaError, match=message):
        Speech2Text(*files, **argument)


def test_an_unknown_argument_is_a_type_error(files):
    with pytest.raises(TypeError, match="unexpected keyword argument 'beams'"):
        Speech2Text(*files, beams=3)
