//! Where a C runs that nobody has read yet: with limits, as a user of its own if we
//! are root, and so that all that it starts ends with it.
//!
//! A child of ours waits for another, which is process 1 of a pid namespace. That one
//! starts the program, reaps the orphans, and tells how the program has ended. Where
//! a namespace is not permitted, it gets the orphans as their subreaper.

use crate::common::{Collected, kill, state, within};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const MEMORY: u64 = 1 << 30;
const CPU_SECONDS: u64 = 20;
const FILE_SIZE: u64 = 16 << 20;
/// For a user of its own, and for one who has other processes.
const PROCESSES: [u64; 2] = [400, 4000];
/// More than these, at one moment or in all, no lesson asks for; and more than some
/// nobody needs who does not listen.
const SOME: usize = 60;
const MANY: usize = 300;
const MANY_FORKS: u32 = 2000;
/// The first of the users that the programs run as. Nobody has such a number.
const FIRST_USER: u32 = 1_900_000_000;
const USERS: u32 = 4096;

/// Who a C runs as: another for each start, so that only its own processes count.
pub fn new_user() -> Option<u32> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // SAFETY: it cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    root.then(|| first_user() + NEXT.fetch_add(1, Ordering::Relaxed) % USERS)
}

/// Another run at the same time has others.
fn first_user() -> u32 {
    FIRST_USER + std::process::id() % 50_000 * USERS
}

/// What users of ours have left where everybody may write, and the room of a run that
/// was killed.
#[allow(dead_code)] // the tests leave none
pub fn remove_left_files() {
    use std::os::unix::fs::MetadataExt;
    let users = first_user()..first_user() + USERS;
    for directory in ["/tmp", "/var/tmp", "/dev/shm"] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_theirs = entry.metadata().is_ok_and(|file| users.contains(&file.uid()));
            if is_theirs || is_abandoned(&entry.file_name().to_string_lossy()) {
                let path = entry.path();
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            }
        }
    }
}

/// Whether it is the name of a room whose process is no more.
fn is_abandoned(name: &str) -> bool {
    let process = name.strip_prefix(ROOM).and_then(|rest| rest.split('-').next());
    process.is_some_and(|pid| pid.parse().is_ok_and(|pid| state(pid) == '-'))
}

/// Lets a process that is not root make namespaces, if that is permitted. It must
/// have no second thread yet (user_namespaces(7)).
#[allow(dead_code)] // the tests have more than one thread
pub fn permit_namespaces() {
    // SAFETY: no pointers, and it cannot fail.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: no pointers.
    if user == 0 || unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        return;
    }
    let _ = fs::write("/proc/self/setgroups", "deny");
    let _ = fs::write("/proc/self/uid_map", format!("{user} {user} 1"));
    let _ = fs::write("/proc/self/gid_map", format!("{group} {group} 1"));
}

// ---------------------------------------------------------------- inside

/// How the program has ended, and what it has used with the children that it has
/// waited for.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ended {
    status: i32,
    usage: libc::rusage,
}

/// Runs in the child of ours. Returns in the process that becomes the program.
/// SAFETY: only calls that are async-signal-safe.
unsafe fn enter(limited: bool, user: Option<u32>, tell: RawFd) -> io::Result<()> {
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::unshare(libc::CLONE_NEWIPC);
        libc::unshare(libc::CLONE_NEWPID);
        let first = fork()?;
        if first != 0 {
            libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
            libc::waitpid(first, std::ptr::null_mut(), 0);
            libc::_exit(0);
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        let program = fork()?;
        if program != 0 {
            reap(program, tell);
        }
        libc::setpgid(0, 0);
        if limited {
            limit(user)?;
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // strace may attach.
        libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY);
    }
    Ok(())
}

