#!/bin/sh
# Fuzzes the readers of files: sh dev/fuzz/run.sh [SECONDS | -runs=N] [TARGET ...]
# Each target runs for SECONDS (60), or N executions, from dev/fuzz/corpus/TARGET, two targets at a time. New inputs go to a temporary
# directory. Ends with status 1 if any input crashed, and says where that input is. Needs clang with its fuzzer (Debian: clang and
# libclang-rt-14-dev); without it the corpus alone is replayed, under the sanitizers of the C compiler at hand.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}/fuzz
limit=-max_total_time=60
case ${1-} in
-runs=*) limit=$1; shift ;;
[0-9]*) limit=-max_total_time=$1; shift ;;
esac
targets=${*:-json safetensors shard options config index vocab merges tokenizer}
library="llmc/error.c llmc/files.c llmc/json.c llmc/safetensors.c llmc/shard.c llmc/options.c llmc/config.c
         llmc/families.c llmc/hf_config.c llmc/hf_config_write.c llmc/hf_words.c llmc/rope_scaling.c llmc/weight_files.c
         llmc/bpe.c llmc/bpe_encode.c llmc/bpe_files.c llmc/bpe_rules.c llmc/bpe_write.c llmc/specials.c llmc/pretokenize.c llmc/nfc.c
         llmc/byte_buffer.c llmc/utf8.c"
flags="-std=gnu11 -O2 -g -Wall -Wextra -fno-omit-frame-pointer -fno-sanitize-recover=all -I."
libraries="-lm -lpthread"
mkdir -p "$build" || exit 1
finds=$(mktemp -d) || exit 1

if printf '#include <stddef.h>\nint LLVMFuzzerTestOneInput(const char *d, size_t n) { return d == NULL && n; }\n' |
   clang -x c - -fsanitize=fuzzer,address,undefined -o "$build/probe" 2>/dev/null; then
    fuzzer=yes
    compile="clang -fsanitize=fuzzer,address,undefined"
else
    fuzzer=no
    compile="${CC:-cc} -fsanitize=address,undefined dev/fuzz/replay_main.c"
    echo "No clang with a fuzzer here (Debian: apt install clang libclang-rt-14-dev): the corpus is replayed, nothing is fuzzed."
fi
# Without PCRE2 vocabularies are read and written, but nothing is encoded.
if printf '#define PCRE2_CODE_UNIT_WIDTH 8\n#include <pcre2.h>\nint main(void) { return 0; }\n' |
   ${CC:-cc} -x c - -lpcre2-8 -o "$build/probe" 2>/dev/null; then
    flags="$flags -DUSE_PCRE2"
    libraries="-lpcre2-8 $libraries"
fi
if printf '#include <utf8proc.h>\nint main(void) { return 0; }\n' | ${CC:-cc} -x c - -lutf8proc -o "$build/probe" 2>/dev/null; then
    flags="$flags -DUSE_UTF8PROC"
    libraries="-lutf8proc $libraries"
fi
for target in $targets; do
    # An option's name is compared with all names, letter by letter: tracing that finds nothing and takes two thirds of the time.
    faster=
    [ "$fuzzer-$target" != yes-options ] || faster=-fno-sanitize-coverage=trace-cmp
    # shellcheck disable=SC2086
    $compile $flags $faster "dev/fuzz/fuzz_$target.c" $library $libraries -o "$build/fuzz_$target" || exit 1
done

# One target: its line of the report, and the status.
fuzz_one() {
    log=$finds/$1.log
    if [ $fuzzer = no ]; then
        "$build/fuzz_$1" dev/fuzz/corpus/"$1"/* >"$log" 2>&1
        status=$?
        executions=$(tail -n 1 "$log")
    else
        mkdir -p "$finds/$1"
        "$build/fuzz_$1" "$limit" -print_final_stats=1 -timeout=10 -artifact_prefix="$finds/$1-" \
            "$finds/$1" "dev/fuzz/corpus/$1" >"$log" 2>&1
        status=$?
        executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    fi
    if [ $status -eq 0 ]; then
        printf '%-12s %12s executions, no crash\n' "$1" "$executions"
        return 0
    fi
    printf '%-12s FAILED:\n' "$1"
    grep -E 'ERROR|runtime error|CHECK|Test unit written' "$log" || tail -n 5 "$log"
    return 1
}

failed=0
# shellcheck disable=SC2086
set -- $targets
while [ $# -gt 0 ]; do
    fuzz_one "$1" & first=$!
    second=
    if [ $# -gt 1 ]; then
        fuzz_one "$2" & second=$!
        shift
    fi
    shift
    wait $first || failed=1
    [ -z "$second" ] || wait "$second" || failed=1
done
if [ $failed -eq 0 ]; then rm -rf "$finds"; else echo "Crashing inputs and logs are in $finds"; fi
exit $failed
