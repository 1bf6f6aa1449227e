//! Answers to a client that offers.

use super::answer_section::{Known, RtpAnswer};
use super::codec::{Codec, EnabledCodecs};
use super::error::NegotiateError;
use super::parameters::{DataSection, LocalParameters, Origin, role_for_offer};
use super::section::{NegotiatedSection, PublishedSection, TrackBinding};
use super::slots::{Place, SectionsRequirement, Slot, Waiting};
use super::write::{RtpPart, SessionPart, Writer, setup_of};
use crate::DtlsRole;
use crate::sdp::{MediaKind, MediaSection, SessionDescription};
use std::collections::{BTreeMap, BTreeSet};

/// How the client's connections are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Signalling v0: this one is for publishing only.
    DualPublisher,
    /// Signalling v1: the only one.
    Single,
}

/// How to answer a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswererConfig {
    /// v0 or v1.
    pub mode: Mode,
    /// Codecs taken from and sent to this client.
    pub enabled: EnabledCodecs,
    /// The answer keeps the requested video codec only, without RTX: Firefox on Linux and Android does not follow the
    /// order of an answer.
    pub requested_codec_only: bool,
    /// A freed section is not used again (Safari, protocol below 4).
    pub no_section_reuse: bool,
    /// We estimate the client's downlink from transport-wide feedback instead of REMB.
    pub send_side_bwe: bool,
}

impl AnswererConfig {
    /// Default codecs, no special client.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            enabled: EnabledCodecs::default(),
            requested_codec_only: false,
            no_section_reuse: false,
            send_side_bwe: false,
        }
    }
}

/// A section on which the client offers to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferedTrack<'a> {
    /// The mid.
    pub mid: &'a str,
    /// Audio or video.
    pub kind: MediaKind,
    /// First part of the msid.
    pub stream_id: Option<&'a str>,
    /// Second part of the msid: the `cid`.
    pub track_id: Option<&'a str>,
}

/// What was asked for with `add_track`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PublishDecision {
    /// The codec the client wants to publish with.
    pub requested_codec: Option<Codec>,
    /// RED may be used.
    pub red: bool,
    /// Stereo at full rate.
    pub stereo: bool,
    /// Opus may stop sending in silence.
    pub dtx: bool,
}

/// An answer and what it settles.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The description to send.
    pub sdp: String,
    /// Our DTLS role.
    pub dtls_role: DtlsRole,
    /// Sections on which the client sends or has sent, in order.
    pub published: Vec<PublishedSection>,
    /// Sections on which we send, in order.
    pub subscribed: Vec<NegotiatedSection>,
    /// The data channel section, when there is one.
    pub data: Option<DataSection>,
}

/// The m-lines of a connection on which the client offers.
#[derive(Debug)]
pub struct Answerer {
    config: AnswererConfig,
    origin: Origin,
    role: Option<DtlsRole>,
    sections: Vec<Section>,
    waiting: Waiting,
}

#[derive(Debug)]
struct Section {
    mid: String,
    kind: MediaKind,
    published: bool,
    decision: Option<PublishDecision>,
    slot: Slot,
}

/// What becomes of an offered m-line.
#[derive(Debug)]
enum Fate {
    Rtp(Box<RtpAnswer>),
    Data(DataSection),
    Rejected,
}

impl Answerer {
    /// A connection without sections.
    pub fn new(config: AnswererConfig, origin: Origin) -> Self {
        Self { config, origin, role: None, sections: Vec::new(), waiting: Waiting::default() }
    }

