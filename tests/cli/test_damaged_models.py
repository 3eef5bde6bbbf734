"""Damaged models: each is one line of error and exit 1, never a traceback, never a transcript."""

import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import yaml

STATISTICS = "exp/stats/feats_stats.npz"
WEIGHTS = "exp/asr/valid.cer_ctc.ave.pth"
CONFIG = "exp/asr/config.yaml"
BPE = "data/bpe.model"


def train_bpe(prefix: Path, sentences: list[str]) -> list[str]:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(prefix),
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    lines = prefix.with_suffix(".vocab").read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[0] for line in lines]


@pytest.fixture(scope="session")
def sound_model(make_experiment, tmp_path_factory) -> Path:
    """A recipe's folder with a tiny bpe model, normalised by statistics beside it."""
    from espnet2.tasks.asr import ASRTask

    root = tmp_path_factory.mktemp("recipe")
    for folder in ("exp/stats", "data"):
        (root / folder).mkdir(parents=True)
    np.savez(root / STATISTICS, count=10, sum=np.zeros(80), sum_square=np.ones(80) * 10)
    pieces = train_bpe(root / "data" / "bpe", ["a cat and a hat", "the book is red"])
    folder = make_experiment(
        ASRTask,
        encoder="conmamba",
        encoder_conf={"output_size": 16, "num_blocks": 1, "linear_units": 16},
        token_list=["<blank>", *(piece for piece in pieces if piece[0] != "<"), "<sos/eos>"],
        token_type="bpe",
        model_conf={"ctc_weight": 1.0},
        normalize="global_mvn",
        normalize_conf={"stats_file": str(root / STATISTICS)},
    )
    shutil.copytree(folder, root / "exp" / "asr")
    edit_config(bpemodel=BPE, normalize_conf={"stats_file": STATISTICS})(root)
    return root


def edit_config(**changes):
    def damage(root: Path) -> None:
        config = yaml.safe_load((root / CONFIG).read_text())
        (root / CONFIG).write_text(yaml.safe_dump(config | changes))

    return damage


def edit_tokens(edit):
    def damage(root: Path) -> None:
        tokens = yaml.safe_load((root / CONFIG).read_text())["token_list"]
        edit_config(token_list=edit(tokens))(root)

    return damage


def edit_weights(edit):
    def damage(root: Path) -> None:
        state = torch.load(root / WEIGHTS)
        torch.save(edit(state), root / WEIGHTS)

    return damage


def without(state, key):
    return {name: tensor for name, tensor in state.items() if name != key}


def write(name: str, content: bytes | str):
    data = content.encode() if isinstance(content, str) else content
    return lambda root: (root / name).write_bytes(data)


def cut(name: str, share: float):
    def damage(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: int(share * len(data))])

    return damage


def remove(name: str):
    return lambda root: (root / name).unlink()


def as_folder(name: str):
    def damage(root: Path) -> None:
        (root / name).unlink()
        (root / name).mkdir()

    return damage


def link_to_nothing(name: str):
    def damage(root: Path) -> None:
        (root / name).unlink()
        (root / name).symlink_to("nothing")

    return damage


def link_to_itself(name: str):
    def damage(root: Path) -> None:
        (root / name).unlink()
        (root / name).symlink_to((root / name).name)

    return damage


def fifo(name: str):
    def damage(root: Path) -> None:
        (root / name).unlink()
        os.mkfifo(root / name)

    return damage


def statistics(**arrays):
    return lambda root: np.savez(root / STATISTICS, **arrays)


def compressed_statistics(root: Path) -> None:
    np.savez_compressed(root / STATISTICS, count=1, sum=np.zeros(1 << 23), sum_square=np.ones(80))


def other_bpe(root: Path) -> None:
    train_bpe(root / "data" / "bpe", ["Жёлтый ключ", "Ночной город зимой"])


def legacy(edit):
    def damage(root: Path) -> None:
        state = edit(torch.load(root / WEIGHTS))
        torch.save(state, root / WEIGHTS, _use_new_zipfile_serialization=False)
        cut(WEIGHTS, 0.7)(root)

    return damage


