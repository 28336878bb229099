//! `make test-kernels`: the tests that need a real kernel (guest.rs), in kernels of Debian
//! that are booted in a virtual machine, with pages of 4, 16 and 64 KiB.
//!
//! The kernels come from the archive that this machine's apt is set up with, through a
//! private list of sources in target/kernels, and are kept there. Nothing is installed.

#[path = "../common/mod.rs"]
mod common;
mod debian;
mod machine;

use common::*;
use debian::{Archive, Package, unpack};
use machine::Arch::{self, Amd64, Arm64};
use machine::Programs;
use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that a guest may take.
const LONGEST: Duration = Duration::from_secs(600);

/// What the server says on the console, in `guest::the_console_takes_messages`.
const CONSOLE_LINE: &str = "forkline: echo listening on [::]:50005";

/// A kernel, and how it is had.
struct Kernel {
    name: &'static str,
    arch: Arch,
    /// KiB of a page.
    page: u32,
    from: From,
    /// Part of `make test-kernels` as it is, and so of CI.
    usual: bool,
}

enum From {
    /// The newest version that this package has in these suites.
    Package(&'static str, &'static [&'static str]),
    /// The same with pages of 64 KiB, which no package has: built from Debian's source.
    Source,
    /// A program of this machine.
    UserMode,
}

const OLD: &[&str] = &["bullseye-security", "bullseye"];
const STABLE: &[&str] = &["bookworm-security", "bookworm"];
const BACKPORTS: &[&str] = &["bookworm-backports"];
const NEWEST: &[&str] = &["trixie-backports", "sid"];

#[rustfmt::skip]
const KERNELS: &[Kernel] = &[
    Kernel { name: "arm64-6.1", arch: Arm64, page: 4, usual: true,
        from: From::Package("linux-image-cloud-arm64", STABLE) },
    Kernel { name: "arm64-16k", arch: Arm64, page: 16, usual: true,
        from: From::Package("linux-image-arm64-16k", BACKPORTS) },
    Kernel { name: "arm64-64k", arch: Arm64, page: 64, usual: false, from: From::Source },
    Kernel { name: "arm64-5.10", arch: Arm64, page: 4, usual: false,
        from: From::Package("linux-image-cloud-arm64", OLD) },
    Kernel { name: "arm64-newest", arch: Arm64, page: 4, usual: false,
        from: From::Package("linux-image-cloud-arm64", NEWEST) },
    Kernel { name: "amd64-5.10", arch: Amd64, page: 4, usual: false,
        from: From::Package("linux-image-cloud-amd64", OLD) },
    Kernel { name: "amd64-newest", arch: Amd64, page: 4, usual: false,
        from: From::Package("linux-image-cloud-amd64", NEWEST) },
    Kernel { name: "amd64-user-mode", arch: Amd64, page: 4, usual: false, from: From::UserMode },
];

/// Tests that take long in an emulator, and tell nothing there that they do not tell here.
const SKIPPED: &[&str] = &[
    "twenty_thousand",
    "every_signal_to_a_child",
    "conversations_under_stops",
    "signals_that_come_together",
    "a_signal_to_a_child_disturbs",
    "children_that_end_together",
    // They want the C, and so a compiler; or a control group.
    "through_a_pipe_the_c_loses",
    "reports_are_those_of_the_c",
    "without_memory_only",
];

/// Tools that a guest has not. Another reason to skip a test is a failure.
const ABSENT: &[&str] = &["strace", "ss", "systemd-socket-activate", "bash", "setpriv"];

fn main() {
    let wanted: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |kernel: &&Kernel| match &wanted[..] {
        [] => kernel.usual,
        [all] if all == "all" => true,
        names => names.iter().any(|name| name == kernel.name),
    };
    let kernels: Vec<&Kernel> = KERNELS.iter().filter(is_wanted).collect();
    if kernels.len() < wanted.len() || kernels.is_empty() {
        let names: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
        eprintln!("KERNELS are: all, or some of {}", names.join(" "));
        exit(2);
    }
    let mut suites = vec![STABLE];
    suites.extend(kernels.iter().filter_map(|kernel| match kernel.from {
        From::Package(_, suites) => Some(suites),
        _ => None,
    }));
    let mut suites = suites.concat();
    suites.sort_unstable();
    suites.dedup();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("kernels");
    // They are compiled while apt downloads.
    for arch in kernels.iter().map(|kernel| kernel.arch) {
        thread::spawn(move || machine::programs(arch));
    }
    let mut failed = false;
    let mut arches: Vec<&str> = kernels.iter().map(|kernel| kernel.arch.name()).collect();
    arches.sort_unstable();
    arches.dedup();
    match Archive::open(&root, &suites, &arches.join(",")) {
        Err(why) => failed |= skip("all", &why),
        // Two at a time: as many as CI has processors.
        Ok(archive) => {
            let mut machines = Vec::new();
            for kernel in kernels {
                match prepare(kernel, &archive, &root) {
                    Ok(machine) => machines.push(machine),
                    Err(why) => failed |= skip(kernel.name, &why),
                }
            }
            for pair in machines.chunks(2) {
                thread::scope(|scope| {
                    let runs: Vec<_> = pair.iter().map(|run| scope.spawn(|| run.tests())).collect();
                    failed |= !runs.into_iter().all(|run| run.join().is_ok_and(|passed| passed));
                });
            }
            failed |= !machines.iter().all(Machine::first_answer);
        }
    }
    exit(failed.into());
}

/// Says what cannot be had; a failure where nothing may be skipped.
fn skip(kernel: &str, why: &str) -> bool {
    println!("skipped: {kernel}: {why}");
    env::var("FORKLINE_TEST_ALL").as_deref() == Ok("1")
}

/// While one develops: the tests that are wanted, in the words of a test program.
fn chosen() -> String {
    env::var("FORKLINE_KERNEL_TESTS").unwrap_or_default()
}

/// All that a kernel's run needs.
struct Machine<'a> {
    kernel: &'a Kernel,
    programs: Programs,
    image: PathBuf,
    initramfs: PathBuf,
}

fn prepare<'a>(kernel: &'a Kernel, archive: &Archive, root: &Path) -> Result<Machine<'a>, String> {
    let image = root.join(kernel.name);
    match kernel.from {
        From::Package(name, suites) => {
            let package = Package { name, arch: kernel.arch.name(), suites };
            unpack(&archive.download(&package)?, "*/vmlinuz*", &image)?;
        }
        From::UserMode => {
            let package = Package { name: "user-mode-linux", arch: "amd64", suites: STABLE };
            unpack(&archive.download(&package)?, "./usr/bin/linux.uml", &image)?;
            fs::set_permissions(&image, PermissionsExt::from_mode(0o755)).expect("its mode");
        }
        From::Source => from_source(archive, root, &image)?,
    }
    let programs = machine::programs(kernel.arch)?;
    let skipped: Vec<String> = SKIPPED.iter().map(|name| format!("--skip {name}")).collect();
    let only = chosen();
    let initramfs = root.join(format!("{}.initramfs", kernel.name));
    let arguments = format!("{} {only}", skipped.join(" "));
    machine::initramfs(kernel.arch, &programs, &arguments, archive, &initramfs)?;
    Ok(Machine { kernel, programs, image, initramfs })
}

