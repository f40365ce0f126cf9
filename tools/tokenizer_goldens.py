#!/usr/bin/env python3
"""Writes the golden data of the tokenizer tests: tests/text/data/{tokenizers,splits,sentencepiece,ranks,streams}*.json.

Small tokenizers, one for each normalizer, pre-tokenizer, model, post-processor and decoder, are trained here by the
reference packages (tokenizers, sentencepiece, tiktoken), which then say what every text becomes.
Usage: tokenizer_goldens.py [OUTPUT_FOLDER]
"""
import base64
import io
import json
import os
import random
import sys
import tempfile

import sentencepiece
import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = """
The quick brown fox jumps over the lazy dog. I'm sure they'll say it's fine, don't they've? WE'RE HERE, I'D SAY.
Tokenizers split text into words and words into pieces; numbers such as 12345 or 3.14159 and 2024-01-31 are odd.
def main(argc, argv):\n    for i in range(10):\n\t\tprint(f"{i:>4} {i ** 2}")  # comment\r\n    return 0\n\n\n
Ünïcödé Straße naïve café résumé ﬁne ﬂow Ⅻ ½ ² Ångström ÅNGSTRÖM İstanbul ΑΒΓ αβγς Привет, мир! Это тест.
今天天气很好。我们去公园吧！東京タワーへ行きましょう。한국어 텍스트입니다. สวัสดีครับ नमस्ते दुनिया مرحبا بالعالم שלום עולם
emoji 😀😃 👩‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️ tabs\tand  double   spaces and trailing   \n <|user|> [MASK] </s> ...!!! ??? --- ''' ``` $$$ 50% #1 @you
""" * 3

TEXTS = [
    "", " ", "  ", "   a", "a", "Hello", "Hello world", " Hello  world ", "Hello, world!", "the quick brown fox",
    "\n", "\n\n", " \n \n", "\t\n x", "a\r\nb\r\n\r\nc", "x \n\n  y", "   leading and trailing   ", "a  b   c    d",
    "I'm you're he'll SHE'LL we've I'D don't it'ſ 'S 's'T", "'''quotes''' \"double\" `back`", "1 12 123 1234 12345 1234567890",
    "3.14159e-10 0xDEADBEEF 1,000,000", "½ ² Ⅻ ٣٤٥ १२३ ๓", "foo_bar.baz(qux)[0] -> {a: 1};//c", "a/b//c/// /d", "HTTPServer CamelCase snakeCASE",
    "Ünïcödé naïve café cafe\u0301 A\u030a Å ﬁ ﬂ", "İstanbul ISTANBUL ıi ΣΑΣ ßẞ", "Привет мир", "今天天气很好。東京タワー", "한국어 텍스트 \u1112\u1161\u11ab",
    "สวัสดี नमस्ते क्षि مرحبا שלום", "😀😃 👩‍👩‍👧‍👦 🇩🇪🇫🇷 ❤️ 1️⃣", "\u00a0nbsp\u2003em\u3000ideo\u200bzw\u200djoin\ufeffbom", "a\u0300\u0301b \u0300 \u0301x",
    "\x00\x01\x1f\x7f\x85\x9f", "\ufffd\ufffe\U000f0000\u0378", "<|user|>hi<|end|>", "<|user|> <|end|>\n x", "[MASK]", "a [MASK] b", "x[MASK]y", "word special word",
    "aspecialb special", "  <strip>  x", "x  <strip>", "UPPER upper UpPer", "<unk> <s> </s> <pad>", "▁▁a ▁", "a▁b", "<0x41> <0xE2>", "mask<|us", "ﾊﾝｶｸ ＦＵＬＬ ①②",
    "don't do not can 't , . ! ?", "x" * 70, "ab" * 60, "a b " * 30, "é" * 50, "🤖" * 12, "aaaa bbbb " * 4 + "\n" * 5 + "   end",
]
BAD_BYTES = [b"\xff", b"a\x80b", b"\xe4\xbd", b"\xf0\x9f\x98", b"ok \xc3(\xe2\x82 \xed\xa0\x80 \xf4\x90\x80\x80 end", b"\xc0\xaf\xe0\x80\x80"]


