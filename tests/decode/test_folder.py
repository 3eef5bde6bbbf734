"""Decoding configurations, and data folders from stage 3."""

from pathlib import Path

import pytest

import espnet_mlma
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.decode import Decoding
from espnet_mlma.decode.folder import decode_folder, read_options
from espnet_mlma.errors import MlmaError


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("hotwords: Trento", "hotwords is 'Trento'; give a list of words"),
        ("hotwords:", "hotwords is None; give a list of words"),
        ('beam_size: "10"', "beam_size is '10'; give a whole number"),
        ("lm_weight: yes", "lm_weight is True; give a number"),
        ("lm: 3", "lm is 3; give a file"),
    ],
)
def test_decoding_options_of_the_wrong_type_are_refused(tmp_path, option, message):
    config = tmp_path / "decode.yaml"
    config.write_text(f"batch_seconds: 60\n{option}\n")
    with pytest.raises(MlmaError, match=rf"decode\.yaml: {message}"):
        read_options(config)


def test_decoding_takes_lists_of_hotwords(tmp_path):
    config = tmp_path / "decode.yaml"
    config.write_text("batch_seconds: 60\nhotwords: [Trento]\nbeam_size: 4\nlm_weight: 1\n")
    assert read_options(config) == (60, Decoding(beam_size=4, lm_weight=1, hotwords=("Trento",)))
    with pytest.raises(MlmaError, match="hotwords is the text 'Trento'; give a list"):
        Decoding(hotwords="Trento")


@pytest.fixture(scope="module")
def recogniser(experiment):
    return espnet_mlma.load(experiment, device="cpu")


@pytest.fixture
def folder(make_data, tmp_path: Path) -> Path:
    """Write a set of four utterances into an archive."""
    format_folder(make_data(4), tmp_path / "dump", nj=1)
    return tmp_path / "dump"


def test_a_folder_is_decoded_whole(recogniser, folder):
    found, skipped = decode_folder(recogniser, folder, batch_seconds=2.5)
    assert len(found) == 4
    assert all(transcript.duration == 1 for transcript in found.values())
    assert skipped == {}


@pytest.mark.parametrize("left", [0.9, 0.5, 0.3])
def test_sounds_beyond_the_end_of_a_cut_archive_are_skipped(recogniser, folder, left, capsys):
    ark = folder / "data" / "shard.00001.ark"
    content = ark.read_bytes()
    ark.write_bytes(content[: int(left * len(content))])
    found, skipped = decode_folder(recogniser, folder, batch_seconds=60)
    assert len(found) == int(left * 4)
    assert len(found) + len(skipped) == 4
    assert "no whole sound" in skipped["mini_en_s1-0003"]
    printed = capsys.readouterr().out
    assert f"skipped {len(skipped)} of 4 utterances" in printed
    assert "  mini_en_s1-0003: " in printed


@pytest.mark.parametrize("damage", [lambda ark: ark.unlink(), lambda ark: ark.write_bytes(b"x")])
def test_a_set_without_any_sound_is_an_error(recogniser, folder, damage):
    damage(folder / "data" / "shard.00001.ark")
    with pytest.raises(MlmaError, match=r"dump: no sound can be read; .*; run stage 3 again"):
        decode_folder(recogniser, folder, batch_seconds=60)


@pytest.mark.parametrize(
    ("table", "change", "reason"),
    [
        ("utt2num_samples", lambda lines: [lines[0] + "0", *lines[1:]], "16000 of 160000 samples"),
        ("wav.scp", lambda lines: ["mini_en_s0-0000 gone.ark:7", *lines[1:]], "no whole sound"),
        ("wav.scp", lambda lines: ["mini_en_s0-0000 wav.scp:7", *lines[1:]], "no whole sound"),
    ],
)
def test_a_sound_that_contradicts_a_table_is_skipped(recogniser, folder, table, change, reason):
    lines = (folder / table).read_text().splitlines()
    (folder / table).write_text("\n".join(change(lines)) + "\n")
    found, skipped = decode_folder(recogniser, folder, batch_seconds=60)
    assert len(found) == 3
    assert reason in skipped["mini_en_s0-0000"]


def test_a_table_without_an_utterance_is_named(recogniser, folder):
    lines = (folder / "utt2num_samples").read_text().splitlines()
    (folder / "utt2num_samples").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(MlmaError, match="no number of samples of mini_en_s0-0000"):
        decode_folder(recogniser, folder, batch_seconds=60)
