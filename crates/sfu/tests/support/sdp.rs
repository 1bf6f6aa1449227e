//! What the test clients say in SDP.

use super::client::Section;
use fanlight_events::Kind;
use fanlight_transport::RemoteParameters;
use fanlight_transport::negotiate::RemoteDescription;
use fanlight_transport::sdp::{MediaKind, SessionDescription};
use std::fmt::Write;

const AUDIO: &str = "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\n\
                     a=fmtp:63 111/111\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n";
const VIDEO: &str = "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\n\
                     a=rtcp-fb:96 transport-cc\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
                     a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n";
const MID: &str = "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";

const H264: &str = "a=rtpmap:108 H264/90000\r\n\
                    a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";
const RIDS: &str = "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
                    a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n";

fn session(bundle: usize) -> String {
    let mids: Vec<String> = (0..bundle).map(|mid| mid.to_string()).collect();
    format!("v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "))
}

fn transport_lines(text: &mut String, transport: &RemoteParameters, setup: &str, mid: &str) {
    let RemoteParameters { ufrag, password, fingerprint, .. } = transport;
    let password = password.reveal();
    let _ = write!(
        text,
        "c=IN IP4 0.0.0.0\r\na=setup:{setup}\r\na=mid:{mid}\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\n\
         a=fingerprint:{fingerprint}\r\n"
    );
}

/// An offer: the data channels on mid 0, then the sections.
pub fn offer(transport: &RemoteParameters, sections: &[Section]) -> RemoteDescription {
    let mut text = session(sections.len() + 1);
    text.push_str("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n");
    transport_lines(&mut text, transport, "actpass", "0");
    text.push_str("a=sctp-port:5000\r\na=max-message-size:65535\r\n");
    for (index, section) in sections.iter().enumerate() {
        let (media, codecs) = match section.kind {
            Kind::Audio => ("audio 9 UDP/TLS/RTP/SAVPF 111 63", AUDIO),
            Kind::Video if section.no_vp8 => ("video 9 UDP/TLS/RTP/SAVPF 108", H264),
            Kind::Video => ("video 9 UDP/TLS/RTP/SAVPF 96 97", VIDEO),
        };
        let _ = write!(text, "m={media}\r\n");
        transport_lines(&mut text, transport, "actpass", &(index + 1).to_string());
        let direction = match (section.sends, &section.cid) {
            (true, _) => "sendonly",
            (false, Some(_)) => "inactive",
            (false, None) => "recvonly",
        };
        let _ = write!(text, "a={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n{codecs}{MID}");
        let Some(cid) = section.cid.as_ref().filter(|_| section.sends) else { continue };
        let _ = write!(text, "a=msid:stream {cid}\r\n");
        if section.rids.is_empty() {
            let _ = write!(text, "a=ssrc:{} cname:client\r\n", Section::ssrc(index, 0));
            continue;
        }
        text.push_str(RIDS);
        for rid in section.rids {
            let _ = write!(text, "a=rid:{rid} send\r\n");
        }
        let _ = write!(text, "a=simulcast:send {}\r\n", section.rids.join(";"));
    }
    RemoteDescription::parse(&text).expect("an offer")
}

/// An answer that takes everything offered.
pub fn answer(transport: &RemoteParameters, offer: &SessionDescription) -> RemoteDescription {
    let mut text = session(offer.sections().len());
    for section in offer.sections() {
        let formats: Vec<&str> = section.formats().collect();
        let _ = write!(text, "m={} 9 {} {}\r\n", section.media(), section.protocol(), formats.join(" "));
        transport_lines(&mut text, transport, "active", section.mid().expect("a mid"));
        if section.kind() == MediaKind::Application {
            text.push_str("a=sctp-port:5000\r\na=max-message-size:65535\r\n");
            continue;
        }
        let direction = if section.direction().sends() { "recvonly" } else { "inactive" };
        let _ = write!(text, "a={direction}\r\na=rtcp-mux\r\n");
        for (name, value) in section.attributes() {
            if matches!(name, "rtpmap" | "fmtp" | "rtcp-fb" | "extmap") {
                let _ = write!(text, "a={name}:{value}\r\n");
            }
        }
    }
    RemoteDescription::parse(&text).expect("an answer")
}
