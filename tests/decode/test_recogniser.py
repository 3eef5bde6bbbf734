import shutil

import numpy as np
import pytest
import soundfile
import torch
import yaml
from babble import babble

import espnet_mlma
from espnet_mlma.decode.stage import main
from espnet_mlma.errors import MlmaError


@pytest.fixture(scope="module")
def recogniser(experiment):
    return espnet_mlma.load(experiment, device="cpu")


@pytest.fixture(scope="module")
def utterances():
    return [babble(n) for n in (16000, 30011, 8000)]


def test_a_batch_equals_single_utterances(recogniser, utterances):
    together = recogniser.transcribe_batch(utterances)
    assert any(result.text for result in together)
    for samples, result in zip(utterances, together, strict=True):
        alone = recogniser.transcribe(samples)
        assert [token.id for token in alone.tokens] == [token.id for token in result.tokens]
        assert alone.score == pytest.approx(result.score, abs=1e-2)
        assert result.duration == len(samples) / 16000
        written = "".join(token.text for token in result.tokens)
        assert result.text == " ".join(written.replace("<space>", " ").split())


def test_file_array_and_tensor_agree(recogniser, utterances, tmp_path):
    file = tmp_path / "a.wav"
    soundfile.write(file, utterances[0], 16000, subtype="FLOAT")
    texts = {
        recogniser.transcribe(audio).text
        for audio in (file, str(file), utterances[0], torch.from_numpy(utterances[0]))
    }
    assert len(texts) == 1


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_integers_are_scaled(recogniser, utterances, dtype):
    scaled = (utterances[0] * np.iinfo(dtype).max).astype(dtype)
    expected = recogniser.transcribe(utterances[0].astype(np.float64))
    for samples in (scaled, torch.from_numpy(scaled)):
        found = recogniser.transcribe(samples)
        assert found.text == expected.text
        assert found.score == pytest.approx(expected.score, rel=1e-2)


@pytest.mark.parametrize(
    "audio, wrong",
    [
        (np.zeros((16000, 2), dtype=np.float32), r"\(16000, 2\)"),
        (np.full(16000, 3e4), "reach 30000"),
        (np.full(16000, np.nan), "NaN or Inf"),
        (b"RIFF", "audio is bytes"),
        (["a.wav", "b.wav"], "audio is list"),
        ((16000, np.zeros(16000)), "audio is tuple"),
        (np.zeros(16000, np.uint8), "audio is uint8"),
        ([0, 1, 2], "audio is"),
    ],
    ids=["two channels", "loud", "nan", "bytes", "paths", "rate", "unsigned", "Python's integers"],
)
def test_audio_of_a_wrong_type_or_shape_is_refused(recogniser, audio, wrong):
    with pytest.raises(MlmaError, match=wrong):
        recogniser.transcribe(audio)


def test_a_missing_device_is_an_error(experiment):
    for device in ("banana", "cuda:99"):
        with pytest.raises(MlmaError, match=f"device '{device}'"):
            espnet_mlma.load(experiment, device=device)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_loading_names_the_parameter_that_does_not_match(experiment, tmp_path, change):
    state = torch.load(experiment / "valid.cer_ctc.ave.pth")
    if change == "missing":
        del state["encoder.after_norm.weight"]
        expected = "lacks 1 parameters, first 'encoder.after_norm.weight'"
    else:
        state["encoder.extra"] = torch.zeros(1)
        expected = "has unknown 1 parameters, first 'encoder.extra'"
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(MlmaError, match=expected):
        espnet_mlma.load(experiment, tmp_path / "wrong.pth")


def test_missing_files_are_named(tmp_path, experiment):
    with pytest.raises(MlmaError, match="config.yaml: no such file"):
        espnet_mlma.load(tmp_path)
    with pytest.raises(MlmaError, match="no such file; stage 14"):
        espnet_mlma.load(tmp_path / "model.zip")
    shutil.copy(experiment / "config.yaml", tmp_path)
    with pytest.raises(MlmaError, match=r"none of valid\.cer_ctc\.ave\.pth"):
        espnet_mlma.load(tmp_path)


