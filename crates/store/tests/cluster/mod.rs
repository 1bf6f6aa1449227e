//! A PostgreSQL server of a test's own, as Debian packages it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use fanlight_store::collector::{Collector, CollectorSettings, PostgresSettings, PostgresSink};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A busy machine starts a server, or recovers one that was killed, within this.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who the server runs as when the tests run as root.
const USER: &str = "postgres";

/// A running server; it is killed, and its files are deleted, with the test.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
    server: Option<Child>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::with(|_| Vec::new())
    }

    /// `options` are more settings, such as `ssl=on`; what it puts into the folder is the server's.
    pub(crate) fn with(options: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let options = options(&data);
        let held: Vec<PathBuf> =
            std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
        // The server wants an empty folder, and files of its own.
        for path in &held {
            std::fs::rename(path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        own(&data);
        run(as_server("initdb").args(["-D"]).arg(&data).args([
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]));
        for path in &held {
            let to = data.join(path.file_name().unwrap());
            std::fs::rename(folder.path().join(path.file_name().unwrap()), &to).unwrap();
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
            own(&to);
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut cluster = Self { folder, port, options, server: None };
        cluster.go_on();
        cluster
    }

    /// Starts the server again after it was stopped or killed.
    pub(crate) fn go_on(&mut self) {
        let limit = Instant::now() + PATIENCE;
        while !self.answers() {
            assert!(Instant::now() < limit, "PostgreSQL does not start");
            // After a kill what is left of the old one may be in the way for a moment.
            if self.server.as_mut().is_none_or(|server| server.try_wait().unwrap().is_some()) {
                self.server = Some(self.spawn());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn spawn(&self) -> Child {
        let mut command = as_server("postgres");
        command.arg("-D").arg(self.folder.path().join("data")).args(["-p", &self.port.to_string(), "-k", ""]);
        for option in ["listen_addresses=127.0.0.1", "max_connections=40"] {
            command.args(["-c", option]);
        }
        for option in &self.options {
            command.args(["-c", option]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn answers(&self) -> bool {
        let mut psql = self.psql(USER);
        psql.args(["-c", "SELECT 1"]).stdout(Stdio::null()).stderr(Stdio::null());
        self.server.is_some() && psql.status().unwrap().success()
    }

    /// Ends the server with a signal, such as `INT` for a fast shutdown.
    pub(crate) fn end(&mut self, signal: &str) {
        let mut server = self.server.take().unwrap();
        run(Command::new("kill").args([&format!("-{signal}"), &server.id().to_string()]));
        server.wait().unwrap();
    }

    /// As which process the server runs.
    pub(crate) fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// A new database.
    pub(crate) fn database(&self, name: &str) -> String {
        self.sql(USER, &format!("CREATE DATABASE {name}"));
        self.uri(name)
    }

    pub(crate) fn uri(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The lines that a statement gives, columns separated by `|`.
    pub(crate) fn sql(&self, database: &str, text: &str) -> Vec<String> {
        let output = self.psql(database).args(["-c", text]).output().unwrap();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    pub(crate) fn count(&self, database: &str, of: &str) -> u64 {
        self.sql(database, &format!("SELECT count(*) FROM {of}")).concat().parse().unwrap()
    }

    /// The client that comes with PostgreSQL.
    pub(crate) fn psql(&self, database: &str) -> Command {
        let mut command = Command::new("psql");
        command.env("PGCONNECT_TIMEOUT", "5").env("TZ", "UTC").args(["-XAtq", "-v", "ON_ERROR_STOP=1"]);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, "-d", database]);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.end("QUIT");
        }
    }
}

/// A collector that writes to this database; its spool is in `dir`.
pub(crate) fn collector(dir: &Path, uri: &str) -> Collector {
    collector_with(dir, CollectorSettings::default(), PostgresSettings::new(uri.to_owned()))
}

pub(crate) fn collector_with(
    dir: &Path,
    settings: CollectorSettings,
    postgres: PostgresSettings,
) -> Collector {
    Collector::with_sink(dir, settings, Box::new(PostgresSink::new(&postgres).unwrap())).unwrap()
}

/// A program of the server. It does not run as root.
fn as_server(program: &str) -> Command {
    let path = programs().join(program);
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    command.current_dir("/");
    command
}

/// Debian has a folder for each version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten().flatten();
    let newest =
        versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    newest.unwrap_or_else(|| panic!("there is no PostgreSQL; install it with: apt-get install postgresql"))
}

fn is_root() -> bool {
    id(&["-u"]) == 0
}

fn id(arguments: &[&str]) -> u32 {
    let output = Command::new("id").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn own(path: &Path) {
    if is_root() {
        chown(path, Some(id(&["-u", USER])), Some(id(&["-g", USER]))).unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
