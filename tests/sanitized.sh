#!/bin/bash
# The Python tests against a core built with AddressSanitizer and UBSan. Python itself keeps memory
# to the end; a leak counts when the core's own code allocated it. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$PWD/build-sanitized
BUILD=$build PACKAGE=$build/package tests/dev_build.sh -Db_sanitize=address,undefined \
	-Db_lundef=false -Dc_args=-fno-sanitize-recover=all
rm -f "$build"/report.*
export PYTHONPATH=$build/package PYTHONMALLOC=malloc
export ASAN_OPTIONS=detect_leaks=1:log_path=$build/report:allocator_may_return_null=1
export LSAN_OPTIONS=exitcode=0 UBSAN_OPTIONS=print_stacktrace=1:log_path=$build/report
failed=0
LD_PRELOAD="$(cc -print-file-name=libasan.so) $(cc -print-file-name=libubsan.so)" \
	pytest -q -p no:cacheprovider "$@" || failed=1
if grep -hE -A 20 'ERROR: AddressSanitizer|runtime error' "$build"/report.* 2>/dev/null; then
	exit 1
fi
if grep -hE -B 4 -A 8 'csrc/' "$build"/report.* 2>/dev/null; then
	echo "memory of the core leaks" && exit 1
fi
exit $failed
