//! What the tests need beside Rust: browsers, SDKs, cargo-deny. Only what is missing is installed, below the workspace
//! where the tool allows it.

use crate::{Failure, process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Debian packages: the two browsers with a font to draw with and tools to make them trust a certificate,
/// and Python's own virtual environments.
const DEBIAN: &[&str] =
    &["chromium", "firefox-esr", "fonts-dejavu-core", "libnss3-tools", "openssl", "python3", "python3-venv"];
/// Debian packages that Rust's own tests start: coturn with its clients, a Redis server for it to report to, and PostgreSQL
/// for the collector's reports.
const SERVERS: &[&str] = &["coturn", "redis-server", "postgresql"];
/// LiveKit's Python SDK; numpy makes and reads its frames.
const PYTHON: &[&str] = &["livekit==1.2.0", "livekit-api==1.2.2", "numpy==2.4.6"];
const CARGO_DENY: &str = "0.20.2";
/// A registry that answers at all has answered by then.
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Installs what Rust's own tests need.
pub(crate) fn prepare_tests() -> Result<(), Failure> {
    debian(SERVERS)
}

/// Installs what the end-to-end tests need.
pub(crate) fn prepare_end_to_end(root: &Path) -> Result<(), Failure> {
    debian(SERVERS)?;
    debian(DEBIAN)?;
    node(root)?;
    python(root)
}

/// Where cargo-deny is, installed if need be.
pub(crate) fn cargo_deny(root: &Path) -> Result<PathBuf, Failure> {
    let folder = root.join(".test-env/cargo-deny");
    let program = folder.join("bin/cargo-deny");
    if !program.is_file() {
        let mut command = Command::new("cargo");
        command.args(["install", "cargo-deny", "--locked", "--version", CARGO_DENY, "--root"]).arg(&folder);
        install("cargo-deny", command)?;
    }
    Ok(program)
}

fn debian(packages: &[&'static str]) -> Result<(), Failure> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !process::exists("apt-get") {
        return Err(format!("install these by hand, there is no apt-get here: {}", missing.join(" ")));
    }
    let update = apt(&["update", "-qq"]);
    install("package lists", update)?;
    let mut command = apt(&["install", "-y", "-qq", "--no-install-recommends"]);
    command.args(&missing);
    install(&missing.join(" "), command)
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn apt(arguments: &[&str]) -> Command {
    let needs_sudo = process::output(Path::new("."), "id", &["-u"]).is_ok_and(|id| id.trim() != "0");
    let mut command = Command::new(if needs_sudo { "sudo" } else { "env" });
    command.args(if needs_sudo { &["-n", "env"][..] } else { &[] });
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(arguments);
    command
}

fn node(root: &Path) -> Result<(), Failure> {
    let folder = root.join("tests/e2e");
    let lock = read(&folder.join("package-lock.json"))?;
    let stamp = folder.join("node_modules/.installed-lock");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == lock) {
        return Ok(());
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--no-fund", "--no-audit", "--loglevel=error"]).current_dir(&folder);
    install("npm packages of tests/e2e", command)?;
    write(&stamp, &lock)
}

fn python(root: &Path) -> Result<(), Failure> {
    let folder = root.join(".test-env/python");
    let wanted = PYTHON.join("\n");
    let stamp = folder.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-m", "venv", "--clear"]).arg(&folder);
    install("a Python environment", command)?;
    let mut command = Command::new(folder.join("bin/pip"));
    command.args(["install", "-q", "--disable-pip-version-check"]).args(PYTHON);
    install(&PYTHON.join(" "), command)?;
    write(&stamp, &wanted)
}

fn install(what: &str, command: Command) -> Result<(), Failure> {
    println!("installing {what}");
    let mut tail = Vec::new();
    let ended = process::run(command, INSTALL_LIMIT, |line| tail.push(line.to_string()))?;
    if !ended.success {
        return Err(format!("{}\ncould not install {what}", tail.join("\n")));
    }
    println!("installed {what} in {:.1} s", ended.took.as_secs_f64());
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
