import io
import json
import os
from dataclasses import fields
from pathlib import Path

import pytest

from espnet_mlma.cli import build_parser, files
from espnet_mlma.cli.files import Sound, find_sounds, plan_outputs
from espnet_mlma.cli.parser import UsageError
from espnet_mlma.cli.transcribe import search_options
from espnet_mlma.decode import Decoding, formats, load


@pytest.fixture(scope="module")
def expected(experiment, sounds):
    """The texts of the library, by name."""
    recogniser = load(experiment, device="cpu")
    names = ("a.flac", "b.wav", "below/C.WAV")
    return {name: recogniser.transcribe(sounds / name).text for name in names}


def test_text_and_nothing_else_on_stdout(mlma, experiment, sounds, expected):
    code, out, err = mlma("transcribe", sounds / "b.wav", sounds / "a.flac", "--model", experiment)
    assert code == 0
    assert out == "".join(f"{sounds / n}: {expected[n]}\n" for n in ("b.wav", "a.flac"))
    assert err.startswith("2 of 2 files, 3.0 s of audio in ")
    assert err.endswith(" x real time\n")
    assert err.count("\n") == 1


def test_a_folder_gives_its_sounds_in_order(mlma, experiment, sounds, expected):
    code, out, _ = mlma("transcribe", sounds, "--model", experiment)
    assert code == 0
    names = "a.flac", "b.wav", "below/C.WAV"
    assert out.splitlines() == [f"{sounds / name}: {expected[name]}" for name in names]


def test_files_are_written_for_each_format(mlma, experiment, sounds, expected, tmp_path):
    arguments = ["transcribe", sounds / "a.flac", "--model", experiment, "--language", "nl"]
    code, out, _ = mlma(*arguments, "--format", "all", "-o", tmp_path / "new")
    assert (code, out) == (0, "")
    written = {file.suffix for file in (tmp_path / "new").iterdir()}
    assert written == {form.suffix for form in formats.FORMATS.values()}
    content = json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8"))
    assert content["text"] == expected["a.flac"]
    assert content["file"] == str(sounds / "a.flac")
    assert (content["model"], content["language"]) == (str(experiment), "nl")
    assert content["duration"] == pytest.approx(2.0)


def test_formats_are_those_of_the_library():
    suffixes = {name: form.suffix for name, form in formats.FORMATS.items()}
    assert suffixes == files.FORMATS


def test_what_cannot_be_read_is_named_and_the_rest_done(mlma, experiment, sounds, expected):
    bad = [sounds / "nothing.wav", sounds / "notes.txt"]
    code, out, err = mlma("transcribe", *bad, sounds / "b.wav", "--model", experiment)
    assert code == 1
    assert out == f"{sounds / 'b.wav'}: {expected['b.wav']}\n"
    first, second, summary = err.splitlines()
    assert first.startswith(f"error: {bad[0]}: no such file")
    assert second.startswith(f"error: {bad[1]}: ")
    assert summary.startswith("1 of 3 files (1 missing, 1 unreadable), 1.0 s")


