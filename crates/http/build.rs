//! Builds the web page that `/meet` serves, so that `cargo run` on a fresh machine needs no second command. The result
//! stands in `web/dist`, from where it is embedded.
#![allow(clippy::print_stdout, reason = "a build script speaks to cargo on its standard output")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

/// Vite 8 asks for Node 20.19.
const NODE_MIN: (u32, u32) = (20, 19);
const WITHOUT: &str = "or build without the web page: --no-default-features";
/// What the page is made from, below `web/`.
const SOURCES: &[&str] = &[
    "src",
    "public",
    "index.html",
    "console.html",
    "clients.html",
    "package.json",
    "package-lock.json",
    "vite.config.ts",
    "tsconfig.json",
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_WEB").is_none() {
        return ExitCode::SUCCESS;
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let web = web_folder()?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", web.join(source).display());
    }
    // A page that was removed by hand is built anew.
    let page = web.join("dist/index.html");
    println!("cargo::rerun-if-changed={}", page.display());
    check_node()?;
    install_packages(&web)?;
    npm(&web, &["run", "--silent", "build"])?;
    backdate(&page).map_err(|error| format!("{}: {error}", page.display()))
}

/// Cargo runs a build script again when a watched file is younger than the script's start, so a watched result must not
/// be.
fn backdate(path: &Path) -> std::io::Result<()> {
    fs::File::options().write(true).open(path)?.set_modified(std::time::SystemTime::UNIX_EPOCH)
}

fn web_folder() -> Result<PathBuf, String> {
    let here = env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?;
    let web = PathBuf::from(here).join("../../web");
    web.canonicalize().map_err(|error| format!("{}: {error}", web.display()))
}

fn check_node() -> Result<(), String> {
    let wanted = format!("Node {}.{} or newer", NODE_MIN.0, NODE_MIN.1);
    let output = Command::new("node").arg("--version").output().map_err(|error| {
        format!(
            "the web page needs {wanted} and npm, but node does not start ({error})\ninstall it, {WITHOUT}"
        )
    })?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
    let version = parse_version(&text).ok_or_else(|| format!("node --version said `{text}`"))?;
    if version < NODE_MIN {
        return Err(format!("the web page needs {wanted}; this is {text}\ninstall a newer one, {WITHOUT}"));
    }
    Ok(())
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix('v')?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// `npm ci` when the packages are missing or the lock file is another than the one they came from.
fn install_packages(web: &Path) -> Result<(), String> {
    let lock = web.join("package-lock.json");
    let lock = fs::read(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    let stamp = web.join("node_modules/.installed-lock");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    npm(web, &["ci", "--no-audit", "--no-fund", "--loglevel=error"])?;
    fs::write(&stamp, lock).map_err(|error| format!("{}: {error}", stamp.display()))
}

fn npm(web: &Path, arguments: &[&str]) -> Result<(), String> {
    let command = format!("npm {}", arguments.join(" "));
    let output = Command::new("npm").args(arguments).current_dir(web).output().map_err(|error| {
        format!("the web page needs npm, but it does not start ({error})\ninstall it, {WITHOUT}")
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "`{command}` failed in {}, {WITHOUT}\n{}{}",
        web.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}
