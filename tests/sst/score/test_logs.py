import json
import re
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.score.logs import (
    Emission,
    TranslatedTalk,
    joined,
    read_log,
    read_simuleval,
    read_simulstream,
    talk_name,
    units,
    write_simuleval,
    write_simulstream,
)

WORDS = {"word": ["guten", "Morgen", "über", "die", "#", "12,5"], "char": list("我们说 。ab")}


def random_talk(random: Random, name: str, unit: str, has_silence: bool = True) -> TranslatedTalk:
    heard, emissions = 0.0, []
    for _ in range(random.randint(1, 12)):
        heard += 0.96 * random.randint(1, 3)
        count = random.randint(0 if has_silence else 1, 4)
        text = joined(random.choices(WORDS[unit], k=count), unit)
        emissions.append(Emission(text, heard, random.randint(1, 2000) / 1000))
    return TranslatedTalk(f"talks/{name}.wav", tuple(emissions), heard)


@pytest.mark.parametrize("unit", ["word", "char"])
def test_simulstream_log_round_trip(tmp_path, unit):
    random = Random(1)
    talks = [random_talk(random, f"talk.{n}", unit) for n in range(20)]
    write_simulstream(tmp_path / "metrics.jsonl", talks, unit)
    assert read_simulstream(tmp_path / "metrics.jsonl", unit) == talks
    assert read_log(tmp_path / "metrics.jsonl", unit) == talks


@pytest.mark.parametrize("unit", ["word", "char"])
def test_simuleval_log_keeps_turns_with_text_and_all_compute(tmp_path, unit):
    """The compute of a turn without text is part of the next turn with text.

    After the last text, it is a turn of its own.
    """
    random, path = Random(2), tmp_path / "instances.log"
    for talk in (random_talk(random, "talk", unit) for _ in range(20)):
        write_simuleval(path, [talk], unit, {"talk": "the reference"})
        [record] = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        [read] = read_log(path, unit)
        assert (read.audio, record["reference"]) == (talk.audio, "the reference")
        assert read.source_seconds == pytest.approx(talk.source_seconds)
        computed, expected = 0.0, []
        for emission in talk.emissions:
            computed += emission.compute_seconds
            text = emission.text.replace(" ", "") if unit == "char" else emission.text
            if text:
                expected.append((text, emission.audio_seconds, computed))
                computed = 0.0
        if computed:
            expected.append(("", talk.source_seconds, computed))
        found = [(e.text, e.audio_seconds, e.compute_seconds) for e in read.emissions]
        assert [text for text, *_ in found] == [text for text, *_ in expected]
        times = [time for _, *turn in expected for time in turn]
        assert [time for _, *turn in found for time in turn] == pytest.approx(times, abs=2e-6)


def test_fields_of_simulevals_log(tmp_path):
    talk = TranslatedTalk(
        "a/b.wav", (Emission("我 们", 0.96, 0.25), Emission("说", 1.92, 0.5)), 2.0
    )
    write_simuleval(tmp_path / "instances.log", [talk], "char")
    assert json.loads((tmp_path / "instances.log").read_text(encoding="utf-8")) == {
        "index": 0,
        "prediction": "我们说",
        "delays": [960, 960, 1920],
        "elapsed": [1210, 1210, 2670],
        "prediction_length": 3,
        "reference": "",
        "source": ["a/b.wav"],
        "source_length": 2000,
        "computing": 750,
    }


def test_simulevals_own_log_lacks_the_compute_after_the_last_unit(tmp_path):
    path = tmp_path / "instances.log"
    path.write_text(json.dumps(instance()) + "\n")
    [talk] = read_log(path, "word")
    found = [(e.text, e.audio_seconds, e.compute_seconds) for e in talk.emissions]
    assert found == [("guten", 1.0, pytest.approx(0.1)), ("Morgen", 2.0, pytest.approx(0.1))]


@pytest.mark.parametrize("unit", ["word", "char"])
def test_simulstream_reads_our_log(tmp_path, unit):
    readers = pytest.importorskip("simulstream.metrics.readers")
    random, path = Random(3), tmp_path / "metrics.jsonl"
    talks = [random_talk(random, f"talk{n}", unit) for n in range(20)]
    write_simulstream(path, talks, unit)
    config = SimpleNamespace(detokenizer_type="simuleval", latency_unit=unit)
    outputs = readers.LogReader(config, str(path), unit).final_outputs_and_latencies()
    assert list(outputs) == [talk.name for talk in talks]
    for talk in talks:
        output = outputs[talk.name]
        assert output.final_text == joined((e.text for e in talk.emissions), unit)
        turns = [(e, e.audio_seconds) for e in talk.emissions for _ in units(e.text, unit)]
        assert output.ideal_delays == [heard for _, heard in turns]
        done = [heard + emission.compute_seconds for emission, heard in turns]
        assert output.computational_aware_delays == done


