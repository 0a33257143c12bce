# restarts.sh: a trainer that is started again when it fails by no fault of its user's; run_node.sh and recipe.sh source it. It reads
#   this        the script's name, for messages
#   restarts    how often in a row the trainer may fail without a new checkpoint (--restarts; 0: it is never started again)
# run_slurm.sh, for which Slurm starts it again, takes only out_of and newest_checkpoint from here.
# shellcheck shell=sh disable=SC2154,SC2086   # what the scripts set; $again is several words
restarts=3

# option LETTER NAME WORDS...: the value that these words give an option of train_gpt, the last one counting; nothing if they do not.
option() {
    letter=${1:-no letter} long=$2 value='' previous=''
    shift 2
    for word in "$@"; do
        case $previous in "$letter" | "$long") value=$word ;; esac
        case $word in "$long"=* | "$letter"=*) value=${word#*=} ;; "$letter"?*) value=${word#"$letter"} ;; esac
        previous=$word
    done
    printf '%s\n' "$value"
}

# The directory of the run that these words start.
out_of() {
    found=$(option -o --out "$@") config=$(option '' --config "$@")
    if [ -z "$found" ] && [ -f "$config" ]; then found=$(out_in "$config"); fi
    while [ "${found%?/}" != "$found" ]; do found=${found%/}; done
    printf '%s\n' "${found:-out}"
}

# What a file of options says of --out: in quotes or not, and a # after a blank begins a comment (llmc/options.h).
out_in() {
    sed -nE -e 's/\r$//; s/^[^ -~\t]*[[:blank:]]*out[[:blank:]]*=[[:blank:]]*//; t found' -e 'b' -e ':found' \
        -e "s/^\"([^\"]*)\".*/\1/; t shown; s/^'([^']*)'.*/\1/; t shown; s/(^|[[:blank:]]+)#.*//; s/[[:blank:]]+\$//" \
        -e ':shown' -e p "$1" | tail -n 1
}

# is_count WORD: a whole number of at most four digits.
is_count() { case $1 in '' | *[!0-9]* | ?????*) return 1 ;; esac; }

# The trainer, told to save and end when this script is; `asked` tells afterwards whether it was. Its exit status.
train() {
    trainer='' asked=''
    trap 'asked=yes; kill -s TERM "$trainer" 2>/dev/null' INT TERM HUP
    trap 'asked=yes; kill -s USR1 "$trainer" 2>/dev/null' USR1
    "$@" &
    trainer=$!
    if [ -n "$asked" ]; then kill -s TERM "$trainer" 2>/dev/null || :; fi   # before its number was known
    while :; do
        status=0
        wait "$trainer" || status=$?
        kill -0 "$trainer" 2>/dev/null || break
    done
    trap - INT TERM HUP USR1
    return "$status"
}

newest_checkpoint() {
    newest=''
    for state in "$1"/step_*/state.json; do if [ -e "$state" ]; then newest=$state; fi; done
    echo "$newest"
}
record_of() { cksum 2>/dev/null <"$1/run.json"; }
# What the user gave has led to a first step, since the record was that.
has_begun() { [ "$(record_of "$1")" != "$2" ] && [ -s "$1/log.jsonl" ]; }
has_diverged() { grep -q '"end": {"status": "diverged"' "$1/run.json" 2>/dev/null; }

# Words that a start after the first has at its end; a script with others to say has its own.
more_options() { :; }

# keep_training RUN COMMAND...: trains, and goes on from the newest checkpoint after a failure, but not where the user has ended it, where it never
# came to a first step, or where the loss was not finite. The last exit status.
keep_training() {
    run=$1 failures=0 begun='' again=''
    shift
    while :; do
        record=$(record_of "$run") saved=$(newest_checkpoint "$run") status=0
        train "$@" $again || status=$?
        if [ -z "$begun" ] && has_begun "$run" "$record"; then begun=yes; fi
        if [ "$status" -eq 0 ] || [ "$status" -eq 130 ] || [ -n "$asked" ] || [ -z "$begun" ] || has_diverged "$run"; then return "$status"; fi
        newest=$(newest_checkpoint "$run")
        if [ "$newest" != "$saved" ]; then failures=0; fi
        failures=$((failures + 1))
        if [ "$failures" -gt "$restarts" ]; then break; fi
        pause=$((failures < 7 ? 5 << failures : 600))
        from=${newest:+$(basename -- "$(dirname -- "$newest")")}
        echo "$this: training ended with status $status; in $pause s it goes on from ${from:-its beginning} (failure $failures of the $restarts in\
 a row that --restarts allows; Ctrl-C ends it)" >&2
        train sleep "$pause" || return 130
        again="${newest:+--resume auto} $(more_options)"
    done
    if [ "$restarts" -gt 0 ]; then
        echo "$this: training has failed $failures times in a row without a new checkpoint, and is not started again (--restarts $restarts)" >&2
    fi
    return "$status"
}
