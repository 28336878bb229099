//! The ways to deploy the program: an installation, systemd, a container.

use crate::common::*;
use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_forkline");

/// Runs `make` with these arguments and the binary under test.
fn make(args: &[&str]) {
    succeeds(Command::new("make").arg("-s").arg(format!("BIN={BINARY}")).args(args));
}

/// Runs a checker in the project's directory. It prints nothing if all is right.
fn is_silent(command: &mut Command) {
    let output = run_tool(command.current_dir(env!("CARGO_MANIFEST_DIR")));
    let said = [output.stdout, output.stderr].concat();
    let said = text(&said);
    assert!(output.status.success() && said.is_empty(), "{command:?}: {said}");
}

// ---------------------------------------------------------------- installation

/// The files below a directory, sorted.
fn files(directory: &Path) -> Vec<String> {
    let find = succeeds(Command::new("find").arg(directory).args(["-type", "f"]));
    let below = |file: &str| file.strip_prefix(directory.to_str()?).map(String::from);
    let mut files: Vec<String> = find.lines().filter_map(below).collect();
    files.sort();
    files
}

#[test]
fn it_installs_and_uninstalls() {
    if emulated() {
        return;
    }
    let stage = scratch("stage");
    let destination = format!("DESTDIR={}", stage.display());
    make(&["install", &destination, "PREFIX=/opt/line"]);
    assert_eq!(
        files(&stage),
        [
            "/opt/line/bin/forkline",
            "/opt/line/lib/systemd/system/forkline-cpu@.service",
            "/opt/line/lib/systemd/system/forkline@.service",
            "/opt/line/lib/systemd/system/forkline@.socket",
            "/opt/line/share/man/man8/forkline.8",
        ]
    );
    let installed = stage.join("opt/line/bin/forkline");
    assert_eq!(fs::read(&installed).expect("installed"), fs::read(BINARY).expect("binary"));
    assert_eq!(fs::metadata(&installed).expect("installed").permissions().mode() & 0o777, 0o755);
    for unit in ["forkline@.service", "forkline-cpu@.service"] {
        let unit = stage.join("opt/line/lib/systemd/system").join(unit);
        let unit = fs::read_to_string(unit).expect("unit");
        assert!(unit.contains("ExecStart=/opt/line/bin/forkline "), "{unit}");
        assert!(!unit.contains("/usr/local"), "{unit}");
    }
    make(&["uninstall", &destination, "PREFIX=/opt/line"]);
    assert_eq!(files(&stage), [""; 0]);
}

#[test]
fn two_clean_builds_make_the_same_archive() {
    if emulated() {
        return;
    }
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        return skipped("no git repository, from which clean copies could be made");
    }
    let clones = [scratch("clone"), scratch("another-clone-in-a-longer-path")];
    let archive = clones.each_ref().map(|clone| {
        succeeds(Command::new("git").args(["clone", "-q", "."]).arg(clone));
        let mut make = Command::new("make");
        make.args(["-s", "-C"]).arg(clone).args(["all", "archive", "ARCH=here"]);
        let output = make.env_remove("CARGO_TARGET_DIR").output().expect("make");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let made = files(&clone.join("target/dist"));
        assert_eq!(made.len(), 1, "{made:?}");
        fs::read(format!("{}/target/dist{}", clone.display(), made[0])).expect("archive")
    });
    assert!(archive[0] == archive[1], "they differ");
}

#[test]
fn the_manual_page_is_well_formed_and_names_every_option() {
    if emulated() {
        return;
    }
    let page = "deploy/man/forkline.8";
    if tool("mandoc") {
        is_silent(Command::new("mandoc").args(["-T", "lint", "-W", "warning", page]));
    }
    if tool("groff") {
        is_silent(Command::new("groff").args(["-mdoc", "-ww", "-z", "-T", "utf8", page]));
    }
    let page = fs::read_to_string(page).expect("page");
    let help = succeeds(&mut forkline(&["--help"]));
    let options: Vec<_> = help.lines().filter_map(|line| line.strip_prefix("  -")).collect();
    assert!(options.len() >= 10, "{help}");
    for option in options {
        let (letter, rest) = option.split_once(", --").expect("short and long");
        let long = rest.split_whitespace().next().expect("long");
        let named = format!(".It Fl {letter} , Fl -{long}");
        let mut ends = page.match_indices(&named).map(|(at, _)| page[at + named.len()..].chars());
        assert!(ends.any(|mut end| matches!(end.next(), Some(' ' | '\n'))), "no {named:?}");
    }
}

