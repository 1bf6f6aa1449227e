//! Answers to a client that offers.

use super::answer_section::{Known, RtpAnswer};
use super::codec::{Codec, EnabledCodecs};
use super::error::NegotiateError;
use super::parameters::{DataSection, LocalParameters, Origin, role_for_offer};
use super::remote::{Body, RemoteDescription, RemoteSection};
use super::section::{NegotiatedSection, PublishedSection, TrackBinding};
use super::slots::{OFFERED_SECTIONS_MAX, Place, SectionsRequirement, Slot, Waiting};
use super::write::{LocalDescription, LocalMedia, LocalSection, setup_of};
use crate::DtlsRole;
use crate::sdp::MediaKind;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    pub sdp: LocalDescription,
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
    /// client's own order and format parameters. Give [`RemoteDescription::transport`] to the transport first: an ICE restart
    /// changes `local`.
    ///
    /// # Errors
    /// [`NegotiateError`]; nothing has changed then.
    pub fn answer(
        &mut self,
        offer: &RemoteDescription,
        decide: &mut dyn FnMut(&OfferedTrack<'_>) -> Option<PublishDecision>,
        local: &LocalParameters,
    ) -> Result<Answer, NegotiateError> {
        self.check(offer)?;
        let added = self.adopt(offer, decide);
        let reuse = !self.config.no_section_reuse;
        self.waiting.assign(places(&mut self.sections), reuse);
        let role = *self.role.get_or_insert_with(|| role_for_offer(offer.transport().parameters.setup));
        let fates = self.fates(offer);
        let sdp = self.describe(offer, &fates, role, local);
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

    /// What has to hold before anything changes.
    fn check(&self, offer: &RemoteDescription) -> Result<(), NegotiateError> {
        let (known, found) = (self.sections.len(), offer.sections.len());
        if found < known {
            return Err(NegotiateError::SectionsMissing { known, found });
        }
        let allowed = OFFERED_SECTIONS_MAX.saturating_add(self.waiting.asked_for());
        if found > allowed {
            return Err(NegotiateError::TooManyOffered { found, allowed });
        }
        Ok(())
    }

    fn bound(&self, track_id: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.is_bound_to(track_id))
    }

    /// Takes over the offer's m-lines; returns how many receiving ones are new.
    fn adopt(
        &mut self,
        offer: &RemoteDescription,
        decide: &mut dyn FnMut(&OfferedTrack<'_>) -> Option<PublishDecision>,
    ) -> SectionsRequirement {
        let mut added = SectionsRequirement::default();
        for (index, offered) in offer.sections.iter().enumerate() {
            if index >= self.sections.len() {
                self.sections.push(Section::new(&offered.mid, offered.kind));
            }
            let Some(section) = self.sections.get_mut(index) else { continue };
            let was_receiving = section.slot.receives;
            // An ended m-line may come back as another one (RFC 8829 §5.2.2).
            if section.mid != offered.mid || section.kind != offered.kind || offered.rejected {
                let fresh = Section::new(&offered.mid, offered.kind);
                let binding = std::mem::replace(section, fresh).slot.binding;
                binding.into_iter().for_each(|binding| self.waiting.displaced(binding));
            }
            if offered.rejected {
                continue;
            }
            let direction = offered.direction;
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
                let media = offered.media();
                let track = OfferedTrack {
                    mid: &offered.mid,
                    kind: section.kind,
                    stream_id: media.and_then(|media| media.stream_id.as_deref()),
                    track_id: media.and_then(|media| media.track_id.as_deref()),
                };
                section.decision = decide(&track).or(section.decision);
            }
        }
        added
    }

    fn fates(&mut self, offer: &RemoteDescription) -> Vec<Fate> {
        let (mut first, mut data_seen) = (true, false);
        let mut fates = Vec::with_capacity(self.sections.len());
        for (offered, section) in offer.sections.iter().zip(&mut self.sections) {
            // Without BUNDLE every m-line wants its own transport, and there is one.
            let bundled = if offer.bundle { offered.bundled } else { first };
            let known = Known {
                config: &self.config,
                published: section.published,
                decision: section.decision,
                slot: &section.slot,
                mixed_extmap: offer.mixed_extmap,
            };
            let fate = match &offered.body {
                _ if offered.rejected || !bundled => Fate::Rejected,
                Body::Data(data) if !data_seen => {
                    data_seen = true;
                    Fate::Data(*data)
                }
                Body::Rtp(media) => RtpAnswer::new(offered, media, known)
                    .map_or(Fate::Rejected, |answer| Fate::Rtp(Box::new(answer))),
                Body::Data(_) | Body::Other => Fate::Rejected,
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

    fn describe(
        &mut self,
        offer: &RemoteDescription,
        fates: &[Fate],
        role: DtlsRole,
        local: &LocalParameters,
    ) -> LocalDescription {
        let described = |((offered, section), fate): ((&RemoteSection, &Section), &Fate)| {
            let (protocol, mid) = (offered.line.protocol.clone(), section.mid.clone());
            match fate {
                Fate::Rejected => LocalSection::Rejected { line: offered.line.clone(), mid },
                Fate::Data(_) => LocalSection::Data { protocol, mid },
                Fate::Rtp(answer) => LocalSection::Rtp(Box::new(LocalMedia {
                    kind: section.kind,
                    protocol,
                    mid,
                    codecs: Arc::clone(&answer.codecs),
                    rtx_interleaved: false,
                    extensions: answer.extensions,
                    binding: section.slot.binding.clone(),
                    rids: answer.rids.clone(),
                    simulcast: answer.simulcast.clone(),
                    direction: answer.direction,
                })),
            }
        };
        LocalDescription {
            local: local.clone(),
            setup: setup_of(role),
            origin: self.origin.next(),
            mixed_extmap: offer.mixed_extmap,
            bundle: offer.bundle,
            sections: offer.sections.iter().zip(&self.sections).zip(fates).map(described).collect(),
        }
    }

    fn outcome(
        &self,
        offer: &RemoteDescription,
        fates: Vec<Fate>,
        sdp: LocalDescription,
        role: DtlsRole,
    ) -> Answer {
        let mut answer =
            Answer { sdp, dtls_role: role, published: Vec::new(), subscribed: Vec::new(), data: None };
        for ((offered, section), fate) in offer.sections.iter().zip(&self.sections).zip(fates) {
            match fate {
                Fate::Rejected => {}
                Fate::Data(data) => answer.data = Some(data),
                Fate::Rtp(rtp) => {
                    if section.published {
                        answer.published.extend(offered.media().map(|media| rtp.published(offered, media)));
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
