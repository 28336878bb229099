//! The servers that are compared: how each is built, started, watched through
//! /proc and, in the end, charged for what it and its children have used.

use crate::{client, common};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// The directory for all that the benchmark makes.
pub fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    fs::create_dir_all(&directory).expect("target/bench");
    directory
}

/// What all others are compared with: `tests/c/floor.c`.
pub const BARE_C: &str = "bare C";
pub const QUIET: &str = "forkline echo -q";
/// The forkline that $FORKLINE_BEFORE names.
pub const BEFORE: &str = "before";

/// How many rounds a server gets.
#[derive(Clone, Copy, PartialEq)]
pub enum Class {
    /// The goals are about these.
    Judged,
    Other,
    /// It takes many times as long.
    Slow,
}

/// A server that can be started any number of times.
pub struct Server {
    pub name: String,
    pub class: Class,
    /// `PORT` stands for the port, in any word, and `SHARE` for the option
    /// with which several can have the same one.
    command: Vec<String>,
    pub rot13: bool,
    /// It tells on stderr when it is ready, as forkline does.
    tells: bool,
    /// The only port it can have.
    port: Option<u16>,
}

type Made = Result<Server, String>;
type Make = fn() -> Made;

/// In the order in which they are measured and shown.
const CONTENDERS: [(&str, Make); 12] = [
    (BARE_C, bare_c),
    (QUIET, || Ok(forkline(&binary(), "-q echo").judged())),
    (BEFORE, || Ok(forkline(&env::var("FORKLINE_BEFORE").unwrap(), "-q echo").judged())),
    ("forkline echo", || Ok(forkline(&binary(), "echo").judged())),
    ("forkline rot13", || Ok(Server { rot13: true, ..forkline(&binary(), "rot13") })),
    ("C", || c(&cc(), "echo")),
    ("C, musl", || c("musl-gcc -static", "echo-musl")),
    ("Go", go),
    ("tokio", tokio),
    ("tcpserver cat", tcpserver),
    ("socat cat", socat),
    ("inetd", inetd),
];

/// Bare C and the servers with one of these words in their names, or all, as
/// far as this machine has them; says which it has not.
pub fn all(words: &[&str]) -> Vec<Server> {
    let before = env::var_os("FORKLINE_BEFORE").is_some();
    let wanted = |name: &str| {
        let named = words.is_empty() || words.iter().any(|word| name.contains(word));
        name == BARE_C || named && (name != BEFORE || before)
    };
    let mut servers = Vec::new();
    for (name, make) in CONTENDERS.into_iter().filter(|contender| wanted(contender.0)) {
        let named = |server| Server { name: name.into(), ..server };
        match make().map(named).and_then(Server::tried) {
            Ok(server) => servers.push(server),
            Err(why) => println!("skipped: {name}: {why}"),
        }
    }
    assert!(servers.first().is_some_and(|server| server.name == BARE_C), "no bare C");
    servers
}

fn server(command: &str) -> Server {
    let mut command: Vec<String> = command.split_whitespace().map(String::from).collect();
    if let Some(program) = which(&command[0]) {
        command[0] = program.to_str().expect("UTF-8 path").into();
    }
    let (name, class) = (String::new(), Class::Other);
    Server { name, class, command, rot13: false, tells: false, port: None }
}

fn binary() -> String {
    common::command_line(&[]).join(" ")
}

fn forkline(binary: &str, service: &str) -> Server {
    server(&format!("{binary} -c 16384 SHARE {service} PORT")).telling()
}

fn bare_c() -> Made {
    let options = "-O2 -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables \
        -fpie -static-pie -nostdlib \
        -Wl,--no-dynamic-linker,--build-id=none,-z,noseparate-code,-z,norelro";
    let program = compile(&cc(), options, "floor", "floor")?;
    Ok(server(&format!("{program} PORT SHARE")).telling().judged())
}

fn cc() -> String {
    env::var("CC").unwrap_or("cc".into())
}

