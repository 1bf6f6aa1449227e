//! What an offer of the server says of its tracks, read from the text: these clients share no code with the server.

use crate::outcome::Offered;
use std::collections::BTreeMap;

/// Tracks by media SSRC: `a=ssrc:N msid:STREAM TRACK` (RFC 5576) and `a=ssrc-group:FID MEDIA REPAIR` (§4.2).
pub(crate) fn offered_tracks(sdp: &str) -> BTreeMap<u32, Offered> {
    let mut tracks = BTreeMap::new();
    let mut repairs = BTreeMap::new();
    for line in sdp.lines() {
        if let Some(group) = line.strip_prefix("a=ssrc-group:FID ") {
            let mut ssrcs = group.split(' ').filter_map(|ssrc| ssrc.parse::<u32>().ok());
            if let (Some(media), Some(repair)) = (ssrcs.next(), ssrcs.next()) {
                repairs.insert(media, repair);
            }
        } else if let Some((ssrc, msid)) =
            line.strip_prefix("a=ssrc:").and_then(|rest| rest.split_once(" msid:"))
            && let (Ok(ssrc), Some((_, track))) = (ssrc.parse::<u32>(), msid.split_once(' '))
        {
            tracks.insert(ssrc, track.into());
        }
    }
    for repair in repairs.values() {
        tracks.remove(repair);
    }
    let offered = |(ssrc, track)| (ssrc, Offered { track, repair_ssrc: repairs.get(&ssrc).copied() });
    tracks.into_iter().map(offered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_one_track() {
        let sdp = "a=ssrc-group:FID 5 6\r\na=ssrc:5 cname:x\r\na=ssrc:5 msid:PA_a|TR_b TR_b\r\n\
                   a=ssrc:6 msid:PA_a|TR_b TR_b\r\na=ssrc:9 msid:PA_a TR_c\r\n";
        let offered = offered_tracks(sdp);
        assert_eq!(offered.len(), 2);
        assert_eq!(offered[&5], Offered { track: "TR_b".into(), repair_ssrc: Some(6) });
        assert_eq!(offered[&9], Offered { track: "TR_c".into(), repair_ssrc: None });
    }
}
