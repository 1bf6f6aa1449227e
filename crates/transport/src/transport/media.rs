//! SRTP inside a transport: the way of every packet.

use super::Transport;
use crate::dtls::{ExportedKeys, ExportedProfile};
use crate::event::{DtlsRole, Ignored, Received, ReceivedRtp, RtpOut, Sent, Stamps};
use fanlight_base::{Addresses, Now, SendBatch};
use fanlight_rtp::rtcp::TransportFeedback;
use fanlight_rtp::twcc::PacketResult;
use fanlight_rtp::{SrtpError, SrtpProfile, SrtpReceiver, SrtpSender};

/// abs-send-time of the loop turn: one clock reading serves all packets of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AbsSendTime {
    unix_ns: u64,
    value: u32,
}

impl AbsSendTime {
    /// 6.18 fixed point seconds: bits 14..38 of the NTP timestamp.
    fn at(&mut self, now: Now) -> u32 {
        if self.unix_ns != now.unix_ns || self.unix_ns == 0 {
            *self = Self { unix_ns: now.unix_ns, value: (now.ntp() >> 14) as u32 & 0x00ff_ffff };
        }
        self.value
    }
}

impl Transport {
    /// Seals a packet into the send batch and gives it the next transport-wide sequence number.
    ///
    /// `None`: nothing was sent, because there is no tuple, no key, or an offset lies outside the header. An (SSRC,
    /// extended sequence number) must never seal two different packets; that is the caller's to keep.
    pub fn send_rtp(&mut self, now: Now, batch: &mut SendBatch, out: &RtpOut<'_>) -> Option<Sent> {
        let stamps =
            Stamps { transport_cc: self.send_log.next_number(), abs_send_time: self.abs_send_time.at(now) };
        let sent = self.seal(batch, out, stamps)?;
        if sent.transport_cc.is_some() {
            self.send_log.record(now.mono(), sent.bytes);
        }
        Some(sent)
    }

    /// Sends a packet again, byte for byte: same header, payload and stamps as the first time (a codec without RTX).
    /// Same nonce, same plaintext: nothing is given away, and the peer's replay window drops it when it had it.
    pub fn resend_rtp(&mut self, batch: &mut SendBatch, out: &RtpOut<'_>, stamps: Stamps) -> Option<Sent> {
        self.seal(batch, out, stamps)
    }

    /// Seals a compound RTCP packet into the send batch; false when nothing was sent.
    pub fn send_rtcp(&mut self, batch: &mut SendBatch, compound: &[u8]) -> bool {
        let (Some(path), Some(sender)) = (self.path, &mut self.sender) else {
            self.counters.unsendable += 1;
            return false;
        };
        self.rtcp.clear();
        self.rtcp.extend_from_slice(compound);
        if sender.seal_rtcp(&mut self.rtcp).is_err() {
            self.counters.unsendable += 1;
            return false;
        }
        batch.push(path, &mut self.control_run, self.rtcp.len()).copy_from_slice(&self.rtcp);
        self.counters.rtcp_sent += 1;
        true
    }

    /// The number the next packet with the extension gets.
    pub const fn next_transport_cc(&self) -> u16 {
        self.send_log.next_number()
    }

    /// Takes the peer's transport-wide feedback; what became of which packet is appended to `results`.
    pub fn handle_transport_feedback(
        &mut self,
        feedback: &TransportFeedback<'_>,
        results: &mut Vec<PacketResult>,
    ) {
        let known = results.len();
        self.send_log.handle_feedback(feedback, results);
        for result in results.iter().skip(known) {
            let counter = match result.arrival_us {
                Some(_) => &mut self.counters.feedback_received,
                None => &mut self.counters.feedback_lost,
            };
            *counter += 1;
        }
    }

    fn seal(&mut self, batch: &mut SendBatch, out: &RtpOut<'_>, stamps: Stamps) -> Option<Sent> {
        let (Some(path), Some(sender)) = (self.path, &mut self.sender) else {
            self.counters.unsendable += 1;
            return None;
        };
        let header_bytes = out.header.len();
        let payload_bytes = out.prefix.len() + out.payload.len() + usize::from(out.padding_bytes);
        let bytes = header_bytes + payload_bytes + sender.overhead();
        let buffer = batch.push(path, &mut self.media_run, bytes);
        let sealed = write_plain(buffer, out, stamps).is_some()
            && sender.seal_rtp(buffer, header_bytes, out.extended_sequence).is_ok();
        if !sealed {
            batch.undo(&self.media_run, bytes);
            self.counters.unsendable += 1;
            return None;
        }
        self.counters.rtp_sent += 1;
        let transport_cc = out.transport_cc_offset.map(|_| stamps.transport_cc);
        Some(Sent { transport_cc, stamps, bytes })
    }

