//! What a guest of `make test-kernels` runs: the tests of the suite that ask something of
//! the kernel and need no tool that a guest has not.

#[path = "../common/mod.rs"]
mod common;

#[path = "../suite/activation.rs"]
mod activation;
#[path = "../suite/bare_system.rs"]
mod bare_system;
#[path = "../suite/child_memory.rs"]
mod child_memory;
#[path = "../suite/child_signals.rs"]
mod child_signals;
#[path = "../suite/children.rs"]
mod children;
#[path = "../suite/confine.rs"]
mod confine;
#[path = "../suite/drain.rs"]
mod drain;
#[path = "../suite/exhaustion.rs"]
mod exhaustion;
#[path = "../suite/idle_limit.rs"]
mod idle_limit;
#[path = "../suite/inherited.rs"]
mod inherited;
#[path = "../suite/line_reports.rs"]
mod line_reports;
#[path = "../suite/listening.rs"]
mod listening;
#[path = "../suite/max_per_source.rs"]
mod max_per_source;
#[path = "../suite/misbehaving_clients.rs"]
mod misbehaving_clients;
#[path = "../suite/process_1.rs"]
mod process_1;
#[path = "../suite/reset_and_kill.rs"]
mod reset_and_kill;
#[path = "../suite/reuse_port.rs"]
mod reuse_port;
#[path = "../suite/unread_messages.rs"]
mod unread_messages;

/// The machine's console as standard error. `make test-kernels` looks for the message
/// that comes out there.
#[test]
fn the_console_takes_messages() {
    use common::*;
    use std::fs::File;
    let Ok(console) = std::env::var("FORKLINE_CONSOLE") else {
        return skipped("not a guest: this would write to the console of this machine");
    };
    let console = File::options().write(true).open(console).expect("the console");
    let server = Server::spawn(forkline(&["-v", "-r", "echo", "50005"]).stderr(console));
    assert_eq!(exchange(server.connect(), LINE), LINE);
    server.wait_for_children(0);
    wait_for("the server waits", || accepts(server.pid));
}