// ---------------------------------------------------------------- systemd

#[test]
fn systemd_finds_no_fault_with_the_units() {
    if emulated() || !tool("systemd-analyze") {
        return;
    }
    let stage = scratch("units");
    if stage.display().to_string().contains(' ') {
        return skipped("a unit cannot name a program in a path with a space");
    }
    make(&["install", &format!("PREFIX={}", stage.display())]);
    let units = stage.join("lib/systemd/system");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "forkline@7007.service", "forkline@7007.socket"]);
    verify.arg("forkline-cpu@0.service");
    verify.env("SYSTEMD_UNIT_PATH", format!("{}:", units.display()));
    is_silent(verify.env("MANPATH", stage.join("share/man")));
    // The exposure that deploy/README.md gives, in tenths.
    for (unit, most) in [("forkline@.service", 2), ("forkline-cpu@.service", 11)] {
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", &format!("--threshold={most}")]);
        let table = succeeds(security.arg(units.join(unit)));
        let score = table.lines().find(|line| line.contains("Overall exposure level"));
        assert!(score.is_some(), "{table}");
    }
}

/// The units, under a systemd that is process 1: what they forbid does not
/// hinder the service, and a stop leaves the socket for the next client.
#[test]
fn the_units_serve_under_systemd() {
    if emulated() {
        return;
    }
    let tools = ["unshare", "pivot_root", "socat", "ip", "systemctl"];
    if !root() || !tools.iter().all(|name| tool(name)) {
        return;
    }
    let stage = scratch("systemd");
    make(&["install", &format!("DESTDIR={}", stage.display())]);
    succeeds(Command::new("cp").args(["-r", "deploy/debian"]).arg(stage.join("debian")));
    let mut systemd = Command::new("sh");
    run_tool(systemd.arg("tests/suite/systemd.sh").arg(&*stage));
    let report = fs::read_to_string(stage.join("report")).expect("report");
    let lines: Vec<&str> = report.lines().collect();
    assert!(lines.starts_with(&["echo", "Uryyb", "again"]), "{report}");
    assert!(lines.contains(&"/usr/local/bin/forkline -v -t 60 rot13 "), "{report}");
    assert!(lines.contains(&"CapBnd:\t0000000000000000"), "{report}");
    assert!(lines.contains(&"NoNewPrivs:\t1"), "{report}");
    assert!(lines.contains(&"Seccomp:\t2"), "{report}");
    assert!(lines.contains(&"success"), "{report}");
    let shared = lines.iter().filter(|line| line.contains("/forkline --reuse-port -v echo 7008 "));
    assert_eq!(shared.count(), 2, "{report}");
    assert!(lines.contains(&"shared"), "{report}");
    assert!(report.contains("\nrefused\n0 2 failed \n"), "{report}");
    assert!(lines.contains(&"upgraded") && lines.contains(&"restarted"), "{report}");
    const ENABLED: &str = "/etc/systemd/system/sockets.target.wants/forkline@7007.socket";
    assert!(report.contains(&format!("\ninactive  inactive {ENABLED}\n0\n")), "{report}");
    let uid = lines.iter().find(|line| line.starts_with("Uid:")).expect("Uid");
    assert!(!uid.split('\t').any(|id| id == "0"), "{report}");
}

// ---------------------------------------------------------------- container

