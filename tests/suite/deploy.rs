//! The ways to deploy the program: an installation, systemd, a container.

use crate::common::*;
use serde_json::Value;
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
    if emulated() || !tool("git") {
        return;
    }
    if !Path::new(".git").exists() {
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

/// The version in Cargo.toml is that of HEAD: `-dev` until it is released.
#[test]
fn every_file_names_the_same_version() {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let read = |file: &str| fs::read_to_string(file).expect(file);
    for file in ["README.md", "container/Containerfile", "kubernetes/forkline.yaml"] {
        let text = read(&format!("deploy/{file}"));
        let tags = text.split("forkline:").skip(1).map(|rest| rest.split([' ', '`', '\n']).next());
        let tags: Vec<_> = tags.flatten().filter(|tag| tag.starts_with(char::is_numeric)).collect();
        assert!(!tags.is_empty() && tags.iter().all(|tag| *tag == VERSION), "{file}: {tags:?}");
    }
    let changes = read("CHANGELOG.md");
    let newest = changes.split("\n## [").nth(1).and_then(|rest| rest.split(']').next());
    let expected = if VERSION.ends_with("-dev") { "Unreleased" } else { VERSION };
    assert_eq!(newest, Some(expected), "CHANGELOG.md");
    let of_debian = format!("forkline ({}) ", crate::debian_package::debian_version());
    assert!(read("deploy/debian/changelog").starts_with(&of_debian), "{of_debian}");
    let rust = concat!("cargo (Rust ", env!("CARGO_PKG_RUST_VERSION"), " or newer)");
    assert!(read("README.md").contains(rust), "{rust}");
}

/// A path may have an apostrophe, and the target directory may be elsewhere.
#[test]
fn make_hands_on_what_it_is_given() {
    // It prints, and is no cargo that builds, so make fails then.
    let make = |words: &[&str]| text(&run(Command::new("make").arg("-s").args(words)).stdout);
    let shows = "CARGO=printenv ECHO_C CFLAGS; :";
    assert_eq!(make(&["compare", "ECHO_C=/it's/echo.c", shows]), "/it's/echo.c\n-Wall -O2\n");
    let shows = "CARGO=printenv GRADE_DIR CC; :";
    assert_eq!(make(&["grade", "DIR=/it's", "CC=gcc", shows]), "/it's\ngcc\n");
    let run = make(&["-n", "run", "CARGO_TARGET_DIR=/elsewhere", "CARGO=:"]);
    assert!(run.ends_with("'/elsewhere/release/forkline'  echo 7007\n"), "{run}");
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
    assert!(lines.starts_with(&["echo", "Uryyb", "timer:(keepalive"]), "{report}");
    assert!(lines.contains(&"/usr/local/bin/forkline -q echo "), "{report}");
    assert!(lines.contains(&"again"), "{report}");
    assert_eq!(lines.iter().filter(|line| **line == "continue").count(), 2, "{report}");
    // Both instances come back after a stray SIGTERM.
    assert_eq!(lines.iter().filter(|line| **line == "another").count(), 2, "{report}");
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
    assert_eq!(receive_all(&half), (b"half a li".to_vec(), End::Closed));
    assert_eq!(receive_all(&silent), (b"".to_vec(), End::Closed));
    assert!(server.wait().success());
}

const IMAGE: &str = "localhost/forkline-test";

/// An engine takes the image for its own machine from the index. On another one's the
/// server would run under an emulator, if at all.
#[test]
fn the_image_for_both_architectures_has_the_file_of_each() {
    if emulated() || !root() || !tool("buildah") || !tool("aarch64-linux-gnu-gcc") {
        return;
    }
    let (store, made) = (scratch("store"), scratch("oci"));
    fs::create_dir(&*store).expect("store");
    let mut build = Command::new("make");
    build.args(["-s", "images", "ENGINE=buildah", "IMAGE=forkline-test"]);
    succeeds(in_store(&store, &mut build));
    let mut push = Command::new("buildah");
    push.args(["manifest", "push", "--all", IMAGE, &format!("oci:{}:both", made.display())]);
    succeeds(in_store(&store, &mut push));
    let blob = |of: &Value| {
        let digest = of["digest"].as_str().expect("a digest").replace(':', "/");
        made.join("blobs").join(digest)
    };
    let json = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path).expect("a blob")).expect("JSON")
    };
    let index = json(&blob(&json(&made.join("index.json"))["manifests"][0]));
    let images = index["manifests"].as_array().expect("an index");
    let directory = Path::new(BINARY).parent().and_then(Path::parent).expect("target");
    let built = [("amd64", "release"), ("arm64", "aarch64-unknown-linux-gnu/release")];
    assert_eq!(images.len(), built.len(), "{index}");
    for (arch, place) in built {
        let is_its = |image: &&Value| image["platform"]["architecture"] == arch;
        let image = json(&blob(images.iter().find(is_its).expect(arch)));
        let config = json(&blob(&image["config"]));
        assert_eq!(config["architecture"], arch);
        assert_eq!(config["config"]["User"], "65532:65532");
        let mut tar = Command::new("tar");
        let output = run(tar.arg("-xOf").arg(blob(&image["layers"][0])).arg("forkline"));
        let file = fs::read(directory.join(place).join("forkline")).expect("the file");
        assert!(output.stdout == file, "{arch} has another file than {place}");
    }
}

/// Lets a container engine keep everything in this directory.
fn in_store<'a>(store: &Path, command: &'a mut Command) -> &'a mut Command {
    let settings = store.join("storage.conf");
    let [graph, run] = ["graph", "run"].map(|name| store.join(name));
    let text = format!("[storage]\ndriver = \"vfs\"\ngraphroot = {graph:?}\nrunroot = {run:?}\n");
    fs::write(&settings, text).expect("settings");
    command.env("CONTAINERS_STORAGE_CONF", settings).env("BUILDAH_ISOLATION", "chroot")
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
    assert_eq!(receive_all(&next), (b"next\n".to_vec(), End::Closed));
    server.wait_for_children(0);
    let accepted = || server.stderr.text().matches("forkline: accept ").count();
    wait_for("all have been served", || accepted() == 22);
    server.stdout.wait_for("\n");
    assert_eq!(server.stdout.lines(), ["server received 5 bytes"]);
}
