//! Offers to a client that subscribes (signalling v0).

use super::codec::{self, EnabledCodecs, OwnCodec};
use super::error::NegotiateError;
use super::extension;
use super::parameters::{DataSection, LocalParameters, Origin, role_for_offer};
use super::remote::{Body, MediaLine, RemoteCodec, RemoteDescription, RemoteExtension, RemoteSection};
use super::section::{NegotiatedCodec, NegotiatedSection, TrackBinding};
use super::write::{LocalDescription, LocalMedia, LocalSection};
use crate::sdp::{Direction, Feedback, MediaKind, SECTIONS_MAX};
use crate::{DtlsRole, Setup};
use fanlight_rtp::ExtensionMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Protocol of our RTP m-lines.
const RTP_PROTOCOL: &str = "UDP/TLS/RTP/SAVPF";
/// Protocol of our data channel m-line.
const DATA_PROTOCOL: &str = "UDP/DTLS/SCTP";

/// How to offer to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffererConfig {
    /// Codecs offered.
    pub enabled: EnabledCodecs,
    /// The client takes RED, so lost Opus need not be asked for again (not Firefox, not the Go SDK).
    pub red: bool,
    /// A freed section is not used again (Safari, protocol below 4).
    pub no_section_reuse: bool,
    /// We estimate the client's downlink from transport-wide feedback instead of REMB.
    pub send_side_bwe: bool,
}

impl Default for OffererConfig {
    fn default() -> Self {
        Self { enabled: EnabledCodecs::default(), red: true, no_section_reuse: false, send_side_bwe: false }
    }
}

/// What an answer settles.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Our DTLS role.
    pub dtls_role: DtlsRole,
    /// Sections on which we send from now on, in order.
    pub sections: Vec<NegotiatedSection>,
    /// Mids whose track the client refused: rejected, not received, or no codec in common.
    pub refused: Vec<String>,
    /// The data channel section, unless the client rejected it.
    pub data: Option<DataSection>,
    /// Something changed meanwhile: offer again.
    pub offer_needed: bool,
}

/// The m-lines of a connection on which we offer: data channels first, then tracks as they are subscribed.
#[derive(Debug)]
pub struct Offerer {
    origin: Origin,
    no_section_reuse: bool,
    sections: Vec<Section>,
    /// How many of them stand in the offer last made.
    described: usize,
    audio: Common,
    video: Common,
    outstanding: bool,
    dirty: bool,
    role: Option<DtlsRole>,
}

/// What the client is known to take for all sections of a kind. What it once left out is not offered again.
#[derive(Debug)]
struct Common {
    codecs: Vec<OwnCodec>,
    extensions: ExtensionMap,
}

#[derive(Debug)]
struct Section {
    kind: MediaKind,
    binding: Option<TrackBinding>,
    /// Track of the offer last made.
    offered: Option<String>,
    /// RTCP feedback per payload type as the client answered; audio only, video keeps ours.
    feedback: Option<Vec<(u8, Feedback)>>,
    /// The last track was stereo.
    stereo: bool,
    /// A track was offered here once.
    used: bool,
    /// The client rejected the m-line: it stays as it is (RFC 8829 §5.2.2 would let it be recycled; we never need to).
    rejected: bool,
}

impl Offerer {
    /// A connection with nothing but data channels.
    pub fn new(config: &OffererConfig, origin: Origin) -> Self {
        let common = |kind| Common {
            codecs: codec::own(kind, &config.enabled, config.red, config.send_side_bwe),
            extensions: extension::own(kind, config.send_side_bwe),
        };
        Self {
            origin,
            no_section_reuse: config.no_section_reuse,
            sections: Vec::new(),
            described: 0,
            audio: common(MediaKind::Audio),
            video: common(MediaKind::Video),
            outstanding: false,
            dirty: true,
            role: None,
        }
    }

    /// Puts a subscribed track on the lowest free section of its kind, else on a new one; returns the mid. It may be
    /// sent once an answer lists it in [`Answered::sections`].
    ///
    /// # Errors
    /// [`NegotiateError::TooManySections`].
    pub fn bind(&mut self, binding: TrackBinding) -> Result<String, NegotiateError> {
        if let Some(index) = self.sections.iter().position(|section| section.is_bound_to(&binding.track_id)) {
            return Ok(mid_of(index));
        }
        let free = self
            .sections
            .iter()
            .position(|section| section.kind == binding.kind && section.is_free(!self.no_section_reuse));
        let index = match free {
            Some(index) => index,
            // The data channels take one m-line.
            None if self.sections.len().saturating_add(1) >= SECTIONS_MAX => {
                return Err(NegotiateError::TooManySections);
            }
            None => {
                self.sections.push(Section::new(binding.kind));
                self.sections.len().saturating_sub(1)
            }
        };
        if let Some(section) = self.sections.get_mut(index) {
            section.stereo = binding.stereo;
            section.binding = Some(binding);
        }
        self.dirty = true;
        Ok(mid_of(index))
    }

