"""The index of a training set: from the tables, once, for all processes."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from espnet_mlma.data import clips as module
from espnet_mlma.data.clips import open_clips, read_clips
from espnet_mlma.errors import MlmaError

# id -> samples, language, corpus. The ids have several lengths, and one is not ASCII.
ROWS = {
    "a-1": (16000, "it", "cv"),
    "a-22": (20000, "en", "ls"),
    "b-1": (5, "en", "cv"),
    "c-1": (7, "en", "ls"),
    "é-3": (400000, "it", "cv"),
}
TABLES = ("speech_shape", "utt2dataset", "utt2category")


def write(folder: Path, ids=ROWS, shape="{}") -> Path:
    for column, name in enumerate(TABLES):
        form = shape if column == 0 else "{}"
        lines = [f"{id_} {form.format(ROWS[id_][column])}\n" for id_ in ids]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder / "speech_shape"


def content(clips) -> list:
    cells = [clips.cells[cell] for cell in clips.cell_of(np.arange(len(clips)))]
    return [
        (clips.id(i), int(clips.lengths[i]), *cells[i])
        for i in range(len(clips))
    ]  # fmt: skip


EXPECTED = [
    ("b-1", 5, "en", "cv"),
    ("a-22", 20000, "en", "ls"),
    ("c-1", 7, "en", "ls"),
    ("a-1", 16000, "it", "cv"),
    ("é-3", 400000, "it", "cv"),
]


@pytest.mark.parametrize("shape", ["{}", "{},80"])
def test_clips_are_grouped_by_language_and_corpus(tmp_path, shape):
    clips = read_clips(write(tmp_path, shape=shape), tmp_path)
    assert content(clips) == EXPECTED
    assert clips.starts.tolist() == [0, 1, 3, 5]


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    shapes = write(tmp_path, list(reversed(ROWS)))
    lines = shapes.read_text(encoding="utf-8").splitlines()
    shapes.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")
    assert content(read_clips(shapes, tmp_path)) == EXPECTED


def test_the_index_is_mapped_and_written_once(tmp_path, monkeypatch):
    shapes = write(tmp_path)
    first = open_clips(shapes, tmp_path)
    assert content(first) == EXPECTED
    assert isinstance(first.lengths, np.memmap)
    monkeypatch.setattr(module, "read_clips", None)  # must not be needed again
    assert content(open_clips(shapes, tmp_path)) == EXPECTED


def test_changed_tables_get_a_new_index(tmp_path):
    shapes = write(tmp_path)
    old = open_clips(shapes, tmp_path)
    table = tmp_path / "utt2dataset"
    table.write_text(table.read_text(encoding="utf-8").replace("it", "nl"), encoding="utf-8")
    assert ("nl", "cv") in open_clips(shapes, tmp_path).cells
    assert content(old) == EXPECTED  # a running training keeps its own


@pytest.mark.parametrize("file", ["about.json", "ids.npy", "lengths.npy"])
def test_a_damaged_index_is_written_again(tmp_path, file):
    shapes = write(tmp_path)
    open_clips(shapes, tmp_path)
    path = tmp_path / "speech_shape.clips" / file
    path.write_bytes(path.read_bytes()[:-3])
    assert content(open_clips(shapes, tmp_path)) == EXPECTED


def _open(shapes: Path, at_once, results) -> None:
    at_once.wait()
    results.put(content(open_clips(shapes, shapes.parent)))


def test_processes_may_open_it_at_once(tmp_path):
    shapes = write(tmp_path)
    context = multiprocessing.get_context("fork")
    at_once, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_open, args=(shapes, at_once, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [EXPECTED] * 4
    for process in processes:
        process.join()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*TABLES, "speech_shape.clips"}


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_table_is_an_error(tmp_path, table):
    shapes = write(tmp_path)
    (tmp_path / table).unlink()
    with pytest.raises(MlmaError, match=f"{table}: no such file; run stage"):
        open_clips(shapes, tmp_path)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("lost", ["a-1", "b-1", "é-3"])
def test_an_id_of_one_table_only_is_an_error(tmp_path, table, lost):
    shapes = write(tmp_path)
    lines = (tmp_path / table).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.split()[0] != lost]
    (tmp_path / table).write_text("".join(kept), encoding="utf-8")
    with pytest.raises(MlmaError, match=f"{table}: {lost} is missing"):
        open_clips(shapes, tmp_path)
    assert not (tmp_path / "speech_shape.clips").exists()


@pytest.mark.parametrize("value", ["", "0", "-4", "1.5", "x", "9" * 400])
def test_a_wrong_length_is_an_error_with_its_line(tmp_path, value):
    shapes = write(tmp_path)
    shapes.write_text(shapes.read_text(encoding="utf-8").replace("b-1 5", f"b-1 {value}"))
    with pytest.raises(MlmaError, match=r"speech_shape:3: .* is not a positive number"):
        open_clips(shapes, tmp_path)


def test_a_clip_twice_is_an_error(tmp_path):
    shapes = write(tmp_path, [*ROWS, "a-1"])
    with pytest.raises(MlmaError, match="speech_shape:6: duplicate key a-1"):
        open_clips(shapes, tmp_path)


def test_a_clip_without_a_language_is_an_error(tmp_path):
    shapes = write(tmp_path)
    table = tmp_path / "utt2dataset"
    table.write_text(table.read_text(encoding="utf-8").replace("b-1 en", "b-1"), encoding="utf-8")
    with pytest.raises(MlmaError, match=r"utt2dataset:3: b-1 has no value"):
        open_clips(shapes, tmp_path)


def test_empty_tables_are_an_error(tmp_path):
    shapes = write(tmp_path, [])
    with pytest.raises(MlmaError, match="speech_shape: empty"):
        open_clips(shapes, tmp_path)
