//! One peer connection of a participant, on `str0m`: another stack than the server's, so its SRTP context is an
//! independent witness.

use crate::Failure;
use crate::payload::Medium;
use std::net::SocketAddr;
use std::time::Instant;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, Reliability};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

/// First RTP sequence number of every track.
const FIRST_SEQUENCE: u64 = 1_000;

/// What a connection says.
#[derive(Debug)]
pub(crate) enum Said {
    /// A datagram for the server, and which of its addresses it is for.
    Datagram { to: SocketAddr, bytes: Vec<u8> },
    /// A packet that arrived and was authentic.
    Packet { ssrc: u32, sequence: u64, payload: Vec<u8> },
}

/// A track that a connection sends.
#[derive(Debug)]
struct Sending {
    mid: Mid,
    medium: Medium,
    next: u64,
}

pub(crate) struct Connection {
    pub(crate) address: SocketAddr,
    pub(crate) connected: bool,
    /// When it wants to be called again.
    pub(crate) deadline: Instant,
    /// Where it sent last.
    pub(crate) remote: Option<SocketAddr>,
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    sending: Vec<Sending>,
    key_frame: bool,
    /// Media sections of the last offer that was taken.
    pub(crate) sections: usize,
    /// What it last said of itself.
    pub(crate) description: String,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr, now: Instant) -> Result<Self, Failure> {
        let mut rtc = Rtc::builder()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .set_rtp_mode(true)
            .build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp")?);
        Ok(Self {
            address,
            connected: false,
            deadline: now,
            remote: None,
            rtc,
            pending: None,
            sending: Vec::new(),
            key_frame: true,
            sections: 0,
            description: String::new(),
        })
    }

    /// An offer with the two data channels that LiveKit's clients open.
    pub(crate) fn offer_channels(&mut self) -> Result<String, Failure> {
        let mut changes = self.rtc.sdp_api();
        changes.add_channel("_reliable".to_owned());
        changes.add_channel_with_config(ChannelConfig {
            label: "_lossy".to_owned(),
            ordered: false,
            reliability: Reliability::MaxRetransmits { retransmits: 0 },
            ..Default::default()
        });
        let (offer, pending) = changes.apply().ok_or("nothing to offer")?;
        self.pending = Some(pending);
        self.description = offer.to_sdp_string();
        Ok(self.description.clone())
    }

    /// An offer with one more track for each of `cids`.
    pub(crate) fn offer(&mut self, medium: Medium, cids: &[String]) -> Result<String, Failure> {
        let kind = match medium {
            Medium::Video => MediaKind::Video,
            Medium::Audio => MediaKind::Audio,
        };
        let mut changes = self.rtc.sdp_api();
        for cid in cids {
            let stream = Some("stream".to_owned());
            let mid = changes.add_media(kind, Direction::SendOnly, stream, Some(cid.clone()), None);
            self.sending.push(Sending { mid, medium, next: 0 });
        }
        let (offer, pending) = changes.apply().ok_or("nothing to offer")?;
        self.pending = Some(pending);
        self.description = offer.to_sdp_string();
        Ok(self.description.clone())
    }

    /// Whether every offer has been answered.
    pub(crate) fn is_negotiated(&self) -> bool {
        self.pending.is_none()
    }

    pub(crate) fn take_answer(&mut self, sdp: &str) -> Result<(), Failure> {
        let pending = self.pending.take().ok_or("an answer without an offer")?;
        self.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(sdp)?)?;
        Ok(())
    }

    /// The answer to an offer.
    pub(crate) fn take_offer(&mut self, sdp: &str) -> Result<String, Failure> {
        let offer = SdpOffer::from_sdp_string(sdp)?;
        self.sections = sdp.matches("\nm=").count() - sdp.matches("\nm=application").count();
        self.description = self.rtc.sdp_api().accept_offer(offer)?.to_sdp_string();
        Ok(self.description.clone())
    }

    /// A trickled candidate; of TCP there is nothing to be had here.
    pub(crate) fn take_candidate(&mut self, line: &str) {
        if let Ok(candidate) = Candidate::from_sdp_string(line) {
            self.rtc.add_remote_candidate(candidate);
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> Result<(), Failure> {
        let receive = Receive::new(Protocol::Udp, from, self.address, bytes)?;
        self.rtc.handle_input(Input::Receive(now, receive))?;
        self.deadline = now;
        Ok(())
    }

    /// Writes the next packet of a track; gives its number.
    pub(crate) fn write(&mut self, now: Instant, track: usize, name: u32) -> Result<u64, Failure> {
        let sending = self.sending.get_mut(track).ok_or("no such track")?;
        let (medium, number) = (sending.medium, sending.next);
        let starts = number.is_multiple_of(crate::payload::FRAME_PACKETS);
        let key_frame = starts && std::mem::take(&mut self.key_frame);
        let media = self.rtc.media(sending.mid).ok_or("not negotiated")?;
        let payload_type = media.remote_pts().first().copied().ok_or("no payload type")?;
        let mut direct = self.rtc.direct_api();
        let stream = direct.stream_tx_by_mid(sending.mid, None).ok_or("no stream")?;
        let payload = medium.payload(name, number, key_frame);
        let sequence = (FIRST_SEQUENCE + number).into();
        let packet = RtpWrite::new(payload_type, sequence, medium.timestamp(number), now, payload);
        stream.write_rtp(packet.marker(medium.marker(number)).nackable(medium == Medium::Video));
        sending.next += 1;
        self.deadline = now;
        Ok(number)
    }

    /// Lets time pass and empties the connection.
    pub(crate) fn advance(&mut self, now: Instant, said: &mut impl FnMut(Said)) -> Result<(), Failure> {
        self.rtc.handle_input(Input::Timeout(now))?;
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.deadline = at;
                    return Ok(());
                }
                Output::Transmit(transmit) => {
                    self.remote = Some(transmit.destination);
                    said(Said::Datagram { to: transmit.destination, bytes: transmit.contents.to_vec() });
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::KeyframeRequest(_)) => self.key_frame = true,
                Output::Event(Event::RtpPacket(packet)) => said(Said::Packet {
                    ssrc: *packet.header.ssrc,
                    sequence: *packet.seq_no,
                    payload: packet.payload.to_vec(),
                }),
                Output::Event(_) => {}
            }
        }
    }
}