    /// Frees the section of a track; returns its mid.
    pub fn unbind(&mut self, track_id: &str) -> Option<String> {
        let index = self.sections.iter().position(|section| section.is_bound_to(track_id))?;
        self.sections.get_mut(index)?.binding = None;
        self.dirty = true;
        Some(mid_of(index))
    }

    /// The next offer is due although no track changed (an ICE restart).
    pub fn mark_changed(&mut self) {
        self.dirty = true;
    }

    /// Whether an offer is to be made now: something changed and none is outstanding.
    pub fn needs_offer(&self) -> bool {
        self.dirty && !self.outstanding
    }

    /// Whether an answer is awaited.
    pub fn is_outstanding(&self) -> bool {
        self.outstanding
    }

    /// Gives up waiting for an answer, so that an offer can be made again (after a resume).
    pub fn abandon(&mut self) {
        self.outstanding = false;
        self.dirty = true;
    }

    /// Track ids by mid, for the offer message.
    pub fn mid_to_track_id(&self) -> BTreeMap<String, String> {
        let bound = |(index, section): (usize, &Section)| {
            section.binding.as_ref().map(|binding| (mid_of(index), binding.track_id.clone()))
        };
        self.sections.iter().enumerate().filter_map(bound).collect()
    }

    /// Makes the next offer.
    ///
    /// # Errors
    /// [`NegotiateError::OfferOutstanding`].
    pub fn offer(&mut self, local: &LocalParameters) -> Result<LocalDescription, NegotiateError> {
        if self.outstanding {
            return Err(NegotiateError::OfferOutstanding);
        }
        self.outstanding = true;
        self.dirty = false;
        self.described = self.sections.len();
        let data = LocalSection::Data { protocol: DATA_PROTOCOL.to_owned(), mid: "0".to_owned() };
        let (audio, video) = (&self.audio, &self.video);
        let sections = self.sections.iter_mut().enumerate();
        let rtp =
            sections.map(|(index, section)| section.describe(index, common(audio, video, section.kind)));
        Ok(LocalDescription {
            local: local.clone(),
            setup: Setup::ActPass,
            origin: self.origin.next(),
            mixed_extmap: true,
            bundle: true,
            sections: std::iter::once(data).chain(rtp).collect(),
        })
    }

    /// Takes the answer to the outstanding offer.
    ///
    /// # Errors
    /// [`NegotiateError`]; the offer stays outstanding then.
    pub fn handle_answer(&mut self, answer: &RemoteDescription) -> Result<Answered, NegotiateError> {
        if !self.outstanding {
            return Err(NegotiateError::NoOffer);
        }
        self.check(answer)?;
        self.outstanding = false;
        let role = *self.role.get_or_insert(role_for_offer(answer.transport().parameters.setup));
        let mut answered = Answered {
            dtls_role: role,
            sections: Vec::new(),
            refused: Vec::new(),
            data: None,
            offer_needed: false,
        };
        for (index, answer) in answer.sections.iter().enumerate() {
            match (index.checked_sub(1), &answer.body) {
                (None, Body::Data(data)) => answered.data = Some(*data),
                (None, _) => {}
                (Some(index), _) => self.take(index, answer, &mut answered),
            }
        }
        answered.offer_needed = self.dirty;
        Ok(answered)
    }

    fn take(&mut self, index: usize, answer: &RemoteSection, answered: &mut Answered) {
        let Some(section) = self.sections.get_mut(index) else { return };
        let offered = section.offered.clone();
        let codecs = section.answered_codecs(common(&self.audio, &self.video, section.kind), answer);
        let received = offered.is_some() && answer.direction.receives();
        if answer.rejected || (received && codecs.is_empty()) {
            section.rejected |= answer.rejected;
            answered.refused.extend(offered.is_some().then(|| mid_of(index)));
            if section.rejected {
                section.binding = None;
            }
            section.offered = None;
            return;
        }
        if offered.is_some() && !received {
            answered.refused.push(mid_of(index));
        }
        if !received {
            // Nothing can be learnt from a section that is not in use.
            return;
        }
        let common = if section.kind == MediaKind::Audio { &mut self.audio } else { &mut self.video };
        common.narrow(&codecs, answer);
        if section.kind == MediaKind::Audio {
            let feedback = codecs.iter().map(|codec| (codec.payload_type, codec.feedback)).collect();
            section.feedback = Some(feedback);
        }
        let still_bound =
            section.binding.as_ref().filter(|binding| Some(&binding.track_id) == offered.as_ref());
        if let Some(binding) = still_bound {
            answered.sections.push(NegotiatedSection {
                mid: mid_of(index),
                binding: binding.clone(),
                codecs: codecs.into(),
                extensions: extension::kept(&common.extensions, extensions(answer)),
            });
        }
    }

    /// The answer has the offer's m-lines in order; sections made since the offer are not among them.
    fn check(&self, answer: &RemoteDescription) -> Result<(), NegotiateError> {
        let (found, known) = (answer.sections.len(), self.described.saturating_add(1));
        if found < known {
            return Err(NegotiateError::SectionsMissing { known, found });
        }
        for (index, answer) in answer.sections.iter().enumerate() {
            let position = index.checked_sub(1);
            let kind = match position {
                None => Some(MediaKind::Application),
                Some(position) => self.sections.get(position).map(|section| section.kind),
            };
            let same_mid = answer.rejected || answer.mid.parse() == Ok(index);
            if index >= known || kind != Some(answer.kind) || !same_mid {
                return Err(NegotiateError::Mismatch { index });
            }
        }
        Ok(())
    }
}

