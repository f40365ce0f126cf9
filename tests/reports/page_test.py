#!/usr/bin/env python3
"""The pages of `ttt debug` and `ttt perf` in a real headless browser that has no network: the charts are there.

  page_test.py TTT MODEL [--screenshots DIR] [-- FLAGS_OF_TTT...]

Without chromedriver and chromium (Debian: chromium, chromium-driver): skipped, status 77.
"""

import argparse
import base64
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "serve"))
from page_test import SKIPPED, Browser  # noqa: E402  (tests/serve/page_test.py)


def run(*command, status=0):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status, (command, done.returncode, done.stderr)
    return done.stdout


def shows(browser, page):
    """Opens a page and returns a function that counts what a selector finds."""
    browser.do("POST", "/url", {"url": page.as_uri()})
    severe = [entry for entry in browser.do("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]
    assert not severe, severe
    assert browser.script("return performance.getEntriesByType('resource').length") == 0, "the page fetched something"
    return lambda selector: browser.script(f"return document.querySelectorAll({json.dumps(selector)}).length")


def screenshot(browser, folder, name, height):
    if folder:
        browser.do("POST", "/window/rect", {"width": 1180, "height": height})
        (pathlib.Path(folder) / name).write_bytes(base64.b64decode(browser.do("GET", "/screenshot")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ttt")
    parser.add_argument("model")
    parser.add_argument("--screenshots")
    parser.add_argument("--prompt-tokens", default="48")
    parser.add_argument("flags", nargs="*")
    arguments = parser.parse_args()
    if not (shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome"))):
        print("skipped: no chromedriver and chromium here")
        sys.exit(SKIPPED)
    model = ["--model", arguments.model, "--threads", "2", *arguments.flags]
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        folder = pathlib.Path(folder)
        dump, compared, profiled, page = folder / "dump", folder / "compare.json", folder / "perf.json", folder / "page.html"
        run(arguments.ttt, "debug", "run", *model, "--precision", "f32", "--dump", dump)
        # A tolerance that number formats can not meet, so that there is something to point at.
        compared.write_text(run(arguments.ttt, "debug", "compare", *model, "--precision", "f32", "--against", "precision=bfp8_b", "--pcc", "0.999999",
                                "--json", status=1))
        profiled.write_text(run(arguments.ttt, "perf", "run", *model, "--prompt-tokens", arguments.prompt_tokens, "--new-tokens", "4", "--json"))
        run(arguments.ttt, "debug", "report", dump, compared, profiled, "--out", page)
        documents = [json.loads(compared.read_text()), json.loads(profiled.read_text())]

        count = shows(browser, page)
        taps = documents[0]["taps"]
        assert count("svg.walk circle") == len(taps), (count("svg.walk circle"), len(taps))
        assert count("svg.heat-map .cell") == len(taps) + len(json.loads((dump / "run.json").read_text())["taps"])
        assert count("svg.heat-map .cell.chosen") == 2
        assert count(".tokens span") == len(documents[0]["tokens"])
        assert count("svg.bars rect") > 32
        assert count("svg.stack rect") > 4 and count("svg.layers rect") > 4
        assert count("svg.roofline circle") == sum(1 for phase in documents[1]["phases"] for row in phase["rows"] if row["flops"] and row["bytes"] and row["time_ms"])
        assert count("svg.timeline") == len(documents[1]["counters"]) >= 5
        first = documents[0]["first_divergence"]
        assert browser.script("return document.querySelector('.verdict code').textContent") == first
        # A click shows another intermediate.
        browser.script("const cells = document.querySelectorAll('svg.heat-map')[1].querySelectorAll('.cell'); cells[cells.length - 1].dispatchEvent(new MouseEvent('click'))")
        assert browser.script("return [...document.querySelectorAll('h2')].some(h => h.textContent === 'logits: worst tokens')")

        for document, name, height in ((compared, "debug_report.png", 1080), (profiled, "perf_report.png", 1150)):
            alone = folder / "alone.html"
            run(arguments.ttt, "debug", "report", document, "--out", alone)
            shows(browser, alone)
            screenshot(browser, arguments.screenshots, name, height)

        # Text of a document is text, whatever it holds.
        hostile = dict(documents[0], model="</script><script>document.title = 'owned'</script>")
        (folder / "hostile.json").write_text(json.dumps(hostile))
        run(arguments.ttt, "debug", "report", folder / "hostile.json", "--out", page)
        count = shows(browser, page)
        assert "owned" not in browser.script("return document.title.replace(/<[^]*/, '')")
        assert count("svg.walk circle") == len(taps)
    print("ok: the charts are there, without a network")


if __name__ == "__main__":
    main()
