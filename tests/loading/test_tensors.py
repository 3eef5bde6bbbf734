"""Files of parameters: no code is run; NaN and wrong shapes and types are refused."""

import copyreg
import io
import os
import pickle
import struct
import tarfile
import zipfile

import pytest
import torch

from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import shapes, tensors
from espnet_mlma.sst.encoder.weights import load_wav2vec2

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def name(module: str, attribute: str) -> bytes:
    """Pickle a global by protocol 2, for which Python's unpickler follows no dots."""
    return f"c{module}\n{attribute}\n".encode()


def stack_name(module: str, attribute: str) -> bytes:
    """Pickle a global by protocol 4, which follows dots."""
    return text(module) + text(attribute) + b"\x93"


def dotted(command: str) -> bytes:
    """Reach eval through the globals of an allowed function."""
    get = stack_name("torch._utils", "_rebuild_tensor.__globals__.__class__.get")
    found = stack_name("torch._utils", "_rebuild_tensor.__globals__")
    builtins = get + found + text("__builtins__") + b"\x86R"
    evaluate = get + builtins + text("eval") + b"\x86R"
    return b"\x80\x04" + evaluate + text(f"__import__('os').system({command!r})") + b"\x85R."


def getattr_chain(command: str) -> bytes:
    system = name("builtins", "getattr") + name("os", "path") + text("os") + b"\x86R"
    system = name("builtins", "getattr") + system + text("system") + b"\x86R"
    return b"\x80\x02" + system + text(command) + b"\x85R."


def by_extension(command: str) -> bytes:
    return b"\x80\x02\x82\xf0" + text(command) + b"\x85R."


# Python's own unpickler runs the command in each of these.
HOSTILE = {
    "dots": dotted,
    "getattr": getattr_chain,
    "extension": by_extension,
    "protocol 0": lambda command: b"cos\nsystem\n(V" + command.encode() + b"\ntR.",
    "inst": lambda command: b"(V" + command.encode() + b"\nios\nsystem\n.",
    "obj": lambda command: b"(cos\nsystem\nV" + command.encode() + b"\no.",
    "protocol 2": lambda command: b"\x80\x02cposix\nsystem\n" + text(command) + b"\x85R.",
    "python 2": lambda command: (
        b"\x80\x02c__builtin__\neval\n" + text(f"__import__('os').system({command!r})") + b"\x85R."
    ),
    "protocol 4": lambda command: (
        b"\x80\x04" + stack_name("os", "system") + text(command) + b"\x85R."
    ),
    "protocol 5": lambda command: (
        b"\x80\x05" + stack_name("builtins", "exec")
        + text(f"import os; os.system({command!r})") + b"\x85R."
    ),
    "process": lambda command: (
        b"\x80\x02csubprocess\ngetoutput\n" + text(command) + b"\x85R."
    ),
    "state": lambda command: (
        # functools.partial takes its function from its state.
        b"\x80\x02cfunctools\npartial\ncbuiltins\nprint\n\x85R(cos\nsystem\n"
        + text(command) + b"\x85}Ntb."
    ),
}  # fmt: skip
# Globals of PyTorch that read or run other files.
LOADERS = [("torch", "load"), ("torch.jit", "load"), ("torch.hub", "load"), ("numpy", "load")]


def as_zip(file, pickled: bytes) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in (
            ("data.pkl", pickled), ("byteorder", b"little"), ("version", b"3\n"),
        ):  # fmt: skip
            archive.writestr(f"archive/{member}", data)


def as_legacy(file, pickled: bytes) -> None:
    head = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, {"little_endian": True})]
    file.write_bytes(b"".join([*head, pickled, pickle.dumps([], 2)]))


def as_tar(file, pickled: bytes) -> None:
    empty = pickle.dumps(0, 2)
    with tarfile.open(file, "w") as archive:
        for member, data in (("storages", empty + pickle.dumps([], 2)), ("tensors", empty)):
            archive.addfile(_member(member, data), io.BytesIO(data))
        archive.addfile(_member("pickle", pickled), io.BytesIO(pickled))


