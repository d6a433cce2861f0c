"""The page of `--report FILE.html`: in a browser, at three widths, by keyboard; whole, and nothing but itself."""

import json
import re
import subprocess

import numpy as np
import pytest
from safetensors.numpy import save_file

import zoo_graphs

WIDTHS = {"phone": 390, "laptop": 1280, "wide": 1920}


def embedded(page):
    """The figures that a page draws."""
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S).group(1))


@pytest.fixture(scope="module")
def made(binary, real_models, tmp_path_factory):
    """The page of CREPE tiny at 4 bits, and its JSON report."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("report.html", "report.json"):
        subprocess.run([binary, "compress", real_models["crepe-tiny"], "-o", folder / "small.mlpackage", "--nbits", "4",
                        "--report", folder / name, "--force"], check=True, capture_output=True)
    return folder / "report.html", json.loads((folder / "report.json").read_text())


def test_holds_the_report_and_every_weights_distribution(made):
    page, report = made
    data = embedded(page.read_text())
    for key, value in report.items():
        if key != "seconds":
            assert data["report"][key] == value
    assert set(data["shapes"]) == {row["name"] for row in report["weights"] if row["status"] == "compressed"}
    for row in report["weights"]:
        shape = data["shapes"][row["name"]]
        assert sum(shape["before"]) == sum(shape["after"]) == np.prod(row["shape"])
        assert 1 < len(shape["centroids"]) <= 16
        assert sum(n > 0 for n in shape["after"]) <= len(shape["centroids"])


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_fits_the_screen_and_asks_for_nothing(browser, made, name, dark, tmp_path):
    page, report = made
    browser.open(page, width=WIDTHS[name], dark=dark)
    assert browser.trouble() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= WIDTHS[name]
    assert browser.evaluate("document.querySelectorAll('tbody tr').length") == len(report["weights"])
    assert browser.evaluate("document.querySelectorAll('svg').length") == 2
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(number) for number in re.findall(r"\d+", paper)[:3])
    assert (brightness < 200) == dark
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 6_000  # of nothing but boxes where the machine has no font


def test_sorts_and_seeks(browser, made):
    page, report = made
    browser.open(page)
    names = "[...document.querySelectorAll('tbody tr')].map(row => row.dataset.name)"
    head = "[...document.querySelectorAll('th button')].find(one => one.textContent.startsWith('{}'))"
    rows = {row["name"]: row for row in report["weights"]}
    assert browser.evaluate(names) == list(rows)
    browser.evaluate(head.format("SNR") + ".click()")
    assert browser.evaluate(names) == sorted(rows, key=lambda name: -rows[name]["snr_db"])
    assert browser.evaluate(head.format("SNR") + ".parentNode.getAttribute('aria-sort')") == "descending"
    browser.evaluate(head.format("SNR") + ".click()")
    assert browser.evaluate(names) == sorted(rows, key=lambda name: rows[name]["snr_db"])
    browser.evaluate("{ const seek = document.querySelector('input'); seek.value = 'CLASSIFIER';"
                     " seek.dispatchEvent(new Event('input')); }")
    assert browser.evaluate(names) == [name for name in rows if "classifier" in name]
    assert browser.evaluate("document.querySelector('[role=status]').textContent") == f"1 of {len(rows)} rows"


def test_a_weight_is_chosen_by_keyboard(browser, made):
    page, report = made
    browser.open(page)
    wanted = report["weights"][2]["name"]
    for _ in range(60):
        browser.press("Tab")
        if browser.evaluate("document.activeElement.textContent") == wanted:
            break
    browser.press("Enter", "\r")
    assert browser.evaluate("document.querySelector('tr[aria-selected=true]').dataset.name") == wanted
    assert browser.evaluate("document.querySelector('[aria-live] strong').textContent") == wanted
    assert browser.evaluate("document.querySelector('[aria-live] svg').getAttribute('aria-label')").startswith(f"Histogram of {wanted}")
    lines = browser.evaluate("document.querySelectorAll('[aria-live] svg line').length")
    assert lines == 16 + 1  # centroids, and the axis


@pytest.fixture(scope="module")
def demo(binary, tmp_path_factory):
    """The page of the demo."""
    page = tmp_path_factory.mktemp("demo") / "demo.html"
    subprocess.run([binary, "demo", "--report", page], check=True, capture_output=True)
    return page


@pytest.mark.parametrize("name", WIDTHS)
def test_the_page_of_the_demo(browser, demo, name):
    data = embedded(demo.read_text())
    assert [row["nbits"] for row in data["widths"]] == [None, 8, 6, 4, 3, 2, 1]
    right = {row["nbits"]: row["right"] / row["digits"] for row in data["widths"]}
    assert right[None] > 0.97 and right[1] < 0.6
    assert {row["nbits"] for row in data["report"]["weights"]} == {4} and data["comparison"]["samples"] == 360
    browser.open(demo, width=WIDTHS[name])
    assert browser.trouble() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= WIDTHS[name]
    cells = "[...document.querySelectorAll('section:first-of-type tbody tr')].map(row => row.lastChild.textContent)"
    assert browser.evaluate(cells) == [f"{100 * share:.1f} %" for share in right.values()]
    bars = "[...document.querySelectorAll('section:first-of-type svg rect title')].map(one => one.textContent)"
    assert browser.evaluate(bars) == [f"{row['name']}: {100 * right[row['nbits']]:.2f} % read right" for row in data["widths"]]
    headings = browser.evaluate("[...document.querySelectorAll('h2')].map(one => one.textContent)")
    assert headings == ["Bits", "Outputs", "Error by layer", "Layers", "Sizes", "Error by weight", "A weight", "Weights"]


@pytest.fixture(scope="module")
def recommended(binary, tmp_path_factory):
    """The page of the sizes of the demo's network."""
    folder = tmp_path_factory.mktemp("recommended")
    subprocess.run([binary, "demo", "--save", folder / "digits"], check=True, capture_output=True)
    subprocess.run([binary, "recommend", folder / "digits/digits.mlpackage", "--sizes", "6", "--report", folder / "sizes.html"],
                   check=True, capture_output=True)
    return folder / "sizes.html"


