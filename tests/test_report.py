"""The page about runs: it holds what the runs hold, needs no network, and draws itself in a browser where there is one."""

import base64
import io
import json
import math
import re
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner
from test_alarms import FAULTS, HEALTHY

from dnnlib.util import FileLock
from training import report
from training.images import save_image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
HOSTILE = "</script><img src=x onerror=document.title='hacked'>"


def write_run(folder, ticks=60, moments=(0, 100, 200), kimg=1000.0, fault=None, size=(256, 128), **options):
    """The folder of a run that never was: 4 kimg a tick, sheets of noise, and a fault in its second half."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for tick in range(ticks):
        means = {**HEALTHY, **(FAULTS[fault] if fault and tick > ticks // 2 else {})}
        means = {name: mean * (1 + 0.1 * rng.standard_normal()) for name, mean in means.items()}
        means.update({"Loss/G/loss": 1 + 0.2 * math.sin(tick / 9), "Loss/scores/margin": 1.3, "Loss/G/density_l1": 0.1})
        means.update({"Gradients/norm/Gmain": 10 ** (1 - tick / ticks), "Gradients/nonfinite/Gmain": 0.0})
        means.update({"Timing/total_sec": 90.0 * (tick + 1), "Timing/sec_per_kimg": 20.0, "Resources/peak_memory_gb": 1.5})
        record = {name: dict(num=8, mean=mean, std=0.1) for name, mean in means.items()}
        lines.append(json.dumps(dict(record, nimg=4000 * (tick + 1), timestamp=1.8e9 + 80 * tick)))
    (folder / "stats.jsonl").write_text("\n".join(lines) + "\n" + lines[0][:40])  # the last is being written
    settings = dict(kimg=kimg, batch=4, gamma=1.0, img_data="dataset/heads.zip", loss_kwargs=dict(r1_gamma=1.0), **options)
    (folder / "training_options.json").write_text(json.dumps(settings))
    for name in ("reals", *(f"fakes{moment:06d}" for moment in moments)):
        for mode in ("", "_mask") if name == "reals" else ("", "_raw", "_depth", "_mask"):
            save_image(rng.integers(0, 256, [size[1], size[0], 3], dtype=np.uint8), folder / f"{name}{mode}.png")
    return folder


def write_metrics(folder, detector="efficientnet"):
    """Lines as calc_metrics.py writes them, and one in the older form of this family."""
    lines = [
        dict(
            metric="fid2k",
            network=f"network-snapshot-{seen:06d}.pkl",
            images_seen=seen * 1000,
            figures={"fid2k_efflite0": 40.0 - seen / 10, "fid2k_efflite0_error": 0.5},
            fingerprint=dict(network=dict(sha256=str(seen)), detector=detector),
        )
        for seen in (0, 100, 200)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"half a li')
    old = dict(metric="kid50k_full", results=dict(kid50k_full=0.0123), snapshot_pkl="network-snapshot-000200.pkl")
    (folder / "metric-kid50k_full.jsonl").write_text(json.dumps(old) + "\n")


def invoke(*arguments):
    return CliRunner().invoke(report.main, [str(argument) for argument in arguments])


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture()
def run_dir(tmp_path):
    folder = write_run(tmp_path / "runs" / "00000-ffhq-heads", fault="second face")
    write_metrics(folder)
    return folder


def test_the_page_holds_what_the_run_holds(run_dir):
    outcome = invoke(run_dir)
    assert outcome.exit_code == 0 and f"Wrote {run_dir / 'report.html'}" in outcome.output, outcome.output
    data = data_of((run_dir / "report.html").read_text())
    (run,) = data["runs"]
    records = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()[:-1]]
    assert run["kimg"] == [record["nimg"] / 1000 for record in records]
    for name in (name for name, value in records[0].items() if isinstance(value, dict)):
        assert run["stats"][name] == pytest.approx([record[name]["mean"] for record in records], rel=1e-4), name
        assert run["last"][name] == records[-1][name]
    drawn = {name for chart in data["charts"] for name, _ in chart["stats"]}
    assert {name for name in run["stats"] if not report.NO_CURVE.fullmatch(name)} == drawn
    assert [sheet["kimg"] for sheet in run["sheets"]] == [0, 100, 200]
    assert all({"image", "raw", "depth", "mask"} < sheet.keys() for sheet in run["sheets"])
    assert run["reals"].keys() == {"image", "mask"}
    assert run["options"]["gamma"] == "1.0" and run["options"]["loss_kwargs.r1_gamma"] == "1.0"
    assert run["facts"]["Seen"] == "240 of 1,000 kimg"
    assert run["facts"]["Time left"].startswith("4h 13m 20s")  # 760 kimg at 20 seconds
    assert [alarm["name"] for alarm in run["alarms"]] == ["second face"]
    figures = {(metric["name"], metric["kimg"]): metric["value"] for metric in run["metrics"]}
    assert figures[("fid2k_efflite0", 100)] == 30 and figures[("kid50k_full", 200)] == 0.0123 and len(figures) == 4


def test_the_state_of_a_run(run_dir, tmp_path):
    assert report.describe(run_dir)["state"] == "stopped"
    with FileLock(run_dir / "log.txt", "locked"):
        running = report.describe(run_dir)
    assert running["state"] == "running" and running["facts"]["Time left"] == "4h 13m 20s"
    finished = report.describe(write_run(tmp_path / "finished", kimg=240))
    assert finished["state"] == "finished" and "Time left" not in finished["facts"]


def test_a_run_that_has_just_begun_and_one_of_other_software(tmp_path):
    begun, other = tmp_path / "begun", tmp_path / "other"
    for folder in (begun, other):
        folder.mkdir()
    (begun / "training_options.json").write_text('{"kimg": 5}')
    (other / "stats.jsonl").write_text('{"nimg": 4, "Loss/G/loss": {"num": 1, "mean": null, "std": null}}\n')
    outcome = invoke(begun, other, "--out", tmp_path / "page.html")
    assert outcome.exit_code == 0, outcome.output
    begun, other = data_of((tmp_path / "page.html").read_text())["runs"]
    assert begun["facts"]["Seen"] == "nothing yet of 5 kimg" and other["facts"]["Seen"] == "0.004 kimg"


def test_a_folder_that_is_no_run_is_refused_in_one_line(run_dir, tmp_path):
    outcome = invoke(run_dir, tmp_path, "--out", tmp_path / "page.html")
    assert outcome.exit_code == 1 and len(outcome.output.strip().splitlines()) == 1
    assert "is not the folder of a run" in outcome.output and not (tmp_path / "page.html").exists()


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [write_run(tmp_path / place / "00000-heads", ticks=2, moments=()) for place in ("here", "there")]
    data = data_of(report.render([report.describe(folder, 2) for folder in folders]))
    assert [run["name"] for run in data["runs"]] == ["here/00000-heads", "there/00000-heads"]


def test_the_page_stays_small_and_keeps_first_and_last(tmp_path):
    folder = write_run(tmp_path / "long", ticks=4000, moments=range(0, 4000, 100), size=(1024, 512))
    assert invoke(folder).exit_code == 0
    page = (folder / "report.html").read_text()
    (run,) = data_of(page)["runs"]
    assert len(page) < 6_000_000
    assert len(run["kimg"]) <= report.POINTS and run["kimg"][-1] == 16_000
    moments = [sheet["kimg"] for sheet in run["sheets"]]
    assert moments[0] == 0 and moments[-1] == 3900 and 2 < len(moments) <= report.MOMENTS
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(run["sheets"][0]["image"].partition(",")[2])))
    assert picture.size == (report.SHEET_WIDTH, report.SHEET_WIDTH // 2)


def test_the_page_asks_for_nothing_from_outside(run_dir):
    assert invoke(run_dir).exit_code == 0
    page = (run_dir / "report.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|@import|<link|src=\"(?!data:)", page)


# In a browser


@pytest.fixture(scope="session")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


def seen(dom):
    """What of a document is neither script nor the data of a picture."""
    return re.sub(r"<script.*?</script>|base64,[^\"]*", "", dom, flags=re.DOTALL)


def opened(browser, page, folder):
    """What a page has become after its scripts have run."""
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    words += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=4000", "--dump-dom", page.as_uri()]
    result = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_a_browser_draws_the_page(browser, run_dir, tmp_path):
    other = write_run(tmp_path / "runs" / "00001-ffhq-heads-lower", moments=(0, 100), desc=HOSTILE)
    page = tmp_path / "page.html"
    assert invoke(run_dir, other, "--out", page).exit_code == 0
    dom = seen(opened(browser, page, tmp_path))
    assert 'data-drawn="yes"' in dom  # set by the last line of the script
    charts = data_of(page.read_text())["charts"]
    assert dom.count("<svg") == len(charts) + 1  # and one of the metric that was measured more than once
    assert dom.count('class="curve"') >= 2 * len(charts)
    assert dom.count("<img") == 2 and "Alarm: second face" in dom and "fid2k_efflite0" in dom
    assert "NaN" not in dom and "undefined" not in dom
    assert "<title>Training report" in dom and "<img src=x" not in dom and "&lt;img src=x" in dom  # text stays text


PLAY = """<script>
window.addEventListener("error", event => document.documentElement.dataset.error = event.message);
const act = (node, name, value) => { node.value = value; node.dispatchEvent(new Event(name)); };
act(document.querySelector("input.time"), "input", 1);
document.querySelector("button[value=depth]").click();
act(document.querySelector("select"), "change", "hours");
act(document.querySelectorAll("input[type=range]")[1], "input", 0.9);
const plot = document.querySelector(".plot"), box = plot.getBoundingClientRect();
plot.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width / 2, clientY: box.top + 50}));
</script>"""


def test_the_page_answers_to_its_controls(browser, run_dir, tmp_path):
    assert invoke(run_dir).exit_code == 0
    page = tmp_path / "played.html"
    page.write_text((run_dir / "report.html").read_text().replace("</body>", f"{PLAY}</body>"))
    dom = seen(opened(browser, page, tmp_path))
    assert "data-error" not in dom
    assert "depth, 100 kimg" in dom
    hours = float(re.search(r'class="quiet">([\d.]+) hours<', dom)[1])  # of the record under the pointer
    assert 0.1 < hours < 60 * 90 / 3600
    assert dom.count("opacity") >= dom.count("<svg") - 1  # what was smoothed shows through, in all but the metrics
