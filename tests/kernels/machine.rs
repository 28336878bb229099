//! The guest: the programs in it, its first file system, and the virtual machine.

use crate::common::*;
use crate::debian::{Archive, Package, unpack};
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

#[derive(Clone, Copy, PartialEq)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// In Debian's words.
    pub fn name(self) -> &'static str {
        if self == Arch::Amd64 { "amd64" } else { "arm64" }
    }

    /// In Rust's.
    fn target(self) -> &'static str {
        if self == Arch::Amd64 { "x86_64-unknown-linux-gnu" } else { "aarch64-unknown-linux-gnu" }
    }

    fn is_ours(self) -> bool {
        self.target().starts_with(env::consts::ARCH)
    }

    /// A C compiler, which knows where its libraries are.
    pub fn cc(self) -> String {
        let (variable, default) = if self.is_ours() { ("CC", "cc") } else { ("ARM_CC", "") };
        let default = if default.is_empty() { "aarch64-linux-gnu-gcc" } else { default };
        env::var(variable).unwrap_or(default.into())
    }
}

/// The server and the tests (guest.rs) of an architecture.
#[derive(Clone)]
pub struct Programs {
    pub server: PathBuf,
    guest: PathBuf,
}

/// Builds them, once, and waits if somebody else does.
pub fn programs(arch: Arch) -> Result<Programs, String> {
    static BUILT: [OnceLock<Result<Programs, String>>; 2] = [const { OnceLock::new() }; 2];
    BUILT[arch as usize].get_or_init(|| build(arch)).clone()
}

fn build(arch: Arch) -> Result<Programs, String> {
    let mut cargo = Command::new(env::var("CARGO").unwrap_or("cargo".into()));
    cargo.args(["test", "--release", "--locked", "--no-run", "--test", "guest"]);
    cargo.args(["--message-format", "json", "--target", arch.target()]);
    if !arch.is_ours() {
        cargo.env("RUSTC", env::var("ARM_RUSTC").unwrap_or("rustc".into()));
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", arch.cc());
    }
    let output = run_tool(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    let (mut server, mut guest) = (None, None);
    for line in text(&output.stdout).lines() {
        let artifact: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(path) = artifact["executable"].as_str() {
            match artifact["target"]["name"].as_str() {
                Some("guest") => guest = Some(path.into()),
                _ => server = Some(path.into()),
            }
        }
    }
    Ok(Programs { server: server.ok_or("no server")?, guest: guest.ok_or("no guest")? })
}

/// Makes the file system that a kernel starts with: busybox, the libraries of the tests,
/// the server where the tests look for it, the tests, and `init.sh`.
pub fn initramfs(
    arch: Arch,
    programs: &Programs,
    arguments: &str,
    archive: &Archive,
    to: &Path,
) -> Result<(), String> {
    let root = scratch("initramfs");
    let put = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).expect("its mode");
    };
    for directory in ["bin", "lib", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(directory)).expect("a directory");
    }
    let suites = &["bookworm-security", "bookworm"];
    let busybox = Package { name: "busybox-static", arch: arch.name(), suites };
    let busybox = archive.download(&busybox)?;
    unpack(&busybox, "./bin/busybox", &root.join("bin/busybox"))?;
    fs::set_permissions(root.join("bin/busybox"), PermissionsExt::from_mode(0o755)).expect("mode");
    symlink("busybox", root.join("bin/sh")).expect("a shell");
    let loader = match arch {
        Arch::Amd64 => "lib64/ld-linux-x86-64.so.2",
        Arch::Arm64 => "lib/ld-linux-aarch64.so.1",
    };
    for to in [loader, "lib/libc.so.6", "lib/libgcc_s.so.1"] {
        let name = to.rsplit('/').next().unwrap_or(to);
        let option = format!("-print-file-name={name}");
        put(Path::new(succeeds(Command::new(arch.cc()).arg(option)).trim()), to);
    }
    let server = programs.server.to_str().expect("a path");
    put(&programs.server, server);
    put(&programs.guest, "guest");
    // Files of the tests (CARGO_TARGET_TMPDIR).
    for directory in programs.server.ancestors().skip(2).take(2) {
        let directory = directory.join("tmp");
        fs::create_dir_all(root.join(directory.strip_prefix("/").expect("absolute"))).expect("tmp");
    }
    put(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/init.sh"), "init");
    fs::write(root.join("arguments"), arguments).expect("the arguments");
    pack(&root, "find .", to)
}

/// Packs the files that a command lists, as the kernel wants them: `cpio -H newc`.
pub fn pack(directory: &Path, list: &str, to: &Path) -> Result<(), String> {
    let script = format!("{list} | cpio -o -H newc --quiet | gzip -1");
    let mut sh = Command::new("sh");
    let file = File::create(to).map_err(|error| error.to_string())?;
    let status = sh.args(["-c", &script]).current_dir(directory).stdout(file).status();
    let packed = status.is_ok_and(|status| status.success());
    if packed { Ok(()) } else { Err("cpio or gzip failed".into()) }
}

/// Whether this machine's processors may run a guest.
pub fn has_kvm(arch: Arch) -> bool {
    arch.is_ours() && File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// A virtual machine with this kernel and this first file system, its console on standard
/// output. It ends when the kernel does, also after a panic.
pub fn emulator(
    arch: Arch,
    kvm: bool,
    kernel: &Path,
    initramfs: &Path,
    parameters: &str,
    network: &str,
) -> Command {
    let (program, machine, cpu, console) = match arch {
        Arch::Amd64 => ("qemu-system-x86_64", "q35", "max", "ttyS0"),
        // A processor that has pages of 4, 16 and 64 KiB.
        Arch::Arm64 => ("qemu-system-aarch64", "virt,gic-version=max", "neoverse-n1", "ttyAMA0"),
    };
    let accel = if kvm { "kvm" } else { "tcg,thread=multi" };
    let mut command = Command::new(program);
    command.args(["-machine", machine, "-accel", accel, "-cpu", if kvm { "host" } else { cpu }]);
    command.args(["-smp", "2", "-m", "1024", "-display", "none", "-monitor", "none"]);
    command.args(["-serial", "stdio", "-no-reboot", "-nic", network]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    command.args(["-append", &format!("console={console} quiet panic=-1 {parameters}")]);
    piped(&mut command);
    command
}

/// The same for the kernel that is a program.
pub fn user_mode(kernel: &Path, initramfs: &Path) -> Command {
    let mut command = Command::new(kernel);
    command.arg(format!("initrd={}", initramfs.display()));
    command.args(["mem=1024M", "con=null", "con0=null,fd:1", "quiet", "panic=-1"]);
    piped(&mut command);
    command
}
