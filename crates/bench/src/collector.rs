//! `bench collector [postgres] [MILLION]`: what it costs to take clients' reports, with nothing stored and with that many million objects stored
//! already.
//!
//! Reports have the size of a call of two in Chromium, and everything in them changes every time: each object is a row. The calls
//! end after an hour and others begin.

#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "it is the tests': a benchmark that cannot go on has failed, too"
)]
#[path = "../../store/tests/cluster/mod.rs"]
mod cluster;
mod postgres;

use crate::Failure;
use crate::cpu::{Stopwatch, thread_ns};
use crate::figures::{median, print};
use crate::process::{Cpu, resident_bytes};
use fanlight_store::collector::{
    CLIENTS_FILE, CollectError, Collector, CollectorSender, CollectorSettings, Stored,
};
use fanlight_telemetry::collector::{Dedup, DedupSettings};
use fanlight_telemetry::decode::kohaku::{Kind, parse};
use std::collections::VecDeque;
use std::hint::black_box;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::Instant;

/// Million rows stored before the second measurement, unless said otherwise.
const MILLION: u64 = 1;
/// Connections that report at a time.
const CONNECTIONS: u64 = 200;
/// Reports of a connection: an hour of minutes.
const STEPS: u64 = 60;
/// Reports under way at a time, as from streams of HTTP/2.
const WINDOW: usize = 250;
/// Reports of one measurement.
const SAMPLE_REPORTS: u64 = 3_000;
const SAMPLES: usize = 5;
/// With rows stored the rate is at least this part of that without: what is missing is the machine's other work.
const RATIO_GOAL: f64 = 0.8;

/// All figures.
pub(crate) fn run(million: Option<&str>) -> Result<(), Failure> {
    decoding()?;
    run_sqlite(million)?;
    run_postgres(million)
}

/// Those of PostgreSQL alone.
pub(crate) fn run_postgres(million: Option<&str>) -> Result<(), Failure> {
    postgres::run(million.map_or(Ok(MILLION), str::parse)?)
}

fn run_sqlite(million: Option<&str>) -> Result<(), Failure> {
    let million = million.map_or(Ok(MILLION), str::parse)?;
    let dir = tempfile::tempdir()?;
    let mut load = Load { bodies: Bodies::new(), next: 0 };
    let collector = Collector::open(dir.path(), CollectorSettings::default())?;
    let empty = measure(&mut load, &collector, "sqlite", "empty")?;
    while stored(&collector) < million * 1_000_000 {
        load.send(&collector.sender(), 10_000)?;
    }
    let name = format!("million_{million}");
    let full = measure(&mut load, &collector, "sqlite", &name)?;
    print("collector.sqlite.rows_per_second_ratio", full / empty, "ratio");
    let rows = stored(&collector);
    collector.close();
    disk(dir.path(), rows)?;
    print("collector.memory", resident_bytes(std::process::id())? / 1e6, "MB");
    if full / empty < RATIO_GOAL {
        return Err("what is stored makes it slower".into());
    }
    Ok(())
}

fn stored(collector: &Collector) -> u64 {
    collector.health().stored_objects
}

/// What reading a body and comparing it cost, without a database.
fn decoding() -> Result<(), Failure> {
    let mut bodies = Bodies::new();
    let mut dedup = Dedup::new(DedupSettings::default(), 1);
    let (mut parsing, mut comparing) = (Vec::new(), Vec::new());
    let (mut watch, mut compared) = (Stopwatch::new(), Stopwatch::new());
    let (mut bytes, mut objects) = (0, 0);
    for sample in 0..9 {
        objects = 0;
        for number in 0..CONNECTIONS * 5 {
            let body = bodies.body(sample * CONNECTIONS * 5 + number);
            bytes = body.len();
            watch.start();
            let report = parse(Kind::UserAgent, body)?;
            watch.stop();
            objects += report.objects.len();
            let now_ms = report.at_ns / 1_000_000;
            compared.start();
            black_box(dedup.plan(now_ms, report));
            compared.stop();
        }
        parsing.push(watch.take() as f64 / objects as f64);
        comparing.push(compared.take() as f64 / objects as f64);
    }
    print("collector.report_bytes", bytes as f64, "bytes");
    print("collector.report_objects", objects as f64 / (CONNECTIONS * 5) as f64, "objects");
    print("collector.parse", median(parsing) / 1_000.0, "us/row");
    print("collector.compare", median(comparing) / 1_000.0, "us/row");
    Ok(())
}

