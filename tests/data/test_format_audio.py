import io
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from omniio import kaldi

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data import format_audio, tables
from espnet_mlma.data.corpora import commonvoice, fleurs, librispeech, mls, voxpopuli
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.data.shards import make_shard
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError

FORMAT = "from espnet_mlma.data import format_audio as f; from espnet_mlma.errors import run_cli;"
# Ends the process from inside after one shard: a signal from outside may arrive too late.
STOPPED = """
import os
f.SHARD_ITEMS, run = 2, f._run
def stopped(shards, nj):
    for made in run(shards, nj):
        yield made
        os.kill(os.getpid(), {ending})
f._run = stopped
"""


def load(dump: Path) -> dict[str, np.ndarray]:
    """Load a formatted set: id -> (samples,)."""
    scp = tables.read(dump / "wav.scp", "")
    sounds = {id_: kaldi.load_mat(where) for id_, where in scp.items()}
    assert all(rate == 16000 for rate, _ in sounds.values())
    return {id_: samples for id_, (_, samples) in sounds.items()}


def write_utterance(folder: Path, audio: AudioFile) -> Path:
    """Write a data folder of one utterance."""
    write_set(folder, [Utterance("cv_en_a-1", audio, "good day", "cv_en_a", "en")], nj=1)
    return folder


def run_format(
    code: str, data: Path, out: Path, nj: int = 1, verify: bool = False, **options
) -> subprocess.Popen:
    """Run `code` and then stage 3 in a new process."""
    command = [sys.executable, "-c", FORMAT + code + "run_cli(f.main)"]
    command += ["--data", str(data), "--output", str(out), "--nj", str(nj)]
    command += ["--verify"] * verify
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_16_bit_audio_at_16_khz_is_kept_bit_for_bit(make_data, tmp_path: Path) -> None:
    data = make_data(3)
    counts = format_folder(data, tmp_path / "dump", nj=1)
    assert counts == {"kept": 3}
    for id_, path in tables.read(data / "wav.scp", "").items():
        expected, _ = soundfile.read(path, dtype="int16")
        np.testing.assert_array_equal(load(tmp_path / "dump")[id_] * 32768, expected)
    lengths = tables.read(tmp_path / "dump" / "utt2num_samples", "")
    assert set(lengths.values()) == {"16000"}


def test_espnet_reads_the_archives(make_data, tmp_path: Path) -> None:
    from espnet2.train.dataset import ESPnetDataset

    data = make_data(2)
    format_folder(data, tmp_path / "dump", nj=1)
    scp = tmp_path / "dump" / "wav.scp"
    dataset = ESPnetDataset([(str(scp), "speech", "kaldi_ark")], preprocess=None)
    for id_, samples in load(tmp_path / "dump").items():
        np.testing.assert_allclose(dataset[id_][1]["speech"], samples, atol=1e-7)


def test_other_rates_and_channels_become_16_khz_mono(tone, tmp_path: Path) -> None:
    sound = np.stack([tone(1.5, 44100), tone(1.5, 44100)], axis=1)
    soundfile.write(tmp_path / "a.wav", sound, 44100, subtype="FLOAT")
    data = write_utterance(tmp_path / "data", AudioFile(tmp_path / "a.wav"))
    format_folder(data, tmp_path / "dump", nj=1)
    (samples,) = load(tmp_path / "dump").values()
    assert len(samples) == 24000
    np.testing.assert_allclose(samples[2000:-2000], tone(1.5)[2000:-2000], atol=2e-3)


def test_too_loud_audio_is_clipped(tone, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 9 * tone(1.0), 16000, subtype="FLOAT")
    data = write_utterance(tmp_path / "data", AudioFile(tmp_path / "a.wav"))
    format_folder(data, tmp_path / "dump", nj=1)
    (samples,) = load(tmp_path / "dump").values()
    np.testing.assert_allclose(samples, np.clip(9 * tone(1.0), -1, 1), atol=1e-4)


def pack(tone, folder: Path, names: list[str]) -> Path:
    """Make a tar.gz of one-second WAV files, as corpora are published."""
    with tarfile.open(folder / "audio.tar.gz", "w:gz") as tar:
        for number, name in enumerate(names):
            content = io.BytesIO()
            soundfile.write(content, tone(1.0, pitch=100 + number), 16000, format="WAV")
            entry = tarfile.TarInfo(name)
            entry.size = len(content.getvalue())
            tar.addfile(entry, io.BytesIO(content.getvalue()))
    return folder / "audio.tar.gz"


