//! The VP9 payload descriptor (RFC 9628 §4.2).

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::bytes::Reader;
use crate::payload::vp8::PictureId;

/// Most spatial layers a scalability structure describes.
pub const SPATIAL_LAYERS_MAX: usize = 8;

/// Which layer a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp9Layer {
    /// TID.
    pub temporal_id: u8,
    /// U: from here one may switch up to this temporal layer.
    pub switching_up_point: bool,
    /// SID.
    pub spatial_id: u8,
    /// D: the frame depends on the spatial layer below in the same picture.
    pub inter_layer_predicted: bool,
}

/// Frame sizes of the spatial layers, from a scalability structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScalabilityStructure {
    /// Number of spatial layers.
    pub spatial_layers: u8,
    /// Width and height in pixels per layer, where said.
    pub dimensions: Option<[(u16, u16); SPATIAL_LAYERS_MAX]>,
}

/// A parsed descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp9Descriptor {
    /// Running index of pictures.
    pub picture_id: Option<PictureId>,
    /// P: the frame depends on earlier pictures.
    pub inter_picture_predicted: bool,
    /// F: flexible mode.
    pub flexible: bool,
    /// B: the packet starts a frame of a layer.
    pub starts_layer_frame: bool,
    /// E: it ends one.
    pub ends_layer_frame: bool,
    /// Z: no higher spatial layer depends on this frame.
    pub not_reference_for_upper: bool,
    /// Layer indices.
    pub layer: Option<Vp9Layer>,
    /// TL0PICIDX, in non-flexible mode.
    pub tl0_picture_index: Option<u8>,
    /// V: a scalability structure is attached.
    pub structure: Option<ScalabilityStructure>,
    /// Length of the descriptor in bytes.
    pub len: usize,
}

impl Vp9Descriptor {
    /// Reads the descriptor at the front of a payload; `None` when it is cut off or has more than three references.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let flags = reader.u8()?;
        let (has_picture_id, has_layer, has_structure) =
            (flags & 0x80 != 0, flags & 0x20 != 0, flags & 0x02 != 0);
        let (predicted, flexible) = (flags & 0x40 != 0, flags & 0x10 != 0);
        let picture_id = if has_picture_id { Some(read_picture_id(&mut reader)?) } else { None };
        let (mut layer, mut tl0_picture_index) = (None, None);
        if has_layer {
            let byte = reader.u8()?;
            layer = Some(Vp9Layer {
                temporal_id: byte >> 5,
                switching_up_point: byte & 0x10 != 0,
                spatial_id: (byte >> 1) & 0x07,
                inter_layer_predicted: byte & 0x01 != 0,
            });
            if !flexible {
                tl0_picture_index = Some(reader.u8()?);
            }
        }
        if flexible && predicted {
            skip_references(&mut reader)?;
        }
        let structure = if has_structure { Some(read_structure(&mut reader)?) } else { None };
        Some(Self {
            picture_id,
            inter_picture_predicted: predicted,
            flexible,
            starts_layer_frame: flags & 0x08 != 0,
            ends_layer_frame: flags & 0x04 != 0,
            not_reference_for_upper: flags & 0x01 != 0,
            layer,
            tl0_picture_index,
            structure,
            len: payload.len().saturating_sub(reader.rest().len()),
        })
    }

    /// The spatial layer, 0 without layer indices.
    pub fn spatial_id(&self) -> u8 {
        self.layer.map_or(0, |layer| layer.spatial_id)
    }

    /// The temporal layer, 0 without layer indices.
    pub fn temporal_id(&self) -> u8 {
        self.layer.map_or(0, |layer| layer.temporal_id)
    }

    /// Whether the packet starts a key picture: its base layer depends on nothing before.
    pub fn starts_key_frame(&self) -> bool {
        let independent = self.layer.is_none_or(|layer| !layer.inter_layer_predicted);
        self.starts_layer_frame && !self.inter_picture_predicted && self.spatial_id() == 0 && independent
    }
}