    pub(super) fn receive_rtp<'a>(
        &mut self,
        now: Now,
        addresses: Addresses,
        bytes: &'a mut [u8],
    ) -> Received<'a> {
        let receiver = match self.media_receiver(addresses) {
            Ok(receiver) => receiver,
            Err(ignored) => return self.ignore(ignored),
        };
        let opened = match receiver.open_rtp(bytes) {
            Ok(opened) => opened,
            Err(error) => return self.ignore(reason(error)),
        };
        let Some(packet) = bytes.get_mut(..opened.len) else { return self.ignore(Ignored::Malformed) };
        self.counters.rtp += 1;
        self.opened(now, addresses);
        let (header, extended_sequence) = (opened.header, opened.extended_sequence);
        Received::Rtp(ReceivedRtp { packet, header, extended_sequence })
    }

    pub(super) fn receive_rtcp<'a>(
        &mut self,
        now: Now,
        addresses: Addresses,
        bytes: &'a mut [u8],
    ) -> Received<'a> {
        let receiver = match self.media_receiver(addresses) {
            Ok(receiver) => receiver,
            Err(ignored) => return self.ignore(ignored),
        };
        let len = match receiver.open_rtcp(bytes) {
            Ok(len) => len,
            Err(error) => return self.ignore(reason(error)),
        };
        let Some(packet) = bytes.get(..len) else { return self.ignore(Ignored::Malformed) };
        self.counters.rtcp += 1;
        self.opened(now, addresses);
        Received::Rtcp(packet)
    }

    /// Makes the SRTP contexts; false when lengths do not fit.
    pub(super) fn install_keys(&mut self, keys: &ExportedKeys) -> bool {
        let profile = match keys.profile {
            ExportedProfile::Aes128CmSha1_80 => SrtpProfile::Aes128CmHmacSha1_80,
            ExportedProfile::AeadAes128Gcm => SrtpProfile::AeadAes128Gcm,
            ExportedProfile::AeadAes256Gcm => SrtpProfile::AeadAes256Gcm,
        };
        let contexts = split_keys(profile, keys.material.reveal()).and_then(|halves| {
            let (client, server) = halves;
            let (ours, theirs) =
                if self.role == Some(DtlsRole::Active) { (client, server) } else { (server, client) };
            let sender = SrtpSender::new(profile, ours.0, ours.1).ok()?;
            let receiver = SrtpReceiver::new(profile, theirs.0, theirs.1).ok()?;
            Some((sender, receiver))
        });
        let Some((sender, receiver)) = contexts else { return false };
        self.sender = Some(sender);
        self.receiver = Some(receiver);
        true
    }

    /// The receiver, when the packet's address has been verified; the last one that sent something authentic needs no look-up.
    fn media_receiver(&mut self, addresses: Addresses) -> Result<&mut SrtpReceiver, Ignored> {
        if self.media_from != Some(addresses) && !self.ice.is_valid(addresses) {
            return Err(Ignored::UnverifiedAddress);
        }
        self.receiver.as_mut().ok_or(Ignored::NoKeys)
    }

    /// A packet from there was authentic.
    fn opened(&mut self, now: Now, addresses: Addresses) {
        if self.media_from != Some(addresses) {
            self.note_media();
            self.media_from = Some(addresses);
        }
        self.media_at = now.mono();
    }

    fn ignore<'a>(&mut self, ignored: Ignored) -> Received<'a> {
        self.count_ignored(ignored);
        Received::Nothing(ignored)
    }
}

type KeyAndSalt<'a> = (&'a [u8], &'a [u8]);

/// Client key, server key, client salt, server salt (RFC 5764 §4.2): the client's pair and the server's.
fn split_keys(profile: SrtpProfile, material: &[u8]) -> Option<(KeyAndSalt<'_>, KeyAndSalt<'_>)> {
    let (client_key, rest) = material.split_at_checked(profile.key_len())?;
    let (server_key, rest) = rest.split_at_checked(profile.key_len())?;
    let (client_salt, rest) = rest.split_at_checked(profile.salt_len())?;
    let server_salt = rest.get(..profile.salt_len())?;
    Some(((client_key, client_salt), (server_key, server_salt)))
}

