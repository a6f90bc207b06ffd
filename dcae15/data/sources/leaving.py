"""What is not taken of a source, and why: pictures by reason, other files by suffix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

EXAMPLES = 3  # pictures that are named for each reason


@dataclass(frozen=True)
class LeftOut:
    """Pictures that are not taken for one reason."""

    reason: str  # a few words, as the user reads them and as they are counted by
    count: int
    examples: tuple[str, ...]  # the first paths
    suffixes: dict[str, int] = field(default_factory=dict)  # how many by suffix
    mending: str = ""  # what to do about it, as an order to the user; empty where nothing needs to be done
    noun: str = "picture"  # what they are, one of them
    expected: bool = False  # whether a documented rule leaves them out; else they count as bad images

    def __str__(self) -> str:
        """Say it in one line."""
        end = f"; {self.mending}" if self.mending else ""
        by = f" ({counted(self.suffixes)})" if self.suffixes else ""
        what = f"{self.count:,} {self.noun}{'s' if self.count > 1 else ''}{by}"
        return f"{what}: {self.reason}, for example '{printable(self.examples[0])}'{end}"


def leave(
    reason: str, paths: Iterable[str], mending: str = "", *, noun: str = "picture", expected: bool = False
) -> list[LeftOut]:
    """Return the pictures of these paths as left out for a reason; nothing for no paths.

    Where the ``noun`` says that they are something else, paths are only their names.
    """
    found = list(paths)
    if not found:
        return []
    suffixes = Counter(map(suffix_of, found)) if noun == "picture" else {}
    return [LeftOut(reason, len(found), tuple(found[:EXAMPLES]), dict(suffixes), mending, noun, expected)]


def merged(parts: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """Return one of each reason, with the sums."""
    found: dict[str, LeftOut] = {}
    for part in parts:
        other = found.get(part.reason)
        if other is None:
            found[part.reason] = part
            continue
        suffixes = dict(Counter(other.suffixes) + Counter(part.suffixes))
        examples = (*other.examples, *part.examples)[:EXAMPLES]
        count = other.count + part.count
        found[part.reason] = LeftOut(part.reason, count, examples, suffixes, part.mending, part.noun, part.expected)
    return tuple(found.values())


def printable(text: str) -> str:
    """Return a name as one line: control characters are written as in Python."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def suffix_of(path: str) -> str:
    """Return the suffix of a file's name in small letters, or that it has none."""
    stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if dot and stem else "without suffix"


def counted(counts: dict[str, int], most: int = 8) -> str:
    """Return counts as text, the largest first."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    more = [f"{sum(count for _, count in ordered[most:]):,} others"] if len(ordered) > most else []
    return ", ".join([*(f"{count:,} {name}" for name, count in ordered[:most]), *more])
