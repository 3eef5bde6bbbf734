"""Test `mlma data add` on real clips in five formats, and stage 1 on the result."""

import gzip
import json
import os
from pathlib import Path

import pytest
import soundfile
import yaml

from espnet_mlma.curate import add
from espnet_mlma.data import prepare, tables
from espnet_mlma.data.corpora import own
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import normalise

FORMATS = ("kaldi", "lhotse", "nemo", "datasets", "table")
Clips = list[tuple[str, str, str]]  # file, speaker, text


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def lay_out(kind: str, folder: Path, clips: Clips) -> Path:
    """Write the tables of a corpus; return what `data add` gets."""
    if kind == "kaldi":
        keys = [f"u{number}" for number in range(len(clips))]
        rows = list(zip(keys, clips, strict=True))
        write(folder / "wav.scp", [f"{key} {path}" for key, (path, _, _) in rows])
        write(folder / "utt2spk", [f"{key} {speaker}" for key, (_, speaker, _) in rows])
        write(folder / "text", [f"{key} {text}" for key, (_, _, text) in rows])
        return folder
    if kind == "lhotse":
        recordings, supervisions = [], []
        for number, (path, speaker, text) in enumerate(clips):
            source = {"type": "file", "channels": [0], "source": path}
            recordings.append(json.dumps({"id": f"r{number}", "sources": [source]}))
            seconds = soundfile.info(path).duration if os.path.isfile(path) else 1.0
            of = {"id": f"s{number}", "recording_id": f"r{number}", "start": 0.0}
            of |= {"duration": seconds, "text": text, "speaker": speaker}
            supervisions.append(json.dumps(of))
        write(folder / "recordings.jsonl.gz", recordings)
        write(folder / "supervisions.jsonl.gz", supervisions)
        return folder
    if kind == "nemo":
        keys = ("audio_filepath", "speaker", "text")
        return write(
            folder / "all.json",
            [json.dumps(dict(zip(keys, clip, strict=True)) | {"duration": 1.0}) for clip in clips],
        )
    if kind == "datasets":
        keys = ("file_name", "speaker_id", "transcription")
        lines = [json.dumps(dict(zip(keys, clip, strict=True))) for clip in clips]
        write(folder / "metadata.jsonl", lines)
        return folder
    return write(folder / "all.tsv", ["\t".join(clip) for clip in clips])


@pytest.fixture(scope="module")
def clips(shared_corpora) -> Clips:
    """Real clips of several speakers, of all languages; the corpus calls them one."""
    found = []
    for table in sorted((shared_corpora / "mls").glob("mls_*/*/transcripts.txt")):
        speakers: dict[str, int] = {}
        for line in table.read_text(encoding="utf-8").splitlines():
            name, text = line.split("\t")
            reader, book, _ = name.split("_")
            path = table.parent / "audio" / reader / book / f"{name}.opus"
            speakers[reader] = speakers.get(reader, 0) + 1
            if speakers[reader] <= 3 and len(speakers) <= 3 and path.is_file():
                found.append((str(path), reader, text))
    assert len({speaker for _, speaker, _ in found}) >= 3
    return found


def added(source: Path, tmp_path: Path, *options: str, lang: str = "br") -> Path:
    output = tmp_path / "db/mine"
    options = ("--name", "mine", "--lang", lang, "--output", str(output), *options)
    add.main([str(source), *options])
    return output


def sets(output: Path, lang: str = "br") -> dict[str, list[tuple[str, str, str]]]:
    found = {}
    for split in own.SPLITS:
        rows = [
            row for row in own.prepare(output, lang, split, "mine") if isinstance(row, Utterance)
        ]
        found[split] = sorted((str(row.audio), row.speaker, row.text) for row in rows)
    return found


