"""Test readers that join labels to audio, on real clips in the layouts of each source."""

import gzip
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import yaml

from espnet_mlma.audio import probe
from espnet_mlma.data import prepare
from espnet_mlma.data.checks import HeldOut
from espnet_mlma.data.corpora import granary, mosel, pseudo, youtube_commons
from espnet_mlma.data.corpora.joined import AudioIndex
from espnet_mlma.data.coverage import Coverage, Labelled, MissingAudio
from espnet_mlma.data.mixtures import load
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.data.where import Where, licence
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError

ROOT = Path(__file__).resolve().parents[2]
SESSION = "20160118-0900-PLENARY-10"
GOOD = {"text": "signor presidente la ringrazio", "duration": 2.0}


@pytest.fixture(scope="session")
def clips(shared_corpora) -> list[Path]:
    """Italian sessions of VoxPopuli, long enough for spans."""
    found = sorted(shared_corpora.glob("voxpopuli/raw_audios/original/*/*-it-*_original.ogg"))
    return [clip for clip in found if probe(clip).seconds > 6][:3]


def lay(clip: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip, place)
    return place


def write_lines(path: Path, lines: list, end: str = "\n", start: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_bytes(start + "".join(text + end for text in texts).encode())


def sorted_out(items) -> tuple[list[Utterance], Counter]:
    items = list(items)
    reasons = Counter(item.reason for item in items if isinstance(item, Drop))
    return [item for item in items if isinstance(item, Utterance)], reasons


def table_of_segments(root: Path, lines: list[str]) -> None:
    path = root / "voxpopuli/unlabelled_data/unlabelled_v2.tsv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = "event_id\tsegment_no\tstart\tend\n"
    path.write_bytes(gzip.compress((header + "".join(f"{line}\n" for line in lines)).encode()))


@pytest.fixture
def session(tmp_path, clips) -> Path:
    """A root with one unlabelled session of VoxPopuli."""
    lay(clips[0], tmp_path / f"voxpopuli/raw_audios/it/2016/{SESSION}_it.ogg")
    return tmp_path


def test_granary_joins_sessions_by_offset(session, tmp_path):
    rows = [{"utt_id": f"{SESSION}_it_0", "offset": 0.5, **GOOD}]
    write_lines(session / "granary/it/voxpopuli/a.jsonl", rows)
    found, reasons = sorted_out(granary.prepare(session / "granary", "it", "voxpopuli"))
    assert not reasons
    assert (found[0].start, found[0].end) == (0.5, 2.5)
    assert found[0].audio.path.name == f"{SESSION}_it.ogg"
    report = write_set(tmp_path / "data/train", found, nj=1, held_out=HeldOut())
    assert report.kept == 1
    assert report.seconds["it", "gr"] == pytest.approx(2.0)


def test_granary_joins_segments_by_voxpopulis_own_table(session):
    table_of_segments(session, [f"{SESSION}_it\t1\t2.0\t4.5", f"{SESSION}_de\t0\t0\t1"])
    write_lines(
        session / "granary/it/voxpopuli/a.jsonl",
        [{"utt_id": f"{SESSION}_it_1", **GOOD}, {"utt_id": f"{SESSION}_it_7", **GOOD}],
    )
    found, reasons = sorted_out(granary.prepare(session / "granary", "it", "voxpopuli"))
    assert [(one.start, one.end) for one in found] == [(2.0, 4.5)]
    assert reasons == {"bad_span": 1}  # no span is guessed


def test_original_sessions_are_found(tmp_path, clips):
    lay(clips[0], tmp_path / f"voxpopuli/raw_audios/original/2016/{SESSION}_original.ogg")
    row = {"utt_id": f"{SESSION}_it_0", "offset": 0.5, **GOOD}
    write_lines(tmp_path / "granary/it/voxpopuli/a.jsonl", [row])
    found, _ = sorted_out(granary.prepare(tmp_path / "granary", "it", "voxpopuli"))
    assert found[0].audio.path.name == f"{SESSION}_original.ogg"


@pytest.mark.parametrize("is_packed", [True, False])
def test_granary_joins_yodas_shards(tmp_path, clips, is_packed):
    audio = tmp_path / "yodas/data/it000/audio"
    place = lay(clips[0], audio / "00000000/abc-DEF_123.ogg")
    if is_packed:
        with tarfile.open(audio / "00000000.tar.gz", "w:gz") as tar:
            tar.add(place, "00000000/abc-DEF_123.ogg")
            tar.add(place, "../outside.ogg")
        shutil.rmtree(place.parent)
    write_lines(
        tmp_path / "granary/it/yodas/a.jsonl",
        [
            {"utt_id": "abc-DEF_123-00001-00000050-00000350", **GOOD},
            {"utt_id": "x", "original_source_id": "outside", "offset": 0.0, **GOOD},
        ],
    )
    found, reasons = sorted_out(granary.prepare(tmp_path / "granary", "it", "yodas"))
    assert (found[0].start, found[0].end) == (0.5, 3.5)
    assert reasons == {"no_audio": 1}
    assert write_set(tmp_path / "data/train", found, nj=1).kept == 1


def test_cut_files_are_taken_whole(tmp_path, clips):
    id_ = f"{SESSION}_it_3"
    lay(clips[0], tmp_path / f"voxpopuli/unlabelled_data/it/2016/{id_}.ogg")
    (tmp_path / "mosel/it").mkdir(parents=True)
    (tmp_path / "mosel/it/voxpopuli.tsv").write_text(f"id\ttext\n{id_}\tbuona sera\n")
    found, _ = sorted_out(mosel.prepare(tmp_path / "mosel", "it", "voxpopuli"))
    assert (found[0].start, found[0].end, found[0].recording) == (None, None, None)


def test_mosel_joins_and_filters(session):
    table_of_segments(session, [f"{SESSION}_it\t{n}\t{n}\t{n + 1}" for n in range(3)])
    header = "id\tlid\ttext\thall_repeated_ngrams"
    rows = [f"{SESSION}_it_{n}\tit\tbuona sera\t{n == 1}" for n in range(3)]
    odd = ["two\tfields", f"{SESSION}_it_0\tit\tagain\tFalse", "../x_it_0\tit\ta\tFalse"]
    path = session / "mosel/it/voxpopuli.tsv"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([header, *rows, *odd, ""]).encode())
    where = {"hall_repeated_ngrams": False}
    found, reasons = sorted_out(mosel.prepare(session / "mosel", "it", "voxpopuli", where=where))
    assert [one.start for one in found] == [0.0, 2.0]
    assert reasons == {
        "not_hall_repeated_ngrams": 1,
        "bad_row": 1,
        "duplicate_id": 1,
        "no_audio": 1,
    }


