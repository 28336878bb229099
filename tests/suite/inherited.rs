//! What a server inherits from whoever starts it: signals that are ignored or blocked,
//! children, descriptors.

use crate::common::*;
use std::io::Write;
use std::process::Command;

/// A shell ignores SIGINT and SIGQUIT for a job in the background, and nohup(1) SIGHUP: they
/// stay ignored. SIGTERM ends the server whatever was ignored or blocked.
#[test]
fn a_stop_works_whatever_was_ignored_or_blocked_before() {
    let mut command = forkline(&["-g", FOREVER, "echo", "0"]);
    // SAFETY: the set outlives the calls.
    before_exec(&mut command, || unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
        (1..32).for_each(|signal| _ = libc::signal(signal, libc::SIG_IGN));
    });
    let mut server = Server::spawn(&mut command);
    let (client, child) = client_and_child(&server);
    drop(client_and_child(&server));
    server.wait_for_children(1); // SIGCHLD comes
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        [server.pid, child].iter().for_each(|&pid| kill(pid as i32, signal));
        assert_eq!(say(&client, LINE), LINE);
        assert_eq!(say(&server.connect(), LINE), LINE);
    }
    server.wait_for_children(1);
    server.signal(libc::SIGTERM);
    assert_eq!(receive_all(&client), (vec![], End::Closed));
    assert!(server.wait().success());
    server.stderr.wait_for(&stop_message("drain", libc::SIGTERM, 1));
    server.has_said_nothing_else();
}

/// Ctrl-C at the terminal of a script does not end its server in the background.
#[test]
fn no_ctrl_c_ends_it_in_the_background_of_a_script() {
    let mut sh = Command::new("sh");
    sh.args(["-c", r#""$0" "$@" & wait $!"#]).args(command_line(&["-g", FOREVER, "echo", "0"]));
    let mut server = Server::spawn(piped(&mut sh));
    let forkline = children_of(server.pid)[0];
    let client = server.connect();
    assert_eq!(say(&client, LINE), LINE);
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        kill(forkline as i32, signal);
        assert_eq!(say(&client, LINE), LINE);
        assert_eq!(say(&server.connect(), LINE), LINE);
    }
    kill(forkline as i32, libc::SIGTERM);
    assert_eq!(receive_all(&client), (vec![], End::Closed));
    assert!(server.wait().success());
    assert!(!server.stderr.text().contains("SIGINT"), "{}", server.stderr.text());
}

/// A terminal with `stty tostop` stops whom it finds writing in the background.
#[test]
fn in_the_background_of_a_terminal() {
    if !tool("stty") {
        return;
    }
    let (person, program) = terminal().expect("a terminal");
    let mut sh = Command::new("sh");
    sh.args(["-c", r#"stty tostop; set -m; "$0" "$@" & wait"#]);
    sh.args(command_line(&["-v", "echo", "0"]));
    sh.stdin(program.try_clone().unwrap()).stdout(program.try_clone().unwrap()).stderr(program);
    // SAFETY: the calls take no pointers. The terminal becomes the shell's.
    before_exec(&mut sh, || unsafe {
        libc::setsid();
        libc::ioctl(0, libc::TIOCSCTTY, 0);
    });
    let mut sh = sh.spawn().expect("sh");
    let words = Collected::from(Some(person));
    let stopped = |pid| state(pid) == 'T';
    let mut forkline = 0;
    wait_for("it is ready, or has stopped", || {
        forkline = children_of(sh.id()).pop().unwrap_or(forkline);
        forkline != 0 && words.text().contains(" listening on ") || stopped(forkline)
    });
    // Two messages and a report.
    let port = listening_port(forkline).filter(|_| !stopped(forkline));
    let answer = port.map(|port| exchange(connect(("127.0.0.1", port)), LINE));
    kill(-(forkline as i32), libc::SIGKILL);
    sh.wait().expect("wait");
    assert_eq!(answer.as_deref(), Some(LINE), "{}", words.text());
}

/// The script that became the server had children: they are waited for, and
/// take no client's place.
#[test]
fn somebody_elses_children_take_no_place() {
    let mut sh = Command::new("sh");
    let script = r#"for i in 1 2 3 4 5; do sleep 1000 >/dev/null 2>&1 & done; exec "$0" "$@""#;
    sh.args(["-c", script]).args(command_line(&["-v", "-c", "1", "echo", "0"]));
    let mut server = Server::spawn(piped(&mut sh));
    let sleepers = server.wait_for_children(5);
    let (first, own) = client_and_child(&server);
    let second = server.connect();
    (&second).write_all(b"hello\n").expect("send");
    // All end in the same instant, as far as the server can see.
    stop(server.pid);
    for &sleeper in &sleepers {
        kill(sleeper as i32, libc::SIGKILL);
    }
    drop(first);
    wait_for("all are zombies", || server.children().iter().all(|&pid| state(pid) == 'Z'));
    kill(server.pid as i32, libc::SIGCONT);
    assert_eq!(receive(&second, 6), b"hello\n", "{}", server.stderr.text());
    server.wait_for_children(1);
    server.stderr.wait_for(&format!("forkline: end pid={own} "));
    let third = server.connect();
    (&third).write_all(b"hello\n").expect("send");
    drop(second);
    assert_eq!(receive(&third, 6), b"hello\n");
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    let log = server.stderr.lines();
    let told = |event: &str| log.iter().filter(|line| line.contains(event)).collect::<Vec<_>>();
    assert!(told(": accept ").iter().all(|line| line.ends_with(" children=1/1")), "{log:?}");
    assert_eq!(told(": end ").len(), 3, "those of its own: {log:?}");
    assert!(log[log.len() - 2].ends_with(" reason=stop children=0/1"), "{log:?}");
    assert_eq!(log.last().unwrap(), "forkline: drained children=0/1");
}

/// nohup(1) starts a program with SIGHUP ignored, and it stays so.
#[test]
fn under_nohup_a_hangup_is_ignored() {
    let mut command = forkline(&["-v", "echo", "0"]);
    // SAFETY: no pointers.
    before_exec(&mut command, || _ = unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) });
    let mut server = Server::spawn(&mut command);
    let client = server.connect();
    assert_eq!(say(&client, b"hello\n"), b"hello\n");
    let child = server.wait_for_children(1)[0];
    for pid in [server.pid, child] {
        kill(pid as i32, libc::SIGHUP);
    }
    assert_eq!(say(&client, b"hello\n"), b"hello\n");
    assert_eq!(say(&server.connect(), b"hello\n"), b"hello\n");
    server.signal(libc::SIGTERM);
    assert!(server.wait().success());
    assert!(!server.stderr.text().contains("SIGHUP"), "{}", server.stderr.text());
}

#[test]
fn inherited_descriptors_are_closed() {
    if emulated() {
        return;
    }
    let mut command = forkline(&["echo", "0"]);
    before_exec(&mut command, || {
        // SAFETY: no pointers.
        [3, 4, 5, 9, 200].iter().for_each(|&fd| _ = unsafe { libc::dup2(0, fd) });
    });
    let server = Server::spawn(&mut command);
    let client = server.connect();
    assert_eq!(say(&client, b"hello\n"), b"hello\n");
    let child = server.wait_for_children(1)[0];
    // By then it has closed its copy of the connection.
    wait_for("the parent waits in accept", || accepts(server.pid));
    for pid in [server.pid, child] {
        let open = descriptors(pid);
        let others = open.iter().filter(|(fd, _)| *fd > 2);
        let others: Vec<_> = others.collect();
        assert!(others.len() == 1 && others[0].1.starts_with("socket:"), "{open:?}");
    }
}
