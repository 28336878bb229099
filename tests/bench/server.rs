//! The servers that are compared: how each is built, started, watched through
//! /proc and, in the end, charged for what it and its children have used.

use crate::common;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A server that can be started any number of times.
pub struct Server {
    pub name: String,
    /// `PORT` stands for the port, in any word.
    command: Vec<String>,
    pub rot13: bool,
    /// The longest line that comes back whole.
    pub longest: usize,
    /// It tells on stderr when it is ready, as forkline does.
    tells: bool,
    /// How many processes it is, at least, without a client.
    processes: usize,
    /// The only port it can have.
    port: Option<u16>,
}

/// The directory for all that the benchmark makes.
pub fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    fs::create_dir_all(&directory).expect("target/bench");
    directory
}

/// All servers that this machine has, each tried once; says which it has not.
pub fn all() -> Vec<Server> {
    let forkline = env!("CARGO_BIN_EXE_forkline");
    let all = format!("{forkline} -c 4096 -q -j 0 echo PORT");
    let mut servers = vec![
        server("floor", &floor()).telling(),
        server("forkline echo", &format!("{forkline} -c 4096 echo PORT")).telling(),
        server("forkline echo -q", &format!("{forkline} -c 4096 -q echo PORT")).telling(),
        server("forkline rot13", &format!("{forkline} -c 4096 rot13 PORT")).telling(),
        Server { processes: acceptors(), ..server("forkline echo -q -j 0", &all).telling() },
    ];
    for (i, other) in env::var("FORKLINE_BENCH_OTHER").unwrap_or_default().split(';').enumerate() {
        if !other.is_empty() {
            servers.push(server(&format!("other {}", i + 1), &format!("{other} PORT")).telling());
        }
    }
    let cc = env::var("CC").unwrap_or("cc".into());
    for (compiler, library) in [(cc.as_str(), ""), ("musl-gcc -static", " musl")] {
        if installed(compiler.split(' ').next().unwrap(), "the C programs with musl") {
            let echo = compile(compiler, "echo", library);
            let rot13 = compile(compiler, "rot13", library);
            servers.push(server(&format!("C echo{library}"), &format!("{echo} PORT")));
            let rot13 = server(&format!("C rot13{library}"), &rot13);
            servers.push(Server { longest: 4097, ..rot13 });
        }
    }
    if installed("go", "an echo in Go") {
        let program = path("goecho");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/goecho.go");
        run(Command::new("go").args(["build", "-o", &program, source]));
        servers.push(server("Go echo", &format!("{program} PORT")));
    }
    if installed("tcpserver", "tcpserver with cat") {
        let options = "-H -R -l localhost -b 1024 -c 4096";
        servers
            .push(server("tcpserver cat", &format!("tcpserver {options} 0.0.0.0 PORT /bin/cat")));
    }
    if installed("socat", "socat") {
        let listen = "TCP4-LISTEN:PORT,fork,reuseaddr,backlog=1024";
        servers.push(server("socat cat", &format!("socat {listen} EXEC:/bin/cat")));
    }
    if installed("inetd", "openbsd-inetd's echo") {
        let config = path("inetd.conf");
        fs::write(&config, "127.0.0.1:echo stream tcp nowait.1000000 root internal\n").unwrap();
        let inetd = server("inetd", &format!("inetd -i -q 1024 -R 1000000 {config}"));
        servers.push(Server { port: Some(7), ..inetd });
    }
    servers.retain(Server::works);
    servers
}

fn server(name: &str, command: &str) -> Server {
    let mut command: Vec<String> = command.split_whitespace().map(String::from).collect();
    if let Some(program) = which(&command[0]) {
        command[0] = program.to_str().expect("UTF-8 path").into();
    }
    let rot13 = command.iter().any(|word| word.ends_with("rot13") || word.ends_with("rot13-musl"));
    let name = name.into();
    Server { name, command, rot13, longest: usize::MAX, tells: false, processes: 1, port: None }
}

/// The processes of `-j 0`: one for each processor, and who watches them.
fn acceptors() -> usize {
    match common::processors().len() {
        1 => 1,
        n => n.min(64) + 1,
    }
}

fn path(name: &str) -> String {
    directory().join(name).to_str().expect("UTF-8 path").into()
}

pub fn installed(program: &str, what: &str) -> bool {
    let found = which(program).is_some();
    if !found {
        eprintln!("skipped: {what}: no {program} here");
    }
    found
}

