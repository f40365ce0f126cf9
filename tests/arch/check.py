#!/usr/bin/env python3
"""The rules of the tree that no compiler checks (docs/architecture.md).

  check.py RULE [--root DIR]      RULE: layers, names, models, sizes, links
  check.py --list

Prints one line per violation and ends with status 1 when there is one.
"""
import argparse
import fnmatch
import os
import re
import statistics
import sys

# Each layer and those that it may include, besides itself.
LAYERS = {
    "base": [],
    "text": ["base"],
    "tensor": ["base"],
    "hw": ["base", "tensor"],
    "debug": ["base", "tensor"],
    "perf": ["base", "tensor"],
    "ops": ["base", "tensor", "hw", "debug", "perf"],
    "modules": ["base", "tensor", "hw", "debug", "perf", "ops"],
    "model": ["base", "tensor", "hw", "debug", "perf", "ops", "modules"],
}
LAYERS["convert"] = [*LAYERS["model"], "model", "text"]
LAYERS["runtime"] = [*LAYERS["model"], "model", "text"]
LAYERS["testing"] = [*LAYERS["convert"], "convert", "runtime"]
# Who stands beside or above the layers: folder -> what its files may include of the public headers.
ABOVE = {
    "backends": LAYERS["modules"],
    "models": [*LAYERS["convert"], "convert"],
    "demos": [*LAYERS["testing"], "testing"],
    "cli": [*LAYERS["testing"], "testing"],
    "python": [*LAYERS["testing"], "testing"],
    # What is linked into model libraries: data and its JSON, nothing that runs.
    "src/model_sdk": [*LAYERS["convert"], "convert"],
}
SOURCES = (".h", ".cpp", ".inc", ".in")
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.M)

FAMILIES = (
    "llama|mistral|mixtral|ministral|qwen|gemma|phi-?[0-9]|olmo|granite|gpt-?2|gpt-?neox?|gpt-?j|gpt-?oss|starcoder|deepseek|falcon|smollm|bloom|"
    "mamba|cohere|command-r|chatglm|glm-?[0-9]|internlm|minicpm|nemotron|exaone|baichuan|stablelm|rwkv|jamba|kimi|ernie|hunyuan|dbrx|grok|"
    "apertus|codegen|xglm|opt-[0-9]|mpt-[0-9]|minimax-?m[0-9]|longcat|bitnet|zamba|vaultgemma|codellama|yi-[0-9]|solar|arcee|helium|nanochat"
)
# A name inside identifiers and strings too ("scale_llama", "llama3"), but not inside another word ("glossolalia").
MODEL_NAME = re.compile(rf"(?<![a-z])(?:{FAMILIES})(?![a-z])", re.I)
# What formats spell with a model's name, and where: (files, spelling, whose it is).
FORMAT_SPELLINGS = [
    ("*", r"llama3", "kind of RoPE scaling in config.json (rope_type)"),
    ("*", r"mamba[\w.]*", "the mixers of Gu and Dao's papers, which a dozen families use"),
    ("include/ttt/text/vocabulary.h", r"gpt2|llama|gemma4|rwkv", "values of GGUF's tokenizer.ggml.model"),
    ("src/text/tokenizer_json_writer.cpp", r"gemma4|gpt2|llama", "values of GGUF's tokenizer.ggml.model"),
    ("src/text/gguf_*", r".*", "values of GGUF's tokenizer.ggml.model and tokenizer.ggml.pre"),
    ("src/text/pre_tokenizer.cpp", r"gpt2", "the split pattern that tokenizer.json's ByteLevel stands for"),
    ("src/convert/hf_config.cpp", r"mamba", "keys of config.json"),
    ("src/convert/gguf*", r"gemma4|gpt2|llama|rwkv", "values of GGUF's tokenizer.ggml.model"),
    ("backends/ttnn/driver/*", r"llama", "an operation of TTNN (rotary_embedding_llama)"),
]

LINES = {"models/*.cpp": 100, "*": 800}
FOLDER_LINES = 300  # of a family with mathematics of its own, all files together
MEDIAN_LINES = 40   # of all model files
# What several papers went into: these may not grow.
LONG_FOLDERS = {"deepseek_v4": 520, "inkling": 660, "qwen4_exp": 510}
# Tables are data, not code to be read.
LONG_BY_NATURE = ["src/text/unicode_tables.cpp"]


def files(root, folders, endings=SOURCES):
    for folder in folders:
        for path, subfolders, names in os.walk(os.path.join(root, folder)):
            subfolders[:] = sorted(name for name in subfolders if name not in ("__pycache__", "data", "reference", "fixtures"))
            for name in sorted(names):
                if name.endswith(endings):
                    yield os.path.relpath(os.path.join(path, name), root)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def layer_of_include(include):
    """The layer that an #include names, public ("ttt/ops/ops.h") or private ("ops/dispatch.h"), or None."""
    parts = include.split("/")
    if parts[0] == "ttt" and len(parts) > 2:
        return parts[1]
    return parts[0] if len(parts) > 1 and parts[0] in LAYERS else None