def random_texts(count, seed):
    rng = random.Random(seed)
    pools = [
        "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJ", "0123456789", " \t\n\r\u00a0\u3000", ".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`",
        "äöüßéèêñçÅØæ", "абвгдЖЗИ", "αβγΔΣς", "你好世界天气", "あいうカタカナ", "한국어글", "नमस्तेिी्", "مرحباًٌ", "😀👍🏽❤️🇩🇪\u200d", "\u0300\u0301\u0327\u20dd",
        "²½Ⅻ①٣", "ǅǈʰˠ", "’“”–—…、。！", "\x00\x01\x7f\u200b\ufeff\ufffd",
    ]
    texts = []
    for _ in range(count):
        pick = rng.sample(pools, rng.randint(1, 5)) + [" ", "abc"]
        texts.append("".join(rng.choice(rng.choice(pick)) for _ in range(rng.randint(1, 40))))
    return texts


def corpus_lines():
    return CORPUS.split("\n")


def bpe(size=500, byte_level=False, specials=(), **model):
    tokenizer = Tokenizer(models.BPE(**model))
    kwargs = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()} if byte_level else {}
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            kwargs[key] = model[key]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(specials), show_progress=False, **kwargs)
    return tokenizer, trainer


def train(tokenizer, trainer):
    tokenizer.train_from_iterator(corpus_lines(), trainer)
    return tokenizer


def with_byte_tokens(tokenizer, **changes):
    """Adds the 256 byte tokens to a BPE's vocabulary, which the trainer does not do."""
    state = json.loads(tokenizer.to_str())
    vocab = state["model"]["vocab"]
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    state["model"]["byte_fallback"] = True
    state["model"].update(changes)
    return Tokenizer.from_str(json.dumps(state))


GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def build_tokenizers():
    out = {}

    # Byte-level BPE in its varieties.
    t, trainer = bpe(700, True, ["<|endoftext|>", "<|user|>", "<|end|>"])
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=True)
    out["byte_level"] = train(t, trainer)

    t, trainer = bpe(600, True, ["<s>", "</s>", "<pad>", "<unk>", "<mask>"])
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.decoder = decoders.ByteLevel()
    t = train(t, trainer)
    t.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    t.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    out["byte_level_prefix_roberta"] = t

    t, trainer = bpe(600, True, ["<|begin|>", "<|user|>", "<|end|>"], ignore_merges=True)
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(GPT4), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t = train(t, trainer)
    t.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])])
    out["byte_level_split_ignore_merges"] = t

    t, trainer = bpe(600, True, ["<|endoftext|>"])
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t = train(t, trainer)
    t.add_tokens([AddedToken("<strip>", lstrip=True, rstrip=True), AddedToken("special", single_word=True), AddedToken("  ", normalized=False)])
    out["byte_level_digits_added"] = t

    t, trainer = bpe(500, True, ["<|endoftext|>"])
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(individual_digits=False),
         pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    t.decoder = decoders.ByteLevel()
    out["byte_level_then_splits"] = train(t, trainer)

    t, trainer = bpe(500, True, [])
    t.normalizer = normalizers.ByteLevel()
    t.decoder = decoders.ByteLevel()
    out["byte_level_normalizer"] = train(t, trainer)

    # Character BPE: byte fallback, unknown tokens, affixes.
    t, trainer = bpe(400, False, ["<unk>", "<s>", "</s>"], unk_token="<unk>", fuse_unk=True)
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t = with_byte_tokens(train(t, trainer))
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    out["byte_fallback"] = t

    t, trainer = bpe(300, False, ["<unk>"], unk_token="<unk>", fuse_unk=True)
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    t.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    t = train(t, trainer)
    t.add_special_tokens(["[MASK]"])
    out["metaspace_fuse_unknown"] = t

    t, trainer = bpe(150, False, ["<unk>"], unk_token="<unk>", fuse_unk=False)
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
    t.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=150, limit_alphabet=60, special_tokens=["<unk>"], show_progress=False)
    out["metaspace_unknown"] = train(t, trainer)

    t, trainer = bpe(300, False, ["[UNK]"], unk_token="[UNK]", end_of_word_suffix="</w>")
    t.normalizer = normalizers.Lowercase()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    t.decoder = decoders.BPEDecoder(suffix="</w>")
    out["end_of_word_suffix"] = train(t, trainer)

    t, trainer = bpe(300, False, ["[UNK]"], unk_token="[UNK]", continuing_subword_prefix="##")
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    out["continuing_prefix"] = train(t, trainer)

    t, trainer = bpe(300, False, [])
    t.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("a")
    out["no_decoder"] = train(t, trainer)

    # Every split behaviour.
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            t, trainer = bpe(260, False, [])
            t.pre_tokenizer = pre_tokenizers.Split(Regex(r"[aeiou\s]"), behavior, invert)
            t.decoder = decoders.Fuse()
            out[f"split_{behavior}{'_inverted' if invert else ''}"] = train(t, trainer)
    for behavior in ("removed", "merged_with_previous", "merged_with_next"):
        t, trainer = bpe(260, False, [])
        t.pre_tokenizer = pre_tokenizers.Punctuation(behavior)
        out[f"punctuation_{behavior}"] = train(t, trainer)

    # Every normalizer.
    for name, normalizer in {
        "nfc": normalizers.NFC(), "nfd": normalizers.NFD(), "nfkc": normalizers.NFKC(), "nfkd": normalizers.NFKD(),
        "lowercase": normalizers.Lowercase(), "strip_left": normalizers.Strip(True, False), "strip_right": normalizers.Strip(False, True),
        "strip": normalizers.Strip(), "strip_accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
        "replace_regex": normalizers.Replace(Regex(r"\s{2,}"), " "), "replace_string": normalizers.Replace("``", '"'),
        "prepend": normalizers.Prepend("▁"), "nmt": normalizers.Nmt(), "bert": normalizers.BertNormalizer(),
        "bert_cased": normalizers.BertNormalizer(lowercase=False), "bert_accents": normalizers.BertNormalizer(strip_accents=False),
        "bert_plain": normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, lowercase=True),
    }.items():
        t, trainer = bpe(120, False, ["<unk>"], unk_token="<unk>")
        t = with_byte_tokens(train(t, trainer))
        t.normalizer = normalizer
        t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        t.add_tokens([AddedToken("UPPER", normalized=True), AddedToken("mask", normalized=False)])
        out[f"normalizer_{name}"] = t

    # Unigram.
    for name, byte_fallback in (("unigram", False), ("unigram_byte_fallback", True)):
        t = Tokenizer(models.Unigram())
        t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
        t.pre_tokenizer = pre_tokenizers.Metaspace()
        t.decoder = decoders.Metaspace()
        t.train_from_iterator(corpus_lines(), trainers.UnigramTrainer(
            vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
        if byte_fallback:
            state = json.loads(t.to_str())
            lowest = min(score for _, score in state["model"]["vocab"])
            state["model"]["vocab"] += [[f"<0x{b:02X}>", lowest - 5] for b in range(256)]
            state["model"]["byte_fallback"] = True
            t = Tokenizer.from_str(json.dumps(state))
            t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
        t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        out[name] = t

    # WordPiece and WordLevel.
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=40))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator(corpus_lines(), trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    out["word_piece"] = t

    t = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.train_from_iterator(corpus_lines(), trainers.WordLevelTrainer(vocab_size=100, special_tokens=["[UNK]", "[CLS]"], show_progress=False))
    t.post_processor = processors.TemplateProcessing(single="[CLS] $A [CLS]", special_tokens=[("[CLS]", 1)])
    out["word_level"] = t

    t, trainer = bpe(200, False, ["<pad>", "<unk>"], unk_token="<unk>")
    t.pre_tokenizer = pre_tokenizers.FixedLength(3)
    t.decoder = decoders.CTC(pad_token="<pad>", word_delimiter_token="|", cleanup=True)
    out["fixed_length_ctc"] = train(t, trainer)
    return out


def cases(tokenizer, texts):
    result = []
    for text in texts:
        data = text if isinstance(text, bytes) else None
        text = data.decode("utf-8", errors="replace") if data is not None else text
        case = {"bytes": base64.b64encode(data).decode()} if data is not None else {"text": text}
        ids = tokenizer.encode(text).ids
        case["ids"] = ids
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        if plain != ids:
            case["plain"] = plain
        tokenizer.encode_special_tokens = True
        raw = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        if raw != plain:
            case["raw"] = raw
        case["decoded"] = tokenizer.decode(ids)
        kept = tokenizer.decode(ids, skip_special_tokens=False)
        if kept != case["decoded"]:
            case["decoded_all"] = kept
        result.append(case)
    return result


def random_ids(tokenizer, count, seed):
    rng = random.Random(seed)
    size = tokenizer.get_vocab_size()
    result = []
    for _ in range(count):
        ids = [rng.randrange(size) for _ in range(rng.randint(1, 12))]
        result.append({"ids": ids, "decoded": tokenizer.decode(ids), "decoded_all": tokenizer.decode(ids, skip_special_tokens=False)})
    return result


def tokenizer_goldens():
    out = {}
    for number, (name, tokenizer) in enumerate(build_tokenizers().items()):
        texts = TEXTS if number < 8 or not name.startswith(("split", "normalizer", "punct")) else TEXTS[:]
        out[name] = {
            "tokenizer": json.loads(tokenizer.to_str()),
            "cases": cases(tokenizer, texts + BAD_BYTES + random_texts(15, number)),
            "random_ids": random_ids(tokenizer, 15, number),
        }
    return out


# Split patterns in use, as tokenizer.json files and rank files have them.
L3 = GPT4
PATTERNS = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    GPT4,
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\d{1,3}(?=(?:\d{3})*\b)", r"(?=(\d{3})+(?!\d))", r"\p{N}", r"\p{N}{1,3}", r"\p{N}+", r"[\p{P}\$\+<=>\^~\|`]+", r"\s?\p{L}+", r"\s?\p{P}+",
    r"[\r\n]", r"\s+$", r"^\s*\w+", r" ?[^(\s|.,!?…。，、।۔،)]+", "[一-龥\u3040-ゟ゠-ヿ]+", r"\w+|[^\w\s]+", r"\S+", r"[^\n]+|[\n]+", r"\h+", r"[[:alpha:]]+",
    r"\b\w", r"(?i)straße|ǆ", r"(?m).+", r"[a-f&&[^cd]]+", r"[^\p{L}&&[^0-9]]+",
]
RUST_PATTERNS = [
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    PATTERNS[7], PATTERNS[2], PATTERNS[3], PATTERNS[8], r"\w+|[^\w]", r"^a|[^a]|a",
]


def split_goldens():
    texts = [t for t in TEXTS if t] + random_texts(60, 1000)
    out = {"texts": texts, "oniguruma": [], "rust": []}
    for pattern in PATTERNS:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        sizes = []
        for text in texts:
            pieces = [piece for piece, _ in split.pre_tokenize_str(text)]
            assert "".join(pieces) == text
            sizes.append([len(piece.encode()) for piece in pieces])
        out["oniguruma"].append({"pattern": pattern, "sizes": sizes})
    # With single bytes as the only tokens, tiktoken shows nothing of its words; so one more token spans the border of
    # two characters, for each pair that a text has, and shows whether the pattern cut there.
    for pattern in RUST_PATTERNS:
        cuts = []
        for text in texts:
            cut = []
            for i in range(1, len(text)):
                ranks = {bytes([b]): b for b in range(256)}
                left, right = text[i - 1].encode(), text[i].encode()
                # Joins exactly the last byte of the left character and the first of the right one.
                ranks[left[-1:] + right[:1]] = 256
                encoding = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
                ids = encoding.encode_ordinary(text)
                position = len(text[:i].encode())
                at, joined = 0, False
                for token in ids:
                    size = 2 if token == 256 else 1
                    joined = joined or (at < position < at + size)
                    at += size
                # A run of equal characters may have been joined one further left; then nothing is known.
                if not joined and token_overlaps(text, i):
                    cut.append(-1)
                else:
                    cut.append(0 if joined else 1)
            cuts.append(cut)
        out["rust"].append({"pattern": pattern, "cuts": cuts})
    return out


def token_overlaps(text, i):
    left, right = text[i - 1].encode()[-1:], text[i].encode()[:1]
    if left == right:
        return True
    before = text[:i].encode()[:-1]
    return before.endswith(left) and left == right


def sentencepiece_goldens():
    out = {}
    rules = "\n".join(["FF21\t41", "FB01\t66 69", "41 30A\tC5", "2460\t31", "2003\t20", "A0\t20", "200B\t", "3C3\t3C2"])
    with tempfile.TemporaryDirectory() as folder:
        rule_file = os.path.join(folder, "rules.tsv")
        with open(rule_file, "w") as file:
            file.write(rules + "\n")
        plain = {"normalization_rule_name": "identity"}
        variants = {
            "bpe": {"model_type": "bpe", "vocab_size": 330, **plain},
            "bpe_byte_fallback": {"model_type": "bpe", "byte_fallback": True, "vocab_size": 600, "remove_extra_whitespaces": False, **plain},
            "bpe_user_defined": {"model_type": "bpe", "vocab_size": 360, "user_defined_symbols": ["<|user|>", "▁▁", "\n", "abc", "special"],
                                 "add_dummy_prefix": False, "remove_extra_whitespaces": False, **plain},
            "bpe_suffix": {"model_type": "bpe", "vocab_size": 330, "treat_whitespace_as_suffix": True, **plain},
            "unigram": {"model_type": "unigram", "vocab_size": 330, "normalization_rule_tsv": rule_file},
            "unigram_byte_fallback": {"model_type": "unigram", "byte_fallback": True, "vocab_size": 560, **plain},
            "unigram_user_defined": {"model_type": "unigram", "vocab_size": 340, "user_defined_symbols": ["<|user|>", "special", "the qu"],
                                     "normalization_rule_tsv": rule_file},
        }
        for name, options in variants.items():
            model = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(line for line in corpus_lines() if line), model_writer=model, minloglevel=2, character_coverage=0.98,
                hard_vocab_limit=False, control_symbols=["<ctl>"], **options)
            processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
            rows = []
            for text in TEXTS + random_texts(25, 77):
                if "\x00" in text:
                    continue
                ids = processor.encode(text)
                rows.append({"text": text, "ids": ids, "decoded": processor.decode(ids)})
            rng = random.Random(5)
            decoded = []
            for _ in range(25):
                ids = [rng.randrange(processor.vocab_size()) for _ in range(rng.randint(1, 12))]
                decoded.append({"ids": ids, "decoded": processor.decode(ids)})
            out[name] = {"model": base64.b64encode(model.getvalue()).decode(), "cases": rows, "random_ids": decoded}
    return out


def rank_goldens():
    """A small byte-pair vocabulary in rank order, as tiktoken and as a tekken file read it."""
    tokenizer, trainer = bpe(600, True)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    train(tokenizer, trainer)
    alphabet = {}
    extra = 0
    for b in range(256):
        printable = 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE
        alphabet[chr(b) if printable else chr(256 + extra)] = b
        extra += 0 if printable else 1
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    ranks = {bytes(alphabet[c] for c in token): rank for rank, (token, _) in enumerate(vocab)}
    special = {"<|endoftext|>": len(ranks), "<|user|>": len(ranks) + 1}
    pattern = RUST_PATTERNS[1]
    encoding = tiktoken.Encoding("small", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    rows = []
    for text in TEXTS + random_texts(40, 99):
        ids = encoding.encode(text, allowed_special="all")
        rows.append({"text": text, "ids": ids, "raw": encoding.encode_ordinary(text), "decoded": encoding.decode(ids)})
    rng = random.Random(6)
    decoded = [{"ids": ids, "decoded": encoding.decode(ids)}
               for ids in ([rng.randrange(len(ranks)) for _ in range(rng.randint(1, 12))] for _ in range(30))]
    lines = "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    return {"ranks": lines, "pattern": pattern, "special": special, "cases": rows, "random_ids": decoded}


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..", "tests", "text", "data")
    os.makedirs(folder, exist_ok=True)
    for name, make in {"tokenizer_goldens": tokenizer_goldens, "split_goldens": split_goldens,
                       "sentencepiece_goldens": sentencepiece_goldens, "rank_goldens": rank_goldens}.items():
        path = os.path.join(folder, name + ".json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(make(), file, ensure_ascii=False, separators=(",", ":"))
            file.write("\n")
        print(path, os.path.getsize(path))


if __name__ == "__main__":
    main()
