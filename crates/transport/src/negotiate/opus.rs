//! What the answer tells a publisher's Opus encoder.

use crate::sdp::format_parameters;

/// Rewrites the client's Opus parameters as LiveKit does for a track: DTX on unless forbidden, stereo at full rate when
/// asked for, otherwise mono. An `fmtp` the client did not write is not invented.
pub(super) fn answer_fmtp(offered: &str, dtx: bool, stereo: bool) -> String {
    if offered.is_empty() {
        return String::new();
    }
    let ours: &[(&str, &str)] = &[("usedtx", "1"), ("stereo", "1"), ("maxaveragebitrate", "510000")];
    let wanted = |name: &str| if name == "usedtx" { dtx } else { stereo };
    let mut parts: Vec<String> = format_parameters(offered)
        .filter(|(name, _)| {
            let is_ours = ours.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
            // The client's own rate limit stays when nobody asks for more.
            !is_ours || (name.eq_ignore_ascii_case("maxaveragebitrate") && !stereo)
        })
        .map(|(name, value)| if value.is_empty() { name.to_owned() } else { format!("{name}={value}") })
        .collect();
    parts.extend(ours.iter().filter(|(name, _)| wanted(name)).map(|(name, value)| format!("{name}={value}")));
    parts.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mono_track_loses_stereo_and_gains_dtx() {
        let fmtp = answer_fmtp("minptime=10;stereo=1;useinbandfec=1", true, false);
        assert_eq!(fmtp, "minptime=10;useinbandfec=1;usedtx=1");
    }

    #[test]
    fn a_stereo_track_gets_the_full_rate() {
        let fmtp = answer_fmtp("minptime=10;useinbandfec=1;stereo=1", false, true);
        assert_eq!(fmtp, "minptime=10;useinbandfec=1;stereo=1;maxaveragebitrate=510000");
    }

    #[test]
    fn nothing_is_invented_and_a_rate_limit_stays() {
        assert_eq!(answer_fmtp("", true, true), "");
        assert_eq!(answer_fmtp("maxaveragebitrate=24000;usedtx=1", false, false), "maxaveragebitrate=24000");
    }
}
