#!/bin/sh
# plant.sh DIRECTORY: plants a bug in a copy of each kernel file of plants.txt, builds the op's test with it, and wants the test to fail.
# A plant whose pattern is no longer in the file fails too: the kernel has changed, and the plant must follow. So does one whose test
# fails unplanted. From the Makefile: BUILD; EMU_CXX, compiler and flags; EMU and RACE, the emulator's objects for tests and for the race
# check; LINK_TEST, OBJECTS and LIBS, with which a test is linked.
scratch=$1
here=$(dirname "$0")
export OMP_WAIT_POLICY=passive ASAN_OPTIONS=detect_leaks=0 TEST_BACKENDS=emu
mkdir -p "$scratch/kernels" && cp kernels/*.h kernels/*.cuh kernels/*.cu "$scratch/kernels"
passed=0
failed=0

build() {   # build FILE TEST FLAGS OBJECTS: $scratch/planted_test, with the copy of the kernel file FILE in place of its object
    $EMU_CXX $3 -I"$scratch" -I. -x c++ -c "$scratch/$1" -o "$scratch/planted.o" || return 1
    ld -r $(printf '%s\n' $4 | grep -v "/$1.o$") "$scratch/planted.o" -o "$scratch/all.o" &&
        objcopy --keep-global-symbol=emu_backend "$scratch/all.o" "$scratch/emu.o" &&
        $LINK_TEST "$BUILD/kernels/$2.o" $OBJECTS "$scratch/emu.o" -lcmocka $LIBS -lstdc++ -o "$scratch/planted_test"
}
passes=   # tests known to pass unplanted, as MODE/ORDER/TEST
passes_unplanted() {   # passes_unplanted MODE ORDER TEST
    case " $passes " in *" $1/$2/$3 "*) return 0 ;; esac
    unplanted=$BUILD/kernels/$3
    if [ "$1" = race ]; then unplanted=$BUILD/race/kernels/$3; fi
    EMU_ORDER=$2 timeout 600 "$unplanted" >"$scratch/log" 2>&1 && passes="$passes $1/$2/$3"
}
while read -r file test mode order what; do
    case $file in '' | '#'*) continue ;; esac
    read -r pattern
    cp "$file" "$scratch/$file"
    sed -i "$pattern" "$scratch/$file"
    name="$file: $what ($mode $order)"
    if cmp -s "$file" "$scratch/$file"; then
        result="FAILED: the pattern fits nothing: $pattern"
    elif ! passes_unplanted "$mode" "$order" "$test"; then
        result="FAILED: $test fails without the bug"
    else
        if [ "$mode" = race ]; then objects=$RACE flags='-O1 -fsanitize=thread'; else objects=$EMU flags=; fi
        case $file in *.cuh) compiled=kernels/${test%_test}.cu ;; *) compiled=$file ;; esac
        if ! build "$compiled" "$test" "$flags" "$objects" >"$scratch/log" 2>&1; then result='FAILED: it does not build'
        elif EMU_ORDER=$order timeout 300 "$scratch/planted_test" >"$scratch/log" 2>&1; then result='FAILED: not caught'
        else result="caught: $(grep -m1 -E '^(race|emulator):|ERROR: |ERROR' "$scratch/log" | cut -c1-110)"
        fi
    fi
    case $result in FAILED*) failed=$((failed + 1)); tail -3 "$scratch/log" ;; *) passed=$((passed + 1)) ;; esac
    echo "$name: $result"
    cp "$file" "$scratch/$file"
done <"$here/plants.txt"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
