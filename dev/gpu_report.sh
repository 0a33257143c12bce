# gpu_report.sh: results of dev/gpu_check.sh, which sources it: what passed, what failed, what was measured, under which clocks; kept in
# $report.json, a line a check, and as tables in $report.md. Needs $report, $work, $build, $gpu, $driver, $commit, $nvcc, $again.
# shellcheck shell=sh disable=SC2154,SC2034

failed=0
postponed=0

now() { date +%s; }
# Which programs these results are of.
build_id() { cat "$build/train_gpt" "$build/dev/bench" 2>/dev/null | cksum | cut -d ' ' -f 1; }
# As a JSON string may hold it.
plain() { tr '\\"' "/'" | tr -d '[:cntrl:]' | tr '|' '/' | cut -c 1-300; }

# The one line of the JSON file that a check has.
key() { echo "{\"stage\": \"$stage\", \"check\": \"$1\","; }

# record CHECK RESULT SECONDS SAID [MEASURED]: replaces the check's line, and makes the tables anew.
record() {
    line="$(key "$1") \"result\": \"$2\", \"seconds\": $3, \"build\": \"$id\", \"said\": \"$4\"${5:+, \"measured\": $5}}"
    {
        grep '^{' "$report.json" 2>/dev/null | sed 's/,$//' | grep -vF -e '{"gpu":' -e "$(key "$1")"
        echo "$line"
    } >"$work/lines"
    {
        echo '['
        echo "{\"gpu\": \"$gpu\", \"driver\": \"$driver\", \"commit\": \"$commit\", \"nvcc\": \"$nvcc_version\"},"
        sed '$!s/$/,/' "$work/lines"
        echo ']'
    } >"$work/json" && mv "$work/json" "$report.json"
    write_tables >"$work/md" && mv "$work/md" "$report.md"
    printf '%-12s %-40s %s (%s s)%s\n' "$stage" "$1" "$2" "$3" "$([ "$2" = passed ] || echo ": $4")"
}

# Markdown from the JSON file: the benchmarks, what was decided by the probes, the curves, then every check.
write_tables() {
    echo "# $gpu, $(date +%F)"
    echo
    echo "Command: \`sh dev/gpu_check.sh\`. Driver $driver, nvcc ${nvcc_version:-not here}, commit $commit."
    echo
    awk '
        # The first value of that name in the line.
        function field(name, at, rest) {
            at = index($0, "\"" name "\": ")
            if (!at) return ""
            rest = substr($0, at + length(name) + 4)
            if (substr(rest, 1, 1) == "\"") { rest = substr(rest, 2); return substr(rest, 1, index(rest, "\"") - 1) }
            match(rest, /^[^,}]*/)
            return substr(rest, 1, RLENGTH)
        }
        # With two rounds the median is the mean.
        function mean(row, what) { return sum[row, what] / count[row] }
        function add(row, what) { sum[row, what] += field(what) }
        index($0, "{\"stage\": \"bench\"") && index($0, "\"measured\":") {
            model = field("check"); sub(/,.*/, "", model); kind = field("kind"); row = model "|" kind
            if (!(row in count)) { rows[++n] = row; models[n] = model; kinds[n] = kind }
            count[row]++
            add(row, "tokens_per_s"); add(row, "ms"); add(row, "memory"); add(row, "mfu"); add(row, "floor_share"); add(row, "nominal_floor_share")
            add(row, "attention_forward"); add(row, "attention_both"); batch[row] = field("batch"); clocks[row] = field("card")
            if (kind ~ /^own/ && mean(row, "tokens_per_s") > best[model]) best[model] = mean(row, "tokens_per_s")
        }
        function percent(x) { return x > 0 ? sprintf("%.1f%%", 100 * x) : "-" }
        END {
            if (!n) exit
            print "| model | program | tok/s | our best over it | ms a step | B | GiB | MFU | of the floor, rates measured " \
                "| of the floor, 3.0 TB/s, 798 TFLOP/s | attention forward, both, TFLOP/s | clocks meanwhile |"
            print "|---|---|---|---|---|---|---|---|---|---|---|---|"
            for (i = 1; i <= n; i++) {
                r = rows[i]; speed = mean(r, "tokens_per_s")
                printf "| %s | %s | %.0f | %s | %.1f | %s | %.1f | %s | %s | %s | %s | %s |\n", models[i], kinds[i], speed,
                    (speed && best[models[i]]) ? sprintf("%.2f", best[models[i]] / speed) : "-", mean(r, "ms"), batch[r], mean(r, "memory") / 2^30,
                    percent(mean(r, "mfu")), percent(mean(r, "floor_share")), percent(mean(r, "nominal_floor_share")),
                    mean(r, "attention_both") ? sprintf("%.0f, %.0f", mean(r, "attention_forward") / 1e12, mean(r, "attention_both") / 1e12) : "-",
                    clocks[r] ? clocks[r] : "-"
            }
            print ""
        }' "$report.json"
    for part in decisions curve; do
        [ -s "$report.$part.md" ] || continue
        echo "## The $part"
        echo
        cat "$report.$part.md"
        echo
    done
    echo "| stage | check | result | seconds | last words |"
    echo "|---|---|---|---|---|"
    awk -F '"' '/^{"stage":/ {
        seconds = $15
        gsub(/[^0-9]/, "", seconds)
        printf "| %s | %s | %s | %s | %s |\n", $4, $8, $12, seconds, $12 == "passed" ? "" : $22
    }' "$report.json"
}