unsafe fn fork() -> io::Result<i32> {
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// Reaps until there is nobody left, and tells how this one has ended.
unsafe fn reap(program: i32, tell: RawFd) -> ! {
    unsafe {
        libc::dup2(tell, 0);
        libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
        let mut ended: Ended = std::mem::zeroed();
        loop {
            match libc::wait4(-1, &mut ended.status, 0, &mut ended.usage) {
                -1 => libc::_exit(0),
                pid if pid == program => {
                    libc::write(0, (&raw const ended).cast(), size_of::<Ended>());
                }
                _ => {}
            }
        }
    }
}

/// setrlimit(2), and the first to go when memory runs out (proc(5)).
unsafe fn limit(user: Option<u32>) -> io::Result<()> {
    let result = |value: i32| if value < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    let [own, shared] = PROCESSES;
    let limits = [
        (libc::RLIMIT_AS, MEMORY),
        (libc::RLIMIT_CPU, CPU_SECONDS),
        (libc::RLIMIT_FSIZE, FILE_SIZE),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_NPROC, if user.is_some() { own } else { shared }),
    ];
    unsafe {
        for (resource, most) in limits {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            result(libc::setrlimit(resource, &limit))?;
        }
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
        libc::write(score, c"1000".as_ptr().cast(), 4);
        libc::close(score);
        if let Some(user) = user {
            result(libc::setgroups(0, std::ptr::null()))?;
            result(libc::setgid(user))?;
            result(libc::setuid(user))?;
        }
        result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}

// ---------------------------------------------------------------- outside

/// A program and all that it starts. Dropping it ends them all.
pub struct Jail {
    /// It waits for process 1 of the namespace.
    pub child: Child,
    told: Collected,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    stopped: AtomicBool,
    storm: AtomicBool,
    /// Somebody still listened when it came.
    listened: AtomicBool,
}

impl Jail {
    /// Starts the command. It lasts no longer than the thread that calls this.
    pub fn start(command: &mut Command, limited: bool, user: Option<u32>) -> io::Result<Jail> {
        let (reader, writer) = pipe()?;
        let tell = writer.as_raw_fd();
        // SAFETY: it makes only calls that are async-signal-safe.
        unsafe { command.process_group(0).pre_exec(move || enter(limited, user, tell)) };
        let child = command.spawn()?;
        drop(writer);
        let watch = Arc::new(Watch::default());
        if limited {
            watch_for_storm(child.id(), watch.clone());
        }
        Ok(Jail { child, told: Collected::from(Some(reader)), watch })
    }

    /// All its processes, each before its children, zombies too.
    pub fn processes(&self) -> Vec<u32> {
        first_process(self.child.id()).map_or(vec![], descendants)
    }

    /// The status of the program itself, once it has ended.
    pub fn status(&self) -> Option<ExitStatus> {
        self.ended().map(|ended| ExitStatus::from_raw(ended.status))
    }

    pub fn usage(&self) -> Option<libc::rusage> {
        self.ended().map(|ended| ended.usage)
    }

    fn ended(&self) -> Option<Ended> {
        let bytes = self.told.bytes();
        // SAFETY: these are the bytes of one, and any bytes are one.
        (bytes.len() >= size_of::<Ended>())
            .then(|| unsafe { bytes.as_ptr().cast::<Ended>().read_unaligned() })
    }

    /// Nobody is left.
    pub fn is_empty(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// It forks without end, in words, if it does. It was ended then.
    pub fn storm(&self) -> Option<&'static str> {
        let watch = &self.watch;
        match watch.storm.load(Ordering::Acquire) {
            false => None,
            true if watch.listened.load(Ordering::Acquire) => Some(STORMS[0]),
            true => Some(STORMS[1]),
        }
    }

    /// Ends all.
    pub fn end(&mut self) {
        self.watch.stopped.store(true, Ordering::Release);
        if !self.is_empty() {
            end_all(self.child.id());
            let _ = self.child.wait();
        }
    }
}

/// What a fork without end is called: somebody listens, or nobody does.
pub const STORMS: [&str; 2] =
    ["it forks without end", "it forks without end when accept fails: nobody listens"];

impl Drop for Jail {
    fn drop(&mut self) {
        self.end();
    }
}

fn pipe() -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: the kernel fills in two descriptors, which are ours then.
    unsafe {
        match libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) {
            0 => Ok((File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1]))),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn watch_for_storm(child: u32, watch: Arc<Watch>) {
    thread::spawn(move || {
        while !watch.stopped.load(Ordering::Acquire) && state(child) != 'Z' {
            let all = first_process(child).map_or(vec![], descendants);
            let forks = all.iter().filter_map(|&pid| namespace_pid(pid)).max().unwrap_or(0);
            let listens = || all.iter().take(3).any(|&pid| super::program::listens(pid));
            let some = all.len() > SOME || forks > SOME as u32;
            let many = all.len() > MANY || forks > MANY_FORKS;
            if many || some && !listens() {
                watch.listened.store(listens(), Ordering::Release);
                watch.storm.store(true, Ordering::Release);
                return end_all(child);
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
}

/// The process that reaps the orphans.
fn first_process(child: u32) -> Option<u32> {
    children(child).first().copied()
}

/// Kills all. Those of a namespace end with its process 1; else it is done again
/// until there is none.
fn end_all(child: u32) {
    let Some(first) = first_process(child) else { return kill(child as i32, libc::SIGKILL) };
    if namespace_pid(first) != Some(1) {
        within(Duration::from_secs(5), || {
            let left = descendants(first);
            left.iter().for_each(|&pid| kill(pid as i32, libc::SIGKILL));
            left.is_empty()
        });
    }
    kill(first as i32, libc::SIGKILL);
}

/// The number of a process in its own namespace, if it has one (proc(5), NSpid).
pub fn namespace_pid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().next_back()?.parse().ok()
}

/// The children of a process, zombies too, from one file: cheap, though it may
/// miss some while others end (proc(5)).
pub fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut all = children(pid);
    let mut next = 0;
    while next < all.len() && all.len() < 4 * MANY {
        all.extend(children(all[next]));
        next += 1;
    }
    all
}

// ---------------------------------------------------------------- files

/// How the name of a room begins, before the process and a number.
const ROOM: &str = "forkline-compare-";

/// A directory for a program and what it writes, where its user may come. It is
/// removed in the end.
pub struct Room(PathBuf);

impl Room {
    pub fn new(beside: &Path) -> Room {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // A user of its own may not come below our home.
        let parent = if new_user().is_some() { std::env::temp_dir() } else { beside.into() };
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{ROOM}{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory for the program");
        open_to_all(&path);
        Room(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whatever the mask of this process is.
pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o755));
}

/// A new directory that belongs to this user.
pub fn directory_of(user: Option<u32>, path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    open_to_all(path);
    user.map_or(Ok(()), |user| std::os::unix::fs::chown(path, Some(user), Some(user)))
}
