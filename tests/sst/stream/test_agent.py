"""Tests of the streaming translator and of the command `stream`."""

import argparse
import copy
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_mlma.audio import read_audio
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.grid import CHUNK_SAMPLES, CHUNK_SECONDS, SAMPLE_RATE

pytest.importorskip("transformers")

from espnet_mlma.sst import config as configuration  # noqa: E402
from espnet_mlma.sst import model as models  # noqa: E402
from espnet_mlma.sst.commands import main  # noqa: E402
from espnet_mlma.sst.config import TurnDecoding  # noqa: E402
from espnet_mlma.sst.llm.generate import Conversation  # noqa: E402
from espnet_mlma.sst.score.logs import read_log  # noqa: E402
from espnet_mlma.sst.stream.agent import Translator  # noqa: E402

SIZES = {
    "conv_channels": [16] * 7,
    "d_model": 32,
    "num_layers": 2,
    "num_heads": 2,
    "linear_units": 48,
    "window_chunks": 3,
}
QUICK = TurnDecoding(beams=2)
SECONDS = 9.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory, llm_folder) -> Path:
    """Save an untrained translator like stage 1."""
    root = tmp_path_factory.mktemp("translator")
    values = {
        "encoder": {"kind": "wav2vec2", "options": SIZES},
        "llm": {"name": str(llm_folder), "dtype": "float32"},
    }
    model = models.build(configuration.make(configuration.Config, values, "test"))
    models.save(model, 1, model.speech_state(), root / "stage1")
    return root / "stage1"


@pytest.fixture(scope="module")
def model(folder) -> models.SpeechTranslator:
    return models.load(folder)


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).normal(size=int(SECONDS * SAMPLE_RATE))).astype("f4")


def translated(translator: Translator, talk: np.ndarray, sizes: list[int]) -> str:
    """Translate a talk; the sizes of its pieces repeat in a cycle."""
    text, start, number = "", 0, 0
    while start < len(talk):
        size = sizes[number % len(sizes)]
        text += translator.push(talk[start : start + size])
        start, number = start + size, number + 1
    return text + translator.finish()


