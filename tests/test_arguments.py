"""Outputs that are inputs, and empty names, are refused before any work."""

import argparse
import os
from pathlib import Path

import pytest

from espnet_mlma.arguments import ArgumentParser, check_outputs, refuse_inputs, refuse_to_replace
from espnet_mlma.errors import MlmaError


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"sound")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.yaml").write_text("a: 1")
    (tmp_path / "folder" / "text").write_text("a b")
    (tmp_path / "folder" / "notes.txt").write_text("of others")
    (tmp_path / "link.wav").symlink_to("a.wav")
    os.link("a.wav", "hard.wav")
    (tmp_path / "way").symlink_to("folder")
    return tmp_path


SAME = [
    ("a.wav", "a.wav"),
    ("./a.wav", "a.wav"),
    ("folder/../a.wav", "a.wav"),
    ("link.wav", "a.wav"),
    ("a.wav", "link.wav"),
    ("hard.wav", "a.wav"),
    ("way/config.yaml", "folder/config.yaml"),
    ("folder", "way"),
    ("folder/config.yaml", "folder"),
    ("way/text", "folder"),
    ("not/there", "not/there"),
]


@pytest.mark.parametrize(("output", "source"), SAME)
@pytest.mark.parametrize("absolute", [False, True])
def test_an_output_that_is_an_input_is_refused(place, output, source, absolute):
    output = place / output if absolute else Path(output)
    with pytest.raises(MlmaError, match=r"writing it would replace .* name another place"):
        refuse_inputs([Path("new"), output], ["b", None, source])


@pytest.mark.parametrize(
    ("output", "source"),
    [("new.wav", "a.wav"), ("folder/notes.txt", "folder"), ("folder/new.yaml", "folder"),
     ("/dev/null", "/dev/null"), ("a.wav", "-"), ("a.wav", "x" * 300)],
)  # fmt: skip
def test_other_outputs_are_accepted(place, output, source):
    refuse_inputs([Path(output)], [source])


def test_a_folder_that_holds_an_input_is_not_replaced(place):
    for source in ("folder", "way", "folder/text", "way/text", "folder/new"):
        with pytest.raises(MlmaError, match="folder: "):
            refuse_to_replace(Path("folder"), [Path(source)])
    refuse_to_replace(Path("folder"), [Path("a.wav"), Path("folders/text")])


def test_all_paths_of_a_command_line_are_inputs(place):
    args = argparse.Namespace(data=[Path("b"), Path("a.wav")], out=Path("hard.wav"), n=3, name="a")
    with pytest.raises(MlmaError, match=r"hard\.wav: writing it would replace a\.wav"):
        check_outputs(args, "out")
    check_outputs(argparse.Namespace(data=args.data, out=None), "out")
    with pytest.raises(MlmaError, match=r"hard\.wav: .* a\.wav"):
        check_outputs(argparse.Namespace(out=Path("hard.wav")), "out", inputs=["a.wav"])


def test_an_empty_name_is_refused(capsys):
    parser = ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    assert parser.parse_args(["--out", ".", "a"]).out == Path(".")
    for line in (["--out", ""], ["--out="], ["a", ""]):
        with pytest.raises(SystemExit) as end:
            parser.parse_args(line)
        assert end.value.code == 2
        assert "the name is empty" in capsys.readouterr().err