NAN, INF = float("nan"), float("inf")
BIAS, HEAD = "ctc.ctc_lo.bias", "ctc.ctc_lo.weight"
OBJECTS = np.array([{"a": 1}], dtype=object)
GOOD = {"count": 10, "sum": np.zeros(80), "sum_square": np.ones(80)}

DAMAGES = {
    "config missing": remove(CONFIG),
    "config empty": write(CONFIG, ""),
    "config cut": cut(CONFIG, 0.05),
    "config binary": write(CONFIG, bytes(range(256)) * 9),
    "config text": write(CONFIG, "not a configuration"),
    "config list": write(CONFIG, "[1, 2]"),
    "config a date that is none": write(CONFIG, "a: 2024-13-45"),
    "config deep": write(CONFIG, "[" * 20000),
    "config with tags": write(CONFIG, "a: !!python/object/apply:os.system [true]"),
    "config numbers as keys": edit_config(**{}) and (
        lambda root: (root / CONFIG).write_text((root / CONFIG).read_text() + "\n7: 8\n")
    ),
    "config folder": as_folder(CONFIG),
    "config link to nothing": link_to_nothing(CONFIG),
    "config link to itself": link_to_itself(CONFIG),
    "config fifo": fifo(CONFIG),
    "config of nothing": edit_config(encoder=None, encoder_conf=None),
    "encoder unknown": edit_config(encoder="tomorrow's"),
    "encoder number": edit_config(encoder=7),
    "encoder list": edit_config(encoder=["conmamba"]),
    "encoder of other sizes": edit_config(encoder_conf={"output_size": 24}),
    "encoder size text": edit_config(encoder_conf={"output_size": "16"}),
    "encoder size negative": edit_config(encoder_conf={"output_size": -16}),
    "encoder size zero": edit_config(encoder_conf={"output_size": 0}),
    "encoder options list": edit_config(encoder_conf=[1]),
    "front-end number": edit_config(frontend_conf=3),
    "front-end without a hop": edit_config(frontend_conf={"hop_length": 0}),
    "front-end with a huge window": edit_config(frontend_conf={"n_fft": 10**9}),
    "front-end text": edit_config(frontend_conf={"hop_length": "many"}),
    "model options text": edit_config(model_conf="ctc"),
    "normalisation number": edit_config(normalize_conf=7),
    "token type missing": edit_config(token_type=None),
    "token type word": edit_config(token_type="word"),
    "training set text": edit_config(train_data_path_and_name_and_type="dump"),
    "training set numbers": edit_config(train_data_path_and_name_and_type=[1, 2]),
    "training set number": edit_config(train_data_path_and_name_and_type=5),
    "tokens too few": edit_tokens(lambda tokens: tokens[:-1]),
    "tokens too many": edit_tokens(lambda tokens: [*tokens, "x"]),
    "tokens twice": edit_tokens(lambda tokens: [*tokens[:-1], tokens[1]]),
    "tokens numbers": edit_tokens(lambda tokens: [*tokens[:-1], 7]),
    "tokens null": edit_tokens(lambda tokens: [*tokens[:-1], None]),
    "tokens empty": edit_tokens(lambda tokens: []),
    "tokens mapping": edit_tokens(lambda tokens: dict.fromkeys(tokens, 1)),
    "tokens without blank": edit_tokens(lambda tokens: ["<pad>", *tokens[1:]]),
    "tokens with blank last": edit_tokens(lambda tokens: [*tokens[1:], tokens[0]]),
    "tokens file missing": edit_tokens(lambda tokens: "data/tokens.txt"),
    "weights missing": remove(WEIGHTS),
    "weights empty": write(WEIGHTS, ""),
    "weights cut": cut(WEIGHTS, 0.6),
    "weights cut at the end": cut(WEIGHTS, 0.99),
    "weights text": write(WEIGHTS, "version https://git-lfs.github.com/spec/v1"),
    "weights binary": write(WEIGHTS, bytes(range(256)) * 99),
    "weights plain pickle": write(WEIGHTS, pickle.dumps({"a": 1})),
    "weights folder": as_folder(WEIGHTS),
    "weights link to nothing": link_to_nothing(WEIGHTS),
    "weights fifo": fifo(WEIGHTS),
    "weights a zip": lambda root: zipfile.ZipFile(root / WEIGHTS, "w").writestr("a", "b"),
    "weights list": edit_weights(lambda state: list(state.values())),
    "weights one tensor": edit_weights(lambda state: state[BIAS]),
    "weights a whole training": edit_weights(lambda state: {"model": state, "epoch": 3}),
    "weights number": edit_weights(lambda state: 3),
    "weights lack one": edit_weights(lambda state: without(state, BIAS)),
    "weights lack all": edit_weights(lambda state: {}),
    "weights have another": edit_weights(lambda state: state | {"b": torch.ones(1)}),
    "weights with a number as name": edit_weights(lambda state: state | {3: torch.ones(1)}),
    "weights of another shape": edit_weights(lambda state: state | {BIAS: torch.ones(3)}),
    "weights without shape": edit_weights(lambda state: state | {BIAS: torch.tensor(1.0)}),
    "weights text in a value": edit_weights(lambda state: state | {BIAS: "bias"}),
    "weights integers": edit_weights(lambda state: state | {BIAS: state[BIAS].long()}),
    "weights complex": edit_weights(lambda state: state | {BIAS: state[BIAS].to(torch.cfloat)}),
    "weights sparse": edit_weights(lambda state: state | {BIAS: state[BIAS].to_sparse()}),
    "weights NaN": edit_weights(lambda state: state | {BIAS: state[BIAS] * NAN}),
    "weights Inf": edit_weights(lambda state: state | {BIAS: state[BIAS] * -INF}),
    "weights NaN in half": edit_weights(lambda state: state | {BIAS: (state[BIAS] * NAN).half()}),
    "weights overflow": edit_weights(
        lambda state: state | {HEAD: torch.full_like(state[HEAD], 3e38) * state[HEAD].sign()}
    ),
    "weights of before 1.6, cut": legacy(lambda state: state),
    "statistics missing": remove(STATISTICS),
    "statistics empty": write(STATISTICS, ""),
    "statistics cut": cut(STATISTICS, 0.5),
    "statistics text": write(STATISTICS, "statistics"),
    "statistics folder": as_folder(STATISTICS),
    "statistics fifo": fifo(STATISTICS),
    "statistics of other bins": statistics(count=10, sum=np.zeros(40), sum_square=np.ones(40)),
    "statistics of two sizes": statistics(count=10, sum=np.zeros(80), sum_square=np.ones(40)),
    "statistics without a sum": statistics(count=10, sum_square=np.ones(80)),
    "statistics NaN": statistics(**GOOD | {"sum": np.full(80, NAN)}),
    "statistics text in an array": statistics(**GOOD | {"sum": np.array(["a"] * 80)}),
    "statistics pickled": statistics(**GOOD | {"sum": OBJECTS}),
    "statistics a pickle": write(STATISTICS, pickle.dumps({"sum": 3})),
    "statistics a bomb": compressed_statistics,
    "bpe empty": write(BPE, ""),
    "bpe cut": cut(BPE, 0.6),
    "bpe text": write(BPE, "a model"),
    "bpe of another language": other_bpe,
    "calibration text": write("exp/asr/calibration.yaml", "confidence"),
    "calibration NaN": write(
        "exp/asr/calibration.yaml", "{checkpoint: a, total: .nan, mean: 1, bias: 1}"
    ),
}  # fmt: skip
# `mlma info` does not build the model, so these need not stop it.
ONLY_TRANSCRIBE = {
    "encoder of other sizes", "encoder size text", "encoder size negative", "encoder size zero",
    "front-end without a hop", "front-end with a huge window", "front-end text", "token type word",
    "weights lack one", "weights have another", "weights of another shape", "weights without shape",
    "weights integers", "weights complex", "weights NaN", "weights Inf", "weights NaN in half",
    "weights overflow", "weights of before 1.6, cut", "statistics of other bins",
    "config numbers as keys", "calibration text", "calibration NaN",
}  # fmt: skip
# Found by what is computed, where no file is at hand.
COMPUTED = {"weights overflow": "NaN or Inf", "token type word": "token_type"}
COMPUTED["front-end without a hop"] = "hop_length"


