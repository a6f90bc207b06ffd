"""Installs the S3 server of the tests into its own virtual environment: python tests/s3/install.py."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

COMMAND = "python tests/s3/install.py"
PINS = (
    "swift==2.38.3",
    "eventlet==0.41.3",
    "PasteDeploy==3.1.0",
    "pyeclib==1.8.0",
    "lxml==6.1.3",
    "xattr==1.3.0",
    "cryptography==50.0.2",
)
_CHECK = """
import sys
from importlib.metadata import version
sys.exit(any(version(pin.split("==")[0]) != pin.split("==")[1] for pin in sys.argv[1:]))
"""


def environment_folder() -> Path:
    """Return where the virtual environment is: DCAE15_S3_VENV, or .s3 in the checkout."""
    return Path(os.environ.get("DCAE15_S3_VENV") or Path(__file__).parents[2] / ".s3")


def install() -> Path:
    """Create the virtual environment if it is missing or incomplete, and return its python.

    Raises:
        RuntimeError: venv or pip failed; the message holds the end of their output.
    """
    folder = environment_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may install it now
        return _install(folder)


def _install(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if python.exists() and subprocess.run([python, "-c", _CHECK, *PINS], capture_output=True).returncode == 0:
        return python
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2", *PINS]
    for command in ([sys.executable, "-m", "venv", folder], pip):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}")
    return python


if __name__ == "__main__":
    print(install())
