import html
import json
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from praatio import textgrid

from espnet_mlma.decode import formats
from espnet_mlma.decode.formats import FORMATS, Source, cues
from espnet_mlma.decode.transcript import Token, Transcript, Word
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import write

SOURCE = Source("calls/monday talk.mp3", "exp/asr_mini")
SCHEMA = Path(formats.__file__).with_name("transcript.schema.json")
CLOCK = r"(\d\d):(\d\d):(\d\d)[,.](\d\d\d)"


def transcript(words, duration=None, tokens=()):
    """Make a transcript from rows (text, start, end)."""
    words = tuple(Word(text, start, end, 0.75) for text, start, end in words)
    duration = duration or (words[-1].end if words else 1.0)
    return Transcript(" ".join(w.text for w in words), words, "it", -3.25, duration, tokens)


def regular_words(texts, each=0.3, gap=0.0):
    """Make words of equal lengths and gaps."""
    step = each + gap
    return transcript([(text, i * step, i * step + each) for i, text in enumerate(texts)])


@st.composite
def transcripts(draw):
    """Draw words as a recogniser returns them, and worse ones: empty, overlapping, very long."""
    rows, now = [], draw(st.floats(0, 5))
    for text in draw(st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1))):
        now += draw(st.floats(-0.05, 2))
        now = max(now, 0)
        rows.append((text, now, now + draw(st.sampled_from([0.0, 0.0004, 0.2, 1.0, 9.0]))))
    tokens = tuple(Token(3, text, start, end, -0.5) for text, start, end in rows)
    return transcript(rows, tokens=tokens)


TALK = transcript(
    [("buongiorno", 0.2, 0.9), ("a", 1.0, 1.1), ("tutti", 1.1, 1.5), ("R&D", 2.6, 3.0)],
    duration=3.5,
    tokens=(Token(3, "b", 0.2, 0.3, -0.1), Token(4, '"', 0.3, 0.4, -0.1)),
)


def test_srt():
    assert FORMATS["srt"].render(TALK, SOURCE) == (
        "1\n00:00:00,200 --> 00:00:01,500\nbuongiorno a tutti\n\n"
        "2\n00:00:02,600 --> 00:00:03,500\nR&D\n\n"
    )


def test_ctm_and_tsv():
    assert FORMATS["txt"].render(TALK, SOURCE) == "buongiorno a tutti R&D\n"
    assert FORMATS["tsv"].render(TALK, SOURCE) == (
        "start\tend\ttext\n200\t1500\tbuongiorno a tutti\n2600\t3500\tR&D\n"
    )
    assert FORMATS["ctm"].render(TALK, SOURCE).splitlines()[:2] == [
        "monday_talk 1 0.200 0.700 buongiorno 0.7500",
        "monday_talk 1 1.000 0.100 a 0.7500",
    ]


def test_vtt_escapes_markup():
    drawn = transcript([("a<b>", 0, 1), ("-->", 1, 2), ("&amp;", 2, 3)])
    assert FORMATS["vtt"].render(drawn, SOURCE) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:03.000\na&lt;b&gt; --&gt; &amp;amp;\n\n"
    )


def test_times_beyond_an_hour():
    late = transcript([("ora", 3 * 3600 + 62.5, 3 * 3600 + 63.75)])
    assert "03:01:02,500 --> 03:01:03,750" in FORMATS["srt"].render(late, SOURCE)


@given(transcripts())
def test_cues_have_all_words_in_order_without_overlap(drawn):
    found = cues(drawn)
    assert " ".join(" ".join(cue.lines) for cue in found) == drawn.text
    for cue in found:
        assert 0 < cue.end - cue.start <= 7000
        assert len(cue.lines) <= 2
    for one, next_one in zip(found, found[1:], strict=False):
        assert one.end <= next_one.start


@given(st.lists(st.text("abcd", min_size=1, max_size=40), min_size=1), st.floats(0.05, 2))
def test_lines_and_cues_are_short(texts, each):
    for cue in cues(regular_words(texts, each)):
        assert all(len(line) <= 42 for line in cue.lines)
        assert cue.end - cue.start <= 7000


def test_a_pause_ends_a_cue():
    assert len(cues(transcript([("uno", 0, 1), ("due", 1.59, 2)]))) == 1
    assert len(cues(transcript([("uno", 0, 1), ("due", 1.6, 2)]))) == 2


def test_without_a_pause_a_cue_ends_at_the_longest_gap_in_its_second_half():
    rows, now = [], 0.0
    for i in range(30):
        now += {3: 0.5, 8: 0.3}.get(i, 0.02)  # before the fourth word, before the ninth
        rows.append(("parola", now, now + 0.2))
        now += 0.2
    assert len(" ".join(cues(transcript(rows))[0].lines).split()) == 8


