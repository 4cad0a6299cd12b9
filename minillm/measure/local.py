"""This machine, measured once and remembered in the user's cache folder.

Measuring takes seconds and several chapters need the figures, so they are kept as JSON: one file for each kind of
device, with the machine's name, torch's version and, in its `source`, the date. Another name (threads included) or
another torch makes it stale. Figures that scatter are returned but not kept: a quieter moment gives better ones. If
the file cannot be read or written, a warning says so and the figures are measured again.
"""

import json
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from minillm import store
from minillm.measure.machine import Machine
from minillm.measure.probe import default_device, measure_machine
from minillm.measure.timing import device_name


def this_machine(device: torch.device | str | None = None, *, refresh: bool = False) -> Machine:
    """Return the stored figures of `device`, or measure it. `refresh=True` measures in any case.

    New figures are stored unless one of them is doubtful (`Machine.doubtful`). Figures that were taken while the
    machine was evenly busy are low, and remain until refreshed.
    """
    device = default_device() if device is None else torch.device(device)
    known = None if refresh else _read(device)
    if known is not None:
        return known
    machine = measure_machine(device)
    if not machine.doubtful:
        _write(device, machine)
    return machine


def cache_dir() -> Path:
    """Return the folder for files that can be made again: $MINILLM_CACHE, or `minillm` in the system's cache folder.

    Raises RuntimeError if the user has no home folder.
    """
    if chosen := os.environ.get("MINILLM_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "minillm"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    return Path(os.environ.get(variable) or Path.home() / ".cache") / "minillm"


def _identity(device: torch.device) -> dict[str, str]:
    """Return what the figures depend on."""
    return {"name": device_name(device), "torch": torch.__version__}


def _path(device: torch.device) -> Path:
    return cache_dir() / f"machine-{device.type}.json"


def _read(device: torch.device) -> Machine | None:
    """Return the stored figures; None if none are of this machine, one is doubtful, or the file is damaged."""
    try:
        record: dict[str, Any] = store.read(_path(device))
        if record["identity"] != _identity(device):
            return None
        fields = record["machine"]
        fields["spread"] = {figure: (low, high) for figure, (low, high) in fields["spread"].items()}
        machine = Machine(**fields)
        return None if machine.doubtful else machine
    except FileNotFoundError:
        return None
    # A damaged file may hold anything: text that is no JSON, JSON of another shape, impossible numbers.
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        warnings.warn(
            f"this machine's stored figures cannot be used, so it is measured again: {error!r}", stacklevel=3
        )
        return None


def _write(device: torch.device, machine: Machine) -> None:
    """Store the figures, whole or not at all."""
    record = {"identity": _identity(device), "machine": asdict(machine)}
    try:
        store.write(_path(device), json.dumps(record, indent=1))
    except (OSError, RuntimeError) as error:
        warnings.warn(
            f"this machine's figures cannot be stored, so each run measures them: {error!r}", stacklevel=3
        )
