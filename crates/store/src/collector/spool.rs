//! Reports that wait on disk for a database that is away.
//!
//! Segments of frames, each a length, a checksum and a report as JSON. A segment is only ever appended to, by the process that
//! made it, and is deleted when all of it is stored. Reading stops at the first frame that is not whole: what stands behind
//! was never answered for, because a report is only answered when everything before it and itself are synced. Where
//! reading had come to is not kept: after a restart reports may be read twice, and a database has each once.

use crate::sqlite::place;
use fanlight_telemetry::collector::ClientReport;
use flate2::Crc;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Folder of the segments in the data directory.
const FOLDER: &str = "clients-spool";
/// First bytes of a segment.
const MAGIC: &[u8; 8] = b"FLSPOOL1";
/// A segment is followed by another when it is this long: so much is read again after a restart at worst.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Longer than any report can be: a body of 4 MiB whose every byte is escaped.
const FRAME_BYTES_MAX: u32 = 32 << 20;
/// Length and checksum.
const HEAD_BYTES: usize = 8;
/// Where reports go that the database does not take, so that a person can see to them.
const REFUSED_FILE: &str = "refused.seg";
/// It does not grow beyond this.
const REFUSED_BYTES_MAX: u64 = 64 << 20;
/// What must fit on the disk before it counts as having room again.
const PROBE_BYTES: usize = 1 << 20;

/// The spool of one data directory.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    bytes_max: u64,
    /// Their whole frames, by number.
    segments: BTreeMap<u64, Segment>,
    /// The last segment, when this process made it and it is sound.
    writing: Option<File>,
    next: u64,
    /// Of the first segment: up to here it is stored.
    read_to: u64,
    lost_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Segment {
    bytes: u64,
    reports: u64,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    #[error("the spool has its {0} bytes")]
    Full(u64),
    #[error("the spool cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Some of what waits, in its order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) reports: Vec<ClientReport>,
    /// The segment it is of, and up to where.
    segment: u64,
    end: u64,
}

