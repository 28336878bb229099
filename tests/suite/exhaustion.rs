//! Limits of the system, reached for real under load and then released: what
//! they cost, and that they cost nobody else.

use crate::common::*;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

/// Clients that come while the limit holds.
const LOAD: usize = 60;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn without_processes_only_new_clients_are_lost() {
    if emulated() {
        return;
    }
    if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        return skipped("not root: the limit counts all processes of a user");
    }
    let user = 0x7000_0000 + std::process::id(); // nobody else's
    let server = Server::start(&["-q", "-u", &user.to_string(), "echo", "0"]);
    let limit = |processes: u64| {
        // The same user sets it: root may not in a container.
        let (pid, mut command) = (server.pid as i32, Command::new("true"));
        before_exec(command.uid(user).gid(user), move || {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the kernel reads or writes the limit.
            unsafe {
                libc::prlimit(pid, libc::RLIMIT_NPROC, ptr::null(), &mut limit);
                limit.rlim_cur = processes;
                libc::prlimit(pid, libc::RLIMIT_NPROC, &limit, ptr::null_mut());
            }
        });
        assert!(run(&mut command).status.success());
    };
    let before = Instant::now();
    let kept: Vec<_> = (0..4).map(|_| ask(&server)).collect();
    assert_eq!(answered(&kept), 4);

    limit(8); // the server, these 4, and 3 more
    for _ in 0..3 {
        let mut clients = come_together(&server);
        assert_eq!(answered(&clients[..3]), 3);
        assert!(clients[3..].iter().all(nothing_to_read), "they wait for their turn");
        // Who has its answer leaves, and the next one is served.
        let others = clients.split_off(3);
        drop(clients);
        others.into_iter().for_each(|client| assert_eq!(receive(&client, LINE.len()), LINE));
        wait_for("they end", || server.children().len() == kept.len());
    }
    is_told(&server, "fault call=fork error=EAGAIN client=", before);
    all_are_served(&kept);

    let clients = come_together(&server);
    assert_eq!(answered(&clients[..3]), 3);
    limit(4000);
    assert_eq!(answered(&clients[3..]), LOAD - 3, "it tries again though no child ends");
    all_are_served(&kept);
    drop((kept, clients));
    server.wait_for_children(0);
}

/// It has been accepted, and waits for a process. Its line is not answered, so it must
/// not get a plain end of file.
#[test]
fn a_stop_signal_resets_who_waits_for_a_process() {
    if emulated() || !may_attach() {
        return;
    }
    for sent in [&b""[..], LINE] {
        let mut server = Server::start(&["-q", "echo", "0"]);
        let (kept, _) = client_and_child(&server);
        let strace = Strace::attach(server.pid, "clone", "error=EAGAIN", "");
        let mut client = server.connect();
        client.write_all(sent).expect("send");
        server.stderr.wait_for("fault call=fork error=EAGAIN client=");
        assert!(nothing_to_read(&client), "it waits");
        server.signal(libc::SIGTERM);
        assert_eq!(receive_all(&client), (vec![], End::Reset), "{sent:?}");
        assert_eq!(receive_all(&kept), (vec![], End::Closed));
        assert!(server.wait().success());
        drop(strace);
    }
}

#[test]
fn without_descriptors_new_clients_wait() {
    let server = Server::start(&["-q", "echo", "0"]);
    let kept: Vec<_> = (0..4).map(|_| ask(&server)).collect();
    assert_eq!(answered(&kept), 4);

    let (fault, before) = ("fault call=accept error=EMFILE", Instant::now());
    wait_for("accept waits, and has a descriptor", || accepts(server.pid));
    let limit = no_more_descriptors(server.pid);
    let clients = come_together(&server);
    assert_eq!(receive(&clients[0], LINE.len()), LINE);
    server.stderr.wait_for(&format!("{fault} suppressed="));
    let lines = server.stderr.lines();
    let suppressed = lines.iter().find_map(|line| line.split_once(" suppressed="));
    let attempts: usize = suppressed.unwrap().1.parse().expect("a number");
    assert!(attempts <= 20, "{attempts} attempts in a second are no pause");
    is_told(&server, fault, before);
    for client in &clients[1..] {
        client.set_nonblocking(true).expect("nonblocking");
        let waits = client.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(waits, Err(ErrorKind::WouldBlock), "it waits for its turn");
        client.set_nonblocking(false).expect("blocking");
    }
    all_are_served(&kept);

    set_limit(server.pid, libc::RLIMIT_NOFILE, limit);
    assert_eq!(answered(&clients[1..]), LOAD - 1);
    assert_eq!(answered(&come_together(&server)), LOAD);
    all_are_served(&kept);
}

