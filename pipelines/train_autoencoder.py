"""`dcae15 train_autoencoder` without an installation; `--help` says what it does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.cli import script

if __name__ == "__main__":
    sys.exit(script("train_autoencoder"))
