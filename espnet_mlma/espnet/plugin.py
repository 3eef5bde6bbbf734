"""Register our encoders, masks, model, preprocessors and sampler in ESPnet's tasks.

Each ESPnet task module has tables of classes, and no hook for classes from elsewhere. The entries
must be added after the module is imported. Importing every task here would cost each small command
of the recipe several seconds, so an import hook fills the tables only when ESPnet imports them.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_ASR = frozenset(["espnet2.tasks.asr", "espnet3.systems.esp2_asr.task"])
TASKS = _ASR | {f"espnet2.tasks.{task}" for task in ("st", "slu", "s2t", "s2t_ctc", "ssl")}


def register(task: ModuleType) -> None:
    """Add `conmamba` and `conformer_cnn4` to the encoders of an ESPnet task module.

    Also add `clip_specaug` to its masks, and `balanced_length` to the batch types of all tasks. The
    ASR tasks get the model `mlma_ctc` and the preprocessors `non_speech` and `espeak` too.

    Args:
        task: a module with tables `encoder_choices` and `specaug_choices`.
    """
    from espnet_mlma.encoder import ConformerCnn4Encoder, ConMambaEncoder
    from espnet_mlma.espnet import sampler
    from espnet_mlma.espnet.masks import ClipSpecAug
    from espnet_mlma.espnet.objectives import MlmaCTCModel
    from espnet_mlma.espnet.preprocessor import NonSpeechPreprocessor
    from espnet_mlma.espnet.synthetic_speech import SpeakingPreprocessor

    task.encoder_choices.classes["conmamba"] = ConMambaEncoder
    task.encoder_choices.classes["conformer_cnn4"] = ConformerCnn4Encoder
    task.specaug_choices.classes["clip_specaug"] = ClipSpecAug
    sampler.register(importlib.import_module("espnet2.tasks.abs_task"))
    if task.__name__ in _ASR:
        task.model_choices.classes["mlma_ctc"] = MlmaCTCModel
        task.preprocessor_choices.classes["non_speech"] = NonSpeechPreprocessor
        task.preprocessor_choices.classes["espeak"] = SpeakingPreprocessor


class _ThenLoader:
    """Load a module with its own loader, then call a function with it."""

    # No base class from importlib.abc, here and below: its import would slow down `mlma --help`.

    def __init__(self, loader: Any, then: Callable[[ModuleType], object]):
        self._loader = loader
        self._then = then

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._then(module)


class _Finder:
    """Find the modules that have a function registered, and wrap their loader."""

    def __init__(self) -> None:
        self.then: dict[str, Callable[[ModuleType], object]] = {}

    def find_spec(self, name, path, target=None):
        if name not in self.then:
            return None
        spec: Any = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenLoader(spec.loader, self.then[name])
        return spec


def after_import(name: str, then: Callable[[ModuleType], object]) -> None:
    """Call a function with a module after its import, or at once if it is already imported.

    Args:
        name: name of the module. Only the first function registered for a name is called.
        then: function called with the module.
    """
    finder = next((found for found in sys.meta_path if isinstance(found, _Finder)), None)
    if finder is None:
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    if name in finder.then:
        return
    finder.then[name] = then
    if name in sys.modules:
        then(sys.modules[name])


def install() -> None:
    """Register in all ESPnet tasks, imported already or later; repeated calls do nothing."""
    for name in TASKS:
        after_import(name, register)
