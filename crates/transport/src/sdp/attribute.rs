//! The values of single attributes.

use super::SECTION_ITEMS_MAX;
use crate::Setup;

/// Attribute lines of a part as name and value.
pub(super) fn lines(part: &str) -> impl Iterator<Item = (&str, &str)> {
    part.lines()
        .filter_map(|line| line.strip_prefix("a="))
        .map(|attribute| attribute.split_once(':').unwrap_or((attribute, "")))
}

/// Which way media flows, as seen by the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// Only from the writer.
    SendOnly,
    /// Only to the writer.
    RecvOnly,
    /// Not now.
    Inactive,
}

impl Direction {
    /// The direction of this attribute name.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim_end() {
            "sendrecv" => Some(Self::SendRecv),
            "sendonly" => Some(Self::SendOnly),
            "recvonly" => Some(Self::RecvOnly),
            "inactive" => Some(Self::Inactive),
            _ => None,
        }
    }

    /// From what the writer does.
    pub const fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whether the writer sends.
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the writer receives.
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The attribute's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// Reads `a=setup` (RFC 8842); `holdconn` says nothing about a role.
pub(super) fn setup(value: &str) -> Option<Setup> {
    match value.trim() {
        "active" => Some(Setup::Active),
        "passive" => Some(Setup::Passive),
        "actpass" => Some(Setup::ActPass),
        _ => None,
    }
}

/// `a=ice-ufrag` and `a=ice-pwd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IceCredentials<'a> {
    /// User name fragment.
    pub ufrag: &'a str,
    /// Password.
    pub pwd: &'a str,
}

impl<'a> IceCredentials<'a> {
    pub(super) fn new(ufrag: Option<&'a str>, pwd: Option<&'a str>) -> Option<Self> {
        let (ufrag, pwd) = (ufrag?.trim(), pwd?.trim());
        (!ufrag.is_empty() && !pwd.is_empty()).then_some(Self { ufrag, pwd })
    }
}

/// `a=extmap:<id>[/<direction>] <uri> …`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtMap<'a> {
    /// The id; 1–14 fit the one-byte form, 1–255 the two-byte form.
    pub id: u8,
    /// Direction, when the writer limits it.
    pub direction: Option<Direction>,
    /// What the extension is.
    pub uri: &'a str,
}

impl<'a> ExtMap<'a> {
    pub(crate) fn parse(value: &'a str) -> Option<Self> {
        let mut fields = value.split_ascii_whitespace();
        let (id, direction) = match fields.next()?.split_once('/') {
            Some((id, direction)) => (id, Some(Direction::parse(direction)?)),
            None => (value.split_ascii_whitespace().next()?, None),
        };
        Some(Self { id: id.parse().ok().filter(|id| *id > 0)?, direction, uri: fields.next()? })
    }
}

/// `a=msid:<stream> [<track>]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msid<'a> {
    /// Stream id, `-` for none.
    pub stream: &'a str,
    /// Track id: LiveKit's clients write the track's cid here.
    pub track: Option<&'a str>,
}

impl<'a> Msid<'a> {
    pub(crate) fn parse(value: &'a str) -> Option<Self> {
        let mut fields = value.split_ascii_whitespace();
        Some(Self { stream: fields.next()?, track: fields.next() })
    }
}

/// `a=ssrc-group:<semantics> <ssrc>…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsrcGroup<'a> {
    /// `FID`, `SIM`, `FEC-FR` …
    pub semantics: &'a str,
    /// The members in order.
    pub ssrcs: Vec<u32>,
}

impl<'a> SsrcGroup<'a> {
    pub(crate) fn parse(value: &'a str) -> Option<Self> {
        let mut fields = value.split_ascii_whitespace();
        let semantics = fields.next()?;
        let ssrcs: Vec<u32> =
            fields.take(SECTION_ITEMS_MAX).map(|ssrc| ssrc.parse().ok()).collect::<Option<_>>()?;
        (!ssrcs.is_empty()).then_some(Self { semantics, ssrcs })
    }
}

/// Direction of a RID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RidDirection {
    /// The writer sends this stream.
    Send,
    /// The writer receives it.
    Recv,
}