def assert_one_line(code: int, out: str, err: str, name: str) -> None:
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 1 and len(errors) == 1, (code, out, err)
    assert "Traceback" not in err and "espnet_mlma." not in err
    assert name in errors[0] and len(errors[0]) < 800
    assert out == ""


def test_this_model_is_sound(mlma, sound_model, sounds):
    code, _, err = mlma("transcribe", sounds / "b.wav", "--model", sound_model / "exp/asr")
    assert code == 0, err
    code, out, err = mlma("info", sound_model / "exp/asr")
    assert code == 0 and "bpe" in out, err


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_model_is_one_line(mlma, sound_model, sounds, tmp_path, kind):
    root = tmp_path / "copy"
    shutil.copytree(sound_model, root)
    DAMAGES[kind](root)
    model = root / "exp/asr"
    where = COMPUTED.get(kind, str(root))
    code, out, err = mlma("info", model)
    if kind in ONLY_TRANSCRIBE:
        assert (code, err) == (0, "")
    else:
        assert_one_line(code, out, err, where)
    assert_one_line(*mlma("transcribe", sounds / "b.wav", "--model", model), where)


ZIPS = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "text": lambda data: b"version https://git-lfs.github.com/spec/v1",
    "flipped": lambda data: data[:3000] + bytes(byte ^ 255 for byte in data[3000:3100])
    + data[3100:],
}  # fmt: skip


