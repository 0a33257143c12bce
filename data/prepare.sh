#!/bin/sh
# prepare.sh: makes the default dataset, data/characters/, of the first text that can be had. See --help, and data/README.md.
set -eu
LC_ALL=C   # so that names sort alike everywhere
export LC_ALL

url=https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt
expected=86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed
licenses=/usr/share/common-licenses

usage() {
    cat <<'END'
usage: sh data/prepare.sh [TEXT_FILE] [--force] [--out DIR] [--sources LIST]

Turns a text into token shards, every character a token: train.bin, val.bin, characters.json and dataset.json in data/characters/.
The text is TEXT_FILE (UTF-8); else tinyshakespeare.txt in $DATA_MIRROR (a directory or URL) if that is set; else the first that works of
  download   TinyShakespeare, 1.1 MB, its sha256 checked
  bible      what the program `bible` prints (Debian and Ubuntu: bible-kjv and bible-kjv-text), 4.3 MB
  licenses   the licences in /usr/share/common-licenses
Nothing is done if the dataset is there already.

  --force            make it anew
  --out DIR          another place for it
  --sources LIST     try only these, as "bible licenses"

$TOKENIZER is the program to use; without it, ./tokenizer of this repository, built if missing.
END
}

say() { printf 'prepare: %s\n' "$*"; }
fail() {
    printf 'prepare: %s\n' "$*" >&2
    exit 1
}

# ---- Tools ----

hasher=sha256sum
command -v sha256sum >/dev/null || hasher='shasum -a 256'
sha256() { $hasher <"$1" | cut -d ' ' -f 1; }

# fetch URL FILE: five seconds for a connection, a minute for everything.
fetch() {
    limit='' options=''
    if command -v timeout >/dev/null; then limit='timeout 60'; fi
    if command -v curl >/dev/null; then
        curl -fsSL --connect-timeout 5 --max-time 60 -o "$2" "$1"
    elif command -v wget >/dev/null; then
        # Only GNU's: busybox has -T in some builds, and crashes on it in Debian's.
        if wget --version 2>/dev/null | grep -q GNU; then options='-nv -T 5 -t 1'; fi
        # shellcheck disable=SC2086
        $limit wget $options -O "$2" "$1"
    elif command -v python3 >/dev/null; then
        $limit python3 - "$1" "$2" <<'END'
import sys, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=5) as answer, open(sys.argv[2], "wb") as file:
        file.write(answer.read())
except Exception as error:
    sys.exit("python3: %s" % error)
END
    else
        say "neither curl, wget nor python3 is installed"
        return 1
    fi
}

is_tinyshakespeare() {
    found=$(sha256 "$1")
    [ "$found" = "$expected" ] || say "refused: $2 has the sha256 $found, not $expected"
    [ "$found" = "$expected" ]
}

# ---- Sources: each sets text (a file) and source (its name), or returns 1 ----

from_mirror() {
    case $DATA_MIRROR in
        *://*) place=${DATA_MIRROR%/}/tinyshakespeare.txt
               text=$work/mirror.txt
               fetch "$place" "$text" || fail "DATA_MIRROR has no tinyshakespeare.txt that can be fetched: $place" ;;
        *) text=${DATA_MIRROR%/}/tinyshakespeare.txt
           [ -f "$text" ] || fail "DATA_MIRROR has no tinyshakespeare.txt: there is no file '$text'" ;;
    esac
    is_tinyshakespeare "$text" "tinyshakespeare.txt of DATA_MIRROR" || exit 1
    source='TinyShakespeare, from DATA_MIRROR'
}

from_download() {
    say "downloading TinyShakespeare from $url"
    text=$work/download.txt
    fetch "$url" "$text" || { say 'the download failed'; return 1; }
    is_tinyshakespeare "$text" 'what was downloaded' || return 1
    source="TinyShakespeare, $url"
}

from_bible() {
    command -v bible >/dev/null || { say "the program bible is not installed (Debian and Ubuntu: apt-get install bible-kjv)"; return 1; }
    text=$work/bible.txt
    # In the empty work directory, for bible prefers a bible.data in the current one.
    (cd "$work" && bible -l79 gen1:1-rev22:21 </dev/null) >"$text" || { say 'the program bible failed'; return 1; }
    [ "$(wc -c <"$text")" -gt 4000000 ] || { say "the program bible printed only $(wc -c <"$text") bytes"; return 1; }
    source='King James Bible, as the Debian program bible prints it'
}

from_licenses() {
    text=$work/licenses.txt
    : >"$text"
    for file in "$licenses"/*; do
        if [ -f "$file" ] && [ ! -L "$file" ]; then cat "$file" >>"$text"; fi
    done
    [ -s "$text" ] || { say "there are no licence texts in $licenses"; return 1; }
    source="licence texts of $licenses"
}

choose_text() {
    if [ -n "$text" ]; then
        [ -f "$text" ] || fail "there is no file '$text'"
        source=$text
        return
    fi
    if [ -n "${DATA_MIRROR:-}" ]; then
        from_mirror
        return
    fi
    for name in $sources; do
        if "from_$name"; then return; fi
    done
    fail "no text could be had from: $sources; name a text of your own: sh data/prepare.sh FILE"
}

# ---- Main ----

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
text='' force='' out=$root/data/characters sources='download bible licenses' tokenizer=${TOKENIZER:-$root/tokenizer}
while [ $# -gt 0 ]; do
    option=$1
    shift
    case $option in
        --help | -h) usage; exit 0 ;;
        --force) force=1 ;;
        --out | --sources)
            if [ $# -eq 0 ] || [ -z "$1" ]; then fail "$option needs a value; see --help"; fi
            case $option in
                --out) out=${1%/} ;;
                --sources) sources=$1 ;;
            esac
            shift ;;
        -*) fail "there is no option '$option'; see --help" ;;
        '') fail "the name of the text is empty" ;;
        *) [ -z "$text" ] || fail "one text only, not '$text' and '$option'; put them into one file with cat"
           text=$option ;;
    esac
done
for name in $sources; do
    case $name in download | bible | licenses) ;; *) fail "there is no source '$name'; there are download, bible and licenses" ;; esac
done

if [ -f "$out/dataset.json" ] && [ -z "$force" ]; then
    if [ -n "$text" ]; then
        [ -f "$text" ] || fail "there is no file '$text'"
        digest=$(sha256 "$text")
        grep -q "$digest" "$out/dataset.json" ||
            fail "'$out' holds another text already; --force replaces it, --out DIR puts the new one elsewhere"
    fi
    say "'$out' is there already, made of: $(sed -n 's/.*"source": "\([^"]*\)".*/\1/p' "$out/dataset.json"); --force makes it anew"
    exit 0
fi

if [ ! -x "$tokenizer" ]; then
    [ "$tokenizer" = "$root/tokenizer" ] || fail "there is no program '$tokenizer'"
    make -C "$root" tokenizer || fail "the program tokenizer could not be built"
fi

work=$out.$$.tmp
mkdir -p "$(dirname -- "$out")"
mkdir "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM

choose_text
say "text: $source"
# A new dataset appears in one step. Into an old one's directory the tokenizer writes dataset.json last, which marks it as whole.
target=$out
if [ ! -e "$out" ]; then target=$work/dataset; fi
digest=$(sha256 "$text")
"$tokenizer" chars --input "$text" --out "$target" --source "$source" --sha256 "$digest"
if [ "$target" != "$out" ]; then mv "$target" "$out"; fi
say "'$out' is ready"
