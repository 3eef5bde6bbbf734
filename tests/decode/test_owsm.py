import numpy as np
import pytest
import torch
from babble import babble
from espnet2.bin.s2t_inference import Speech2Text

from espnet_mlma.decode import load
from espnet_mlma.decode.acoustic import AcousticModel
from espnet_mlma.decode.best_path import best_path
from espnet_mlma.decode.owsm import SpeechToTextModel, acoustic_model
from espnet_mlma.decode.words import text_of
from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import checkpoint

WINDOW = 30 * 16000


@pytest.fixture(scope="module")
def loaded(s2t_experiment):
    return checkpoint.build(s2t_experiment)


@pytest.fixture(scope="module")
def acoustic(loaded):
    return SpeechToTextModel(*loaded, "cpu")


@pytest.fixture(scope="module")
def theirs(s2t_experiment):
    return Speech2Text(
        s2t_experiment / "config.yaml",
        s2t_experiment / "valid.cer_ctc.ave.pth",
        lang_sym="<nolang>",
    )


def noise(seconds: float) -> np.ndarray:
    return babble(round(seconds * 16000))


def padded(samples: np.ndarray) -> np.ndarray:
    return np.pad(samples, (0, WINDOW - len(samples)))


def test_30_seconds_give_espnets_emissions(acoustic, theirs):
    with torch.inference_mode():
        (encoded, _) = theirs._encode(torch.from_numpy(noise(30))[None], "<na>", None, None)
        expected = theirs.s2t_model.ctc.log_softmax(encoded)[0, 2:]
    (ours,) = acoustic.emissions([noise(30)])
    assert acoustic.frame_samples == 1280
    torch.testing.assert_close(ours[1:], expected[1:])


@pytest.mark.parametrize("seconds", [3, 30])
@pytest.mark.parametrize(("language", "symbol"), [(None, "<nolang>"), ("it", "<ita>")])
def test_best_path_is_espnets(loaded, theirs, seconds, language, symbol):
    acoustic = SpeechToTextModel(*loaded, "cpu", language)
    ((_, _, expected, text, _),) = theirs.best_path(padded(noise(seconds)), lang_sym=symbol)
    with torch.inference_mode():
        (whole,) = acoustic._log_probs(torch.from_numpy(padded(noise(seconds)))[None])
    token_ids = best_path(whole).token_ids
    assert list(token_ids) == expected
    text_tokens = [acoustic.tokens[i] for i in token_ids if i not in acoustic.special_ids]
    assert text_tokens and text_of(text_tokens, "bpe") == " ".join(text.split())


def test_a_short_utterance_equals_the_beginning_of_its_window(acoustic):
    short, whole = (acoustic.emissions([s])[0] for s in (noise(3), padded(noise(3))))
    assert len(short) == 38  # of 80 ms
    assert torch.equal(short, whole[:38])


def test_a_batch_equals_single_utterances(acoustic):
    utterances = [noise(s) for s in (3, 0.1, 11.7)]
    for samples, together in zip(utterances, acoustic.emissions(utterances), strict=True):
        torch.testing.assert_close(acoustic.emissions([samples])[0], together)
    assert acoustic.emissions([]) == []


def test_language_and_task_change_the_emissions(loaded, acoustic):
    (unknown,) = acoustic.emissions([noise(3)])
    emissions = [
        SpeechToTextModel(*loaded, "cpu", *prompt).emissions([noise(3)])[0]
        for prompt in (("ita",), ("eng",), ("eng", "st_eng"))
    ]
    assert not any(torch.equal(unknown, other) for other in emissions)
    assert not torch.equal(emissions[1], emissions[2])


def test_the_language_is_the_requested_or_the_written_one(loaded, acoustic):
    ids = [acoustic.tokens.index(s) for s in ("<nolang>", "<unk>", "<asr>", "<deu>", "<eng>")]
    assert acoustic.language_of(ids) == "de"
    assert acoustic.language_of(ids[:3]) is None
    assert acoustic.language_of([acoustic.tokens.index("<yue>")]) == "yue"
    assert SpeechToTextModel(*loaded, "cpu", "ita").language_of(ids) == "it"
    assert SpeechToTextModel(*loaded, "cpu", "ita", "st_eng").language_of(ids) == "en"


def test_a_language_named_before_the_audio_is_kept(s2t_experiment):
    """The CTC layer writes a language in the frame of the language, and blanks elsewhere."""
    acoustic = SpeechToTextModel(*checkpoint.build(s2t_experiment), "cpu")
    german, layer = acoustic.tokens.index("<deu>"), acoustic.model.ctc.ctc_lo
    inputs = []
    layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.inference_mode():
        acoustic.emissions([noise(3)])
        first, rest = inputs[-1][0, 0], inputs[-1][0, 1:]
        direction = first - rest.mean(0)
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[german] = 100 * direction
        nearest = max((rest @ direction).max(), rest.mean(0) @ direction)
        layer.bias[german] = -50 * (first @ direction + nearest)
        layer.bias[0] = 1
    (log_probs,) = acoustic.emissions([noise(3)])
    assert best_path(log_probs).token_ids == (german,)
    assert log_probs[0].argmax() == german and len(log_probs) == 38


def test_special_symbols_are_not_text(acoustic):
    text_tokens = {t for i, t in enumerate(acoustic.tokens) if i not in acoustic.special_ids}
    assert not any(token.startswith("<") for token in text_tokens - {"<blank>"})
    assert "<blank>" in text_tokens and len(text_tokens) > 10


def test_an_unknown_language_or_task_is_refused(loaded, acoustic):
    with pytest.raises(MlmaError, match="no language <pol>; give one of <deu> <eng> <fra>"):
        SpeechToTextModel(*loaded, "cpu", "pl")
    with pytest.raises(MlmaError, match="no task <st_deu>; give one of <asr> <st_eng>$"):
        SpeechToTextModel(*loaded, "cpu", None, "st_deu")
    with pytest.raises(MlmaError, match="31.0 s is longer than the 30 s of this model"):
        acoustic.emissions([noise(31)])


def test_the_configuration_chooses_the_class(loaded, experiment):
    assert type(acoustic_model(*loaded, "cpu")) is SpeechToTextModel
    asr = checkpoint.build(experiment)
    assert type(acoustic_model(*asr, "cpu")) is AcousticModel
    with pytest.raises(MlmaError, match="task st_eng is for S2T-CTC models"):
        acoustic_model(*asr, "cpu", task="st_eng")


def test_transcripts_of_an_asr_model_have_the_given_language(experiment):
    transcript = load(experiment, device="cpu", language="it").transcribe(np.zeros(16000))
    assert transcript.language == "it"