@pytest.fixture(scope="session")
def packed(sound_model) -> dict[str, bytes]:
    """What a packed model has in it."""
    files = [CONFIG, WEIGHTS, STATISTICS, BPE]
    meta = {
        "files": {"asr_model_file": WEIGHTS},
        "yaml_files": {"asr_train_config": CONFIG},
    }
    return {"meta.yaml": yaml.safe_dump(meta).encode()} | {
        name: (sound_model / name).read_bytes() for name in files
    }


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


@pytest.mark.parametrize("kind", ZIPS)
def test_a_damaged_zip_is_one_line(mlma, packed, sounds, tmp_path, kind):
    model = tmp_path / "model.zip"
    model.write_bytes(ZIPS[kind](zipped(packed)))
    assert_one_line(*mlma("info", model), "model.zip")
    assert_one_line(*mlma("transcribe", sounds / "b.wav", "--model", model), "model.zip")


def linked(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO(zipped(without(members, STATISTICS)))
    with zipfile.ZipFile(data, "a") as archive:
        link = zipfile.ZipInfo(STATISTICS)
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return data.getvalue()


def meta(**files) -> bytes:
    return yaml.safe_dump(files).encode()


HOSTILE_ZIPS = {
    "no meta.yaml": lambda members: zipped(without(members, "meta.yaml")),
    "meta.yaml text": lambda members: zipped(members | {"meta.yaml": b"meta"}),
    "meta.yaml binary": lambda members: zipped(members | {"meta.yaml": bytes(range(256))}),
    "meta.yaml of lists": lambda members: zipped(members | {"meta.yaml": meta(files=[1])}),
    "meta.yaml of numbers": lambda members: zipped(
        members | {"meta.yaml": meta(files={"asr_model_file": 3, "asr_train_config": 4})}
    ),
    "meta.yaml names a missing file": lambda members: zipped(without(members, WEIGHTS)),
    "meta.yaml names a file elsewhere": lambda members: zipped(
        members | {"meta.yaml": meta(files={"asr_model_file": "../../etc/passwd",
                                            "asr_train_config": CONFIG})}
    ),
    "meta.yaml names an absolute file": lambda members: zipped(
        members | {"meta.yaml": meta(files={"asr_model_file": "/etc/passwd",
                                            "asr_train_config": CONFIG})}
    ),
    "statistics not packed": lambda members: zipped(without(members, STATISTICS)),
    "a member above": lambda members: zipped(members | {"../above.txt": b"out"}),
    "an absolute member": lambda members: zipped(members | {"/tmp/mlma-out.txt": b"out"}),
    "a link": linked,
    "a bomb": lambda members: zipped(members | {"b": bytes(300 << 20)}, zipfile.ZIP_DEFLATED),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE_ZIPS)
def test_a_hostile_zip_is_one_line(mlma, packed, tmp_path, monkeypatch, kind):
    unpacked = tmp_path / "temporary"
    unpacked.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(unpacked))
    (tmp_path / "model.zip").write_bytes(HOSTILE_ZIPS[kind](packed))
    assert_one_line(
        *mlma("info", tmp_path / "model.zip"), "model.zip" if "stat" not in kind else ""
    )
    assert sorted(os.listdir(tmp_path)) == ["model.zip", "temporary"]
    assert os.listdir(unpacked) == [] and not os.path.exists("/tmp/mlma-out.txt")


