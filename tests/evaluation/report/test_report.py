"""The report is self-contained, readable on a phone, and complete where parts are missing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.core.errors import ProbeError
from datamodules.core.records import TaskKind
from evaluation.figure_files import read_photograph, save_photograph
from evaluation.figures.canvas import SLOTS, Drawing, display_names, looks, new_figure, number
from evaluation.figures.learning_curves import learning_curve
from evaluation.probe.features import Features
from evaluation.probe.projections import project, project_together, write_projections
from evaluation.report.headlines import bracket, findings, headline
from evaluation.report.leaderboard import compare
from evaluation.report.report import read_statistics, write_report
from evaluation.statistics.metrics import F1
from evaluation.statistics.predictions import Predictions, write_predictions
from evaluation.statistics.summary import summarise
from evaluation.statistics.training_log import read_training_log
from lightning_app.commands.results import print_result
from lightning_app.loggers.wandb_results import scores_table

METRICS = """step,epoch,train/glas/glands/loss,val/glas/glands/dice,val/glas/glands/miou,val/summary
4,0,1.01,,,
9,0,0.55,,,
9,0,,0.61,0.5,0.61
19,1,0.30,,,
19,1,,0.83,0.7,0.83
"""

FINAL = {
    "splits": {"glas": "test"},
    "summary": 0.85,
    "scores": {"glas/glands/dice": 0.85, "glas/glands/miou": 0.75},
}

PROVENANCE = {
    "title": "a run <b>",
    "synthetic": True,
    "commit": "0123456789ab",
    "versions": {"torch": "2.15.0"},
    "encoder": "resnet18",
    "weights": "imagenet",
    "datasets": {
        "glas": {
            "title": "GlaS",
            "licence": "research",
            "digest": "f" * 64,
            "images": 85,
            "groups": 16,
            "tasks": {"glands": "segmentation"},
            "role": "train",
        }
    },
    "licence_line": "research use only",
    "warnings": ["glas and monuseg share images"],
    "seconds": 754.0,
}


def predictions(gain: float = 0.25, groups: int = 20) -> Predictions:
    """The study's own encoder errs less often than ImageNet's by `gain`."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(groups), 8)
    truth = rng.integers(0, 2, len(group))
    wrong = np.array([0.45 - gain, 0.45, 0.5])[:, None, None, None]
    shape = (3, 3, 5, len(group))
    return Predictions(
        dataset="idc",
        metric=F1,
        encoders=("run-1", "imagenet:resnet18", "random:resnet18"),
        baseline="imagenet:resnet18",
        sizes=(10, 30, 0),
        fold_numbers=np.array([0]),
        n_train=np.array([[10], [30], [64]]),
        seeds=np.zeros((3, 5, 1), np.int64),
        rows=np.arange(len(group)),
        fold=np.zeros(len(group), np.int64),
        group=group,
        truth=truth,
        predicted=np.where(rng.random(shape) < wrong, 1 - truth, truth),
        constant=np.ones_like(truth),
        positive=1,
    )


def probes_only(folder: Path, result: Predictions | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / "probe_predictions.h5", [result or predictions()])
    return folder


def whole_run(folder: Path) -> Path:
    """A run's folder with every part that a report shows."""
    probes_only(folder)
    (folder / "config.yaml").write_text("name: demo\nprobe:\n  bootstrap: 200\n")
    (folder / "metrics.csv").write_text(METRICS)
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    (folder / "final_scores.json").write_text(json.dumps(FINAL))
    rng = np.random.default_rng(0)
    table = Features(
        dataset="idc",
        encoder="run-1",
        kind=TaskKind.CLASSIFICATION,
        classes=("no", "yes"),
        positive=1,
        features=rng.normal(size=(30, 6)).astype(np.float32),
        targets=np.arange(30) % 2,
        groups=np.arange(30, dtype=np.int32),
        split=np.zeros(30, np.uint8),
        folds=3,
        key="k",
        rows=np.arange(30),
    )
    other = replace(table, encoder="imagenet:resnet18", features=table.features**2)
    maps = [project(t, 0) for t in (table, other)]
    beside = replace(table, dataset="breakhis", features=table.features[:20])
    beside = replace(beside, targets=table.targets[:20], groups=table.groups[:20])
    maps.append(project_together([table, beside], 0))
    write_projections(folder / "embeddings.json", maps)
    (folder / "panels").mkdir()
    Image.new("RGB", (40, 30), "pink").save(folder / "panels" / "glas-glands.png")
    return folder


