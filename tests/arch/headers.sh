#!/bin/sh
# headers.sh COMPILER ROOT [header...]: every public header compiles alone, with nothing but the standard library and its own folder.
set -eu
compiler=$1 root=$2
shift 2
[ $# -gt 0 ] || set -- $(cd "$root/include" && find ttt -name '*.h' | sort)
[ $# -gt 0 ] || { echo "no headers below $root/include"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Twice: the second time nothing may be left, so an include guard must be there.
for header; do printf '#include "%s"\n#include "%s"\n' "$header" "$header" > "$folder/$(echo "$header" | tr / _).cpp"; done
status=0
ls "$folder"/*.cpp | xargs -P 2 -n 4 "$compiler" -std=c++20 -fsyntax-only -Wall -Wextra -Werror -Wno-missing-field-initializers -I "$root/include" || status=1
[ $status = 0 ] && echo "$# headers compile alone"
exit $status
