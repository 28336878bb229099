//! What `make test` runs besides the parsers: one program, for each is linked with all
//! optimisations, as the server is, and that takes longer than most of them run.
//!
//! A module is named after what it tests, and each test after what would be lost
//! without it. `cargo test --release --test suite -- drain::` runs one module. What
//! several of them need is in `tests/common`.

#[path = "../common/mod.rs"]
mod common;

// What a client sees: the answers of the C, byte for byte.
mod answers;
mod installed_clients;
mod line_reports;
mod misbehaving_clients;
mod raw;

// A child for each connection: what it holds, what it may do, and how it ends.
mod child_memory;
mod child_signals;
mod children;
mod confine;
mod reaping;

// Limits: the server's own, and the system's.
mod exhaustion;
mod idle_limit;
mod max_children;
mod max_per_source;

// The start.
mod activation;
mod bare_system;
mod command_line;
mod inherited;
mod listening;
mod process_1;
mod reuse_port;

// The end.
mod drain;
mod drain_at_random;
mod network;
mod reset_and_kill;
mod signal_at_each_call;

// Messages.
mod message_list;
mod unread_messages;

// What may go wrong at any system call, and at any instruction.
mod faults;
mod held_calls;
mod lasting_faults;
#[path = "../races/mod.rs"]
mod races;

// The source and the file: how they are built, and what goes with them.
mod binary;
mod compare;
mod debian_package;
mod debugging;
mod deploy;
mod recipe;
mod wings;