/// As a shell finds it; daemons are where an ordinary user's PATH does not lead.
fn which(program: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// The C program `tests/c/<name>.c`, which takes its port from a variable if
/// it takes no argument.
fn compile(compiler: &str, name: &str, library: &str) -> String {
    let port = "-DSERV_PORT=atoi(getenv(\"SERV_PORT\"))";
    build(compiler, name, &format!("{name}{}", library.replace(' ', "-")), &["-O2", port])
}

fn floor() -> String {
    let cc = env::var("CC").unwrap_or("cc".into());
    let options = [
        "-O2",
        "-ffreestanding",
        "-fno-stack-protector",
        "-fno-asynchronous-unwind-tables",
        "-fpie",
        "-static-pie",
        "-nostdlib",
        "-Wl,--no-dynamic-linker,--build-id=none,-z,noseparate-code,-z,norelro",
    ];
    build(&cc, "floor", "floor", &options) + " PORT"
}

fn build(compiler: &str, source: &str, program: &str, options: &[&str]) -> String {
    let program = path(program);
    let source = format!("{}/tests/c/{source}.c", env!("CARGO_MANIFEST_DIR"));
    let mut words = compiler.split_whitespace();
    let mut cc = Command::new(words.next().unwrap_or("cc"));
    run(cc.args(words).args(options).args(["-o", &program, &source]));
    program
}

impl Server {
    fn telling(self) -> Server {
        Server { tells: true, ..self }
    }

    /// What a client sends and what it gets back.
    pub fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        common::answer(if self.rot13 { "rot13" } else { "echo" }, bytes)
    }

    /// Bytes of the program's file.
    pub fn size(&self) -> u64 {
        fs::metadata(&self.command[0]).expect("the program is there").len()
    }

    /// A peer may be installed and yet not be able to serve here.
    fn works(&self) -> bool {
        let running = self.start();
        if running.is_none() {
            eprintln!("skipped: {}: it does not start here", self.name);
        }
        running.map(Running::end).is_some()
    }

    /// Starts it and returns when it accepts connections; nothing if it does
    /// not within seconds.
    pub fn start(&self) -> Option<Running> {
        self.start_under(&[])
    }

    /// The same as the argument of another program, a tracer.
    #[expect(clippy::zombie_processes, reason = "`Running` waits, by wait4")]
    pub fn start_under(&self, tracer: &[&str]) -> Option<Running> {
        let port = self.port.unwrap_or_else(free_port);
        let words = self.command.iter().map(|word| word.replace("PORT", &port.to_string()));
        let words: Vec<String> = tracer.iter().map(|&word| word.into()).chain(words).collect();
        let mut command = Command::new(&words[0]);
        // Without cargo's LD_LIBRARY_PATH, which every exec would search.
        command.args(&words[1..]).env_clear().env("SERV_PORT", port.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(if self.tells { Stdio::piped() } else { Stdio::null() });
        let begin = shared_clock();
        // SAFETY: prctl and clock_gettime are async-signal-safe.
        unsafe {
            command.process_group(0).pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                begin.store(nanoseconds(), Ordering::Relaxed);
                Ok(())
            })
        };
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", words[0]));
        let stderr = child.stderr.take().map(BufReader::new);
        let pid = child.id();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut running = Running { address, pid, group: pid, ready: 0, at_rest: 1, stderr };
        running.wait_until_ready().then_some(())?;
        running.ready = nanoseconds() - begin.load(Ordering::Relaxed);
        if !tracer.is_empty() {
            running.pid = common::children_of(pid)[0];
            running.at_rest = 2;
        }
        if self.tells {
            let at_rest = || running.processes().len() - usize::from(!tracer.is_empty());
            common::wait_for("all its processes are there", || at_rest() >= self.processes);
            running.at_rest = running.processes().len();
        }
        Some(running)
    }
}

/// Below the range that the kernel takes clients' ports from, so that no old
/// connection can be in the way.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10000..32768);
        if TcpListener::bind(("::", port)).is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// A word that a child can tell its parent in.
fn shared_clock() -> &'static AtomicU64 {
    static PAGE: AtomicU64 = AtomicU64::new(0);
    if PAGE.load(Ordering::Relaxed) == 0 {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, wherever the kernel likes.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        PAGE.store(page as u64, Ordering::Relaxed);
    }
    // SAFETY: the page is never unmapped, and its bytes are zeros or a number.
    unsafe { &*(PAGE.load(Ordering::Relaxed) as *const AtomicU64) }
}

