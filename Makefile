# make train_gpt        the trainer, and the default data if absent       make test     all tests (needs cmocka)
# make all              every program                                     make bench    tokens/s against the machine's ceiling
# Options: CC=gcc|clang  ONEDNN=auto|0|1  CUDA=auto|0|1  CUDA_ARCHS="80 86 89 90"  NCCL=auto|0|1  MPI=auto|0|1  EMU=auto|0  ARCH=native
#          SANITIZE=address,undefined
CC       := $(if $(filter default,$(origin CC)),$(firstword $(foreach c,gcc clang cc,$(shell command -v $(c) >/dev/null 2>&1 && echo $(c)))),$(CC))
ARCH     ?= native
SANITIZE ?=
ONEDNN   ?= auto
CUDA     ?= auto
NCCL     ?= auto
MPI      ?= auto
EMU      ?= auto
BUILD    ?= build
BIN      ?= .
PYTHON   ?= python3

CFLAGS  ?= -O3 -g
override CFLAGS += -std=gnu11 -Wall -Wextra $(if $(WERROR),-Werror) -fno-math-errno -fno-trapping-math -MMD -MP -I.
override CFLAGS += $(if $(ARCH),-march=$(ARCH)) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
override LDFLAGS += $(if $(SANITIZE),-fsanitize=$(SANITIZE))
override LDLIBS += -lm -lpthread
comma := ,

# What this machine has. Each probe compiles a line of C.
probe = $(shell printf '$(1)' | $(CC) -x c - $(2) -o /dev/null 2>/dev/null && echo 1)
ifneq ($(MAKECMDGOALS),clean)
OPENMP := $(call probe,int main(void){return 0;},-fopenmp)
HAVE_ONEDNN := $(if $(filter 0,$(ONEDNN)),,$(call probe,\043include <oneapi/dnnl/dnnl.h>\nint main(void){return dnnl_version()==0;},-ldnnl))
ifeq ($(ONEDNN)$(HAVE_ONEDNN),1)
$(error ONEDNN=1 but oneDNN was not found: install libdnnl-dev, or use ONEDNN=0 for the portable matmul)
endif
HAVE_PCRE2 := $(call probe,\043define PCRE2_CODE_UNIT_WIDTH 8\n\043include <pcre2.h>\nint main(void){return pcre2_config(PCRE2_CONFIG_JIT$(comma)0)==0;},-lpcre2-8)
HAVE_UTF8PROC := $(call probe,\043include <utf8proc.h>\nint main(void){return utf8proc_version()==0;},-lutf8proc)
HAVE_CXX := $(if $(filter 0,$(EMU)),,$(call probe,int main(void){return 0;},-x c++ -lstdc++))
NVCC := $(if $(filter 0,$(CUDA)),,$(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc)))
CUDA_RELEASE := $(if $(NVCC),$(shell $(NVCC) --version | sed -n 's/.*release \([0-9]*\).*/\1/p'))
GPU_ARCHS := $(if $(NVCC),$(sort $(subst .,,$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null))))
USE_CUDA := $(if $(filter 1,$(CUDA)),1,$(if $(filter auto,$(CUDA)),$(if $(NVCC),$(if $(GPU_ARCHS),1))))
ifeq ($(CUDA)$(NVCC),1)
$(error CUDA=1 but there is no nvcc on the PATH or in /usr/local/cuda/bin: install the CUDA toolkit, or use CUDA=0)
endif
ifneq ($(and $(USE_CUDA),$(filter 1 2 3 4 5 6 7 8 9 10 11,$(CUDA_RELEASE))),)
$(error the CUDA toolkit here is release $(CUDA_RELEASE), and 12 or later is needed: install a newer one, or use CUDA=0)
endif
# NCCL is loaded at run time; only its header is needed here. MPI: what its compiler would add.
NCCL_CFLAGS := -isystem $(abspath $(if $(NVCC),$(dir $(NVCC))..,/usr/local/cuda)/include)
HAVE_NCCL := $(if $(filter 1,$(NCCL) $(USE_CUDA)),$(if $(filter 0,$(NCCL)),,$(call probe,\043include <nccl.h>\nint main(void){return ncclInProgress+ncclBfloat16==0;},$(NCCL_CFLAGS))))
ifeq ($(NCCL)$(HAVE_NCCL),1)
$(error NCCL=1 but there is no nccl.h of NCCL 2.14 or later beside the CUDA toolkit or in /usr/include: install libnccl-dev, or use NCCL=0)
endif
MPI_SHOWN := $(if $(filter 0,$(MPI)),,$(shell mpicc -show 2>/dev/null))
MPI_CFLAGS := $(patsubst -I%,-isystem %,$(filter -I%,$(MPI_SHOWN)))
MPI_LIBS := $(foreach f,$(filter -L% -l% -Wl%,$(MPI_SHOWN)),$(if $(USE_CUDA),$(f:-Wl$(comma)%=-Xlinker %),$(f)))
HAVE_MPI := $(if $(MPI_SHOWN),$(call probe,\043include <mpi.h>\nint main(void){return MPI_Init(0$(comma)0);},$(filter -I% -L% -l% -Wl%,$(MPI_SHOWN))))
ifeq ($(MPI)$(HAVE_MPI),1)
$(error MPI=1 but no mpicc that works is on the PATH: install libopenmpi-dev or libmpich-dev, or use MPI=0)
endif
# For the GPUs present; without one, for what is in use, and PTX for what comes.
CUDA_ARCHS ?= $(or $(GPU_ARCHS),80 86 89 90)
$(info $(CC): PCRE2 $(if $(HAVE_PCRE2),yes,no (no byte-pair encoding)), utf8proc $(if $(HAVE_UTF8PROC),yes,no (no Qwen vocabularies)), oneDNN $(if $(HAVE_ONEDNN),yes,no (portable matmul: slow)), OpenMP $(if $(OPENMP),yes,no (one thread)), CUDA $(if $(USE_CUDA),yes (for $(CUDA_ARCHS)),no (nvcc $(if $(NVCC),found,not found), GPU $(if $(GPU_ARCHS),found,not found))), NCCL $(if $(HAVE_NCCL),yes,no), MPI $(if $(HAVE_MPI),yes,no))
endif
override CFLAGS += $(if $(OPENMP),-fopenmp,-fopenmp-simd -Wno-unknown-pragmas) $(if $(HAVE_ONEDNN),-DUSE_ONEDNN) $(if $(HAVE_PCRE2),-DUSE_PCRE2) $(if $(HAVE_UTF8PROC),-DUSE_UTF8PROC)
override LDFLAGS += $(if $(OPENMP),-fopenmp)
override LDLIBS := $(if $(HAVE_PCRE2),-lpcre2-8) $(if $(HAVE_UTF8PROC),-lutf8proc) $(if $(HAVE_ONEDNN),-ldnnl) $(if $(USE_CUDA),-lcublasLt -ldl -Xlinker -rpath=$(abspath $(dir $(NVCC))../lib64)) $(LDLIBS)

