import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from espnet_mlma.errors import MlmaError  # noqa: E402
from espnet_mlma.sst.config import DialogueConfig, TrainingConfig  # noqa: E402
from espnet_mlma.sst.data.records import Part, Segment, line_of  # noqa: E402
from espnet_mlma.sst.grid import CHUNK_SAMPLES, CHUNK_VECTORS  # noqa: E402
from espnet_mlma.sst.llm.dialogue import NO_TARGET, Dialogue  # noqa: E402
from espnet_mlma.sst.train.dataset import Batches, dialogues, read_all, sound_of  # noqa: E402

WORDS = ["", "", " Guten", " Morgen, meine", " Damen und Herren, das ist ein"]
CONFIG = TrainingConfig(batch_tokens=1500, batch_segments=5, seed=3)


def segment(name, chunks, rng=None, parts=()):
    rng = rng or np.random.default_rng(0)
    turns = tuple(str(rng.choice(WORDS)) for _ in range(chunks))
    return Segment(str(name), tuple(parts), chunks, turns, "en", "de")


@pytest.fixture(scope="module")
def segments():
    rng = np.random.default_rng(1)
    return [segment(n, int(rng.integers(3, 31)), rng) for n in range(400)]


@pytest.fixture
def batches(segments, chatml_tokenizer):
    def made(config=CONFIG, of=segments):
        return Batches(of, dialogues(lambda multiplier: Dialogue(chatml_tokenizer)), config)

    return made


@pytest.fixture
def sound(tmp_path):
    """Return a function that writes a constant signal as a sound file."""

    def made(name, value, seconds, rate, channels=1):
        path = tmp_path / name
        soundfile.write(path, np.full((round(seconds * rate), channels), value), rate)
        return str(path)

    return made


def message(action, *arguments):
    with pytest.raises(MlmaError) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parts_are_mixed_at_their_offsets(sound):
    """Files have any format and rate; the rest is silent and padded to whole turns."""
    parts = [
        Part(sound("a.wav", 0.25, 3.0, 8000), 1.0, 2.0, 0.5),
        Part(sound("b.flac", 0.5, 1.0, 44100, channels=2), 0.0, 0.5, 2.0),
    ]
    samples = sound_of(segment("s", 4, parts=parts), 3)
    assert samples.dtype == np.float32
    assert len(samples) == 6 * CHUNK_SAMPLES
    expected = np.zeros(len(samples))
    expected[8000:24000] = 0.25
    expected[32000:40000] = 0.5
    # Resampling rings at the edges.
    edges = [8000, 24000, 32000, 40000]
    inside = np.min([np.abs(np.arange(len(samples)) - edge) for edge in edges], axis=0) > 200
    np.testing.assert_allclose(samples[inside], expected[inside], atol=2e-3)
    assert np.abs(samples - expected).max() < 0.3


def test_part_may_end_slightly_after_its_segment(sound):
    part = Part(sound("a.wav", 0.25, 2.0, 16000), 0.0, 1.96, 0.0)
    samples = sound_of(segment("s", 2, parts=[part]), 1)
    assert len(samples) == 2 * CHUNK_SAMPLES
    assert (samples == 0.25).all()


@pytest.mark.parametrize(
    ("start", "end", "at", "expected"),
    [(0.0, 3.0, 0.0, "ends 1.0 s before 3.0 s"), (0.0, 2.0, 1.0, "beyond its 2.88 s")],
)
def test_errors_name_the_segment(sound, start, end, at, expected):
    part = Part(sound("a.wav", 0.25, 2.0, 16000), start, end, at)
    text = message(sound_of, segment("of talk 7", 3, parts=[part]))
    assert "segment 'of talk 7'" in text
    assert expected in text


@pytest.mark.parametrize("content", [None, b"", b"RIFF, but not whole"])
def test_missing_or_damaged_audio_names_the_segment(batches, tmp_path, content):
    file = tmp_path / "a.wav"
    if content is not None:
        file.write_bytes(content)
    lost = segment("lost", 3, parts=[Part(str(file), 0.0, 1.0, 0.0)])
    loaded = batches(of=[lost])
    text = message(list, loaded.load(loaded.plan(0)))
    assert "segment 'lost'" in text
    assert "a.wav" in text


