//! The Debian packages: what lintian says of them, and what one does to a clean
//! Debian.

use crate::common::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// Debian's version: one of development comes before the release.
pub fn debian_version() -> String {
    format!("{}-1", env!("CARGO_PKG_VERSION").replace('-', "~"))
}

/// Makes the package of `binary` for Debian's `arch` below `directory`.
fn package(arch: &str, binary: &str, directory: &Path, umask: &str) -> PathBuf {
    fs::create_dir_all(directory).expect("directory");
    let script = format!("umask {umask} && sh deploy/debian/build.sh \"$@\"");
    let mut build = Command::new("sh");
    build.args(["-c", &script, "sh", arch, binary]).arg(directory);
    succeeds(&mut build);
    directory.join(format!("forkline_{}_{arch}.deb", debian_version()))
}

fn amd64(directory: &Path) -> PathBuf {
    package("amd64", env!("CARGO_BIN_EXE_forkline"), directory, "022")
}

#[test]
fn a_package_has_the_same_bytes_every_time() {
    if emulated() || !tool("dpkg-deb") {
        return;
    }
    let binary = env!("CARGO_BIN_EXE_forkline");
    let (first, second) = (scratch("package"), scratch("package-in-a-longer-path"));
    let made = package("amd64", binary, &first, "022");
    // The second is made at another time, which files have in whole seconds there.
    let begin = SystemTime::now();
    wait_for("a second is over", || begin.elapsed().is_ok_and(|time| time.as_secs() > 0));
    let again = package("amd64", binary, &second, "077");
    let [made, again] = [made, again].map(|package| fs::read(package).expect("package"));
    assert!(made == again, "they differ");
}

/// Nothing is left to say, not even for pedants. The overrides have their reasons
/// in deploy/debian/lintian-overrides.
#[test]
fn lintian_finds_no_fault_with_a_package() {
    if emulated() || !tool("dpkg-deb") || !tool("lintian") {
        return;
    }
    let directory = scratch("lintian");
    lintian_is_silent(&amd64(&directory));
}

