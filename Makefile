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

all:   ## build target/release/forkline
	$(CARGO) build --release --locked

run: all   ## serve SERVICE (echo) on PORT (7007), with further options in ARGS
	'$(BIN)' $(ARGS) $(SERVICE) $(PORT)

test:   ## run every test, against the release binary
	$(CARGO) test --release --locked

parsers:   ## 200,000 random command lines and environments (FORKLINE_PARSERS=N for fewer)
	FORKLINE_PARSERS=$${FORKLINE_PARSERS:-200000} $(CARGO) test --release --locked \
		--test parsers -- --nocapture

# Every change meets the tests of .cargo/mutants-first, which fail soonest, and then, if
# these let it pass, all tests that can tell. The size of the file tells nothing: every
# change alters it. What is still let pass must stand in
# tests/suite/expected/mutants.txt, with the reason.
MUTANTS_ARGS =
MUTATE       = $(CARGO) mutants --jobserver=false --build-timeout 900 --output $(TARGET) $(MUTANTS_ARGS)
MISSED       = $(TARGET)/mutants.out/missed.txt
mutants:   ## change src piece by piece: does a test fail each time? (hours, as root)
	@command -v cargo-mutants >/dev/null || { echo 'cargo install cargo-mutants --locked' >&2; exit 1; }
	$(MUTATE) -- -- $$(cat .cargo/mutants-first) || test $$? -le 3
	$(MUTATE) --iterate --baseline skip --timeout 900 -C=--test=parsers \
		-- -- --skip it_is_small --skip deploy:: --skip recipe:: || test $$? -le 3
	! sed -E 's/:[0-9]+:[0-9]+:/:/' $(MISSED) | grep -vxFf tests/suite/expected/mutants.txt

soak:   ## 1.5 million connections with random faults (FORKLINE_SOAK=N for fewer)
	$(CARGO) test --release --locked --test soak -- --ignored --nocapture

races:   ## a signal at every instruction of the server, and pairs of them, with ptrace
	$(CARGO) test --release --locked --test races

faults:   ## every system call fails for ever, with every errno: five minutes or more
	$(CARGO) test --release --locked --test suite -- --ignored --nocapture all_faults

bench:   ## measure it beside bare C, the C and other servers: at most ten minutes
	$(CARGO) bench --locked --bench bench

# Through the environment, since a path may have an apostrophe. Without -Werror: a
# reader's own C may cause warnings. The program is built first and then run without
# cargo, which has words of its own when a program's status is not 0.
COMPARE = $(CARGO) test --release --locked --test compare --no-run
JUDGE   = exe=$$($(COMPARE) --message-format=json 2>/dev/null | \
	sed -n 's/.*"name":"compare".*"executable":"\([^"]*\)".*/\1/p') && "$$exe"
compare grade: export CC := $(CC)
compare grade: export CFLAGS = -Wall -O2
compare grade: export CPPFLAGS := $(CPPFLAGS)
compare grade: export LDLIBS := $(LDLIBS)
compare grade: export STRICT := $(STRICT)
compare: export ECHO_C := $(ECHO_C)
compare: export ROT13_C := $(ROT13_C)
compare:   ## the C (or ECHO_C=..., ROT13_C=...) and forkline side by side, as a page
	@$(COMPARE)
	@$(JUDGE)

DIR = submissions
grade: export GRADE_DIR = $(DIR)
grade:   ## judge every C program in DIR (submissions), each on its own: target/grade
	@$(COMPARE)
	@$(JUDGE)

class:   ## judge the programs of tests/compare/class twice: as they say, and the same?
	$(CARGO) test --release --locked --test suite -- --ignored --nocapture the_class_is_judged

check:   ## check formatting, lints, comments, the C companions' warnings, the shell scripts
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets --locked -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --locked --no-deps --document-private-items
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

# An OCI index, from which an engine takes the image for its own machine.
images: all aarch64   ## build one image for amd64 and arm64 with ENGINE: podman or buildah
	install -D '$(BIN)' '$(TARGET)/image/amd64/forkline'
	install -D '$(ARM_BIN)' '$(TARGET)/image/arm64/forkline'
	$(ENGINE) manifest rm $(IMAGE) 2>/dev/null || $(ENGINE) rmi $(IMAGE) 2>/dev/null || true
	for arch in amd64 arm64; do \
		$(ENGINE) build $(IMAGEFLAGS) --platform=linux/$$arch --manifest=$(IMAGE) \
			-f deploy/container/Containerfile '$(TARGET)/image'/$$arch || exit; done

aarch64:   ## build the same for 64-bit Arm, with ARM_RUSTC and ARM_CC
	RUSTC=$(ARM_RUSTC) CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$(ARM_CC) \
		$(CARGO) build --release --locked --target $(ARM)

test-aarch64: aarch64   ## run the tests that work in EMULATOR against it
	FORKLINE="$(EMULATOR) $(ARM_BIN)" $(CARGO) test --release --locked \
		--test suite

KERNELS =
test-kernels:   ## run tests in real kernels, by emulation: KERNELS=all, or two of them
	ARM_RUSTC=$(ARM_RUSTC) ARM_CC=$(ARM_CC) \
		$(CARGO) test --release --locked --test kernels -- $(KERNELS)

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

.PHONY: all run test soak bench compare grade check install uninstall image images aarch64 test-aarch64 test-kernels manifests deny dist archive deb package parsers mutants races faults clean help
