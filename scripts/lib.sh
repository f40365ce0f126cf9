# Functions that the scripts share; sourced by them, from any folder.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=${TTT_JOBS:-$(nproc)}
started=$SECONDS

say() { printf '[%4d s] %s\n' $((SECONDS - started)) "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# usage FILE: its leading comment, without the '#'.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$1"; }

# packages GROUP...: names of the groups' packages.
packages() {
  local group
  for group; do awk -v group="$group" '$1 == group { print $2 }' "$root/scripts/packages.txt"; done | sort -u
}

# need GROUP...: installs the packages of the groups that are missing. Where that can not be done, says what is needed and goes on:
# the build finds out whether it is there under another name.
need() {
  local missing=() package
  if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
    say "this is no Debian or Ubuntu; needed, by their names there: $(packages "$@" | tr '\n' ' ')"
    return 0
  fi
  for package in $(packages "$@"); do
    dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo > /dev/null || fail "packages are missing, ${missing[*]}, install them as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}")
  # The lists of a fresh machine are empty or old.
  logged packages "${as_root[@]}" apt-get update -qq || true
  logged packages "${install[@]}" || fail "apt-get install failed, ${missing[*]}, see $root/build/logs/packages.log"
}

# logged NAME command...: runs it with its output in build/logs/NAME.log; on failure shows the end of that.
logged() {
  local log=$root/build/logs/$1.log status=0
  shift
  mkdir -p "${log%/*}"
  "$@" > "$log" 2>&1 < /dev/null || status=$?
  if [ $status != 0 ]; then
    printf '%s\n' "--- the end of $log" >&2
    grep -E -i -A5 'error|FAILED' "$log" | tail -n 40 >&2 || tail -n 40 "$log" >&2
    printf '%s\n' "---" >&2
  fi
  return $status
}

# configure FOLDER options...: cmake over the project, with ccache where it is there.
configure() {
  local folder=$1
  shift
  local launcher=()
  command -v ccache > /dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  logged "configure-$folder" cmake -S "$root" -B "$root/$folder" -G Ninja "${launcher[@]}" "$@"
}

# build FOLDER target...
build() {
  local folder=$1
  shift
  logged "build-$folder" ninja -C "$root/$folder" -j "$jobs" "$@"
}
