from pathlib import Path

import pytest
from omniio import kaldi

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data import tables
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.data.speed_perturb import perturb
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError


def test_copies_have_their_own_ids_and_speakers(make_data, tmp_path: Path) -> None:
    data, out = make_data(2), tmp_path / "data" / "train_sp"
    assert perturb(data, out, [0.9, 1.0, 1.1]) == 6
    speakers = tables.read(out / "utt2spk", "")
    assert list(speakers) == sorted(speakers)
    assert speakers["sp0.9-mini_en_s0-0000"] == "sp0.9-mini_en_s0"
    assert speakers["mini_en_s0-0000"] == "mini_en_s0"
    texts = tables.read(out / "text", "")
    assert texts["sp1.1-mini_en_s1-0001"] == texts["mini_en_s1-0001"]
    assert set(tables.read(out / "utt2lang", "").values()) == {"en"}


def test_stage_3_changes_the_length_by_the_factor(make_data, tmp_path: Path) -> None:
    data, out = make_data(1, seconds=2.0), tmp_path / "data" / "train_sp"
    perturb(data, out, [0.8, 1.0, 1.25])
    format_folder(out, tmp_path / "dump", nj=1)
    samples = tables.read(tmp_path / "dump" / "utt2num_samples", "")
    assert samples == {
        "mini_en_s0-0000": "32000",
        "sp0.8-mini_en_s0-0000": "40000",
        "sp1.25-mini_en_s0-0000": "25600",
    }


def test_spans_keep_the_times_of_their_recording(make_data, tmp_path: Path) -> None:
    sound = tables.read(make_data(1, seconds=4.0) / "wav.scp", "")
    path = Path(next(iter(sound.values())))
    spans = [
        Utterance(f"vp_en_a-{n}", AudioFile(path), "good day", "vp_en_a", "en", n, n + 1, "session")
        for n in range(2)
    ]
    data, out = tmp_path / "data" / "spans", tmp_path / "data" / "spans_sp"
    write_set(data, spans, nj=1)
    perturb(data, out, [0.5, 1.0])
    assert list(tables.read(out / "wav.scp", "")) == ["session"]
    format_folder(out, tmp_path / "dump", nj=1)
    scp = tables.read(tmp_path / "dump" / "wav.scp", "")
    assert {id_: len(kaldi.load_mat(where)[1]) for id_, where in scp.items()} == {
        "sp0.5-vp_en_a-0": 32000,
        "sp0.5-vp_en_a-1": 32000,
        "vp_en_a-0": 16000,
        "vp_en_a-1": 16000,
    }


@pytest.mark.parametrize(
    ("factors", "problem"), [([], r"\[\]"), ([1.0, 1.0], "duplicates"), ([9.0], "9.0")]
)
def test_invalid_factors_are_errors(make_data, tmp_path, factors, problem) -> None:
    with pytest.raises(MlmaError, match=problem):
        perturb(make_data(1), tmp_path / "sp", factors)
    assert not (tmp_path / "sp").exists()
