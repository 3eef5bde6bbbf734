"""Corpora in the layouts of the Hugging Face hub, made of real clips."""

import shutil
from pathlib import Path

import hub
import numpy as np
import pytest
import soundfile
from omniio import kaldi
from pyarrow.parquet import ParquetFile

from espnet_mlma.audio import SAMPLE_RATE, probe, read_audio
from espnet_mlma.audio.archives import iter_archive
from espnet_mlma.cli import main as mlma
from espnet_mlma.data import tables
from espnet_mlma.data.corpora import fleurs, mls, voxpopuli
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.errors import MlmaError

CLIPS = 7  # of each split
MIXTURE = """
small:
  train:
    - mls it train
    - voxpopuli it train
  valid:
    - mls it dev
    - voxpopuli it dev
  test:
    - fleurs it test
"""


def seconds_of(utterances: list[Utterance]) -> list[float]:
    return [len(read_audio(sound)) / SAMPLE_RATE for sound in map(opened, utterances)]


def opened(utterance: Utterance):
    audio = utterance.audio
    if audio.member is None:
        return audio.path
    return next(iter_archive(audio.path, [audio.member]))[1]


@pytest.fixture(scope="module")
def published(shared_corpora: Path, tmp_path_factory) -> Path:
    """A few Italian clips in the published layouts; VoxPopuli as its own script cuts it."""
    root = tmp_path_factory.mktemp("published")
    source, folder = shared_corpora / "fleurs/data/it_it", root / "fleurs/data/it_it"
    (folder / "audio").mkdir(parents=True)
    shutil.copy(source / "audio/test.tar.gz", folder / "audio")
    copy_lines(source / "test.tsv", folder / "test.tsv")
    for split in ("train", "dev"):
        source, folder = (base / f"mls/mls_italian_opus/{split}" for base in (shared_corpora, root))
        folder.mkdir(parents=True)
        (folder / "audio").symlink_to(source / "audio")
        copy_lines(source / "transcripts.txt", folder / "transcripts.txt")
        cut_voxpopuli(shared_corpora / "voxpopuli", root / "voxpopuli", split)
    return root


def copy_lines(table: Path, new: Path) -> None:
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    new.write_text("".join(lines[:CLIPS]), encoding="utf-8")


def cut_voxpopuli(corpus: Path, root: Path, split: str) -> None:
    rows = ["id\tnormalized_text\tspeaker_id\tsplit"]
    folder = root / "transcribed_data/it"
    for utterance in list(voxpopuli.prepare(corpus, "it", split))[:CLIPS]:
        name, speaker = utterance.id.partition("-")[2], utterance.speaker.rpartition("_")[2]
        (folder / name[:4]).mkdir(parents=True, exist_ok=True)
        sound = read_audio(utterance.audio.path, utterance.start, utterance.end)
        soundfile.write(folder / name[:4] / f"{name}.ogg", sound, SAMPLE_RATE)
        rows.append(f"{name}\t{utterance.text}\t{speaker}\t{split}")
    (folder / f"asr_{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def on_hub(published: Path, tmp_path_factory) -> Path:
    """The same clips as Parquet files, each split in two files of several row groups."""
    root = tmp_path_factory.mktemp("hub")
    clips = list(fleurs.prepare(published / "fleurs", "it", "test"))
    rows = hub.fleurs_rows(clips, seconds_of(clips))
    hub.write_files(root / "fleurs/it_it/test", hub.FLEURS, rows)
    for split, name in (("train", "train"), ("dev", "validation")):
        clips = list(mls.prepare(published / "mls", "it", split))
        rows = hub.mls_rows(clips, seconds_of(clips))
        hub.write_named(root / "mls/italian", split, hub.MLS, rows)
        rows = hub.voxpopuli_rows(voxpopuli.prepare(published / "voxpopuli", "it", split))
        hub.write_files(root / f"voxpopuli/it/{name}", hub.VOXPOPULI, rows)
    return root


SPLITS = [
    (fleurs, "fleurs", "test"),
    (mls, "mls", "train"),
    (mls, "mls", "dev"),
    (voxpopuli, "voxpopuli", "train"),
    (voxpopuli, "voxpopuli", "dev"),
]
splits = pytest.mark.parametrize(("reader", "corpus", "split"), SPLITS)


@splits
def test_a_clip_is_the_same_in_both_layouts(published, on_hub, reader, corpus, split) -> None:
    expected = list(reader.prepare(published / corpus, "it", split))
    found = list(reader.prepare(on_hub / corpus, "it", split))
    assert len({utterance.audio.path for utterance in found}) == 2  # files
    assert len(found) == len(expected) == CLIPS
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.id, ours.text, ours.speaker) == (theirs.id, theirs.text, theirs.speaker)
        np.testing.assert_array_equal(read_audio(opened(ours)), read_audio(opened(theirs)))


