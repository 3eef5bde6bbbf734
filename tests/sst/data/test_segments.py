"""Tests of cutting recordings and joining utterances to segments."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data.records import Sentence
from espnet_mlma.sst.data.segments import build, reason_to_drop
from espnet_mlma.sst.data.trajectory import chunk_at, chunks_up_to
from espnet_mlma.sst.grid import CHUNK_SECONDS

CLOSE = 2e-4  # seconds; twice the resolution of times in records
# A word is in the transcript if it ends at most a millisecond after the audible span.
LATE = 1e-3 + CLOSE


def sentence(number, recording, start, seconds, *, session=False, dropped=None, target="de"):
    """Make a sentence with unique words and one piece per word."""
    count = max(1, int(seconds / 0.4))
    ends = [start + seconds * (i + 1) / count for i in range(count)]
    words = tuple((f"s{number}w{i}", end - seconds / count, end) for i, end in enumerate(ends))
    pieces = tuple((" " if i else "") + f"t{number}.{i}" for i in range(count))
    return Sentence(
        id=f"{recording}-{number:04d}" if recording else f"single-{number:04d}",
        recording=recording or f"single-{number:04d}",
        audio="session.ogg" if session else f"{recording}{number}.flac",
        offset=start if session else 0.0,
        start=start,
        end=start + seconds,
        speaker="s",
        text=" ".join(word for word, _, _ in words),
        target=target,
        translation="".join(pieces),
        words=words,
        pieces=pieces,
        pairs=tuple((i, i) for i in range(count)),
        dropped=dropped,
    )


@st.composite
def recordings(draw):
    """Draw a session with pauses or a chapter without; some sentences are dropped."""
    session = draw(st.booleans())
    clock = draw(st.floats(0, 5)) if session else 0.0
    found = []
    for number in range(draw(st.integers(1, 14))):
        seconds = draw(st.floats(0.3, 31))
        dropped = "low_score" if draw(st.integers(0, 7)) == 0 else None
        found.append(sentence(number, "r", clock, seconds, session=session, dropped=dropped))
        pause = draw(st.floats(-0.2, 70)) if session and draw(st.booleans()) else 0.0
        clock += max(0.1, seconds + pause)
    return found


def segments_of(sentences):
    return build(sentences, random.Random(0))


def emitted(segment):
    return "".join(segment.turns).split()


def moments(segment, one, time):
    """Return the times in a segment, seconds, of a time in a sentence's recording."""
    in_file = time - one.start + one.offset
    return [
        part.at + in_file - part.start
        for part in segment.parts
        if part.audio == one.audio and part.start < in_file <= part.end + LATE
    ]


@given(recordings())
def test_each_used_translation_is_complete_in_exactly_one_segment(sentences):
    found = segments_of(sentences)
    assert len({segment.id for segment in found}) == len(found)
    texts = [f" {' '.join(emitted(segment))} " for segment in found]
    for one in sentences:
        whole = sum(f" {one.translation} " in text for text in texts)
        assert whole == (1 if reason_to_drop(one) is None else 0)
    for segment in found:
        words = emitted(segment)
        assert len(words) == len(set(words))


@given(recordings())
@example(
    [
        sentence(0, "r", 175.83110353343153, 1.5, session=True),
        sentence(1, "r", 181.36294205825936, 22.3, session=True),
        sentence(
            2, "r", 203.66294205825938, 6.953125, session=True
        ),  # its second word ends after the cut
    ]
)
def test_transcript_matches_the_audio(sentences):
    times = {word: (one, end) for one in sentences for word, _, end in one.words}
    found = segments_of(sentences)
    texts = [f" {segment.heard} " for segment in found]
    for one in sentences:
        whole = sum(f" {one.text} " in text for text in texts)
        assert whole == (1 if reason_to_drop(one) is None else 0)
    for segment in found:
        heard = segment.heard.split()
        assert len(heard) == len(set(heard))
        assert all(len(moments(segment, *times[word])) == 1 for word in heard)


@given(recordings())
def test_turns_are_in_order_and_after_their_words(sentences):
    by_number = {s.id.rpartition("-")[2].lstrip("0") or "0": s for s in sentences}
    for segment in segments_of(sentences):
        assert 1 <= segment.chunks == len(segment.turns) <= 30
        positions = []
        for turn, text in enumerate(segment.turns):
            for piece in text.split():
                number, _, index = piece[1:].partition(".")
                one = by_number[number]
                positions.append((list(by_number).index(number), int(index)))
                # The word is audible and ends before its turn does.
                end = one.words[int(index)][2]
                heard = moments(segment, one, end)
                assert len(heard) == 1
                assert heard[0] <= (turn + 1) * CHUNK_SECONDS + LATE
        assert positions == sorted(positions)


@given(recordings())
def test_parts_do_not_overlap_and_contain_no_dropped_sentence(sentences):
    for segment in segments_of(sentences):
        clock = 0.0
        for part in segment.parts:
            assert part.at >= clock - CLOSE
            clock = part.at + part.end - part.start
        assert clock <= segment.chunks * CHUNK_SECONDS + CLOSE
        for one in sentences:
            if reason_to_drop(one) is None:
                continue
            middle = one.offset + (one.end - one.start) / 2
            overlapped = any(
                other is not one and other.start < one.start + middle - one.offset < other.end
                for other in sentences
            )
            parts = [part for part in segment.parts if part.audio == one.audio]
            if not overlapped:
                assert not any(part.start < middle < part.end for part in parts)