def test_youtube_commons_joins_videos(tmp_path, clips):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    lay(clips[0], tmp_path / "youtube_commons/audio/youtube_commons/abc-1.ogg")
    names = ("video_id", "text", "transcription_language", "original_language", "license")
    free = "Creative Commons Attribution license (reuse allowed)"
    rows = [
        ("abc-1", "buona sera", "it", "it", free),
        ("gone", "buona sera", "it", "it", free),
        ("abc-1", "tradotto", "it", "en", free),
        ("abc-1", "doppio", "it", "it", free),
        ("abc-1", "good evening", "en", "en", free),
        ("abc-1", "altro", "it", "it", "Standard"),
        (None, "senza", "it", "it", free),
    ]
    table = pyarrow.table({n: list(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)})
    parquet.write_table(table, tmp_path / "youtube_commons/a.parquet")
    where = {"license": "cc-by"}
    root = tmp_path / "youtube_commons"
    found, reasons = sorted_out(youtube_commons.prepare(root, "it", "train", where=where))
    assert [one.text for one in found] == ["buona sera"]
    assert reasons == {
        "no_audio": 1,
        "translation": 1,
        "duplicate_id": 1,
        "not_license": 1,
        "bad_row": 1,
    }
    parquet.write_table(table.drop_columns("text"), root / "a.parquet")
    with pytest.raises(MlmaError, match="column 'text' is missing"):
        list(youtube_commons.prepare(root, "it", "train"))


ODD = [
    ("{not json", "bad_row"),
    ("[1, 2]", "bad_row"),
    ("[" * 100_000, "bad_row"),
    ({"utt_id": "a_1", "duration": 2.0}, "bad_row"),
    ({"utt_id": "", **GOOD}, "bad_row"),
    ({"utt_id": "a\nb", "offset": 0.0, **GOOD}, "bad_row"),
    ({"utt_id": 7, **GOOD}, "bad_row"),
    ({"utt_id": "a_1", "text": "x", "duration": "2", "offset": 0.0}, "bad_row"),
    ({"utt_id": "a_1", "offset": 0.0, "text": "\ud800", "duration": 1.0}, "bad_row"),
    ({"utt_id": "a_1", "offset": 0.0, "text": " ", "duration": 1.0}, "empty_text"),
    ('{"utt_id": "a_1", "text": "x", "duration": NaN, "offset": 0}', "bad_span"),
    ('{"utt_id": "a_1", "text": "x", "duration": 1e999, "offset": 0}', "bad_span"),
    ({"utt_id": "a_1", "offset": -1.0, **GOOD}, "bad_span"),
    ({"utt_id": f"{SESSION}_it_9", **GOOD}, "bad_span"),
    ({"utt_id": "a_1", "audio_filepath": "../../etc/passwd.wav", **GOOD}, "unsafe_name"),
    ({"utt_id": "a_1", "source_lang": "de", "offset": 0.0, **GOOD}, "other_language"),
    ({"utt_id": "a_1", "offset": 0.0, **GOOD}, "no_audio"),
]


