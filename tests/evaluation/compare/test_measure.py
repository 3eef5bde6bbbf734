import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from babble import babble
from huggingface_hub import constants

from espnet_mlma.decode import load
from espnet_mlma.errors import MlmaError, run_cli
from espnet_mlma.evaluation.compare import measure
from espnet_mlma.evaluation.compare.measure import WindowedRecogniser, language_of, with_language
from espnet_mlma.evaluation.compare.published import load_published
from espnet_mlma.evaluation.compare.systems import load_system
from espnet_mlma.evaluation.compare.table import cost_grid
from espnet_mlma.loading import checkpoint

RATE = 16000
# Seconds of each utterance of two sets; the last is longer than the window of 30 s.
SETS = {"test_it": ("it", (1.0, 2.5)), "test_en": ("en", (0.7, 31.0))}


def noise(seconds: float) -> np.ndarray:
    return babble(round(seconds * RATE), seed=round(10 * seconds))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """dump/raw with two sets of two languages."""
    root = tmp_path_factory.mktemp("work") / "dump" / "raw"
    for name, (language, durations) in SETS.items():
        folder = root / name
        folder.mkdir(parents=True)
        tables: dict[str, list[str]] = {}
        for number, seconds in enumerate(durations):
            key, file = f"{language}_s-{number}", folder / f"{number}.wav"
            soundfile.write(file, noise(seconds), RATE, subtype="FLOAT")
            # Relative to the recipe's folder, as stage 3 writes it.
            values = {
                "wav.scp": file.relative_to(root.parents[1]),
                "utt2num_samples": round(seconds * RATE),
            }
            values |= {"text": "a book", "utt2lang": language, "utt2spk": f"{language}_s"}
            values["utt2category"] = "noise"
            for table, value in values.items():
                tables.setdefault(table, []).append(f"{key} {value}\n")
        for table, lines in tables.items():
            (folder / table).write_text("".join(lines), encoding="utf-8")
    return root


