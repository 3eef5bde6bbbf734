"""Test every reader on real speech in the published layouts."""

import csv
import gzip
import shutil
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest
import soundfile

from espnet_mlma.audio import SAMPLE_RATE, read_audio
from espnet_mlma.data.checks import span
from espnet_mlma.data.corpora import commonvoice, fleurs, librispeech, mls, voxpopuli
from espnet_mlma.data.mixtures import CORPORA
from espnet_mlma.data.probing import probe_all
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import LANGUAGES

READERS = {
    "librispeech": librispeech,
    "commonvoice": commonvoice,
    "voxpopuli": voxpopuli,
    "mls": mls,
    "fleurs": fleurs,
}
SPLITS = {
    "librispeech": ("train-clean-100", "dev-clean", "test-clean"),
    "commonvoice": ("train", "dev", "test"),
    "voxpopuli": ("train", "dev", "test"),
    "mls": ("train", "dev", "test"),
    "fleurs": ("dev", "test"),
}
LANGS = {corpus: LANGUAGES for corpus in READERS} | {
    "librispeech": ("en",),
    "mls": tuple(lang for lang in LANGUAGES if lang != "en"),
}
PAIRS = [(corpus, lang) for corpus in READERS for lang in LANGS[corpus]]


def read(corpora: Path, corpus: str, lang: str, split: str) -> list[Utterance]:
    return list(READERS[corpus].prepare(corpora / CORPORA[corpus], lang, split))


def seconds_by_audio(utterances: list[Utterance]) -> dict[str, list[float]]:
    infos = probe_all([u.audio for u in utterances], nj=2, label="test")
    found = defaultdict(list)
    for utterance in utterances:
        start, end = span(utterance, infos[utterance.audio])
        found[str(utterance.audio)].append(end - start)
    return found


