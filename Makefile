# longctx.h: nothing to build; these are its demo and its tests. `make help` lists the targets.

CC     ?= cc
CFLAGS ?= -O3
JOBS   ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

WARN   = -Wall -Wextra -Wpedantic
BUILD  = build
HEADER = longctx.h
ENGINE = examples/engine.h examples/model.h examples/matrix.h examples/gguf.h examples/tokenizer.h \
         examples/pretokenizer.h examples/unicode.h examples/file.h examples/recall_text.h \
         examples/arms.h examples/words.h

EXAMPLES = 01_hello 02_stream 04_save_restore 05_threads 06_static 07_feedback before after
TESTS    = tools plan order state window attend memory feedback kernels threads compose golden \
           engine gguf fuzz_state fuzz_calls
BENCHES  = curves recompute streameval recall feedback
OPENMP  := $(if $(shell echo '_OPENMP' | $(CC) -fopenmp -E -x c - 2>&1 | grep '^20'),threads_openmp)
DLSYM   := $(if $(filter Linux,$(shell uname)),-ldl)    # in libc itself only since glibc 2.34
PROGRAMS = $(EXAMPLES:%=$(BUILD)/%) $(TESTS:%=$(BUILD)/tests/%) \
           $(OPENMP:%=$(BUILD)/tests/%) $(BUILD)/story \
           $(BENCHES:%=$(BUILD)/bench/%) $(BUILD)/bench/kernels
SCRIPTS  = tests/curves.sh tests/recall.sh tests/examples.sh tests/golden_engine.sh \
           tests/readme.sh tests/door.sh

# the demo's text, model and length: make demo TEXT=book.txt MODEL=m.bin TOKENIZER=t.bin TOKENS=50000
MODEL     ?= examples/models/story.bin
CONTROL   ?= examples/models/control.bin
TOKENIZER ?= $(if $(filter %.gguf,$(MODEL)),$(MODEL),examples/models/story.tok)
TOKENS    ?= 100000
TEXT      ?= $(BUILD)/story-$(TOKENS).txt
OURS       = $(if $(filter examples/models/story.bin,$(MODEL)),-s 4 -w 60 -c $(CONTROL) --recall)

# make bench takes the same; to resume after ^C: make bench BENCH="--resume bench/out/curves"
CURVES_OF  = curves $(if $(OURS),,recompute streameval)
CURVES     = --chunk 64 $(if $(OURS),-s 4 -w 60 --recall,--more --singly 2048)

# bench/X.gp draws bench/out/X.csv
PICTURE = if command -v gnuplot > bench/out/which; then gnuplot bench/$(1).gp; \
  else echo 'no picture: gnuplot is not installed'; fi; rm -f bench/out/which

.PHONY: help demo test check soak bench bench-kernels bench-feedback bench-ggml recall train \
        clean programs

help:             ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(BUILD)/02_stream $(TEXT) ## a long text in fixed memory, four ways; models with and without a memory
	@$(BUILD)/02_stream -m $(MODEL) -t $(TOKENIZER) -f $(TEXT) -n $(TOKENS) $(OURS) $(DEMO)

test:             ## everything you need to trust your build, minutes
	@$(MAKE) -s -j$(JOBS) programs
	@tests/run.sh $(TESTS:%=$(BUILD)/tests/%) $(OPENMP:%=$(BUILD)/tests/%) $(SCRIPTS)

check:            ## the long list, half an hour: see tests/TRUST.md (PARTS="compilers faults")
	@tests/check.sh $(PARTS)

soak:             ## what takes hours: 10^9 tokens, every shape on every machine, 10^4 kills (PARTS)
	@tests/check.sh --soak $(PARTS)

bench: $(CURVES_OF:%=$(BUILD)/bench/%) $(TEXT) ## memory, latency and perplexity against length
	@mkdir -p bench/out
	@$(BUILD)/bench/curves -m $(MODEL) -t $(TOKENIZER) -f $(TEXT) -n $(TOKENS) $(CURVES) $(BENCH) \
	  --checkpoint bench/out/curves --commit "$$(git describe --always --dirty 2>&1 | head -n 1)" \
	  > bench/out/curves.md
	@$(call PICTURE,curves)
	@cat bench/out/curves.md
	@$(if $(OURS),,echo; $(BUILD)/bench/recompute -m $(MODEL) -t $(TOKENIZER) -f $(TEXT))
	@$(if $(OURS),,echo; $(BUILD)/bench/streameval -m $(MODEL) -t $(TOKENIZER))
	@$(if $(OURS),,$(call PICTURE,streameval))