def start(monkeypatch, data: Path, model: Path | str, out: Path, *more: str) -> dict:
    """Run the program in this process; return the contents of measured.json."""
    sets = [str(data / name) for name in SETS]
    options = ["--model", f"{out.name}={model}", "--data", *sets, "--output", str(out.parent)]
    options += ["--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["measure", *options, *more])
    measure.main()
    return json.loads((out / "measured.json").read_text(encoding="utf-8"))


def column(out: Path, file: str) -> dict[str, str]:
    """Read a file of all decoded sets."""
    lines = [line for name in SETS for line in (out / name / file).read_text().splitlines()]
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def scored(data: Path, out: Path) -> str:
    """Score decoded sets; return RESULTS.md."""
    options = ["--dump", data, "--decode_dir", out, "--sets", " ".join(SETS)]
    command = [sys.executable, "-m", "espnet_mlma.cli", "recipe", "score", *map(str, options)]
    subprocess.run([*command, "--token_type", "char"], check=True, capture_output=True)
    return (out.parent / "RESULTS.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", ["s2t_experiment", "experiment"])
def test_from_a_model_to_scores(monkeypatch, request, data, tmp_path, model):
    folder, out = request.getfixturevalue(model), tmp_path / "exp" / "decode"
    options = ["--batch-seconds", "60", "--training-hours", "3.5", "--usd-per-hour", "0.4"]
    found = start(monkeypatch, data, folder, out, *options)
    network, _ = checkpoint.build(folder)
    assert (found["system"], found["model"]) == (folder.name, str(folder))
    assert found["sets"] == list(SETS)
    decoding = yaml.safe_load((out / "test_it" / "decoding.yaml").read_text())
    assert decoding["parameters"] == sum(p.numel() for p in network.parameters())
    assert found["audio_seconds"] == pytest.approx(1 + 2.5 + 0.7 + 31)
    assert found["rtf"] == pytest.approx(found["seconds"] / found["audio_seconds"])
    assert found["seconds"] > 0 and found["peak_bytes"] > 10e6
    assert f"{torch.get_num_threads()} threads" in found["machine"]
    assert (found["training_hours"], found["usd_per_machine_hour"]) == (3.5, 0.4)
    assert set(column(out, "text")) == {"it_s-0", "it_s-1", "en_s-0", "en_s-1"}
    results = scored(data, out)
    assert "| it | noise | test_it |" in results and "| en | noise | test_en |" in results


@pytest.mark.parametrize("asked", [None, "de"])
def test_a_set_is_decoded_in_its_language(monkeypatch, data, tmp_path, s2t_experiment, asked):
    """An utterance of 31 s is decoded by windows, as `transcribe` does."""
    start(monkeypatch, data, s2t_experiment, tmp_path, *(("--language", asked) if asked else ()))
    texts, scores = column(tmp_path, "text"), column(tmp_path, "score")
    for language, durations in SETS.values():
        known = load(s2t_experiment, device="cpu", language=asked or language)
        unknown = load(s2t_experiment, device="cpu")
        for number, seconds in enumerate(durations):
            expected, key = known.transcribe(noise(seconds)), f"{language}_s-{number}"
            assert texts[key] == expected.text
            assert float(scores[key]) == pytest.approx(expected.score, abs=2e-3)
            other = unknown.transcribe(noise(seconds)).score
            assert float(scores[key]) != pytest.approx(other, abs=2e-3)


def test_short_utterances_count_as_windows(s2t_experiment, monkeypatch):
    windowed = with_language(load(s2t_experiment, device="cpu", batch_seconds=60), "it")
    assert isinstance(windowed, WindowedRecogniser)
    encode, sizes = windowed.recogniser.acoustic.emissions, []

    def counted(utterances):
        sizes.append(len(utterances))
        return encode(utterances)

    monkeypatch.setattr(windowed.recogniser.acoustic, "emissions", counted)
    durations = (1, 0.5, 1.5, 1, 2)
    found = windowed.transcribe_batch([noise(s) for s in durations])
    assert sizes == [2, 2, 1]
    assert [transcript.duration for transcript in found] == list(durations)


@pytest.mark.slow
def test_models_of_one_run_are_compared(data, tmp_path, experiment, s2t_experiment):
    """Each model has its own process; the table treats them as one run."""
    out = tmp_path / "decoded"
    models = [f"small={experiment}", str(s2t_experiment)]
    options = ["--model", *models, "--data", data / "test_it", "--output", out, "--device", "cpu"]
    command = [sys.executable, "-m", "espnet_mlma.cli", "recipe", "measure", *map(str, options)]
    subprocess.run([*command, "--training-hours", "3", "nan"], check=True, capture_output=True)
    names = ("small", s2t_experiment.name)
    found = [json.loads((out / name / "measured.json").read_text()) for name in names]
    assert found[0]["run"] == found[1]["run"]
    assert [of["training_hours"] for of in found] == [3, None]
    published = load_published()
    systems = [load_system(name, out / name, data, ["ours"], published) for name in names]
    assert all(system.caveats_on("it", "noise") == ("no-lm",) for system in systems)
    assert "different runs" not in cost_grid(systems).note
    again = replace(systems[0].measured, run="later")
    assert "in different runs" in cost_grid([replace(systems[0], measured=again), systems[1]]).note


def test_wrong_models_and_figures_are_errors(monkeypatch, capsys, data, tmp_path):
    with pytest.raises(MlmaError, match="two models have the name 'a'; give NAME=MODEL"):
        start(monkeypatch, data, "x", tmp_path / "a", "--model", "a=y")
    with pytest.raises(SystemExit):
        start(monkeypatch, data, "x", tmp_path / "a", "--training-hours", "1", "2")
    assert "give one for each model" in capsys.readouterr().err
    for option in ("--usd-per-hour", "--training-hours", "--batch-seconds"):
        with pytest.raises(SystemExit):  # before decoding
            start(monkeypatch, data, "x", tmp_path / "a", option, "0")
        assert f"{option}: 0 is not a number above 0" in capsys.readouterr().err


def test_a_set_of_two_languages_has_none(tmp_path):
    (tmp_path / "utt2lang").write_text("a it\nb it\n")
    assert language_of(tmp_path) == "it"
    (tmp_path / "utt2lang").write_text("a it\nb en\n")
    assert language_of(tmp_path) is None


def test_errors_come_before_decoding(monkeypatch, data, tmp_path, s2t_experiment):
    out, again = tmp_path / "out", ["--data", *[str(data / "test_it")] * 2]
    with pytest.raises(MlmaError, match="no language <pol>"):
        start(monkeypatch, data, s2t_experiment, out, "--language", "pl")
    with pytest.raises(MlmaError, match="test_it has the same name"):
        start(monkeypatch, data, s2t_experiment, out, *again)
    with pytest.raises(MlmaError, match="gone/wav.scp: no such file"):
        start(monkeypatch, data, s2t_experiment, out, "--data", str(tmp_path / "gone"))
    with pytest.raises(MlmaError, match="gone: no such file"):  # the second of two models
        start(
            monkeypatch,
            data,
            s2t_experiment,
            out,
            "--model",
            f"a={s2t_experiment}",
            f"b={tmp_path / 'gone'}",
        )
    assert not out.exists()


def test_a_run_that_fails_leaves_no_old_figures(monkeypatch, data, tmp_path, experiment):
    out = tmp_path / "decoded"
    start(monkeypatch, data, experiment, out)
    damaged = tmp_path / "test_damaged"
    damaged.mkdir()
    (damaged / "gone.wav").write_text("no sound")
    for table, value in (("utt2lang", "it"), ("wav.scp", "gone.wav"), ("utt2num_samples", "16000")):
        (damaged / table).write_text(f"a {value}\n")
    all_sets = [str(damaged), *(str(data / name) for name in SETS)]
    with pytest.raises(MlmaError, match="gone.wav"):
        start(monkeypatch, data, experiment, out, "--data", *all_sets)
    assert not (out / "measured.json").exists()
    assert not list(out.glob("*/text"))  # no texts of two models


def test_an_output_folder_in_use_is_an_error_before_decoding(
    monkeypatch, data, tmp_path, experiment
):
    start(monkeypatch, data, experiment, tmp_path / "a", "--data", str(data / "test_it"))
    before = (tmp_path / "a" / "measured.json").read_bytes()
    with pytest.raises(MlmaError, match="a: has test_it of an earlier run.*give another --output"):
        start(monkeypatch, data, experiment, tmp_path / "a", "--data", str(data / "test_en"))
    assert (tmp_path / "a" / "measured.json").read_bytes() == before
    with pytest.raises(MlmaError, match="raw/test_it: a data folder"):
        start(monkeypatch, data, experiment, data)
    assert (data / "test_it" / "wav.scp").is_file()
    (tmp_path / "b").write_text("a file")
    with pytest.raises(MlmaError, match="b: a file; give another --output"):
        start(monkeypatch, data, experiment, tmp_path / "b")


def test_missing_weights_are_one_line(monkeypatch, capsys, data, tmp_path):
    """For example of OWSM-CTC without network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: start(monkeypatch, data, "espnet/owsm_ctc_v4_1B", tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 1
    assert line.startswith("error: espnet/owsm_ctc_v4_1B: ")
    assert "run `hf download espnet/owsm_ctc_v4_1B --local-dir FOLDER`" in line