fn lintian_is_silent(package: &Path) {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--display-info", "--pedantic", "--fail-on=error,warning"]);
    let output = run_tool(lintian.arg(package));
    let said = text(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_package_for_arm_has_the_file_for_arm() {
    if emulated() {
        return;
    }
    const COMPILER: &str = "aarch64-linux-gnu-gcc";
    if !tool("dpkg-deb") || !tool("lintian") || !tool(COMPILER) {
        return;
    }
    let mut make = Command::new("make");
    let output = make.args(["-s", "aarch64"]).output().expect("make");
    if !output.status.success() {
        return skipped(text(&output.stderr).trim());
    }
    let directory = scratch("arm");
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or("target".into());
    let binary = format!("{target}/aarch64-unknown-linux-gnu/release/forkline");
    let package = package("arm64", &binary, &directory, "022");
    lintian_is_silent(&package);
    let fields = ["Package", "Version", "Architecture", "Depends"];
    let fields = succeeds(Command::new("dpkg-deb").arg("-f").arg(&package).args(fields));
    let version = debian_version();
    let expected = format!("Package: forkline\nVersion: {version}\nArchitecture: arm64\n");
    assert_eq!(fields, expected);
    succeeds(Command::new("dpkg-deb").arg("-x").args([&package, &directory.join("root")]));
    let installed = fs::read(directory.join("root/usr/bin/forkline")).expect("installed");
    assert!(installed == fs::read(&binary).expect("binary"), "they differ");
    const EM_AARCH64: [u8; 2] = 183u16.to_le_bytes();
    assert_eq!(installed[18..20], EM_AARCH64);
}

/// Debian's essential packages and man-db, as mmdebstrap installs them. It is made
/// once and then copied, since the download takes a minute or two.
fn clean_debian() -> Option<Scratch> {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
    if !root.exists() {
        let new = scratch("debian"); // renamed when whole: another run may be using it
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--mode=root", "--variant=essential", "--include=man-db"]);
        let output = bootstrap.args(["bookworm".as_ref(), new.as_os_str()]).output();
        let output = output.expect("mmdebstrap");
        if !output.status.success() {
            skipped(text(&output.stderr).trim());
            return None;
        }
        let _ = fs::rename(&*new, &root);
    }
    let copy = scratch("debian");
    succeeds(Command::new("cp").arg("-a").args([root.as_os_str(), copy.as_os_str()]));
    Some(copy)
}

/// What is in a root besides the records of dpkg and the cache of man: the path of each file
/// with its type, mode, owner, and the sum of what it contains.
fn contents(root: &Path) -> BTreeMap<String, String> {
    let script = "cd \"$1\" && find . ! -type d -printf '%p\\t%y %m %u %g %l\\n' -o \
                  -printf '%p\\t%y %m %u %g\\n' && find . -type f -exec md5sum {} + | \
                  sed 's/^\\([^ ]*\\)  \\(.*\\)$/\\2 has\\t\\1/'";
    let found = succeeds(Command::new("sh").args(["-c", script, "sh"]).arg(root));
    let lines = found.lines().filter_map(|line| line.split_once('\t'));
    let records = ["./var/lib/dpkg/", "./var/log/dpkg.log", "./var/cache/man"];
    let is_record = |path: &str| records.iter().any(|record| path.starts_with(record));
    let ours = lines.filter(|(path, _)| !is_record(path));
    ours.map(|(path, what)| (path.into(), what.into())).collect()
}

#[test]
fn a_clean_debian_installs_serves_and_removes_it() {
    if emulated() || !root() || !["dpkg-deb", "mmdebstrap", "chroot"].iter().all(|name| tool(name))
    {
        return;
    }
    let directory = scratch("package");
    let package = amd64(&directory);
    let Some(root) = clean_debian() else { return };
    let inside = |words: &[&str]| {
        let mut command = Command::new("chroot");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg(&*root).args(words);
        command
    };
    let before = contents(&root);
    fs::copy(&package, root.join("forkline.deb")).expect("copy");
    println!("{}", succeeds(&mut inside(&["dpkg", "-i", "/forkline.deb"])));
    fs::remove_file(root.join("forkline.deb")).expect("remove");
    let page = succeeds(&mut inside(&["man", "forkline"]));
    assert!(page.contains("fork-per-connection TCP line server"), "{page}");
    assert_eq!(succeeds(&mut inside(&["dpkg", "--verify", "forkline"])), "");
    let etc = succeeds(Command::new("find").arg(root.join("etc")).args(["-name", "*forkline*"]));
    assert_eq!(etc, "", "no unit is enabled");

    for unit in ["forkline@.service", "forkline-cpu@.service"] {
        let unit = root.join("usr/lib/systemd/system").join(unit);
        let unit = fs::read_to_string(unit).expect("unit");
        let mut start = unit.lines().filter_map(|line| line.strip_prefix("ExecStart="));
        let program = start.next().expect("ExecStart").split(' ').next().unwrap();
        let mut command = inside(&[program, "-u", "65534", "echo", "0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let server = Server::spawn(&mut command);
        assert_eq!(exchange(server.connect(), b"hello\n"), b"hello\n");
        println!("{program}: {}", server.stop().1);
    }

    println!("{}", succeeds(&mut inside(&["dpkg", "-P", "forkline"])));
    assert!(!run_tool(&mut inside(&["dpkg", "-s", "forkline"])).status.success());
    let after = contents(&root);
    assert!(before.len() > 1000, "{before:?}");
    let added = after.iter().filter(|(path, what)| before.get(*path) != Some(what));
    let removed = before.iter().filter(|(path, what)| after.get(*path) != Some(what));
    assert_eq!(added.chain(removed).collect::<Vec<_>>(), []);
    let records = root.join("var/lib/dpkg");
    let records = succeeds(Command::new("find").arg(records).args(["-name", "*forkline*"]));
    assert_eq!(records, "");
}
