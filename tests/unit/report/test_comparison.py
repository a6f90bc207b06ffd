import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dcae15 import artifacts, storage
from dcae15.errors import ArtifactError, ConfigError
from dcae15.report.comparison import compare, comparison_figure, comparison_table
from tests.scripts import REPOSITORY, clean_environment
from tests.unit.report.test_figures import count

PREFIXES = [4, 8, 16, 32]
DASH = "–"
MINUS = "\N{MINUS SIGN}"


def evaluation(uri: str, arms: dict[str, float], digest: str = "d", **summary: float) -> artifacts.Evaluation:
    """An evaluation whose PSNR is that of the arm plus an eighth of the channels."""
    return artifacts.Evaluation(
        uri,
        uri.rsplit("/", 1)[-1],
        reconstruction={a: [{"prefix": c, "psnr": p + c / 8} for c in PREFIXES] for a, p in arms.items()},
        structure={a: [{"prefix": c, "effective_rank": c / 2} for c in PREFIXES] for a in arms},
        channels={},
        summary={a: dict(summary) for a in arms},
        generation={},
        protocol={"extractor_digest": digest},
        prefixes=dict.fromkeys(arms, PREFIXES),
    )


def line(table: str, start: str) -> list[str]:
    (found,) = [row for row in table.splitlines() if row.startswith(start)]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_mean_and_range_over_runs_and_differences_within_runs():
    runs = [
        evaluation("/a", {"structured": 20.0, "baseline": 15.0}),
        evaluation("/b", {"structured": 22.0, "baseline": 18.0}),
    ]
    table = comparison_table(runs)
    assert line(table, "| measure") == ["measure", "c", "structured", "baseline", f"structured {MINUS} baseline"]
    assert line(table, "| PSNR (dB, higher is better) | 4 ") == [
        "PSNR (dB, higher is better)",
        "4",
        "21.50 [20.50, 22.50]",
        "17.00 [15.50, 18.50]",
        "+4.50 [+4.00, +5.00]",  # within runs: the seeds' common part cancels
    ]
    assert line(table, "| PSNR (dB, higher is better) | 32 ")[2] == "25.00 [24.00, 26.00]"
    assert "| 16 |" not in table, "an eighth, a quarter, all"


def test_what_an_arm_or_a_run_lacks_is_a_dash_and_not_averaged():
    runs = [
        evaluation("/a", {"structured": 20.0, "random": 19.0}),
        evaluation("/b", {"structured": 22.0, "baseline": 23.0}, object_sparsity=0.5),
    ]
    table = comparison_table(runs)
    psnr = line(table, "| PSNR (dB, higher is better) | 8 ")
    assert psnr[2:] == ["22.00 [21.00, 23.00]", "24.00", "20.00", f"{MINUS}1.00", "+1.00"]
    assert line(table, "| Object sparsity | all ")[2:] == ["0.500", "0.500", DASH, "+0.000", DASH]
    assert "LPIPS" not in table


def test_arms_stand_in_reading_order():
    table = comparison_table([evaluation("/a", {"baseline": 1.0, "mine": 2.0, "random": 3.0, "structured": 4.0})])
    assert line(table, "| measure")[2:6] == ["structured", "baseline", "random", "mine"]


def test_runs_with_other_feature_networks_are_told():
    arms = {"structured": 20.0}
    assert "2 different feature networks" in comparison_table(
        [evaluation("/a", arms, "x"), evaluation("/b", arms, "y")]
    )
    assert "different" not in comparison_table([evaluation("/a", arms), evaluation("/b", arms)])
    assert "one run has no spread" in comparison_table([evaluation("/a", arms)])


def test_names_cannot_break_the_table():
    table = comparison_table([evaluation("/a|b", {"ours|x\ny": 20.0})])
    assert r"| ours\|x y |" in table


def test_the_figure_has_a_line_per_arm_and_a_band_over_runs():
    apart = [
        evaluation("/a", {"structured": 10.0, "baseline": 9.0}),
        evaluation("/b", {"structured": 30.0, "baseline": 9.0}),
    ]
    alike = [
        evaluation("/a", {"structured": 20.0, "baseline": 9.0}),
        evaluation("/b", {"structured": 20.0, "baseline": 9.0}),
    ]
    for runs in (apart, alike):
        assert count(comparison_figure(runs), "structured") > 200
        assert count(comparison_figure(runs), "baseline") > 200
        assert count(comparison_figure(runs), "random") == 0

    def tinted(runs: list[artifacts.Evaluation]) -> int:
        pixels = np.asarray(Image.open(io.BytesIO(comparison_figure(runs))).convert("RGB")).astype(int)
        return int(((pixels[..., 2] - pixels[..., 0] > 20) & (pixels.min(axis=-1) > 180)).sum())

    assert tinted(apart) > 10 * tinted(alike) + 5000


def commit(folder: Path, name: str, psnr: float) -> str:
    evaluation(str(folder / "evaluation" / name), {"structured": psnr, "baseline": psnr - 5}).commit()
    storage.write_json(str(folder / "latest.json"), {"evaluate": str(folder / "evaluation" / name)})
    return str(folder / "evaluation" / name)


def test_artifacts_storages_and_latest_files_are_taken(tmp_path: Path):
    first = commit(tmp_path / "a", "one", 20)
    for name, psnr in (("b", 21), ("c", 22)):
        commit(tmp_path / name, f"of_{name}", psnr)
    written = compare([first, str(tmp_path / "b"), str(tmp_path / "c" / "latest.json")], str(tmp_path / "out"))
    assert written == [str(tmp_path / "out" / name) for name in ("comparison.png", "comparison.md")]
    assert Path(written[0]).read_bytes().startswith(b"\x89PNG")
    assert "21.50 [20.50, 22.50]" in Path(written[1]).read_text()


def test_what_is_missing_or_doubled_is_refused(tmp_path: Path):
    first = commit(tmp_path / "a", "one", 20)
    with pytest.raises(ConfigError, match="more than once"):
        compare([first, str(tmp_path / "a")], str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare([], str(tmp_path / "out"))
    with pytest.raises(ArtifactError, match=r"neither a finished evaluation nor a storage"):
        compare([str(tmp_path)], str(tmp_path / "out"))
    storage.write_json(str(tmp_path / "latest.json"), {"train_autoencoder": "x"})
    with pytest.raises(ArtifactError, match="names no evaluation"):
        compare([str(tmp_path)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def script(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "pipelines" / "compare.py"), *words]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=120)


def test_the_script_compares_and_explains_itself(tmp_path: Path):
    first, second = commit(tmp_path / "a", "one", 20), commit(tmp_path / "b", "two", 21)
    done = script(first, second, f"to={tmp_path / 'out'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(tmp_path / "out" / "comparison.png"), str(tmp_path / "out" / "comparison.md")]
    shown = script("--help")
    assert shown.returncode == 0 and "URI [URI ...] to=FOLDER" in shown.stdout
    refused = script(first)
    assert refused.returncode == 2 and refused.stderr == "error: say once where to write: add to=FOLDER\n"
    lost = script(str(tmp_path / "nowhere"), f"to={tmp_path / 'out'}")
    assert lost.returncode == 1 and "Traceback" not in lost.stderr