def _member(member: str, data: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(member)
    info.size = len(data)
    return info


FORMATS = {"zip": as_zip, "legacy": as_legacy, "tar": as_tar, "bare": lambda f, p: f.write_bytes(p)}


@pytest.fixture
def extension():
    copyreg.add_extension("os", "system", 240)
    copyreg._extension_registry[("posix", "system")] = 240
    yield
    del copyreg._extension_registry[("posix", "system")]
    copyreg.remove_extension("os", "system", 240)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_code_in_a_checkpoint_is_not_run(tmp_path, extension, monkeypatch, kind, form):
    monkeypatch.chdir(tmp_path)
    pickled = HOSTILE[kind](f"touch {tmp_path}/run")
    file = tmp_path / "model.pt"
    FORMATS[form](file, pickled)
    with pytest.raises(MlmaError) as error:
        tensors.read(file)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
    for read in (load_wav2vec2, shapes.read):
        with pytest.raises(MlmaError):
            read(file)
    assert os.listdir(tmp_path) == ["model.pt"]


@pytest.mark.parametrize("kind", HOSTILE)
def test_pickles_run_the_command_in_pythons_unpickler(tmp_path, extension, kind):
    loaded = pickle.loads(HOSTILE[kind](f"touch {tmp_path}/run"))
    if kind == "state":
        loaded()
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize(("module", "attribute"), LOADERS)
def test_a_checkpoint_opens_no_other_file(tmp_path, module, attribute):
    pickled = b"\x80\x02" + name(module, attribute) + text(str(tmp_path / "fifo")) + b"\x85R."
    os.mkfifo(tmp_path / "fifo")  # who opens it waits
    as_zip(tmp_path / "model.pt", pickled)
    with pytest.raises(MlmaError, match=f"{module}.{attribute}"):
        tensors.read(tmp_path / "model.pt")
    with pytest.raises(MlmaError, match=f"{module}.{attribute}"):
        shapes.read(tmp_path / "model.pt")
    assert tensors.read(tmp_path / "model.pt", foreign=True) == []


def test_a_checkpoint_changes_no_function(tmp_path):
    before = torch._utils._rebuild_tensor_v2.__defaults__
    state = b"N}" + text("__defaults__") + b"NK\x07\x86s\x86b"
    as_zip(
        tmp_path / "m.pt", b"\x80\x02" + name("torch._utils", "_rebuild_tensor_v2") + state + b"."
    )
    for foreign in (False, True):
        with pytest.raises(MlmaError):
            tensors.read(tmp_path / "m.pt", foreign)
    with pytest.raises(MlmaError):
        shapes.read(tmp_path / "m.pt")
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def test_a_legacy_container_writes_no_file(tmp_path, monkeypatch):
    """PyTorch's legacy reader may write a patch of a container's source."""
    monkeypatch.chdir(tmp_path)
    container = name("argparse", "Namespace")
    patches = container + b"N}" + text("dump_patches") + b"\x88s\x86b0"
    saved = b"(" + text("module") + container + text("a.py") + text("new source") + b"tQ"
    as_legacy(tmp_path / "model.pt", b"\x80\x02" + patches + saved + b".")
    with pytest.raises(MlmaError):
        tensors.read(tmp_path / "model.pt", foreign=True)
    assert os.listdir(tmp_path) == ["model.pt"]


def test_torchscript_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "model.pt")
    for foreign in (False, True):
        with pytest.raises(MlmaError, match=r"model\.pt: a damaged checkpoint"):
            tensors.read(tmp_path / "model.pt", foreign)


def test_a_compressed_archive_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in stored.namelist():
            bomb.writestr(member, stored.read(member))
    for read in (tensors.read, shapes.read):
        with pytest.raises(MlmaError, match="compressed archive"):
            read(tmp_path / "bomb.pt")


MODEL = {"a": torch.zeros(2, 3), "steps": torch.tensor(0)}
GOOD = {"a": torch.ones(2, 3), "steps": torch.tensor(5)}
WRONG = {
    "no mapping": ([1], "a list, not parameters by name"),
    "missing": ({"a": GOOD["a"]}, "lacks 1 parameters, first 'steps'"),
    "unknown": (GOOD | {"b": torch.ones(1)}, "has unknown 1 parameters, first 'b'"),
    "unknown, no text": (GOOD | {7: torch.ones(1)}, "has unknown 1 parameters, first '7'"),
    "shape": (GOOD | {"a": torch.ones(3, 2)}, r"'a' is \[3, 2\], the model's is \[2, 3\]"),
    # Expands to a trillion values; reading all would not end.
    "stretched": (GOOD | {"a": torch.ones(1).expand(10**6, 10**6)}, "'a' is "),
    "no tensor": (GOOD | {"a": "ones"}, "'a' is not a plain tensor"),
    "a list": (GOOD | {"a": [[1.0] * 3] * 2}, "'a' is not a plain tensor"),
    "sparse": (GOOD | {"a": torch.ones(2, 3).to_sparse()}, "'a' is not a plain tensor"),
    "meta": (GOOD | {"a": torch.ones(2, 3, device="meta")}, "'a' is not a plain tensor"),
    "integers": (GOOD | {"a": torch.ones(2, 3, dtype=torch.int64)}, "'a' is torch.int64"),
    "complex": (GOOD | {"a": torch.ones(2, 3, dtype=torch.cfloat)}, "'a' is torch.complex64"),
    "no integers": (GOOD | {"steps": torch.tensor(5.0)}, "'steps' is torch.float32"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_parameters_that_do_not_fit_are_refused(kind):
    found, message = WRONG[kind]
    with pytest.raises(MlmaError, match=f"m.pt: {message}"):
        tensors.check(found, MODEL, "m.pt", "config.yaml")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_nan_and_inf_are_refused(value, dtype):
    tensors.check(GOOD | {"a": GOOD["a"].to(dtype)}, MODEL, "m.pt", "config.yaml")
    bad = GOOD["a"].to(dtype, copy=True)
    bad[1, 2] = value
    with pytest.raises(MlmaError, match="m.pt: 'a' has NaN or Inf"):
        tensors.check(GOOD | {"a": bad}, MODEL, "m.pt", "config.yaml")


def test_ignored_and_empty_parameters_are_accepted():
    found = GOOD | {"head": torch.tensor([float("nan")]), "none": torch.ones(0)}
    tensors.check(found, MODEL | {"none": torch.ones(0)}, "m.pt", "config.yaml", ["head"])


def test_wrong_checksums_are_refused(tmp_path):
    file = tmp_path / "model.pth"
    torch.save({"weight": torch.arange(64.0)}, file)
    contents = file.read_bytes()
    place = contents.index(torch.arange(64.0).numpy().tobytes())
    file.write_bytes(contents[:place] + bytes(8) + b"\x01" + contents[place + 9 :])
    with pytest.raises(MlmaError, match="does not match its checksum"):
        tensors.read(file)