/// All memory that the server and its children will ever use is theirs when it
/// is ready: the stack below the handlers too.
#[test]
fn without_more_address_space_it_serves() {
    let server = Server::start(&["-v", "echo", "0"]);
    set_limit(server.pid, libc::RLIMIT_AS, 1);
    set_limit(server.pid, libc::RLIMIT_STACK, 1);
    let burst = b"a line that is one of many\n".repeat(20_000);
    for _ in 0..3 {
        assert_eq!(answered(&come_together(&server)), LOAD);
        assert_eq!(exchange(server.connect(), &burst), burst);
    }
    let ended_well = || server.stderr.text().matches(" reason=eof ").count();
    wait_for("all have ended well", || ended_well() == 3 * (LOAD + 1));
}

#[test]
fn without_memory_only_new_clients_are_lost() {
    if emulated() {
        return;
    }
    let Some(group) = MemoryGroup::new() else {
        return;
    };
    let server = Server::start(&["-q", "echo", "0"]);
    group.set("cgroup.procs", &server.pid.to_string());
    let before = Instant::now();
    let kept: Vec<_> = (0..4).map(|_| ask(&server)).collect();
    assert_eq!(answered(&kept), 4);

    let message = "fault call=fork error=ENOMEM client=";
    let told = || server.stderr.text().contains(message);
    // The server's own pages are not refused but waited for. If it comes to
    // that before a fork fails, it goes on when there is room, to the next try.
    let reached = (0..20).any(|round| {
        let used: u64 = group.get("memory.usage_in_bytes").trim().parse().expect("bytes");
        group.set("memory.limit_in_bytes", &(used + (1 << 20) + (round << 16)).to_string());
        let clients: Vec<_> = (0..3).flat_map(|_| come_together(&server)).collect();
        within(10 * SECOND, || {
            let waits = group.get("memory.oom_control").contains("under_oom 1");
            told() || waits || !clients.iter().any(nothing_to_read)
        });
        if told() {
            all_are_served(&kept);
        }
        group.set("memory.limit_in_bytes", "-1");
        assert_eq!(answered(&clients), clients.len(), "who has waited is served");
        told()
    });
    assert!(reached, "the limit was never reached: {}", server.stderr.text());
    all_are_served(&kept);
    is_told(&server, message, before);
    assert_eq!(answered(&come_together(&server)), LOAD);
    all_are_served(&kept);
    drop(kept);
    server.wait_for_children(0);
}

/// A control group of the server's own, removed in the end. What does not fit
/// into its memory fails; nobody is killed (cgroups(7), version 1).
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new() -> Option<MemoryGroup> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.split_once(":memory:"));
        let path = own.map(|(_, own)| {
            let name = format!("forkline-{}", std::process::id());
            PathBuf::from(format!("/sys/fs/cgroup/memory{own}")).join(name)
        });
        let group = path.filter(|path| fs::create_dir(path).is_ok()).map(MemoryGroup);
        match &group {
            Some(group) => group.set("memory.oom_control", "1"),
            None => skipped("no memory control group (version 1) here to be had"),
        }
        group
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    fn get(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).expect(file)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let end = Instant::now() + DEADLINE; // its processes are ending
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            thread::yield_now();
        }
    }
}

/// LOAD clients at once, who send a line each.
fn come_together(server: &Server) -> Vec<TcpStream> {
    let clients: Vec<_> = (0..LOAD).map(|_| server.connect()).collect();
    for mut client in &clients {
        let _ = client.write_all(LINE); // fails when the connection is closed already
    }
    clients
}

/// How many of them get their line back. The others must see the end of their
/// connection: nobody is left waiting.
fn answered(clients: &[TcpStream]) -> usize {
    let answered = clients.iter().filter(|client| {
        let (mut client, mut answer) = (*client, [0; LINE.len()]);
        match client.read_exact(&mut answer) {
            Ok(()) => answer == LINE,
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "no answer and no end");
                false
            }
        }
    });
    answered.count()
}

fn all_are_served(clients: &[TcpStream]) {
    for mut client in clients {
        client.write_all(LINE).expect("send");
    }
    assert_eq!(answered(clients), clients.len());
}

/// This was said, at most once a second, and nothing of other calls.
fn is_told(server: &Server, what: &str, since: Instant) {
    server.stderr.wait_for(what);
    let lines = server.stderr.lines().split_off(1);
    assert!(lines.iter().all(|line| line.starts_with("forkline: fault call=")), "{lines:#?}");
    let told = lines.iter().filter(|line| line.contains(what)).count();
    // The server's clock ticks up to 10 ms late.
    let seconds = (since.elapsed() + Duration::from_millis(10)).as_secs();
    assert!(told as u64 <= seconds + 1, "{lines:#?}");
}
