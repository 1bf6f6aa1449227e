//! Files that only their owner reads: the record tells of people, their addresses and their calls.

use rustix::fs::Mode;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Files made from here on are 0600, folders 0700, whatever the shell's mask is: databases with their logs, the spool, log
/// files, what the command line writes.
pub(crate) fn restrict_new_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// A warning for each file of the data directory that others may read or write. They stay as they are: somebody may have
/// opened them on purpose, for Grafana.
pub(crate) fn warnings(data_dir: &Path) -> Vec<String> {
    let files = [fanlight_store::DATABASE_FILE, fanlight_store::collector::CLIENTS_FILE];
    let open = |path: &Path| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then(|| {
            format!(
                "{0} can be read by others (mode {mode:o}); unless that is wanted, run: chmod 600 {0}*",
                path.display()
            )
        })
    };
    files.iter().filter_map(|file| open(&data_dir.join(file))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};

    #[test]
    fn a_database_that_others_can_read_is_warned_about_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(fanlight_store::DATABASE_FILE);
        assert!(warnings(folder.path()).is_empty());
        write(&path, "").unwrap();
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let warned = warnings(folder.path());
        assert!(warned.len() == 1 && warned[0].contains("mode 644") && warned[0].contains("chmod 600"));
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(warnings(folder.path()).is_empty());
    }
}