@pytest.mark.parametrize("per", ["segment", "batch"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_each_segment_is_in_one_batch_of_limited_size(batches, segments, per, epoch):
    made = batches(replace(CONFIG, multiplier_per=per))
    plan = made.plan(epoch)
    assert [planned.number for planned in plan] == list(range(len(plan)))
    seen = Counter(index for planned in plan for index in planned.segments)
    assert seen == Counter(range(len(segments)))
    sizes = []
    for planned in plan:
        of = [made.example(segments[index], planned.multiplier) for index in planned.segments]
        sizes.append(len(of) * max(len(example.ids) for example in of))
        assert len(of) <= CONFIG.batch_segments
    assert max(sizes) <= CONFIG.batch_tokens
    assert max(sizes) > 0.95 * CONFIG.batch_tokens
    assert len(plan) < len(segments) / 2


@pytest.mark.parametrize("per", ["segment", "batch"])
def test_multipliers_are_uniform(batches, segments, per):
    plan = batches(replace(CONFIG, multiplier_per=per)).plan(0)
    units = [p.multiplier for p in plan for _ in (p.segments if per == "segment" else [0])]
    counts = Counter(units)
    assert sorted(counts) == list(range(1, 13))
    expected = len(units) / 12
    # Chi-squared with 11 degrees of freedom exceeds 31 once in a thousand draws.
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 31


def test_plan_depends_on_seed_and_epoch(batches):
    assert batches().plan(2) == batches().plan(2)
    assert batches().plan(2) != batches().plan(3)
    assert batches().plan(2) != batches(replace(CONFIG, seed=4)).plan(2)


def test_batches_have_little_padding(batches, segments):
    made = batches()
    padding = real = 0
    for planned in made.plan(0):
        of = [len(made.example(segments[i], planned.multiplier).ids) for i in planned.segments]
        real += sum(of)
        padding += len(of) * max(of) - sum(of)
    assert padding < 0.15 * real


def test_segment_larger_than_a_batch_is_refused(batches):
    made = batches(replace(CONFIG, batch_tokens=200), [segment("long", 30)])
    text = message(made.plan, 0)
    assert "segment 'long'" in text
    assert "batch_tokens is 200" in text


def test_batch_contains_its_segments(batches, sound):
    path = sound("a.wav", 0.25, 3.0, 16000)
    of = [segment(n, n, parts=[Part(path, 0.0, 1.0, 0.1 * n)]) for n in (3, 5, 4, 7, 2)]
    made = batches(replace(CONFIG, largest_multiplier=3, read_ahead=2), of)
    plan = made.plan(0)
    loaded = list(made.load(plan))
    assert len(loaded) == len(plan)
    for planned, batch in zip(plan, loaded, strict=True):
        multiplier = planned.multiplier
        longest = max(-(-of[index].chunks // multiplier) for index in planned.segments)
        assert batch.multiplier == multiplier
        assert batch.speech.shape[1] == longest * multiplier * CHUNK_SAMPLES
        for row, index in enumerate(planned.segments):
            example = made.example(of[index], multiplier)
            size = len(example.ids)
            assert torch.equal(batch.tokens.ids[row, :size], example.ids)
            assert torch.equal(batch.tokens.is_speech[row, :size], example.is_speech)
            assert torch.equal(batch.tokens.labels[row, :size], example.labels)
            assert (batch.tokens.labels[row, size:] == NO_TARGET).all()
            assert not batch.tokens.is_speech[row, size:].any()
            samples = torch.from_numpy(sound_of(of[index], multiplier))
            assert torch.equal(batch.speech[row, : len(samples)], samples)
            assert not batch.speech[row, len(samples) :].any()
            assert example.is_speech.sum() == len(samples) // CHUNK_SAMPLES * CHUNK_VECTORS


def test_read_all_checks_ids_and_languages(tmp_path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(line_of(segment("a", 3)) + line_of(segment("b", 4)))
    two.write_text(line_of(segment("c", 5)))
    dialogue = DialogueConfig()
    assert [s.id for s in read_all([one, two], dialogue)] == ["a", "b", "c"]
    assert "'a' is in another file" in message(read_all, [one, one], dialogue)
    assert "'a' is en-de" in message(read_all, [one], DialogueConfig(target="zh"))
    two.write_text("")
    assert "no segments" in message(read_all, [two], dialogue)


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2] + "\n",
        lambda line: line.replace('"chunks": 3', '"chunks": 4'),
        lambda line: json.dumps({"id": "a"}) + "\n",
        lambda line: "[]\n",
        lambda line: "__import__('os').abort()\n",
    ],
)
def test_damaged_record_names_file_and_line(tmp_path, damage):
    file = tmp_path / "one.jsonl"
    file.write_text(line_of(segment("z", 3)) + damage(line_of(segment("a", 3))))
    assert f"{file}:2: damaged" in message(read_all, [file], DialogueConfig())
