"""JupyterLab over the course's folder: find the server that is running, or become a new one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote


def installed() -> bool:
    """Return whether this Python has JupyterLab."""
    return importlib.util.find_spec("jupyterlab") is not None


def running(path: Path) -> tuple[Path, str] | None:
    """Return (its folder, its address with the token) for a running Jupyter server that can open `path`."""
    from jupyter_server.serverapp import list_running_servers

    for server in list_running_servers():
        folder = Path(server["root_dir"]).resolve()
        if path.resolve().is_relative_to(folder):
            page = f"lab/tree/{quote(path.resolve().relative_to(folder).as_posix())}"
            return folder, f"{server['url']}{page}?token={server['token']}"
    return None


def become(root: Path, path: Path, arguments: list[str]) -> NoReturn:
    """Turn this process into JupyterLab over `root`, opened at `path`. Ctrl-C and other signals then reach it.

    `arguments` are added to its command line. Its terminals find the `minillm` command of this Python. A relative path
    in $MINILLM_MODEL is made absolute, because notebooks run in their own folders.
    """
    page = quote(path.relative_to(root).as_posix())
    shell = os.environ.get("SHELL", "sh")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    command += [f"--LabApp.default_url=/lab/tree/{page}"]
    if os.name == "posix":
        # A login shell, which is the default, would set another PATH.
        command += [f"--ServerApp.terminado_settings={{'shell_command': [{shell!r}]}}"]
        command += ["--allow-root"] if os.geteuid() == 0 else []
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    if (model := env.get("MINILLM_MODEL")) and Path(model).exists():
        env["MINILLM_MODEL"] = str(Path(model).resolve())
    command += arguments
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(sys.executable, command, env)
    # Windows cannot replace a process, so this one waits for the other.
    raise SystemExit(subprocess.run(command, env=env, check=False).returncode)
