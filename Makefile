# forkline: what it takes to build, run, test and check it is cargo, a C
# compiler and make.

CARGO   = cargo
CC      = cc
CFLAGS  = -std=c11 -Wall -Wextra -Werror -O2
SERVICE = echo
PORT    = 7007
ARGS    =

all:   ## build target/release/forkline
	$(CARGO) build --release --locked

run: all   ## serve SERVICE (echo) on PORT (7007), with further options in ARGS
	target/release/forkline $(ARGS) $(SERVICE) $(PORT)

test:   ## run every test, against the release binary
	$(CARGO) test --release --locked

soak:   ## a million connections (or FORKLINE_SOAK) with random faults
	$(CARGO) test --release --locked --test soak -- --ignored --nocapture

bench:   ## measure it beside the C, a floor and other servers: some minutes
	$(CARGO) bench --locked --bench bench

# A reader's own C may warn.
compare: CFLAGS = -Wall -O2
compare:   ## the C (or ECHO_C=..., ROT13_C=...) and forkline side by side, as a page
	ECHO_C='$(ECHO_C)' ROT13_C='$(ROT13_C)' CC='$(CC)' CFLAGS='$(CFLAGS)' \
		$(CARGO) test --release --locked --test maker

check:   ## formatting, lints, the C companions' warnings, the shell scripts
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets --locked -- --deny warnings
	$(CC) $(CFLAGS) -o /dev/null tests/c/echo.c
	$(CC) $(CFLAGS) -o /dev/null tests/c/rot13.c
	$(CC) $(CFLAGS) -ffreestanding -nostdlib -static-pie -fpie -fno-stack-protector -o /dev/null tests/c/floor.c
	sh tests/shellcheck.sh

clean:   ## remove what was built
	$(CARGO) clean

help:   ## show this
	@sed -n 's/^\([a-z]*\):[^#]*## /\1	/p' Makefile | expand -t 10

.PHONY: all run test soak bench compare check clean help