def test_statistics_are_found_from_anywhere(experiment, tmp_path, monkeypatch):
    """Training writes a path relative to the recipe."""
    statistics = tmp_path / "exp" / "stats" / "feats_stats.npz"
    folder = tmp_path / "exp" / "asr"
    statistics.parent.mkdir(parents=True)
    folder.mkdir()
    np.savez(statistics, count=10, sum=np.zeros(80), sum_square=np.ones(80) * 10)
    config = yaml.safe_load((experiment / "config.yaml").read_text())
    config |= {
        "normalize": "global_mvn",
        "normalize_conf": {"stats_file": "exp/stats/feats_stats.npz"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    state = torch.load(experiment / "valid.cer_ctc.ave.pth")
    torch.save(
        state | {"normalize.mean": torch.zeros(80), "normalize.std": torch.ones(80)},
        folder / "valid.loss.ave.pth",
    )
    monkeypatch.chdir("/")
    assert espnet_mlma.load(folder, device="cpu").transcribe(np.zeros(8000)).duration == 0.5
    whole = statistics.read_bytes()
    middle = whole.index(b"sum.npy") + 200
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for damaged in (b"", whole[:100], whole[:-30], flipped, b"no numbers"):
        statistics.write_bytes(damaged)
        with pytest.raises(MlmaError, match=r"feats_stats\.npz: damaged statistics"):
            espnet_mlma.load(folder)


def test_stage_12_writes_files(experiment, recogniser, utterances, tmp_path, monkeypatch, capsys):
    data = tmp_path / "dump" / "raw" / "test"
    data.mkdir(parents=True)
    with (data / "wav.scp").open("w") as scp, (data / "utt2num_samples").open("w") as lengths:
        for i, samples in enumerate(utterances):
            soundfile.write(tmp_path / f"{i}.wav", samples, 16000, subtype="FLOAT")
            scp.write(f"spk-{i} {tmp_path / f'{i}.wav'}\n")
            lengths.write(f"spk-{i} {len(samples)}\n")
    command = ["decode", "--asr_train_config", experiment / "config.yaml"]
    command += ["--asr_model_file", experiment / "valid.cer_ctc.ave.pth"]
    command += ["--data_dir", data, "--output_dir", tmp_path / "out"]
    command += ["--config", tmp_path / "decode.yaml"]
    monkeypatch.setattr("sys.argv", [str(word) for word in command])
    (tmp_path / "decode.yaml").write_text("batch_seconds: 3\n")
    main()
    printed = capsys.readouterr().out
    assert "3 utterances" in printed and "x real time" in printed
    expected = [recogniser.transcribe(samples) for samples in utterances]
    for name, column in {
        "text": lambda t: t.text,
        "token": lambda t: " ".join(token.text for token in t.tokens),
        "token_int": lambda t: " ".join(str(token.id) for token in t.tokens),
    }.items():
        lines = (tmp_path / "out" / "test" / name).read_text().splitlines()
        assert lines == [f"spk-{i} {column(t)}".rstrip() for i, t in enumerate(expected)]
    for line, t in zip((tmp_path / "out/test/confidence").open(), expected, strict=True):
        mean = np.mean([word.confidence for word in t.words]) if t.words else np.nan
        assert float(line.partition(" ")[2] or "nan") == pytest.approx(mean, abs=2e-4, nan_ok=True)
    (tmp_path / "decode.yaml").write_text("batch_seconds: 3\nbeam: 3\n")
    with pytest.raises(MlmaError, match="unknown option 'beam'"):
        main()


def test_language_tokens_are_the_language_and_not_text(make_experiment, utterances):
    from espnet2.tasks.asr import ASRTask

    folder = make_experiment(
        ASRTask,
        encoder="conmamba",
        encoder_conf={"output_size": 16, "num_blocks": 2, "linear_units": 32},
        token_list=["<blank>", "<unk>", "<it>", "<nl>", "<space>", *"abcdef", "<sos/eos>"],
        token_type="char",
        model_conf={"ctc_weight": 1.0},
        frontend_conf={"fs": "16k", "hop_length": 160, "center": False},
        normalize=None,
    )
    recogniser = espnet_mlma.load(folder, device="cpu")
    with torch.no_grad():  # as much of the languages as of the letters
        recogniser.model.ctc.ctc_lo.bias[2:4] += 1
    found = recogniser.transcribe_batch(utterances)
    assert any(transcript.language for transcript in found)
    for transcript in found:
        named = [token.text[1:-1] for token in transcript.tokens if token.id in (2, 3)]
        if named:
            assert transcript.language == named[0]
        letters = [token.text for token in transcript.tokens if token.id not in (2, 3)]
        assert transcript.text == " ".join("".join(letters).replace("<space>", " ").split())