@pytest.mark.parametrize(("row", "reason"), ODD)
def test_odd_rows_are_dropped_and_the_rest_is_read(session, row, reason):
    good = {"utt_id": f"{SESSION}_it_0", "offset": 0.5, **GOOD}
    write_lines(session / "granary/it/voxpopuli/a.jsonl", [row, "", good], "\r\n", b"\xef\xbb\xbf")
    found, reasons = sorted_out(granary.prepare(session / "granary", "it", "voxpopuli"))
    assert reasons == {reason: 1}
    assert len(found) == 1


def test_duplicate_ids_and_offsets_beyond_the_file_are_dropped(session, tmp_path):
    rows = [
        {"utt_id": f"{SESSION}_it_0", "offset": 0.5, **GOOD},
        {"utt_id": f"{SESSION}_it_0", "offset": 1.5, **GOOD},
        {"utt_id": f"{SESSION}_it_1", "offset": 1e6, **GOOD},
    ]
    write_lines(session / "granary/it/voxpopuli/a.jsonl", rows)
    items = granary.prepare(session / "granary", "it", "voxpopuli")
    report = write_set(tmp_path / "data/train", items, nj=1)
    assert report.dropped == {"duplicate_id": 1, "broken_audio": 1}


def test_pseudo_labels_have_a_floor(tmp_path, clips):
    lay(clips[0], tmp_path / "pseudo/audio/sub/a.ogg")
    row = {"id": "sub/a-0", "file": "sub/a.ogg", "start": 0.0, "end": 2.0, "text": "buona sera"}
    row["language"] = "it"
    rows = [
        {**row, "confidence": 0.95},
        {**row, "id": "sub/a-1", "confidence": 0.5},
        {**row, "id": "sub/a-2"},
        {**row, "id": "sub/b-0", "file": "sub/b.ogg", "confidence": 0.95},
        {**row, "id": "x", "file": "../pseudo/audio/sub/a.ogg", "confidence": 0.95},
        {**row, "id": "y", "start": 3.0, "confidence": 0.95},
        {**row, "confidence": 0.99},
        {**row, "id": "sub/a-3", "language": "de", "confidence": 0.99},
        {**row, "id": "sub/a-4", "language": None, "confidence": 0.99},
    ]
    write_lines(tmp_path / "pseudo/labels.jsonl", rows)
    where = {"min_confidence": 0.9}
    found, reasons = sorted_out(pseudo.prepare(tmp_path / "pseudo", "it", "train", where=where))
    assert [one.id for one in found] == ["ps_it_sub_a_ogg-sub/a-0"]
    assert reasons == {
        "not_min_confidence": 2,
        "no_audio": 1,
        "unsafe_name": 1,
        "bad_span": 1,
        "duplicate_id": 1,
        "no_language": 1,
    }


def test_links_to_a_folder_above_end(tmp_path, clips):
    lay(clips[0], tmp_path / "a/b/one.ogg")
    (tmp_path / "a/b/loop").symlink_to(tmp_path / "a")
    assert len(AudioIndex([tmp_path / "a"])) == 1


def mixture_of(path: Path, where: str = "", missing: str = "") -> None:
    line = f"{{corpus: granary, languages: [it], splits: [voxpopuli]{where}}}"
    test = "[voxpopuli it test]"
    path.write_text(f"m:\n  train: [{line}]\n  valid: {test}\n  test: {test}\n{missing}")


