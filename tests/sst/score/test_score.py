import argparse
import json
import re
import subprocess
import sys
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest
import yaml

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.score.logs import (
    Emission,
    TranslatedTalk,
    joined,
    read_log,
    write_simuleval,
    write_simulstream,
)
from espnet_mlma.sst.score.published import TABLE_2
from espnet_mlma.sst.score.references import read_segments
from espnet_mlma.sst.score.table import CONVENTIONS, add_arguments, real_time_factor, run, score

# Two sentences with the same scores in all tools: StreamLAAL 1.905 s; computation-aware 2.171667 s,
# or 2.371667 s with SimulEval's uncorrected elapsed.
GOLDEN = TranslatedTalk(
    "talk.wav",
    (
        Emission("Guten Morgen zusammen", 2.88, 0.3),
        Emission("wir sprechen", 5.76, 0.3),
        Emission("heute", 7.68, 0.1),
    ),
    7.68,
)
GOLDEN_SEGMENTS = [
    {"wav": "talk.wav", "offset": 0.0, "duration": 3.3},
    {"wav": "talk.wav", "offset": 3.3, "duration": 3.21},
]
GOLDEN_TEXTS = ["guten morgen zusammen", "wir sprechen heute"]
WORDS = {"word": ["ein", "das", "Haus", "Ist", "grün", "."], "char": list("我们说话。A")}
WRITERS = {"instances.log": write_simuleval, "metrics.jsonl": write_simulstream}


@pytest.fixture(params=WRITERS)
def golden(request, tmp_path):
    """Write the golden log in one of the formats, and its references."""
    WRITERS[request.param](tmp_path / "talk.log", [GOLDEN], "word")
    write_references(tmp_path, GOLDEN_SEGMENTS, GOLDEN_TEXTS)
    (tmp_path / "source.txt").write_text("good morning all\nwe speak today\n")
    return tmp_path


def write_references(folder, segments, texts):
    (folder / "segments.yaml").write_text(yaml.safe_dump(segments))
    (folder / "reference.txt").write_text("".join(f"{text}\n" for text in texts))


def parse(folder, *options: str, log: str = "talk.log") -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    files = ("--segments", "segments.yaml", "--references", "reference.txt", "--log", log)
    paths = [part if part.startswith("--") else str(folder / part) for part in files]
    return parser.parse_args([*paths, *options])


def test_golden_log(golden, capsys):
    pytest.importorskip("sacrebleu")
    run(parse(golden, "--target", "de", "-o", str(golden / "score.json")))
    result = json.loads((golden / "score.json").read_text())
    assert (result["unit"], result["sentences"]) == ("word", 2)
    assert result["real_time_factor"] == pytest.approx(0.7 / 7.68, abs=1e-4)
    for scores in result["scores"].values():
        found = scores["stream_laal_ms"]
        assert found["ideal"] == pytest.approx(1905.0, abs=1e-3)
        for name in ("repaired", "per_chunk", "fixed", "queueing"):
            assert found[name] == pytest.approx(2171.667, abs=1e-3)
        assert found["elapsed"] == pytest.approx(2371.667, abs=1e-3)
        assert scores["sentences_without_output"] == 0
    table = capsys.readouterr().out
    assert "StreamLAAL (ms)                             1905            1905\n" in table
    assert "StreamLAAL_CA elapsed (ms)                  2372            2372\n" in table
    assert scores["signature"] in table
    assert "Qwen2.5-7B-Instruct, LS+CV+VP               25.1    1689    2306" in table
    assert "44.3" not in table  # Chinese


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_turns_without_text_count_as_compute_but_not_as_latency(tmp_path, write):
    """Includes turns after the last word, and a talk without any text."""
    pytest.importorskip("sacrebleu")
    silence = (Emission("", 8.64, 0.4), Emission("", 9.6, 0.5))
    talks = [replace(GOLDEN, emissions=GOLDEN.emissions + silence, source_seconds=9.6)]
    write_references(tmp_path, GOLDEN_SEGMENTS, GOLDEN_TEXTS)
    references = read_segments(tmp_path / "segments.yaml", tmp_path / "reference.txt")
    write(tmp_path / "talk.log", talks, "word")
    read = read_log(tmp_path / "talk.log", "word")
    assert real_time_factor(read) == pytest.approx(1.6 / 9.6)
    for convention in CONVENTIONS:
        found, expected = (
            score(each, references, "word", "13a", convention) for each in (read, [GOLDEN])
        )
        assert found.latency == pytest.approx(expected.latency)
        assert found.hypotheses == expected.hypotheses
    write(tmp_path / "talk.log", [*talks, TranslatedTalk("mute.wav", silence, 9.6)], "word")
    assert real_time_factor(read_log(tmp_path / "talk.log", "word")) == pytest.approx(2.5 / 19.2)