# What ESPnet builds these from would download, unpickle or write.
FETCHING = {
    "s3prl": {"frontend": "s3prl", "frontend_conf": {"frontend_conf": {"path_or_url": "x.pt"}}},
    "fused": {"frontend": "fused", "frontend_conf": {"frontends": [{"frontend_type": "s3prl"}]}},
    "huggingface": {"frontend": "huggingface", "frontend_conf": {"model": "a/b"}},
    "espnet_ssl": {"frontend": "espnet_ssl",
                   "frontend_conf": {"frontend_conf": {"path_or_url": "x.pt"}}},
    "whisper": {"encoder": "whisper", "encoder_conf": {"download_dir": "made"}},
    "wav2vec2": {"encoder": "wav2vec2", "encoder_conf": {"w2v_url": "a", "w2v_dir_path": "made"}},
    "hubert": {"encoder": "hubert", "encoder_conf": {"hubert_url": "a", "hubert_dir_path": "made"}},
    "avhubert": {"encoder": "avhubert", "encoder_conf": {"avhubert_dir_path": "made"}},
    "beats": {"encoder": "beats", "encoder_conf": {"beats_ckpt_path": "x.pt"}},
    "decoder": {"decoder": "hugging_face_transformers",
                "decoder_conf": {"model_name_or_path": "a/b"}},
    "postencoder": {"postencoder": "hugging_face_transformers",
                    "postencoder_conf": {"model_name_or_path": "a/b"}},
}  # fmt: skip


@pytest.mark.parametrize("kind", FETCHING)
def test_a_configuration_cannot_fetch(mlma, sound_model, tmp_path, monkeypatch, kind):
    root = tmp_path / "copy"
    shutil.copytree(sound_model, root)
    edit_config(**FETCHING[kind])(root)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pt").write_bytes(b"c__main__\nrun\n.")
    assert_one_line(*mlma("info", root / "exp/asr"), "may download or run files")
    assert sorted(os.listdir(tmp_path)) == ["copy", "x.pt"]


def test_init_and_init_param_are_not_read(mlma, sound_model, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(sound_model, root)
    edit_config(init="xavier", init_param=[str(tmp_path / "none.pth")], pretrain_path="none")(root)
    assert mlma("info", root / "exp/asr")[0] == 0


NAMES = {
    "not UTF-8": os.fsdecode(b"mod\xe8le"),
    "blank": "my model",
    "percent": "100%s {0} %d",
    "line break": "two\nlines",
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_model_in_a_folder_of_any_name_loads(mlma, sound_model, sounds, tmp_path, kind):
    root = tmp_path / NAMES[kind]
    shutil.copytree(sound_model, root)
    code, _, err = mlma("transcribe", sounds / "b.wav", "--model", root / "exp/asr")
    assert code == 0, err
    assert mlma("align", sounds / "b.wav", "--text", "a cat", "--model", root / "exp/asr")[0] == 0
    (root / WEIGHTS).write_bytes(b"")
    code, out, err = mlma("transcribe", sounds / "b.wav", "--model", root / "exp/asr")
    assert code == 1 and out == "" and err.startswith("error: ") and "Traceback" not in err


@pytest.mark.parametrize("name", ["x" * 300, "a" * 200 + "/" + "b" * 300, "/dev/null", "/dev/full"])
def test_a_name_that_cannot_be_a_model_is_one_line(mlma, name):
    assert_one_line(*mlma("info", name), name[:40])
    assert_one_line(*mlma("info", f"{name}.zip"), name[:40])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, STATISTICS, BPE, "exp/asr", "exp"])
def test_a_file_without_permission_is_one_line(mlma, sound_model, tmp_path, name):
    root = tmp_path / "copy"
    shutil.copytree(sound_model, root)
    mode = (root / name).stat().st_mode
    (root / name).chmod(0)
    try:
        assert_one_line(*mlma("info", root / "exp/asr"), str(root))
    finally:
        (root / name).chmod(mode)