/// The C's echo, which takes its port as an argument.
fn c(compiler: &str, program: &str) -> Made {
    let program = compile(compiler, "-O2", "echo", program)?;
    Ok(server(&format!("{program} PORT")))
}

fn compile(compiler: &str, options: &str, source: &str, program: &str) -> Result<String, String> {
    let program = path(program);
    let source = format!("{}/tests/c/{source}.c", env!("CARGO_MANIFEST_DIR"));
    run(&format!("{compiler} {options} -o {program} {source}"))?;
    Ok(program)
}

fn go() -> Made {
    let program = path("goecho");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/goecho.go");
    run(&format!("go build -o {program} {source}"))?;
    Ok(server(&format!("{program} PORT")).judged())
}

/// With a lock file and a target directory of its own: what tokio needs of other
/// crates must not reach the server.
fn tokio() -> Made {
    let cargo = env::var("CARGO").unwrap_or("cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/tokio/Cargo.toml");
    let target = path("tokio");
    let options = "build --quiet --release --locked --config net.retry=0";
    run(&format!("{cargo} {options} --manifest-path {manifest} --target-dir {target}"))?;
    Ok(server(&format!("{target}/release/tokioecho PORT")))
}

fn tcpserver() -> Made {
    present("tcpserver")?;
    let options = "-H -R -l localhost -b 1024 -c 4096";
    Ok(server(&format!("tcpserver {options} 0.0.0.0 PORT /bin/cat")).slow())
}

fn socat() -> Made {
    present("socat")?;
    let listen = "TCP4-LISTEN:PORT,fork,reuseaddr,backlog=1024";
    Ok(server(&format!("socat {listen} EXEC:/bin/cat")).slow())
}

/// Its own echo, which has a process for each connection.
fn inetd() -> Made {
    present("inetd")?;
    let config = path("inetd.conf");
    fs::write(&config, "127.0.0.1:echo stream tcp nowait.1000000 root internal\n").unwrap();
    let inetd = server(&format!("inetd -i -q 1024 -R 1000000 {config}")).slow();
    Ok(Server { port: Some(7), ..inetd })
}

fn path(name: &str) -> String {
    directory().join(name).to_str().expect("UTF-8 path").into()
}

pub fn present(program: &str) -> Result<(), String> {
    which(program).map(|_| ()).ok_or(format!("no {program} here"))
}

/// As a shell finds it; daemons are where an ordinary user's PATH does not lead.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Runs a compiler; what it says is the reason when it fails.
fn run(command: &str) -> Result<(), String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    present(words[0])?;
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(text.trim().replace('\n', " "));
    }
    Ok(())
}

impl Server {
    fn telling(self) -> Server {
        Server { tells: true, ..self }
    }

    fn judged(self) -> Server {
        Server { class: Class::Judged, ..self }
    }

    fn slow(self) -> Server {
        Server { class: Class::Slow, ..self }
    }

