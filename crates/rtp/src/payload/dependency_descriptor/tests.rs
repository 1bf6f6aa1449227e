use super::*;
use proptest::prelude::*;

/// Writes bit fields, most significant bit first.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, value: u32, count: u32) -> &mut Self {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            bits.iter().enumerate().fold(0, |byte, (i, bit)| byte | u8::from(*bit) << (7 - i))
        };
        self.0.chunks(8).map(byte).collect()
    }
}

fn mandatory(bits: &mut Bits, template_id: u32, frame_number: u32) {
    bits.put(1, 1).put(0, 1).put(template_id, 6).put(frame_number, 16);
}

/// L2T2-like: templates (s0 t0), (s0 t1), (s1 t0), (s1 t1); four decode targets; two chains.
fn key_frame() -> Vec<u8> {
    let mut bits = Bits::default();
    mandatory(&mut bits, 62, 1000);
    bits.put(0b10000, 5); // structure, no overrides
    bits.put(62, 6).put(3, 5); // offset 62, four decode targets
    bits.put(1, 2).put(2, 2).put(1, 2).put(3, 2); // layers
    // Indications by template for targets (s0t0, s0t1, s1t0, s1t1).
    for indications in [[2, 2, 2, 2], [0, 1, 0, 1], [0, 0, 2, 2], [0, 0, 0, 1]] {
        for indication in indications {
            bits.put(indication, 2);
        }
    }
    // Frame differences: 4; 2; (4, 1); (2, 1).
    for diffs in [&[4_u32][..], &[2], &[4, 1], &[2, 1]] {
        for diff in diffs {
            bits.put(1, 1).put(diff - 1, 4);
        }
        bits.put(0, 1);
    }
    // Two chains of ns(5): m = 3, so 2 is written in two bits; protected by ns(2): one bit each.
    bits.put(2, 2);
    for chain in [0, 0, 1, 1] {
        bits.put(chain, 1);
    }
    for diffs in [[4, 3], [2, 1], [1, 1], [3, 2]] {
        for diff in diffs {
            bits.put(diff, 4);
        }
    }
    bits.put(1, 1); // resolutions
    for size in [319, 179, 639, 359] {
        bits.put(size, 16);
    }
    bits.bytes()
}

#[test]
fn a_key_frame_brings_its_structure() {
    let mut reader = DependencyDescriptorReader::new();
    let descriptor = reader.read(&key_frame()).unwrap();
    assert!(descriptor.has_structure && descriptor.start_of_frame && !descriptor.end_of_frame);
    assert_eq!((descriptor.frame_number, descriptor.active_decode_targets), (1000, Some(0b1111)));
    assert_eq!((descriptor.frame.spatial_id, descriptor.frame.temporal_id), (0, 0));
    let structure = reader.structure().unwrap();
    assert_eq!((structure.spatial_layers(), structure.chain_count()), (2, 2));
    assert_eq!(structure.resolutions, [(320, 180), (640, 360)]);
    let layers: Vec<_> = structure
        .decode_targets
        .iter()
        .map(|target| (target.spatial_id, target.temporal_id, target.protected_by))
        .collect();
    assert_eq!(layers, [(0, 0, Some(0)), (0, 1, Some(0)), (1, 0, Some(1)), (1, 1, Some(1))]);
}

#[test]
fn a_short_descriptor_refers_to_the_last_structure() {
    let mut reader = DependencyDescriptorReader::new();
    let mut bits = Bits::default();
    mandatory(&mut bits, 1, 1001); // (1 - 62) mod 64 = template 3
    let value = bits.bytes();
    assert_eq!(value.len(), 3);
    assert_eq!(reader.read(&value), Err(DependencyError::NoStructure));
    reader.read(&key_frame()).unwrap();
    let descriptor = reader.read(&value).unwrap();
    assert_eq!((descriptor.frame.spatial_id, descriptor.frame.temporal_id), (1, 1));
    assert_eq!((descriptor.frame.frame_diffs(), descriptor.frame.chain_diffs()), (&[2, 1][..], &[3, 2][..]));
    assert_eq!(descriptor.frame.indication(3), Indication::Discardable);
    assert_eq!(descriptor.frame.indication(0), Indication::NotPresent);
    assert_eq!((descriptor.has_structure, descriptor.active_decode_targets), (false, None));
}

#[test]
fn overrides_and_active_targets_are_read() {
    let mut reader = DependencyDescriptorReader::new();
    reader.read(&key_frame()).unwrap();
    let mut bits = Bits::default();
    mandatory(&mut bits, 62, 1002);
    bits.put(0b01111, 5).put(0b0011, 4);
    for indication in [3, 3, 0, 0] {
        bits.put(indication, 2);
    }
    bits.put(1, 2).put(6, 4).put(2, 2).put(99, 8).put(3, 2).put(4095, 12).put(0, 2);
    bits.put(8, 8).put(200, 8);
    let descriptor = reader.read(&bits.bytes()).unwrap();
    assert_eq!(descriptor.active_decode_targets, Some(0b0011));
    assert_eq!(descriptor.frame.indication(1), Indication::Required);
    assert_eq!(descriptor.frame.frame_diffs(), [7, 100, 4096]);
    assert_eq!(descriptor.frame.chain_diffs(), [8, 200]);
}

#[test]
fn a_template_beside_the_structure_is_not_known() {
    let mut reader = DependencyDescriptorReader::new();
    reader.read(&key_frame()).unwrap();
    let mut bits = Bits::default();
    mandatory(&mut bits, 2, 1001);
    assert_eq!(reader.read(&bits.bytes()), Err(DependencyError::NoStructure));
}

#[test]
fn a_cut_off_structure_leaves_the_last_one_in_place() {
    let whole = key_frame();
    let mut reader = DependencyDescriptorReader::new();
    reader.read(&whole).unwrap();
    let before = reader.structure().cloned();
    for len in 0..whole.len() - 1 {
        let _ = reader.read(&whole[..len]);
        assert_eq!(reader.structure().cloned(), before, "{len}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8)) {
        let mut reader = DependencyDescriptorReader::new();
        for value in values {
            if let Ok(descriptor) = reader.read(&value) {
                prop_assert!(descriptor.frame.frame_diffs().len() <= FRAME_DIFFS_MAX);
                prop_assert!(descriptor.frame.chain_diffs().len() <= CHAINS_MAX);
            }
        }
    }
}
