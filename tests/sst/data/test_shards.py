"""Tests of shards: round trips, and errors that name file and line."""

import json

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data.records import Part, Segment, Sentence
from espnet_mlma.sst.data.shards import (
    Shard,
    digest,
    finished_report,
    read_segments,
    read_sentences,
    report_path,
    write_shard,
)


def sentences(count, recording="r"):
    return [
        Sentence(
            id=f"{recording}-{i}",
            recording=recording,
            audio="a.flac",
            offset=0.0,
            start=float(i),
            end=i + 0.5,
            speaker="s",
            text="one\u2028two \x85 three",  # line ends for str.splitlines
            target="de",
            translation="eins zwei",
            words=(("one", float(i), i + 0.2),),
            score=-0.5,
            pieces=("eins", " zwei"),
            pairs=((0, 0), (0, 1)),
        )
        for i in range(count)
    ]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "words.jsonl"
    write_shard(path, sentences(3), "words", "key", {}, 1.5)
    return path


def test_records_round_trip(shard, tmp_path):
    assert read_sentences(shard) == sentences(3)
    part = Part("a.flac", 0.0, 1.0, 0.25)
    segment = Segment("x", (part,), 2, ("", "eins zwei"), "en", "de", "one two")
    write_shard(tmp_path / "train.jsonl", [segment], "build", "key", {"no_pairs": 2}, 1.92)
    assert read_segments(tmp_path / "train.jsonl") == [segment]
    assert json.loads((tmp_path / "train.jsonl").read_text()) == {
        "id": "x",
        "parts": [{"audio": "a.flac", "start": 0.0, "end": 1.0, "at": 0.25}],
        "chunks": 2,
        "turns": ["", "eins zwei"],
        "source": "en",
        "target": "de",
        "heard": "one two",
    }


def test_shard_is_finished_only_if_intact_and_with_the_same_key(shard):
    assert finished_report(shard, "key").records == 3
    assert finished_report(shard, "other") is None
    shard.write_text(shard.read_text().replace("eins", "Eins"))
    assert finished_report(shard, "key") is None


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda text: text[:-20], r"words\.jsonl: truncated"),
        (lambda text: text.replace('"r-1"', '"r-1', 1), r"words\.jsonl:2: damaged"),
        (lambda text: text.replace("eins", "zwei", 1), r"changed since stage 'words' wrote"),
        (lambda text: "\n".join(text.split("\n")[1:]), r"changed since stage 'words' wrote"),
    ],
)
def test_damaged_shard_is_refused(shard, damage, expected):
    shard.write_text(damage(shard.read_text()))
    with pytest.raises(MlmaError, match=expected):
        read_sentences(shard)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("pairs", [[1, 0]], r"pair \(1, 0\) of 1 words and 2 pieces"),
        ("end", -1.0, "times"),
        ("id", None, "id is None"),
        ("colour", "red", "colour"),
    ],
)
def test_malformed_record_is_named(shard, field, value, expected):
    report_path(shard).unlink()
    first, *others = shard.read_text().split("\n")
    broken = json.dumps(json.loads(others[0]) | {field: value})
    shard.write_text("\n".join([first, broken, *others[1:]]))
    with pytest.raises(MlmaError, match=rf"words\.jsonl:2: damaged \(.*{expected}"):
        read_sentences(shard)


def test_duplicate_id_is_refused(tmp_path):
    for index in (1, 2):
        write_shard(tmp_path / f"a.{index}of2.jsonl", sentences(1), "words", "key", {}, 0.0)
    with pytest.raises(
        MlmaError, match=r"a\.2of2\.jsonl:1: duplicate id 'r-0', first in .*a\.1of2"
    ):
        read_sentences(tmp_path / "a.jsonl")


def test_shards_are_read_as_one_file_if_none_is_missing(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(MlmaError, match="no such file"):
        read_sentences(path)
    for index in (1, 2, 3):
        shard = Shard(index, 3).file(path)
        write_shard(shard, sentences(2, f"r{index}"), "words", "key", {}, 0.0)
    assert [s.id for s in read_sentences(path)] == [f"r{i}-{j}" for i in (1, 2, 3) for j in (0, 1)]
    assert len(digest(path)) == 64
    (tmp_path / "a.2of3.jsonl").unlink()
    with pytest.raises(MlmaError, match=r"1 of 3 shards missing; .*--shard 2/3"):
        read_sentences(path)
    write_shard(tmp_path / "a.1of2.jsonl", [], "words", "key", {}, 0.0)
    with pytest.raises(MlmaError, match=r"shards of \[2, 3\]"):
        read_sentences(path)


def test_each_recording_is_in_exactly_one_shard():
    shards = [Shard.parse(f"{i}/3") for i in (1, 2, 3)]
    for number in range(50):
        assert sum(shard.contains(f"recording {number}") for shard in shards) == 1
    for text in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(ValueError):
            Shard.parse(text)