/// Builds a kernel from Debian's source, in some minutes, unless it is here.
fn from_source(archive: &Archive, root: &Path, image: &Path) -> Result<(), String> {
    let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/64k.config");
    let built = |file: &Path| fs::metadata(file).and_then(|file| file.modified()).ok();
    if built(image) > built(&configuration) {
        return Ok(());
    }
    let package = Package { name: "linux-source-6.1", arch: "all", suites: STABLE };
    let (package, packed) = (archive.download(&package)?, root.join("linux.tar.xz"));
    unpack(&package, "./usr/src/linux-source-*.tar.xz", &packed)?;
    let source = root.join("linux");
    fs::create_dir_all(&source).map_err(|error| error.to_string())?;
    succeeds(
        Command::new("tar")
            .arg("-C")
            .arg(&source)
            .args(["--strip-components=1", "-xf"])
            .arg(packed),
    );
    let mut make = Command::new("sh");
    let make_all = "make -s allnoconfig && make -s -j$(nproc) Image";
    make.args(["-c", make_all]).current_dir(&source).env("ARCH", "arm64");
    let cc = machine::Arch::Arm64.cc();
    make.env("CROSS_COMPILE", cc.strip_suffix("gcc").unwrap_or_default());
    let status = make.env("KCONFIG_ALLCONFIG", configuration).status();
    if !status.is_ok_and(|status| status.success()) {
        return Err("the kernel does not build: has make said why?".into());
    }
    fs::copy(source.join("arch/arm64/boot/Image"), image).map_err(|error| error.to_string())?;
    Ok(())
}

