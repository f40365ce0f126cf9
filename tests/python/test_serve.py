"""The OpenAI Python client's own calls against `ttt serve`."""

import concurrent.futures
import subprocess
import sys
from typing import Annotated, Literal

import pytest
from support import ROOT, make_checkpoint, reference

import ttt

sys.path.insert(0, str(ROOT / "tests/serve"))
from server_process import Server  # noqa: E402

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")
FAMILIES = ["llama", "qwen3", "gemma3_text", "mistral", "gpt2", "gpt_neox", "mixtral", "falcon_mamba"]


def serve(path, *arguments):
    return Server([sys.executable, "-m", "ttt"], path, "--precision", "f32", "--threads", "2", *arguments)


@pytest.fixture(scope="module")
def server(checkpoint):
    with serve(checkpoint) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=60, max_retries=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_tokens_are_transformers_alone_and_among_others(name, folder):
    """Prompts of ids; answers are compared as text. 32 at once of mixed lengths: in chunks, with prefix hits, in KV memory that forces some back."""
    golden = reference(name)
    path = make_checkpoint(name, folder / "served")
    model = ttt.load(path, precision="f32", threads=2)
    prompt = golden["input_ids"][0].tolist()
    wanted = model.tokenizer.decode(golden["continuation"].tolist())
    position = sum(layer.bytes_per_position for layer in model.kv_layers)
    memory = ["--kv-gigabytes", f"{24 * 4 * position / 1e9:.9f}"] if position else []
    with serve(path, "--max-batch", 8, "--max-step-tokens", 16, "--block-size", 4, *memory) as running:
        client = openai.OpenAI(base_url=running.url + "/v1", api_key="none", timeout=60, max_retries=0)

        def complete(given):
            return client.completions.create(model=path.name, prompt=given, max_tokens=8, temperature=0,
                                             extra_body={"ignore_eos": True}).choices[0].text

        assert complete(prompt) == wanted
        prompts = [prompt[: 1 + i % 23] for i in range(31)]
        sampling = ttt.SamplingParams(max_new_tokens=8, ignore_eos=True)
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            texts = list(pool.map(complete, [prompt, *prompts]))
        assert texts == [wanted] + [model.generate(ids, sampling).text for ids in prompts]
        # All in one request, so that memory does run out.
        sampling.max_new_tokens = 24
        answer = client.completions.create(model=path.name, prompt=[prompt, *prompts], max_tokens=24, temperature=0, extra_body={"ignore_eos": True})
        assert [choice.text for choice in answer.choices] == [model.generate(ids, sampling).text for ids in [prompt, *prompts]]
        if model.capabilities.prefix_reuse:
            assert running.metric("ttt_preemptions_total") > 0 and running.metric("ttt_prefix_cache_hit_tokens_total") > 0
        # The program on one text.
        answer = subprocess.run([sys.executable, "-m", "ttt", "run", "--model", str(path), "--raw", "--prompt", "The other thing", "--max-new-tokens", "8",
                                 "--temperature", "0", "--precision", "f32"], capture_output=True, text=True, timeout=60)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout == client.completions.create(model=path.name, prompt="The other thing", max_tokens=8, temperature=0).choices[0].text + "\n"


@pytest.mark.parametrize("precision", ["f32", "bfp8_b"])
def test_a_converted_folder_is_served(precision, checkpoint, folder):
    out = folder / f"converted-{precision}"
    subprocess.run([sys.executable, "-m", "ttt", "convert", "--model", str(checkpoint), "--out", str(out), "--precision", precision], check=True,
                   capture_output=True, timeout=60)
    wanted = ttt.load(checkpoint, precision=precision, threads=2).generate("The other thing", max_new_tokens=12).text
    with Server([sys.executable, "-m", "ttt"], out, "--precision", precision, "--threads", "2") as running:
        assert running.complete("The other thing", max_tokens=12)["choices"][0]["text"] == wanted


def test_completions(client, model):
    wanted = model.generate("The other thing", max_new_tokens=12)
    answer = client.completions.create(model="llama", prompt="The other thing", max_tokens=12, temperature=0, logprobs=2)
    assert answer.choices[0].text == wanted.text and answer.usage.completion_tokens == 12
    assert len(answer.choices[0].logprobs.token_logprobs) == 12
    stream = client.completions.create(model="llama", prompt="The other thing", max_tokens=12, temperature=0, stream=True,
                                       stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks if c.choices) == wanted.text and chunks[-1].usage.completion_tokens == 12


def test_chat(client, model):
    messages = [{"role": "user", "content": "Hi"}]
    wanted = model.chat(messages, max_new_tokens=10).text
    answer = client.chat.completions.create(model="llama", messages=messages, max_completion_tokens=10, temperature=0, logprobs=True, top_logprobs=2)
    assert answer.choices[0].message.content == wanted and len(answer.choices[0].logprobs.content[0].top_logprobs) == 2
    stream = client.chat.completions.create(model="llama", messages=messages, max_completion_tokens=10, temperature=0, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == wanted
    with client.chat.completions.stream(model="llama", messages=messages, max_completion_tokens=10, temperature=0) as events:
        assert "".join(event.delta for event in events if event.type == "content.delta") == wanted
    several = client.chat.completions.create(model="llama", messages=messages, max_tokens=10, temperature=1, seed=1, n=3)
    assert len({c.message.content for c in several.choices}) == 3
    again = client.chat.completions.create(model="llama", messages=messages, max_tokens=10, temperature=1, seed=1, n=3)
    assert [c.message.content for c in again.choices] == [c.message.content for c in several.choices]


class Place(pydantic.BaseModel):
    """What the client's own structured output asks for."""

    model_config = pydantic.ConfigDict(extra="forbid")
    capital: bool
    kind: Literal["town", "village"]
    rooms: Annotated[int, pydantic.Field(ge=0, le=99)]


def test_structured_output(client):
    messages = [{"role": "user", "content": "Hi"}]
    asked = {"model": "llama", "messages": messages, "max_tokens": 80, "response_format": Place}
    if not ttt.Generator.follows_schemas():
        with pytest.raises(openai.BadRequestError, match="xgrammar"):
            client.chat.completions.parse(**asked)
        return
    answers = [client.chat.completions.parse(**asked, temperature=0)]
    answers.append(client.chat.completions.parse(**asked, temperature=1, seed=3, n=4))
    with client.chat.completions.stream(**asked, temperature=0) as events:
        for _ in events:
            pass
        answers.append(events.get_final_completion())
    for answer in answers:
        for choice in answer.choices:
            assert isinstance(choice.message.parsed, Place) and choice.finish_reason == "stop"
    assert answers[2].choices[0].message.content == answers[0].choices[0].message.content
    assert len({choice.message.content for choice in answers[1].choices}) > 1
    free = client.chat.completions.create(model="llama", messages=messages, max_tokens=300, temperature=1, seed=1, response_format={"type": "json_object"})
    assert free.choices[0].message.content.startswith("{")
    with pytest.raises(openai.BadRequestError, match="schema"):
        client.chat.completions.create(model="llama", messages=messages, response_format={
            "type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "nonsense"}}})


def test_errors_are_the_clients(client):
    with pytest.raises(openai.NotFoundError, match="this server has"):
        client.completions.create(model="other", prompt="a")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="llama", prompt="a", temperature="hot")
    assert [m.id for m in client.models.list()] == ["llama"] and client.models.retrieve("llama").id == "llama"
