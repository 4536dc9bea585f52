"""Names that are imported when they are first used: `import detr_viz` stays light.

__getattr__, __all__ = public(__name__, {"load": "npz", "load_maps": "npz:load"})

offer(__name__, {"plot": "figures.notebook"})      # in detr_viz/__init__.py, which knows all
offered("plot")(explanation)                       # in a package below, which imports none of them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def public(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], list[str]]:
    """The `__getattr__` (PEP 562) and the `__all__` of a package.

    homes: public name -> the module of the package that defines it, with ":" and its name there
           where that is another.
    """

    def attribute(name: str) -> object:
        if name in homes:
            return _imported(package, homes[name], name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute, sorted(homes)


_offers: dict[str, tuple[str, str]] = {}


def offer(package: str, homes: Mapping[str, str]) -> None:
    """Say who does what results can do, but packages above theirs know how. homes: as of public."""
    _offers.update({name: (package, home) for name, home in homes.items()})


def offered(name: str) -> Callable[..., Any]:
    """The function of an offer."""
    return _imported(*_offers[name], name)


def _imported(package: str, home: str, name: str) -> Any:
    module, _, own = home.partition(":")
    return getattr(import_module(f"{package}.{module}"), own or name)