def listed(corpora: Path, corpus: str, lang: str) -> dict[str, list[float]]:
    """Read from SOURCES.tsv the seconds of each utterance of a corpus and language, by file."""
    folder = CORPORA[corpus]
    found = defaultdict(list)
    with open(corpora / "SOURCES.tsv", encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            if row["file"].startswith(f"{folder}/") and row["language"] == lang:
                found[str(corpora / row["file"])].append(float(row["seconds"]))
    return found


@pytest.mark.parametrize(("corpus", "lang"), PAIRS)
def test_utterances_and_seconds_match_the_list(
    shared_corpora: Path, corpus: str, lang: str
) -> None:
    utterances = [u for split in SPLITS[corpus] for u in read(shared_corpora, corpus, lang, split)]
    found = defaultdict(list)
    for audio, seconds in seconds_by_audio(utterances).items():
        found[audio.partition(".tar.gz:")[0] + (".tar.gz" if ":" in audio else "")] += seconds
    expected = listed(shared_corpora, corpus, lang)
    assert expected and found.keys() == expected.keys()
    for audio, seconds in expected.items():
        assert sorted(found[audio]) == pytest.approx(sorted(seconds), abs=0.06), audio


@pytest.mark.parametrize(("corpus", "lang"), PAIRS)
def test_ids_sort_with_their_speakers(shared_corpora: Path, corpus: str, lang: str) -> None:
    for split in SPLITS[corpus]:
        utterances = read(shared_corpora, corpus, lang, split)
        by_id = [u.speaker for u in sorted(utterances, key=lambda u: u.id)]
        assert by_id == sorted(by_id)
        assert len({u.id for u in utterances}) == len(utterances) > 0
        tag = READERS[corpus].TAG
        assert all(u.id.startswith(f"{u.speaker}-") for u in utterances)
        assert {(u.corpus, u.lang, u.speaker.split("_")[1]) for u in utterances} == {
            (tag, lang, lang)
        }


def test_librispeech_text_and_id(shared_corpora: Path) -> None:
    first = read(shared_corpora, "librispeech", "en", "dev-clean")[0]
    assert first.id == "ls_en_1101-101101-0000"
    assert first.text == "I LEARNED A LOT DURING THE LAST FEW HOURS"


def test_commonvoice_keeps_quotes_and_case(shared_corpora: Path) -> None:
    texts = [u.text for u in read(shared_corpora, "commonvoice", "de", "train")]
    assert "Reinhold hat einen richtig dicken Oschi aus dem Teich gezogen." in texts
    assert any('"' in u.text for u in read(shared_corpora, "commonvoice", "es", "train"))


def test_voxpopuli_has_spans_of_sessions(shared_corpora: Path) -> None:
    first = read(shared_corpora, "voxpopuli", "en", "dev")[0]
    assert (first.start, first.end) == (0.3, 5.6452)
    assert first.recording == "vp_en_20120110-0900-PLENARY-0-en-dev"
    assert first.text.startswith("the only person in the village")


def test_fleurs_has_the_raw_transcription(shared_corpora: Path) -> None:
    first = read(shared_corpora, "fleurs", "de", "dev")[0]
    assert first.text == "Die Prozession fand alljährlich um Mariä Heimsuchung statt."
    assert first.audio.member == "dev/1171230078170235357.wav"


def test_voxpopuli_as_cut_by_its_own_script(shared_corpora: Path, tmp_path: Path) -> None:
    spans = read(shared_corpora, "voxpopuli", "es", "dev")[:4]
    folder = tmp_path / "transcribed_data" / "es"
    rows = ["id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\tis_gold_transcript\taccent"]
    for utterance in spans:
        name = utterance.id.partition("-")[2]
        speaker = utterance.speaker.rpartition("_")[2]
        sound = read_audio(utterance.audio.path, utterance.start, utterance.end)
        (folder / name[:4]).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name[:4] / f"{name}.ogg", sound, SAMPLE_RATE)
        rows.append(f'{name}\t"{utterance.text}!\t{utterance.text}\t{speaker}\tdev\t\tTrue\tNone')
    (folder / "asr_dev.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    cut = list(voxpopuli.prepare(tmp_path, "es", "dev"))
    assert [(u.id, u.text, u.speaker) for u in cut] == [(u.id, u.text, u.speaker) for u in spans]
    for whole, part in zip(cut, spans, strict=True):
        [[seconds]] = seconds_by_audio([whole]).values()
        assert seconds == pytest.approx(part.end - part.start, abs=0.01)


def test_an_unknown_voxpopuli_speaker_has_the_same_id_in_both_layouts(tmp_path: Path) -> None:
    session, id_ = "20090112-0900-PLENARY-3-nl", "20090112-17:17:22_1"
    (tmp_path / "raw_audios/original").mkdir(parents=True)
    write_sessions(tmp_path, [f"{session}|{id_}|Ja|ja|None|dev|[(1.5, 2.0)]"])
    [spans] = voxpopuli.prepare(tmp_path, "nl", "dev")
    table = tmp_path / "transcribed_data/nl/asr_dev.tsv"
    table.write_text(f"id\tnormalized_text\tspeaker_id\tsplit\n{session}-{id_}\tja\tNone\tdev\n")
    [cut] = voxpopuli.prepare(tmp_path, "nl", "dev")
    assert (cut.id, cut.speaker) == (spans.id, spans.speaker)


def test_voxpopuli_speech_of_several_pieces_spans_them_all(tmp_path: Path) -> None:
    (tmp_path / "raw_audios/original").mkdir(parents=True)
    write_sessions(tmp_path, ['s1|0|"Ja", zei hij|ja zei hij|None|train|[(1.5, 2.0), (3.0, 4.5)]'])
    [utterance] = voxpopuli.prepare(tmp_path, "nl", "train")
    assert (utterance.start, utterance.end) == (1.5, 4.5)
    assert utterance.speaker == "vp_nl_s1"


@pytest.mark.parametrize(
    "vad",
    [
        "", "[]", "[()]", "x", "[(1.5)]", "[(2.0, 1.5)]", "[('nan', 2.0)]", "[(nan, 2.0)]",
        "[(0.0, inf)]", "[(-1e999, 2.0)]", "[(-1, 2.0)]", "[(1.5, 2.0)",
        "-" * 100_000 + "1", "(" * 100_000, "[(1, 2)" + " " * 100_000,
    ],
    ids=lambda vad: vad[:20],
)  # fmt: skip
def test_voxpopuli_rows_without_valid_spans_are_dropped(tmp_path: Path, vad: str) -> None:
    (tmp_path / "raw_audios/original").mkdir(parents=True)
    write_sessions(tmp_path, [f"s1|0|Ja|ja|7|train|{vad}"])
    [drop] = voxpopuli.prepare(tmp_path, "nl", "train")
    assert (drop.id, drop.reason) == ("vp_nl_7-s1-0", "bad_span")
    assert "asr_nl.tsv.gz: 's1-0' has no valid spans in column 'vad'" in drop.detail
    assert len(drop.detail) < 500


def write_sessions(root: Path, rows: list[str]) -> None:
    folder = root / "transcribed_data/nl"
    folder.mkdir(parents=True)
    header = "session_id|id_|original_text|normed_text|speaker_id|split|vad"
    with gzip.open(folder / "asr_nl.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join([header, *rows]) + "\n")


def test_the_flac_edition_of_mls_is_preferred(shared_corpora: Path, tmp_path: Path) -> None:
    opus = read(shared_corpora, "mls", "it", "dev")[:3]
    source = shared_corpora / "mls/mls_italian_opus/dev"
    split = tmp_path / "mls_italian/dev"
    for utterance in opus:
        path = split / utterance.audio.path.relative_to(source).with_suffix(".flac")
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, read_audio(utterance.audio.path), SAMPLE_RATE)
    lines = (source / "transcripts.txt").read_text(encoding="utf-8").splitlines()[:3]
    (split / "transcripts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copytree(shared_corpora / "mls/mls_italian_opus", tmp_path / "mls_italian_opus")
    flac = list(mls.prepare(tmp_path, "it", "dev"))
    assert [(u.id, u.text) for u in flac] == [(u.id, u.text) for u in opus]
    for ours, theirs in zip(flac, opus, strict=True):
        assert ours.audio.path.suffix == ".flac"
        assert seconds_by_audio([ours])[str(ours.audio)] == pytest.approx(
            seconds_by_audio([theirs])[str(theirs.audio)], abs=0.001
        )


@pytest.mark.parametrize("corpus", READERS)
def test_a_missing_corpus_is_an_error_with_its_path_and_home(corpus: str, tmp_path: Path) -> None:
    reader = READERS[corpus]
    with pytest.raises(MlmaError) as error:
        list(reader.prepare(tmp_path / "nowhere", LANGS[corpus][0], "test"))
    assert str(tmp_path / "nowhere") in str(error.value)
    assert reader.HOME in str(error.value)


def test_commonvoice_missing_column_names_file_and_column(
    shared_corpora: Path, tmp_path: Path
) -> None:
    release = next((shared_corpora / "commonvoice").glob("cv-corpus-*"))
    text = (release / "nl/train.tsv").read_text(encoding="utf-8")
    (tmp_path / "nl").mkdir()
    (tmp_path / "nl/train.tsv").write_text(text.replace("\tsentence\t", "\tSentence\t"))
    with pytest.raises(MlmaError, match=r"nl/train\.tsv:1: column 'sentence' is missing"):
        list(commonvoice.prepare(tmp_path, "nl", "train"))


@pytest.mark.parametrize("other", ["21.0-2025-03-14", "20.0-delta-2024-12-06"])
def test_two_releases_of_commonvoice_are_an_error(tmp_path: Path, other: str) -> None:
    (tmp_path / "cv-corpus-20.0-2024-12-06/nl").mkdir(parents=True)
    (tmp_path / f"cv-corpus-{other}/nl").mkdir(parents=True)
    with pytest.raises(MlmaError, match=f"several releases .*cv-corpus-{other}"):
        list(commonvoice.prepare(tmp_path, "nl", "train"))


# Downloaded archives, which may lie beside the unpacked folders.
ARCHIVES = {
    "librispeech": "dev-clean.tar.gz",
    "commonvoice": "cv-corpus-20.0-2024-12-06-it.tar.gz",
    "voxpopuli": "it_2019.tar",
    "mls": "mls_italian_opus.tar.gz",
    "fleurs": "it_it.tgz",
}


@pytest.mark.parametrize("corpus", READERS)
def test_archives_beside_unpacked_folders_are_ignored(
    shared_corpora: Path, tmp_path: Path, corpus: str
) -> None:
    lang, split = LANGS[corpus][0] if corpus == "librispeech" else "it", SPLITS[corpus][-2]
    source = shared_corpora / CORPORA[corpus]
    for entry in source.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    before = list(READERS[corpus].prepare(tmp_path, lang, split))
    (tmp_path / ARCHIVES[corpus]).touch()
    assert list(READERS[corpus].prepare(tmp_path, lang, split)) == before


@pytest.mark.parametrize("corpus", READERS)
def test_an_archive_that_was_not_unpacked_is_an_error(corpus: str, tmp_path: Path) -> None:
    (tmp_path / ARCHIVES[corpus]).touch()
    lang = "en" if corpus == "librispeech" else "it"
    with pytest.raises(MlmaError, match=f"unpack {ARCHIVES[corpus]} in {tmp_path}"):
        list(READERS[corpus].prepare(tmp_path, lang, SPLITS[corpus][-2]))


def test_fleurs_may_be_unpacked(shared_corpora: Path, tmp_path: Path) -> None:
    source = shared_corpora / "fleurs/data/it_it"
    folder = tmp_path / "data/it_it"
    (folder / "audio").mkdir(parents=True)
    shutil.copy(source / "dev.tsv", folder)
    with tarfile.open(source / "audio/dev.tar.gz") as archive:
        archive.extractall(folder / "audio", filter="data")
    packed = read(shared_corpora, "fleurs", "it", "dev")
    unpacked = list(fleurs.prepare(tmp_path, "it", "dev"))
    assert [u.id for u in unpacked] == [u.id for u in packed]
    assert all(utterance.audio.path.is_file() for utterance in unpacked)


def test_a_duplicate_id_is_an_error_with_both_lines(tmp_path: Path) -> None:
    chapter = tmp_path / "dev-clean/1/2"
    chapter.mkdir(parents=True)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 A\n1-2-0001 B\n1-2-0000 C\n")
    with pytest.raises(MlmaError, match=r"1-2.trans.txt:3: duplicate key '1-2-0000'.* line 1"):
        list(librispeech.prepare(tmp_path, "en", "dev-clean"))
