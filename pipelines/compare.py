"""Compare evaluations of several runs: one figure and one table, with mean and spread of every arm.

Each URI is an evaluation artifact, or the storage of a finished pipeline. For a spread over seeds, run
`python pipelines/full.py seed=0`, `seed=1`, ... and give the evaluations that they print.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dcae15.errors import ConfigError, Dcae15Error
from dcae15.redaction import redact


def main(argv: Sequence[str]) -> int:
    """Compare, and print where the results are; return the exit code, as the other scripts do."""
    parser = argparse.ArgumentParser(
        usage="python pipelines/compare.py URI [URI ...] to=FOLDER",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    meaning = "evaluation, or storage of a finished pipeline; and to=FOLDER, the path or URI of the folder to write to"
    parser.add_argument("words", nargs="*", metavar="URI", help=meaning)
    words = parser.parse_args(argv).words
    folders = [word.removeprefix("to=") for word in words if word.startswith("to=")]
    try:
        if len(folders) != 1 or not folders[0]:
            raise ConfigError("say once where to write: add to=FOLDER")
        from dcae15.report.comparison import compare

        for uri in compare([word for word in words if not word.startswith("to=")], folders[0]):
            print(uri)
    except Dcae15Error as error:
        print(redact(f"error: {error}"), file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