/// `a=rid:<id> <direction> [<restrictions>]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rid<'a> {
    /// The id.
    pub id: &'a str,
    /// Direction.
    pub direction: RidDirection,
    /// Restrictions as written, empty when there are none.
    pub restrictions: &'a str,
}

impl<'a> Rid<'a> {
    pub(crate) fn parse(value: &'a str) -> Option<Self> {
        let mut fields = value.splitn(3, ' ');
        let id = fields.next().filter(|id| is_rid(id))?;
        let direction = match fields.next()? {
            "send" => RidDirection::Send,
            "recv" => RidDirection::Recv,
            _ => return None,
        };
        Some(Self { id, direction, restrictions: fields.next().unwrap_or_default() })
    }
}

/// One alternative of `a=simulcast`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulcastStream<'a> {
    /// The RID, without `~`.
    pub rid: &'a str,
    /// Written with `~`: not sent for now.
    pub paused: bool,
}

/// `a=simulcast`: streams in order, each with its alternatives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Simulcast<'a> {
    /// What the writer sends.
    pub send: Vec<Vec<SimulcastStream<'a>>>,
    /// What the writer receives.
    pub recv: Vec<Vec<SimulcastStream<'a>>>,
}

impl<'a> Simulcast<'a> {
    pub(crate) fn parse(value: &'a str) -> Self {
        let mut fields = value.split_ascii_whitespace();
        let mut simulcast = Self::default();
        while let (Some(direction), Some(streams)) = (fields.next(), fields.next()) {
            match direction {
                "send" => simulcast.send = streams_of(streams),
                "recv" => simulcast.recv = streams_of(streams),
                _ => {}
            }
        }
        simulcast
    }
}

fn streams_of(list: &str) -> Vec<Vec<SimulcastStream<'_>>> {
    let alternatives = |text| {
        let alternatives: Vec<_> = str::split(text, ',')
            .map(|rid: &str| SimulcastStream {
                rid: rid.trim_start_matches('~'),
                paused: rid.starts_with('~'),
            })
            .filter(|stream| is_rid(stream.rid))
            .take(SECTION_ITEMS_MAX)
            .collect();
        (!alternatives.is_empty()).then_some(alternatives)
    };
    list.split(';').filter_map(alternatives).take(SECTION_ITEMS_MAX).collect()
}

/// A RID is letters, digits, `-` and `_` (RFC 8851 §10); the limit is that of the header extension (RFC 8852 §3.1: a
/// one-byte extension holds 16 bytes).
fn is_rid(text: &str) -> bool {
    const RID_BYTES_MAX: usize = 16;
    !text.is_empty()
        && text.len() <= RID_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_may_carry_a_direction() {
        let extension = ExtMap::parse("8/sendonly https://x/#dd extra").unwrap();
        assert_eq!(extension, ExtMap { id: 8, direction: Some(Direction::SendOnly), uri: "https://x/#dd" });
        assert_eq!(ExtMap::parse("0 uri"), None);
        assert_eq!(ExtMap::parse("256 uri"), None);
        assert_eq!(ExtMap::parse("3"), None);
    }

    #[test]
    fn simulcast_keeps_order_and_pauses() {
        let simulcast = Simulcast::parse("send q;~h,x;f recv 1");
        let ids: Vec<_> = simulcast.send.iter().flatten().map(|stream| (stream.rid, stream.paused)).collect();
        assert_eq!(ids, [("q", false), ("h", true), ("x", false), ("f", false)]);
        assert_eq!(simulcast.recv.len(), 1);
        assert_eq!(Simulcast::parse("send"), Simulcast::default());
    }

    #[test]
    fn a_rid_with_restrictions_is_read() {
        let rid = Rid::parse("h send pt=96;max-width=640").unwrap();
        assert_eq!(
            (rid.id, rid.direction, rid.restrictions),
            ("h", RidDirection::Send, "pt=96;max-width=640")
        );
        assert_eq!(Rid::parse("h sideways"), None);
        assert_eq!(Rid::parse("h\u{e9} send"), None);
    }

    #[test]
    fn an_ssrc_group_needs_numbers() {
        assert_eq!(SsrcGroup::parse("FID 1 2").unwrap().ssrcs, [1, 2]);
        assert_eq!(SsrcGroup::parse("FID 1 x"), None);
        assert_eq!(SsrcGroup::parse("FID"), None);
    }
}
