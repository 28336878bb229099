//! The server as process 1 of a container: every signal that has no handler is ignored,
//! and the orphans of all others become its children.

use crate::common::*;
use std::io::Write;
use std::process::Command;

/// Every signal that process 1 of a container has no handler for is ignored,
/// and the orphans of all others become its children.
#[test]
fn process_1_serves_reaps_and_drains() {
    for signal in STOP_SIGNALS {
        let args = ["-v", "-c", "2", "-g", FOREVER, "echo", "0"];
        let Some((mut server, init)) = process_1(&args) else { return };
        let clients = [server.connect(), server.connect()];
        for client in &clients {
            assert_eq!(say(client, b"hello\n"), b"hello\n");
        }
        let own = children_of(init);

        run_beside(init, "for i in 1 2 3 4 5 6; do sleep 1000 >/dev/null 2>&1 & done");
        wait_for("it has six more", || children_of(init).len() == 2 + 6);
        for orphan in children_of(init).into_iter().filter(|pid| !own.contains(pid)) {
            kill(orphan as i32, libc::SIGKILL);
        }
        wait_for("they are reaped", || children_of(init).len() == 2);

        let third = server.connect();
        (&third).write_all(b"hello\n").expect("send");
        let [mut first, second] = clients;
        drop(second);
        assert_eq!(receive(&third, 6), b"hello\n");
        first.write_all(b"half").expect("send");
        wait_for("it is taken", || unacknowledged(&first) == 0);
        kill(init as i32, signal);
        assert_eq!(receive_all(&first), (b"half".to_vec(), End::Closed));
        assert!(server.wait().success());
        let log = server.stderr.lines();
        assert_eq!(log.iter().filter(|line| line.contains(": end ")).count(), 3, "{log:?}");
        assert!(log[log.len() - 2].ends_with(" reason=stop children=0/2"), "{log:?}");
        assert_eq!(log.last().unwrap(), "forkline: drained children=0/2");
    }
}

/// As many as no table of children that have ended would hold, with no client
/// who wakes the server: once one by one, and once all in one instant.
#[test]
fn process_1_reaps_thousands_of_orphans() {
    let Some((server, init)) = process_1(&["-v", "echo", "0"]) else { return };
    const ORPHANS: usize = 2600;
    let orphans = format!("i=0; while [ $i -lt {ORPHANS} ]; do (: &); i=$((i + 1)); done");
    run_beside(init, &orphans);
    wait_for("all are reaped", || children_now(init).is_empty());

    stop(init);
    run_beside(init, &orphans);
    let is_zombie = |&pid: &u32| state(pid) == 'Z';
    wait_for("all are zombies", || {
        children_now(init).iter().filter(|p| is_zombie(p)).count() == ORPHANS
    });
    kill(init as i32, libc::SIGCONT);
    wait_for("all are reaped", || children_now(init).is_empty());

    assert_eq!(exchange(server.connect(), b"hello\n"), b"hello\n");
    server.stderr.wait_for(" reason=eof children=0/1024\n");
    let log = server.other_messages();
    assert!(log.len() == 2 && log[0].ends_with(" children=1/1024"), "{log:?}");
}

/// With many clients it asks its own children one by one, and still finds the others.
#[test]
fn process_1_reaps_orphans_beside_many_clients() {
    let Some((server, init)) = process_1(&["-q", "echo", "0"]) else { return };
    let clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| assert_eq!(say(client, LINE), LINE));
    run_beside(init, "i=0; while [ $i -lt 100 ]; do (: &); i=$((i + 1)); done");
    wait_for("all orphans are reaped", || children_now(init).len() == clients.len());
    drop(clients);
    wait_for("all children are reaped", || children_now(init).is_empty());
}

/// forkline as process 1 of a new namespace, and its pid in this one.
fn process_1(args: &[&str]) -> Option<(Server, u32)> {
    let unshare = ["--pid", "--fork", "--mount-proc"];
    if !tool("unshare") || !tool("nsenter") {
        return None;
    }
    if !run(Command::new("unshare").args(unshare).arg("true")).status.success() {
        skipped("no permission for a namespace of processes");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(unshare).args(command_line(args));
    let server = Server::spawn(piped(&mut command));
    let init = children_of(server.pid)[0];
    assert_eq!(status(init, "NSpid"), format!("{init} 1"));
    Some((server, init))
}

/// Runs a script in the namespace of process 1. What it leaves behind becomes a
/// child of process 1.
fn run_beside(init: u32, script: &str) {
    let target = ["--target", &init.to_string(), "--pid", "--", "sh", "-c", script];
    assert!(run(Command::new("nsenter").args(target)).status.success());
}
