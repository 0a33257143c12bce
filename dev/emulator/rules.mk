# Tests that only the emulator can do; the Makefile includes this file. They need a build without SANITIZE.
EMU_ENGINE   := $(patsubst %,$(BUILD)/emu/%.o,$(filter-out %_standin.cpp,$(wildcard dev/emulator/*.cpp)))
EMU_WATCH    := $(patsubst %,$(BUILD)/emu/%.o,$(wildcard dev/emulator/race/*.cpp))
RACE_OBJECTS := $(patsubst $(BUILD)/emu/kernels/%,$(BUILD)/race/kernels/%,$(EMU_OBJECTS)) $(EMU_WATCH)
OPS_ON_CPU   := $(filter $(BUILD)/kernels/%,$(LIBRARY))
EMU_TESTED   := activation attention backend cross_entropy dropout embedding global_norm layernorm matmul optimizer qk_norm residual rmsnorm rope swiglu
EMU_TESTS    := $(EMU_TESTED:%=$(BUILD)/kernels/%_test)
RACE_TESTS   := $(EMU_TESTED:%=$(BUILD)/race/kernels/%_test)

.PHONY: test-race test-emu-orders test-planted test-costs test-device

# Every load and store of a kernel calls the race check, which dev/emulator/race supplies: so no -fsanitize=thread when linking.
$(BUILD)/race/%.o: % $(BUILD)/flags
	@mkdir -p $(@D)
	$(CXX) $(EMUFLAGS) -O1 -fsanitize=thread -MMD -MP -x c++ -c $< -o $@
$(BUILD)/race.o: $(RACE_OBJECTS)
	ld -r $^ -o $@.all
	objcopy --keep-global-symbol=emu_backend --keep-global-symbol=emu_count_begin --keep-global-symbol=emu_count_end $@.all $@
$(BUILD)/race/kernels/%_test: $(BUILD)/kernels/%_test.o $(OPS_ON_CPU) $(BUILD)/race.o
	$(CC) $(LDFLAGS) $^ -lcmocka $(LDLIBS) -lstdc++ -o $@
test-race: $(RACE_TESTS)
	sh dev/emulator/run_ops.sh fwd $^

# The op tests under other orders of threads and blocks, and with work put off until the host waits for it.
test-emu-orders: $(EMU_TESTS)
	sh dev/emulator/run_ops.sh rev $^
	sh dev/emulator/run_ops.sh rand:1 $^
	sh dev/emulator/run_ops.sh prio:1 $^
	EMU_LAZY=1 sh dev/emulator/run_ops.sh fwd $^

# Kernels with a bug each, under every check; then bugs planted in the real kernels.
PLANTED := $(BUILD)/planted/bugs $(BUILD)/planted/bugs_asan $(BUILD)/planted/bugs_race
ASAN    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
$(BUILD)/planted/bugs: $(BUILD)/emu/dev/planted/bugs.cu.o $(EMU_ENGINE)
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) $^ -o $@
$(BUILD)/planted/bugs_race: $(BUILD)/race/dev/planted/bugs.cu.o $(EMU_ENGINE) $(EMU_WATCH)
	$(CXX) $(LDFLAGS) $^ -o $@
$(BUILD)/asan/%.o: % $(BUILD)/flags
	@mkdir -p $(@D)
	$(CXX) $(EMUFLAGS) $(ASAN) -MMD -MP -x c++ -c $< -o $@
$(BUILD)/planted/bugs_asan: $(patsubst $(BUILD)/emu/%,$(BUILD)/asan/%,$(BUILD)/emu/dev/planted/bugs.cu.o $(EMU_ENGINE))
	$(CXX) $(LDFLAGS) $(ASAN) $^ -o $@
test-planted: $(PLANTED) $(EMU_OBJECTS) $(RACE_OBJECTS) $(EMU_TESTS) $(RACE_TESTS)
	sh dev/planted/run_bugs.sh $(BUILD)/planted
	BUILD=$(BUILD) EMU_CXX="$(CXX) $(EMUFLAGS)" EMU="$(EMU_OBJECTS)" RACE="$(RACE_OBJECTS)" LINK_TEST="$(CC) $(LDFLAGS)" \
	    OBJECTS="$(OPS_ON_CPU)" LIBS="$(LDLIBS)" sh dev/planted/plant.sh $(BUILD)/planted/scratch

# One tile through every wrapper of cu.h: here in the emulator; on a GPU dev/device_test.cu is compiled by nvcc.
$(BUILD)/device_test: $(BUILD)/emu/dev/device_test.cu.o $(EMU_ENGINE)
	$(CXX) $(LDFLAGS) $^ -o $@
test-device: $(BUILD)/device_test
	$<

# Bytes that each op moves, counted, against its cost function.
$(BUILD)/cost_test: $(BUILD)/dev/cost_test.o $(OPS_ON_CPU) $(BUILD)/race.o
	$(CC) $(LDFLAGS) $^ $(LDLIBS) -lstdc++ -o $@
test-costs: $(BUILD)/cost_test
	$<

# The graphs of sdpa.cu against the formulas of attention: in place of cuDNN a stand-in, which works them out on the CPU.
.PHONY: test-sdpa
SDPA_TESTED := $(BUILD)/emu/dev/sdpa_formula.cpp.o $(BUILD)/emu/kernels/sdpa.cu.o $(BUILD)/kernels/failure.o
$(BUILD)/emu/dev/cudnn_standin.cpp.o: EMUFLAGS += -fPIC
$(BUILD)/sdpa/libcudnn.so.9: $(BUILD)/emu/dev/cudnn_standin.cpp.o
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) -shared -Wl,-soname,libcudnn.so.9 $^ -o $@
$(BUILD)/sdpa/formula: $(SDPA_TESTED) | $(BUILD)/sdpa/libcudnn.so.9
	$(CXX) $(LDFLAGS) $^ -ldl -o $@
test-sdpa: $(BUILD)/sdpa/formula $(BUILD)/sdpa/libcudnn.so.9
	LD_LIBRARY_PATH=$(BUILD)/sdpa $<

# gemm.cu itself, in place of its stand-in, over a stand-in for cuBLASLt; where the toolkit is installed the stand-in's values are held against it.
.PHONY: test-gemm
LT_OBJECTS := $(filter-out %/gemm_standin.cpp.o,$(EMU_OBJECTS)) $(BUILD)/emu/kernels/gemm.cu.o $(BUILD)/emu/dev/lt_standin.cpp.o
$(BUILD)/emu_lt.o: $(LT_OBJECTS)
	ld -r $^ -o $@.all
	objcopy --keep-global-symbol=emu_backend $@.all $@
LT_TESTS := $(BUILD)/lt/dev/gemm_test $(BUILD)/lt/kernels/matmul_test $(BUILD)/lt/llmc/model_step_test
$(LT_TESTS): $(BUILD)/lt/%_test: $(BUILD)/%_test.o $(LIBRARY) $(BUILD)/emu_lt.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ -lcmocka $(LDLIBS) -lstdc++ -o $@
test-gemm: $(LT_TESTS)
	$(if $(NVCC),$(NVCC) -std=c++17 -I. -c dev/lt_values.cu -o $(BUILD)/lt/values.o)
	sh dev/emulator/run_ops.sh fwd $^
	EMU_LAZY=1 sh dev/emulator/run_ops.sh fwd $^
