//! Reports as Sora posts them, of the size of a call in Chromium.
//!
//! Every number of ten digits in them changes with every report, and each object has some: each object is a row.

/// Reports of a connection: an hour of minutes. Then the peer is in another call.
pub(super) const CALL_STEPS: u64 = 60;
const NUMBER: &str = "1111111111";
const TIME: &str = "2024-01-01T00:00:00.000000Z";
const CONNECTION: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A report as text, with places that are written over.
pub(super) struct Bodies {
    text: Vec<u8>,
    connection: usize,
    time: usize,
    counters: Vec<usize>,
}

impl Bodies {
    pub(super) fn new() -> Self {
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

    /// What a peer says in a minute.
    pub(super) fn body(&self, peer: u64, step: u64) -> Vec<u8> {
        let mut text = self.text.clone();
        let (minute, hour) = (step % 60, step / 60 % 24);
        let (day, month) = (step / 1_440 % 28 + 1, step / 40_320 % 12 + 1);
        let time = format!("2024-{month:02}-{day:02}T{hour:02}:{minute:02}:00.{peer:06}Z");
        put(&mut text, self.connection, &format!("C{:012}P{peer:012}", step / CALL_STEPS));
        put(&mut text, self.time, &time);
        for (counter, place) in self.counters.iter().enumerate() {
            let value = 1_000_000_000 + (step * 7_919 + peer) * (counter as u64 + 1) % 8_000_000_000;
            put(&mut text, *place, &value.to_string());
        }
        text
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

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_telemetry::collector::{Dedup, DedupSettings};
    use fanlight_telemetry::decode::kohaku::{Kind, parse};

    #[test]
    fn every_object_of_every_report_is_new() {
        let bodies = Bodies::new();
        let mut dedup = Dedup::new(DedupSettings::default(), 1);
        for (peer, step) in [(0, 0), (1, 0), (0, 1), (0, 2), (0, CALL_STEPS), (999_999, 40_320 * 12)] {
            let report = parse(Kind::UserAgent, &bodies.body(peer, step)).unwrap();
            let planned = dedup.plan(report.at_ns / 1_000_000, report);
            assert_eq!((planned.objects().count(), planned.unchanged()), (40, 0));
        }
    }
}
