//! The dependency descriptor (RTP Payload Format For AV1 v1.0, appendix A): what a frame needs and who needs it.
//!
//! A key frame brings a [`TemplateStructure`]; the frames after it refer to its templates, so a
//! [`DependencyDescriptorReader`] keeps the last one.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::bytes::BitReader;

/// Bounds of the format: ids are 6 bits, the count of decode targets 5 bits plus one.
pub const TEMPLATES_MAX: usize = 64;
/// Decode targets at most.
pub const DECODE_TARGETS_MAX: usize = 32;
/// Chains at most: as many as decode targets.
pub const CHAINS_MAX: usize = 32;
/// Frame differences kept of a frame; further ones are read and dropped (no known encoder has more than three).
pub const FRAME_DIFFS_MAX: usize = 8;

/// Why a descriptor could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DependencyError {
    /// Cut off or out of bounds.
    #[error("malformed dependency descriptor")]
    Malformed,
    /// The structure it refers to is not known (yet).
    #[error("dependency descriptor without its template structure")]
    NoStructure,
}

/// How a decode target stands to a frame (A.8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Indication {
    /// The frame is not part of the decode target.
    NotPresent = 0,
    /// Part of it, and no later frame needs it.
    Discardable = 1,
    /// Part of it, and the target can be switched to here.
    Switch = 2,
    /// Part of it, and later frames may need it.
    Required = 3,
}

/// Dependencies of one frame, or of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameDependencies {
    /// Spatial layer.
    pub spatial_id: u8,
    /// Temporal layer.
    pub temporal_id: u8,
    /// Two bits per decode target, see [`FrameDependencies::indication`].
    indications: u64,
    frame_diffs: [u16; FRAME_DIFFS_MAX],
    frame_diff_count: u8,
    chain_diffs: [u8; CHAINS_MAX],
    chain_count: u8,
}

impl FrameDependencies {
    /// How this decode target stands to the frame.
    pub fn indication(&self, decode_target: u32) -> Indication {
        let shift = decode_target.saturating_mul(2);
        match self.indications.checked_shr(shift).unwrap_or(0) & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }

    /// How far back the frames lie that it refers to.
    pub fn frame_diffs(&self) -> &[u16] {
        self.frame_diffs.get(..usize::from(self.frame_diff_count)).unwrap_or_default()
    }

    /// How far back the previous frame of each chain lies, 0 for none.
    pub fn chain_diffs(&self) -> &[u8] {
        self.chain_diffs.get(..usize::from(self.chain_count)).unwrap_or_default()
    }

    fn push_frame_diff(&mut self, diff: u16) {
        if let Some(slot) = self.frame_diffs.get_mut(usize::from(self.frame_diff_count)) {
            *slot = diff;
            self.frame_diff_count = self.frame_diff_count.saturating_add(1);
        }
    }
}

/// The layer a decode target decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecodeTarget {
    /// Highest spatial layer of its frames.
    pub spatial_id: u8,
    /// Highest temporal layer of its frames.
    pub temporal_id: u8,
    /// The chain that protects it, when there are chains.
    pub protected_by: Option<u8>,
}

/// The templates that the frames of a coded video sequence refer to (A.8.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateStructure {
    template_id_offset: u8,
    chain_count: u8,
    templates: Vec<FrameDependencies>,
    /// What each decode target decodes.
    pub decode_targets: Vec<DecodeTarget>,
    /// Width and height in pixels per spatial layer; empty when not said.
    pub resolutions: Vec<(u32, u32)>,
}

impl TemplateStructure {
    /// Number of spatial layers.
    pub fn spatial_layers(&self) -> u8 {
        self.templates.last().map_or(0, |template| template.spatial_id.saturating_add(1))
    }

    /// Number of chains.
    pub const fn chain_count(&self) -> u8 {
        self.chain_count
    }

    fn template(&self, id: u8) -> Option<FrameDependencies> {
        let index = id.wrapping_sub(self.template_id_offset) & 0x3f;
        self.templates.get(usize::from(index)).copied()
    }
}

