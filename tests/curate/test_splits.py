"""Split manifests, and overlaps of releases."""

import gzip
import json
import random
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from espnet_mlma.curate import manifest, overlap
from espnet_mlma.data import split_manifest, split_overlap
from espnet_mlma.data.mixtures import reader_of
from espnet_mlma.errors import MlmaError

HEAD = "client_id\tpath\tsentence\n"
ROLES = ("train", "dev", "test")
# Rows of speaker and sentence. `old` has of `new`'s 4 test clips: 2 in train, 1 in test.
NEW = {
    "train": [("d", "Sì."), ("e", "No.")],
    "dev": [("f", "Forse.")],
    "test": [("a", "Perché no?"), ("a", "Due."), ("b", "Tre."), ("c", "Quattro.")],
}
OLD = {
    "train": [("a", "Perché no?"), ("b", "Tre."), ("x", "Quattro."), ("x", "Due.")],
    "dev": [("c", "Nove.")],
    "test": [("c", "Quattro."), ("y", "Dieci.")],
}


def client(name: str) -> str:
    return name * 128


def release(root: Path, splits: dict, end: str = "\n", bom: str = "", form: str = "NFC") -> Path:
    folder = root / "it"
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        text = HEAD + "".join(
            f"{client(speaker)}\t{split}_{n}.mp3\t{unicodedata.normalize(form, sentence)}\n"
            for n, (speaker, sentence) in enumerate(rows)
        )
        (folder / f"{split}.tsv").write_bytes((bom + text).replace("\n", end).encode())
    return root


def made(root: Path, output: Path, *options: str) -> Path:
    manifest.main(["commonvoice", str(root), "--lang", "it", "--output", str(output), *options])
    return output


@pytest.fixture
def new(tmp_path) -> Path:
    return made(release(tmp_path / "cv-corpus-20.0-2024-12-06", NEW), tmp_path / "new.gz")


def counted(capsys, *arguments: object) -> dict[str, split_overlap.Overlap]:
    capsys.readouterr()
    overlap.main([*map(str, arguments), "--format", "json"])
    found = [
        split_overlap.Overlap(**one) for one in json.loads(capsys.readouterr().out)["overlaps"]
    ]
    return {one.role: one for one in found}


def counts(one: split_overlap.Overlap) -> tuple[int, ...]:
    return one.clips, one.speakers, one.clips_of_speakers, one.clips_of_sentences


def test_known_overlap_gives_exact_numbers(capsys, tmp_path, new):
    old = made(release(tmp_path / "cv-corpus-12.0-2022-12-07", OLD), tmp_path / "old.manifest")
    found = counted(capsys, new, f"peer={old}")
    assert {role: counts(one) for role, one in found.items()} == {
        "train": (2, 2, 3, 4),
        "dev": (0, 1, 1, 0),
        "test": (1, 1, 1, 1),
    }
    one = found["train"]
    assert (one.test_clips, one.test_speakers, one.other) == (4, 3, "peer")
    assert (one.my_release, one.other_release) == ("20.0", "12.0")
    # A folder in place of its manifest gives the same.
    root = tmp_path / "cv-corpus-12.0-2022-12-07"
    assert counted(capsys, new, f"peer={root}", "--lang", "it") == found
    overlap.main([str(new), str(old)])
    rows = capsys.readouterr().out.splitlines()
    assert "2 (50.0 %)" in rows[1] and "3 (75.0 %)" in rows[1] and "12.0" in rows[1]


@pytest.mark.parametrize(
    "odd", [{"end": "\r\n"}, {"bom": "\ufeff"}, {"form": "NFD"}], ids=["CRLF", "BOM", "NFD"]
)
def test_tables_written_otherwise_give_the_same_hashes(tmp_path, new, odd):
    root = release(tmp_path / "elsewhere" / "cv-corpus-20.0-2024-12-06", NEW, **odd)
    assert made(root, tmp_path / "odd.gz").read_bytes() == new.read_bytes()


