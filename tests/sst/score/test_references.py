import json
import re

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.score.references import Reference, read_segments, read_sentences

SEGMENT = {"wav": "talk.wav", "offset": 1.5, "duration": 2, "speaker_id": "a"}


def segments(folder, entries, texts="eins\n", sources=None):
    (folder / "a.yaml").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    (folder / "a.de").write_text(texts)
    if sources is not None:
        (folder / "a.en").write_text(sources)
    source = None if sources is None else folder / "a.en"
    return read_segments(folder / "a.yaml", folder / "a.de", source)


def test_segments_and_their_lines(tmp_path):
    found = segments(tmp_path, [SEGMENT, SEGMENT], " eins\u2028zwei\n\n", "one\ntwo\n")
    assert found == [
        Reference("talk", 1.5, 2.0, "eins\u2028zwei", "one"),
        Reference("talk", 1.5, 2.0, "", "two"),
    ]
    assert segments(tmp_path, "- {wav: a/b.c.wav, offset: 0, duration: 1.25}\n")[0].talk == "b.c"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_marks_and_line_ends_are_ignored(tmp_path, mark, newline):
    # Concatenated files can have a byte order mark in the middle.
    texts = [f"{mark}guten Morgen", "zwei\u2028drei\x85\x0bvier", f"{mark}f\u00fcnf"]
    (tmp_path / "a.yaml").write_text(mark + json.dumps([SEGMENT] * 3), encoding="utf-8")
    for name in ("a.de", "a.en"):
        (tmp_path / name).write_bytes((newline.join(texts) + newline).encode())
    found = read_segments(tmp_path / "a.yaml", tmp_path / "a.de", tmp_path / "a.en")
    expected = ["guten Morgen", "zwei\u2028drei\x85\x0bvier", "f\u00fcnf"]
    assert [one.text for one in found] == [one.source for one in found] == expected


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("name", ["a.yaml", "a.de"])
def test_files_must_be_utf_8(tmp_path, encoding, name):
    segments(tmp_path, [SEGMENT | {"speaker_id": "J\u00fcrgen"}])
    text = json.dumps([SEGMENT | {"speaker_id": "J\u00fcrgen"}], ensure_ascii=False)
    (tmp_path / name).write_text(text, encoding=encoding)
    with pytest.raises(MlmaError, match=f"{name}.*UTF-8"):
        read_segments(tmp_path / "a.yaml", tmp_path / "a.de")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[", "a.yaml: not valid YAML"),
        ("{}", "a.yaml: needs a list of segments"),
        ([SEGMENT, SEGMENT], "a.de: 1 lines for the 2 segments"),
        ([{}], "segment 1: wav is missing"),
        ([SEGMENT | {"offset": "1"}], "segment 1: offset: '1' is not a time"),
        ([SEGMENT | {"offset": -1}], "segment 1: offset: -1 is not a time"),
        ([SEGMENT | {"duration": 0}], "segment 1: duration is 0 s"),
        ([SEGMENT | {"duration": True}], "segment 1: duration: True is not a time"),
    ],
)
def test_errors_name_file_and_segment(tmp_path, entries, message):
    with pytest.raises(MlmaError, match=f"^{re.escape(str(tmp_path))}.*") as error:
        segments(tmp_path, entries)
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(MlmaError, match="none.yaml: No such file"):
        read_segments(tmp_path / "none.yaml", tmp_path / "a.de")


def test_sentence_records(tmp_path):
    path = tmp_path / "sentences.jsonl"
    record = {
        "id": "talk-1",
        "recording": "2022.acl-long.110",
        "audio": "2022.acl-long.110.wav",
        "offset": 0.5,
        "start": 0.5,
        "end": 3.0,
        "speaker": "a",
        "text": "one",
        "target": "de",
        "translation": "eins",
    }
    path.write_text("\ufeff" + json.dumps(record) + "\n", encoding="utf-8")
    assert read_sentences(path, "de") == [Reference("2022.acl-long.110", 0.5, 2.5, "eins", "one")]
    with pytest.raises(MlmaError, match="sentence talk-1: into de, not es; give its --target"):
        read_sentences(path, "es")
    path.write_text(json.dumps(record | {"translation": None}) + "\n")
    with pytest.raises(MlmaError, match="sentence talk-1: no translation"):
        read_sentences(path, "de")
    path.write_text(json.dumps(record | {"end": 0.5}) + "\n")
    with pytest.raises(MlmaError, match="sentence talk-1: duration is 0 s"):
        read_sentences(path, "de")
    path.write_text("")
    with pytest.raises(MlmaError, match="no sentences"):
        read_sentences(path, "de")
