#!/bin/sh
# curve.sh: draws the learning curve of a run in the terminal. Usage: sh scripts/curve.sh [RUN] (default: out)
set -eu
case ${1:-out} in
    --help | -h) echo 'usage: sh scripts/curve.sh [RUN]     draws the losses in RUN/log.jsonl (default: out)'; exit 0 ;;
    -*) echo "curve.sh: there is no option '$1'; see --help" >&2; exit 1 ;;
esac
log=${1:-out}
if [ -d "$log" ]; then log=${log%/}/log.jsonl; fi
[ -f "$log" ] || { echo "curve.sh: there is no log '$log'; name the directory of a run" >&2; exit 1; }

LC_ALL=C awk '
# The number of that key in this line, or "" if there is none.
function number_of(key,    text) {
    if (!match($0, "\"" key "\": *-?[0-9][0-9.eE+-]*")) return ""
    text = substr($0, RSTART, RLENGTH)
    sub(/.*: */, "", text)
    return text + 0
}
# The row of the grid for a loss; row 1 is the top.
function row_of(loss) { return 1 + int((high - loss) / (high - low) * (rows - 1) + 0.5) }
function column_of(step) { return last > first ? 1 + int((step - first) / (last - first) * (columns - 1) + 0.5) : 1 }
function widen(loss) {
    if (high == "" || loss > high) high = loss
    if (low == "" || loss < low) low = loss
}
BEGIN { rows = 16; columns = 66 }
/}[ \t\r]*$/ {   # a last line that is half-written has no closing brace
    step = number_of("step")
    loss = number_of("loss")
    if (step == "" || loss == "") next
    n++
    steps[n] = step
    train[n] = loss
    val[n] = number_of("val_loss")
    widen(loss)
    if (val[n] != "") widen(val[n])
    if (n == 1) first = step
    last = step
}
END {
    if (n == 0) {
        print "curve.sh: no whole line with step and loss was found" | "cat 1>&2"
        exit 1
    }
    if (high == low) high = low + 1
    for (i = 1; i <= n; i++) {
        c = column_of(steps[i])
        sum[c] += train[i]
        count[c]++
    }
    for (c in sum) cell[row_of(sum[c] / count[c]), c] = "."
    for (i = 1; i <= n; i++) {
        if (val[i] == "") continue
        cell[row_of(val[i]), column_of(steps[i])] = "o"
        val_last = val[i]
        if (val_best == "" || val[i] < val_best) val_best = val[i]
    }
    for (r = 1; r <= rows; r++) {
        line = sprintf("%8.3f |", high - (high - low) * (r - 1) / (rows - 1))
        for (c = 1; c <= columns; c++) line = line ((r, c) in cell ? cell[r, c] : " ")
        sub(/ +$/, "", line)
        print line
    }
    line = "         +"
    for (c = 1; c <= columns; c++) line = line "-"
    print line
    width = columns - length(first "")
    printf "          %s%" width "s\n", first, last " steps"
    line = sprintf("          . training loss (last %.4f)", train[n])
    if (val_best != "") line = line sprintf("   o validation loss (last %.4f, best %.4f)", val_last, val_best)
    print line
}' "$log"
