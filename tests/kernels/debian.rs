//! Packages of the Debian archive that apt is set up with, of any suite and architecture.
//! They are downloaded and unpacked, not installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub struct Archive {
    /// apt's lists and what was downloaded.
    root: PathBuf,
}

/// A package of an architecture, in one of these suites.
pub struct Package<'a> {
    pub name: &'a str,
    pub arch: &'a str,
    pub suites: &'a [&'a str],
}

/// What a command prints; if it fails, the last that it says.
fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{program}: {}", said.lines().last().unwrap_or("it failed")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Archive {
    /// With the lists of these suites, those that the archive has.
    pub fn open(root: &Path, suites: &[&str], arches: &str) -> Result<Archive, String> {
        for directory in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(root.join(directory)).map_err(|error| error.to_string())?;
        }
        let archive = Archive { root: root.into() };
        // As apt is set up: where this system's own suites come from.
        let format = ["indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"];
        let set_up = output(Command::new("apt-get").args(format))?;
        let source = |security: bool| {
            let is_it = |suite: &str| {
                if security { suite.ends_with("-security") } else { !suite.contains('-') }
            };
            set_up.lines().find_map(|line| {
                let (suite, uri) = line.split_once(' ')?;
                is_it(suite).then_some(uri)
            })
        };
        const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let found = Path::new(KEYS).exists();
        let keys = if found { format!(" signed-by={KEYS}") } else { String::new() };
        let mut list = String::new();
        for suite in suites {
            if let Some(uri) = source(suite.ends_with("-security")) {
                list += &format!("deb [arch={arches}{keys}] {uri} {suite} main\n");
            }
        }
        fs::write(root.join("sources.list"), list).map_err(|error| error.to_string())?;
        // A suite that is not there leaves the others.
        if let Err(error) = output(archive.apt("apt-get").args(["update", "-qq"])) {
            eprintln!("{error}");
        }
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |path: &str| self.root.join(path).display().to_string();
        for option in [
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            // A container's apt may be told to keep none.
            "Dir::Cache::pkgcache=pkgcache.bin".into(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".into(),
            format!("Dir::Etc::SourceList={}", at("sources.list")),
            "Dir::Etc::SourceParts=-".into(),
            "Dir::State::Status=/dev/null".into(),
            "APT::Architectures::=amd64".into(),
            "APT::Architectures::=arm64".into(),
            "APT::Get::List-Cleanup=0".into(),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=2".into(),
        ] {
            command.args(["-o", &option]);
        }
        command.env("LC_ALL", "C").current_dir(self.root.join("packages"));
        command
    }

    /// Downloads the newest version that can be had, unless it is here.
    pub fn download(&self, package: &Package) -> Result<PathBuf, String> {
        let name = format!("{}:{}", package.name, package.arch);
        let versions = output(self.apt("apt-cache").args(["madison", &name]))?;
        let mut why = format!("apt knows no {name} of {}", package.suites.join(" or "));
        for line in versions.lines() {
            let [_, version, source] = line.split('|').map(str::trim).collect::<Vec<_>>()[..]
            else {
                continue;
            };
            let is_in = |suite: &&str| source.contains(&format!(" {suite}/"));
            if package.suites.iter().any(is_in) {
                match self.kernel_or_itself(&name, version).and_then(|it| self.fetch(&it)) {
                    Ok(path) => return Ok(path),
                    Err(error) => why = error,
                }
            }
        }
        Err(why)
    }

    /// `linux-image-arm64` only depends on the package that has the kernel, and that one
    /// on another since Linux 7.
    fn kernel_or_itself(&self, name: &str, version: &str) -> Result<String, String> {
        let mut package = format!("{name}={version}");
        for prefix in ["linux-image-", "linux-binary-"] {
            let about = output(self.apt("apt-cache").args(["show", &package]))?;
            let depends = about.lines().find_map(|line| line.strip_prefix("Depends: "));
            let is_it = |part: &&str| part.starts_with(prefix) && part.contains("(= ");
            if let Some(part) = depends.and_then(|line| line.split(", ").find(is_it)) {
                let arch = name.rsplit(':').next().unwrap_or_default();
                let (name, version) = part.split_once(" (= ").unwrap_or_default();
                package = format!("{name}:{arch}={}", version.trim_end_matches(')'));
            }
        }
        Ok(package)
    }

    /// apt leaves a file alone that is here and whole.
    fn fetch(&self, package: &str) -> Result<PathBuf, String> {
        output(self.apt("apt-get").args(["download", "-qq", package]))?;
        let (name, version) = package.split_once('=').unwrap_or_default();
        let (name, arch) = name.split_once(':').unwrap_or_default();
        let file = format!("{name}_{}_{arch}.deb", version.replace(':', "%3a"));
        Ok(self.root.join("packages").join(file))
    }
}

/// Takes one file out of a package; `pattern` is its path, in the words of tar.
pub fn unpack(package: &Path, pattern: &str, to: &Path) -> Result<(), String> {
    let open = |path| File::create(path).map_err(|error| error.to_string());
    let mut deb = Command::new("dpkg-deb");
    let deb = deb.arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn();
    let mut deb = deb.map_err(|error| format!("dpkg-deb: {error}"))?;
    let mut tar = Command::new("tar");
    tar.args(["-xO", "--wildcards", pattern]).stdout(open(to)?);
    let taken = tar.stdin(deb.stdout.take().expect("a pipe")).status();
    let _ = deb.wait();
    match taken {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("{} has no {pattern}", package.display())),
    }
}