def test_members_of_an_archive_are_read_in_one_pass(tone, tmp_path: Path, monkeypatch) -> None:
    names = [f"audio/{number}.wav" for number in range(5)]
    archive = pack(tone, tmp_path, names)
    utterances = [
        Utterance(f"fl_en_a-{n}", AudioFile(archive, name), "good day", "fl_en_a", "en")
        for n, name in reversed(list(enumerate(names)))
    ]
    write_set(tmp_path / "data", utterances, nj=1)
    opened = []
    original = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append(a) or original(*a, **k))
    format_folder(tmp_path / "data", tmp_path / "dump", nj=1)
    assert len(opened) == 1
    for number, samples in enumerate(load(tmp_path / "dump").values()):
        np.testing.assert_allclose(samples, tone(1.0, pitch=100 + number), atol=1e-4)


def test_audio_damaged_after_stage_1_is_dropped_and_listed(make_data, tmp_path: Path) -> None:
    data = make_data(4)
    sounds = list(tables.read(data / "wav.scp", "").items())
    Path(sounds[0][1]).write_bytes(b"")
    whole = Path(sounds[1][1]).read_bytes()
    Path(sounds[1][1]).write_bytes(whole[: len(whole) // 2])
    assert format_folder(data, tmp_path / "dump", nj=1) == {"kept": 2, "broken_audio": 2}
    assert list(load(tmp_path / "dump")) == [id_ for id_, _ in sounds[2:]]
    assert list(tables.read(tmp_path / "dump" / "text", "")) == [id_ for id_, _ in sounds[2:]]
    dropped = (tmp_path / "dump" / "dropped.tsv").read_text().splitlines()
    assert dropped[0] == "id\treason\tdetail"
    assert [line.split("\t")[:2] for line in dropped[1:]] == [
        [id_, "broken_audio"] for id_, _ in sounds[:2]
    ]


def test_a_set_without_readable_audio_is_an_error(make_data, tmp_path: Path) -> None:
    data = make_data(1)
    next((tmp_path / "audio").iterdir()).write_bytes(b"")
    with pytest.raises(MlmaError, match=r"no audio could be read; .*mini_en_s0-0000: .*empty file"):
        format_folder(data, tmp_path / "dump", nj=1)
    assert not (tmp_path / "dump" / "wav.scp").exists()


def test_a_cut_off_tar_archive_is_an_error(tone, tmp_path: Path) -> None:
    archive = pack(tone, tmp_path, ["a.wav"])
    data = write_utterance(tmp_path / "data", AudioFile(archive, "a.wav"))
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(MlmaError, match=r"audio\.tar\.gz: not a whole tar archive"):
        format_folder(data, tmp_path / "dump", nj=1)


def test_an_error_names_the_damaged_member_of_an_archive(tone, tmp_path: Path) -> None:
    member = AudioFile(pack(tone, tmp_path, ["a.wav"]), "a.wav")
    data = write_utterance(tmp_path / "data", member)
    with tarfile.open(member.path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(member.member), io.BytesIO())
    with pytest.raises(MlmaError, match=r"cv_en_a-1: .*audio\.tar\.gz:a\.wav: empty file"):
        format_folder(data, tmp_path / "dump", nj=1)


def test_segments_must_fit_the_recordings(make_data, tmp_path: Path) -> None:
    data = make_data(1)
    (data / "segments").write_text("mini_en_s0-0000 nowhere 0 1\n")
    with pytest.raises(MlmaError, match="segments:1: mini_en_s0-0000"):
        format_folder(data, tmp_path / "dump", nj=1)


def test_a_second_run_makes_only_changed_shards(make_data, tone, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(format_audio, "SHARD_ITEMS", 2)
    data, dump = make_data(6), tmp_path / "dump"
    format_folder(data, dump, nj=1)
    before = {path.name: path.stat().st_mtime_ns for path in (dump / "data").glob("*.ark")}
    assert len(before) == 3
    third = list(tables.read(data / "wav.scp", "").items())[2]
    soundfile.write(third[1], tone(2.0), 16000)
    format_folder(data, dump, nj=1)
    after = {path.name: path.stat().st_mtime_ns for path in (dump / "data").glob("*.ark")}
    assert {name for name in before if before[name] != after[name]} == {"shard.00002.ark"}
    assert len(load(dump)[third[0]]) == 32000


def test_shards_of_an_earlier_and_larger_set_are_removed(make_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(format_audio, "SHARD_ITEMS", 2)
    dump = tmp_path / "dump"
    format_folder(make_data(6), dump, nj=1)
    format_folder(make_data(2), dump, nj=1)
    assert [path.name for path in sorted((dump / "data").iterdir())] == [
        "shard.00001.ark",
        "shard.00001.fp",
        "shard.00001.json",
    ]


def test_several_processes_have_the_same_result_as_one(
    make_data, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(format_audio, "SHARD_ITEMS", 2)
    data = make_data(6)
    format_folder(data, tmp_path / "one", nj=1)
    format_folder(data, tmp_path / "two", nj=2)
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert list(one) == list(two)
    for id_ in one:
        np.testing.assert_array_equal(one[id_], two[id_])


def test_a_full_disk_is_a_one_line_error_and_can_be_resumed(make_data, tmp_path: Path) -> None:
    data, dump = make_data(6, seconds=3.0), tmp_path / "dump"

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))

    process = run_format("f.SHARD_ITEMS = 2;", data, dump, preexec_fn=little_room)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert errors.startswith(f"error: cannot write {dump}/data/shard.00001.ark: ")
    assert list((dump / "data").iterdir()) == []
    assert not (dump / "wav.scp").exists()
    assert format_folder(data, dump, nj=1) == {"kept": 6}


def test_a_set_whose_tables_do_not_fit_on_the_disk_is_incomplete(make_data, tmp_path: Path) -> None:
    data, dump = make_data(6), tmp_path / "dump"
    format_folder(data, dump, nj=1)

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))

    process = run_format("", data, dump, preexec_fn=no_room)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith(f"error: cannot write {dump}/text: ")
    assert not (dump / "wav.scp").exists()


@pytest.mark.parametrize("nj", [1, 2])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_is_resumed(make_data, tmp_path: Path, nj: int, ending: int) -> None:
    data, dump = make_data(120), tmp_path / "dump"
    process = run_format(STOPPED.format(ending=int(ending)), data, dump, nj)
    _, errors = process.communicate()
    assert process.returncode in (130, -signal.SIGKILL)
    assert "Traceback" not in errors
    assert not (dump / "wav.scp").exists()
    process = run_format("f.SHARD_ITEMS = 2;", data, dump, nj)
    message, _ = process.communicate()
    assert process.returncode == 0
    assert " of 60 shards are finished" in message
    assert len(load(dump)) == 120


def test_a_shard_without_a_record_is_made_again(make_data, tmp_path: Path) -> None:
    data, folder = make_data(2), tmp_path / "dump" / "data"
    folder.mkdir(parents=True)
    (shard,) = format_audio.split_into_shards(format_audio.read_items(data), folder)
    shard.path.write_bytes(b"half")
    make_shard(shard)
    shard.record_path.write_text('{"key": "0", "ke')
    format_folder(data, tmp_path / "dump", nj=1)
    assert len(load(tmp_path / "dump")) == 2


def test_a_cut_off_shard_is_made_again(make_data, tmp_path: Path) -> None:
    data, dump = make_data(2), tmp_path / "dump"
    format_folder(data, dump, nj=1)
    ark = dump / "data" / "shard.00001.ark"
    whole = ark.read_bytes()
    ark.write_bytes(whole[:-100])
    format_folder(data, dump, nj=1)
    assert ark.read_bytes() == whole


@pytest.mark.parametrize("verify", [False, True])
def test_a_damaged_shard_of_the_same_size_is_detected(
    make_data, tmp_path: Path, capsys, verify: bool
) -> None:
    data, dump = make_data(2), tmp_path / "dump"
    format_folder(data, dump, nj=1)
    ark = dump / "data" / "shard.00001.ark"
    whole, made = ark.read_bytes(), ark.stat().st_mtime_ns
    ark.write_bytes(whole[:-100] + bytes(100))
    if verify:
        os.utime(ark, ns=(made, made))
        format_folder(data, dump, nj=1)
        assert ark.read_bytes() != whole  # a disk error, found only with verify
    format_folder(data, dump, nj=1, verify=verify)
    assert ark.read_bytes() == whole
    assert "shard.00001.ark is damaged; making it again" in capsys.readouterr().out


@pytest.mark.parametrize("verify", [False, True])
def test_an_intact_shard_is_not_made_again(make_data, tmp_path: Path, verify: bool) -> None:
    data, dump = make_data(2), tmp_path / "dump"
    format_folder(data, dump, nj=1)
    ark = dump / "data" / "shard.00001.ark"
    os.utime(ark, (1e9, 1e9))  # as a copy
    format_folder(data, dump, nj=1, verify=verify)
    assert ark.stat().st_mtime == 1e9


def replace_keeping_date(sound: Path, other: Path) -> None:
    shutil.copy2(other, sound)


def move_keeping_date(sound: Path, other: Path) -> None:
    shutil.copy2(other, sound.with_suffix(".copy"))
    sound.with_suffix(".copy").rename(sound)


@pytest.mark.parametrize("exchange", [replace_keeping_date, move_keeping_date])
def test_a_replaced_file_of_the_same_size_and_date_is_read(tone, tmp_path: Path, exchange) -> None:
    sound, other = tmp_path / "a.wav", tmp_path / "b.wav"
    for path, pitch in ((sound, 100), (other, 300)):
        soundfile.write(path, tone(1.0, pitch=pitch), 16000)
        os.utime(path, (1e9, 1e9))
    data = write_utterance(tmp_path / "data", AudioFile(sound))
    format_folder(data, tmp_path / "dump", nj=1)
    exchange(sound, other)
    assert sound.stat().st_mtime == 1e9
    format_folder(data, tmp_path / "dump", nj=1)
    (samples,) = load(tmp_path / "dump").values()
    np.testing.assert_allclose(samples, tone(1.0, pitch=300), atol=1e-4)


def test_concurrent_runs_do_not_corrupt_a_set(make_data, tmp_path: Path) -> None:
    data, dump = make_data(40), tmp_path / "dump"
    runs = [run_format("f.SHARD_ITEMS = 2;", data, dump, nj) for nj in (1, 2)]
    errors = [run.communicate()[1] for run in runs]
    assert 0 in [run.returncode for run in runs]
    for run, error, other in zip(runs, errors, reversed(runs), strict=True):
        if run.returncode:
            assert error.count("\n") == 1
            message = f"data: process {other.pid} on {socket.gethostname()} formats it already"
            assert message in error
    assert len(load(dump)) == 40
    made = {path: path.stat().st_mtime_ns for path in (dump / "data").iterdir()}
    assert len(made) == 60
    run_format("f.SHARD_ITEMS = 2;", data, dump, verify=True).communicate()
    assert {path: path.stat().st_mtime_ns for path in (dump / "data").iterdir()} == made


def test_blanks_and_quotes_in_names_are_kept(tone, tmp_path: Path) -> None:
    folder = tmp_path / "it's a  folder"
    folder.mkdir()
    names = ["it's 1.wav", "$(touch PWNED) 2.wav", 'say "3".wav']
    for name in names[1:]:
        soundfile.write(folder / name, tone(1.0), 16000)
    archive = pack(tone, folder, names[:1])
    audios = [AudioFile(archive, names[0]), *(AudioFile(folder / name) for name in names[1:])]
    utterances = [
        Utterance(f"cv_en_a-{number}", audio, "good day", "cv_en_a", "en")
        for number, audio in enumerate(audios)
    ]
    write_set(tmp_path / "data", utterances, nj=1)
    assert format_folder(tmp_path / "data", tmp_path / "dump", nj=1) == {"kept": 3}
    pipe = tables.read(tmp_path / "data/wav.scp", "")["cv_en_a-0"]
    as_espnet_reads_it = kaldi.load_mat(pipe)[1]
    assert len(as_espnet_reads_it) == 16000
    assert not Path("PWNED").exists()


def test_a_moved_set_is_not_made_again(make_data, tmp_path: Path) -> None:
    data, dump = make_data(2), tmp_path / "dump"
    format_folder(data, dump, nj=1)
    made = (dump / "data" / "shard.00001.ark").stat().st_mtime_ns
    dump.rename(tmp_path / "larger disk")
    format_folder(data, tmp_path / "larger disk", nj=1)
    assert (tmp_path / "larger disk" / "data" / "shard.00001.ark").stat().st_mtime_ns == made
    assert len(load(tmp_path / "larger disk")) == 2


READERS = [
    (librispeech, "LibriSpeech", "en", "dev-clean"),
    (commonvoice, "commonvoice", "fr", "dev"),
    (voxpopuli, "voxpopuli", "de", "dev"),
    (mls, "mls", "nl", "dev"),
    (fleurs, "fleurs", "es", "dev"),
]


@pytest.mark.parametrize(("corpus", "folder", "lang", "split"), READERS)
def test_real_audio_of_each_corpus(shared_corpora, tmp_path, corpus, folder, lang, split) -> None:
    utterances = list(corpus.prepare(shared_corpora / folder, lang, split))[:5]
    report = write_set(tmp_path / "data", utterances, nj=1)
    counts = format_folder(tmp_path / "data", tmp_path / "dump", nj=1)
    assert counts == {"kept": report.kept}
    sounds = load(tmp_path / "dump")
    seconds = sum(len(samples) for samples in sounds.values()) / 16000
    # mp3 decoders may add 0.1 s of padding
    assert seconds == pytest.approx(sum(report.seconds.values()), abs=0.1 * len(sounds))
    assert all(np.std(samples) > 1e-3 for samples in sounds.values())
