"""The OpenAI Python client's own calls against `ttt serve`."""

import concurrent.futures
import json
import sys

import pytest
from support import ROOT, make_checkpoint, reference

sys.path.insert(0, str(ROOT / "tests/serve"))
from server_process import Server  # noqa: E402

openai = pytest.importorskip("openai")
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
    """Prompts of ids; the ids of the answer are read from its log-probabilities' tokens by their text alone, so text is compared."""
    import ttt

    golden = reference(name)
    path = make_checkpoint(name, folder / "served")
    prompt = golden["input_ids"][0].tolist()
    wanted = ttt.Tokenizer.from_checkpoint(path).decode(golden["continuation"].tolist())
    with serve(path, "--max-batch", 8, "--max-step-tokens", 16) as running:
        client = openai.OpenAI(base_url=running.url + "/v1", api_key="none", timeout=60, max_retries=0)

        def complete(ids):
            return client.completions.create(model=path.name, prompt=ids, max_tokens=8, temperature=0,
                                             extra_body={"ignore_eos": True}).choices[0].text

        assert complete(prompt) == wanted
        prompts = [prompt[: 1 + i % 23] for i in range(31)]
        alone = {len(ids): complete(ids) for ids in prompts[:23]}
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            texts = list(pool.map(complete, [prompt, *prompts]))
        assert texts == [wanted] + [alone[len(ids)] for ids in prompts]


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


def test_structured_output(client):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}}, "required": ["a", "b"],
              "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}}
    try:
        answer = client.chat.completions.create(model="llama", messages=[{"role": "user", "content": "Hi"}], max_tokens=60, temperature=0,
                                                response_format=form)
    except openai.BadRequestError as error:
        assert "xgrammar" in error.message
        return
    value = json.loads(answer.choices[0].message.content)
    assert isinstance(value["a"], bool) and value["b"] in ("x", "y")


def test_errors_are_the_clients(client):
    with pytest.raises(openai.NotFoundError, match="this server has"):
        client.completions.create(model="other", prompt="a")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="llama", prompt="a", temperature="hot")
    assert [m.id for m in client.models.list()] == ["llama"] and client.models.retrieve("llama").id == "llama"