# passed_before NAME: so did this build, and it need not do so again.
passed_before() {
    [ -z "$fresh" ] && grep -F "$(key "$1") \"result\": \"passed\"" "$report.json" 2>/dev/null | grep -qF "\"build\": \"$id\""
}

# attempt NAME SECONDS COMMAND ...: runs it for so long at most, unless this build passed it before or the stage's time is nearly over. Leaves its
# output in $work/output too, and $result, $took and $said. Returns 0 if it passed now, 2 if it was not run.
attempt() {
    name=$1
    limit=$2
    shift 2
    if passed_before "$name"; then
        printf '%-12s %-40s passed before\n' "$stage" "$name"
        return 2
    fi
    left=$((deadline - $(now)))
    if [ $((2 * left)) -lt "$limit" ] || [ $left -lt 5 ]; then
        printf '%-12s %-40s left for the next call\n' "$stage" "$name"
        postponed=$((postponed + 1))
        return 2
    fi
    shortened=
    [ "$limit" -le $left ] || { limit=$left && shortened=1; }
    began=$(now)
    timeout -k 5 "$limit" "$@" >"$work/output" 2>&1 </dev/null
    status=$?
    took=$(($(now) - began))
    {
        echo "==== $stage, $name: $*"
        cat "$work/output"
        echo "==== status $status after $took s"
    } >>"$report.log"
    said=$(grep -v '^[[:space:]]*$' "$work/output" | tail -1 | plain)
    case $shortened$status in
    1124 | 1137)   # not too slow, but begun too late
        printf '%-12s %-40s cut off, left for the next call\n' "$stage" "$name"
        postponed=$((postponed + 1))
        return 2
        ;;
    esac
    case $status in
    0) result=passed ;;
    124 | 137) result='timed out' ;;
    *) result=failed ;;
    esac
    [ $status -eq 0 ] && return 0
    failed=$((failed + 1))
    return 1
}

# check NAME SECONDS COMMAND ...: the same, written down.
check() {
    attempt "$@"
    outcome=$?
    [ $outcome -eq 2 ] || record "$1" "$result" "$took" "$said"
    return $outcome
}

# A result without a command.
note() {
    [ "$2" != failed ] || failed=$((failed + 1))
    record "$1" "$2" 0 "$3"
}

begin_stage() {
    stage=$1
    id=$(build_id)
    deadline=$(($(now) + stage_seconds))
    [ -z "$call_ends" ] || [ "$deadline" -le "$call_ends" ] || deadline=$call_ends
    fresh=$again
    [ "$stage" != build ] || fresh=1
    nvcc_version=$([ -z "$nvcc" ] || "$nvcc" --version | sed -n 's/.*, \(V[0-9.]*\).*/\1/p')
}

# ---- measurements ----

# What of the card decides its speed, one line, or nothing: SM and memory clocks in MHz, power in W, temperature in C, reasons to throttle. The
# reasons' name differs by driver.
clock_fields=clocks.sm,clocks.mem,power.draw,temperature.gpu
for reasons in clocks_event_reasons.active clocks_throttle_reasons.active; do
    if nvidia-smi --query-gpu=$clock_fields,$reasons --format=csv,noheader,nounits >"$work/clocks" 2>&1 && grep -q '0x' "$work/clocks"; then
        clock_fields=$clock_fields,$reasons
        break
    fi
done
card_state() { nvidia-smi --query-gpu=$clock_fields --format=csv,noheader,nounits 2>/dev/null | head -1 | tr -d ' ' | grep '^[0-9]'; }

# From the lines of $work/clocks: between which SM clocks (idle ones at the edges left out), at which power and temperature, throttled by what.
clocks_meanwhile() {
    awk -F, '
        $3 + 0 > most { most = $3 + 0 }
        $4 + 0 > hot { hot = $4 + 0 }
        $5 !~ /^(0x0*[01])?$/ && !seen[$5]++ { why = why " " $5 }
        { sm[NR] = $1 + 0; power[NR] = $3 + 0; memory = $2 }
        END {
            for (i = 1; i <= NR; i++) if (power[i] >= most / 2) { if (!low || sm[i] < low) low = sm[i]; if (sm[i] > high) high = sm[i] }
            if (NR) printf "SM %d-%d, memory %d MHz, to %d W, %d C%s", low, high, memory, most, hot, why ? ", throttled" why : ""
        }' "$work/clocks"
}

# measure KIND NAME SECONDS COMMAND ...: a check with figures: the last line of JSON that it prints, or appends to $work/figures. KIND and the card's
# clocks before, meanwhile and after are added to it. What was measured stays in $work/measured.
measure() {
    kind=$1
    shift
    rm -f "$work/figures" "$work/measured"
    before=$(card_state)
    rm -f "$work/clocks"
    (while card_state >>"$work/clocks"; do sleep 2; done) >/dev/null 2>&1 &
    watcher=$!
    attempt "$@"
    outcome=$?
    kill $watcher 2>/dev/null
    wait $watcher 2>/dev/null
    [ $outcome -ne 2 ] || return 2
    [ -s "$work/figures" ] || grep '^{' "$work/output" >"$work/figures"
    if [ $outcome -ne 0 ]; then record "$1" "$result" "$took" "$said"
    elif [ -s "$work/figures" ]; then
        added="\"kind\": \"$kind\", \"card\": \"$(clocks_meanwhile)\", \"card_before\": \"$before\", \"card_after\": \"$(card_state)\""
        tail -1 "$work/figures" | sed "s|^{|{$added, |" >"$work/measured"
        record "$1" passed "$took" "" "$(cat "$work/measured")"
    else note "$1" failed "it gave no figures"
    fi
    [ -s "$work/measured" ]
}