    /// Answers an offer.
    ///
    /// `decide` is asked for each section on which the client sends; `None` keeps what it said before, at first the
    /// client's own order and format parameters. Read [`super::RemoteTransport`] first: it refuses descriptions
    /// without ICE or fingerprint, and an ICE restart changes `local`.
    ///
    /// # Errors
    /// [`NegotiateError`]; nothing has changed then.
    pub fn answer(
        &mut self,
        offer: &SessionDescription,
        decide: &mut dyn FnMut(&OfferedTrack<'_>) -> Option<PublishDecision>,
        local: &LocalParameters,
    ) -> Result<Answer, NegotiateError> {
        check(offer, self.sections.len())?;
        let added = self.adopt(offer, decide);
        let reuse = !self.config.no_section_reuse;
        self.waiting.assign(places(&mut self.sections), reuse);
        let role = *self.role.get_or_insert_with(|| role_for_offer(offer));
        let fates = self.fates(offer);
        let sdp = self.render(offer, &fates, role, local);
        let answer = self.outcome(offer, fates, sdp, role);
        self.waiting.answered(places(&mut self.sections), added, reuse);
        Ok(answer)
    }

    /// Binds a subscribed track to the lowest free section of its kind and returns the mid; without a free section it
    /// waits for one. The track may be sent once an answer lists it in [`Answer::subscribed`].
    ///
    /// # Errors
    /// [`NegotiateError::TooManySections`] when too many wait.
    pub fn bind(&mut self, binding: TrackBinding) -> Result<Option<String>, NegotiateError> {
        if let Some(section) = self.bound(&binding.track_id) {
            return Ok(Some(section.mid.clone()));
        }
        if self.waiting.contains(&binding.track_id) {
            return Ok(None);
        }
        let reuse = !self.config.no_section_reuse;
        let index = self.waiting.bind(places(&mut self.sections), binding, reuse)?;
        Ok(index.and_then(|index| self.sections.get(index)).map(|section| section.mid.clone()))
    }

    /// Frees the section of a track, or stops waiting for one; returns the mid it had.
    pub fn unbind(&mut self, track_id: &str) -> Option<String> {
        self.waiting.forget(track_id);
        let section = self.sections.iter_mut().find(|section| section.is_bound_to(track_id))?;
        self.waiting.free(&mut section.slot);
        Some(section.mid.clone())
    }

    /// Tracks for which no section is free.
    pub fn unmatched(&self) -> SectionsRequirement {
        self.waiting.unmatched()
    }

    /// What to ask the client for now: sections to add, or (0, 0) for just an offer. Each need is reported once; the
    /// client's next offer clears it.
    pub fn requirement(&mut self) -> Option<SectionsRequirement> {
        let slots = self.sections.iter().map(|section| (section.kind, &section.slot));
        self.waiting.requirement(slots, !self.config.no_section_reuse)
    }

    /// Track ids by mid, for the answer message.
    pub fn mid_to_track_id(&self) -> BTreeMap<String, String> {
        let bound = |section: &Section| {
            section.slot.binding.as_ref().map(|binding| (section.mid.clone(), binding.track_id.clone()))
        };
        self.sections.iter().filter_map(bound).collect()
    }

    fn bound(&self, track_id: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.is_bound_to(track_id))
    }