@pytest.mark.parametrize("multiplier", [1, 3])
def test_turns_do_not_depend_on_the_pieces(model, talk, multiplier):
    block = multiplier * CHUNK_SAMPLES
    padded = torch.zeros(-(-len(talk) // block) * block)
    padded[: len(talk)] = torch.from_numpy(talk)
    with torch.no_grad():
        vectors = model.adapter(model.encoder(padded[None], multiplier))[0]
    conversation = Conversation(model.llm, model.dialogue(multiplier), QUICK)
    turns = [conversation.translate(v).text for v in vectors.split(12 * multiplier)]
    assert len(turns) == len(padded) // block and any(turns)
    expected = " ".join(text for text in turns if text)
    translator = Translator(model, multiplier, QUICK)
    for sizes in ([len(talk)], [1600], [1, 40000, 777]):
        assert translated(translator, talk, sizes) == expected
        translator.reset()


def test_repeated_talk_longer_than_the_cache_is_the_same(model, talk):
    translator = Translator(model, 1, replace(QUICK, max_tokens=160, keep_tokens=120))
    long = np.tile(talk, 2)
    first = translated(translator, long, [16000])
    bytes_before = translator.conversation.cache.nbytes
    translator.reset()
    assert translated(translator, long, [5000]) == first
    assert translator.conversation.cache.nbytes == bytes_before


def test_translators_that_share_a_model_are_independent(model, talk):
    one, other = Translator(model, 1, QUICK), Translator(model, 2, QUICK)
    alone = [translated(t, talk, [8000]) for t in (one, other)]
    for translator in (one, other):
        translator.reset()
    together = ["", ""]
    for start in range(0, len(talk), 8000):
        for number, translator in enumerate((one, other)):
            together[number] += translator.push(talk[start : start + 8000])
    assert [one.finish(), other.finish()] == [
        whole.removeprefix(part) for whole, part in zip(alone, together, strict=True)
    ]


def test_turns_have_times(model, talk):
    translator = Translator(model, 2, QUICK)
    emissions = [*translator.push_turns(talk), *translator.finish_turns()]
    ends = [2 * CHUNK_SECONDS * k for k in range(1, 5)] + [SECONDS]
    assert [e.audio_seconds for e in emissions] == pytest.approx(ends)
    assert all(e.compute_seconds > 0 for e in emissions)
    with pytest.raises(ValueError, match="finished"):
        translator.push(talk)
    translator.reset()
    assert (
        list(translator.push_turns(talk[:100])) == [] and len(list(translator.finish_turns())) == 1
    )
    translator.reset()
    assert translator.finish() == ""


def test_invalid_samples_are_refused(model):
    translator = Translator(model, 1, QUICK)
    for wrong, why in ((np.zeros((2, 9), "f4"), "one channel"), ([1, 2], "int64")):
        with pytest.raises(MlmaError, match=why):
            translator.push(wrong)
    loud = translator.push(np.full(2 * CHUNK_SAMPLES, 32767, np.int16))
    translator.reset()
    assert translator.push(np.full(2 * CHUNK_SAMPLES, 32767 / 32768, np.float32)) == loud
    with pytest.raises(MlmaError, match="multiplier is 0"):
        Translator(model, 0)


@pytest.mark.slow
def test_an_hour_of_silence_keeps_memory_and_later_speech(model, talk):
    """Turns end on time, memory is bounded, and speech after the hour reaches the cache."""
    brief = TurnDecoding(beams=1, tokens_per_chunk=1, max_tokens=600, keep_tokens=300)
    translator = Translator(model, 12, brief)
    silence = np.zeros(12 * CHUNK_SAMPLES, np.float32)
    turns = round(3600 / 12 / CHUNK_SECONDS)
    sizes = []
    for turn in range(1, turns + 1):
        (emission,) = translator.push_turns(silence)
        assert emission.audio_seconds == pytest.approx(12 * CHUNK_SECONDS * turn)
        sizes.append(translator.conversation.cache.nbytes)
    assert max(sizes[20:]) <= max(sizes[:20])
    silent = copy.deepcopy(translator)
    (last,) = [*translator.push_turns(talk), *translator.finish_turns()]
    assert last.audio_seconds == pytest.approx(3600 + SECONDS, abs=6)
    assert len([*silent.push_turns(np.zeros_like(talk)), *silent.finish_turns()]) == 1
    ours, theirs = (t.conversation.cache.layers[-1].values for t in (translator, silent))
    assert not torch.allclose(ours[..., -30:, :], theirs[..., -30:, :], atol=0.01)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_clipped_file_with_another_rate_is_translated(
    folder, model, talk, tmp_path, monkeypatch, capsys, rate
):
    clipped = np.clip(30 * talk, -1, 1)
    assert (np.abs(clipped) == 1).mean() > 0.5
    soundfile.write(tmp_path / "a.wav", clipped, rate)
    stream(monkeypatch, "--model", folder, "--beams", 2, "--wav", tmp_path / "a.wav")
    text = capsys.readouterr().out.removesuffix("\n")
    assert text == translated(Translator(model, 2, QUICK), read_audio(tmp_path / "a.wav"), [9000])
    assert text


def stream(monkeypatch, *options: object) -> None:
    monkeypatch.setattr("sys.argv", ["sst", "stream", *map(str, options)])
    main()


@pytest.mark.parametrize("log_format", ["simuleval", "simulstream"])
def test_files_are_translated_and_logged(
    folder, model, talk, tmp_path, monkeypatch, capsys, log_format
):
    soundfile.write(tmp_path / "a.flac", talk, SAMPLE_RATE)
    soundfile.write(tmp_path / "b.wav", talk[: 8 * SAMPLE_RATE : 2], SAMPLE_RATE // 2)
    wavs = [tmp_path / "a.flac", tmp_path / "b.wav"]
    log = tmp_path / "log"
    options = ["--model", folder, "--beams", 2, "--log", log, "--log_format", log_format]
    stream(monkeypatch, *options, "--multiplier", 1, "--wav", *wavs)
    printed = capsys.readouterr()
    first, second = printed.out.removesuffix("\n").split("\n")
    quantised = soundfile.read(tmp_path / "a.flac", dtype="float32")[0]
    assert first == translated(Translator(model, 1, QUICK), quantised, [1600]) != ""
    talks = read_log(log, "word")
    assert [t.name for t in talks] == ["a", "b"]
    assert [t.source_seconds for t in talks] == pytest.approx([SECONDS, 8.0], abs=0.02)
    for talk_read, line in zip(talks, (first, second), strict=True):
        assert " ".join(e.text for e in talk_read.emissions if e.text) == " ".join(line.split())
    assert "9.3 s of audio" in printed.err and "10 turns have text" in printed.err


def test_broken_talk_is_skipped_and_the_others_are_logged(
    folder, talk, tmp_path, monkeypatch, capsys
):
    soundfile.write(tmp_path / "a.wav", talk[: 4 * SAMPLE_RATE], SAMPLE_RATE)
    (tmp_path / "b.wav").write_text("no sound")
    soundfile.write(tmp_path / "c.wav", talk[: 4 * SAMPLE_RATE], SAMPLE_RATE)
    wavs = [tmp_path / f"{name}.wav" for name in "abc"]
    options = ["--model", folder, "--beams", 1, "--log", tmp_path / "log", "--wav", *wavs]
    with pytest.raises(MlmaError, match="1 of 3 talks were skipped"):
        stream(monkeypatch, *options)
    assert f"skipped {wavs[1]}: " in capsys.readouterr().err
    assert [talk.name for talk in read_log(tmp_path / "log", "word")] == ["a", "c"]


def test_live_reads_samples_from_standard_input(folder, talk, monkeypatch, capsys):
    class Stdin:
        def __init__(self):
            from io import BytesIO

            self.buffer = BytesIO((talk * 32768).astype("<i2").tobytes())

    monkeypatch.setattr("sys.stdin", Stdin())
    stream(monkeypatch, "--model", folder, "--beams", 1, "--live")
    assert "live: 9.3 s of audio" in capsys.readouterr().err


def test_missing_model_is_a_one_line_error(tmp_path, monkeypatch):
    with pytest.raises(MlmaError, match=r"config\.yaml"):
        stream(monkeypatch, "--model", tmp_path, "--live")


def test_decoding_options_override_the_models(folder, tmp_path):
    """Python, the command and the server use the same defaults."""
    pytest.importorskip("simulstream")
    from espnet_mlma.sst.stream.files import add_translator_arguments, make_translator
    from espnet_mlma.sst.stream.simulstream import TranslatorProcessor

    own = shutil.copytree(folder, tmp_path / "own")
    values = yaml.safe_load((own / "config.yaml").read_text())
    assert values["decoding"]["beams"] == 4
    values["decoding"] |= {"beams": 3, "max_tokens": 200}
    (own / "config.yaml").write_text(yaml.safe_dump(values))
    parser = argparse.ArgumentParser()
    add_translator_arguments(parser)

    def by_command(*options):
        return make_translator(parser.parse_args(["--model", str(own), *options]))

    def by_server(**options):
        given = {"checkpoint": own, "source": "en", "target": "de", "multiplier": 2}
        return TranslatorProcessor(SimpleNamespace(**given | options)).stream

    expected = TurnDecoding(beams=3, max_tokens=200)
    for listener in (Translator(models.load(own)), by_command(), by_server()):
        assert listener.conversation.decoding == expected
    for listener in (by_command("--beams", "1", "--exempt_eos"), by_server(beams=1)):
        assert listener.conversation.decoding.beams == 1
        assert listener.conversation.decoding.max_tokens == 200
    assert not by_command("--exempt_eos").conversation.decoding.penalize_eos
    with pytest.raises(MlmaError, match="--beams is 0; it must be above 0"):
        by_command("--beams", "0")
    with pytest.raises(MlmaError, match="speech processor: beams is 0; it must be above 0"):
        by_server(beams=0)