fn write_plain(buffer: &mut [u8], out: &RtpOut<'_>, stamps: Stamps) -> Option<()> {
    let (header, rest) = buffer.split_at_mut_checked(out.header.len())?;
    header.copy_from_slice(out.header);
    if let Some(offset) = out.transport_cc_offset {
        *header.get_mut(offset..)?.first_chunk_mut()? = stamps.transport_cc.to_be_bytes();
    }
    if let Some(offset) = out.abs_send_time_offset {
        let [_, high, middle, low] = stamps.abs_send_time.to_be_bytes();
        *header.get_mut(offset..)?.first_chunk_mut()? = [high, middle, low];
    }
    let (prefix, rest) = rest.split_at_mut_checked(out.prefix.len())?;
    prefix.copy_from_slice(out.prefix);
    let (payload, rest) = rest.split_at_mut_checked(out.payload.len())?;
    payload.copy_from_slice(out.payload);
    if out.padding_bytes > 0 {
        let padding = rest.get_mut(..usize::from(out.padding_bytes))?;
        padding.fill(0);
        *padding.last_mut()? = out.padding_bytes;
    }
    Some(())
}

const fn reason(error: SrtpError) -> Ignored {
    match error {
        SrtpError::Authentication => Ignored::WrongTag,
        SrtpError::Replayed | SrtpError::TooOld => Ignored::Replayed,
        SrtpError::Malformed | SrtpError::TooManySsrcs | SrtpError::KeyUsedUp | SrtpError::KeyLength => {
            Ignored::Malformed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out<'a>(header: &'a [u8], payload: &'a [u8]) -> RtpOut<'a> {
        RtpOut {
            header,
            prefix: &[],
            payload,
            padding_bytes: 0,
            extended_sequence: 0,
            transport_cc_offset: None,
            abs_send_time_offset: None,
        }
    }

    #[test]
    fn stamps_prefix_and_padding_stand_where_they_belong() {
        let plain = RtpOut {
            prefix: &[8],
            padding_bytes: 3,
            transport_cc_offset: Some(1),
            abs_send_time_offset: Some(3),
            ..out(&[0; 7], &[9; 2])
        };
        let mut buffer = [0xee; 16];
        let stamps = Stamps { transport_cc: 0x0102, abs_send_time: 0x000a_0b0c };
        assert_eq!(write_plain(&mut buffer, &plain, stamps), Some(()));
        assert_eq!(buffer, [0, 1, 2, 0x0a, 0x0b, 0x0c, 0, 8, 9, 9, 0, 0, 3, 0xee, 0xee, 0xee]);
    }

    #[test]
    fn an_offset_outside_the_header_writes_nothing_anywhere() {
        let plain = RtpOut { transport_cc_offset: Some(6), ..out(&[0; 7], &[9; 2]) };
        assert_eq!(write_plain(&mut [0; 30], &plain, Stamps::default()), None);
        let plain = RtpOut { abs_send_time_offset: Some(usize::MAX), ..plain };
        assert_eq!(write_plain(&mut [0; 30], &plain, Stamps::default()), None);
    }

    #[test]
    fn abs_send_time_is_the_middle_of_the_ntp_timestamp() {
        let mut time = AbsSendTime::default();
        let now = |unix_ns| Now { mono_ns: 0, unix_ns };
        // 2,208,988,800 s is 0 modulo 64; half a second is 2^17 units.
        assert_eq!(time.at(now(500_000_000)), 1 << 17);
        assert_eq!(time.at(now(63_000_000_000)), 63 << 18);
        assert_eq!(time.at(now(64_000_000_000)), 0);
    }

    #[test]
    fn keys_are_cut_in_the_order_of_rfc_5764() {
        let material: Vec<u8> = (0..56).collect();
        let ((client_key, client_salt), (server_key, server_salt)) =
            split_keys(SrtpProfile::AeadAes128Gcm, &material).expect("long enough");
        assert_eq!((client_key[0], server_key[0], client_salt[0], server_salt[0]), (0, 16, 32, 44));
        assert_eq!(server_salt.len(), 12);
        assert!(split_keys(SrtpProfile::AeadAes256Gcm, &material).is_none());
    }
}
