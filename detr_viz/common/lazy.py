"""A package's public names, each imported when it is first used: `import detr_viz` stays light.

__getattr__, __all__ = public(__name__, {"load": "npz", "load_maps": "npz:load"})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def public(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], list[str]]:
    """The `__getattr__` (PEP 562) and the `__all__` of a package.

    homes: public name -> the module of the package that defines it, with ":" and its name there
           where that is another.
    """

    def attribute(name: str) -> object:
        if name in homes:
            module, _, own = homes[name].partition(":")
            return getattr(import_module(f"{package}.{module}"), own or name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute, sorted(homes)