def test_cut_utterance_starts_the_next_segment():
    lengths = [10.0, 10.0, 12.0, 5.0]
    starts = [0.0, 10.0, 20.0, 32.0]
    rows = [sentence(i, "r", s, n) for i, (s, n) in enumerate(zip(starts, lengths, strict=True))]
    first, second = segments_of(rows)
    assert first.chunks == 30
    assert [part.audio for part in first.parts] == ["r0.flac", "r1.flac", "r2.flac"]
    assert first.parts[2].end == pytest.approx(28.8 - 20)
    # The third utterance starts in chunk 20, at 19.2 s; audio before it is silent.
    assert second.chunks == chunks_up_to(37.0) - 20
    assert second.parts[0].audio == "r2.flac"
    assert second.parts[0].at == pytest.approx(0.8)
    assert second.parts[0].start == 0.0


def test_dropped_sentence_separates_segments():
    rows = [
        sentence(0, "r", 1.0, 5.0, session=True),
        sentence(1, "r", 7.0, 2.0, session=True, dropped="no_pairs"),
        sentence(2, "r", 9.1, 3.0, session=True),
    ]
    first, second = segments_of(rows)
    (heard,) = first.parts
    # From the start of its chunk to the dropped sentence, pauses included.
    assert (heard.start, heard.end, heard.at) == pytest.approx((0.96, 7.0, 0.0))
    assert first.chunks == chunks_up_to(7.0) - 1
    (heard,) = second.parts
    assert chunk_at(9.1) == 9
    assert (heard.start, heard.end, heard.at) == pytest.approx((9.0, 12.1, 9.0 - 9 * 0.96))


def test_sentence_longer_than_a_segment_is_dropped():
    assert reason_to_drop(sentence(0, "r", 0.0, 28.8)) is None
    assert reason_to_drop(sentence(0, "r", 0.0, 28.9)) == "longer_than_segment"
    assert reason_to_drop(sentence(0, "r", 0.5, 28.7)) == "longer_than_segment"  # 31 chunks
    with pytest.raises(MlmaError, match="run the stage align first"):
        reason_to_drop(replace(sentence(0, "r", 0.0, 1.0), pairs=None))


def test_long_pause_is_in_no_segment():
    rows = [sentence(i, "r", s, 2.0, session=True) for i, s in enumerate((0.0, 40.0, 500.0))]
    found = segments_of(rows)
    assert [segment.chunks for segment in found] == [30, 30, 2 + 1]
    assert found[1].parts[0].start == pytest.approx(28.8)
    assert found[2].parts[0].start == pytest.approx(chunk_at(500.0) * 0.96)


def test_segment_without_a_complete_word_has_an_empty_transcript():
    """The second segment starts in the pause and contains the start of a word."""
    late = sentence(1, "r", 57.3, 2.0, session=True)
    late = replace(late, words=(("late", 57.3, 57.7), *late.words[1:]))
    found = segments_of([sentence(0, "r", 0.0, 10.0, session=True), late])
    assert [segment.heard == "" for segment in found] == [False, True, False]


@given(st.lists(st.floats(0.3, 29), max_size=25), st.integers(0, 5))
def test_each_single_utterance_is_joined_once(lengths, seed):
    rows = [sentence(i, None, 0.0, seconds) for i, seconds in enumerate(lengths)]
    found = build(rows, random.Random(seed))
    words = Counter(word for segment in found for word in emitted(segment))
    expected = [w for s in rows if not reason_to_drop(s) for w in s.translation.split()]
    assert words == Counter(expected)
    for segment in found:
        assert segment.chunks == 30
        clock = 0.0
        for part in segment.parts:
            assert part.at >= clock - CLOSE
            clock = part.at + part.end - part.start
        assert clock <= 28.8 + CLOSE
    assert found == build(rows, random.Random(seed))


def test_joined_utterances_are_shuffled_with_silences_in_range():
    rows = [sentence(i, None, 0.0, 1.0) for i in range(40)]
    found = build(rows, random.Random(1), silence=(0.5, 1.0))
    order = [part.audio for segment in found for part in segment.parts]
    assert order != sorted(order)
    pauses = []
    for segment in found:
        ends = [0.0, *(part.at + part.end - part.start for part in segment.parts)]
        pauses += [part.at - end for part, end in zip(segment.parts, ends, strict=False)]
    assert 0.5 - CLOSE <= min(pauses) < max(pauses) <= 1.0 + CLOSE


def test_translations_of_overlapping_speakers_follow_each_other():
    rows = [
        sentence(0, "r", 0.0, 10.0, session=True),
        sentence(1, "r", 5.0, 4.0, session=True),
    ]
    (segment,) = segments_of(rows)
    assert "".join(segment.turns) == f"{rows[0].translation} {rows[1].translation}"


def test_chinese_sentences_are_joined_without_spaces():
    rows = [
        replace(
            sentence(i, "r", 2.0 * i, 2.0, target="zh"),
            translation="你好",
            pieces=("你", "好"),
            pairs=((0, 0),),
        )
        for i in range(2)
    ]
    (segment,) = segments_of(rows)
    assert "".join(segment.turns) == "你好你好"
