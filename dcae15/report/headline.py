"""The headline of a report: who is better, by how much, in words that follow from the numbers alone."""

from __future__ import annotations

from dataclasses import dataclass

from dcae15.channels import landmarks
from dcae15.report.data import ReportData, Rows
from dcae15.report.measures import MEASURES, NOT_MEASURED, Measure, measured, number

CONTROLS = {"random": "the control with random masks"}
"""How sentences call an arm other than the baseline; its name does where nothing is said here."""


@dataclass(frozen=True)
class Tile:
    """One headline number: what, how much, and against what. ``tone`` is 'better', 'worse' or ''."""

    label: str
    value: str
    comparison: str
    tone: str = ""


@dataclass(frozen=True)
class Headline:
    """The headline numbers and the sentences that read them."""

    tiles: list[Tile]
    sentences: list[str]


def compare(measure: Measure, ours: float, baseline: float) -> tuple[str, str]:
    """Say how the structured arm stands against the baseline.

    Returns:
        Words such as '5.00 dB better', and the tone: 'better', 'worse' or '' (equal, not measured, or no direction is better).
    """
    if not (measured(ours) and measured(baseline)) or measure.higher_is_better is None:
        return "", ""
    gap = abs(ours - baseline)
    if gap <= measure.noise:
        return f"about equal (less than {number(measure.noise, 3, measure.unit)} apart)", ""
    tone = "better" if (ours > baseline) == measure.higher_is_better else "worse"
    return f"{number(gap, measure.digits, measure.unit)} {tone}", tone


def headline(data: ReportData) -> Headline:
    """Derive the headline from the reconstruction rows of both arms and from the generation numbers."""
    ours, baseline = data.reconstruction.get("structured", []), data.reconstruction.get("baseline", [])
    tiles: list[Tile] = []
    sentences: list[str] = []
    if ours:
        found = landmarks(int(row["prefix"]) for row in ours)
        short, full = found["eighth"], found["all"]
        if short != full:
            where = f"the first {short} of {full} channels"
            tiles += _tiles(f"from {where}", ours, baseline, short, ("psnr", "class_accuracy"))
            sentences += _sentence(f"From {where}", ours, baseline, short)
            for arm, control in data.reconstruction.items():
                if arm not in ("structured", "baseline") and measured(_at(control, short, "psnr")):
                    sentences += _sentence(f"From {where}", ours, control, short, CONTROLS.get(arm, f"the arm “{arm}”"))
        tiles += _tiles(f"with all {full} channels", ours, baseline, full, ("psnr",))
        sentences += _sentence(f"With all {full} channels", ours, baseline, full)
        sentences.append(
            "Each arm was trained once, so the numbers carry no spread over seeds."
            if baseline
            else "No baseline was measured, so nothing here says what the structure gains or costs."
        )
    for key in ("frechet_distance", "class_accuracy"):
        if measured(data.generation.get(key)):
            measure = MEASURES[key]
            tiles.append(
                Tile(
                    f"{measure.label} of generated images",
                    number(data.generation[key], measure.digits),
                    _reference(data.generation, key, measure) or measure.direction,
                )
            )
    return Headline(tiles, sentences)


def references(generation: dict[str, float], key: str) -> dict[str, float]:
    """Return the reference values of a measure: what they were measured on -> value."""
    start = f"{key}_of_"
    return {
        name.removeprefix(start).replace("_", " "): generation[name] for name in generation if name.startswith(start)
    }


def _reference(generation: dict[str, float], key: str, measure: Measure) -> str:
    known = {what: value for what, value in references(generation, key).items() if measured(value)}
    return "; ".join(f"{what}: {number(value, measure.digits)}" for what, value in known.items())


def _at(rows: Rows, prefix: int, key: str) -> float:
    return next((row.get(key, float("nan")) for row in rows if int(row["prefix"]) == prefix), float("nan"))


def _tiles(where: str, ours: Rows, baseline: Rows, prefix: int, keys: tuple[str, ...]) -> list[Tile]:
    tiles = []
    for key in keys:
        measure, value, other = MEASURES[key], _at(ours, prefix, key), _at(baseline, prefix, key)
        if not measured(value):
            continue
        words, tone = compare(measure, value, other)
        comparison = (
            f"baseline {number(other, measure.digits, measure.unit)}: {words}" if words else f"baseline {NOT_MEASURED}"
        )
        tiles.append(Tile(f"{measure.label} {where}", number(value, measure.digits, measure.unit), comparison, tone))
    return tiles


def _sentence(where: str, ours: Rows, other: Rows, prefix: int, named: str = "the baseline") -> list[str]:
    psnr, accuracy = MEASURES["psnr"], MEASURES["class_accuracy"]
    values = [_at(rows, prefix, "psnr") for rows in (ours, other)]
    if not measured(values[0]):
        return []
    ours_dB, other_dB = (number(value, psnr.digits, psnr.unit) for value in values)
    words, tone = compare(psnr, *values)
    if tone:
        text = f"{where} the structured autoencoder reconstructs {words} than {named}"
        text += f" ({ours_dB} against {other_dB} PSNR)"
    elif words:
        text = f"{where} the structured autoencoder and {named} reconstruct about equally well"
        text += f" ({ours_dB} and {other_dB} PSNR)"
    else:
        text = f"{where} the structured autoencoder reaches {ours_dB} PSNR"
    shares = [_at(rows, prefix, "class_accuracy") for rows in (ours, other)]
    if compare(accuracy, *shares)[0]:
        text += f"; class accuracy is {number(shares[0], accuracy.digits)} against {number(shares[1], accuracy.digits)}"
    return [text + "."]