impl Machine<'_> {
    /// Runs the tests and prints a line of them; what the guest says if one fails.
    fn tests(&self) -> bool {
        let Kernel { name, arch, page, .. } = self.kernel;
        let begin = Instant::now();
        let log = match self.console(machine::has_kvm(*arch)) {
            // There is a KVM that is of no use, as in some virtual machines.
            Ok(log) if machine::has_kvm(*arch) && !log.contains(" KiB") => self.console(false),
            log => log,
        };
        let log = match log {
            Ok(log) => log,
            Err(why) => return !skip(name, &why),
        };
        let line = |start: &str| {
            let found = log.lines().find_map(|line| line.split_once(start));
            found.map_or("", |(_, rest)| rest)
        };
        let (kernel, result) = (line("kernel "), line("test result: "));
        let count = |what: &str| {
            let mut parts = result.split("; ").filter_map(|part| part.strip_suffix(what));
            parts.next().and_then(|part| part.rsplit(' ').next()?.parse::<usize>().ok())
        };
        let (passed, failed) = (count(" passed").unwrap_or(0), count(" failed").unwrap_or(0));
        let skipped: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split_once("skipped: "))
            .map(|line| line.1)
            .collect();
        println!(
            "{name}: {kernel} pages, {passed} tests, {failed} failed, {} skipped, {:.0} s",
            skipped.len(),
            begin.elapsed().as_secs_f64()
        );
        let mut faults = Vec::new();
        let is_absent =
            |line: &&&str| !ABSENT.iter().any(|tool| line.ends_with(&format!(": no {tool} here")));
        faults.extend(skipped.iter().filter(is_absent).map(|line| format!("skipped: {line}")));
        if !kernel.ends_with(&format!(", {page} KiB")) {
            faults.push(format!("it has no pages of {page} KiB"));
        }
        if passed == 0 || line("status ") != "0" {
            faults.push("a test failed".into());
        }
        if chosen().is_empty() && !log.contains(CONSOLE_LINE) {
            faults.push(format!("the console has not shown {CONSOLE_LINE:?}"));
        }
        if !faults.is_empty() {
            println!("{log}\n{name}: {}", faults.join("\n"));
        }
        faults.is_empty()
    }

    /// What the guest says until it ends. It can be watched: target/kernels/NAME.log.
    fn console(&self, kvm: bool) -> Result<String, String> {
        let mut command = match self.kernel.from {
            From::UserMode => machine::user_mode(&self.image, &self.initramfs),
            _ => machine::emulator(self.kernel.arch, kvm, &self.image, &self.initramfs, "", "none"),
        };
        let path = self.image.with_file_name(format!("{}.log", self.kernel.name));
        let file = File::create(&path).expect("a log");
        command.stderr(file.try_clone().expect("a log")).stdout(file);
        let guest = command.spawn();
        let mut guest = guest.map_err(|error| format!("{:?}: {error}", command.get_program()))?;
        if !within(LONGEST, || guest.try_wait().is_ok_and(|ended| ended.is_some())) {
            println!("{}: no end after {LONGEST:?}", self.kernel.name);
        }
        let _ = guest.kill();
        let _ = guest.wait();
        Ok(text(&fs::read(&path).expect("a log")).replace('\r', ""))
    }

    /// A machine whose only file is the server: how long from power-on to the first
    /// answer? And without a server there is no machine: the kernel panics. Only a kernel
    /// that has a network card built in can show it.
    fn first_answer(&self) -> bool {
        let From::Source = self.kernel.from else { return true };
        let name = self.kernel.name;
        let only = self.image.with_extension("only");
        let directory = self.programs.server.parent().expect("a directory");
        machine::pack(directory, "echo forkline", &only).expect("one file");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.expect("a free port").port();
        let start = |arguments: &str| {
            let network = format!("user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:7007");
            let parameters = format!("ip=dhcp rdinit=/forkline -- {arguments}");
            let (arch, image) = (self.kernel.arch, &self.image);
            machine::emulator(arch, false, image, &only, &parameters, &network)
                .spawn()
                .expect("a machine")
        };
        let begin = Instant::now();
        let mut machine = start("-q echo 7007");
        let answers = || {
            let stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some_and(|mut stream| {
                let mut answer = [0; LINE.len()];
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                let answered = stream.write_all(LINE).and_then(|()| stream.read_exact(&mut answer));
                answered.is_ok() && answer == LINE
            })
        };
        let answered = within(LONGEST, answers);
        let seconds = begin.elapsed().as_secs_f64();
        println!("{name}: {seconds:.1} s from power-on to the first answer, with one file");
        let _ = machine.kill();
        let _ = machine.wait();
        let mut machine = start("no-service");
        let log = Collected::from(machine.stdout.take());
        let ended = within(LONGEST, || log.ended());
        let _ = machine.kill();
        let _ = machine.wait();
        let panicked = ended && log.text().contains("Attempted to kill init! exitcode=0x00000200");
        if !panicked {
            println!("{}\n{name}: no panic when the server ends", log.text());
        }
        answered && panicked
    }
}
