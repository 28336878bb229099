# Building, running, testing and checking forkline needs cargo, a C compiler and
# make.

CARGO   = cargo
CC      = cc
CFLAGS  = -std=c11 -Wall -Wextra -Werror -O2
SERVICE = echo
PORT    = 7007
ARGS    =

TARGET  = $(or $(CARGO_TARGET_DIR),target)
BIN     = $(TARGET)/release/forkline
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

PREFIX  = /usr/local
DESTDIR =
bindir  = $(PREFIX)/bin
mandir  = $(PREFIX)/share/man/man8
unitdir = $(PREFIX)/lib/systemd/system
UNITS   = forkline@.service forkline@.socket forkline-cpu@.service

# The first container engine that is installed.
ENGINE  = $(firstword $(foreach e,podman buildah docker,$(shell command -v $e)) podman)
IMAGE   = forkline:$(VERSION)
IMAGEFLAGS =

# A compiler with the core library for 64-bit Arm: rustup's after `rustup target
# add`, or Debian's with libstd-rust-web-dev:arm64.
ARM       = aarch64-unknown-linux-gnu
ARM_BIN   = $(TARGET)/$(ARM)/release/forkline
ARM_CC    = aarch64-linux-gnu-gcc
ARM_RUSTC = $(firstword $(foreach r,rustc /usr/bin/rustc,\
	$(if $(wildcard $(shell $r --print sysroot)/lib/rustlib/$(ARM)),$r)) rustc)
EMULATOR  = qemu-aarch64-static
# Tests that cannot run in an emulator: it has no seccomp, no subreapers and no
# TCP_INFO, keeps a few signals for itself, has a thread of its own, and opens the
# program by its name. The deployments and packages are tested without it. Tests that
# use strace or look at memory say that they are skipped.
ARM_SKIP  = deploy:: package:: parent_and_child_are_filtered any_other_call_is_fatal \
	a_signal_to_a_child every_signal_to_a_child out_of_memory out_of_processes \
	a_port_without_permission a_standard_error_that_nobody_reads_stops \
	lossless::a_client_that lossless::answers_under_way lossless::the_idle_limit

all:   ## build target/release/forkline
	$(CARGO) build --release --locked

run: all   ## serve SERVICE (echo) on PORT (7007), with further options in ARGS
	target/release/forkline $(ARGS) $(SERVICE) $(PORT)

test:   ## run every test, against the release binary
	$(CARGO) test --release --locked

parsers:   ## 200,000 random command lines and environments (FORKLINE_PARSERS=N for fewer)
	FORKLINE_PARSERS=$${FORKLINE_PARSERS:-200000} $(CARGO) test --release --locked \
		--test parsers -- --nocapture

# Every change meets the tests that fail soonest, and then, if these let it pass, all
# tests that can tell. The size of the file tells nothing: every change alters it.
# What is still let pass must stand in tests/suite/expected/mutants.txt, with the reason.
MUTANTS_ARGS =
MUTATE       = $(CARGO) mutants --jobserver=false --build-timeout 900 --output $(TARGET) $(MUTANTS_ARGS)
MISSED       = $(TARGET)/mutants.out/missed.txt
MUTANTS_FAST = activation:: startup:: memory:: reuse_port:: confine:: wire:: reports:: \
	rude:: binary::it_makes lossless::a_port lossless::under_nohup \
	limits::a_source limits::the_network limits::refusals limits::at_the_cap \
	limits::every_connection limits::a_silent limits::a_client_that_does_not \
	limits_real::out_of_descriptors drain::a_second_ctrl_c drain::stopped_and \
	drain::what_has_been drain::a_stopped drain::a_signal_that drain::somebody \
	drain::as_process_1 $(addprefix --skip ,streams_are_as \
	a_broken_connection_does_not closed_descriptors_do_not_hurt gives_a_long_line \
	blocks_its_child)
mutants:   ## change src piece by piece: does a test fail each time? (hours, as root)
	@command -v cargo-mutants >/dev/null || { echo 'cargo install cargo-mutants --locked' >&2; exit 1; }
	$(MUTATE) -- -- $(MUTANTS_FAST) || test $$? -le 3
	$(MUTATE) --iterate --baseline skip --timeout 900 -C=--test=parsers \
		-- -- --skip it_is_small --skip deploy:: || test $$? -le 3
	! sed -E 's/:[0-9]+:[0-9]+:/:/' $(MISSED) | grep -vxFf tests/suite/expected/mutants.txt

soak:   ## 1.5 million connections with random faults (FORKLINE_SOAK=N for fewer)
	$(CARGO) test --release --locked --test soak -- --ignored --nocapture

races:   ## a signal at every instruction of the server, and pairs of them, with ptrace
	$(CARGO) test --release --locked --test races

faults:   ## every system call fails for ever, with every errno: five minutes or more
	$(CARGO) test --release --locked --test suite -- --ignored --nocapture all_faults

bench:   ## measure it beside bare C, the C and other servers: at most ten minutes
	$(CARGO) bench --locked --bench bench

# The program is built first and then run without cargo, which has words of its own
# when a program's status is not 0. Without -Werror: a reader's own C may cause warnings.
COMPARE = $(CARGO) test --release --locked --test compare --no-run
JUDGE   = exe=$$($(COMPARE) --message-format=json 2>/dev/null | \
	sed -n 's/.*"name":"compare".*"executable":"\([^"]*\)".*/\1/p') && \
	CC='$(CC)' CPPFLAGS='$(CPPFLAGS)' CFLAGS='$(CFLAGS)' LDLIBS='$(LDLIBS)' STRICT='$(STRICT)'