fn nanoseconds() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A server that accepts connections. Dropping it kills all its group.
pub struct Running {
    pub address: SocketAddrV4,
    pub pid: u32,
    group: u32,
    /// Nanoseconds from exec to the readiness line, or where there is none to
    /// the first connection.
    pub ready: u64,
    /// How many processes it is without a client.
    at_rest: usize,
    stderr: Option<BufReader<ChildStderr>>,
}

/// What a server and the children that it has waited for have used (getrusage(2)).
#[derive(Clone, Copy)]
pub struct Usage {
    pub microseconds: f64,
    pub faults: f64,
    pub voluntary: f64,
    pub involuntary: f64,
}

/// What its processes have used so far, those that have ended left out.
#[derive(Clone, Copy, Default)]
pub struct Scheduled {
    pub microseconds: f64,
    pub voluntary: f64,
    pub involuntary: f64,
}

impl Running {
    fn wait_until_ready(&mut self) -> bool {
        if let Some(stderr) = &mut self.stderr {
            let mut line = String::new();
            stderr.read_line(&mut line).expect("stderr");
            if !line.contains(" listening on ") {
                eprint!("{line}");
            }
            return line.contains(" listening on ");
        }
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
        }
        false
    }

    /// Waits until no child is left of those that served, zombies included.
    pub fn settle(&self) {
        common::wait_for("its children end", || self.processes().len() <= self.at_rest);
    }

    /// Ends it. The kernel adds what it and its reaped children have used, so
    /// none may be left (wait4(2)).
    pub fn end(mut self) -> Usage {
        self.settle();
        common::kill(self.pid as i32, libc::SIGTERM);
        // SAFETY: zeros are a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        let mut wait = || {
            let status = std::ptr::null_mut();
            // SAFETY: the kernel fills `usage`.
            unsafe { libc::wait4(self.group as i32, status, libc::WNOHANG, &mut usage) }
        };
        common::wait_for("it ends", || wait() != 0);
        self.group = 0;
        self.complaints();
        let microseconds = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
        Usage {
            microseconds: microseconds(usage.ru_utime) + microseconds(usage.ru_stime),
            faults: usage.ru_minflt as f64,
            voluntary: usage.ru_nvcsw as f64,
            involuntary: usage.ru_nivcsw as f64,
        }
    }

    /// Shows what it wrote after its first line: nothing, if all is well.
    fn complaints(&mut self) {
        let mut text = String::new();
        if let Some(mut stderr) = self.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        eprint!("{text}");
    }

    /// It and all that it has started, which have stayed in its process group.
    fn processes(&self) -> Vec<u32> {
        common::members_of(self.group)
    }

    /// CPU time and context switches of its processes (proc(5); in the first
    /// number of schedstat are nanoseconds on a CPU).
    pub fn scheduled(&self) -> Scheduled {
        let mut sum = Scheduled::default();
        for pid in self.processes() {
            let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for thread in threads.flatten() {
                let read = |file| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
                let (schedstat, status) = (read("schedstat"), read("status"));
                let time = schedstat.split(' ').next().and_then(|n| n.parse::<f64>().ok());
                sum.microseconds += time.unwrap_or(0.0) / 1e3;
                sum.voluntary += field(&status, "voluntary_ctxt_switches:");
                sum.involuntary += field(&status, "nonvoluntary_ctxt_switches:");
            }
        }
        sum
    }

    /// KiB of memory of its processes, shared pages divided among those that
    /// have them, and KiB of their page tables.
    pub fn memory(&self) -> (f64, f64) {
        let read =
            |pid, file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        self.processes().iter().fold((0.0, 0.0), |(pss, tables), pid| {
            let (rollup, status) = (read(pid, "smaps_rollup"), read(pid, "status"));
            (pss + field(&rollup, "Pss:"), tables + field(&status, "VmPTE:"))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.group == 0 {
            return;
        }
        common::kill(-(self.group as i32), libc::SIGKILL);
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(self.group as i32, std::ptr::null_mut(), 0) };
        // A child may have the listening socket until its very end.
        let ended = |&pid: &u32| common::stat(pid).is_none_or(|(state, _)| state == 'Z');
        common::wait_for("its group ends", || self.processes().iter().all(ended));
    }
}

/// The number on the line that begins with `name`, 0 if there is none.
pub fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0)
}

/// The first line of what a command prints, for the record of the machine.
pub fn first_line(command: &str, argument: impl AsRef<OsStr>) -> String {
    let output = Command::new(command).arg(argument).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().into()
}