@pytest.mark.parametrize("name", WIDTHS)
def test_the_page_of_sizes(browser, recommended, name):
    data = embedded(recommended.read_text())
    rows = data["recommendations"]
    assert len(rows) >= 4 and [row["bytes"] for row in rows] == sorted(row["bytes"] for row in rows)
    browser.open(recommended, width=WIDTHS[name])
    assert browser.trouble() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= WIDTHS[name]
    typed = browser.evaluate("[...document.querySelectorAll('tbody tr')].map(row => row.lastChild.textContent)")
    assert typed == [f"{data['command']} --target-size {row['target_size']}" for row in rows]
    bars = browser.evaluate("[...document.querySelectorAll('svg rect title')].map(one => one.textContent)")
    assert [bar.rsplit(": ", 1)[1] for bar in bars] == [f"{row['expected_snr_db']:.2f} dB" for row in rows]
    assert browser.evaluate("[...document.querySelectorAll('h2')].map(one => one.textContent)") == ["What is lost", "Sizes"]


@pytest.mark.parametrize("page", ["made", "demo", "recommended"])
def test_every_control_has_a_name(browser, page, request):
    found = request.getfixturevalue(page)
    browser.open(found[0] if page == "made" else found)
    browser.send("Accessibility.enable")
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "searchbox", "image", "table", "region", "heading"}
    found = [node for node in nodes if node.get("role", {}).get("value") in roles and not node["ignored"]]
    assert {node["role"]["value"] for node in found} >= {"button", "searchbox", "image", "table", "heading"}
    assert [node for node in found if not node.get("name", {}).get("value")] == []


def test_names_from_files_are_text(browser, binary, tmp_path):
    names = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "a\u2028b & \"c\" '@SCRIPT@ @DATA@"]
    rng = np.random.default_rng(0)
    save_file({name: rng.standard_normal((64, 64)).astype(np.float32) for name in names}, tmp_path / "in.safetensors")
    subprocess.run([binary, "compress", tmp_path / "in.safetensors", "-o", tmp_path / "out.safetensors", "--nbits", "2",
                    "--report", tmp_path / "page.html"], check=True, capture_output=True)
    browser.open(tmp_path / "page.html")
    assert browser.trouble() == []
    assert sorted(browser.evaluate("[...document.querySelectorAll('tbody tr')].map(row => row.dataset.name)")) == sorted(names)
    assert browser.evaluate("document.querySelectorAll('img, script').length") == 2  # the data and the script


@pytest.mark.parametrize("options", [("--nbits", "8"), ("--nbits", "4", "--group-size", "4"), ("--mode", "uniform", "--nbits", "1"),
                                     ("--nbits", "4", "--cluster-dim", "2"), ("--nbits", "4", "--per-channel-scale")])
def test_draws_all_kinds_of_palettes(browser, binary, tmp_path, options):
    zoo_graphs.opset("iOS18").save(str(tmp_path / "in.mlpackage"))
    subprocess.run([binary, "compress", tmp_path / "in.mlpackage", "-o", tmp_path / "out.mlpackage", *options,
                    "--report", tmp_path / "page.htm"], check=True, capture_output=True)
    browser.open(tmp_path / "page.htm")
    assert browser.trouble() == []
    data = embedded((tmp_path / "page.htm").read_text())
    assert len(data["shapes"]) == 2
    for shape in data["shapes"].values():
        assert ("scaled" in shape["note"]) == (shape["centroids"] == [])
    assert ([] in [shape["centroids"] for shape in data["shapes"].values()]) == ("--per-channel-scale" in options)


def test_replaces_an_earlier_page_alone(binary, tmp_path):
    zoo_graphs.opset("iOS18").save(str(tmp_path / "in.mlpackage"))

    def compress(*more):
        return subprocess.run([binary, "compress", tmp_path / "in.mlpackage", "-o", tmp_path / "out.mlpackage", "--nbits", "4",
                               "--report", tmp_path / "page.html", *more], capture_output=True, text=True)
    (tmp_path / "page.html").write_text("<title>My diary</title>")
    refused = compress()
    assert refused.returncode == 1 and "page.html" in refused.stderr and not (tmp_path / "out.mlpackage").exists()
    assert compress("--force").returncode == 0
    (tmp_path / "out.mlpackage").rename(tmp_path / "other.mlpackage")
    assert compress().returncode == 0