PROGRAMS := train_gpt sample_gpt tokenizer test_gpt
TESTS    := $(patsubst %.c,$(BUILD)/%,$(wildcard kernels/*_test.c llmc/*_test.c))
# Collectives for which the build needs what not every machine has: in the programs of several ranks, and weak symbols for the others.
COMMS    := $(BUILD)/llmc/comm_mpi.o $(BUILD)/llmc/comm_nccl.o
COMMIT   := $(BUILD)/llmc/commit.o
LIBRARY  := $(filter-out $(COMMS) $(COMMIT),$(patsubst %.c,$(BUILD)/%.o,$(filter-out %_test.c,$(wildcard kernels/*.c llmc/*.c))))
USED_COMMS := $(if $(HAVE_MPI),$(BUILD)/llmc/comm_mpi.o) $(if $(HAVE_NCCL),$(BUILD)/llmc/comm_nccl.o)
LINK     = $(if $(USE_CUDA),$(NVCC) $(LDFLAGS:%=-Xcompiler %),$(CC) $(LDFLAGS))
CUDA_OBJECTS := $(if $(USE_CUDA),$(patsubst %.cu,$(BUILD)/%.cu.o,$(wildcard kernels/*.cu)))
# The same kernels compiled for the emulator, with stand-ins for the files that call NVIDIA's libraries: in tests, and where EMU=1.
NVIDIA_ONLY := kernels/gemm.cu kernels/sdpa.cu
EMU_OBJECTS := $(patsubst %,$(BUILD)/emu/%.o,$(filter-out $(NVIDIA_ONLY),$(wildcard kernels/*.cu)) $(wildcard dev/emulator/*.cpp))
EMULATOR := $(if $(HAVE_CXX),$(BUILD)/emu.o)
EMULATED := $(if $(HAVE_CXX),$(BUILD)/emulated_train_gpt)
DATA     := data/characters/dataset.json

.PHONY: all tests test check bench bench-peers bench-attention bench-tokenizer check-hf lt-probe sdpa-plan device-tests test-ranks test-comm test-nccl clean FORCE $(if $(filter .,$(BIN)),,$(PROGRAMS))
.SECONDARY:
all: $(PROGRAMS)
tests: $(TESTS)
ifneq ($(BIN),.)
$(PROGRAMS): %: $(BIN)/%
endif

# Objects are made anew when the compiler or its flags change, as when oneDNN was installed since; what MPI's headers say is only for its own.
flags = $(CC) $(CFLAGS) $(if $(USE_CUDA),$(NVCC) $(NVCCFLAGS))
$(BUILD)/mpi_flags: flags = $(MPI_SHOWN)
$(BUILD)/flags $(BUILD)/mpi_flags: FORCE
	@mkdir -p $(@D)
	@echo '$(flags)' | cmp -s - $@ || echo '$(flags)' >$@
FORCE:

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(INCLUDES) -c $< -o $@
$(BUILD)/llmc/comm_mpi.o: INCLUDES := $(MPI_CFLAGS)
$(BUILD)/llmc/comm_mpi.o: $(BUILD)/mpi_flags
$(BUILD)/llmc/comm_nccl.o: INCLUDES := $(NCCL_CFLAGS)

# The git commit, for run.json: nothing where there is no git or no repository, and -dirty behind it where the files are others. Only the trainer has it
# (a weak symbol for the others), and only when it is another than before is it compiled anew.
$(BUILD)/commit: FORCE
	@mkdir -p $(@D)
	@{ [ ! -e .git ] || GIT_OPTIONAL_LOCKS=0 git describe --always --dirty --exclude '*' 2>/dev/null || :; } >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
$(COMMIT): INCLUDES = -DCOMMIT='"$(shell cat $(BUILD)/commit)"'
$(COMMIT): $(BUILD)/commit

# The trainer is C that is also C++: nvcc compiles it where CUDA is built.
NVCCFLAGS = -O3 -std=c++17 -I. -Xcompiler -Wall,-Wextra$(if $(WERROR),$(comma)-Werror) $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
            $(if $(filter 90,$(CUDA_ARCHS)),-gencode arch=compute_90$(comma)code=compute_90)
$(BUILD)/train_gpt.o: train_gpt.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(USE_CUDA),$(NVCC) $(NVCCFLAGS) -MMD -c $< -o $@,$(CC) $(CFLAGS) -x c -c $< -o $@)
$(BUILD)/%.cu.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) -MMD -c $< -o $@

# Of the emulator only its backend is visible: the cuda_ functions in it are not those of the GPU.
EMUFLAGS = -std=c++17 $(filter-out -std=% -MMD -MP,$(CFLAGS)) -O2 -fno-strict-aliasing -Wno-unknown-pragmas -Idev/emulator -Dcuda_backend=emu_backend
$(BUILD)/emu/%.o: % $(BUILD)/flags
	@mkdir -p $(@D)
	$(CXX) $(EMUFLAGS) -MMD -MP -x c++ -c $< -o $@
$(BUILD)/emu.o: $(EMU_OBJECTS)
	ld -r $^ -o $@.all
	objcopy --keep-global-symbol=emu_backend $@.all $@

LIBS = $(LDLIBS) $(if $(filter $(EMULATOR),$^),-lstdc++) $(if $(filter %/comm_mpi.o,$^),$(MPI_LIBS)) $(if $(filter %/comm_nccl.o,$^),-ldl)
$(PROGRAMS:%=$(BIN)/%): $(BIN)/%: $(BUILD)/%.o $(LIBRARY) $(CUDA_OBJECTS)
	@mkdir -p $(@D)
	$(LINK) $^ $(LIBS) -o $@
$(BIN)/test_gpt: $(EMULATOR)
$(BUILD)/emulated_train_gpt: $(BUILD)/train_gpt.o $(LIBRARY) $(CUDA_OBJECTS) $(EMULATOR)
	$(LINK) $^ $(LIBS) -o $@
$(BIN)/train_gpt $(BUILD)/emulated_train_gpt $(BUILD)/dev/comm_ranks: $(USED_COMMS)
$(BIN)/train_gpt $(BUILD)/emulated_train_gpt: $(COMMIT)
$(BUILD)/%_test: $(BUILD)/%_test.o $(LIBRARY) $(CUDA_OBJECTS) $(EMULATOR)
	$(LINK) $^ -lcmocka $(LIBS) -o $@
$(BUILD)/dev/%: $(BUILD)/dev/%.o $(LIBRARY) $(CUDA_OBJECTS)
	$(LINK) $^ $(LIBS) -o $@
ifeq ($(EMU),1)
$(BUILD)/dev/bench: $(EMULATOR)
endif
# What dev/gpu_check.sh runs on a GPU besides the tests, and what of it can be made without one.
$(BUILD)/dev/sdpa_test: $(BUILD)/dev/%: $(BUILD)/dev/%.o $(LIBRARY) $(CUDA_OBJECTS)
	$(LINK) $^ $(LDLIBS) -o $@
$(BUILD)/dev/device_test: $(BUILD)/dev/device_test.cu.o
	$(NVCC) $^ -o $@
# NCCL's calls, heard by a stand-in for it.
$(BUILD)/dev/nccl_test.o $(BUILD)/dev/nccl_standin.o: INCLUDES := $(NCCL_CFLAGS) -fPIC
$(BUILD)/dev/nccl_test: $(BUILD)/llmc/comm_nccl.o
$(BUILD)/nccl/libnccl.so.2: $(BUILD)/dev/nccl_standin.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -shared -Wl,-soname,libnccl.so.2 $^ -o $@
$(BUILD)/dev/lt_probe: dev/lt_probe.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) $< -lcublasLt -o $@
$(BUILD)/dev/libcuda.so.1: dev/sdpa_driver.c
	@mkdir -p $(@D)
	$(CC) -shared -fPIC -O1 -Wl,-soname,libcuda.so.1 $< -o $@
$(BUILD)/dev/sdpa_plan: $(BUILD)/dev/sdpa_plan.cu.o $(BUILD)/kernels/sdpa.cu.o $(BUILD)/kernels/failure.o $(BUILD)/dev/libcuda.so.1
	$(NVCC) $(filter %.o,$^) -ldl -o $@

# The default data, so that ./train_gpt works at once. DATA_MIRROR= names a directory or URL prefix that holds tinyshakespeare.txt.
$(BIN)/train_gpt: | $(if $(NO_DATA),,$(DATA))
$(DATA): | $(BIN)/tokenizer
	TOKENIZER=$(abspath $(BIN)/tokenizer) sh data/prepare.sh

# Rings 1 to 3; ends with "N passed, N failed".
test: all tests $(EMULATED)
	sh dev/run_tests.sh $(BIN) "$(EMULATED)" $(TESTS)
# The folder rules of the README.
check:
	sh dev/check_includes.sh
bench: $(BUILD)/dev/bench
	$(BUILD)/dev/bench
# Beside PyTorch 2.5 or newer, of PYTHON; PEERS="--device cuda" on a GPU.
bench-peers: $(BUILD)/dev/bench
	$(PYTHON) dev/bench_peers.py --bench $(BUILD)/dev/bench --json $(BUILD)/peers.json --markdown $(BUILD)/peers.md $(PEERS)

# Time and memory of attention by the number of its key/value heads.
bench-attention: $(BUILD)/dev/bench_attention
	$(BUILD)/dev/bench_attention
# Beside Hugging Face tokenizers and tiktoken, of which PYTHON must have both.
bench-tokenizer: $(BIN)/tokenizer $(BUILD)/dev/bench_bpe
	$(PYTHON) dev/bench_tokenizer.py --tokenizer $(BIN)/tokenizer --encoder $(BUILD)/dev/bench_bpe
# Models of ours in transformers, and of transformers in ours, where PYTHON has it.
check-hf: $(BIN)/train_gpt $(BUILD)/dev/hf_logits
	$(PYTHON) dev/check_hf.py $^
# The matmul algorithms of cuBLASLt, timed, on a GPU; the plans of cuDNN for an H100, without one.
lt-probe: $(BUILD)/dev/lt_probe
sdpa-plan: $(BUILD)/dev/sdpa_plan
	LD_LIBRARY_PATH=$(BUILD)/dev $<
device-tests: $(BUILD)/dev/sdpa_test $(BUILD)/dev/device_test
# Several ranks, which are processes: the trainer, kills and resumes included; the collectives alone; and what NCCL is asked for (needs nccl.h).
test-ranks: $(BIN)/train_gpt $(EMULATED)
	sh dev/ranks_test.sh $(BIN) "$(EMULATED)"
test-comm: $(BUILD)/dev/comm_ranks
	sh dev/comm_ranks.sh $<
test-nccl: $(BUILD)/dev/nccl_test $(BUILD)/nccl/libnccl.so.2
	LD_LIBRARY_PATH=$(BUILD)/nccl $<
include dev/emulator/rules.mk
clean:
	rm -rf build $(PROGRAMS)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