@pytest.mark.parametrize(("reader", "corpus", "split"), SPLITS[:3])
def test_lengths_are_those_of_the_table(on_hub, reader, corpus, split) -> None:
    found = list(reader.prepare(on_hub / corpus, "it", split))
    lengths = [probe(opened(utterance)).seconds for utterance in found]
    assert [utterance.seconds for utterance in found] == pytest.approx(lengths, abs=0.01)


def test_the_table_is_read_without_the_audio(on_hub: Path, tmp_path: Path) -> None:
    expected = list(mls.prepare(on_hub / "mls", "it", "dev"))[:4]
    path = tmp_path / "italian/dev-00000-of-00001.parquet"
    path.parent.mkdir()
    shutil.copy(expected[0].audio.path, path)
    blank_audio(path)
    found = list(mls.prepare(tmp_path, "it", "dev"))
    assert [(u.id, u.text) for u in found] == [(u.id, u.text) for u in expected]
    with pytest.raises(MlmaError, match=r"of-00001\.parquet: not a whole Parquet file .*download"):
        opened(found[0])


def blank_audio(path: Path) -> None:
    """Overwrite the bytes of the audio in a Parquet file."""
    metadata = ParquetFile(path).metadata
    with open(path, "r+b") as file:
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema == "audio.bytes":
                    start = column.dictionary_page_offset or column.data_page_offset
                    file.seek(start)
                    file.write(b"\xff" * column.total_compressed_size)


@pytest.mark.parametrize(
    ("corpus", "layout"),
    [
        ("fleurs", "parquet-data/it_it/test-00000-of-00001.parquet"),
        ("fleurs", "data/it_it/test/0000.parquet"),
        ("fleurs", "it_it/test.parquet"),
        ("mls", "data/italian/test/0000.parquet"),
        ("voxpopuli", "data/it/test-00000-of-00001.parquet"),
    ],
)
def test_other_places_of_the_hub(on_hub: Path, tmp_path: Path, corpus: str, layout: str) -> None:
    source = min((on_hub / corpus).rglob("*.parquet"))
    (tmp_path / layout).parent.mkdir(parents=True)
    shutil.copy(source, tmp_path / layout)
    reader = {"fleurs": fleurs, "mls": mls, "voxpopuli": voxpopuli}[corpus]
    assert len(list(reader.prepare(tmp_path, "it", "test"))) == 4


def test_the_published_layout_is_preferred(published: Path, on_hub: Path, tmp_path: Path) -> None:
    for corpus in ("fleurs", "mls", "voxpopuli"):
        shutil.copytree(published / corpus, tmp_path / corpus, symlinks=True)
        shutil.copytree(on_hub / corpus, tmp_path / corpus, dirs_exist_ok=True)
    for reader, corpus, split in SPLITS:
        found = reader.prepare(tmp_path / corpus, "it", split)
        assert all(utterance.audio.path.suffix != ".parquet" for utterance in found)


def test_stages_1_and_3_make_the_same_set_of_both_layouts(
    published: Path, on_hub: Path, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "mixtures.yaml").write_text(MIXTURE)
    made = {}
    for name, root in (("published", published), ("hub", on_hub)):
        for stage in (
            f"prepare --mixture small --mixtures {tmp_path}/mixtures.yaml --db_root {root} "
            f"--output {tmp_path}/{name} --nj 2",
            *(
                f"format-audio --data {tmp_path}/{name}/{of} --output {tmp_path}/{name}/dump/{of} "
                "--nj 1"
                for of in ("train_small", "dev_small", "test_fl_it")
            ),
        ):
            monkeypatch.setattr("sys.argv", ["mlma", "recipe", *stage.split()])
            mlma()
        made[name] = read_set(tmp_path / name)
    ours, theirs = made["hub"], made["published"]
    assert ours["tables"] == theirs["tables"]
    assert ours["sounds"].keys() == theirs["sounds"].keys()
    assert len(ours["sounds"]) > 4 * (CLIPS - 1)
    for id_, samples in theirs["sounds"].items():
        np.testing.assert_array_equal(ours["sounds"][id_], samples)


def read_set(folder: Path) -> dict:
    found = {"tables": {}, "sounds": {}}
    for dump in sorted((folder / "dump").iterdir()):
        for name in ("text", "utt2spk", "utt2lang", "utt2category", "utt2num_samples"):
            found["tables"][dump.name, name] = (dump / name).read_text(encoding="utf-8")
        for id_, where in tables.read(dump / "wav.scp", "").items():
            found["sounds"][id_] = kaldi.load_mat(where)[1]
    return found