def test_a_short_set_is_refused_unless_permitted(session, shared_corpora, tmp_path, capsys):
    rows = [
        {"utt_id": f"{SESSION}_it_0", "offset": 0.5, **GOOD},
        {"utt_id": "20170118-0900-PLENARY-1_it_0", "offset": 0.5, **GOOD, "duration": 18.0},
    ]
    write_lines(session / "granary/it/voxpopuli/a.jsonl", rows)
    mixture_of(tmp_path / "m.yaml")
    out = tmp_path / "data"
    argv = ["--mixture", "m", "--mixtures", f"{tmp_path / 'm.yaml'}", "--output", f"{out}"]
    argv += ["--root", f"granary={session / 'granary'}", "--nj", "1"]
    argv += ["--root", f"voxpopuli={shared_corpora / 'voxpopuli'}"]
    with pytest.raises(MlmaError, match=r"the audio of 0\.005 of 0\.006 h is missing"):
        prepare.main(argv)
    assert not (out / "train_m").exists()
    prepare.main([*argv, "--missing", "0.95"])
    said = "granary voxpopuli it: 0.001 h found, 0.005 h missing (1 labels found, 1 missing)"
    assert said in capsys.readouterr().out
    assert "no_audio" in (out / "train_m/dropped.tsv").read_text()
    shutil.rmtree(out)
    mixture_of(tmp_path / "m.yaml", missing="  missing: 0.95\n")
    prepare.main(argv)
    assert (out / "train_m/segments").exists()


def test_labels_without_durations_are_counted_by_rows():
    item = Labelled("a-1", None, "x", "a", "it", source="s")
    gone = MissingAudio("a-2", "no_audio", "", source="s", lang="it")
    assert len(list(Coverage("m", 0.5).through([item, gone]))) == 2
    with pytest.raises(MlmaError, match="1 of 2 labels"):
        list(Coverage("m", 0.4).through([item, gone]))


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        (", where: {wer: 3}", "unknown field 'wer' in 'where'; known: .*min_duration"),
        (", where: {duration: 3}", "unknown field 'duration'"),
        (", where: {min_duration: long}", "is not a number"),
        (", where: {min_duration: .nan}", "is not a number"),
        (", where: {license: 4}", "is not a text"),
        (", where: [1]", "not a mapping"),
        (", filter: {}", "unknown key 'filter'"),
    ],
)
def test_wrong_conditions_are_refused(tmp_path, where, problem):
    mixture_of(tmp_path / "m.yaml", where)
    with pytest.raises(MlmaError, match=problem):
        load(tmp_path / "m.yaml", "m")


def test_a_corpus_without_fields_takes_no_conditions(tmp_path):
    line = {"corpus": "mls", "languages": ["it"], "splits": ["train"], "where": {"cer": 1}}
    roles = dict.fromkeys(("train", "valid", "test"), [line])
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"m": roles}))
    with pytest.raises(MlmaError, match="unknown field 'cer' in 'where'; known: none"):
        load(tmp_path / "m.yaml", "m")


@pytest.mark.parametrize("share", ["1.5", "-1", "true", "much"])
def test_a_wrong_share_is_refused(tmp_path, share):
    mixture_of(tmp_path / "m.yaml", missing=f"  missing: {share}\n")
    with pytest.raises(MlmaError, match="not a share from 0 to 1"):
        load(tmp_path / "m.yaml", "m")


@pytest.mark.parametrize(
    ("wanted", "found", "is_met"),
    [
        ("cc-by", "CC BY 4.0", True),
        ("cc-by", "cc-by-3.0", True),
        ("cc-by", "cc-by-nc-4.0", False),
        ("cc-by", "cc-by-sa-4.0", False),
        ("cc-by-4.0", "cc-by-3.0", False),
        (["cc0", "cc-by"], "CC0-1.0", True),
        ("cc-by", None, False),
    ],
)
def test_licences(wanted, found, is_met):
    where = Where({"license": wanted})
    assert (where.unmet({"license": found}) is None) == is_met
    assert licence("CC_BY 4.0") == "cc-by-4.0"


@pytest.mark.parametrize("name", ["granary_it", "six_weak", "six_pseudo"])
def test_mixtures_keep_the_test_sets(name):
    mixture, paper = (
        load(ROOT / "conf/mixtures.yaml", name),
        load(ROOT / "conf/mixtures.yaml", "mlma11840"),
    )
    assert set(mixture.test_sets) <= set(paper.test_sets)
    weak = {split.corpus for split in mixture.train} & {"granary", "mosel", "pseudo"}
    assert len(weak) == 1
    assert not weak & {split.corpus for split in mixture.valid + mixture.test}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"<html>", "is not a Parquet file"),
        (b"PAR1", "not a whole Parquet file"),
    ],
)
def test_parquet_files_of_labels_are_checked_as_those_of_audio(tmp_path, content, problem):
    (tmp_path / "audio/youtube_commons").mkdir(parents=True)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(MlmaError, match=f"a.parquet: {problem}"):
        list(youtube_commons.prepare(tmp_path, "it", "train"))
