#!/usr/bin/env python3
"""`ttt serve` from outside, by raw sockets and the standard library: answers, errors, limits, hostile clients, shutdown.

  http_test.py TTT MODEL      the program; a tiny checkpoint with a tokenizer and a chat template
"""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

from server_process import Server

TTT, MODEL = sys.argv[1], sys.argv[2]
FLAGS = ("--precision", "f32", "--threads", "2")
PROMPT = "The other thing"


def serve(*arguments, **options):
    return Server([TTT], MODEL, *FLAGS, *arguments, **options)


def follows_schemas():
    return "Answers by a JSON schema: yes" in subprocess.run([TTT, "serve", "--help"], capture_output=True, text=True, check=True).stdout


class Http(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = serve("--max-request-bytes", 20000, "--max-waiting", 200, "--max-batch", 8, "--write-timeout", 2, "--read-timeout", 2)
        cls.server.__enter__()
        cls.wanted = cls.server.complete(PROMPT, max_tokens=24)["choices"][0]["text"]

    @classmethod
    def tearDownClass(cls):
        cls.server.wait_idle()
        cls.server.__exit__()
        assert cls.server.process.returncode == 0, cls.server.errors

    def raw(self, data, timeout=10):
        """Sends bytes, returns what comes until the connection is closed or nothing comes."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=timeout) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            received = b""
            try:
                while piece := s.recv(65536):
                    received += piece
            except (TimeoutError, ConnectionResetError):
                pass
            return received

    def post(self, path, body, **headers):
        return self.server.call("POST", path, body, headers)

    def stream(self, path, body):
        """Chunks of a stream, without the last [DONE], which must be there."""
        status, text = self.post(path, {**body, "stream": True})
        self.assertEqual(status, 200, text)
        events = [e for e in text.split("\n\n") if e]
        self.assertTrue(all(e.startswith("data: ") for e in events))
        self.assertEqual(events[-1], "data: [DONE]")
        return [json.loads(e[6:]) for e in events[:-1]]

    def test_whole_and_streamed_answers_are_the_same(self):
        answer = self.server.complete(PROMPT, max_tokens=24)
        self.assertEqual(answer["choices"][0]["text"], self.wanted)
        self.assertEqual(answer["usage"]["completion_tokens"], 24)
        self.assertGreater(answer["usage"]["prompt_tokens"], 3)
        chunks = self.stream("/v1/completions", {"prompt": PROMPT, "temperature": 0, "max_tokens": 24, "stream_options": {"include_usage": True}})
        self.assertEqual("".join(c["choices"][0]["text"] for c in chunks if c["choices"]), self.wanted)
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 24)
        self.assertEqual(chunks[-2]["choices"][0]["finish_reason"], "length")

    def test_chat(self):
        messages = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
        body = {"messages": messages, "temperature": 0, "max_completion_tokens": 10, "logprobs": True, "top_logprobs": 2}
        status, answer = self.post("/v1/chat/completions", body)
        self.assertEqual(status, 200, answer)
        choice = answer["choices"][0]
        self.assertEqual((choice["message"]["role"], choice["finish_reason"]), ("assistant", "length"))
        self.assertEqual(len(choice["logprobs"]["content"]), 10)
        self.assertEqual(len(choice["logprobs"]["content"][0]["top_logprobs"]), 2)
        chunks = self.stream("/v1/chat/completions", body)
        self.assertEqual(chunks[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual("".join(c["choices"][0]["delta"].get("content", "") for c in chunks), choice["message"]["content"])
        self.assertEqual(sum(len((c["choices"][0].get("logprobs") or {"content": []})["content"]) for c in chunks), 10)

    def test_several_prompts_and_choices(self):
        status, answer = self.post("/v1/completions", {"prompt": [PROMPT, "The"], "n": 2, "seed": 5, "temperature": 1, "max_tokens": 6})
        self.assertEqual(status, 200)
        texts = [c["text"] for c in answer["choices"]]
        self.assertEqual([c["index"] for c in answer["choices"]], [0, 1, 2, 3])
        self.assertNotEqual(texts[0], texts[1])
        again = self.post("/v1/completions", {"prompt": [PROMPT, "The"], "n": 2, "seed": 5, "temperature": 1, "max_tokens": 6})[1]
        self.assertEqual([c["text"] for c in again["choices"]], texts)
        self.assertEqual(answer["usage"]["completion_tokens"], sum(6 for _ in texts))

    def test_echo_scores_the_prompt(self):
        body = {"prompt": [5, 6, 7, 8], "echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0}
        status, answer = self.post("/v1/completions", body)
        self.assertEqual(status, 200, answer)
        scores = answer["choices"][0]["logprobs"]
        self.assertEqual(len(scores["tokens"]), 4)
        self.assertIsNone(scores["token_logprobs"][0])
        self.assertTrue(all(value < 0 for value in scores["token_logprobs"][1:]))
        self.assertEqual(answer["usage"]["completion_tokens"], 0)

    def test_stop_strings(self):
        stop = self.wanted[3:6]
        answer = self.server.complete(PROMPT, max_tokens=24, stop=[stop])
        choice = answer["choices"][0]
        self.assertEqual((choice["text"], choice["finish_reason"], choice["stop_reason"]), (self.wanted[: self.wanted.index(stop)], "stop", stop))

    def test_a_schema_is_followed_or_refused(self):
        schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
        body = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 40,
                "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}
        status, answer = self.post("/v1/chat/completions", body)
        if follows_schemas():
            self.assertEqual(status, 200, answer)
            self.assertIsInstance(json.loads(answer["choices"][0]["message"]["content"])["a"], bool)
            self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
            body["response_format"]["json_schema"]["schema"] = {"type": "nonsense"}
            status, answer = self.post("/v1/chat/completions", body)
        else:
            self.assertIn("xgrammar", answer["error"]["message"])
        self.assertEqual((status, answer["error"]["param"]), (400, "response_format"))

    def test_tools_reach_the_template(self):
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "tools": [{"type": "function", "function": {"name": "f"}}]}
        self.assertEqual(self.post("/v1/chat/completions", body)[0], 200)
        status, answer = self.post("/v1/chat/completions", {**body, "tool_choice": "required"})
        self.assertEqual((status, answer["error"]["param"]), (400, "tool_choice"))

    def test_models_health_metrics_page(self):
        status, models = self.server.call("GET", "/v1/models")
        name = models["data"][0]["id"]
        self.assertEqual((status, name), (200, MODEL.rstrip("/").split("/")[-1]))
        self.assertEqual(self.server.call("GET", f"/v1/models/{name}")[0], 200)
        self.assertEqual(self.server.call("GET", "/v1/models/other")[0], 404)
        self.assertEqual(self.server.call("GET", "/health"), (200, {"status": "ok"}))
        text = self.server.call("GET", "/metrics")[1]
        for line in text.splitlines():
            self.assertRegex(line, r"^(# (HELP|TYPE) ttt_\w+ .+|ttt_\w+(\{\w+=\"[^\"]+\"\})? [0-9.e+-]+)$")
        self.assertIn('ttt_time_to_first_token_seconds_bucket{le="+Inf"}', text)
        status, page = self.server.call("GET", "/")
        self.assertEqual(status, 200)
        self.assertNotRegex(page, r"(src|href)=\"(https?:)?//")  # nothing from a network

    def test_wrong_requests_are_told_what_is_wrong(self):
        for body, words in [
            ({"prompt": "a", "temprature": 1}, "temperature"), ({"prompt": "a", "top_p": 3}, "top_p"), ({}, "prompt"),
            ({"prompt": "a", "max_tokens": -1}, "max_tokens"), ({"prompt": "a", "n": 1000}, "n must be"), ({"prompt": [[1], 2]}, "prompt"),
            ({"prompt": [99999]}, "vocabulary"), ({"prompt": "a", "stop": 3}, "stop"), ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
            ({"prompt": "a", "logit_bias": {"99999": 1}}, "logit_bias"), ({"prompt": "x" * 3000}, "shorten"), ({"prompt": ""}, "empty"),
            ({"prompt": "a", "stream": "yes"}, "stream"), ({"prompt": "a", "best_of": 3}, "best_of"), ({"prompt": "a", "seed": 1.5}, "seed"),
            ({"prompt": "a", "echo": True, "stream": True}, "echo"), ([], "object"), ({"prompt": "a", "temperature": 1e300}, "temperature"),
        ]:
            status, answer = self.post("/v1/completions", body)
            self.assertEqual(status, 400, body)
            self.assertIn(words, answer["error"]["message"])
        for body in [{"messages": []}, {"messages": "a"}, {"messages": [{"content": "a"}]}, {"messages": [{"role": "user", "content": 3}]},
                     {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}]:
            self.assertEqual(self.post("/v1/chat/completions", body)[0], 400, body)
        self.assertEqual(self.post("/v1/completions", {"prompt": "a", "model": "other"})[0], 404)
        self.assertEqual(self.post("/v1/completions", b"{not json")[0], 400)
        self.assertEqual(self.post("/v1/completions", b"[" * 5000)[0], 400)
        self.assertEqual(self.post("/v1/completions", b'{"prompt": "\xff"}')[0], 400)
        self.assertEqual(self.post("/v1/completions", {"prompt": "a"}, **{"Content-Type": "text/plain"})[0], 415)
        self.assertEqual(self.server.call("GET", "/nothing")[0], 404)
        self.assertEqual(self.server.call("GET", "/v1/completions")[0], 404)
        self.assertEqual(self.post("/v1/completions", {"prompt": "x" * 30000})[0], 413)
        self.assertEqual(self.server.call("GET", "/health", headers={"Host": "evil.example"})[0], 403)

    def test_malformed_http_does_no_harm(self):
        body = json.dumps({"prompt": PROMPT}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        for data in [b"", b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
                     b"GET / HTTP/1.1\r\nX: " + b"y" * 100000 + b"\r\n\r\n", head + b"Content-Length: -5\r\n\r\n" + body,
                     head + b"Content-Length: 99999999999999999999\r\n\r\n" + body, head + b"Content-Length: 500\r\n\r\n" + body,
                     head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body, head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
                     head + b"Content-Length: 10\r\n\r\n" + body, b"\r\n" * 5000, head + b"\r\n"]:
            self.raw(data)
        self.assertEqual(self.server.complete(PROMPT, max_tokens=24)["choices"][0]["text"], self.wanted)

    def test_a_slow_request_is_dropped(self):
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            start = time.monotonic()
            while s.recv(4096):
                pass
            self.assertLess(time.monotonic() - start, 15)

    def test_aborts_and_slow_readers_leave_the_others_alone(self):
        long = json.dumps({"prompt": "One", "max_tokens": 110, "temperature": 1, "ignore_eos": True, "stream": True, "n": 4, "logprobs": 20}).encode()
        request = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(long) + long
        whole = long.replace(b'"stream": true', b'"stream": false')
        silent = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole
        sockets = []
        for i in range(12):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            s.connect(("127.0.0.1", self.server.port))
            s.sendall(silent if i % 3 == 2 else request)
            sockets.append(s)
            if i % 2 == 0:
                time.sleep(0.01)
                s.close()  # gone at once; the others never read
        texts = [None] * 6

        def run(i):
            texts[i] = self.server.complete(PROMPT, max_tokens=24)["choices"][0]["text"]

        threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(texts, [self.wanted] * 6)
        for s in sockets:
            s.close()
        self.server.wait_idle()

    def test_too_many_are_told_to_wait(self):
        status, answer = self.post("/v1/completions", {"prompt": ["a"] * 201, "max_tokens": 1})
        self.assertEqual((status, answer["error"]["code"]), (429, "queue_full"))

    def test_many_at_once(self):
        texts = [None] * 32

        def run(i):
            texts[i] = self.server.complete(PROMPT[: 3 + i % 12], max_tokens=12)["choices"][0]["text"]

        alone = {n: self.server.complete(PROMPT[:n], max_tokens=12)["choices"][0]["text"] for n in range(3, 15)}
        threads = [threading.Thread(target=run, args=(i,)) for i in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(texts, [alone[3 + i % 12] for i in range(32)])


class Life(unittest.TestCase):
    def test_an_api_key_is_asked_for(self):
        with serve(environment={"TTT_API_KEY": "secret"}) as server:
            self.assertEqual(server.call("GET", "/v1/models")[0], 401)
            self.assertEqual(server.call("GET", "/v1/models", headers={"Authorization": "Bearer wrong"})[0], 401)
            self.assertEqual(server.call("GET", "/v1/models", headers={"Authorization": "Bearer secret"})[0], 200)
            self.assertEqual(server.call("GET", "/health")[0], 200)

    def test_connections_have_threads_while_they_last(self):
        def wait_for(condition):
            deadline = time.monotonic() + 60
            while not condition():
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)

        with serve("--max-connections", "16", "--read-timeout", "120") as server:
            held = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(16)]
            for s in held:
                s.sendall(b"GET /health HTTP/1.1\r\n")
            wait_for(lambda: server.threads() > 16)
            statuses = []
            further = threading.Thread(target=lambda: statuses.append(server.call("GET", "/health")[0]))
            further.start()
            further.join(1)
            self.assertEqual(statuses, [])
            for s in held:
                s.close()
            further.join(60)
            self.assertEqual(statuses, [200])
            wait_for(lambda: server.threads() < 16)

    def test_answers_end_before_the_server_does(self):
        with serve() as server:
            found = {}

            def run():
                found["answer"] = server.complete(PROMPT, max_tokens=100, ignore_eos=True)

            thread = threading.Thread(target=run)
            thread.start()
            while server.metric("ttt_generation_tokens_total") < 1:
                pass
            server.process.send_signal(signal.SIGTERM)
            thread.join(60)
            self.assertEqual(server.process.wait(30), 0)
            self.assertEqual(found["answer"]["usage"]["completion_tokens"], 100)

    def test_two_can_not_have_one_port(self):
        with serve() as server:
            with self.assertRaisesRegex(RuntimeError, "error: the address can not be bound"):
                second = Server([TTT], MODEL, *FLAGS)
                second.command[second.command.index("--port") + 1] = str(server.port)
                second.__enter__()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
