# Everything that a checkout can do. `make demo` and `make test` need nothing
# before them: they install system packages (as root or through sudo without a
# password), make a virtual environment and build.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Objects are kept: a second run compiles only what changed.
.SECONDARY:
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
PY := $(VENV)/bin/python
STAMPS := build/stamps
CLANG ?= clang
FUZZ_SECONDS ?= 60
OTUS_CORPUS ?= ../shared/corpus
export OTUS_CORPUS

NATIVE := core_c/otus_core/_native.abi3.so
HEADERS := $(wildcard core_c/include/otus/*.h core_c/src/*.h)
SOURCES := $(wildcard core_c/src/*.c)
TEST_SOURCES := $(wildcard core_c/tests/test_*.c)
FUZZ_SOURCES := $(wildcard core_c/fuzz/fuzz_*.c)
C_FILES := $(HEADERS) $(SOURCES) $(wildcard core_c/tests/*.[ch] core_c/fuzz/*.[ch] bench/core/*.[ch])

C_FLAGS := -std=c11 -D_GNU_SOURCE -Icore_c/include -Icore_c/src -Icore_c/tests
C_WARNINGS := -Wall -Wextra -Wconversion -Wshadow -Wcast-qual -Wvla -Werror
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- system packages ----------------------------------------------------------
# One list for each purpose. Debian 12 and Ubuntu 24.04 name them alike.
PACKAGES_BUILD := gcc libc6-dev python3 python3-venv python3-dev
PACKAGES_DEMO := $(PACKAGES_BUILD) libpcap0.8 sip-tester iproute2
PACKAGES_TEST := $(PACKAGES_DEMO) clang llvm protobuf-compiler curl tcpdump default-jre-headless maven prometheus \
	systemd procps file
# What Otus is measured beside.
PACKAGES_BENCH := $(PACKAGES_BUILD) libpcap-dev libosip2-dev libndpi-bin sipgrep sngrep tcpdump tshark valgrind \
	default-jre-headless maven
PACKAGES_PACKAGE := $(PACKAGES_TEST) debootstrap qemu-user-static buildah dpkg-dev binutils

# Another apt at work, as on a machine that has just booted, is waited for.
APT_GET := apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300

# Sets the array as_root to what goes before a command that needs root; empty: nothing does.
define become_root
if (( EUID == 0 )); then as_root=(env); \
elif sudo -n true 2>/dev/null; then as_root=(sudo -n env); \
else as_root=(); fi
endef

# Installs what is missing, or names it in one line where it may not.
define install_packages
@missing=(); \
for package in $(1); do \
	[[ "$$(dpkg-query -W -f='$${db:Status-Status}' "$$package" 2>/dev/null)" == *installed* ]] \
		|| missing+=("$$package"); \
done; \
if ! command -v dpkg-query >/dev/null; then \
	echo "otus: not a Debian or Ubuntu machine; needed: $(1)"; \
elif (( $${#missing[@]} )); then \
	$(become_root); \
	if (( $${#as_root[@]} )); then \
		"$${as_root[@]}" $(APT_GET) update || echo "otus: apt-get update failed; trying with the lists there are"; \
		echo "otus: installing $${missing[*]}"; \
		"$${as_root[@]}" DEBIAN_FRONTEND=noninteractive $(APT_GET) install "$${missing[@]}" >/dev/null; \
	else echo "otus: please install as root: apt-get install $${missing[*]}"; fi; \
fi
@mkdir -p $(STAMPS) && touch $@
endef

$(STAMPS)/system-build: Makefile
	$(call install_packages,$(PACKAGES_BUILD))
$(STAMPS)/system-demo: Makefile
	$(call install_packages,$(PACKAGES_DEMO))
$(STAMPS)/system-bench: Makefile
	$(call install_packages,$(PACKAGES_BENCH))
$(STAMPS)/system-package: Makefile $(STAMPS)/system-test
	$(call install_packages,$(PACKAGES_PACKAGE))
$(STAMPS)/system-test: Makefile
	$(call install_packages,$(PACKAGES_TEST))
	@# The sanitizers' runtime is a package of clang's own version, and only recommended.
	@version="$$(clang -dumpversion 2>/dev/null | cut -d. -f1 || true)"; \
	$(become_root); \
	if (( $${#as_root[@]} )) && [[ -n "$$version" ]] && \
		! dpkg-query -W "libclang-rt-$$version-dev" >/dev/null 2>&1; then \
		"$${as_root[@]}" $(APT_GET) install "libclang-rt-$$version-dev"; \
	fi

# ---- virtual environment and build --------------------------------------------
$(VENV)/bin/python: | $(STAMPS)/system-build
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null; then break; fi; \
		python=""; \
	done; \
	[[ -n "$$python" ]] || { echo "otus: no Python 3.11 or later with venv found"; exit 1; }; \
	echo "otus: making a virtual environment in $(VENV)"; "$$python" -m venv $(VENV)

INSTALL := $(PY) -m pip --quiet --disable-pip-version-check install
PROJECTS := pyproject.toml otus_sdk/pyproject.toml hatch_build.py
$(VENV)/.runtime: $(PROJECTS) | $(VENV)/bin/python
	@echo "otus: installing dependencies and compiling the core; a minute or so"
	@$(INSTALL) -e otus_sdk -e .
	@touch $@
$(VENV)/.dev: $(PROJECTS) | $(VENV)/bin/python
	@echo "otus: installing dependencies and tools, compiling the core; some minutes"
	@$(INSTALL) -e otus_sdk -e '.[test,lint,bench]'
	@touch $@ $(VENV)/.runtime
$(VENV)/.package: $(VENV)/.dev | $(STAMPS)/system-package
	$(INSTALL) -e otus_sdk -e '.[package]'
	@touch $@

# An editable install has built it already; this rebuilds what changed since.
$(NATIVE): $(SOURCES) $(HEADERS) core_c/otus_core/native.cdef hatch_build.py
	@$(INSTALL) 'hatchling>=1.27'
	$(PY) hatch_build.py

.PHONY: build dev
build: $(VENV)/.runtime $(NATIVE) ## the virtual environment and the C core, in place
dev: $(VENV)/.dev $(NATIVE) ## the same with the tools for tests and lint

# ---- demo ---------------------------------------------------------------------
.PHONY: demo demo-offline
demo: $(STAMPS)/system-demo build ## real SIP calls between two namespaces, captured live
	@$(PY) demo/run.py
demo-offline: build ## the same from the bundled capture, without root
	@$(PY) demo/run.py --offline

# ---- tests --------------------------------------------------------------------
.PHONY: test pytest
test: $(STAMPS)/system-test lint core-test pytest ## all: lint, C unit tests, Python tests
pytest: dev
	$(PY) -m pytest --durations=30 --durations-min=2 $(PYTEST_ARGS)

.PHONY: lint lint-python lint-c format
lint: lint-python lint-c ## ruff, mypy, clang-format, C warnings of gcc and clang
lint-python: dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
lint-c: dev $(STAMPS)/system-test
	@$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	@for compiler in gcc $(CLANG); do \
		printf '%s\0' $(filter %.c,$(C_FILES)) | \
			xargs -0 -n 8 -P "$$(nproc)" $$compiler $(C_FLAGS) $(C_WARNINGS) -fsyntax-only; \
	done
format: dev ## writes what `make lint` would ask for
	$(VENV)/bin/ruff check --fix-only --quiet
	$(VENV)/bin/ruff format
	$(VENV)/bin/clang-format -i $(C_FILES)

# C unit tests: each core_c/tests/test_*.c is a program, linked with the whole core.
CT := build/core-test
CT_FLAGS := $(C_FLAGS) $(C_WARNINGS) $(SANITIZE) -g -O1
CT_OBJECTS := $(SOURCES:core_c/src/%.c=$(CT)/%.o)
CT_PROGRAMS := $(TEST_SOURCES:core_c/tests/%.c=$(CT)/%)

$(CT)/%.o: core_c/src/%.c
	@mkdir -p $(@D)
	@echo "  CC $<"; gcc $(CT_FLAGS) -MMD -MP -c $< -o $@
$(CT)/%: core_c/tests/%.c $(CT_OBJECTS)
	@mkdir -p $(@D)
	@echo "  CC $<"; gcc $(CT_FLAGS) -MMD -MP -MF $@.d $< $(CT_OBJECTS) $(CT_LINK) -o $@
# Every allocation of the core goes through the test's own.
$(CT)/test_memory: CT_LINK := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc,--wrap=free,--wrap=mmap,--wrap=munmap
-include $(wildcard $(CT)/*.d)

.PHONY: core-test core-test-build
core-test-build: $(CT_PROGRAMS)
core-test: ## C unit tests under ASan and UBSan
	@$(MAKE) --no-print-directory -j "$$(nproc)" core-test-build
	@failed=(); \
	for program in $(CT_PROGRAMS); do \
		echo "== $$(basename $$program)"; \
		timeout 120 $$program || failed+=("$$(basename $$program)"); \
	done; \
	echo "core-test: $(words $(CT_PROGRAMS)) programs, $${#failed[@]} failed $${failed[*]}"; \
	(( $${#failed[@]} == 0 ))

# Beside the tests, since its runtime does not start under every kernel's address layout.
.PHONY: core-tsan
core-tsan: ## the flow registry's threads under ThreadSanitizer
	@mkdir -p $(CT)
	gcc $(C_FLAGS) -fsanitize=thread -Wno-tsan -g -O1 -pthread core_c/tests/test_flow_threads.c \
		$(wildcard core_c/src/flow*.c) -o $(CT)/test_flow_threads_tsan
	$(CT)/test_flow_threads_tsan

# Programs beside the tests that are not tests are made by name: make build/core-test/NAME

# ---- fuzz ---------------------------------------------------------------------
# libFuzzer where there is clang; else replay_main.c runs the seeds once.
FZ := build/fuzz
FZ_NAMES := $(FUZZ_SOURCES:core_c/fuzz/%.c=%)
FUZZ_NAMES ?= $(FZ_NAMES)
FZ_PROGRAMS := $(FZ_NAMES:%=$(FZ)/%)
FZ_HAS_CLANG := $(shell command -v $(CLANG) >/dev/null && echo yes)
ifeq ($(FZ_HAS_CLANG),yes)
FZ_CC := $(CLANG)
FZ_OBJECT_FLAGS := -fsanitize=fuzzer-no-link
FZ_LINK_FLAGS := -fsanitize=fuzzer
FZ_MAIN :=
else
FZ_CC := gcc
FZ_MAIN := core_c/fuzz/replay_main.c
endif
FZ_FLAGS := $(C_FLAGS) $(SANITIZE) -g -O1 -DOTUS_FUZZ
FZ_OBJECTS := $(SOURCES:core_c/src/%.c=$(FZ)/%.o)

$(FZ)/%.o: core_c/src/%.c
	@mkdir -p $(@D)
	@echo "  CC $<"; $(FZ_CC) $(FZ_FLAGS) $(FZ_OBJECT_FLAGS) -MMD -MP -c $< -o $@
$(FZ)/%: core_c/fuzz/%.c $(FZ_MAIN) $(FZ_OBJECTS) | $(STAMPS)/system-test
	@mkdir -p $(@D)
	@echo "  CC $<"; $(FZ_CC) $(FZ_FLAGS) $(FZ_LINK_FLAGS) -MMD -MP -MF $@.d $< $(FZ_MAIN) $(FZ_OBJECTS) -o $@
-include $(wildcard $(FZ)/*.d)

FZ_RUNS := $(FZ_NAMES:%=fuzz-run-%)
.PHONY: fuzz fuzz-build fuzz-smoke $(FZ_RUNS)
fuzz-build: $(FZ_PROGRAMS)
fuzz: FUZZ_SECONDS := 3600
fuzz: fuzz-smoke ## an hour of each fuzz target (FUZZ_SECONDS)
fuzz-smoke: ## a minute of each fuzz target (FUZZ_SECONDS), or of those in FUZZ_NAMES
	@$(MAKE) --no-print-directory -j "$$(nproc)" fuzz-build
	@$(MAKE) --no-print-directory -j "$$(nproc)" FUZZ_SECONDS=$(FUZZ_SECONDS) $(FUZZ_NAMES:%=fuzz-run-%)
$(FZ_RUNS): fuzz-run-%: $(FZ)/%
	@mkdir -p $(FZ)/found/$* $(FZ)/crashes; \
	seeds=(); \
	for folder in core_c/fuzz/seeds/$* $(OTUS_CORPUS)/sipmsg $(OTUS_CORPUS)/pcap; do \
		[[ ! -d "$$folder" ]] || seeds+=("$$folder"); \
	done; \
	if [[ "$(FZ_HAS_CLANG)" == yes ]]; then \
		$(FZ)/$* -max_total_time=$(FUZZ_SECONDS) -timeout=30 -rss_limit_mb=2048 \
			-max_len=70000 -print_final_stats=1 -verbosity=0 \
			-artifact_prefix=$(FZ)/crashes/$*- $(FZ)/found/$* "$${seeds[@]}" \
			>$(FZ)/$*.log 2>&1 || { tail -n 60 $(FZ)/$*.log; exit 1; }; \
		echo "$*: $$(grep number_of_executed_units $(FZ)/$*.log)"; \
	else \
		find "$${seeds[@]}" -type f -print0 | xargs -0 -r $(FZ)/$*; \
	fi

# ---- sanitizers under Python ----------------------------------------------------
.PHONY: sanitize
sanitize: dev ## the Python tests of the core over an ASan+UBSan build of it
	OTUS_CFLAGS="$(SANITIZE) -g -O1 -fno-lto" $(PY) hatch_build.py
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
		$(PY) -m pytest tests/core -o timeout=1200 $(PYTEST_ARGS) \
		|| { status=$$?; $(PY) hatch_build.py; exit $$status; }
	$(PY) hatch_build.py

# ---- speed and endurance ---------------------------------------------------------
BENCH := build/bench
BENCH_FLAGS := -O3 -fno-tree-vectorize -flto -flto-partition=one# as hatch_build.py has them
$(BENCH)/bench_%: bench/core/bench_%.c bench/core/bench.h $(SOURCES) $(HEADERS)
	@mkdir -p $(@D)
	@echo "  CC $<"; gcc $(C_FLAGS) $(BENCH_FLAGS) -pthread $< $(SOURCES) -lz -o $@
$(BENCH)/sip.pcap: bench/traffic.py
	@mkdir -p $(@D)
	$(PY) bench/traffic.py $@ 100000
$(BENCH)/filter.program: bench/otus_offline.py
	@mkdir -p $(@D)
	cd bench && $(CURDIR)/$(PY) -c "import otus_offline as o, sys; sys.stdout.buffer.write(o.FILTER_PROGRAM)" > $(CURDIR)/$@

.PHONY: bench bench-core soak
bench-core: dev $(addprefix $(BENCH)/bench_,sip encode pipeline flows cores) $(BENCH)/sip.pcap $(BENCH)/filter.program ## the core alone, in C
	$(BENCH)/bench_sip $(BENCH)/sip.pcap
	$(BENCH)/bench_encode $(BENCH)/sip.pcap 5
	$(BENCH)/bench_pipeline $(BENCH)/sip.pcap 20 sip
	$(BENCH)/bench_pipeline $(BENCH)/sip.pcap 20 parse
	$(BENCH)/bench_pipeline $(BENCH)/sip.pcap 20 flows
	$(BENCH)/bench_pipeline $(BENCH)/sip.pcap 20 json $(BENCH)/filter.program
	$(BENCH)/bench_flows
	$(BENCH)/bench_cores $(BENCH)/sip.pcap 5
bench: dev $(STAMPS)/system-bench bench-core ## every benchmark, beside its competitors; results in build/bench
	$(PY) -m pytest bench -o timeout=0 $(PYTEST_ARGS)
	$(PY) bench/compare.py --json build/bench/compare.json
	$(PY) bench/picture.py build/bench/compare.json build/bench/speed.svg
	$(PY) bench/latency_sampling.py
	$(PY) bench/python_plugin.py
	$(PY) bench/kafka_chain.py --stage null
	$(PY) bench/kafka_chain.py
soak: dev ## half an hour (SOAK_SECONDS) of traffic and faults; memory and ledger watched
	$(PY) -m pytest -m soak -o timeout=0 -rP $(PYTEST_ARGS)

# ---- packages ---------------------------------------------------------------------
PREFIX ?= /usr/local
SYSTEMD := $(DESTDIR)/usr/lib
TREE := dist/tree/otus

.PHONY: wheels tree tree-only deb install install-files test-arm64 test-packaging
wheels: $(VENV)/.package ## wheels for amd64 and arm64 and the sdists, into dist/
	$(PY) packaging/wheels.py

# Built from the wheels alone, so that nothing of this checkout's paths gets in.
tree: wheels tree-only ## a folder with otus and all it needs, for hosts without Python
tree-only:
	@rm -rf build/tree-venv dist/tree && $(PY) -m venv build/tree-venv
	build/tree-venv/bin/python -m pip --quiet --disable-pip-version-check install \
		--find-links dist otus 'pyinstaller>=6.11'
	build/tree-venv/bin/python -m PyInstaller --noconfirm --log-level ERROR \
		--distpath dist/tree --workpath build/tree packaging/otus.spec
deb: tree ## a Debian package of that tree, into dist/
	$(PY) packaging/deb.py

$(TREE)/otus:
	$(MAKE) tree
install: $(TREE)/otus install-files ## the tree, the unit and the configuration (DESTDIR, PREFIX)
install-files:
	@test -x $(TREE)/otus || { echo "otus: make tree comes first"; exit 1; }
	install -d $(DESTDIR)$(PREFIX)/lib/otus/plugins $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/otus
	cp -a $(TREE)/. $(DESTDIR)$(PREFIX)/lib/otus/
	ln -sfn ../lib/otus/otus $(DESTDIR)$(PREFIX)/bin/otus
	@# An operator's configuration is never overwritten.
	@test -e $(DESTDIR)/etc/otus/config.yml \
		|| install -m 0640 configs/config.yml $(DESTDIR)/etc/otus/config.yml
	install -d $(SYSTEMD)/systemd/system $(SYSTEMD)/tmpfiles.d $(SYSTEMD)/sysusers.d
	sed 's|/usr/bin/otus|$(PREFIX)/bin/otus|' configs/otus.service > $(SYSTEMD)/systemd/system/otus.service
	install -m 0644 configs/otus.tmpfiles.conf $(SYSTEMD)/tmpfiles.d/otus.conf
	install -m 0644 configs/otus.sysusers.conf $(SYSTEMD)/sysusers.d/otus.conf
	install -d $(DESTDIR)$(PREFIX)/share/doc/otus
	install -m 0644 README.md CHANGELOG.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/otus/

test-arm64: $(VENV)/.package ## the core's and the SDK's tests over the arm64 wheel, emulated
	@compgen -G 'dist/otus-*aarch64.whl' >/dev/null || $(MAKE) wheels
	$(PY) packaging/arm64.py
test-packaging: $(VENV)/.package ## builds and runs every packaged form; many minutes, as root
	$(PY) -m pytest -m packaging -o timeout=1800 $(PYTEST_ARGS)

.PHONY: clean
clean: ## removes what was built, the virtual environment included
	rm -rf build dist $(VENV) $(NATIVE) .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
