"""Damaged and hostile model files, loaded by `mlma transcribe`."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import yaml

from tests.campaign import fixtures
from tests.campaign.cases import Campaign
from tests.campaign.damage import byte_damages
from tests.campaign.forked import Ended, fault, run

PART = "models"
# Value that an option of a model cannot have, by its place in config.yaml.
WRONG_VALUES = {
    "token_list": [None, 5, [], ["a"], "nowhere.txt", ["a", "a", "b"], [1, 2, 3], {"a": 1}],
    "token_type": ["none", 5, None, ["char"]],
    "bpemodel": [5, "nowhere.model", [], "."],
    "encoder": [None, "unknown", 5, "os.system", []],
    "encoder_conf": [None, 5, "x", [], {"no_such_option": 1}],
    "encoder_conf.output_size": [0, -1, "a", None, 17, 2**40, float("nan")],
    "encoder_conf.num_blocks": [0, -1, "a", None, 2**33, 1.5],
    "encoder_conf.linear_units": [0, -5, "a", 2**45],
    "encoder_conf.input_layer": ["unknown", 5, None],
    "encoder_conf.cnn_module_kernel": [0, -1, "a", 2**40],
    "frontend": ["unknown", 5, []],
    "frontend_conf": [None, 5, "x", {"no_such_option": 1}],
    "frontend_conf.fs": [0, -1, "sixteen", 2**62],
    "frontend_conf.n_fft": [0, -1, "a", 2**40],
    "frontend_conf.hop_length": [0, -160, "a", 1.5],
    "frontend_conf.win_length": [0, -1, "a", 2**40],
    "frontend_conf.n_mels": [0, -1, 79, 2**40],
    "normalize": ["unknown", 5],
    "normalize_conf": [5, "x", [], {"no_such_option": 1}],
    "normalize_conf.stats_file": [5, [], "nowhere.npz", ".", "", "/dev/zero"],
    "model": ["unknown", 5],
    "model_conf": [5, "x", {"no_such_option": 1}],
    "model_conf.ctc_weight": [2, "a", -1, 0.3],
    "ctc_conf": [5, "x", {"no_such_option": 1}],
    "specaug": ["unknown", 5],
    "preencoder": ["unknown", 5],
    "postencoder": ["unknown"],
    "input_size": ["a", -1, 2**40],
    "train_data_path_and_name_and_type": [5, "x", [5], [[]], {"a": 1}],
}


def campaign(report: Campaign, folder: Path) -> None:
    """Try every kind of damage.

    Args:
        report: gets the cases.
        folder: to work in; empty.
    """
    fixtures.import_models()
    sound = fixtures.clip(folder / "clip.wav")
    model, bpe = folder / "char/exp/model", folder / "bpe/exp/model"
    packed = folder / "model.zip"
    for make in (
        lambda: fixtures.experiment(folder / "char"),
        lambda: fixtures.experiment(folder / "bpe", bpe=True),
        lambda: fixtures.pack(model, packed),
    ):
        made = run(make)
        assert made.status == 0, made.err
    whole = transcribe(model, sound, folder)
    if fault(whole) or not whole.out.strip():
        report.add(PART, "whole", "experiment", fault(whole) or "no text")
        return
    text = whole.out
    works = folder / "work"
    step = 12 if report.quick else 1
    tried = [
        *_damaged_bytes(model, packed, bpe, report.seed),
        *_wrong_values(model),
        *_odd_places(model, packed),
        *_odd_checkpoints(model),
        *_hostile(model, packed, folder),
    ]
    for group, name, source, damage, expect in tried[::step]:
        shutil.rmtree(works, ignore_errors=True)
        works.mkdir()
        sentinel = folder / "sentinel"
        target = _copy(source, works)
        damage(target)
        verdict = _judge(transcribe(target, sound, works), text, expect, source == bpe)
        if sentinel.exists() or Path("/tmp/mlma-campaign-sentinel").exists():
            verdict = "code of the model ran, or a file outside its folder was written"
            shutil.rmtree(sentinel, ignore_errors=True)
            Path("/tmp/mlma-campaign-sentinel").unlink(missing_ok=True)
        report.add(PART, group, name, verdict)


Damaged = tuple[str, str, Path, Callable[[Path], object], str]


def transcribe(model: Path, sound: Path, cwd: Path) -> Ended:
    """Recognise a sound in a forked process."""
    from espnet_mlma.cli import main

    return run(lambda: main(["transcribe", "--model", str(model), str(sound)]), cwd=str(cwd))


def _judge(ended: Ended, text: str, expect: str, is_bpe: bool) -> str | None:
    wrong = fault(ended)
    if wrong or ended.status:
        return wrong
    if expect == "refused":
        return f"taken for good, text {ended.out.strip()[:60]!r}"
    if expect == "same" and ended.out != text and not is_bpe:
        return f"exit status 0 and another text: {ended.out.strip()[:60]!r}"
    return None


def _copy(source: Path, work: Path) -> Path:
    """A model that may be damaged: the zip, or the experiment with what lies above it."""
    if source.is_file():
        return Path(shutil.copy(source, work))
    shutil.copytree(source.parents[1], work / "model")
    return work / "model" / "exp" / source.name


def _damaged_bytes(model: Path, packed: Path, bpe: Path, seed: int) -> Iterator[Damaged]:
    files = {
        "checkpoint": (model, "valid.cer_ctc.ave.pth"),
        "config.yaml": (model, "config.yaml"),
        "statistics": (model, "../stats/train/feats_stats.npz"),
        "BPE model": (bpe, "../../data/bpe.model"),
        "packed zip": (packed, None),
    }
    for number, (group, (source, inside)) in enumerate(files.items()):
        content = (source / inside if inside else source).read_bytes()
        # One bit of a configuration makes another valid one more often than not.
        expect = "any" if group in ("config.yaml", "BPE model") else "same"
        for name, damaged in byte_damages(content, [seed, number]):

            def write(target: Path, inside=inside, damaged=damaged) -> None:
                (target / inside if inside else target).write_bytes(damaged)

            yield group, name, source, write, expect


def _wrong_values(model: Path) -> Iterator[Damaged]:
    def edit(change: Callable[[dict], object]) -> Callable[[Path], object]:
        def damage(target: Path) -> None:
            file = target / "config.yaml"
            config = yaml.safe_load(file.read_text())
            change(config)
            file.write_text(yaml.safe_dump(config))

        return damage

    config = yaml.safe_load((model / "config.yaml").read_text())
    for key in sorted(config):
        yield "no key", key, model, edit(lambda c, key=key: c.pop(key)), "same"
    for place, values in WRONG_VALUES.items():
        *above, key = place.split(".")
        for value in values:

            def change(config: dict, above=above, key=key, value=value) -> None:
                for part in above:
                    config = config[part]
                config[key] = value

            yield "wrong value", f"{place}: {value!r}", model, edit(change), "any"


def _odd_places(model: Path, packed: Path) -> Iterator[Damaged]:
    def replace(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
        def damage(target: Path) -> None:
            (target / name).unlink()
            make(target / name)

        return damage

    makers: dict[str, Callable[[Path], object]] = {
        "missing": lambda path: None,
        "a folder": Path.mkdir,
        "a link to nothing": lambda path: path.symlink_to("nowhere"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a named pipe": os.mkfifo,
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    }
    for name in ("valid.cer_ctc.ave.pth", "config.yaml", "../stats/train/feats_stats.npz"):
        for kind, make in makers.items():
            yield "odd place", f"{Path(name).name} is {kind}", model, replace(name, make), "refused"
    names = ("config.yaml", "valid.cer_ctc.ave.pth")
    for first, second in (names, names[::-1]):

        def swap(target: Path, first=first, second=second) -> None:
            shutil.copy(target / first, target / second)

        yield "odd place", f"{first} as {second}", model, swap, "refused"
    yield "odd place", "a sound as zip", packed, lambda target: fixtures.clip(target), "refused"


def _odd_checkpoints(model: Path) -> Iterator[Damaged]:
    import torch

    file = "valid.cer_ctc.ave.pth"
    state = torch.load(model / file, weights_only=True)
    some = "ctc.ctc_lo.weight"
    tensor = state[some]

    def filled(value: float) -> dict:
        changed = tensor.clone()
        changed[3, 2] = value
        return state | {some: changed}

    objects = {
        "an empty mapping": {},
        "a list": list(state.values()),
        "a number": 5,
        "a tensor": tensor,
        "one key less": {key: value for key, value in state.items() if key != some},
        "one key more": state | {"more": tensor},
        "keys that are numbers": {3: tensor} | state,
        "a number for a tensor": state | {some: 5.0},
        "None for a tensor": state | {some: None},
        "a list for a tensor": state | {some: tensor.tolist()},
        "another shape": state | {some: tensor.T.contiguous()},
        "no elements": state | {some: tensor[:0]},
        "a scalar": state | {some: tensor[0, 0]},
        "NaN": filled(float("nan")),
        "Inf": filled(float("inf")),
        "minus Inf": filled(float("-inf")),
        "NaN in a buffer": {
            key: torch.full_like(value, float("nan")) if "mean" in key else value
            for key, value in state.items()
        }
        if any("mean" in key for key in state)
        else filled(float("nan")),
        "a whole training checkpoint": {"model": state, "optimizers": [], "schedulers": []},
        "complex numbers": state | {some: tensor.to(torch.complex64)},
        "a sparse tensor": state | {some: tensor.to_sparse()},
        "a tensor without memory": state | {some: tensor.to("meta")},
    }
    for name, content in objects.items():

        def save(target: Path, content=content) -> None:
            torch.save(content, target / file)

        yield "odd checkpoint", name, model, save, "refused"
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool):
        changed = state | {some: tensor.to(dtype)}

        def save(target: Path, changed=changed) -> None:
            torch.save(changed, target / file)

        yield "odd checkpoint", str(dtype), model, save, "any"

    def legacy(target: Path) -> None:
        torch.save(state, target / file, _use_new_zipfile_serialization=False)

    yield "odd checkpoint", "of PyTorch before 1.6", model, legacy, "same"

    def script(target: Path) -> None:
        torch.jit.script(torch.nn.Linear(2, 2)).save(target / file)

    yield "odd checkpoint", "TorchScript", model, script, "refused"

    def huge(target: Path) -> None:
        content = io.BytesIO()
        torch.save(state, content, _use_new_zipfile_serialization=False)
        data = content.getvalue().replace(b"K\xa0\x8a", b"\x8a\x06\xff\xff\xff\xff\xff\x00\x8a")
        (target / file).write_bytes(data)

    yield "odd checkpoint", "a storage of 2^40", model, huge, "any"


class _Payload:
    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _hostile(model: Path, packed: Path, folder: Path) -> Iterator[Damaged]:
    checkpoint = "valid.cer_ctc.ave.pth"
    sentinel = folder / "sentinel"
    payload = _Payload(os.makedirs, str(sentinel), 0o777, True)
    for protocol in (0, 2, 4):
        bare = pickle.dumps({"a": payload}, protocol)
        yield (
            "hostile",
            f"pickle of protocol {protocol} as checkpoint",
            model,
            lambda target, bare=bare: (target / checkpoint).write_bytes(bare),
            "refused",
        )
    for spelled in ("os.makedirs", "torch.serialization.os.makedirs", "posix.mkdir"):
        module, _, name = spelled.rpartition(".")

        def inject(target: Path, module=module, name=name) -> None:
            call = f"c{module}\n{name}\n(X".encode()
            path = str(sentinel).encode()
            call += len(path).to_bytes(4, "little") + path + b"tR0\x80\x02"
            with zipfile.ZipFile(model / checkpoint) as old:
                members = {info.filename: old.read(info) for info in old.infolist()}
            with zipfile.ZipFile(target / checkpoint, "w", zipfile.ZIP_STORED) as new:
                for member, content in members.items():
                    is_pickle = member.endswith("data.pkl")
                    new.writestr(member, call + content[2:] if is_pickle else content)

        yield "hostile", f"{spelled} in data.pkl", model, inject, "refused"

    def objects(target: Path) -> None:
        odd = np.empty(1, object)
        odd[0] = payload
        file = target / "../stats/train/feats_stats.npz"
        np.savez(file, count=odd, sum=odd, sum_square=odd)

    yield "hostile", "objects in the statistics", model, objects, "refused"

    def bare_objects(target: Path) -> None:
        with open(target / "../stats/train/feats_stats.npz", "wb") as file:
            pickle.dump(payload, file)

    yield "hostile", "a pickle as the statistics", model, bare_objects, "refused"
    texts = {
        "a call in YAML": f"!!python/object/apply:os.makedirs ['{sentinel}']\n",
        "a name in YAML": "encoder: !!python/name:os.system\n",
        "YAML that multiplies": "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))
        + "token_list: *i\n",
        "YAML 20000 deep": "a: " + "[" * 20000 + "]" * 20000 + "\n",
        "YAML within itself": "a: &a [*a]\ntoken_list: *a\n",
        "a long key": "x" * 2**20 + ": 1\n",
    }
    for name, text in texts.items():
        for whole in (False, True):

            def write(target: Path, text=text, whole=whole) -> None:
                file = target / "config.yaml"
                file.write_text((file.read_text() if whole else "") + text)

            yield "hostile", name + (" at the end" if whole else ""), model, write, "any"
    metas = {
        "above": "yaml_files: {asr_train_config: ../../../../sentinel}\n"
        "files: {asr_model_file: a}\n",
        "absolute": "yaml_files: {asr_train_config: /etc/passwd}\n"
        "files: {asr_model_file: /etc/passwd}\n",
        "no names": "yaml_files: 5\nfiles: [1]\n",
        "numbers": "yaml_files: {asr_train_config: 5}\nfiles: {asr_model_file: 6}\n",
        "empty": "",
        "a list": "- a\n",
        "deep": "[" * 20000,
    }
    for name, meta in metas.items():

        def rewrite(target: Path, meta=meta) -> None:
            with zipfile.ZipFile(packed) as old:
                members = {info.filename: old.read(info) for info in old.infolist()}
            with zipfile.ZipFile(target, "w") as new:
                for member, content in (members | {"meta.yaml": meta.encode()}).items():
                    new.writestr(member, content)

        yield "hostile", f"meta.yaml, {name}", packed, rewrite, "refused"
    outside = ("../../mlma-campaign-sentinel", "/tmp/mlma-campaign-sentinel")
    for name in outside:

        def escape(target: Path, name=name) -> None:
            with zipfile.ZipFile(target, "a") as archive:
                archive.writestr(name, "x")

        yield "hostile", f"zip member {name}", packed, escape, "any"

    def bomb(target: Path) -> None:
        with (
            zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as archive,
            archive.open("exp/stats/bomb", "w", force_zip64=True) as member,
        ):
            for _ in range(2**9):
                member.write(bytes(2**22))

    yield "hostile", "a zip member of 2 GiB of zeros", packed, bomb, "any"