compare: CFLAGS = -Wall -O2
compare:   ## the C (or ECHO_C=..., ROT13_C=...) and forkline side by side, as a page
	@$(COMPARE)
	@$(JUDGE) ECHO_C='$(ECHO_C)' ROT13_C='$(ROT13_C)' "$$exe"

DIR = submissions
grade: CFLAGS = -Wall -O2
grade:   ## judge every C program in DIR (submissions), each on its own: target/grade
	@$(COMPARE)
	@$(JUDGE) GRADE_DIR='$(DIR)' "$$exe"

class:   ## judge the programs of tests/compare/class twice: as they say, and the same?
	$(CARGO) test --release --locked --test suite -- --ignored --nocapture the_class_is_judged

check:   ## check formatting, lints, the C companions' warnings, the shell scripts
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets --locked -- --deny warnings
	$(CC) $(CFLAGS) -o /dev/null tests/c/echo.c
	$(CC) $(CFLAGS) -o /dev/null tests/c/rot13.c
	$(CC) $(CFLAGS) -ffreestanding -nostdlib -static-pie -fpie -fno-stack-protector -o /dev/null tests/c/floor.c
	sh tests/shellcheck.sh

install:   ## install the program, its manual and units below PREFIX (and DESTDIR)
	install -d '$(DESTDIR)$(bindir)' '$(DESTDIR)$(mandir)' '$(DESTDIR)$(unitdir)'
	install -m 755 '$(BIN)' '$(DESTDIR)$(bindir)/forkline'
	install -m 644 deploy/man/forkline.8 '$(DESTDIR)$(mandir)'
	for unit in $(UNITS); do \
		sed 's|/usr/local/bin|$(bindir)|' deploy/systemd/$$unit >'$(DESTDIR)$(unitdir)'/$$unit && \
		chmod 644 '$(DESTDIR)$(unitdir)'/$$unit || exit; done

uninstall:   ## remove what `make install` installs
	rm -f '$(DESTDIR)$(bindir)/forkline' '$(DESTDIR)$(mandir)/forkline.8'
	for unit in $(UNITS); do rm -f '$(DESTDIR)$(unitdir)'/$$unit || exit; done

image: all   ## build the container image IMAGE with ENGINE: podman, buildah or docker
	install -D '$(BIN)' '$(TARGET)/image/forkline'
	$(ENGINE) build $(IMAGEFLAGS) -t $(IMAGE) -f deploy/container/Containerfile '$(TARGET)/image'

aarch64:   ## build the same for 64-bit Arm, with ARM_RUSTC and ARM_CC
	RUSTC=$(ARM_RUSTC) CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$(ARM_CC) \
		$(CARGO) build --release --locked --target $(ARM)

test-aarch64: aarch64   ## run the tests that work in EMULATOR against it
	FORKLINE="$(EMULATOR) $(ARM_BIN)" $(CARGO) test --release --locked \
		--test suite -- $(addprefix --skip ,$(ARM_SKIP))

manifests:   ## check the Kubernetes manifests, with the schemas that PyPI has
	test -x $(TARGET)/venv/bin/python || python3 -m venv $(TARGET)/venv
	$(TARGET)/venv/bin/python -m pip install -q kubernetes-validate==1.37.0
	$(TARGET)/venv/bin/python deploy/kubernetes/check.py 1.32 1.37

deny:   ## check licences, advisories and sources of the crates, with cargo-deny
	$(CARGO) deny check

dist: all aarch64   ## make archives for both architectures and their SHA-256, in target/dist
	rm -rf $(TARGET)/dist
	$(MAKE) archive ARCH=$(shell uname -m)
	$(MAKE) archive ARCH=aarch64 BIN=$(ARM_BIN)
	cd $(TARGET)/dist && sha256sum *.tar.gz >SHA256SUMS && cat SHA256SUMS

# Owner, order, mode and time are set, so every build makes the same bytes.
archive: NAME = forkline-$(VERSION)-$(ARCH)
archive:
	$(MAKE) install DESTDIR=$(TARGET)/dist/$(NAME) PREFIX=/usr/local
	cp README.md DESIGN.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE $(TARGET)/dist/$(NAME)
	tar -C $(TARGET)/dist --sort=name --format=ustar --owner=0 --group=0 --numeric-owner \
		--mode=u=rwX,go=rX --mtime=@$(or $(SOURCE_DATE_EPOCH),0) -c $(NAME) | \
		gzip -9n >$(TARGET)/dist/$(NAME).tar.gz
	rm -rf $(TARGET)/dist/$(NAME)

deb: all aarch64   ## make Debian packages for both architectures, in target/deb
	rm -rf $(TARGET)/deb
	$(MAKE) package ARCH=$(shell dpkg --print-architecture)
	$(MAKE) package ARCH=arm64 BIN=$(ARM_BIN)
	cd $(TARGET)/deb && sha256sum *.deb >SHA256SUMS && cat SHA256SUMS

package:
	mkdir -p $(TARGET)/deb
	sh deploy/debian/build.sh $(ARCH) $(BIN) $(TARGET)/deb

clean:   ## remove what was built
	$(CARGO) clean

help:   ## show this
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## /\1	/p' Makefile | expand -t 15

.PHONY: all run test soak bench compare grade check install uninstall image aarch64 test-aarch64 manifests deny dist archive deb package parsers mutants races faults clean help