def test_server_may_reuse_an_id(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"model_loading_time": 3.5},
        {"id": 7, "metadata": {"wav_name": "one.wav"}},
        {"id": 8, "metadata": {"wav_name": "two.wav"}},
        chunk(8, 1.0, "zwei"),
        chunk(7, 1.0, "eins"),
        {"id": 7, "metadata": {"wav_name": "three.wav"}},
        chunk(7, 1.0, "drei"),
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    talks = read_log(path, "word")
    assert [(t.name, t.emissions[0].text) for t in talks] == [
        ("one", "eins"),
        ("two", "zwei"),
        ("three", "drei"),
    ]


def test_talk_name_removes_only_audio_suffixes():
    assert talk_name("a/2022.acl-long.110.WAV") == talk_name("2022.acl-long.110")
    assert talk_name("2022.acl-long.110") == "2022.acl-long.110"


def chunk(stream: int, seconds: float, *tokens: str, **others) -> dict:
    return {
        "id": stream,
        "total_audio_processed": seconds,
        "computation_time": 0.1,
        "generated_tokens": list(tokens),
        "deleted_tokens": [],
    } | others


def instance(**changes) -> dict:
    return {
        "prediction": "guten Morgen",
        "delays": [1000, 2000],
        "elapsed": [1100, 2200],
        "source": ["talk.wav"],
        "source_length": 3000,
    } | changes


START = {"id": 1, "metadata": {"wav_name": "talk.wav"}}


@pytest.mark.parametrize(
    ("lines", "number", "message"),
    [
        (["{"], 1, "not valid JSON"),
        (["[1]"], 1, "not a JSON object"),
        ([{"text": "a"}], 1, "neither a SimulEval nor a simulstream log"),
        ([instance(), instance()], 2, "talk is in the log twice"),
        ([instance(delays=[1000])], 1, "1 delays for 2 units (word)"),
        ([instance(elapsed=None)], 1, "elapsed is missing"),
        ([instance(delays=[1000, "2000"])], 1, "delays: '2000' is not a time"),
        ([instance(delays=[1000, float("nan")])], 1, "delays: nan is not a time"),
        ([instance(delays=[2000, 1000])], 1, "decrease"),
        ([instance(elapsed=[1500, 2100])], 1, "decrease"),
        ([instance(computing=199)], 1, "computing is less than the compute in elapsed"),
        ([instance(computing="200")], 1, "computing: '200' is not a time"),
        ([instance(source=[])], 1, "source does not name an audio file"),
        ([instance(source_length=-1)], 1, "source_length: -1 is not a time"),
        ([instance(prediction=None)], 1, "prediction is missing"),
        ([chunk(1, 1.0)], 1, "no line before it names the audio file of id 1"),
        ([START, chunk(1, 2.0), chunk(1, 1.0)], 3, "total_audio_processed decreases"),
        ([START, chunk(1, 1.0, deleted_tokens=["a"])], 2, "deleted_tokens"),
        ([START, chunk(1, 1.0, generated_tokens="a")], 2, "generated_tokens is missing or has"),
        ([START, chunk(1, 1.0, generated_tokens=[1])], 2, "generated_tokens contains a non-string"),
        ([START, chunk(1, 1.0, computation_time=None)], 2, "computation_time: None is not a time"),
        ([START, START], 2, "talk is in the log twice"),
        ([{"id": 1, "metadata": "talk.wav"}], 1, "wav_name is missing"),
    ],
)
def test_errors_name_file_and_line(tmp_path, lines, number, message):
    path = tmp_path / "a.log"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    with pytest.raises(MlmaError, match=f"^{re.escape(f'{path}:{number}: ')}.*") as error:
        read_log(path, "word")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("write", [write_simuleval, write_simulstream])
def test_byte_order_marks_and_line_ends_are_ignored(tmp_path, write, mark, newline):
    talks = [TranslatedTalk("a.wav", (Emission("guten\u2028Morgen", 1.0, 0.5),), 2.0)]
    write(tmp_path / "good.log", talks, "word")
    lines = (tmp_path / "good.log").read_text(encoding="utf-8").split("\n")[:-1]
    text = "".join(mark + line + newline for line in lines) + newline
    (tmp_path / "other.log").write_bytes(text.encode())
    assert read_log(tmp_path / "other.log", "word") == read_log(tmp_path / "good.log", "word")


def test_unreadable_logs_are_refused(tmp_path):
    (tmp_path / "empty.log").write_text("\n")
    with pytest.raises(MlmaError, match="no talk in the log"):
        read_log(tmp_path / "empty.log", "word")
    with pytest.raises(MlmaError, match="cannot read .*none.log: No such file"):
        read_log(tmp_path / "none.log", "word")
    (tmp_path / "latin.log").write_bytes(b'{"prediction": "\xfc"}')
    with pytest.raises(MlmaError, match="not UTF-8"):
        read_simuleval(Path(tmp_path / "latin.log"), "word")