    /// Takes over the offer's m-lines; returns how many receiving ones are new.
    fn adopt(
        &mut self,
        offer: &SessionDescription,
        decide: &mut dyn FnMut(&OfferedTrack<'_>) -> Option<PublishDecision>,
    ) -> SectionsRequirement {
        let mut added = SectionsRequirement::default();
        for (index, offered) in offer.sections().enumerate() {
            let mid = offered.mid().unwrap_or_default();
            if index >= self.sections.len() {
                self.sections.push(Section::new(mid, offered.kind()));
            }
            let Some(section) = self.sections.get_mut(index) else { continue };
            let was_receiving = section.slot.receives;
            // An ended m-line may come back as another one (RFC 8829 §5.2.2).
            if section.mid != mid || section.kind != offered.kind() || offered.is_rejected() {
                let binding = std::mem::replace(section, Section::new(mid, offered.kind())).slot.binding;
                binding.into_iter().for_each(|binding| self.waiting.displaced(binding));
            }
            if offered.is_rejected() {
                continue;
            }
            let direction = offered.direction();
            section.slot.receives = direction.receives() && self.config.mode == Mode::Single;
            if !section.slot.receives {
                section.slot.binding.take().into_iter().for_each(|binding| self.waiting.displaced(binding));
            }
            if section.slot.receives && !was_receiving {
                match section.kind {
                    MediaKind::Audio => added.audios = added.audios.saturating_add(1),
                    MediaKind::Video => added.videos = added.videos.saturating_add(1),
                    _ => {}
                }
            }
            if direction.sends() && matches!(section.kind, MediaKind::Audio | MediaKind::Video) {
                section.published = true;
                let msid = offered.msid();
                let track = OfferedTrack {
                    mid,
                    kind: section.kind,
                    stream_id: msid.map(|msid| msid.stream),
                    track_id: msid.and_then(|msid| msid.track),
                };
                section.decision = decide(&track).or(section.decision);
            }
        }
        added
    }

    fn fates(&mut self, offer: &SessionDescription) -> Vec<Fate> {
        let bundle = offer.bundle();
        let mixed_extmap = offer.allows_mixed_extmap();
        let (mut first, mut data_seen) = (true, false);
        let mut fates = Vec::with_capacity(self.sections.len());
        for (offered, section) in offer.sections().zip(&mut self.sections) {
            let bundled = match &bundle {
                Some(mids) => offered.mid().is_some_and(|mid| mids.contains(&mid)),
                // Without BUNDLE every m-line wants its own transport, and there is one.
                None => first,
            };
            let known = Known {
                config: &self.config,
                published: section.published,
                decision: section.decision,
                slot: &section.slot,
                mixed_extmap,
            };
            let fate = if offered.is_rejected() || !bundled {
                Fate::Rejected
            } else if is_data(&offered) && !data_seen {
                data_seen = true;
                Fate::Data(DataSection::read(&offered))
            } else if is_rtp(&offered) {
                RtpAnswer::new(&offered, known).map_or(Fate::Rejected, |answer| Fate::Rtp(Box::new(answer)))
            } else {
                Fate::Rejected
            };
            if matches!(fate, Fate::Rejected) {
                section.slot.receives = false;
                section.slot.binding.take().into_iter().for_each(|binding| self.waiting.displaced(binding));
            } else {
                first = false;
            }
            fates.push(fate);
        }
        fates
    }

    fn render(
        &mut self,
        offer: &SessionDescription,
        fates: &[Fate],
        role: DtlsRole,
        local: &LocalParameters,
    ) -> String {
        let taken = self.sections.iter().zip(fates).filter(|(_, fate)| !matches!(fate, Fate::Rejected));
        let bundle: Vec<&str> = taken.map(|(section, _)| section.mid.as_str()).collect();
        let part = SessionPart {
            origin: self.origin.next(),
            mixed_extmap: offer.allows_mixed_extmap(),
            bundle: if offer.bundle().is_some() { &bundle } else { &[] },
        };
        let mut writer = Writer::new(local, setup_of(role), &part);
        for ((offered, section), fate) in offer.sections().zip(&self.sections).zip(fates) {
            match fate {
                Fate::Rejected => {
                    let format = offered.formats().next().unwrap_or("0");
                    writer.rejected(offered.media(), offered.protocol(), format, &section.mid);
                }
                Fate::Data(_) => writer.data(offered.protocol(), &section.mid),
                Fate::Rtp(answer) => writer.rtp(&RtpPart {
                    kind: section.kind,
                    protocol: offered.protocol(),
                    mid: &section.mid,
                    codecs: &answer.codecs,
                    rtx_interleaved: false,
                    extensions: answer.extensions,
                    binding: section.slot.binding.as_ref(),
                    rids: &answer.rids,
                    simulcast: &answer.simulcast,
                    direction: answer.direction,
                }),
            }
        }
        writer.finish()
    }

    fn outcome(&self, offer: &SessionDescription, fates: Vec<Fate>, sdp: String, role: DtlsRole) -> Answer {
        let mut answer =
            Answer { sdp, dtls_role: role, published: Vec::new(), subscribed: Vec::new(), data: None };
        for ((offered, section), fate) in offer.sections().zip(&self.sections).zip(fates) {
            match fate {
                Fate::Rejected => {}
                Fate::Data(data) => answer.data = Some(data),
                Fate::Rtp(rtp) => {
                    if section.published {
                        answer.published.push(rtp.published(&offered, &section.mid));
                    }
                    if let Some(binding) = &section.slot.binding {
                        answer.subscribed.push(NegotiatedSection {
                            mid: section.mid.clone(),
                            binding: binding.clone(),
                            codecs: rtp.codecs,
                            extensions: rtp.extensions,
                        });
                    }
                }
            }
        }
        answer
    }
}

impl Section {
    fn new(mid: &str, kind: MediaKind) -> Self {
        Self { mid: mid.to_owned(), kind, published: false, decision: None, slot: Slot::default() }
    }

    fn is_bound_to(&self, track_id: &str) -> bool {
        self.slot.binding.as_ref().is_some_and(|binding| binding.track_id == track_id)
    }
}

fn places(sections: &mut [Section]) -> impl Iterator<Item = Place<'_>> {
    sections.iter_mut().map(|section| (section.kind, &mut section.slot))
}

fn is_rtp(section: &MediaSection<'_>) -> bool {
    matches!(section.kind(), MediaKind::Audio | MediaKind::Video)
        && (section.protocol().ends_with("TLS/RTP/SAVPF") || section.protocol() == "RTP/SAVPF")
}

fn is_data(section: &MediaSection<'_>) -> bool {
    section.kind() == MediaKind::Application
        && section.protocol().ends_with("DTLS/SCTP")
        && section.formats().any(|format| format == "webrtc-datachannel")
}

/// What has to hold before anything changes.
fn check(offer: &SessionDescription, known: usize) -> Result<(), NegotiateError> {
    let found = offer.sections().len();
    if found == 0 {
        return Err(NegotiateError::NoSections);
    }
    if found < known {
        return Err(NegotiateError::SectionsMissing { known, found });
    }
    let mut mids = BTreeSet::new();
    for section in offer.sections().filter(|section| !section.is_rejected()) {
        let mid = section.mid().ok_or(NegotiateError::NoMid { index: section.index() })?;
        if !mids.insert(mid) {
            return Err(NegotiateError::DuplicateMid { mid: mid.to_owned() });
        }
    }
    Ok(())
}
