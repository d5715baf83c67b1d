#!/usr/bin/env bash
# Installs the benchmark's peers into <repo>/.peers (git-ignored):
#
#   .peers/venv          llama-cpp-python built for this CPU, gguf, safetensors, numpy
#   .peers/candle-bench  the candle peer, built for this CPU
#
# Everything comes from PyPI and crates.io through pip and cargo as they are configured here.
# Safe to run again: a finished step is skipped until its inputs change.
set -euo pipefail

LLAMA_CPP_PYTHON=0.3.36

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=$(dirname "$here")/.peers
venv=$peers/venv
mkdir -p "$peers/stamps"

# GGML_NATIVE compiles for this machine's CPU (-march=native), which is what turns on the AVX-512
# and bf16 dot-product kernels here. The llamafile kernels are the fast bf16 matrix products.
# OpenMP is ggml's default thread pool; it is dropped by itself where the compiler has none.
cmake_args=(
    -DCMAKE_BUILD_TYPE=Release
    -DGGML_NATIVE=ON
    -DGGML_OPENMP=ON
    -DGGML_LLAMAFILE=ON
    -DLLAVA_BUILD=OFF
    -DLLAMA_BUILD_TESTS=OFF
    -DLLAMA_BUILD_TOOLS=OFF
    -DLLAMA_BUILD_EXAMPLES=OFF
    -DLLAMA_BUILD_SERVER=OFF
)

# The builds are native, so a checkout that moved to another CPU must build again.
cpu=$(sha256sum < <(grep -m1 '^model name' /proc/cpuinfo; grep -m1 '^flags' /proc/cpuinfo))

# once NAME KEY COMMAND...: runs the command unless it last succeeded with the same key.
once() {
    local stamp=$peers/stamps/$1 key=$2
    shift 2
    if [[ -f $stamp && $(<"$stamp") == "$key" ]]; then
        echo "peers: ${stamp##*/} is up to date" >&2
        return
    fi
    local start=$SECONDS
    "$@"
    echo "$key" >"$stamp"
    echo "peers: ${stamp##*/} done in $((SECONDS - start)) s" >&2
}

install_packages() {
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r "$here/requirements-build.txt" -r "$here/requirements.txt"
}

# No isolation: the pinned cmake and ninja of the venv do the build. No cache: pip keys its cache of
# built wheels by version alone, and would hand back one built with other flags.
build_llama() {
    PATH=$venv/bin:$PATH CMAKE_ARGS="${cmake_args[*]}" CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) \
        "$venv/bin/pip" install --quiet --no-build-isolation --no-cache-dir --no-deps \
        --force-reinstall --no-binary llama-cpp-python "llama-cpp-python==$LLAMA_CPP_PYTHON"
}

build_candle() {
    RUSTFLAGS="-C target-cpu=native" cargo build --release --locked \
        --manifest-path "$here/candle-bench/Cargo.toml" --target-dir "$peers/candle-target"
    cp "$peers/candle-target/release/candle-bench" "$peers/candle-bench"
}

packages=$(cat "$here"/requirements*.txt | sha256sum)
once packages "$packages" install_packages
once llama "$LLAMA_CPP_PYTHON ${cmake_args[*]} $cpu $packages" build_llama
# cargo knows by itself what to rebuild, except when the meaning of "native" changes.
once candle-cpu "$cpu" rm -rf "$peers/candle-target"
build_candle

echo "peers: ready in $peers" >&2