bench-kernels: $(BUILD)/bench/kernels ## decode and prefill against this machine's measured limits
	@mkdir -p bench/out
	@$(BUILD)/bench/kernels -f bench/out/kernels.csv $(BENCH)
	@bench/roofline.sh bench/out/kernels.csv bench/out/roofline

bench-feedback: $(BUILD)/bench/feedback ## what feedback rows cost a whole model, minutes
	@mkdir -p bench/out
	@$(BUILD)/bench/feedback -f bench/out/feedback.csv $(BENCH)

bench-ggml: $(BUILD)/bench/ggml ## against ggml's flash attention; GGML=a built clone, see bench/ggml.c
	@mkdir -p bench/out
	@$(BUILD)/bench/ggml -f bench/out/ggml.csv $(BENCH)

recall: $(BUILD)/bench/recall ## what each memory remembers, up to a million tokens (FULL=1: ten million)
	@mkdir -p bench/out
	@$(BUILD)/bench/recall $(RECALL)
	@$(call PICTURE,recall)

train:            ## train the shipped models again, but for feedback.bin (an hour, PyTorch)
	@examples/train/train.sh $(BUILD)/train

clean:            ## remove what was built
	rm -rf $(BUILD)

programs: $(PROGRAMS)

$(BUILD)/story-$(TOKENS).txt: $(BUILD)/story
	@$(BUILD)/story 7 $$(( $(TOKENS) * 3 )) > $@

$(BUILD)/story: examples/train/story.c
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) -O2 $< -o $@

$(BUILD)/%: examples/%.c $(HEADER) $(ENGINE)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) $(CFLAGS) -I. -pthread $< -o $@ -lm

$(BUILD)/%: examples/03_llama2c/%.c $(HEADER) $(ENGINE)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) $(CFLAGS) -I. -Iexamples $< -o $@ -lm

$(BUILD)/bench/naive.o: bench/naive.c bench/naive.h
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) -O3 -ffast-math -march=native -c $< -o $@

$(BUILD)/bench/kernels: bench/kernels.c $(BUILD)/bench/naive.o bench/bench.h bench/inputs.h $(HEADER)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) -O2 $(if $(OPENMP),-fopenmp) -I. $< $(BUILD)/bench/naive.o -o $@ -lm

$(BUILD)/bench/feedback: bench/feedback.c bench/bench.h $(HEADER) $(ENGINE)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) -O3 -march=native -I. -Iexamples $< -o $@ -lm

GGML_OF = $(if $(GGML),$(GGML),$(error GGML=a clone of ggml, built: bench/ggml.c says how))
$(BUILD)/bench/ggml: bench/ggml.c bench/bench.h bench/inputs.h $(HEADER)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) -O2 -I. -isystem $(GGML_OF)/include $< -o $@ \
	  $(GGML)/build/src/libggml-cpu.a $(GGML)/build/src/libggml-base.a -fopenmp -lstdc++ -ldl -lm

$(BUILD)/bench/recall: bench/recall.c bench/bench.h $(HEADER) $(ENGINE)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) -O3 -march=native -I. -Iexamples -pthread $< -o $@ -lm

$(BUILD)/bench/%: bench/%.c bench/bench.h $(HEADER) $(ENGINE)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) -O3 -march=native $(if $(OPENMP),-fopenmp) -I. -Iexamples $< -o $@ -lm

$(BUILD)/tests/threads_openmp: tests/threads.c tests/t.h tests/text.h $(HEADER)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) -O2 -fopenmp -I. -pthread $< -o $@ -lm $(DLSYM)

$(BUILD)/tests/%: tests/%.c tests/t.h tests/text.h tests/bytes.h tests/oracle.h tests/pages.h \
                    tests/memory_golden.h \
                    tests/feedback_golden.h $(HEADER) $(ENGINE)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(WARN) -O2 -I. -Iexamples -pthread $< -o $@ -lm
