"""What a report says, and that its page stays small, whole and harmless. The browser looks at it in tests/verbs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from tacit.core.errors import TacitError
from tacit.data.kinds.kind import thumbnail
from tacit.data.open import measure, open_data
from tacit.train.folder import RunFolder
from tacit.use.report import Found, Map, Neighbours, Picture, Place, ReportContent, Setting, flat, render
from tacit.use.report_curves import main_charts, more_charts, overlaid
from tacit.use.report_images import MAP_BYTES, TILES, enlarged, sheets
from tacit.use.report_page import LIMIT, page
from tacit.use.report_samples import POINTS, cloud_of, map_of, neighbours_of, rows_to_show, samples_of
from tacit.use.report_table import evaluations
from tacit.use.report_words import HEADLINES, figure, meaning, number

HOSTILE = '"></script><script>window.ran=1</script><img src=x onerror=alert(1)>.png'


def png(side: int = 8, seed: int = 0) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def record(
    encoder: str, value: float | None, protocol: str = "knn", metric: str = "top1", seed: int = 0, **more: object
) -> dict:
    names = {"protocol": protocol, "metric": metric, "encoder": encoder, "data": "d", "split": "s"}
    return {**names, "value": value, "seed": seed, **more}


def run_folder(root) -> RunFolder:
    folder = RunFolder(root / "run")
    folder.evaluations.mkdir(parents=True)
    folder.pictures.mkdir()
    folder.write_config(
        {
            "run": {"method": "simclr", "device": "cpu"},
            "data": {"path": "/somewhere/photos", "kind": "image", "fingerprint": "f"},
            "spec": {"kind": "image", "channels": 3, "size": [32, 32]},
            "method": {},
            "train": {"encoder": "resnet18", "lr": 0.002, "batch": 64, "clip_per_tensor": False},
            "origin": {"train.lr": "auto: 64 samples a step", "train.batch": "given"},
        }
    )
    folder.environment.write_text(json.dumps({"command": "tacit pretrain simclr photos", "torch": {"version": "2.13"}}))
    folder.metrics.write_text("step,epoch,lr,loss,chance\n" + "".join(f"{s},0,0.1,{9 - s / 20},8\n" for s in range(1, 81)))
    folder.figures.write_text("step,effective_rank,second_view,spread\n0,2,0.1,0.1\n40,9,0.5,0.2\n80,12,0.8,0.3\n")
    folder.speed.write_text("step,seconds,samples_per_second,share_waiting,share_forward,memory_mb\n40,1,100,0.3,0.6,50\n")
    verdict = {
        "verdict": "learned", "reasons": ["see `this`"], "advice": [], "step": 80,
        "figures": {"spread": 0.3, "effective_rank": 12.0, "second_view": 0.8, "projector_effective_rank": 3.0},
        "baselines": {"untrained": {"effective_rank": 2.0, "second_view": 0.1}, "input": {"second_view": 0.4}},
    }  # fmt: skip
    folder.verdict.write_text(json.dumps(verdict))
    (folder.evaluations / "d.json").write_text(json.dumps([record("run", 0.7), record("untrained", 0.4), record("input", 0.5)]))
    (folder.pictures / "1.png").write_bytes(png())
    (folder.pictures / "captions.json").write_text(json.dumps({"1.png": "two views of each sample"}))
    folder.skipped.write_text(f"path\treason\n{HOSTILE}\tbroken\n")
    return folder


def test_a_run_folder_says_everything_that_lies_in_it(tmp_path):
    content = ReportContent.from_folder(run_folder(tmp_path).path)
    assert content.title == "simclr on photos"
    assert content.command == "tacit pretrain simclr photos"
    assert content.environment == {"torch.version": "2.13"}
    assert Setting("train.lr", "0.002", "auto: 64 samples a step") in content.settings
    assert Setting("train.clip_per_tensor", "no", "") in content.settings
    assert content.pictures == [Picture(png(), "two views of each sample")]
    assert content.skipped == [(HOSTILE, "broken")]
    html = page(content).decode()
    for said in (
        "It learned",
        "second view found",
        "80.0\N{NO-BREAK SPACE}%",
        "64 samples a step",
        "two views of each sample",
        "<code>this</code>",
    ):
        assert said in html


def test_a_report_can_be_made_of_a_run_that_has_only_begun(tmp_path):
    begun = RunFolder(tmp_path / "begun")
    begun.write_config(run_folder(tmp_path).read_config())
    html = page(ReportContent.from_folder(begun.path)).decode()
    assert "No verdict yet" in html
    assert "None: every file was read" in html


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(TacitError, match="not a run folder"):
        ReportContent.from_folder(tmp_path)


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/hostname", "below/1.png"])
def test_captions_lead_to_no_picture_elsewhere(tmp_path, name):
    folder = run_folder(tmp_path)
    (tmp_path / "secret.png").write_bytes(png())
    (folder.pictures / "captions.json").write_text(json.dumps({"1.png": "two views", name: "another"}))
    with pytest.raises(TacitError, match="does not lie beside it"):
        ReportContent.from_folder(folder.path)


def test_a_page_does_not_tell_whose_disk_it_was_made_on(tmp_path):
    content = ReportContent.from_folder(run_folder(tmp_path).path)
    assert str(tmp_path) not in content.folder


def test_rendering_writes_the_page(tmp_path):
    render(ReportContent("t"), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == page(ReportContent("t"))


def hostile_content() -> ReportContent:
    return ReportContent(
        HOSTILE,
        command=HOSTILE,
        folder=HOSTILE,
        verdict={"verdict": HOSTILE, "reasons": [f"`{HOSTILE}` {HOSTILE}"], "advice": [HOSTILE], "figures": {HOSTILE: 1.0}},
        metrics={"step": [1.0], HOSTILE: [1.0]},
        evaluations=[record("run", 0.5, protocol=HOSTILE, metric=HOSTILE)],
        pictures=[Picture(png(), HOSTILE)],
        map=Map([Place(0, 0, HOSTILE, png(), HOSTILE), Place(1, 1, None, png(), "\ud800.png")], "PCA", HOSTILE),
        neighbours=[Neighbours(Found(HOSTILE, png(), None, HOSTILE), [Found(HOSTILE, png(), 0.5, HOSTILE)])],
        skipped=[(HOSTILE, HOSTILE)],
        settings=[Setting(HOSTILE, HOSTILE, HOSTILE)],
        environment={HOSTILE: HOSTILE},
    )


def test_no_text_from_outside_becomes_markup():
    html = page(hostile_content()).decode()
    assert html.count("<script") == html.count("</script>") == page(ReportContent("t")).decode().count("<script")
    assert "onerror=alert(1)>" not in html.replace("onerror=alert(1)&gt;", "")


def test_the_policy_allows_exactly_the_style_and_the_script_of_the_page():
    html = page(hostile_content()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r'\s(style|on\w+)="', html.split("<script")[0])


def test_a_page_asks_for_nothing_from_outside():
    html = page(hostile_content()).decode()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html.split('<script type="application/json"')[0])
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)


def test_the_licence_of_the_plotting_library_goes_with_it():
    assert "Copyright (c) 2022 Leon Sorokin" in page(ReportContent("t")).decode()


def test_a_page_of_noise_and_endless_lists_stays_under_its_limit():
    thumbnails = [png(48, seed) for seed in range(400)]
    long = "x" * 3_000
    content = ReportContent(
        long,
        metrics={
            "step": [*range(20_000)],
            **{f"term {i}": np.random.default_rng(i).normal(size=20_000).tolist() for i in range(60)},
        },
        pictures=[Picture(png(400, seed), long) for seed in range(60)],
        map=Map([Place(0.1, 0.2, f"{long}{i}", thumbnails[i % 400], f"{long}/{i}") for i in range(2_000)], "PCA"),
        neighbours=[Neighbours(Found(long, thumbnails[0]), [Found(long, t, 0.5) for t in thumbnails[:7]])] * 30,
        skipped=[(long, long)] * 5_000,
        settings=[Setting(f"a.{i}", long, f"auto: {long}") for i in range(200)],
        environment={f"{i}": long for i in range(100)},
    )
    html = page(content)
    assert len(html) < LIMIT
    assert "4,800 more are listed" in html.decode()


def test_thumbnails_shrink_until_the_map_fits():
    few, many = sheets([png(96)] * 4), sheets([png(96, seed) for seed in range(800)] * 2)
    assert few.tile == TILES[0].side
    assert many.tile < few.tile
    assert sum(map(len, many.pictures)) <= MAP_BYTES


def test_a_tile_shows_the_thumbnail_that_belongs_to_its_place():
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    thumbnails = []
    for colour in colours:
        file = io.BytesIO()
        Image.new("RGB", (40, 20), colour).save(file, "PNG")
        thumbnails.append(file.getvalue())
    made = sheets(thumbnails)
    sheet = Image.open(io.BytesIO(base64.b64decode(made.pictures[0].split(",")[1]))).convert("RGBA")
    for place, colour in enumerate(colours):
        shown = sheet.getpixel((place * made.tile + made.tile // 2, made.tile // 2))
        assert np.abs(np.subtract(shown[:3], colour)).max() < 30
        assert sheet.getpixel((place * made.tile + made.tile // 2, 1))[3] < 30


def test_small_pictures_are_enlarged_by_whole_numbers_and_kept_exactly():
    (shown,) = enlarged([png(50)])
    assert (shown.zoom, shown.width, shown.height) == (4, 200, 200)
    back = Image.open(io.BytesIO(base64.b64decode(shown.src.split(",")[1]))).convert("RGB")
    assert np.array_equal(np.asarray(back), np.asarray(Image.open(io.BytesIO(png(50)))))


def test_the_loss_is_drawn_with_chance_and_the_figures_with_their_baselines(tmp_path):
    content = ReportContent.from_folder(run_folder(tmp_path).path)
    loss, second_view, rank = main_charts(content)
    assert [curve.name for curve in loss.curves] == ["loss", "smoothed"]
    assert [(level.name, level.value) for level in loss.levels] == [("chance: nothing learned", 8.0)]
    assert [(level.name, level.value) for level in second_view.levels] == [("untrained", 0.1), ("raw input", 0.4)]
    assert [level.name for level in rank.levels] == ["untrained"]
    assert {chart.title for chart in more_charts(content)} == {"spread", "learning rate"}


def test_chance_that_changes_is_a_curve():
    content = ReportContent("t", metrics={"step": [1.0, 2.0], "loss": [3.0, 2.0], "chance": [4.0, 5.0]})
    (loss,) = main_charts(content)
    assert [(curve.name, list(curve.values)) for curve in loss.curves if curve.dashed] == [
        ("chance: nothing learned", [4.0, 5.0])
    ]


def test_a_curve_of_many_points_is_thinned_but_keeps_both_ends():
    content = ReportContent("t", metrics={"step": [float(i) for i in range(50_000)], "loss": [float(i) for i in range(50_000)]})
    (loss,) = main_charts(content)
    assert len(loss.x) <= 600
    assert (loss.x[0], loss.x[-1]) == (0.0, 49_999.0)


def test_a_loss_that_is_not_finite_is_a_gap():
    content = ReportContent("t", metrics={"step": [1.0, 2.0, 3.0], "loss": [1.0, float("nan"), float("inf")]})
    assert main_charts(content)[0].curves[0].values == [1.0, None, None]
    page(content)


def test_runs_of_different_length_are_laid_over_each_other_at_their_steps():
    runs = {
        "a": ReportContent("a", metrics={"step": [1.0, 3.0], "loss": [5.0, 4.0]}),
        "b": ReportContent("b", metrics={"step": [2.0, 3.0], "loss": [7.0, 6.0]}),
    }
    (loss,) = overlaid(runs)
    assert list(loss.x) == [1.0, 2.0, 3.0]
    assert [list(curve.values) for curve in loss.curves] == [[5.0, None, 4.0], [None, 7.0, 6.0]]


def test_the_table_names_the_best_and_the_distance_to_the_better_baseline():
    table = evaluations([record("run", 0.71), record("untrained", 0.4), record("input", 0.5)])
    (row,) = table.protocols["knn"]
    assert table.columns == ["this run", "untrained", "raw input"]
    assert [cell.best for cell in row.cells] == [True, False, False]
    assert row.difference == "+21.0 points"
    assert "ahead of the untrained encoder and of raw input" in table.sentence


def test_a_run_behind_its_baselines_is_called_so():
    table = evaluations([record("run", 0.4), record("untrained", 0.3), record("input", 0.5)])
    assert table.protocols["knn"][0].difference == "\N{MINUS SIGN}10.0 points"
    assert table.protocols["knn"][0].ahead is False
    assert "NOT ahead" in table.sentence


def test_results_without_baselines_are_said_to_mean_little():
    table = evaluations([record("run", 0.9)])
    assert table.protocols["knn"][0].difference == ""
    assert "no baselines" in table.sentence


def test_seeds_are_averaged_and_their_spread_is_shown():
    table = evaluations([record("run", 0.6, seed=0), record("run", 0.8, seed=1)])
    (cell,) = table.protocols["knn"][0].cells
    assert (cell.value, cell.deviation) == ("70.0\N{NO-BREAK SPACE}%", "± 14.1")


def test_the_spread_over_a_protocols_own_draws_is_shown():
    table = evaluations([record("run", 0.6, "fewshot", "top1_5_per_class", detail={"deviation": 0.02})])
    row = table.protocols["fewshot"][0]
    assert row.metric == "accuracy, 5 labels a class"
    assert row.cells[0].deviation == "± 2.0"


def test_where_less_is_better_the_lowest_is_best_and_where_neither_is_nothing_is_called_best():
    lower = [record("run", 1.0, metric="mean_error"), record("input", 3.0, metric="mean_error")]
    neither = [record("run", 19.0, "figures", "effective_rank"), record("input", 298.0, "figures", "effective_rank")]
    table = evaluations(lower + neither)
    (error,), (rank,) = table.protocols["knn"], table.protocols["figures"]
    assert error.cells[0].best
    assert error.ahead
    assert error.difference == "+2"
    assert not any(cell.best for cell in rank.cells)
    assert rank.ahead is None


def test_figures_without_labels_do_not_count_as_results_with_labels():
    table = evaluations([record("run", 0.6, "figures", "second_view"), record("input", 0.2, "figures", "second_view")])
    assert table.protocols["figures"][0].ahead
    assert "ahead of" not in table.sentence


def test_a_value_that_is_not_defined_leaves_its_place_empty():
    table = evaluations([record("run", None), record("input", 0.2)])
    assert table.protocols["knn"][0].cells[0] is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (1234567, "1,234,567"),
        (1432.4, "1,432"),
        (0.0123456, "0.0123"),
        (-3.14159, "\N{MINUS SIGN}3.14"),
        ("x", "x"),
    ],
)
def test_numbers_have_as_many_digits_as_a_reader_can_use(value, text):
    assert number(value) == text


def test_every_figure_of_the_watch_has_words():
    for name in ("effective_rank", "spread", "uniformity", "alignment", "second_view"):
        assert meaning(name).says
        assert meaning(f"projector_{name}").words == f"{meaning(name).words}, projector"
    assert figure("second_view", 0.5) == "50.0\N{NO-BREAK SPACE}%"
    assert set(HEADLINES) == {"learned", "undecided", "collapsed", "diverged"}


def test_the_map_shows_all_samples_or_five_thousand_drawn_with_the_seed():
    assert rows_to_show(30, 0).tolist() == list(range(30))
    many = rows_to_show(20_000, 0)
    assert len(set(many.tolist())) == 5_000
    assert np.array_equal(many, rows_to_show(20_000, 0))
    assert not np.array_equal(many, rows_to_show(20_000, 1))


def test_neighbours_are_the_nearest_without_the_sample_itself():
    angles = np.arange(12) * 0.1
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    names = [str(i) for i in range(12)]
    rows = neighbours_of(vectors, [b""] * 12, names, [None] * 12, queries=12, k=2)
    assert sorted(row.query.path for row in rows) == sorted(names)
    for row in rows:
        own = int(row.query.path)
        distances = [abs(int(found.path) - own) for found in row.found]
        assert distances == ([1, 1] if 0 < own < 11 else [1, 2])
        assert row.found[0].score == pytest.approx(np.cos(0.1), abs=1e-5)


def test_map_points_keep_their_thumbnails_paths_and_labels():
    made = map_of(np.eye(6), [bytes([i]) for i in range(6)], [f"{i}" for i in range(6)], ["a", None] * 3)
    assert [(place.thumbnail, place.path, place.label) for place in made.places][:2] == [(b"\0", "0", "a"), (b"\1", "1", None)]


def test_nested_tables_become_dotted_names():
    assert flat({"a": {"b": {"c": 1}}, "d.e": 2}) == {"a.b.c": 1, "d.e": 2}


# Single samples


def single(data: str, kind: str | None = None) -> tuple[list, str]:
    """The samples that a report shows of bundled data, and the page with them."""
    collection = open_data(data, kind=kind)
    spec = measure(collection, 50)
    rows = list(range(0, len(collection), 3))
    found = samples_of(collection, rows, spec, seed=1)
    assert found == sorted(found, key=lambda sample: collection.index.names.index(sample.path))
    return found, page(ReportContent("a run", settings=[Setting("data.kind", spec.kind)]), found).decode()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("sample:cells", "Each channel is a grey picture of its own"),
        ("sample:motion_sim", "first, middle and last frame"),
        ("sample:fashion_mnist_sprite", "not picked"),
    ],
)
def test_some_samples_are_shown_as_their_kind_draws_them(data, says):
    found, html = single(data)
    collection = open_data(data)
    assert len(found) == 6
    assert says in html
    assert html.count("<figure><img") == 6
    row = collection.index.names.index(found[2].path)
    spec = measure(collection, 50)
    assert found[2].picture == thumbnail(collection.kind, collection.glance(row, 160), 640, spec.low, spec.high)


def test_both_sides_of_a_pair_are_shown():
    found, html = single("sample:emoji_names", "pair")
    captions = open_data("sample:emoji_names").index.table["caption"].to_pylist()
    assert all(sample.caption in captions for sample in found)
    assert all(
        sample.caption.replace("\N{RIGHT SINGLE QUOTATION MARK}", "&#8217;") in html or sample.caption in html
        for sample in found
    )


def test_clouds_go_with_their_points_beside_their_picture():
    found, html = single("sample:particle_events")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert len(data["clouds"]) == html.count('<canvas class="cloud"') == html.count("<figure><img") == len(found) == 6
    for sample, sent in zip(found, data["clouds"], strict=True):
        points = np.frombuffer(base64.b64decode(sent["points"]), np.uint8).reshape(-1, 4)
        assert np.array_equal(points, sample.cloud.points)
        assert len(points) <= POINTS
        assert sent["valued"]


def test_a_cloud_keeps_its_shape_and_the_order_of_its_values():
    points = np.random.default_rng(0).random((5000, 4)) * (8, 4, 2, 100) + (1e4, 0, 0, 0)
    cloud = cloud_of(points.astype(np.float32))
    assert cloud.valued
    assert POINTS / 2 < len(cloud.points) <= POINTS
    assert np.ptp(cloud.points[:, :3].astype(float), axis=0) == pytest.approx([255, 127, 64], abs=6)
    assert cloud.points[:, 3].mean() == pytest.approx(127, abs=5)
    assert not cloud_of(np.zeros((3, 3), np.float32)).valued
    assert len(cloud_of(np.ones((1, 3), np.float32)).points) == 1


def test_pages_with_the_largest_clouds_stay_small():
    from tacit.use.report_samples import Cloud, Sample

    draws = np.random.default_rng(0)
    clouds = [Cloud(draws.integers(0, 256, (POINTS, 4), dtype=np.uint8), True) for _ in range(6)]
    plain = len(page(ReportContent("a run")))
    assert len(page(ReportContent("a run"), [Sample(png(), HOSTILE, HOSTILE, cloud) for cloud in clouds])) < plain + 100_000
