#!/bin/bash
# Build the extension without pip, for work on the tree. Options go to `meson setup`.
#   tests/dev_build.sh                  pyksm/_core.abi3.so, so that the tree itself can be imported
#   BUILD=dir PACKAGE=dir ... [option]  a package directory of links for PYTHONPATH instead
# Wants cffi, meson and ninja beside $PYTHON (python3 unless set).
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

package=pyksm
if [ -n "${PACKAGE:-}" ]; then
	package=$PACKAGE/pyksm
	rm -rf "$package" && mkdir -p "$package"
	for each in pyksm/*; do
		case $each in */_core.*.so | */_tasks.*.so | */__pycache__) ;; *) ln -s "$PWD/$each" "$package" ;; esac
	done
fi
# Under a new name first: a running Python may have the old file mapped.
for name in _core _tasks; do
	cp "$(find "$build/pyksm" -maxdepth 1 -name "$name*.so")" "$package/$name.abi3.so.new"
	mv "$package/$name.abi3.so.new" "$package/$name.abi3.so"
done