class Page(HTMLParser):
    """Collects tags, addresses and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.images_without_text = 0
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.addresses += [found[a] or "" for a in ("src", "href", "xlink:href") if a in found]
        self.ids += [found["id"] or ""] if "id" in found else []
        self.images_without_text += tag == "img" and not found.get("alt")
        self.images_without_text += tag == "svg" and found.get("role") != "img"

    def handle_data(self, data: str) -> None:
        self.words += f" {data}"  # cells and lines are words apart


def test_the_page_makes_no_requests_and_escapes_its_texts(tmp_path: Path) -> None:
    path = write_report(whole_run(tmp_path / "run"))
    page = Page(path.read_text())
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "script" not in page.tags
    assert "@import" not in path.read_text()
    assert not re.search(r"url\((?!#)", path.read_text())
    assert "http" not in re.sub(r"http-equiv", "", path.read_text())
    assert "a run <b>" in page.words
    assert len(page.ids) == len(set(page.ids)), "ids of different figures are different"
    assert page.images_without_text == 0
    assert page.tags.count("svg") == 4, "learning curve, two maps, training"


def test_the_page_names_the_result_the_tissue_and_the_origin(tmp_path: Path) -> None:
    words = " ".join(Page(write_report(whole_run(tmp_path / "run")).read_text()).words.split())
    for text in (
        "SYNTHETIC tissue.",
        "[SYNTHETIC] a run <b>",
        "Frozen features of this encoder beat ImageNet features on 1 of 1 unseen dataset.",
        "glas and monuseg share images",
        "1 dataset, 1 task, 85 images",
        "2 epochs, 20 steps",
        "13 min",
        "research use only",
        "0123456789ab",
        "torch 2.15.0",
        "bootstrap: 200",
        "dice 0.830 0.830 step 20 0.850 test miou 0.750",
        "40 images of all unseen datasets as points, coloured by dataset",
        "more than 64",
    ):
        assert text in words, text


def test_numbers_and_figures_are_written_beside_the_page(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    write_report(folder)
    numbers = json.loads((folder / "report.json").read_text(), parse_constant=pytest.fail)
    expected = summarise(predictions(), 200)
    (study,) = numbers["probes"]
    assert study["curves"][0]["scores"][0]["value"] == expected.curves[0].scores[0].value
    assert study["comparisons"][0]["area"]["low"] == expected.comparisons[0].area.low
    assert study["comparisons"][0]["efficiency"][2]["needed"]["value"] is None
    assert study["comparisons"][0]["efficiency"][2]["text"] == "more than 64"
    assert numbers["findings"][0]["verdict"] == 1
    made = {path.name for path in (folder / "figures").iterdir()}
    assert {"learning-curve-idc.png", "learning-curve-idc.svg", "map-idc.png"} <= made
    with Image.open(folder / "learning_curves.png") as picture:
        assert picture.width > 800
    assert "SYNTHETIC TISSUE" in (folder / "learning_curves.svg").read_text()
    assert study["seeds"] == predictions().seeds.tolist()
    assert numbers["config"]["probe"]["bootstrap"] == 200
    assert numbers["provenance"]["datasets"]["glas"]["digest"] == "f" * 64
    assert not list(folder.glob(".*partial"))


def test_terminal_page_json_wandb_and_figure_show_the_same_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = whole_run(tmp_path / "run")
    words = " ".join(Page(write_report(folder).read_text()).words.split())
    print_result(folder)
    printed = capsys.readouterr().out
    (study,) = read_statistics(folder)
    assert study == summarise(predictions(), 200), "computed once, and read back as it was"
    numbers = json.loads((folder / "report.json").read_text())["probes"][0]
    table = scores_table([study])
    logged = {
        (row["encoder"], row["size"]): row
        for row in (dict(zip(table.columns, row, strict=True)) for row in table.data)
    }
    bands = learning_curve(study).axes[0].collections
    for c, (curve, drawn) in enumerate(zip(study.curves, bands, strict=True)):
        for s, size in enumerate(study.sizes):
            score, written = curve.scores[s], numbers["curves"][c]["scores"][s]
            assert written == {"value": score.value, "low": score.low, "high": score.high}
            row = logged[curve.encoder, size]
            assert written == {name: row[name] for name in ("value", "low", "high")}
            value = number(score.value, True)
            assert f"{value} ({bracket(score, True)})" in printed
            assert f"{value} {bracket(score, True)}" in words
            heights = drawn.get_paths()[0].vertices[:, 1]
            assert {100 * score.low, 100 * score.high} <= set(heights)
    for comparison in study.comparisons:
        for s, difference in enumerate(comparison.differences):
            assert bracket(difference, True, signed=True) in printed
            assert bracket(difference, True, signed=True) in words
            assert logged[comparison.encoder, study.sizes[s]]["difference_low"] == difference.low


def test_a_report_is_the_same_when_it_is_written_again(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


@pytest.mark.parametrize(
    "kept", ["probe_predictions.h5", "metrics.csv", "provenance.json", "embeddings.json", None]
)
def test_a_run_with_one_part_only_still_has_a_report(tmp_path: Path, kept: str | None) -> None:
    folder = whole_run(tmp_path / "run")
    for path in folder.iterdir():
        if path.name != kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    words = Page(write_report(folder).read_text()).words
    assert ("It was not recorded" in words) == (kept != "provenance.json")
    assert ("Every score" in words) == (kept == "probe_predictions.h5")
    assert ("Losses are scaled" in words) == (kept == "metrics.csv")


def test_a_missing_or_damaged_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="no such run folder"):
        write_report(tmp_path / "none")
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(ProbeError, match="damaged"):
        write_report(tmp_path)


def test_the_headline_follows_the_intervals_and_not_the_mean() -> None:
    def text(*gains: float) -> str:
        return headline([summarise(predictions(gain), 300) for gain in gains])

    assert "beat ImageNet features on 2 of 2" in text(0.25, 0.25)
    assert text(0.001) == (
        "No clear difference between this encoder and ImageNet features on 1 unseen dataset."
    )
    assert text(0.25, 0.001, -0.2).endswith(
        "on 1 of 3 unseen datasets; there is no clear difference on 1 and they are worse on 1."
    )
    assert text(-0.2).endswith("on none of 1 unseen dataset; they are worse on 1.")
    assert headline([]) == "This run has no probes yet."


def test_without_a_baseline_a_finding_gives_the_score_alone() -> None:
    alone = replace(predictions(), baseline=None)
    (finding,) = findings([summarise(alone, 100)])
    assert finding.verdict is None
    assert finding.change.endswith(" %")


def test_a_leaderboard_ranks_only_runs_that_were_tested_alike(tmp_path: Path) -> None:
    good = probes_only(tmp_path / "good")
    weak = predictions(0.1)
    weak = replace(weak, encoders=("run-2", *weak.encoders[1:]))
    weaker = probes_only(tmp_path / "weaker", weak)
    other = probes_only(tmp_path / "other", predictions(groups=12))
    out = compare([weaker, other, good], tmp_path / "deep" / "leaderboard.html")
    tables = json.loads(out.with_suffix(".json").read_text())
    assert len(tables) == 2
    same = next(t for t in tables if len({e["run"] for e in t["entries"]}) == 2)
    assert [e["encoder"] for e in same["entries"]][:2] == ["run-1", "run-2"]
    values = [entry["area"]["value"] for entry in same["entries"]]
    assert values == sorted(values, reverse=True)
    assert "run-1" in Page(out.read_text()).words
    (tmp_path / "empty").mkdir()
    with pytest.raises(ProbeError, match="no probes"):
        compare([tmp_path / "empty"], out)


def test_a_training_log_is_read_by_task(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    log = read_training_log(tmp_path / "metrics.csv")
    assert log is not None
    assert (log.steps, log.epochs, log.summary) == (20, 2, 0.83)
    (task,) = log.tasks
    assert (task.dataset, task.task, task.metric) == ("glas", "glands", "dice")
    assert (task.loss_steps, task.loss) == ([4, 9, 19], [1.01, 0.55, 0.30])
    assert (task.metric_steps, task.metrics["miou"]) == ([9, 19], [0.5, 0.7])
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ProbeError, match="no column 'step'"):
        read_training_log(tmp_path / "metrics.csv")


def test_a_photograph_is_shown_with_its_texts(tmp_path: Path) -> None:
    folder = probes_only(tmp_path / "run")
    texts = ("gl<as", 'truth "a"; predicted ➜ b', "4 of 5 found")
    path = save_photograph(Drawing("x", new_figure(2, 1), *texts), folder / "panels")
    picture = read_photograph(path)
    assert (picture.title, picture.caption) == ("gl<as", "4 of 5 found")
    assert 'alt="truth &quot;a&quot;; predicted ➜ b"' in picture.markup
    assert "data:image/webp;base64," in picture.markup
    assert "gl&lt;as" in write_report(folder).read_text()


def test_opposed_tasks_are_shown_where_gradients_were_compared(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.csv").write_text(
        "step,epoch,train/a/t/loss,train/b/t/loss,train/c/t/loss,speed/waiting_for_data,"
        "gradients/cosine/a/t|b/t,gradients/cosine/a/t|c/t,gradients/cosine/b/t|c/t\n"
        "0,0,1,1,1,0.1,-0.6,0.2,0.9\n1,0,1,1,1,0.3,0.2,0.4,0.7\n"
    )
    words = " ".join(Page(write_report(folder).read_text()).words.split())
    assert "The gradients of 1 of 3 pairs of tasks are opposed on average." in words
    assert "Most opposed: a/t and b/t, \N{MINUS SIGN}0.20, opposed in 50 % of the rows." in words
    assert "Most similar: b/t and c/t, +0.80" in words
    assert "20 % of the time waiting for data" in words
    numbers = json.loads((folder / "report.json").read_text())["training"]
    assert [one["cosine"] for one in numbers["agreements"]] == pytest.approx([-0.2, 0.3, 0.8])
    assert (folder / "figures" / "gradients.svg").is_file()


def test_encoders_keep_their_colours_and_have_readable_names() -> None:
    encoders = ["runs/demo-1", "imagenet:resnet18", "random:resnet18"]
    assert list(display_names(encoders).values()) == ["this encoder", "ImageNet", "random weights"]
    two = ["a", "b", "imagenet:resnet18", "imagenet:resnet50"]
    names = list(display_names(two).values())
    assert names == ["a", "b", "ImageNet resnet18", "ImageNet resnet50"]
    colours = [look.colour for look in looks(encoders, "imagenet:resnet18").values()]
    assert colours == [colour for _, colour, *_ in SLOTS[:3]]
    many = looks([f"run-{i}" for i in range(4)] + ["imagenet:x"], "imagenet:x")
    assert len({look.colour for look in many.values()}) == 5
    crowd = looks([f"run-{i}" for i in range(12)] + ["imagenet:x", "random:x"], "imagenet:x")
    assert len({(look.colour, look.line) for look in crowd.values()}) == 14
    runs = ["runs/dense-20261127-110546", "runs/dense-20261127-120546", "small-20261127-083251@cls"]
    short = [*(run.removeprefix("runs/") for run in runs[:2]), "small@cls"]
    assert list(display_names(runs).values()) == short
    assert [number(0.7522, True), number(-0.006, False, True)] == ["75.2", "\u22120.0060"]
    assert number(-0.00001, True, True) == "0.0"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def opened(folder: Path, page: Path, width: int) -> tuple[dict[str, str], list[str]]:
    """A browser's measurements of a page in a frame of a width, and its console messages."""
    # The page forbids scripts, so the measuring frame around it is a page of its own.
    frame = folder / "frame.html"
    frame.write_text(
        f'<iframe id="f" src="{page.relative_to(folder)}" style="border:0;width:{width}px;'
        'height:900px"></iframe><script>onload = () => { const d = document.getElementById("f").'
        "contentDocument; document.body.dataset.wide = "
        "d.documentElement.scrollWidth - d.documentElement.clientWidth;"
        "document.body.dataset.svg = [...d.querySelectorAll('svg')].filter("
        "s => s.getBoundingClientRect().height > 50).length;"
        "document.body.dataset.img = d.images[0].naturalWidth; }</script>"
    )
    run = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=3000",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    messages = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    return dict(re.findall(r'data-(\w+)="(\d+)"', run.stdout)), messages


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the report with")
@pytest.mark.parametrize("width", [375, 1100])
def test_a_browser_opens_it_without_errors_requests_or_sideways_scrolling(
    tmp_path: Path, width: int
) -> None:
    measured, messages = opened(tmp_path, write_report(whole_run(tmp_path / "run")), width)
    assert messages == []
    assert measured == {"wide": "0", "svg": "4", "img": "40"}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the report with")
def test_the_page_itself_forbids_every_external_request(tmp_path: Path) -> None:
    path = write_report(whole_run(tmp_path / "run"))
    outside = '<img alt="x" src="http://192.0.2.1/x.png">'
    path.write_text(path.read_text().replace("<footer>", f"{outside}<footer>"))
    _, messages = opened(tmp_path, path, 1100)
    assert any("Content Security Policy" in line for line in messages)


def test_leaks_stand_beside_the_scores_and_notes_beside_the_dataset(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run")
    path = run / "provenance.json"
    origin = json.loads(path.read_text())
    origin["datasets"]["glas"]["cautions"] = ["2 groups (patient) lie in train and in test: <a>"]
    note = {"kind": "skipped", "reason": "no area", "count": 7, "examples": ["a.xml", "b.xml"]}
    origin["datasets"]["glas"]["notes"] = [note]
    path.write_text(json.dumps(origin))
    page = write_report(run).read_text()
    training, data = page.split('<section id="origin">')
    assert "2 groups (patient) lie in train and in test: &lt;a&gt;" in training.split("0.850")[1]
    assert "7 skipped: no area (a.xml, b.xml, ...)" in data
