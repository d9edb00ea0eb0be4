"""The performance report says what the run's JSON says, light and dark, and needs nothing else."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import compare
import machine
import pytest
import report
from reporting import markdown, page, plots, style, tables
from reporting.run import Run, dump, slim
from worker import Worker

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"
FETCHING = {"src", "srcset", "href", "{http://www.w3.org/1999/xlink}href", "data", "action"}


def entry(name, group, median, precision="float32", info=None, /, **params):
    """Return a benchmark as pytest-benchmark writes it, its quartiles 2 and 4 % away."""
    stats = {"median": median, "q1": 0.98 * median, "q3": 1.04 * median, "rounds": 9}
    peak = {"float32": 500.0, "bfloat16": 1000.0, "int8": 2000.0}[precision]
    known = {"precision": precision, "peak": [peak, 1.02 * peak], **(info or {})}
    ids = "-".join(str(value) for value in params.values())
    return {
        "name": f"bench_{name}[{ids}]" if ids else f"bench_{name}",
        "group": group,
        "params": params or None,
        "extra_info": known,
        "stats": {**stats, "data": [median] * 9},
    }


def a_run(libraries=("headwise", "numpy", "torch", "onnxruntime", "openvino")):
    """Return a run of some of all suites. No two benchmarks take the same time."""
    entries = []

    def add(suite, group, precision, work, /, **params):
        for library in libraries:
            median = 1.234e-3 * 1.1 ** len(entries)
            name = "sentence-transformers" if (library, suite) == ("torch", "minilm") else library
            entries.append(entry(suite, group, median, precision, work, library=name, **params))

    work = {"flops": 1e9, "bytes": 1e7}
    add("attention", "attention 8x12x12x512x512x64, float32", "float32", work)
    one_query = {"flops": 1e7, "bytes": 1e7, "read": [40.0, 41.0]}
    add("attention", "attention 1x32x32x1x4096x128, float32", "float32", one_query)
    for precision in style.PRECISIONS:
        add("linear", f"linear {precision}, 2048 x 384 -> 1536", precision, work)
        texts = {**work, "texts": 512, "lowest cosine": 0.99876}
        add("minilm", f"MiniLM {precision}, 512 mixed", precision, texts, name="512 mixed")
        start = {"ms to import": 80, "ms to load": 90, "ms to the first vector": 2, "MB peak": 150}
        add("load", f"load MiniLM {precision}, then 512 mixed", precision, start)
        for count in (1, 16):
            few = {**work, "texts": count}
            add("batch", f"MiniLM {precision}, {count} short", precision, few, count=count)
    for length in (64, 128, 256):
        grown = {**work, "MB": length / 10}
        add("length", f"attention 1x8x{length}x64, float32", "float32", grown, length=length)
    for threads in (1, 2):
        texts = {**work, "texts": 256}
        add("attention_threads", f"attention, {threads} threads", "float32", work, threads=threads)
        add("encoder_threads", f"256 short, {threads} threads", "float32", texts, threads=threads)
    entries.append(entry("options", "options", 0.0321, "float32", work, option="softcap"))
    peak = {"float32": 500.0, "float64": 250.0, "bfloat16": 1e3, "int8": 2e3, "read": 40.0}
    return {
        "machine_info": {
            "node": "a-name-that-stays-at-home",
            "processor": "x86_64",
            "system": "Linux",
            "release": "6.1",
            "python_version": "3.11.7",
            "cpu": {"brand_raw": "A <CPU> & more", "flags": ["avx"]},
            "headwise": {**machine.record(), "versions": {"torch": "2.13", "openvino": None}},
        },
        "commit_info": {"id": "0123456789abcdef", "dirty": False, "time": None, "branch": "x"},
        "datetime": "2026-11-21T20:00:00+00:00",
        "benchmarks": entries,
        "headwise": {
            "peaks": {"before": peak, "after": {**peak, "read": 44.0}},
            "load": 0.1,
            "sizes": {
                "headwise": {"numpy": 71.0, "headwise": 3.0},
                "openvino": {"openvino": 185.0},
            },
            "skipped": {"numpy has no bfloat16": ["bench_attention[x]"]},
        },
    }


@pytest.fixture(scope="module")
def data():
    return a_run()


@pytest.fixture(scope="module")
def drawn(data):
    return plots.plots(Run(data))


@pytest.fixture(scope="module")
def html(data):
    return page.html(Run(data))


def test_page_is_well_formed_and_fetches_nothing(html):
    root = ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>"))
    for element in root.iter():
        assert element.tag.removeprefix(SVG) not in ("script", "link", "img", "iframe", "object")
        for name in FETCHING & set(element.attrib):
            assert element.get(name).startswith("#")
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def test_page_has_every_number(html, data):
    text = "\n".join(ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>")).itertext())
    for b in Run(data).benchmarks:
        assert tables.time(b.median) in text, b
        assert tables.time(b.q1) in text, b
    for b in data["benchmarks"]:
        assert b["group"] in text
    for known in ("A <CPU> & more", "0123456789ab", "Linux 6.1", "3.11.7", "numpy has no bfloat16"):
        assert known in text
    assert "0.99876" in text
    assert "a-name-that-stays-at-home" not in text


def test_fractions_are_of_the_peak_that_was_measured_meanwhile(data):
    flops, read = (b for b in Run(data).benchmarks if b.name.startswith("bench_attention[headwise"))
    assert flops.fraction == pytest.approx(1e9 / flops.median / 510e9)
    assert read.fraction == pytest.approx(1e7 / read.median / 41e9)
    moved = copy.deepcopy(data)
    moved["benchmarks"][0]["extra_info"]["peak"] = [500.0, 250.0]
    assert tables.of_peak(Run(moved).benchmarks[0]).startswith("~")


def test_plots_are_small_and_each_time_the_same(data, drawn):
    assert list(drawn) == list(plots.DRAWN)
    assert plots.plots(Run(data)) == drawn
    for plot in drawn.values():
        assert len(plot.svg) < 60_000
        assert ElementTree.fromstring(plot.svg).tag == f"{SVG}svg"


def test_every_colour_has_another_in_the_dark(drawn):
    for light, dark in style.DARK.items():
        assert light != dark
    for plot in drawn.values():
        sheet, body = plot.svg.split("</style>", 1)
        used = set(re.findall(r"(fill|stroke): (#\w+)", body))
        assert len(used) > 4
        for part, colour in used:
            rule = f'[style*="{part}: {colour}"]{{{part}:{style.DARK[colour]}!important}}'
            assert rule in sheet.partition("prefers-color-scheme: dark")[2]


def test_bars_and_lines_are_where_the_numbers_are(drawn, data):
    texts = [t.text for t in ElementTree.fromstring(drawn["encoder"].svg).iter(f"{SVG}text")]
    for b in Run(data).suite("minilm"):
        assert f"{b.texts:,.0f}" in texts
    sizes = "".join(ElementTree.fromstring(drawn["sizes"].svg).itertext())
    assert "74 MB" in sizes
    assert "openvino 185" in sizes


def test_missing_peers_are_named_and_the_rest_is_reported():
    alone = a_run(libraries=["headwise"])
    alone["benchmarks"] = [b for b in alone["benchmarks"] if "linear" in b["name"]]
    alone["headwise"]["sizes"] = {}
    run = Run(alone)
    assert run.missing == ["openvino"]
    assert "not measured: openvino" in markdown.readme(run, set())
    html = page.html(run)
    assert "not measured: openvino" in html
    assert html.count("<svg") == 1  # the roofline: nothing else has its data
    assert tables.headlines(run).rows[0][-2:] == ["", ""]


def test_published_pages_are_those_of_the_published_run():
    run = Run.read(ROOT / report.PUBLISHED)
    drawn = {path.stem for path in (ROOT / report.PUBLISHED).parent.glob("*.svg")}
    assert drawn == set(plots.plots(run))
    for name, section in (("README.md", markdown.readme), ("docs/performance.md", markdown.docs)):
        text = (ROOT / name).read_text("utf-8")
        assert text == markdown.filled(text, section(run, drawn)), f"make report, and commit {name}"
    for name in drawn:
        path = (ROOT / report.PUBLISHED).with_name(f"{name}.svg")
        assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"


def test_publishing_twice_changes_nothing(data, tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/performance.md"):
        (tmp_path / name).write_text(f"before\n{markdown.BEGIN}\nold\n{markdown.END}\nafter\n")
    source = tmp_path / "run.json"
    source.write_text(json.dumps(data))
    written = report.publish(source, tmp_path)
    first = {path: path.read_text("utf-8") for path in written}
    assert report.publish(tmp_path / report.PUBLISHED, tmp_path) == written
    assert {path: path.read_text("utf-8") for path in written} == first
    text = (tmp_path / "README.md").read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "\nold\n" not in text
    for name in markdown.IN_README:
        assert f"docs/performance/{name}.svg" in text
    kept = (tmp_path / report.PUBLISHED).read_text("utf-8")
    assert "a-name-that-stays-at-home" not in kept
    assert '"data"' not in kept
    assert json.loads(kept) == json.loads(dump(slim(data)))


def slower(data, factor, peak=1.0, only=""):
    """Return the run with times and peaks multiplied, of the benchmarks that have a name."""
    data = copy.deepcopy(data)
    for b in data["benchmarks"]:
        if only in b["name"]:
            for name in ("median", "q1", "q3"):
                b["stats"][name] *= factor
            b["extra_info"]["peak"] = [peak * x for x in b["extra_info"]["peak"]]
    return data


@pytest.mark.parametrize(
    ("change", "regressed"),
    [
        ({"factor": 1}, False),
        ({"factor": 1.07}, False),  # below the threshold
        ({"factor": 0.5}, False),
        ({"factor": 2, "peak": 0.5}, False),  # the clock
        ({"factor": 1.3, "only": "linear"}, True),
        ({"factor": 1, "peak": 2}, True),  # as fast as before on a machine that became faster
    ],
    ids=str,
)
def test_regressions_are_seen_and_nothing_else(data, change, regressed, tmp_path, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(data))
    new.write_text(json.dumps(slower(data, **change)))
    with pytest.raises(SystemExit) as exit:
        run_main(compare, old, new)
    assert exit.value.code == regressed
    marked = [line for line in capsys.readouterr().out.splitlines() if line.endswith("SLOWER")]
    assert bool(marked) == regressed
    assert all(change.get("only", "") in line for line in marked)


def test_a_wide_spread_is_no_regression(data):
    noisy = slower(data, 1.3)
    for b in noisy["benchmarks"]:
        b["stats"]["q1"] = 0.5 * b["stats"]["median"]
    assert not any(c.regressed(10) for c in compare.changes([Run(data)], [Run(noisy)]))


def test_of_several_runs_the_best_count(data):
    runs = {factor: Run(slower(data, factor)) for factor in (1, 1.2, 1.5)}
    disturbed = compare.changes([runs[1], runs[1.2]], [runs[1.5], runs[1]])
    slow = compare.changes([runs[1], runs[1.2]], [runs[1.5], runs[1.2]])
    assert not any(c.regressed(10) for c in disturbed)
    assert all(c.regressed(10) and c.cost == pytest.approx(1.2) for c in slow)


@pytest.mark.parametrize("text", ["", "{}", "not JSON"])
def test_what_is_no_run_is_refused_in_a_line(text, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(text)
    for module, files in ((report, [path]), (compare, [path, path])):
        with pytest.raises(SystemExit, match=r"^\w+\.py: .*run\.json [^\n]*$"):
            run_main(module, *files)


def run_main(module, *arguments):
    before, sys.argv = sys.argv, [module.__name__, *map(str, arguments)]
    try:
        module.main()
    finally:
        sys.argv = before


def test_a_real_run_is_reported_and_compared(tmp_path):
    """Of two libraries on one shape, once saved and once compared by pytest-benchmark."""
    path = tmp_path / "run.json"
    command = [
        *(sys.executable, "-m", "pytest", "bench/bench_linear.py", "--quiet", "-k", "1x384x1536"),
        *("--libraries=headwise,numpy", "--benchmark-max-time=0.001", "--benchmark-min-rounds=3"),
        *(f"--benchmark-json={path}", f"--benchmark-storage={tmp_path}"),
    ]
    for more in ("--benchmark-autosave", "--benchmark-compare"):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run([*command, more], check=False, cwd=ROOT, text=True, **pipes)
        assert done.returncode == 0, done.stdout
    assert "(NOW)" in done.stdout
    run = Run.read(path)
    assert {b.library for b in run.benchmarks} == {"headwise", "numpy"}
    assert {b.precision for b in run.benchmarks} == {"float32", "bfloat16", "int8"}
    assert all(0 < b.fraction < 2 and b.median > 0 for b in run.benchmarks)
    assert run.added["sizes"]["headwise, arrays alone"].keys() == {"headwise", "numpy"}
    html, table = report.write(path)
    assert "MiniLM" not in table.read_text("utf-8")
    assert tables.time(run.benchmarks[0].median) in html.read_text("utf-8")


def test_peak_memory_of_attention_is_measured():
    """NumPy holds the scores of 8 heads; headwise the output and less than 2 MB a thread."""
    scores = 8 * 1024**2 * 4 / 2**20
    with Worker("attention", "numpy", 1024, 1) as call:
        assert scores < call.megabytes < 4 * scores
        call()
    with Worker("attention", "headwise", 1024, 1) as call:
        assert call.megabytes < scores / 4


def test_a_worker_that_fails_says_so():
    with pytest.raises(RuntimeError, match=r"attention nothing 64 ended with 1"):
        Worker("attention", "nothing", 64, 1).__enter__()


def test_sizes_count_all_that_is_required():
    assert machine.everything(["pytest"]) >= {"pytest", "pluggy", "iniconfig"}
    assert machine.everything(["headwise"]) == {"headwise", "numpy"}
    assert machine.everything(["headwise[text]"]) > {"headwise", "numpy", "tokenizers"}
    assert 10 < machine.size("numpy") < 1000
    assert 0.2 < machine.size("headwise") < 50  # an editable one has its core elsewhere
