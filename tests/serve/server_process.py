"""A `ttt serve` for tests and load tools, and calls to it by the standard library alone."""

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time


class Server:
    """Runs `ttt serve` on a free port; a context manager."""

    def __init__(self, command, model, *arguments, environment=None):
        self.command = [*command, "serve", "--model", str(model), "--port", "0", *map(str, arguments)]
        self.environment = {**os.environ, **(environment or {})}

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)
        self.errors = []
        self.reader = threading.Thread(target=self._read_errors, daemon=True)
        self.reader.start()
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+:(\d+) ", line)
        if not found:
            self.process.wait(30)
            self.process.stdout.close()
            self.reader.join()
            raise RuntimeError(f"the server did not start: {line}{''.join(self.errors)}")
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def _read_errors(self):
        with self.process.stderr as lines:
            self.errors.extend(lines)

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        self.process.stdout.close()
        self.reader.join()

    def call(self, method, path, body=None, headers=None, timeout=300):
        """(status, parsed body or text)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
            given = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, data, given if data is not None else (headers or {}))
            response = connection.getresponse()
            text = response.read().decode()
            kind = response.headers.get("Content-Type", "")
            return response.status, json.loads(text) if kind.startswith("application/json") else text
        finally:
            connection.close()

    def complete(self, prompt, **fields):
        status, body = self.call("POST", "/v1/completions", {"prompt": prompt, "temperature": 0, "max_tokens": 8, **fields})
        assert status == 200, body
        return body

    def metric(self, name):
        for line in self.call("GET", "/metrics")[1].splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise KeyError(name)

    def wait_idle(self, seconds=30):
        """Until nothing runs or waits: a request that stays is stuck."""
        deadline = time.monotonic() + seconds
        while self.metric("ttt_requests_running") + self.metric("ttt_requests_waiting") > 0:
            assert time.monotonic() < deadline, "a request is stuck"
            time.sleep(0.05)

    def _status(self, field):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return int(re.search(rf"{field}:\s+(\d+)", file.read())[1])

    def resident_bytes(self):
        return self._status("RssAnon") * 1024

    def threads(self):
        return self._status("Threads")
