#!/bin/sh
# From a bare Debian or Ubuntu to a trained model: installs what is missing, builds, prepares the text, trains, draws the learning curve and
# writes a sample. Usage: sh scripts/quickstart.sh [options of train_gpt], as: sh scripts/quickstart.sh -x 200 -o out/short
set -eu
cd "$(dirname -- "$0")/.."

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

case ${1:-} in --help | -h)
    sed -n '2,3s/^# //p' "$0"
    echo "It runs ./train_gpt -e rope -g 8 with your options after these; ./train_gpt --help lists them."
    exit 0 ;;
esac

# ---- What is missing ----

# Whether a program of these lines can be built with this option; the compiler is the one that the Makefile takes.
builds() {
    cc=${CC:-}
    for name in gcc clang cc; do
        if [ -z "$cc" ] && have "$name"; then cc=$name; fi
    done
    # shellcheck disable=SC2086
    [ -n "$cc" ] && printf '%b' "$1" | $cc -x c - -o /dev/null ${2:-} >/dev/null 2>&1
}
can_build() { have make && builds 'int main(void) { return 0; }'; }
has_onednn() { builds '#include <oneapi/dnnl/dnnl.h>\nint main(void) { return dnnl_version() == 0; }' -ldnnl; }

has_pcre2() { builds '#define PCRE2_CODE_UNIT_WIDTH 8\n#include <pcre2.h>\nint main(void) { return pcre2_config(PCRE2_CONFIG_JIT, 0) == 0; }' -lpcre2-8; }

# The python3 that has matplotlib; the first in PATH may be another than the system's.
python_with_matplotlib() {
    for name in python3 /usr/bin/python3; do
        if "$name" -c 'import matplotlib' >/dev/null 2>&1; then echo "$name"; return; fi
    done
}

needed='' useful=''
can_build || needed=' make gcc libc6-dev'
has_onednn || useful=' libdnnl-dev'
has_pcre2 || useful="$useful libpcre2-dev"
builds '#include <utf8proc.h>\nint main(void) { return utf8proc_version() == 0; }' -lutf8proc || useful="$useful libutf8proc-dev"
[ -n "$(python_with_matplotlib)" ] || useful="$useful python3-matplotlib"
if [ ! -f data/characters/dataset.json ] && [ -z "${DATA_MIRROR:-}" ] && ! have curl && ! have wget; then
    useful="$useful curl ca-certificates"
fi

# ---- Installing ----

root=''   # the words before a command that make it run as root
may_install() {
    have apt-get || return 1
    [ "$(id -u)" -ne 0 ] || return 0
    have sudo || return 1
    root=sudo
    if sudo -n true 2>/dev/null; then return 0; fi
    [ -t 0 ] && echo 'sudo asks for your password, to install packages' && sudo true
}

install_packages() { $root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }

update_lists() { $root apt-get update || echo 'The package lists could not be brought up to date; going on with the old ones.'; }

# Sets failed to the packages that could not be had. The useful ones are installed one by one: a system may have some and lack others.
install_missing() {
    failed=$needed$useful
    may_install || return 0
    update_lists
    # shellcheck disable=SC2086
    if [ -n "$needed" ] && ! install_packages $needed; then return 0; fi
    failed=''
    for package in $useful; do
        install_packages "$package" || failed="$failed $package"
    done
}

if [ -n "$needed$useful" ]; then
    say "missing packages:$needed$useful"
    install_missing
    if [ -n "$failed" ] && have apt-get; then
        printf 'Not installed:%s. As root, this does it:\n    apt-get update && apt-get install -y%s\n' "$failed" "$failed"
    elif [ -n "$failed" ]; then
        printf 'Not installed:%s (the names of Debian). Please install what your system calls these.\n' "$failed"
    fi
fi
can_build || fail 'without make and a C compiler nothing can be built; install them and start again'
has_onednn || echo 'Without oneDNN (libdnnl-dev) the build uses its own matrix products: correct, but slow.'
has_pcre2 || echo 'Without PCRE2 (libpcre2-dev) the tokenizer knows characters, but no byte pairs.'

# ---- Build, text, training ----

say 'building'
make -j"$(nproc 2>/dev/null || echo 2)" NO_DATA=1 tokenizer train_gpt sample_gpt

if [ ! -f data/characters/dataset.json ]; then
    say 'preparing the text'
    if [ -n "${DATA_MIRROR:-}" ]; then
        sh data/prepare.sh
    elif ! sh data/prepare.sh --sources download; then
        if ! have bible && may_install && update_lists; then
            install_packages bible-kjv bible-kjv-text || echo 'The packages bible-kjv and bible-kjv-text could not be installed.'
        fi
        sh data/prepare.sh --sources 'bible licenses'
    fi
fi

out=out
previous=''
for argument in "$@"; do
    case $previous in -o | --out) out=$argument ;; esac
    case $argument in --out=*) out=${argument#--out=} ;; esac
    previous=$argument
done

say "training: ./train_gpt -e rope -g 8 $*"
./train_gpt -e rope -g 8 "$@"

if [ ! -f "$out/log.jsonl" ]; then
    echo "There is no log in '$out', so there is no curve and no sample."
    exit 0
fi
say "the learning curve of $out"
sh scripts/curve.sh "$out"
if [ -f "$out/curve.png" ]; then echo "as a picture: $out/curve.png"; fi

say "a sample: ./sample_gpt --model $out"
./sample_gpt --model "$out"
