//! Child processes: shown, timed, ended when they take too long, their output read for counts.

use crate::Failure;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a child gets to end what it has started itself.
const GRACE: Duration = Duration::from_secs(15);

/// How a child ended.
pub(crate) struct Ended {
    /// Whether it ended by itself with status 0.
    pub(crate) success: bool,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Whether a program starts at all.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What a program prints on its standard output.
pub(crate) fn output(root: &Path, program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command; `line` sees each line of its standard output. A child that is still running at the limit is told to
/// end, and killed if it does not.
pub(crate) fn run(
    mut command: Command,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<Ended, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
    let (sender, lines) = mpsc::sync_channel(256);
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
    }
    loop {
        let left = limit.saturating_sub(started.elapsed());
        match lines.recv_timeout(left) {
            Ok(text) => line(&text),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                eprintln!("{name}: still running after {} s, ended", limit.as_secs());
                end(&mut child)?;
                break;
            }
        }
    }
    let status = child.wait().map_err(|error| format!("{name}: {error}"))?;
    Ok(Ended { success: status.success(), took: started.elapsed() })
}

fn end(child: &mut Child) -> Result<(), Failure> {
    let told = Command::new("kill").arg(child.id().to_string()).status();
    told.map_err(|error| format!("kill: {error}"))?;
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if child.try_wait().map_err(|error| error.to_string())?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().map_err(|error| error.to_string())
}
