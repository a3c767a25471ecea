#!/bin/bash
# Build the extension in place: pyksm/_core.abi3.so, so that the tree itself can be imported.
# Wants cffi, meson and ninja beside $PYTHON (python3 unless set). Options go to meson setup.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
PATH="$("$python" -c 'import os, sys; print(os.path.dirname(sys.executable))'):$PATH"
build=${BUILD:-build-dev}
if [ ! -f "$build/build.ninja" ]; then
	meson setup "$build" -Dpython=enabled -Dlibrary=false "$@" >/dev/null
fi
ninja -C "$build" >"$build/log" 2>&1 || { grep -vE '^\[[0-9]+/' "$build/log" >&2; exit 1; }
grep -A 12 -E 'warning:' "$build/log" >&2 || true
extension=$(find "$build/pyksm" -maxdepth 1 -name '_core*.so' | head -n 1)
cp "$extension" pyksm/_core.abi3.so.new
mv pyksm/_core.abi3.so.new pyksm/_core.abi3.so