fn common<'a>(audio: &'a Common, video: &'a Common, kind: MediaKind) -> &'a Common {
    if kind == MediaKind::Audio { audio } else { video }
}

fn extensions(answer: &RemoteSection) -> &[RemoteExtension] {
    answer.media().map(|media| media.extensions.as_slice()).unwrap_or_default()
}

fn mid_of(index: usize) -> String {
    index.saturating_add(1).to_string()
}

impl Common {
    /// Keeps what the client's answer keeps, and takes over its video format parameters (recorded: `level-idx=5;…` of
    /// Chromium's AV1, `max-fs=12288;…` of Firefox).
    fn narrow(&mut self, answered: &[NegotiatedCodec], answer: &RemoteSection) {
        self.codecs.retain_mut(|own| {
            let Some(kept) = answered.iter().find(|codec| codec.payload_type == own.payload_type) else {
                return false;
            };
            own.rtx_payload_type = kept.rtx_payload_type;
            if own.codec.kind() == MediaKind::Video && !kept.fmtp.is_empty() {
                own.fmtp = Arc::clone(&kept.fmtp);
            }
            true
        });
        self.extensions = extension::kept(&self.extensions, extensions(answer));
    }
}

impl Section {
    fn new(kind: MediaKind) -> Self {
        Self {
            kind,
            binding: None,
            offered: None,
            feedback: None,
            stereo: false,
            used: false,
            rejected: false,
        }
    }

    fn is_bound_to(&self, track_id: &str) -> bool {
        self.binding.as_ref().is_some_and(|binding| binding.track_id == track_id)
    }

    /// Free, and the client knows: browsers fire `track` only when a section comes back from inactive.
    fn is_free(&self, reuse: bool) -> bool {
        self.binding.is_none() && self.offered.is_none() && !self.rejected && (reuse || !self.used)
    }

    /// The section in the next offer.
    fn describe(&mut self, index: usize, common: &Common) -> LocalSection {
        if self.rejected {
            let format = common.codecs.first().map_or(0, |codec| codec.payload_type).to_string();
            let media = if self.kind == MediaKind::Audio { "audio" } else { "video" };
            let line = MediaLine { media: media.to_owned(), protocol: RTP_PROTOCOL.to_owned(), format };
            return LocalSection::Rejected { line, mid: mid_of(index) };
        }
        self.offered = self.binding.as_ref().map(|binding| binding.track_id.clone());
        self.used |= self.offered.is_some();
        LocalSection::Rtp(Box::new(LocalMedia {
            kind: self.kind,
            protocol: RTP_PROTOCOL.to_owned(),
            mid: mid_of(index),
            codecs: self.codecs(common),
            rtx_interleaved: true,
            extensions: common.extensions,
            binding: self.binding.clone(),
            rids: Vec::new(),
            simulcast: Vec::new(),
            direction: Direction::new(self.binding.is_some(), true),
        }))
    }

    fn codecs(&self, common: &Common) -> Arc<[NegotiatedCodec]> {
        let feedback = |own: &OwnCodec| match &self.feedback {
            Some(answered) => {
                let found = answered.iter().find(|(payload_type, _)| *payload_type == own.payload_type);
                found.map_or_else(Feedback::default, |(_, feedback)| *feedback)
            }
            None => own.feedback,
        };
        let fmtp = |own: &OwnCodec| match own.codec {
            codec::Codec::Opus if self.stereo => format!("{};sprop-stereo=1", own.fmtp).into(),
            _ => Arc::clone(&own.fmtp),
        };
        common
            .codecs
            .iter()
            .map(|own| NegotiatedCodec {
                codec: own.codec,
                payload_type: own.payload_type,
                rtx_payload_type: own.rtx_payload_type,
                clock_rate_hz: own.codec.clock_rate_hz(),
                channels: own.codec.channels(),
                fmtp: fmtp(own),
                feedback: feedback(own),
            })
            .collect()
    }

    /// The offered codecs that the answer keeps, with its format parameters, in its order.
    fn answered_codecs(&self, common: &Common, answer: &RemoteSection) -> Vec<NegotiatedCodec> {
        let offered = self.codecs(common);
        let kept = |answered: &RemoteCodec| {
            let own = offered.iter().find(|own| own.payload_type == answered.payload_type)?;
            (own.codec == answered.codec).then(|| NegotiatedCodec {
                fmtp: Arc::clone(&answered.fmtp),
                feedback: own.feedback.and(answered.feedback),
                rtx_payload_type: own.rtx_payload_type.filter(|rtx| answered.rtx_payload_type == Some(*rtx)),
                ..own.clone()
            })
        };
        answer.media().map(|media| media.codecs.iter().filter_map(kept).collect()).unwrap_or_default()
    }
}
