#!/usr/bin/env python3
"""Writes src/text/unicode_tables.cpp: general categories and lower case as the `tokenizers` package sees them.

The categories are asked of the package itself, code point by code point, so that split patterns agree with it
whatever Unicode version this machine's other libraries have. Usage: unicode_tables.py > src/text/unicode_tables.cpp
"""
import sys

from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = ("Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co").split()


def categories():
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    text = "".join(map(chr, points))
    table = bytearray(0x110000)
    for c in range(0xD800, 0xE000):
        table[c] = CATEGORIES.index("Cs")
    for index, name in enumerate(CATEGORIES):
        if name in ("Cs", "Cn"):
            continue
        matched = pre_tokenizers.Split(Regex(r"\P{%s}+" % name), "removed").pre_tokenize_str(text)
        for piece, _ in matched:
            for c in piece:
                table[ord(c)] = index
    return table


def lower():
    pairs = []
    normalizer = normalizers.Lowercase()
    for c in range(0x80, 0x110000):
        if 0xD800 <= c < 0xE000 or c == 0x130:
            continue
        mapped = normalizer.normalize_str(chr(c))
        if mapped != chr(c):
            assert len(mapped) == 1
            pairs.append((c, ord(mapped)))
    runs = []  # first, last, stride, delta
    for c, m in pairs:
        if runs:
            first, last, stride, delta = runs[-1]
            step = c - last
            if m - c == delta and step in (1, 2) and (stride == 0 or stride == step):
                runs[-1] = (first, c, step, delta)
                continue
        runs.append((c, c, 0, m - c))
    return [(first, last, stride or 1, delta) for first, last, stride, delta in runs]


def runs_of(holds):
    runs = []
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000 or not holds(chr(c)):
            continue
        if runs and runs[-1][1] == c - 1:
            runs[-1][1] = c
        else:
            runs.append([c, c])
    return runs


# What the package's rules split off or remove; these are older than its categories.
PUNCTUATION = pre_tokenizers.Punctuation("isolated")
ACCENTS = normalizers.StripAccents()
BERT_ACCENTS = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
BERT_CLEAN = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
RULES = {
    "punctuation": ("that the punctuation rules split off", lambda c: len(PUNCTUATION.pre_tokenize_str("a" + c + "a")) > 1),
    "accent": ("that StripAccents removes", lambda c: ACCENTS.normalize_str("a" + c) == "a"),
    "bert_control": ("that BERT's rule removes from text to clean it", lambda c: BERT_CLEAN.normalize_str("a" + c + "a") == "aa"),
    "bert_accent": ("that BERT's rule removes", lambda c: BERT_ACCENTS.normalize_str("a" + c) == "a"),
}


def rows(items, per_line):
    for i in range(0, len(items), per_line):
        yield "    " + " ".join(item + "," for item in items[i : i + per_line])


def main():
    table = categories()
    runs = [(0, table[0])]
    for c in range(1, 0x110000):
        if table[c] != runs[-1][1]:
            runs.append((c, table[c]))
    out = sys.stdout
    out.write("// Written by tools/unicode_tables.py. Do not edit.\n// clang-format off\n")
    out.write('#include "text/unicode.h"\n\nnamespace ttt::inline v2::text {\n\n')
    out.write("// First code point of a run << 8 | category of the run.\n")
    out.write("const std::uint32_t category_runs[] = {\n")
    out.write("\n".join(rows([f"0x{c << 8 | k:x}" for c, k in runs], 12)))
    out.write("\n};\nconst std::size_t category_run_count = std::size(category_runs);\n\n")
    out.write("// First, last, stride, lower case minus code point.\n")
    out.write("const LowerRun lower_runs[] = {\n")
    out.write("\n".join(rows([f"{{0x{a:x}, 0x{b:x}, {s}, {d}}}" for a, b, s, d in lower()], 5)))
    out.write("\n};\nconst std::size_t lower_run_count = std::size(lower_runs);\n\n")
    for name, (what, holds) in RULES.items():
        out.write(f"// First, last code point {what}.\n")
        out.write(f"const CodePointRun {name}_runs[] = {{\n")
        out.write("\n".join(rows([f"{{0x{a:x}, 0x{b:x}}}" for a, b in runs_of(holds)], 8)))
        out.write(f"\n}};\nconst std::size_t {name}_run_count = std::size({name}_runs);\n\n")
    out.write("}  // namespace ttt::inline v2::text\n// clang-format on\n")


main()
