"""Tests of test talks: each sentence is at the time its record gives."""

import random

import numpy as np
import pytest
import soundfile

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data.records import Sentence, line_of
from espnet_mlma.sst.data.talks import mix_talk, talks
from espnet_mlma.sst.grid import SAMPLE_RATE
from espnet_mlma.sst.score.references import read_sentences


@pytest.fixture
def make_sentence(tmp_path):
    """Make a sentence with a file of its own, all samples of which are number / 10."""

    def make(number: int, seconds: float = 2.0, **fields) -> Sentence:
        file = tmp_path / f"{number}.wav"
        samples = np.full(round(seconds * SAMPLE_RATE), number / 10, np.float32)
        soundfile.write(file, samples, SAMPLE_RATE, subtype="FLOAT")
        known = {"id": f"s-{number}", "recording": f"s-{number}", "start": 0.0, "end": seconds}
        known |= {"audio": str(file), "offset": 0.0, "speaker": "s", "text": f"number {number}"}
        known |= {"target": "es", "translation": f"número {number}"}
        return Sentence(**known | fields)

    return make


def test_joined_talks_contain_each_sentence_once_with_pauses_in_range(make_sentence):
    sentences = [make_sentence(n) for n in range(1, 8)]
    found = list(talks(sentences, random.Random(0), (0.5, 1.0), seconds=5.0))
    assert sorted(s.id for talk in found for s in talk) == [s.id for s in sentences]
    assert [s.id for talk in found for s in talk] != [s.id for s in sentences]
    assert [len(talk) for talk in found] == [2, 2, 2, 1] or len(found[0]) == 2
    assert len({talk[0].recording for talk in found}) == len(found)
    for talk in found:
        before = 0.0
        for sentence in talk:
            assert 0.5 <= sentence.start - before <= 1.0
            before = sentence.end
        samples = mix_talk(talk)
        assert len(samples) == round(before * SAMPLE_RATE)
        for sentence in talk:
            first, last = (round(t * SAMPLE_RATE) for t in (sentence.start, sentence.end))
            number = int(sentence.id[2:])
            np.testing.assert_allclose(samples[first : last - 1], number / 10, atol=1e-6)
            assert samples[first - 1] == 0


def test_recordings_keep_their_times_and_dropped_sentences_are_silent(make_sentence):
    recorded = [
        make_sentence(1, recording="r", start=0.0, end=2.0),
        make_sentence(2, recording="r", start=2.0, end=4.0, dropped="digits"),
        make_sentence(3, recording="r", start=4.0, end=6.0),
    ]
    (talk,) = talks(recorded, random.Random(0))
    assert talk == [recorded[0], recorded[2]]
    samples = mix_talk(talk)
    assert len(samples) == 6 * SAMPLE_RATE
    np.testing.assert_allclose(samples[:: 2 * SAMPLE_RATE], [0.1, 0, 0.3], atol=1e-6)


def test_command_writes_talks_and_references(make_sentence, tmp_path, monkeypatch, capsys):
    from espnet_mlma.sst.commands import main

    source, out = tmp_path / "s.jsonl", tmp_path / "talks"
    source.write_text("".join(line_of(make_sentence(n)) for n in (1, 2, 3)))
    with source.open("a") as file:
        file.write(line_of(make_sentence(4, dropped="digits")))
    options = ["talks", "--sentences", source, "--out", out, "--seconds", 3]
    monkeypatch.setattr("sys.argv", ["sst", *map(str, options)])
    main()
    assert "dropped: digits 1" in capsys.readouterr().out
    references = read_sentences(out / "sentences.jsonl", "es")
    assert {f.stem for f in out.glob("*.flac")} == {r.talk for r in references}
    assert sorted(r.text for r in references) == ["número 1", "número 2", "número 3"]
    source.write_text(line_of(make_sentence(1, dropped="digits")))
    with pytest.raises(MlmaError, match="s.jsonl: all sentences are dropped"):
        main()