/// A descriptor, resolved against its structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyDescriptor {
    /// The packet starts a frame of a layer.
    pub start_of_frame: bool,
    /// It ends one.
    pub end_of_frame: bool,
    /// Running number of the frame.
    pub frame_number: u16,
    /// Whether a template structure came with it: a key frame.
    pub has_structure: bool,
    /// The decode targets still produced, one bit each, where this packet says so.
    pub active_decode_targets: Option<u32>,
    /// What the frame needs, and who needs it.
    pub frame: FrameDependencies,
}

/// Reads the descriptors of one stream.
#[derive(Debug, Clone, Default)]
pub struct DependencyDescriptorReader {
    structure: Option<TemplateStructure>,
}

impl DependencyDescriptorReader {
    /// A reader that waits for a key frame.
    pub const fn new() -> Self {
        Self { structure: None }
    }

    /// Reads the value of the extension and keeps the structure it brings.
    pub fn read(&mut self, value: &[u8]) -> Result<DependencyDescriptor, DependencyError> {
        let mut bits = BitReader::new(value);
        let mandatory = Mandatory::read(&mut bits).ok_or(DependencyError::Malformed)?;
        let flags = match value.len() {
            0..=3 => Flags::default(),
            _ => Flags::read(&mut bits).ok_or(DependencyError::Malformed)?,
        };
        if flags.structure {
            let structure = read_structure(&mut bits).ok_or(DependencyError::Malformed)?;
            let descriptor = resolve(&mut bits, mandatory, flags, &structure)?;
            self.structure = Some(structure);
            return Ok(descriptor);
        }
        let structure = self.structure.as_ref().ok_or(DependencyError::NoStructure)?;
        resolve(&mut bits, mandatory, flags, structure)
    }

    /// The structure the stream uses now.
    pub const fn structure(&self) -> Option<&TemplateStructure> {
        self.structure.as_ref()
    }
}

#[derive(Debug, Clone, Copy)]
struct Mandatory {
    start_of_frame: bool,
    end_of_frame: bool,
    template_id: u8,
    frame_number: u16,
}

impl Mandatory {
    fn read(bits: &mut BitReader<'_>) -> Option<Self> {
        Some(Self {
            start_of_frame: bits.bit()?,
            end_of_frame: bits.bit()?,
            template_id: bits.bits(6)? as u8,
            frame_number: bits.bits(16)? as u16,
        })
    }
}

/// Which optional parts follow (A.8.2, extended_descriptor_fields).
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    structure: bool,
    active_decode_targets: bool,
    custom_indications: bool,
    custom_frame_diffs: bool,
    custom_chains: bool,
}

impl Flags {
    fn read(bits: &mut BitReader<'_>) -> Option<Self> {
        Some(Self {
            structure: bits.bit()?,
            active_decode_targets: bits.bit()?,
            custom_indications: bits.bit()?,
            custom_frame_diffs: bits.bit()?,
            custom_chains: bits.bit()?,
        })
    }
}

fn resolve(
    bits: &mut BitReader<'_>,
    mandatory: Mandatory,
    flags: Flags,
    structure: &TemplateStructure,
) -> Result<DependencyDescriptor, DependencyError> {
    let targets = structure.decode_targets.len();
    let all_targets = u32::MAX.checked_shr(32_u32.saturating_sub(targets as u32)).unwrap_or(0);
    let mut active_decode_targets = flags.structure.then_some(all_targets);
    if flags.active_decode_targets {
        active_decode_targets = Some(bits.bits(targets as u32).ok_or(DependencyError::Malformed)?);
    }
    let template = structure.template(mandatory.template_id);
    // A frame from before the last structure, or after a lost one, may point beside the templates.
    let mut frame = template.ok_or(DependencyError::NoStructure)?;
    read_custom(bits, flags, structure, &mut frame).ok_or(DependencyError::Malformed)?;
    Ok(DependencyDescriptor {
        start_of_frame: mandatory.start_of_frame,
        end_of_frame: mandatory.end_of_frame,
        frame_number: mandatory.frame_number,
        has_structure: flags.structure,
        active_decode_targets,
        frame,
    })
}