    /// What a client sends and what it gets back.
    pub fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        common::answer(if self.rot13 { "rot13" } else { "echo" }, bytes)
    }

    /// Bytes of the program's file.
    pub fn size(&self) -> u64 {
        fs::metadata(&self.command[0]).expect("the program is there").len()
    }

    /// Several can listen on one port.
    pub fn shares(&self) -> bool {
        self.command.iter().any(|word| word == "SHARE")
    }

    /// A peer may be installed and yet not be able to serve here.
    fn tried(mut self) -> Made {
        let running = self.start().ok_or("it does not start here")?;
        running.end();
        if self.shares() && self.start_shared(free_port(), 0).is_none() {
            println!("skipped: {}, pinned: it cannot share a port", self.name);
            self.command.retain(|word| word != "SHARE");
        }
        Ok(self)
    }

    /// Starts it and returns when it accepts connections; nothing if it does
    /// not within seconds.
    pub fn start(&self) -> Option<Running> {
        self.start_under(&[])
    }

    /// The same as the argument of another program, a tracer.
    pub fn start_under(&self, tracer: &[&str]) -> Option<Running> {
        let mut running = self.launch(tracer, self.port.unwrap_or_else(free_port), None)?;
        if !tracer.is_empty() {
            running.pid = common::children_of(running.pid)[0];
            running.at_rest = 2;
        }
        Some(running)
    }

    /// One of several on the same port, kept on one processor.
    pub fn start_shared(&self, port: u16, processor: usize) -> Option<Running> {
        self.launch(&[], port, Some(processor))
    }

    #[expect(clippy::zombie_processes, reason = "`Running` waits, by wait4")]
    fn launch(&self, tracer: &[&str], port: u16, processor: Option<usize>) -> Option<Running> {
        let words = self.command.iter().filter(|word| *word != "SHARE" || processor.is_some());
        let words =
            words.map(|word| word.replace("PORT", &port.to_string()).replace("SHARE", "-r"));
        let words: Vec<String> = tracer.iter().map(|&word| word.into()).chain(words).collect();
        let mut command = Command::new(&words[0]);
        // Without cargo's LD_LIBRARY_PATH, which every exec would search; but inetd
        // dies of an empty environment.
        command
            .args(&words[1..])
            .env_clear()
            .env("LANG", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.stderr(if self.tells { Stdio::piped() } else { Stdio::null() });
        common::before_exec(command.process_group(0), move || {
            // SAFETY: no pointers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            processor.into_iter().for_each(client::stay_on);
        });
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", words[0]));
        let stderr = child.stderr.take().map(BufReader::new);
        let pid = child.id();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut running = Running { address, pid, group: pid, at_rest: 1, stderr };
        running.wait_until_ready().then_some(running)
    }
}

/// Below the range that the kernel takes clients' ports from, so that no old
/// connection can be in the way.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10000..32768);
        if TcpListener::bind(("::", port)).is_ok() && TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// A server that accepts connections. Dropping it kills all its group.
pub struct Running {
    pub address: SocketAddrV4,
    pub pid: u32,
    group: u32,
    /// How many processes it is without a client.
    at_rest: usize,
    stderr: Option<BufReader<ChildStderr>>,
}

/// What a server and the children that it has waited for have used (getrusage(2)).
/// The kernel splits the time into user and system by ticks; the sum, which alone
/// is used, it has in nanoseconds.
pub struct Usage {
    pub microseconds: f64,
    pub faults: f64,
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
        }
    }

    /// Shows what it wrote after its first line: of its end only, if all is well.
    fn complaints(&mut self) {
        let mut text = String::new();
        if let Some(mut stderr) = self.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        let told = text.lines().filter(|line| !line.starts_with("forkline: drain"));
        told.for_each(|line| eprintln!("{line}"));
    }

    /// It and all that it has started, which have stayed in its process group.
    fn processes(&self) -> Vec<u32> {
        common::members_of(self.group)
    }

    /// Microseconds on a processor of its processes so far, those that have
    /// ended left out (proc(5): schedstat has nanoseconds).
    pub fn microseconds(&self) -> f64 {
        self.processes().into_iter().map(microseconds_of).sum()
    }

    /// The same of the process that accepts connections, with all its threads.
    pub fn parent_microseconds(&self) -> f64 {
        microseconds_of(self.pid)
    }

    /// KiB of its processes: page tables, pages that one alone has, and PSS, in
    /// which shared pages are divided among those that have them.
    pub fn memory(&self) -> [f64; 3] {
        let read =
            |pid, file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        self.processes().iter().fold([0.0; 3], |[tables, own, pss], pid| {
            let (rollup, status) = (read(pid, "smaps_rollup"), read(pid, "status"));
            let private = field(&rollup, "Private_Clean:") + field(&rollup, "Private_Dirty:");
            [tables + field(&status, "VmPTE:"), own + private, pss + field(&rollup, "Pss:")]
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

/// Microseconds on a processor of all threads of a process.
fn microseconds_of(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let schedstat = threads.map(|thread| fs::read_to_string(thread.path().join("schedstat")));
    schedstat.map(|text| field(&text.unwrap_or_default(), "") / 1e3).sum()
}

/// The number on the line that begins with `name`, 0 if there is none.
pub fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0)
}