/// The rate of rows, from bodies to commits.
fn measure(load: &mut Load, collector: &Collector, database: &str, name: &str) -> Result<f64, Failure> {
    let pid = std::process::id();
    let (mut rates, mut writing, mut reading) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let (rows_before, cpu_before, own_before) =
            (stored(collector), Cpu::of_threads(pid, "collector")?, thread_ns());
        let started = Instant::now();
        load.send(&collector.sender(), SAMPLE_REPORTS)?;
        let seconds = started.elapsed().as_secs_f64();
        let rows = (stored(collector) - rows_before) as f64;
        let cpu = Cpu::of_threads(pid, "collector")?.since(&cpu_before);
        rates.push(rows / seconds);
        writing.push(cpu.total_s * 1e6 / rows);
        reading.push((thread_ns() - own_before) as f64 / 1e3 / rows);
    }
    let rate = median(rates);
    print(&format!("collector.{database}.rows_per_second.{name}"), rate, "rows/s");
    print(&format!("collector.{database}.write_cpu.{name}"), median(writing), "us/row");
    print(&format!("collector.{database}.read_cpu.{name}"), median(reading), "us/row");
    Ok(rate)
}

fn disk(dir: &Path, rows: u64) -> Result<(), Failure> {
    let bytes = std::fs::metadata(dir.join(CLIENTS_FILE))?.len() as f64;
    print("collector.sqlite.disk", bytes / 1e6, "MB");
    print("collector.sqlite.disk_per_row", bytes / rows as f64, "bytes/row");
    Ok(())
}

/// Reports one after the other, many under way.
struct Load {
    bodies: Bodies,
    next: u64,
}

type Answer = Pin<Box<dyn Future<Output = Result<Stored, CollectError>> + Send>>;

impl Load {
    fn send(&mut self, sender: &CollectorSender, reports: u64) -> Result<(), Failure> {
        let mut waiting: VecDeque<Answer> = VecDeque::new();
        for _ in 0..reports {
            let report = parse(Kind::UserAgent, self.bodies.body(self.next))?;
            self.next += 1;
            waiting.push_back(Box::pin(sender.send(report)));
            if waiting.len() >= WINDOW {
                answered(waiting.pop_front())?;
            }
        }
        while !waiting.is_empty() {
            answered(waiting.pop_front())?;
        }
        Ok(())
    }
}

