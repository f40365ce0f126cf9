"""`vllm serve` over ttt: the OpenAI client's own calls, streaming, aborts."""

import concurrent.futures
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import openai
import pytest
from support import make_checkpoint

import ttt


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def checkpoint(folder):
    return make_checkpoint("llama", folder)


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory):
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log"
    command = [os.path.join(os.path.dirname(sys.executable), "vllm"), "serve", str(checkpoint), "--served-model-name", "tiny",
               "--max-model-len", "96", "--max-num-seqs", "8", "--host", "127.0.0.1", "--port", str(port),
               "--additional-config", json.dumps({"ttt": {"precision": "f32", "threads": 2}})]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 300
            while True:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                try:
                    urllib.request.urlopen(url + "/health", timeout=2)
                    break
                except OSError:
                    time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            assert process.wait(60) == 0, log.read_text()[-3000:]


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server + "/v1", api_key="none", timeout=120, max_retries=0)


def test_completions_are_our_generators(client, checkpoint):
    ours = ttt.load(checkpoint, precision="f32")
    wanted = ours.generate("The other thing", max_new_tokens=12)
    answer = client.completions.create(model="tiny", prompt="The other thing", max_tokens=12, temperature=0, logprobs=2)
    assert answer.choices[0].text == wanted.text and answer.usage.completion_tokens == 12
    assert len(answer.choices[0].logprobs.token_logprobs) == 12
    stream = client.completions.create(model="tiny", prompt="The other thing", max_tokens=12, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == wanted.text


def test_chat(client, checkpoint):
    ours = ttt.load(checkpoint, precision="f32")
    messages = [{"role": "user", "content": "Hi"}]
    wanted = ours.chat(messages, max_new_tokens=10).text
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=10, temperature=0, logprobs=True, top_logprobs=2)
    assert answer.choices[0].message.content == wanted and len(answer.choices[0].logprobs.content) > 0
    stream = client.chat.completions.create(model="tiny", messages=messages, max_tokens=10, temperature=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == wanted
    several = client.chat.completions.create(model="tiny", messages=messages, max_tokens=10, temperature=1, seed=1, n=3)
    assert len(several.choices) == 3
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=40, temperature=0, response_format={
        "type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}})
    assert isinstance(json.loads(answer.choices[0].message.content)["a"], bool)


def test_aborts_leave_the_others_alone(client, checkpoint):
    ours = ttt.load(checkpoint, precision="f32")
    wanted = ours.generate("The other thing", max_new_tokens=40, ignore_eos=True).text

    def abort(i):
        stream = client.completions.create(model="tiny", prompt=f"One {i}", max_tokens=70, temperature=1, stream=True,
                                           extra_body={"ignore_eos": True})
        for k, _ in enumerate(stream):
            if k == i % 5:
                stream.close()
                return

    def whole(_):
        return client.completions.create(model="tiny", prompt="The other thing", max_tokens=40, temperature=0,
                                         extra_body={"ignore_eos": True}).choices[0].text

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        aborts = [pool.submit(abort, i) for i in range(24)]
        texts = list(pool.map(whole, range(8)))
        for one in aborts:
            one.result()
    assert texts == [wanted] * 8
    metrics = urllib.request.urlopen(str(client.base_url).replace("/v1/", "/metrics")).read().decode()
    assert "vllm:prompt_tokens_total" in metrics


def test_bad_requests_are_refused(client):
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="tiny", prompt="a" * 4000, max_tokens=1)
    with pytest.raises(openai.BadRequestError, match="thinking_token_budget"):
        client.completions.create(model="tiny", prompt="a", max_tokens=1, extra_body={"thinking_token_budget": 3})