impl Spool {
    /// Finds what an earlier process left.
    pub(super) fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let folder = dir.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let mut segments = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let number =
                path.file_name().and_then(|name| name.to_str()?.strip_suffix(".spool")?.parse().ok());
            if let Some(number) = number {
                segments.insert(number, measured(&path)?);
            }
        }
        let next = segments.last_key_value().map_or(1, |(number, _)| number + 1);
        Ok(Self { folder, bytes_max, segments, writing: None, next, read_to: 0, lost_bytes: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Reports that wait; those of the first segment that are stored already count until it is gone.
    pub(super) fn reports(&self) -> u64 {
        self.segments.values().map(|segment| segment.reports).sum()
    }

    /// Bytes that could not be read as reports.
    pub(super) fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }

    /// Appends reports and syncs them; all or, as far as readers see, none.
    pub(super) fn append<'a>(
        &mut self,
        reports: impl Iterator<Item = &'a ClientReport>,
    ) -> Result<(), SpoolError> {
        let mut bytes = Vec::new();
        let mut count = 0;
        for report in reports {
            frame(&mut bytes, report)?;
            count += 1;
        }
        if self.bytes().saturating_add(bytes.len() as u64) > self.bytes_max {
            return Err(SpoolError::Full(self.bytes_max));
        }
        let appended = self.write(&bytes, count);
        if appended.is_err() {
            // Its end may be torn, and must not come before frames that are answered for.
            self.writing = None;
        }
        Ok(appended?)
    }

    fn write(&mut self, bytes: &[u8], reports: u64) -> io::Result<()> {
        let full = |segment: &Segment| segment.bytes >= SEGMENT_BYTES;
        if !self.is_writing_in_place() || self.segments.last_key_value().is_none_or(|(_, last)| full(last)) {
            self.begin()?;
        }
        let (Some(file), Some(mut last)) = (self.writing.as_mut(), self.segments.last_entry()) else {
            return Err(io::Error::other("no segment"));
        };
        let segment = last.get_mut();
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Gives the room back where that can be done; else reading stops at the torn frame.
            let _ = file.set_len(segment.bytes);
            return Err(error);
        }
        segment.bytes += bytes.len() as u64;
        segment.reports += reports;
        Ok(())
    }

    /// What is written into a file that nobody finds any more is lost.
    fn is_writing_in_place(&self) -> bool {
        let (Some(file), Some((number, _))) = (&self.writing, self.segments.last_key_value()) else {
            return false;
        };
        let opened = file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
        opened.is_some() && opened == place(&self.path(*number)).ok()
    }

    /// Whether its folder is in its place.
    pub(super) fn look(&self) -> io::Result<()> {
        fs::metadata(&self.folder)
            .map(drop)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.folder.display())))
    }

    fn begin(&mut self) -> io::Result<()> {
        let path = self.path(self.next);
        let begun = || {
            let mut file = File::options().create_new(true).write(true).open(&path)?;
            file.write_all(MAGIC)?;
            // The name must last as long as what stands under it.
            File::open(&self.folder)?.sync_all()?;
            Ok(file)
        };
        match begun() {
            Ok(file) => self.writing = Some(file),
            Err(error) => {
                let _ = fs::remove_file(&path);
                return Err(error);
            }
        }
        self.segments.insert(self.next, Segment { bytes: MAGIC.len() as u64, reports: 0 });
        self.next += 1;
        Ok(())
    }

    /// Reads what waits longest, up to so many objects; nothing when nothing is left.
    pub(super) fn read(&mut self, objects_max: usize) -> io::Result<Chunk> {
        while let Some((&number, &segment)) = self.segments.first_key_value() {
            match self.read_segment(number, segment, objects_max) {
                Ok(chunk) if chunk.reports.is_empty() => self.remove_first()?,
                // While the folder itself is gone, all may come back with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.folder.is_dir() => {
                    tracing::error!(number, bytes = segment.bytes, "a segment of the spool is gone");
                    self.lost_bytes += segment.bytes;
                    self.remove_first()?;
                }
                read => return read,
            }
        }
        Ok(Chunk::default())
    }

    fn read_segment(&mut self, number: u64, segment: Segment, objects_max: usize) -> io::Result<Chunk> {
        let mut file = File::open(self.path(number))?;
        let mut at = self.read_to.max(MAGIC.len() as u64);
        file.seek(SeekFrom::Start(at))?;
        let mut chunk = Chunk { reports: Vec::new(), segment: number, end: at };
        let mut objects = 0;
        let mut file = io::BufReader::with_capacity(1 << 16, file);
        while at < segment.bytes && objects < objects_max {
            let Some(payload) = next_frame(&mut file)? else {
                // Bytes that were whole when they were written are not so now.
                self.lost_bytes += segment.bytes - at;
                break;
            };
            let length = (HEAD_BYTES + payload.len()) as u64;
            match serde_json::from_slice::<ClientReport>(&payload) {
                Ok(report) => {
                    objects += report.objects.len() + 1;
                    chunk.reports.push(report);
                }
                Err(error) => {
                    tracing::error!(%error, "a report in the spool cannot be read");
                    self.lost_bytes += length;
                }
            }
            at += length;
            chunk.end = at;
        }
        Ok(chunk)
    }

    /// Says that a chunk is stored.
    pub(super) fn stored(&mut self, chunk: &Chunk) -> io::Result<()> {
        let Some((&number, segment)) = self.segments.first_key_value() else { return Ok(()) };
        if number != chunk.segment {
            return Ok(());
        }
        self.read_to = chunk.end;
        if chunk.end >= segment.bytes { self.remove_first() } else { Ok(()) }
    }

    fn remove_first(&mut self) -> io::Result<()> {
        if let Some((number, _)) = self.segments.pop_first() {
            if self.segments.is_empty() {
                self.writing = None;
            }
            self.read_to = 0;
            match fs::remove_file(self.path(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts a report aside that the database does not take; `false` when there is no room for it.
    pub(super) fn set_aside(&self, report: &ClientReport) -> bool {
        let set_aside = || {
            let mut file = File::options().create(true).append(true).open(self.folder.join(REFUSED_FILE))?;
            let length = file.metadata()?.len();
            let mut bytes = if length == 0 { MAGIC.to_vec() } else { Vec::new() };
            frame(&mut bytes, report)?;
            if length + bytes.len() as u64 > REFUSED_BYTES_MAX {
                return Err(io::Error::other("full"));
            }
            file.write_all(&bytes)?;
            file.sync_data()
        };
        set_aside().is_ok()
    }

    /// Whether the disk takes more, tried with a file that is deleted again.
    pub(super) fn has_room(&self) -> bool {
        let path = self.folder.join("probe");
        let tried = File::create(&path)
            .and_then(|mut file| file.write_all(&vec![0; PROBE_BYTES]).and_then(|()| file.sync_data()));
        let _ = fs::remove_file(&path);
        tried.is_ok()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:010}.spool"))
    }
}

fn frame(bytes: &mut Vec<u8>, report: &ClientReport) -> io::Result<()> {
    let payload = serde_json::to_vec(report)?;
    let length = u32::try_from(payload.len()).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("the report is too long"))?;
    bytes.extend(length.to_le_bytes());
    bytes.extend(checksum(&payload).to_le_bytes());
    bytes.extend(payload);
    Ok(())
}

/// The next frame's payload; `None` when it is torn, changed or not there.
fn next_frame(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; HEAD_BYTES];
    if !read_whole(file, &mut head)? {
        return Ok(None);
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length == 0 || length > FRAME_BYTES_MAX {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    let whole = read_whole(file, &mut payload)?;
    Ok((whole && checksum(&payload) == u32::from_le_bytes([c0, c1, c2, c3])).then_some(payload))
}

fn read_whole(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn checksum(payload: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(payload);
    crc.sum()
}

/// The whole frames of a segment; what is torn at its end does not count.
fn measured(path: &Path) -> io::Result<Segment> {
    let mut file = io::BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut magic = [0; 8];
    let mut segment = Segment::default();
    if !read_whole(&mut file, &mut magic)? || &magic != MAGIC {
        return Ok(segment);
    }
    segment.bytes = MAGIC.len() as u64;
    while let Some(payload) = next_frame(&mut file)? {
        segment.bytes += (HEAD_BYTES + payload.len()) as u64;
        segment.reports += 1;
    }
    let torn_bytes = fs::metadata(path)?.len().saturating_sub(segment.bytes);
    if torn_bytes > 0 {
        tracing::warn!(torn_bytes, path = %path.display(), "the end of a segment of the spool is not whole");
    }
    Ok(segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_telemetry::collector::{Source, StatsObject};

    fn report(n: u64) -> ClientReport {
        let json = format!(r#"{{"id":"a","type":"codec","timestamp":1646138096123.456,"n":"{n}\n\ud800"}}"#);
        ClientReport {
            source: Source::Browser,
            at_ns: n,
            connection: None,
            label: "".into(),
            version: "".into(),
            node_name: "".into(),
            extra: "{}".into(),
            objects: vec![StatsObject::parse(&json).unwrap()],
            rejected: Default::default(),
        }
    }

    fn append(spool: &mut Spool, numbers: std::ops::Range<u64>) -> Result<(), SpoolError> {
        let reports: Vec<_> = numbers.map(report).collect();
        spool.append(reports.iter())
    }

    fn drain(spool: &mut Spool) -> Vec<u64> {
        let mut numbers = Vec::new();
        loop {
            let chunk = spool.read(7).unwrap();
            if chunk.reports.is_empty() {
                return numbers;
            }
            for read in &chunk.reports {
                assert_eq!(read, &report(read.at_ns));
                numbers.push(read.at_ns);
            }
            spool.stored(&chunk).unwrap();
        }
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir.join(FOLDER)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn reports_come_back_in_their_order_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        append(&mut spool, 0..10).unwrap();
        append(&mut spool, 10..15).unwrap();
        let chunk = spool.read(8).unwrap();
        spool.stored(&chunk).unwrap();
        drop(spool);
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(spool.reports(), 15);
        append(&mut spool, 15..20).unwrap();
        assert_eq!(files(dir.path()).len(), 2);
        assert_eq!(drain(&mut spool), (0..20).collect::<Vec<_>>());
        assert!(spool.is_empty() && files(dir.path()).is_empty() && spool.bytes() == 0);
        append(&mut spool, 20..21).unwrap();
        assert_eq!(drain(&mut spool), [20]);
        assert_eq!(spool.lost_bytes(), 0);
    }

    #[test]
    fn a_torn_end_costs_what_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        append(&mut Spool::open(dir.path(), 1 << 20).unwrap(), 0..5).unwrap();
        let path = files(dir.path()).remove(0);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
            append(&mut spool, 5..6).unwrap();
            let read = drain(&mut spool);
            assert_eq!(read.last(), Some(&5));
            let before = read.len() as u64 - 1;
            assert_eq!(read[..read.len() - 1], (0..before).collect::<Vec<_>>());
            assert!(before < 5 && files(dir.path()).is_empty());
        }
    }

    #[test]
    fn a_changed_byte_costs_its_report_and_those_behind_it_in_its_segment() {
        let dir = tempfile::tempdir().unwrap();
        append(&mut Spool::open(dir.path(), 1 << 20).unwrap(), 0..5).unwrap();
        let path = files(dir.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(drain(&mut spool), [0, 1]);
    }

    #[test]
    fn it_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 2_000).unwrap();
        append(&mut spool, 0..4).unwrap();
        assert!(matches!(append(&mut spool, 4..14), Err(SpoolError::Full(2_000))));
        assert!(spool.bytes() < 2_000 && spool.has_room());
        assert_eq!(drain(&mut spool), [0, 1, 2, 3]);
        assert!(files(dir.path()).is_empty());
    }

    #[test]
    fn what_the_database_does_not_take_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), 1 << 20).unwrap();
        assert!(spool.set_aside(&report(1)) && spool.set_aside(&report(2)));
        let refused = measured(&dir.path().join(FOLDER).join(REFUSED_FILE)).unwrap();
        assert_eq!(refused.reports, 2);
        assert!(Spool::open(dir.path(), 1 << 20).unwrap().is_empty());
    }
}
