//! Kohaku's log: JSON lines in a file that is put aside when it is full.

use jiff::Timestamp;
use serde_json::{Map, Value};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fmt, mem};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// When files are put aside and removed. 0 keeps them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rotation {
    /// Size of a file.
    pub(crate) max_bytes: u64,
    /// Files put aside.
    pub(crate) max_backups: usize,
    /// Their age.
    pub(crate) max_age: Duration,
}

/// A file that is put aside when it is full, named as Kohaku names them: `kohaku-2026-11-21T20-19-41.000.jsonl`.
#[derive(Debug)]
pub(crate) struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
}

impl RotatingFile {
    /// Goes on where the file ends, or begins it.
    pub(crate) fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        let file = append(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, rotation, file, bytes })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let aside = self.aside(Timestamp::try_from(SystemTime::now()).unwrap_or_default());
        fs::rename(&self.path, aside)?;
        self.file = append(&self.path)?;
        self.bytes = 0;
        self.remove_old()
    }

    fn aside(&self, now: Timestamp) -> PathBuf {
        let (stem, extension) = stem_and_extension(&self.path);
        let time = now.strftime("%Y-%m-%dT%H-%M-%S%.3f");
        self.path.with_file_name(format!("{stem}-{time}{extension}"))
    }

    fn remove_old(&self) -> io::Result<()> {
        let (stem, extension) = stem_and_extension(&self.path);
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut backups = Vec::new();
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let time = name
                .strip_prefix(&format!("{stem}-"))
                .and_then(|rest| rest.strip_suffix(&extension).map(str::to_owned));
            // Only names that were given here: digits where a date has them.
            if time.is_some_and(|time| {
                time.len() == 23 && time.starts_with(|first: char| first.is_ascii_digit())
            }) {
                backups.push((name, path));
            }
        }
        // The name tells the age.
        backups.sort_unstable_by(|a, b| b.cmp(a));
        let oldest = SystemTime::now().checked_sub(self.rotation.max_age);
        for (place, (_, path)) in backups.into_iter().enumerate() {
            let too_many = self.rotation.max_backups > 0 && place >= self.rotation.max_backups;
            let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let too_old = !self.rotation.max_age.is_zero()
                && written.is_ok_and(|written| oldest.is_some_and(|oldest| written < oldest));
            if too_many || too_old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let wanted = self.bytes.saturating_add(line.len() as u64);
        if self.rotation.max_bytes > 0 && wanted > self.rotation.max_bytes && self.bytes > 0 {
            // A file that cannot be put aside is better too long than not written.
            let _ = self.rotate();
        }
        let written = self.file.write(line)?;
        self.bytes = self.bytes.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// `kohaku` and `.jsonl`.
fn stem_and_extension(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}")).unwrap_or_default();
    (text(path.file_stem()).unwrap_or_default(), extension)
}

/// Lines as Kohaku writes them: `time`, `level`, `caller`, `message` and what else is said.
pub(crate) struct KohakuLines;

impl<S, N> FormatEvent<S, N> for KohakuLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let metadata = event.metadata();
        let mut line = mem::take(&mut fields.0);
        let time = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        line.insert("time".into(), time.to_string().into());
        line.insert("level".into(), metadata.level().as_str().to_ascii_lowercase().into());
        if let (Some(file), Some(number)) = (metadata.file(), metadata.line()) {
            line.insert("caller".into(), format!("{file}:{number}").into());
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kohaku.jsonl");
        fs::write(folder.path().join("kohaku-notes.jsonl"), "not ours").unwrap();
        for old in ["kohaku-2020-01-01T00-00-00.000.jsonl", "kohaku-2020-01-02T00-00-00.000.jsonl"] {
            fs::write(folder.path().join(old), "old").unwrap();
        }
        let rotation = Rotation { max_bytes: 100, max_backups: 2, max_age: Duration::ZERO };
        let mut file = RotatingFile::open(path.clone(), rotation).unwrap();
        file.write_all(&[b'a'; 90]).unwrap();
        file.write_all(&[b'b'; 20]).unwrap();
        let names = names(folder.path());
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(names[0], "kohaku-2020-01-02T00-00-00.000.jsonl");
        assert!(names[1].len() == "kohaku-2020-01-02T00-00-00.000.jsonl".len(), "{names:?}");
        assert_eq!(names[2..], ["kohaku-notes.jsonl", "kohaku.jsonl"]);
        assert_eq!(fs::read(&path).unwrap(), [b'b'; 20]);
        assert_eq!(fs::read(folder.path().join(&names[1])).unwrap(), [b'a'; 90]);
        // After a restart it goes on where it was.
        let mut file = RotatingFile::open(path.clone(), rotation).unwrap();
        file.write_all(b"c").unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), 21);
    }

    #[test]
    fn files_put_aside_are_removed_by_age_too() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("k-2020-01-01T00-00-00.000.jsonl");
        fs::write(&old, "old").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(40 * 86_400);
        File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
        let rotation = Rotation { max_bytes: 1, max_backups: 0, max_age: Duration::from_secs(30 * 86_400) };
        let mut file = RotatingFile::open(folder.path().join("k.jsonl"), rotation).unwrap();
        file.write_all(b"a").unwrap();
        file.write_all(b"b").unwrap();
        assert!(!old.exists());
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn lines_are_kohakus() {
        struct Sink(std::sync::Arc<Mutex<Vec<u8>>>);
        impl Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = std::sync::Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::fmt()
            .event_format(KohakuLines)
            .with_writer(Mutex::new(Sink(std::sync::Arc::clone(&written))))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(status = 204u16, uri = "/collector", latency = 1.5, "POST");
        });
        let line: Value = serde_json::from_slice(&written.lock().unwrap()).unwrap();
        assert_eq!(line["message"], "POST");
        assert_eq!((&line["level"], &line["status"]), (&"info".into(), &204.into()));
        assert_eq!((&line["uri"], &line["latency"]), (&"/collector".into(), &1.5.into()));
        let time = line["time"].as_str().unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && time.ends_with('Z'), "{time}");
        assert!(line["caller"].as_str().unwrap().contains("log_file.rs:"));
    }
}