def check_layers(root):
    for path in files(root, ["include", "src", "backends", "models", "demos", "cli", "python"]):
        parts = path.split(os.sep)
        if parts[0] == "include":
            own = parts[2] if len(parts) > 3 else None
        else:
            own = parts[1] if parts[0] == "src" else None
        where = "/".join(parts[:2]) if "/".join(parts[:2]) in ABOVE else parts[0]
        if own in LAYERS:
            allowed = [own, *LAYERS[own]]
        elif where in ABOVE:
            allowed = ABOVE[where]
        else:
            yield f"{path}: belongs to no layer"
            continue
        for include in INCLUDE.findall(read(root, path)):
            layer = layer_of_include(include)
            if layer is not None and layer not in allowed:
                yield f'{path}: {own or where} includes "{include}"; it may include {", ".join(allowed) or "nothing"}'
            if parts[0] == "include" and layer is not None and not include.startswith("ttt/"):
                yield f'{path}: a public header includes the private "{include}"'
            if parts[0] == "include" and re.match(r"(nlohmann|fmt|hwy|CLI|pcre2|utf8proc|xxhash)", include):
                yield f'{path}: a public header includes the third-party "{include}"'
            if parts[0] in ("models", "demos", "cli", "python") and layer is not None and not include.startswith("ttt/"):
                yield f'{path}: uses the private "{include}"; only public headers are there after an install'
            if parts[0] != "backends" and re.search(r"\bbackends?/(cpu|null|ttnn)\b", include):
                yield f'{path}: includes the backend "{include}"'


def check_names(root):
    for path in files(root, ["include", "src", "backends", "cli", "python"], (*SOURCES, ".py")):
        spared = [re.compile(spelling, re.I) for pattern, spelling, _ in FORMAT_SPELLINGS if fnmatch.fnmatch(path, pattern)]
        for number, line in enumerate(read(root, path).splitlines(), 1):
            for found in MODEL_NAME.finditer(line):
                # With the digits and suffix that belong to it: "llama3".
                word = re.match(r"[\w.-]*", line[found.start():]).group().rstrip(".-")
                if not any(s.fullmatch(word) or s.fullmatch(found.group()) for s in spared):
                    yield f"{path}:{number}: names a model: {word}"


def check_models(root):
    for path in files(root, ["models"]):
        for include in INCLUDE.findall(read(root, path)):
            if include.startswith("ttt/") or re.fullmatch(r"[a-z_0-9]+", include):
                continue  # the core, the standard library
            target = os.path.normpath(os.path.join(os.path.dirname(path), include))
            # A family that needs files of its own has a folder of its own.
            if os.path.dirname(target) != os.path.dirname(path) or os.path.dirname(path) == "models":
                yield f'{path}: includes "{include}"; one family never includes another'


def check_sizes(root):
    for path in files(root, ["include", "src", "backends", "models", "cli", "demos", "python", "tests", "tools", "benchmarks"], (".h", ".cpp", ".py")):
        if path in LONG_BY_NATURE or (path.startswith("models/") and path.count("/") > 1):
            continue  # folders of families below, as a whole
        limit = next(limit for pattern, limit in LINES.items() if fnmatch.fnmatch(path, pattern))
        lines = read(root, path).count("\n")
        if lines > limit:
            yield f"{path}: {lines} lines, at most {limit}"
    folders, model_files = {}, []
    for path in files(root, ["models"], (".h", ".cpp")):
        lines = read(root, path).count("\n")
        if path.count("/") > 1:
            folder = path.split("/")[1]
            folders[folder] = folders.get(folder, 0) + lines
        if path.endswith(".cpp"):
            model_files.append(lines)
    for folder, lines in folders.items():
        limit = LONG_FOLDERS.get(folder, FOLDER_LINES)
        if lines > limit:
            yield f"models/{folder}: {lines} lines, at most {limit}"
    if model_files and statistics.median(model_files) > MEDIAN_LINES:
        yield f"models: the median of {len(model_files)} files has {statistics.median(model_files):g} lines, at most {MEDIAN_LINES}"


def check_links(root):
    """Links of the documentation to files of the tree."""
    pages = [name for name in sorted(os.listdir(root)) if name.endswith(".md")] + list(files(root, ["docs", "models", "demos", "tests", "tools"], (".md",)))
    for path in pages:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", read(root, path), flags=re.S)  # code has brackets too
        for target in re.findall(r"\]\(([^)\s#]+)", text):
            if "://" not in target and not os.path.exists(os.path.normpath(os.path.join(root, os.path.dirname(path), target))):
                yield f"{path}: links to {target}, which does not exist"


RULES = {"layers": check_layers, "names": check_names, "models": check_models, "sizes": check_sizes, "links": check_links}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rule", nargs="?", choices=RULES)
    parser.add_argument("--root", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    parser.add_argument("--list", action="store_true", help="print the names of the rules")
    options = parser.parse_args()
    if options.list or options.rule is None:
        print("\n".join(RULES))
        return 0
    root = os.path.abspath(options.root)
    if not os.path.isdir(os.path.join(root, "include", "ttt")):
        print(f"{root}: not the root of the project")
        return 1
    violations = list(RULES[options.rule](root))
    print("\n".join(violations) if violations else f"{options.rule}: no violation")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