def test_simulstream_gives_the_golden_values(tmp_path):
    pytest.importorskip("simulstream")
    write_simulstream(tmp_path / "talk.log", [GOLDEN], "word")
    write_references(tmp_path, GOLDEN_SEGMENTS, GOLDEN_TEXTS)
    (tmp_path / "eval.yaml").write_text("detokenizer_type: simuleval\nlatency_unit: word\n")
    files = {
        "--eval-config": "eval.yaml",
        "--log-file": "talk.log",
        "--reference": "reference.txt",
        "--audio-definition": "segments.yaml",
    }
    arguments = [part for key, name in files.items() for part in (key, str(tmp_path / name))]
    output = tool("simulstream.metrics.score_latency", *arguments, "--scorer", "stream_laal")
    figures = [float(figure) for figure in re.findall(r"=([0-9.]+)", output)]
    assert figures == pytest.approx([1.905, 2.171667], abs=1e-6)


@pytest.mark.parametrize(
    ("option", "aware"), [("--word_level", 2371.6667), ("--fix_simuleval_emission_ca", 2171.6667)]
)
def test_omnisteval_gives_the_golden_values(tmp_path, option, aware):
    pytest.importorskip("omnisteval")
    write_simuleval(tmp_path / "talk.log", [GOLDEN], "word")
    write_references(tmp_path, GOLDEN_SEGMENTS, GOLDEN_TEXTS)
    files = {
        "--speech_segmentation": "segments.yaml",
        "--ref_sentences_file": "reference.txt",
        "--hypothesis_file": "talk.log",
    }
    arguments = [part for key, name in files.items() for part in (key, str(tmp_path / name))]
    lines = tool("omnisteval.cli", "longform", "--word_level", option, *arguments).splitlines()
    figures = {line[:17].strip(): line[17:].strip() for line in lines if "LongLAAL" in line}
    assert figures == {"LongLAAL (CU)": "1905.0000", "LongLAAL (CA)": f"{aware}"}