/// The image's one file as process 1 of a pid namespace, on the image's root
/// and as its user.
#[test]
fn the_image_serves_reaps_and_drains_as_process_1() {
    if emulated() || !root() || !tool("buildah") || !tool("unshare") || !tool("nsenter") {
        return;
    }
    let store = scratch("store");
    fs::create_dir(&*store).expect("store");
    let buildah = |args: &[&str]| succeeds(in_store(&store, Command::new("buildah").args(args)));
    let mut build = Command::new("make");
    build.args(["-s", "image", "ENGINE=buildah", "IMAGE=forkline-test"]);
    succeeds(in_store(&store, &mut build));
    let format = "{{with .OCIv1.Config}}{{.User}} {{.Entrypoint}} {{.Cmd}}{{end}}";
    let config = buildah(&["inspect", "--type=image", "--format", format, IMAGE]);
    assert_eq!(config.trim(), "65532:65532 [/forkline --grace=8] [echo 7007]");
    let container = buildah(&["from", "--pull-never", IMAGE]);
    let image = buildah(&["mount", container.trim()]);
    assert_eq!(files(Path::new(image.trim())), ["/forkline"]);

    let mut unshare = Command::new("unshare");
    unshare.args(["--fork", "--kill-child", "--pid", "--setuid=65532", "--setgid=65532"]);
    unshare.arg(format!("--root={}", image.trim())).args(["/forkline", "--grace=8"]);
    let mut server = Server::spawn(piped(unshare.args(["-v", "echo", "0"])));
    let process_1 = server.children()[0];
    assert_eq!(status(process_1, "NSpid"), format!("{process_1} 1"));
    assert_eq!(status(process_1, "Uid"), "65532 65532 65532 65532");
    assert_eq!(exchange(server.connect(), b"hello\n"), b"hello\n");

    // An orphan of the namespace is its child, until it reaps it.
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--target={process_1}")).arg("--pid");
    succeeds(nsenter.args(["sh", "-c", "(exit 7) & sleep 0.1 & sleep 0.2 & exit"]));
    wait_for("all are reaped", || children_of(process_1).is_empty());

    // A client that has sent half a line, and one that says no more.
    let (mut half, silent) = (server.connect(), server.connect());
    half.write_all(b"half a li").expect("send");
    wait_for("it is taken", || unacknowledged(&half) == 0);
    server.stderr.wait_for(" children=2/1024\n");
    kill(process_1 as i32, libc::SIGTERM);
    assert_eq!(exchange_nothing(&half), b"half a li");
    assert_eq!(exchange_nothing(&silent), b"");
    assert!(server.wait().success());
}

const IMAGE: &str = "localhost/forkline-test";

/// Lets a container engine keep everything in this directory.
fn in_store<'a>(store: &Path, command: &'a mut Command) -> &'a mut Command {
    let settings = store.join("storage.conf");
    let [graph, run] = ["graph", "run"].map(|name| store.join(name));
    let text = format!("[storage]\ndriver = \"vfs\"\ngraphroot = {graph:?}\nrunroot = {run:?}\n");
    fs::write(&settings, text).expect("settings");
    command.env("CONTAINERS_STORAGE_CONF", settings).env("BUILDAH_ISOLATION", "chroot")
}

/// Receives until the end of file.
fn exchange_nothing(stream: &std::net::TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    while receive_some(stream, &mut answer).expect("receive") > 0 {}
    answer
}

// ---------------------------------------------------------------- Kubernetes

/// A readiness probe (connect and close) is answered with every place taken,
/// waits for nobody, and leaves nothing behind.
#[test]
fn a_probe_is_no_client_that_waits() {
    let server = Server::start(&["-v", "-c", "1", "echo", "0"]);
    let first = server.connect();
    server.wait_for_children(1);
    for _ in 0..20 {
        drop(server.connect());
    }
    let mut next = server.connect();
    next.write_all(b"next\n").expect("send");
    next.shutdown(Shutdown::Write).expect("shutdown");
    drop(first);
    assert_eq!(exchange_nothing(&next), b"next\n");
    server.wait_for_children(0);
    let accepted = || server.stderr.text().matches("forkline: accept ").count();
    wait_for("all have been served", || accepted() == 22);
    server.stdout.wait_for("\n");
    assert_eq!(server.stdout.lines(), ["server received 5 bytes"]);
}