def test_a_pipe_is_read_from_stdin(mlma, experiment, sounds, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for options in ([], ["--format", "txt,ctm"]):
        reader, writer = os.pipe()
        os.write(writer, (sounds / "b.wav").read_bytes())  # less than a pipe holds
        os.close(writer)
        with io.TextIOWrapper(open(reader, "rb")) as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            code, out, err = mlma("transcribe", "-", "--model", experiment, *options)
        assert code == 0, err
        assert out == ("" if options else expected["b.wav"] + "\n")
    assert Path("stdin.txt").read_text() == expected["b.wav"] + "\n"
    assert all(row.startswith("stdin 1 ") for row in Path("stdin.ctm").read_text().splitlines())


def test_a_search_is_passed_on(mlma, experiment, sounds):
    recogniser = load(experiment, device="cpu")
    code, out, _ = mlma("transcribe", sounds / "a.flac", "--model", experiment, "--beam-size", 4)
    assert code == 0
    code, hot, err = mlma(
        "transcribe", sounds / "a.flac", "--model", experiment, "--hotwords", "abc,de fg"
    )
    assert code == 0, err
    assert len({out, hot, recogniser.transcribe(sounds / "a.flac").text}) > 1


def test_every_option_of_decoding_is_on_the_command_line():
    options = {
        "beam_size": 4,
        "token_threshold": -5.0,
        "score_threshold": 9.0,
        "lm": "words.arpa",
        "lm_weight": 0.7,
        "word_bonus": 1.0,
        "hotwords": ("abc", "de fg"),
        "hotword_weight": 2.0,
        "speech_guard": False,
    }
    assert set(options) == {field.name for field in fields(Decoding)}
    line = "transcribe a.wav --beam-size 4 --token-threshold=-5 --score-threshold 9 --lm words.arpa"
    line += " --lm-weight 0.7 --word-bonus 1 --hotword-weight 2 --no-speech-guard --hotwords"
    parsed = build_parser().parse_args([*line.split(), "abc,de fg"])
    assert search_options(parsed) == options


def test_a_language_model_in_capitals_gives_a_warning_of_one_line(
    mlma, experiment, sounds, tmp_path
):
    pytest.importorskip("kenlm")
    arpa = tmp_path / "CAPITALS.arpa"
    grams = "\\1-grams:\n-4\t<unk>\n-99\t<s>\t-0.3\n-1\t</s>\n-1\tABC\t-0.2\n-1\tDE\t-0.2\n"
    arpa.write_text(
        f"\\data\\\nngram 1=5\nngram 2=1\n\n{grams}\n\\2-grams:\n-0.3\tABC DE\n\n\\end\\\n"
    )
    code, out, err = mlma("transcribe", sounds / "a.flac", "--model", experiment, "--lm", arpa)
    assert code == 0 and out
    first, _summary = err.splitlines()
    assert first.startswith(f"warning: {arpa}: ") and "case" in first


def test_two_sounds_for_one_file_are_refused_before_anything_is_loaded(mlma, sounds, tmp_path):
    for name in ("talk.mp3", "talk.wav"):
        (tmp_path / name).write_bytes(b"")
    code, out, err = mlma(
        "transcribe", tmp_path, "--format", "srt", "--model", tmp_path / "nothing"
    )
    assert (code, out) == (2, "")
    assert "talk.mp3 and" in err and f"both write {tmp_path}/talk.srt" in err
    with pytest.raises(UsageError):
        plan_outputs([Sound(Path("a/talk.wav")), Sound(Path("b/talk.wav"))], ["txt"], Path("out"))


def test_what_lies_beside_a_sound_is_not_replaced(mlma, experiment, sounds, expected, tmp_path):
    sound, notes = tmp_path / "b.wav", tmp_path / "b.txt"
    sound.write_bytes((sounds / "b.wav").read_bytes())
    notes.write_text("what was really said")
    options = ["transcribe", sound, "--format", "txt"]
    code, _, err = mlma(*options, "--model", tmp_path / "nothing")
    assert code == 2
    assert err.startswith(f"error: {notes} exists already; name a folder with --output")
    assert notes.read_text() == "what was really said"
    assert mlma(*options, "--model", experiment, "-o", tmp_path)[0] == 0
    assert notes.read_text() == expected["b.wav"] + "\n"


def test_a_name_need_not_be_text(mlma, experiment, sounds, tmp_path):
    sound = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.wav"))
    sound.write_bytes((sounds / "b.wav").read_bytes())
    code, _, err = mlma("transcribe", sound, "--format", "json", "--model", experiment)
    assert code == 0, err
    content = json.loads(sound.with_suffix(".json").read_text(encoding="utf-8"))
    name = f"{tmp_path}/b\N{REPLACEMENT CHARACTER}.wav"
    assert content["file"] == name
    code, out, err = mlma("transcribe", sound, sounds / "b.wav", "--model", experiment)
    assert code == 0, err
    assert out.splitlines()[0].startswith(f"{name}: ")
    options = ["--text", "a", "--format", "json", "--model", experiment]
    code, out, err = mlma("align", sound, *options)
    assert code == 0, err
    assert json.loads(out)["file"] == name


def test_without_a_standard_input_there_is_none_to_read(mlma, experiment, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    for command in (["transcribe", "-"], ["stream"], ["align", "-", "--text", "a"]):
        code, _, err = mlma(*command, "--model", experiment)
        assert code == 2
        assert err.startswith("error: there is no standard input; ")


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_loaded(mlma, sounds, tmp_path):
    (tmp_path / "taken").write_text("")
    folder = tmp_path / "taken" / "new"
    (tmp_path / "model").mkdir()
    for name in ("config.yaml", "valid.cer_ctc.ave.pth"):
        (tmp_path / "model" / name).write_text("")
    options = ["--format", "srt", "-o", folder, "--model", tmp_path / "model"]
    code, _, err = mlma("transcribe", sounds / "a.flac", *options)
    assert code == 1
    assert err.startswith(f"error: cannot make {folder}: Not a directory")


def test_outputs_lie_beside_their_sounds_or_in_the_folder():
    sounds = [Sound(Path("a/talk.one.wav")), Sound(Path("b/talk.wav")), Sound(files.STDIN)]
    assert [dict(planned) for _, planned in plan_outputs(sounds, ["textgrid"], None)] == [
        {"textgrid": Path("a/talk.one.TextGrid")},
        {"textgrid": Path("b/talk.TextGrid")},
        {"textgrid": Path("stdin.TextGrid")},
    ]
    assert plan_outputs(sounds[:1], ["srt"], Path("o")) == [
        (sounds[0].path, {"srt": Path("o/talk.one.srt")})
    ]


def test_folders_below_a_named_folder_are_kept(sounds):
    found, _ = find_sounds([sounds])
    planned = [planned["txt"] for _, planned in plan_outputs(found, ["txt"], Path("o"))]
    assert planned == [Path("o/a.txt"), Path("o/b.txt"), Path("o/below/C.txt")]


def test_named_files_are_kept_as_they_are_and_folders_are_searched(sounds):
    named = [files.STDIN, sounds / "notes.txt", sounds]
    below = [sounds / name for name in ("a.flac", "b.wav", "below/C.WAV")]
    found, wrong = find_sounds(named)
    assert [sound.path for sound in found] == [files.STDIN, sounds / "notes.txt", *below]
    assert wrong == {}


def test_a_folder_without_sounds_does_not_stop_the_others(mlma, experiment, sounds, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, err = mlma(
        "transcribe", tmp_path / "empty", sounds / "a.flac", "--model", experiment
    )
    assert code == 1
    assert f"error: {tmp_path / 'empty'}: no sound file" in err
    assert out.startswith(f"{sounds / 'a.flac'}: ")
    assert mlma("transcribe", tmp_path / "empty", "--model", experiment)[0] == 1