def tool(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def random_set(random: Random, unit: str) -> tuple[list[TranslatedTalk], list[dict], list[str]]:
    """Make talks whose output contains some words of the references, in order."""
    talks, segments, texts = [], [], []
    for number in range(random.randint(1, 3)):
        emissions, heard, words = [], 0.0, []
        for _ in range(random.randint(1, 5)):
            reference = random.choices(WORDS[unit], k=random.randint(1, 9))
            texts.append(joined(reference, unit))
            duration = random.randint(1, 500) / 100
            segments.append({"wav": f"t{number}.wav", "offset": heard, "duration": duration})
            heard += duration
            words += [random.choice([word, *WORDS[unit]]) for word in reference]
        heard = 0.0
        while words:
            count = random.randint(0, 4)
            heard += 0.96
            text, words = joined(words[:count], unit), words[count:]
            emissions.append(Emission(text, heard, random.randint(1, 900) / 1000))
        talks.append(TranslatedTalk(f"t{number}.wav", tuple(emissions), heard))
    return talks, segments, texts


@pytest.mark.parametrize(("unit", "tokeniser"), [("word", "13a"), ("char", "zh")])
def test_v2_equals_simulstream_on_random_talks(tmp_path, unit, tokeniser):
    readers = pytest.importorskip("simulstream.metrics.readers")
    latency = pytest.importorskip("simulstream.metrics.scorers.latency.stream_laal")
    sample = pytest.importorskip("simulstream.metrics.scorers.latency").LatencyScoringSample
    random, [_, v2] = Random(4), CONVENTIONS
    config = SimpleNamespace(detokenizer_type="simuleval", latency_unit=unit)
    for _ in range(40):
        talks, segments, texts = random_set(random, unit)
        write_simulstream(tmp_path / "talk.log", talks, unit)
        write_references(tmp_path, segments, texts)
        files = [str(tmp_path / name) for name in ("segments.yaml", "reference.txt")]
        wanted = readers.YamlReferenceReader(*files).references
        reader = readers.LogReader(config, str(tmp_path / "talk.log"), unit)
        outputs = reader.final_outputs_and_latencies()
        expected = latency.StreamLaal(config).score(
            [sample(name, outputs[name], references) for name, references in wanted.items()]
        )
        references = read_segments(tmp_path / "segments.yaml", tmp_path / "reference.txt")
        found = score(talks, references, unit, tokeniser, v2)
        assert found.latency["ideal"] == pytest.approx(1000 * expected.ideal_latency)
        assert found.latency["per_chunk"] == pytest.approx(
            1000 * expected.computational_aware_latency
        )


@pytest.mark.parametrize("target", ["de", "zh"])
def test_bleu_equals_sacrebleus_command(tmp_path, target):
    pytest.importorskip("sacrebleu")
    unit, tokeniser = ("char", "zh") if target == "zh" else ("word", "13a")
    talks, segments, texts = random_set(Random(5), unit)
    write_simulstream(tmp_path / "talk.log", talks, unit)
    write_references(tmp_path, segments, texts)
    (tmp_path / "source.txt").write_text("".join(f"s{n}\n" for n in range(len(texts))))
    folder = tmp_path / "comet"
    sources = ("--sources", str(tmp_path / "source.txt"))
    output = ("--comet", str(folder), "-o", str(tmp_path / "score.json"))
    run(parse(tmp_path, "--target", target, *sources, *output))
    assert (folder / "src.txt").read_text().split() == [f"s{n}" for n in range(len(texts))]
    reference, output = str(folder / "ref.txt"), str(folder / "mt.txt")
    scores = json.loads((tmp_path / "score.json").read_text())["scores"]["v1"]
    command = (reference, "-i", output, "-m", "bleu", "chrf", "-tok", tokeniser, "-w", "8")
    figures = json.loads(tool("sacrebleu", *command))
    assert [figure["score"] for figure in figures] == pytest.approx(
        [scores["bleu"], scores["chrf"]]
    )
    assert figures[0]["score"] > 0


def test_log_and_references_of_different_talks_are_refused(golden):
    write_references(golden, [{**s, "wav": "other.wav"} for s in GOLDEN_SEGMENTS], GOLDEN_TEXTS)
    with pytest.raises(MlmaError, match="other is in the references but not in the log"):
        run(parse(golden, "--target", "de"))


def test_wrong_options_and_missing_sources_are_refused(golden):
    pytest.importorskip("sacrebleu")
    both = ("--target", "de", "--sentences", "sentences.jsonl")
    with pytest.raises(MlmaError, match="give --sentences, or --segments with --references"):
        run(parse(golden, *both))
    with pytest.raises(MlmaError, match="sentence 1 has no source text.*--sources"):
        run(parse(golden, "--target", "de", "--comet", str(golden / "comet")))


def test_talk_without_output_has_bleu_0_and_no_latency(tmp_path, capsys):
    pytest.importorskip("sacrebleu")
    write_simulstream(
        tmp_path / "talk.log", [TranslatedTalk("talk.wav", (Emission("", 1.0, 0.5),), 1.0)], "word"
    )
    write_references(tmp_path, GOLDEN_SEGMENTS, GOLDEN_TEXTS)
    run(parse(tmp_path, "--target", "es", "-o", str(tmp_path / "score.json")))
    scores = json.loads((tmp_path / "score.json").read_text())["scores"]["v2"]
    assert (scores["bleu"], scores["sentences_without_output"]) == (0.0, 2)
    assert scores["stream_laal_ms"]["ideal"] is None
    assert "The paper" not in capsys.readouterr().out  # the paper has no Spanish


def test_paper_table_is_consistent():
    rows = {(row.target, row.system): row for row in TABLE_2}
    best = "Qwen2.5-7B-Instruct, LS+CV+VP"
    assert len(rows) == 6
    assert rows["zh", best].bleu - rows["zh", "Llama-3.1-8B-Instruct, LS+CV+VP"].bleu > 3
    for row in TABLE_2:
        assert row.stream_laal < row.stream_laal_ca and row.bleu <= rows[row.target, best].bleu