def test_a_manifest_may_have_crlf_and_bom(capsys, tmp_path, new):
    plain = gzip.decompress(new.read_bytes())
    other = tmp_path / "windows.manifest"
    other.write_bytes(b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n"))
    assert counts(counted(capsys, new, other)["test"]) == (4, 3, 4, 4)


def test_duplicate_rows_count_each(capsys, tmp_path, new):
    twice = NEW | {"test": NEW["test"] + NEW["test"][:1]}
    other = made(release(tmp_path / "twice", twice), tmp_path / "twice.gz", "--release", "x")
    assert counts(counted(capsys, other, new)["test"]) == (5, 3, 5, 5)
    assert counts(counted(capsys, new, other)["test"]) == (4, 3, 4, 4)


def test_dropped_rows_are_counted(capsys, tmp_path):
    root = release(tmp_path / "cv", NEW)
    with open(root / "it" / "test.tsv", "a", encoding="utf-8") as table:
        table.write("short\n")
    made(root, tmp_path / "cv.gz")
    assert "it test: 4 clips, dropped: 1 bad_row" in capsys.readouterr().err


def test_a_manifest_has_no_text_or_client_and_does_not_join_them(new):
    plain = gzip.decompress(new.read_bytes()).decode()
    assert "Quattro" not in plain and client("a")[:32] not in plain
    test = split_manifest.read(new).splits[2]
    for column in (test.clips, test.speakers, test.sentences):
        assert list(column) == sorted(column)


def test_the_hash_is_as_documented():
    # printf 'mlma-split-manifest-1\0speaker\0cv_it_a' | sha256sum
    assert f"{split_manifest.hashed('speaker', 'cv_it_a'):016x}" == "71b103483eedc5d2"


def header_with(new: Path, **values: object) -> bytes:
    first, rest = gzip.decompress(new.read_bytes()).split(b"\n", 1)
    return json.dumps(json.loads(first) | values).encode() + b"\n" + rest


DAMAGES = {
    "cut gzip": (".gz", lambda new: new.read_bytes()[:-40], "cannot read the manifest"),
    "not gzip": (".gz", lambda new: b"plain\n", "cannot read the manifest"),
    "no header": ("", lambda new: b"\n", "not the header of a split manifest"),
    "other file": ("", lambda new: b"[1]\n", "not the header of a split manifest"),
    "cut line": (
        "",
        lambda new: gzip.decompress(new.read_bytes())[:-5],
        ":10: not 4 hashes of sentences",
    ),
    "lost line": (
        "",
        lambda new: b"".join(gzip.decompress(new.read_bytes()).splitlines(True)[:-1]),
        "ends before line 10",
    ),
    "added line": ("", lambda new: gzip.decompress(new.read_bytes()) + b"A\n", "more lines than"),
    "changed": ("", lambda new: header_with(new, sha256="0" * 64), "do not match their SHA-256"),
    "version": (
        "",
        lambda new: header_with(new, schema="espnet-mlma/split-manifest/2"),
        "schema is 'espnet-mlma/split-manifest/2'",
    ),
    "salt": ("", lambda new: header_with(new, salt="mine"), "salt is 'mine'"),
    "hash": ("", lambda new: header_with(new, hash="md5"), "hash is 'md5'"),
    "splits": ("", lambda new: header_with(new, splits=[{"lang": "it"}]), "valid list of splits"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_refused_in_one_line(tmp_path, new, damage):
    suffix, make, message = DAMAGES[damage]
    bad = tmp_path / f"bad{suffix}"
    bad.write_bytes(make(new))
    with pytest.raises(MlmaError) as error:
        overlap.main([str(new), str(bad)])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(bad) in str(error.value)


def test_other_mistakes_are_refused(tmp_path, new):
    root = tmp_path / "cv-corpus-20.0-2024-12-06"
    trained = made(root, tmp_path / "train.gz", "--splits", "train")
    for arguments, message in (
        ([trained, new], "no test split"),
        ([new, f"a={new}", f"a={new}"], "two of the others have one name"),
        ([new, root], "name its languages with --lang"),
        ([new, tmp_path / "nothing"], "cannot read the manifest"),
        ([new, new, "--output", new], "would replace"),
    ):
        with pytest.raises(MlmaError, match=message):
            overlap.main([*map(str, arguments)])


def test_a_table_of_the_corpus_is_not_written_over(tmp_path):
    root = release(tmp_path / "cv", NEW)
    table = root / "it" / "test.tsv"
    before = table.read_bytes()
    with pytest.raises(MlmaError, match="a file of the corpus"):
        made(root, table)
    assert table.read_bytes() == before


def test_real_clips_and_redrawn_splits(capsys, tmp_path, shared_corpora):
    [real] = (shared_corpora / "commonvoice").glob("cv-corpus-*")
    rows = {r: (real / "it" / f"{r}.tsv").read_text("utf-8").splitlines(True) for r in ROLES}
    lines = [line for role in ROLES for line in rows[role][1:]]
    random.Random(1).shuffle(lines)
    redrawn = tmp_path / "cv-corpus-21.0-2025-03-14"
    (redrawn / "it").mkdir(parents=True)
    for place, role in enumerate(ROLES):
        text = rows[role][0] + "".join(lines[place::3])
        (redrawn / "it" / f"{role}.tsv").write_text(text, "utf-8")
    found = counted(
        capsys, made(real, tmp_path / "real.gz"), made(redrawn, tmp_path / "redrawn.gz")
    )
    test = list(reader_of("commonvoice").prepare(real, "it", "test"))
    for role in ROLES:
        there = list(reader_of("commonvoice").prepare(redrawn, "it", role))
        speakers = {u.speaker for u in there}
        heard = Counter(u.speaker for u in test if u.speaker in speakers)
        pairs = {(u.speaker, u.text) for u in there}
        texts = {u.text for u in there}
        assert counts(found[role]) == (
            sum((u.speaker, u.text) in pairs for u in test),
            *(len(heard), heard.total()),
            sum(u.text in texts for u in test),
        )
    assert sum(found[role].clips for role in ROLES) == len(test) > 0


def test_other_corpora_have_manifests_too(tmp_path, shared_corpora):
    output = tmp_path / "ls.gz"
    options = ["--lang", "en", "--splits", "train-clean-100,test-clean", "--output", str(output)]
    manifest.main(["librispeech", str(shared_corpora / "LibriSpeech"), *options])
    assert [split.role for split in split_manifest.read(output).splits] == ["train", "test"]
    shutil.copy(output, tmp_path / "other.gz")
    overlap.main([str(output), str(tmp_path / "other.gz")])
