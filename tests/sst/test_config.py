from pathlib import Path

import pytest
import yaml

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.config import Config, EncoderConfig, LlmConfig, make, read, write

CONF = Path(__file__).resolve().parents[2] / "conf" / "sst"
FILES = sorted(CONF.glob("*.yaml"))
LEAST = {"encoder": {"kind": "conmamba"}, "llm": {"name": "smollm2"}}


@pytest.fixture
def file(tmp_path):
    """Return a function that writes LEAST with other sections."""

    def made(**sections):
        path = tmp_path / "some.yaml"
        path.write_text(yaml.safe_dump(LEAST | sections), encoding="utf-8")
        return path

    return made


def message(path, changes=()):
    with pytest.raises(MlmaError) as caught:
        read(path, changes)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_configuration_round_trip(path, tmp_path):
    config = read(path)
    again = tmp_path / "again.yaml"
    again.write_text(write(config), encoding="utf-8")
    assert read(again) == config


def test_all_four_configurations_exist():
    names = {path.stem for path in FILES}
    assert names == {"wav2vec2_qwen7b", "conmamba_qwen7b", "conmamba_smollm2", "tiny"}


def test_paper_values():
    config = read(CONF / "wav2vec2_qwen7b.yaml")
    assert config.encoder.kind == "wav2vec2"
    assert (config.encoder.options["window_chunks"], config.encoder.options["window_unit"]) == (
        10,
        "chunk",
    )
    assert config.llm.name == "Qwen/Qwen2.5-7B-Instruct"
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (32, 16, 0.1)
    training = config.training
    assert training.batch_tokens * training.batches_per_update == 57_600
    assert (training.largest_multiplier, training.multiplier_per) == (12, "segment")
    assert (training.warmup_updates, training.clip_norm) == (1000, 1.0)
    assert (config.stage(1).learning_rate, config.stage(2).learning_rate) == (2e-4, 1e-4)
    assert (config.stage(1).epochs, config.stage(2).epochs) == (1, 1)


def test_paper_values_are_the_defaults():
    paper = read(CONF / "wav2vec2_qwen7b.yaml", ["training.read_ahead=4"])
    defaults = Config(paper.encoder, paper.llm)
    assert paper == defaults


def test_conmamba_configuration_differs_only_in_the_encoder():
    ours, paper = read(CONF / "conmamba_qwen7b.yaml"), read(CONF / "wav2vec2_qwen7b.yaml")
    assert make(Config, yaml.safe_load(write(ours)) | {"encoder": vars(paper.encoder)}, "") == paper


def test_numbers_may_be_written_as_2e_4_or_1(file):
    config = read(file(stage1={"learning_rate": "2e-4"}, training={"clip_norm": 1}))
    assert config.stage1.learning_rate == 2e-4
    assert config.training.clip_norm == 1.0


def test_overrides_apply_after_the_file(file):
    path = file(dialogue={"target": "de"})
    config = read(path, ["dialogue.target=zh", "stage2.learning_rate=3e-5", "llm.random={}"])
    assert (config.dialogue.target, config.stage2.learning_rate) == ("zh", 3e-5)
    assert config.llm == LlmConfig("smollm2", random={})
    assert config.encoder == EncoderConfig("conmamba")


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"training": {"batch_token": 5}}, "training: unknown key batch_token; did you mean"),
        ({"trainings": {}}, "unknown key trainings; did you mean training?"),
        ({"training": {"batch_tokens": "many"}}, "batch_tokens is 'many'; it must be of type int"),
        ({"training": {"seed": True}}, "seed is True; it must be of type int"),
        ({"training": {"batch_tokens": 0}}, "batch_tokens is 0; it must be above 0"),
        ({"training": {"warmup_updates": -1}}, "warmup_updates is -1"),
        ({"training": {"precision": "float16"}}, "it must be bfloat16 or float32"),
        ({"training": None}, "training: is None; it must be a mapping"),
        ({"stage1": {"epochs": 2}}, "stage1: missing key learning_rate"),
        ({"stage1": {"learning_rate": "fast"}}, "learning_rate is 'fast'"),
        ({"dialogue": {"target": "xx"}}, "no language 'xx'"),
        ({"encoder": {"kind": "hubert"}}, "kind is 'hubert'; it must be wav2vec2 or conmamba"),
        ({"llm": {}}, "llm: missing key name"),
        ({"decoding": {"beams": 0}}, "decoding: beams is 0; it must be above 0"),
        ({"decoding": {"no_repeat_ngram": -1}}, "no_repeat_ngram is -1; it must be 0 or more"),
        ({"decoding": {"lookback": -1}}, "lookback is -1; it must be 0 or more"),
        ({"decoding": {"repetition_penalty": 0}}, "repetition_penalty is 0.0; it must be above 0"),
        ({"lora": {"dropout": -0.1}}, "lora: dropout is -0.1; it must be 0 or more and below 1"),
        ({"lora": {"dropout": 1}}, "lora: dropout is 1.0; it must be 0 or more and below 1"),
    ],
)
def test_errors_name_file_and_key(file, sections, expected):
    path = file(**sections)
    text = message(path)
    assert text.startswith(str(path))
    assert expected in text


def test_unreadable_files_and_overrides_are_refused(tmp_path, file):
    assert "No such file" in message(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("encoder: [", encoding="utf-8")
    assert "not a readable YAML file" in message(broken)
    for change in ("training.seed", "encoder.kind.more=1"):
        assert "not of the form" in message(file(), [change])