fn answered(answer: Option<Answer>) -> Result<(), Failure> {
    let Some(mut answer) = answer else { return Ok(()) };
    let waker = Arc::new(Unpark(std::thread::current())).into();
    loop {
        match answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => {
                let stored = outcome?;
                return if stored.spooled || stored.unchanged > 0 {
                    Err("a report went another way than this is about".into())
                } else {
                    Ok(())
                };
            }
            Poll::Pending => std::thread::park(),
        }
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Bodies of reports: a text in which numbers of ten digits are written over.
struct Bodies {
    text: Vec<u8>,
    connection: usize,
    time: usize,
    /// Where counters are, and how fast each grows.
    counters: Vec<usize>,
}

const NUMBER: &str = "1111111111";
const TIME: &str = "2024-01-01T00:00:00.000000Z";
const CONNECTION: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAA";

impl Bodies {
    fn new() -> Self {
        let stats: Vec<String> = objects();
        let text = format!(
            r#"{{"type":"connection.user-agent","id":"7VWV3K8P8D1ZX5M9B6QN2R4T0A","timestamp":"{TIME}","label":"WebRTC SFU Sora","version":"2022.1.0","node_name":"sora@127.0.0.1","multistream":true,"simulcast":false,"spotlight":false,"role":"sendrecv","channel_id":"sora","session_id":"KB0N4B7HCD0WH0C5RGQ3XRMZ5C","client_id":"PW9GZK5GJX2G5CMKD5M6WAMC54","connection_id":"{CONNECTION}","stats":[{}]}}"#,
            stats.join(",")
        );
        Self {
            connection: text.find(CONNECTION).unwrap_or(0),
            time: text.find(TIME).unwrap_or(0),
            counters: text.match_indices(NUMBER).map(|(place, _)| place).collect(),
            text: text.into_bytes(),
        }
    }

    /// The report of this number: all connections in turn, then the next minute.
    fn body(&mut self, number: u64) -> &[u8] {
        let (connection, step) = (number % CONNECTIONS, number / CONNECTIONS);
        let name = format!("C{:025}", step / STEPS * CONNECTIONS + connection);
        let (minute, hour) = (step % 60, step / 60 % 24);
        let (day, month) = (step / 1_440 % 28 + 1, step / 40_320 % 12 + 1);
        let time = format!("2024-{month:02}-{day:02}T{hour:02}:{minute:02}:00.{connection:06}Z");
        put(&mut self.text, self.connection, &name);
        put(&mut self.text, self.time, &time);
        for (counter, place) in self.counters.iter().enumerate() {
            let value = 1_000_000_000 + (step * 7_919 + connection) * (counter as u64 + 1) % 8_000_000_000;
            put(&mut self.text, *place, &value.to_string());
        }
        &self.text
    }
}

fn put(text: &mut [u8], place: usize, written: &str) {
    if let Some(bytes) = text.get_mut(place..place + written.len()) {
        bytes.copy_from_slice(written.as_bytes());
    }
}

/// 40 objects with the members and lengths of Chromium's, of two who send and receive.
fn objects() -> Vec<String> {
    let n = NUMBER;
    let base = |kind: &str, id: &str| format!(r#""id":"{id}","timestamp":1700000000000.123,"type":"{kind}""#);
    let mut objects = Vec::new();
    for number in 0..4 {
        let b = base("inbound-rtp", &format!("IT01V{number}735928559"));
        objects.push(format!(
            r#"{{{b},"ssrc":735928559,"kind":"video","transportId":"T01","codecId":"CIT01_96","mediaType":"video","jitter":0.004,"packetsLost":0,"packetsReceived":{n},"trackIdentifier":"d1b2c3d4-0000-4000-8000-{number:012}","mid":"{number}","bytesReceived":{n},"headerBytesReceived":{n},"lastPacketReceivedTimestamp":1700000000000.5,"jitterBufferDelay":{n},"jitterBufferTargetDelay":{n},"jitterBufferMinimumDelay":{n},"jitterBufferEmittedCount":{n},"framesReceived":{n},"frameWidth":1280,"frameHeight":720,"framesPerSecond":30,"framesDecoded":{n},"keyFramesDecoded":12,"framesDropped":0,"totalDecodeTime":{n},"totalProcessingDelay":{n},"totalAssemblyTime":{n},"framesAssembledFromMultiplePackets":{n},"totalInterFrameDelay":{n},"totalSquaredInterFrameDelay":{n},"pauseCount":0,"totalPausesDuration":0,"freezeCount":0,"totalFreezesDuration":0,"decoderImplementation":"libvpx","firCount":0,"pliCount":3,"nackCount":0,"qpSum":{n},"powerEfficientDecoder":false}}"#
        ));
        let b = base("inbound-rtp", &format!("IT01A{number}735928559"));
        objects.push(format!(
            r#"{{{b},"ssrc":735928560,"kind":"audio","transportId":"T01","codecId":"CIT01_111","mediaType":"audio","jitter":0.001,"packetsLost":0,"packetsReceived":{n},"trackIdentifier":"a1b2c3d4-0000-4000-8000-{number:012}","mid":"a{number}","bytesReceived":{n},"headerBytesReceived":{n},"jitterBufferDelay":{n},"jitterBufferEmittedCount":{n},"totalSamplesReceived":{n},"concealedSamples":0,"silentConcealedSamples":0,"concealmentEvents":0,"insertedSamplesForDeceleration":0,"removedSamplesForAcceleration":0,"audioLevel":0.01,"totalAudioEnergy":{n},"totalSamplesDuration":{n},"playoutId":"AP"}}"#
        ));
        let b = base("outbound-rtp", &format!("OT01V{number}735928559"));
        objects.push(format!(
            r#"{{{b},"ssrc":735928561,"kind":"video","transportId":"T01","codecId":"COT01_96","mediaType":"video","packetsSent":{n},"bytesSent":{n},"mid":"{number}","mediaSourceId":"SV{number}","remoteId":"RIV","rid":"r{number}","headerBytesSent":{n},"retransmittedPacketsSent":0,"retransmittedBytesSent":0,"targetBitrate":1500000,"totalEncodedBytesTarget":0,"frameWidth":1280,"frameHeight":720,"framesPerSecond":30,"framesSent":{n},"hugeFramesSent":0,"framesEncoded":{n},"keyFramesEncoded":12,"qpSum":{n},"totalEncodeTime":{n},"totalPacketSendDelay":{n},"qualityLimitationReason":"none","qualityLimitationDurations":{{"bandwidth":0,"cpu":0,"none":100.5,"other":0}},"qualityLimitationResolutionChanges":0,"encoderImplementation":"libvpx","firCount":0,"pliCount":2,"nackCount":0,"active":true,"scalabilityMode":"L1T1","powerEfficientEncoder":false}}"#
        ));
        for (kind, id) in [("remote-inbound-rtp", "RI"), ("remote-outbound-rtp", "RO"), ("media-source", "S")]
        {
            let b = base(kind, &format!("{id}V{number}"));
            objects.push(format!(
                r#"{{{b},"ssrc":735928561,"kind":"video","transportId":"T01","codecId":"COT01_96","packetsSent":{n},"localId":"OT01V{number}735928559","roundTripTime":0.021,"totalRoundTripTime":{n},"roundTripTimeMeasurements":{n},"frames":{n}}}"#
            ));
        }
        let b = base("candidate-pair", &format!("CPx{number}yz_abcdefgh"));
        objects.push(format!(
            r#"{{{b},"transportId":"T01","localCandidateId":"Ix{number}","remoteCandidateId":"Iy{number}","state":"succeeded","priority":179616219446525440,"nominated":true,"writable":true,"packetsSent":{n},"packetsReceived":{n},"bytesSent":{n},"bytesReceived":{n},"totalRoundTripTime":{n},"currentRoundTripTime":0.02,"availableOutgoingBitrate":{n},"requestsReceived":{n},"requestsSent":{n},"responsesReceived":{n},"responsesSent":{n},"consentRequestsSent":{n},"packetsDiscardedOnSend":0,"bytesDiscardedOnSend":0}}"#
        ));
        for kind in ["local-candidate", "remote-candidate", "codec"] {
            let b = base(kind, &format!("I{kind:.1}{number}"));
            objects.push(format!(
                r#"{{{b},"transportId":"T01","isRemote":false,"ip":"192.0.2.1","address":"192.0.2.1","port":50000,"protocol":"udp","candidateType":"host","priority":2122260223,"foundation":"{n}","usernameFragment":"abcd","networkType":"ethernet"}}"#
            ));
        }
    }
    objects
}
