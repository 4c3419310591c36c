#!/usr/bin/env bash
# Build the contract environment: envs/megatron.sh VENV_DIR
# Returns at once when VENV_DIR was built from these very files. PYTHON names the interpreter
# (3.11 or 3.12; megatron-core and Megatron-Bridge ask for 3.12 and run on 3.11).
set -euo pipefail

venv=${1:?usage: envs/megatron.sh VENV_DIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pins=$here/megatron.txt
digest=$(cat "$pins" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1)

if [[ $(cat "$venv/.built" 2>/dev/null) == "$digest" ]]; then
    exit 0
fi

rm -rf "$venv"
"${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile)

# torch first and exactly so, which finds a CPU build where one is offered. It alone is resolved, so
# that a CUDA build brings its libraries; a CPU build brings none.
"${pip[@]}" --constraint "$pins" "$(grep '^torch==' "$pins")" pybind11 setuptools

# The list is complete: no resolution. megatron-core has wheels for 3.12 only, its source builds on
# 3.11 too.
"${pip[@]}" --no-deps --ignore-requires-python --no-build-isolation --no-binary megatron-core \
    --requirement "$pins"

# What a check of a config imports, compiled once: two thirds of its time otherwise.
env -u PYTHONDONTWRITEBYTECODE PYTHONPATH="$here/../workflow" "$venv/bin/python" -W ignore -c \
    'from nemoflow.engines.megatron import stubs; stubs.install(); import nemoflow.engines.megatron.recipe' \
    >/dev/null

echo "$digest" >"$venv/.built"