fn read_picture_id(reader: &mut Reader<'_>) -> Option<PictureId> {
    let high = reader.u8()?;
    if high & 0x80 == 0 {
        return Some(PictureId { value: u16::from(high), is_long: false });
    }
    Some(PictureId { value: u16::from_be_bytes([high & 0x7f, reader.u8()?]), is_long: true })
}

/// Up to three reference indices, each but the last with its N bit set.
fn skip_references(reader: &mut Reader<'_>) -> Option<()> {
    for _ in 0..3 {
        if reader.u8()? & 1 == 0 {
            return Some(());
        }
    }
    None
}

fn read_structure(reader: &mut Reader<'_>) -> Option<ScalabilityStructure> {
    let flags = reader.u8()?;
    let spatial_layers = (flags >> 5).saturating_add(1);
    let mut dimensions = None;
    if flags & 0x10 != 0 {
        let sizes = dimensions.insert([(0, 0); SPATIAL_LAYERS_MAX]);
        for size in sizes.iter_mut().take(usize::from(spatial_layers)) {
            *size = (reader.u16()?, reader.u16()?);
        }
    }
    if flags & 0x08 != 0 {
        let pictures = reader.u8()?;
        for _ in 0..pictures {
            let references = usize::from((reader.u8()? >> 2) & 0x03);
            reader.take(references)?;
        }
    }
    Some(ScalabilityStructure { spatial_layers, dimensions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_frame_with_its_structure_is_read() {
        let payload = [
            0b1010_1010,
            0x85,
            0x39, // I, L, B, V; picture id 0x539
            0b0000_0000,
            7,           // TID 0, SID 0; TL0PICIDX
            0b0101_1000, // three layers, sizes, group of pictures
            0,
            160,
            0,
            90,
            1,
            64,
            0,
            180,
            2,
            128,
            1,
            104, // sizes
            2,
            0b0001_0100,
            1,
            0b0010_1000,
            1,
            2, // two pictures with one and two references
            0xaa,
        ];
        let descriptor = Vp9Descriptor::parse(&payload).unwrap();
        assert_eq!(descriptor.len, payload.len() - 1);
        assert!(descriptor.starts_key_frame());
        assert_eq!(descriptor.picture_id, Some(PictureId { value: 0x539, is_long: true }));
        assert_eq!(descriptor.tl0_picture_index, Some(7));
        let structure = descriptor.structure.unwrap();
        assert_eq!(structure.spatial_layers, 3);
        assert_eq!(structure.dimensions.unwrap()[..3], [(160, 90), (320, 180), (640, 360)]);
        for len in 0..payload.len() - 1 {
            assert_eq!(Vp9Descriptor::parse(&payload[..len]), None, "{len}");
        }
    }

    #[test]
    fn layers_and_references_of_flexible_mode_are_read() {
        let payload = [0b1111_0100, 0x05, 0b0101_0101, 0x03, 0x04, 0xaa];
        let descriptor = Vp9Descriptor::parse(&payload).unwrap();
        let layer = descriptor.layer.unwrap();
        assert_eq!((layer.temporal_id, layer.spatial_id), (2, 2));
        assert!(layer.switching_up_point && layer.inter_layer_predicted && descriptor.ends_layer_frame);
        assert_eq!((descriptor.tl0_picture_index, descriptor.len), (None, 5));
        assert!(!descriptor.starts_key_frame());
    }

    #[test]
    fn a_fourth_reference_is_refused() {
        assert_eq!(Vp9Descriptor::parse(&[0b0101_0000, 1, 1, 1, 0]), None);
    }

    #[test]
    fn an_upper_layer_of_a_key_picture_is_no_key_frame() {
        let payload = [0b0010_1000, 0b0000_0011, 7];
        let descriptor = Vp9Descriptor::parse(&payload).unwrap();
        assert_eq!(descriptor.spatial_id(), 1);
        assert!(!descriptor.starts_key_frame());
    }
}