/// Overrides of the template (A.8.2, frame_dependency_definition).
fn read_custom(
    bits: &mut BitReader<'_>,
    flags: Flags,
    structure: &TemplateStructure,
    frame: &mut FrameDependencies,
) -> Option<()> {
    if flags.custom_indications {
        frame.indications = read_indications(bits, structure.decode_targets.len())?;
    }
    if flags.custom_frame_diffs {
        frame.frame_diff_count = 0;
        loop {
            let size = bits.bits(2)?;
            if size == 0 {
                break;
            }
            let diff = bits.bits(size.saturating_mul(4))?;
            frame.push_frame_diff((diff as u16).saturating_add(1));
        }
    }
    if flags.custom_chains {
        for diff in frame.chain_diffs.iter_mut().take(usize::from(structure.chain_count)) {
            *diff = bits.bits(8)? as u8;
        }
    }
    Some(())
}

fn read_indications(bits: &mut BitReader<'_>, targets: usize) -> Option<u64> {
    let mut indications = 0_u64;
    for target in 0..targets as u32 {
        let indication = u64::from(bits.bits(2)?);
        indications |= indication.checked_shl(target.saturating_mul(2))?;
    }
    Some(indications)
}

fn read_structure(bits: &mut BitReader<'_>) -> Option<TemplateStructure> {
    let template_id_offset = bits.bits(6)? as u8;
    let targets = (bits.bits(5)? as usize).saturating_add(1);
    let mut templates = read_template_layers(bits)?;
    for template in &mut templates {
        template.indications = read_indications(bits, targets)?;
    }
    for template in &mut templates {
        while bits.bit()? {
            template.push_frame_diff((bits.bits(4)? as u16).saturating_add(1));
        }
    }
    let chain_count = bits.non_symmetric((targets as u32).saturating_add(1))? as u8;
    let mut decode_targets = vec![DecodeTarget::default(); targets];
    if chain_count > 0 {
        for target in &mut decode_targets {
            target.protected_by = Some(bits.non_symmetric(u32::from(chain_count))? as u8);
        }
        for template in &mut templates {
            template.chain_count = chain_count;
            for diff in template.chain_diffs.iter_mut().take(usize::from(chain_count)) {
                *diff = bits.bits(4)? as u8;
            }
        }
    }
    for (index, target) in decode_targets.iter_mut().enumerate() {
        for template in &templates {
            if template.indication(index as u32) != Indication::NotPresent {
                target.spatial_id = target.spatial_id.max(template.spatial_id);
                target.temporal_id = target.temporal_id.max(template.temporal_id);
            }
        }
    }
    let mut resolutions = Vec::new();
    if bits.bit()? {
        let spatial_layers = templates.last().map_or(0, |template| template.spatial_id.saturating_add(1));
        for _ in 0..spatial_layers {
            resolutions.push((bits.bits(16)?.saturating_add(1), bits.bits(16)?.saturating_add(1)));
        }
    }
    Some(TemplateStructure { template_id_offset, chain_count, templates, decode_targets, resolutions })
}

/// Which layer each template is for (A.8.2, template_layers).
fn read_template_layers(bits: &mut BitReader<'_>) -> Option<Vec<FrameDependencies>> {
    let mut templates = Vec::new();
    let (mut spatial_id, mut temporal_id) = (0_u8, 0_u8);
    while templates.len() < TEMPLATES_MAX {
        templates.push(FrameDependencies { spatial_id, temporal_id, ..FrameDependencies::default() });
        match bits.bits(2)? {
            0 => {}
            1 => temporal_id = temporal_id.saturating_add(1),
            2 => (spatial_id, temporal_id) = (spatial_id.saturating_add(1), 0),
            _ => return Some(templates),
        }
    }
    None
}

#[cfg(test)]
mod tests;
