"""`mlma compare --overlap`: overlaps of releases beside figures on Common Voice."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from espnet_mlma.data.split_overlap import Overlap, as_json

PEER = Overlap("commonvoice", "it", "peer", "20.0", "12.0", "train", 200, 40, 74, 10, 90, 120)
TEXT = (
    "peer uses release 12.0. Of the 200 it test clips of release 20.0: 37.0 % in its train set, "
    "1.0 % in its test set. Its train set has 25.0 % of the test speakers, who read 45.0 % of the "
    "test clips."
)


@pytest.fixture
def decoded(tmp_path) -> Path:
    """A decoding of one clip of Common Voice and one of VoxPopuli."""
    for corpus in ("cv", "vp"):
        name, id_ = f"test_{corpus}_it", f"{corpus}_it_1-a"
        data, out = tmp_path / "dump" / "raw" / name, tmp_path / "exp" / "asr" / "decode" / name
        data.mkdir(parents=True)
        out.mkdir(parents=True)
        values = {"utt2lang": "it", "utt2category": corpus, "text": "il gatto", "utt2spk": id_[:-2]}
        for table, value in values.items():
            (data / table).write_text(f"{id_} {value}\n")
        (out / "text").write_text(f"{id_} il matto\n")
        (out / "decoding.yaml").write_text(yaml.safe_dump({"options": {}}))
    return tmp_path / "exp" / "asr" / "decode"


def overlap_file(folder: Path, *found: Overlap) -> Path:
    file = folder / "overlap.json"
    file.write_text(as_json(found))
    return file


def test_an_overlap_is_a_caveat_of_a_decoded_systems_figure(mlma, decoded, tmp_path):
    file = overlap_file(tmp_path, PEER, replace(PEER, role="test", clips=2))
    arguments = (f"peer={decoded}", f"ours={decoded}", "--published", "none", "--overlap", file)
    code, out, err = mlma("compare", *arguments, "--format", "json")
    assert (code, err) == (0, "")
    contents = json.loads(out)
    marks = {(s["system"], s["corpus"]): s["caveats"] for s in contents["scores"]}
    [key] = marks["peer", "cv"]
    assert contents["caveats"][key] == TEXT
    assert marks["peer", "all"] == [key]
    assert marks["peer", "vp"] == marks["ours", "cv"] == []
    for form in ("md", "html"):
        _, out, _ = mlma("compare", *arguments, "--format", form)
        assert TEXT in out


def test_published_figures_have_their_overlap_or_an_unknown_release(mlma, decoded, tmp_path):
    file = overlap_file(tmp_path, replace(PEER, other="fama", other_release=""))
    arguments = (f"ours={decoded}", "--overlap", file, "--format", "json")
    code, out, err = mlma("compare", *arguments)
    assert (code, err) == (0, "")
    contents = json.loads(out)
    quoted = [f for f in contents["quoted"] if (f["metric"], f["corpus"]) == ("wer", "cv")]
    marks = {f["system"]: [contents["caveats"][key] for key in f["caveats"]] for f in quoted}
    assert any(text.startswith("fama uses an unknown release.") for text in marks.pop("fama"))
    assert marks
    for texts in marks.values():
        assert any(text.startswith("The release of Common Voice is not") for text in texts)
    others = [f for f in contents["quoted"] if f["corpus"] != "cv"]
    assert others and not any("cv-release" in f["caveats"] for f in others)


def test_an_overlap_of_no_system_is_named(mlma, decoded, tmp_path):
    arguments = (f"ours={decoded}", "--overlap", overlap_file(tmp_path, PEER))
    _, out, err = mlma("compare", *arguments)
    assert err == "no figure for the overlap with peer\n" and "peer uses" not in out


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("", "not overlaps of splits"),
        ("{}", "not overlaps of splits"),
        ('{"schema": "espnet-mlma/split-overlap/9", "overlaps": []}', "schema is"),
        (as_json([replace(PEER, clips=201)]), "larger than its whole"),
        (as_json([replace(PEER, other="two\nlines")]), "not a printable text"),
        (as_json([replace(PEER, corpus="other")]), "unknown corpus 'other'"),
        (as_json([PEER]).replace('"role"', '"rule"'), "not overlaps of splits"),
    ],
)
def test_a_bad_overlap_is_one_line(mlma, decoded, tmp_path, contents, message):
    file = tmp_path / "overlap.json"
    file.write_text(contents)
    code, _, err = mlma("compare", f"ours={decoded}", "--overlap", file)
    assert code == 1 and message in err and err.count("\n") == 1


def test_an_overlap_needs_a_decoding_and_is_not_written_over(mlma, decoded, tmp_path):
    file = overlap_file(tmp_path, PEER)
    code, _, err = mlma("compare", "--overlap", file)
    assert code == 2 and "--overlap is for decoding folders" in err
    before = file.read_bytes()
    code, _, err = mlma("compare", f"a={decoded}", "--overlap", file, "-o", file)
    assert code == 1 and "would replace" in err and file.read_bytes() == before