def test_two_lines_have_similar_lengths():
    (cue,) = cues(regular_words(["word"] * 10, each=0.2))
    assert cue.lines == ("word word word word word", "word word word word word")


def test_a_short_cue_is_extended_to_a_second():
    found = cues(transcript([("no", 0, 0.2), ("sì", 0.85, 1.0), ("no", 3, 3.1)], duration=9))
    assert [(cue.start, cue.end) for cue in found] == [(0, 850), (850, 1850), (3000, 4000)]


@given(transcripts())
def test_subtitles_read_back(drawn):
    for name in ("srt", "vtt"):
        blocks = FORMATS[name].render(drawn, SOURCE).split("\n\n")
        assert blocks.pop() == ""
        if name == "vtt":
            assert blocks.pop(0) == "WEBVTT"
        read = []
        for number, block in enumerate(blocks, start=1):
            if name == "srt":
                first, block = block.split("\n", 1)
                assert first == str(number)
            clocks, *lines = block.split("\n")
            times = [int(n) for n in re.fullmatch(f"{CLOCK} --> {CLOCK}", clocks).groups()]
            start, end = (
                ((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (times[:4], times[4:])
            )
            if name == "vtt":
                assert not re.search("[<>]", "".join(lines))
                lines = [html.unescape(line) for line in lines]
            read.append((start, end, tuple(lines)))
        assert read == [(cue.start, cue.end, cue.lines) for cue in cues(drawn)]


@given(transcripts())
def test_ctm_has_six_columns(drawn):
    rows = [line.split(" ") for line in FORMATS["ctm"].render(drawn, SOURCE).splitlines()]
    assert [row[4] for row in rows] == [word.text for word in drawn.words]
    for row, word in zip(rows, drawn.words, strict=True):
        assert row[:2] == ["monday_talk", "1"]
        assert float(row[2]) == pytest.approx(word.start, abs=1e-3)
        assert float(row[2]) + float(row[3]) == pytest.approx(word.end, abs=1e-3)


@given(transcripts())
def test_json_is_valid_by_its_schema(drawn):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    content = json.loads(FORMATS["json"].render(drawn, SOURCE))
    jsonschema.validate(content, schema)
    assert content["schema"] == schema["properties"]["schema"]["const"] == formats.SCHEMA
    assert (content["file"], content["model"]) == (SOURCE.file, SOURCE.model)
    assert [word["text"] for word in content["words"]] == [word.text for word in drawn.words]
    assert " ".join(segment["text"] for segment in content["segments"]) == drawn.text


def read_textgrid(drawn, folder):
    file = folder / "talk.TextGrid"
    write(file, FORMATS["textgrid"].render(drawn, SOURCE))
    return textgrid.openTextgrid(str(file), includeEmptyIntervals=True)


def test_praat_reads_words_tokens_and_silence(tmp_path):
    grid = read_textgrid(TALK, tmp_path)
    assert grid.tierNames == ("words", "tokens")
    assert [tuple(interval) for interval in grid.getTier("words").entries] == [
        (0.0, 0.2, ""),
        (0.2, 0.9, "buongiorno"),
        (0.9, 1.0, ""),
        (1.0, 1.1, "a"),
        (1.1, 1.5, "tutti"),
        (1.5, 2.6, ""),
        (2.6, 3.0, "R&D"),
        (3.0, 3.5, ""),
    ]
    assert [i.label for i in grid.getTier("tokens").entries] == ["", "b", '"', ""]


def test_silence_is_one_empty_interval(tmp_path):
    grid = read_textgrid(transcript([], duration=2.0), tmp_path)
    assert [tuple(interval) for interval in grid.getTier("words").entries] == [(0.0, 2.0, "")]


@given(drawn=transcripts())
def test_tiers_have_no_gap_and_no_empty_interval(drawn, tmp_path_factory):
    grid = read_textgrid(drawn, tmp_path_factory.mktemp("grid"))
    for name in grid.tierNames:
        intervals = grid.getTier(name).entries
        assert [i.label for i in intervals if i.label] == [word.text for word in drawn.words]
        assert intervals[0].start == 0
        assert intervals[-1].end >= drawn.duration - 0.001
        for one, next_one in zip(intervals, intervals[1:], strict=False):
            assert one.start < one.end == next_one.start


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(MlmaError, match=r"cannot write .*taken/talk\.srt: .*another place"):
        write(tmp_path / "taken" / "talk.srt", "1\n")
