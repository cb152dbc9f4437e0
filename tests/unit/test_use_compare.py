from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from tacit.core.errors import TacitError
from tacit.train.folder import RunFolder
from tacit.use.compare import Comparison, compare


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    made = []
    for name, verdict, rank, rate in (("[red]good", "learned", 30.0, 0.001), ("bad", "collapsed", 1.2, 0.1)):
        folder = RunFolder(tmp_path / name)
        folder.evaluations.mkdir(parents=True)
        folder.write_config(
            {
                "run": {"method": "simclr", "device": "cpu"},
                "data": {"path": "photos", "kind": "image", "fingerprint": "f"},
                "spec": {"kind": "image", "channels": 3, "size": [32, 32]},
                "method": {},
                "train": {"encoder": "resnet18", "lr": rate, "batch": 64},
                "origin": {},
            }
        )
        folder.metrics.write_text("step,loss\n1,5\n2,4\n")
        folder.figures.write_text(f"step,effective_rank\n2,{rank}\n")
        folder.verdict.write_text(json.dumps({"verdict": verdict, "step": 2, "figures": {"effective_rank": rank}}))
        names = {"protocol": "knn", "metric": "top1", "data": "d", "split": "s", "seed": 0}
        records = [{**names, "encoder": encoder, "value": rank / 100} for encoder in ("run", "untrained")]
        (folder.evaluations / "d.json").write_text(json.dumps(records))
        made.append(folder.path)
    return made


def printed(table: object) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_runs_stand_side_by_side_with_verdict_figures_and_results(runs):
    lines = printed(compare(runs)).splitlines()
    row = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:4]] for line in lines if line.startswith("│")
    }
    assert row["verdict"] == ["It learned", "It collapsed"]
    assert row["effective rank"] == ["30", "1.2"]
    assert row["knn: accuracy (d, s)"] == ["30.0\N{NO-BREAK SPACE}%", "1.2\N{NO-BREAK SPACE}%"]


def test_only_settings_that_differ_are_shown(runs):
    assert Comparison.of(runs).differences() == [("train.lr", ["0.001", "0.1"])]


def test_names_of_runs_are_not_read_as_markup(runs):
    assert "[red]good" in printed(compare(runs))


def test_the_page_lays_the_curves_over_each_other(runs, tmp_path):
    compare(runs, tmp_path / "compare.html")
    html = (tmp_path / "compare.html").read_text()
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])
    assert [curve["name"] for curve in data["charts"][0]["curves"]] == ["[red]good", "bad"]
    assert "It collapsed" in html


def test_runs_of_one_name_are_told_apart_by_the_folders_above_and_by_no_more(runs, tmp_path):
    (tmp_path / "other").mkdir()
    twin = runs[1].rename(tmp_path / "other" / runs[0].name)
    name = runs[0].name
    assert list(Comparison.of([runs[0], twin]).runs) == [f"{tmp_path.name}/{name}", f"other/{name}"]


def test_one_run_or_the_same_twice_is_refused(runs):
    with pytest.raises(TacitError, match="two or more"):
        Comparison.of(runs[:1])
    with pytest.raises(TacitError, match="given twice"):
        Comparison.of([runs[0], runs[0]])
