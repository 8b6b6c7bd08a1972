"""What is imported when it is first used: names of the packages' faces, and the Auto registration.

The command line's help, lists and refusals need neither torch nor transformers, so importing
`rs_models` may not either. Yet `AutoModelForPreTraining.from_pretrained` has to know the methods
after it, whichever of the two packages is imported first: the registration waits until the Auto
classes of transformers are imported, and until no module of either package is half imported.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# The first of the Auto classes' modules: the others import it.
_AUTO = "transformers.models.auto.configuration_auto"
_WATCHED = (__package__, "transformers")


def names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` that imports a name's module on first use.

    Args:
        package: `__name__` of the package.
        modules: Public name -> the module of the package that has it.
    """

    def attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return attribute


def register() -> None:
    """Registers methods, segmentation and detection networks with transformers' Auto classes."""
    from transformers import (
        AutoConfig,
        AutoModelForObjectDetection,
        AutoModelForPreTraining,
        AutoModelForSemanticSegmentation,
    )

    from .methods import METHODS, method_classes
    from .tasks.faster_rcnn import FasterRcnnConfig, FasterRcnnForObjectDetection
    from .tasks.segmenters import SEGMENTERS

    for name in METHODS:
        config_class, model_class = method_classes(name)
        # exist_ok: a notebook that reloads the package registers twice.
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoModelForPreTraining.register(config_class, model_class, exist_ok=True)
    for segmenter_config, segmenter in SEGMENTERS:
        AutoConfig.register(segmenter_config.model_type, segmenter_config, exist_ok=True)
        AutoModelForSemanticSegmentation.register(segmenter_config, segmenter, exist_ok=True)
    AutoConfig.register(FasterRcnnConfig.model_type, FasterRcnnConfig, exist_ok=True)
    AutoModelForObjectDetection.register(
        FasterRcnnConfig, FasterRcnnForObjectDetection, exist_ok=True
    )


class _Watch(importlib.abc.MetaPathFinder):
    """Registers once, after the import in which the Auto classes came.

    Python calls it for each module that is not imported yet; it finds none itself, and only puts
    a step behind the loading of ours and transformers'. Imports run inside each other, so after
    the outermost one that it saw nothing is half imported any more.
    """

    def __init__(self) -> None:
        self.depth = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The ordinary specification of a watched module; None for all others."""
        watched = name.partition(".")[0] in _WATCHED
        spec = PathFinder.find_spec(name, path, target) if watched else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            self.depth += 1
            try:
                load(module)
            finally:
                self.depth -= 1
            if self.depth == 0:
                self.settle()

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec

    def settle(self) -> None:
        """Registers where the Auto classes are there, and stops watching."""
        if _AUTO in sys.modules:
            sys.meta_path.remove(self)
            register()


def register_when_needed() -> None:
    """Registers now where transformers' Auto classes are imported already, else when they are."""
    if any(isinstance(finder, _Watch) for finder in sys.meta_path):
        return
    watch = _Watch()
    sys.meta_path.insert(0, watch)
    if _AUTO in sys.modules:
        watch.settle()
