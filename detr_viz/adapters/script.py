"""A detector that a file of the user's builds: --model my_file.py:build.

The file is code, and it is run: only a file of one's own should be named. It must be one that says
so with the flag; no other way leads here.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from detr_viz.common.errors import UserError

if TYPE_CHECKING:
    from detr_viz.explanation.detector import Detector

SYNTAX = "FILE.py:FUNCTION, like my_file.py:build"


def parsed(text: str) -> tuple[Path, str]:
    """(file, function) of such a text; UserError for anything else, or a file that is not there."""
    file, colon, function = text.rpartition(":")
    if not colon or not function.isidentifier() or not file.endswith(".py"):
        raise UserError(f"--model {text} is not {SYNTAX}")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--model {text}: there is no file {file}")
    return path, function


def build(text: str) -> Detector:
    """Run the file, and its function: a Detector. UserError where that fails, with the line."""
    path, function = parsed(text)
    module = _run(path)
    make = getattr(module, function, None)
    if not callable(make):
        raise UserError(f"--model {text}: {path.name} has no function {function}")
    try:
        detector = make()
    except UserError as error:
        raise UserError(f"--model {text}: {error}") from None
    except Exception as error:
        raise _failed(text, path, error) from error
    if not hasattr(detector, "attention_sites") or not hasattr(detector, "info"):
        raise UserError(
            f"--model {text} gave a {type(detector).__name__}, not a detector: return "
            "detr_viz.attach(model, boxes=, scores=, preprocess=)"
        )
    return detector


def _run(path: Path) -> ModuleType:
    name = f"_detr_viz_script_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its classes pickle
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # it may import what lies beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise _failed(str(path), path, error) from error
    finally:
        sys.path.remove(folder)
    return module


def _failed(text: str, path: Path, error: Exception) -> UserError:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    where = f" (line {lines[-1]})" if lines else ""
    words = " ".join(str(error).split())[:200]
    return UserError(f"--model {text} failed{where}: {type(error).__name__}: {words}")
