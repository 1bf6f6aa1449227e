//! How much one report may hold, and how much is remembered of clients.

/// Bytes of a report's body: real ones have 20 to 200 kB.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Objects in a report; a call of fifty people has about 1,000 for each of them.
pub const OBJECTS_MAX: usize = 4_096;
/// Bytes of one object: certificates are the largest, with some 2 kB.
pub const OBJECT_BYTES_MAX: usize = 64 << 10;
/// Objects and arrays within each other in one object; the standard has records in objects, which are 2.
pub const DEPTH_MAX: usize = 32;
/// Bytes of an object's id. Firefox joins two candidates' ids and has some 80.
pub const ID_BYTES_MAX: usize = 255;
/// Bytes of an object's type.
pub const KIND_BYTES_MAX: usize = 128;
/// Bytes of what a report says beyond its known members.
pub const EXTRA_BYTES_MAX: usize = 16 << 10;
/// Objects remembered of one connection, to tell what is new; past it the connection is learned anew.
pub const CONNECTION_OBJECTS_MAX: usize = 16_384;
/// Reports from a clock that is further ahead than this are stored whole, and nothing is compared with them: 1 h.
pub const AHEAD_NS_MAX: u64 = 3_600_000_000_000;
