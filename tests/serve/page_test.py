#!/usr/bin/env python3
"""The chat page of `ttt serve` in a real headless browser: a question is asked and the streamed answer appears.

  page_test.py TTT MODEL [--screenshot FILE] [--question TEXT] [-- TTT_SERVE_FLAGS...]

Speaks WebDriver to chromedriver (Debian: chromium, chromium-driver) by the standard library. Without it: skipped, status 77.
"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
import time
import urllib.request

from server_process import Server

SKIPPED = 77


class Browser:
    """A headless browser without a network but this machine."""

    def __enter__(self):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                self.url = f"http://127.0.0.1:{int(line.rstrip().rstrip('.').rsplit(' ', 1)[1])}"
                break
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=900,640",
                            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]}
        self.session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})["sessionId"]
        return self

    def __exit__(self, *_):
        try:
            self.call("DELETE", f"/session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait(30)
            self.driver.stdout.close()

    def call(self, method, path, body=None):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def do(self, method, path, body=None):
        return self.call(method, f"/session/{self.session}{path}", body)

    def script(self, text):
        return self.do("POST", "/execute/sync", {"script": text, "args": []})

    def type(self, selector, text):
        element = next(iter(self.do("POST", "/element", {"using": "css selector", "value": selector}).values()))
        self.do("POST", f"/element/{element}/value", {"text": text})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ttt")
    parser.add_argument("model")
    parser.add_argument("--screenshot")
    parser.add_argument("--question", default="Hi")
    parser.add_argument("flags", nargs="*")
    arguments = parser.parse_args()
    if not (shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome"))):
        print("skipped: no chromedriver and chromium here")
        sys.exit(SKIPPED)
    with Server([arguments.ttt], arguments.model, *arguments.flags) as server, Browser() as browser:
        status, wanted = server.call("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": arguments.question}], "temperature": 0, "max_tokens": 60})
        assert status == 200, wanted
        browser.do("POST", "/url", {"url": server.url})
        browser.script("document.getElementById('temperature').value = '0'; document.getElementById('max').value = '60';")
        browser.type("#input", arguments.question)
        browser.type("#input", "\ue007")  # Enter
        deadline = time.monotonic() + 120
        seen = set()
        while browser.script("return document.querySelector('.note') === null"):
            seen.add(browser.script("return document.querySelector('.assistant')?.textContent ?? ''"))
            assert time.monotonic() < deadline, "no answer on the page"
        found = browser.script("return document.querySelector('.assistant').textContent")
        assert found == wanted["choices"][0]["message"]["content"], (found, wanted)
        assert browser.script("return document.querySelector('.user').textContent") == arguments.question
        assert "first token" in browser.script("return document.querySelector('.note').textContent")
        assert browser.script("return document.querySelectorAll('.error').length") == 0
        assert browser.script("return document.getElementById('model').textContent")
        severe = [entry for entry in browser.do("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]
        assert not severe, severe
        if arguments.screenshot:
            with open(arguments.screenshot, "wb") as file:
                file.write(base64.b64decode(browser.do("GET", "/screenshot")))
    print(f"ok: the answer came as it was written ({len(seen)} looks at it)")


if __name__ == "__main__":
    main()