def test_all_formats_give_the_same_sets(clips, tmp_path, capsys) -> None:
    results = []
    for kind in FORMATS:
        source = lay_out(kind, tmp_path / "source" / kind, clips)
        results.append(sets(added(source, tmp_path / kind, "--yes")))
        assert f"{source}: {kind}" in capsys.readouterr().out
    assert all(result == results[0] for result in results)
    assert sum(map(len, results[0].values())) == len(clips)
    speakers = [{speaker for _, speaker, _ in rows} for rows in results[0].values()]
    assert all(speakers) and len(set.union(*speakers)) == sum(map(len, speakers))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/nowhere/c.wav", "broken_audio"),
        ("../c.wav", "unsafe_name"),
        ("c" * 300, "unsafe_name"),
        ("c\x07d.wav", "unsafe_name"),
        ("touch PWNED |", "unsafe_name"),
    ],
)
def test_an_odd_row_is_dropped_alone(clips, tmp_path, monkeypatch, kind, name, reason) -> None:
    monkeypatch.chdir(tmp_path)
    source = lay_out(kind, tmp_path / "source", [*clips, (name, "odd", "ur c'hazh")])
    output = added(source, tmp_path, "--yes")
    record = yaml.safe_load((output / own.RECORD).read_text())
    is_command = kind == "kaldi" and name.endswith("|")
    assert record["dropped"] == {"command" if is_command else reason: 1}
    assert sum(map(len, sets(output).values())) == len(clips)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(("end", "reason"), [("-1", None), ("-2", "bad_span"), ("x", "bad_span")])
def test_a_span_of_kaldi_may_last_to_the_end_of_its_file(clips, tmp_path, end, reason) -> None:
    source = lay_out("kaldi", tmp_path / "source", clips)
    spans = [f"u{number} u{number} 0.0 -1" for number in range(len(clips))]
    write(source / "segments", [f"u0 u0 0.1 {end}", *spans[1:]])
    output = added(source, tmp_path, "--yes")
    record = yaml.safe_load((output / own.RECORD).read_text())
    assert record["dropped"] == ({reason: 1} if reason else {})
    assert sum(map(len, sets(output).values())) == len(clips) - bool(reason)


def test_stage_1_works_with_a_language_beyond_the_table(clips, tmp_path, capsys) -> None:
    polish = [(path, speaker, f"Zażółć {text}") for path, speaker, text in clips]
    added(lay_out("table", tmp_path / "source", polish), tmp_path, "--yes", lang="pl")
    mixtures = write(tmp_path / "mixtures.yaml", ["{}"])
    options = ["--mixture", "mine", "--mixtures", str(mixtures), "--db_root", str(tmp_path / "db")]
    prepare.main([*options, "--list", "test"])
    assert capsys.readouterr().out.split()[-1] == "test_mine_pl"
    prepare.main([*options, "--output", str(tmp_path / "data"), "--nj", "1"])
    for name in ("train_mine", "dev_mine", "test_mine_pl"):
        assert set(tables.read(tmp_path / "data" / name / "utt2lang", "").values()) == {"pl"}
    assert all(
        "zażółć" in text for text in tables.read(tmp_path / "data/train_mine/text", "").values()
    )


def test_an_alphabet_needs_approval_and_edits_are_kept(clips, tmp_path) -> None:
    source = lay_out("table", tmp_path / "source", [*clips[:-1], (*clips[-1][:2], "Привет")])
    with pytest.raises(MlmaError, match="not approved"):
        added(source, tmp_path)
    alphabet = tmp_path / "db/mine/br" / own.ALPHABET
    assert not (tmp_path / "db/mine" / own.RECORD).exists()
    text = alphabet.read_text(encoding="utf-8")
    assert "\n# п\t1\t" in text and "\ne\t" in text
    alphabet.write_text(text.replace("\n# п\t", "\nп\t"), encoding="utf-8")
    output = added(source, tmp_path, "--yes")
    assert "п" in own.read_alphabet(output, "br") and "р" not in own.read_alphabet(output, "br")


@pytest.mark.parametrize("name", ["cv", "mls", "my_own", "Mine", "../x"])
def test_a_name_that_clashes_is_refused(tmp_path, name) -> None:
    with pytest.raises(MlmaError, match="--name"):
        add.main([str(tmp_path), "--name", name, "--lang", "pl", "--output", str(tmp_path / "o")])


@pytest.mark.parametrize(
    ("lang", "text", "words"),
    [
        ("pl", "Zażo\u0301łć GĘŚLĄ!", "zażółć gęślą"),
        ("tr", "ISPARTA İzmir", "ısparta izmir"),
        ("hi", "हिन्दी, भाषा।", "हिन्दी भाषा"),
        ("he", "שלום, עולם", "שלום עולם"),
        ("hsb", "Łužica", "łužica"),
    ],
)
def test_normalise_beyond_the_table(lang, text, words) -> None:
    assert normalise(text, lang) == words


def test_a_language_without_spaces_is_refused(tmp_path) -> None:
    with pytest.raises(MlmaError, match="'ja' is written without spaces"):
        add.main([str(tmp_path), "--name", "mine", "--lang", "ja", "--output", "x"])
