//! Which crate may depend on which: the arrows of ARCHITECTURE.md, read from the manifests.

use std::fs;
use std::path::Path;

/// Crates without clock, socket, file, thread, lock and unseeded randomness.
pub(crate) const PURE: &[&str] =
    &["base", "events", "rtp", "bwe", "transport", "sfu", "turn", "control", "livekit", "telemetry"];
/// Crates that do the input and output for the pure ones.
const SHELL: &[&str] = &["shard", "http", "store", "cluster", "record"];
/// Crates for development only; nothing depends on them.
const DEVELOPMENT: &[&str] = &["sim", "bench", "xtask"];
/// A crate that tests share: a development dependency of any other.
const TESTING: &str = "corpus";

/// Crate → the crates it may name. What those may name is allowed as well.
const ARROWS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("events", &["base"]),
    ("rtp", &["base"]),
    ("bwe", &["base"]),
    ("transport", &["rtp"]),
    ("sfu", &["transport", "bwe", "events"]),
    ("turn", &["base", "events"]),
    ("control", &["sfu", "events"]),
    ("livekit", &["control", "events", "turn"]),
    ("telemetry", &["base", "events"]),
    ("shard", &["sfu", "turn"]),
    ("http", &["livekit", "control", "telemetry"]),
    ("store", &["telemetry"]),
    ("cluster", &["control"]),
    ("record", &["sfu"]),
    ("corpus", &["base"]),
    ("sim", PURE),
    ("xtask", &[]),
];

/// Outside crates that only these crates may name in `[dependencies]`.
const RESERVED: &[(&str, &[&str])] = &[
    ("is", &["transport"]),
    ("dimpl", &["transport"]),
    ("sctp-proto", &["transport"]),
    ("stun-types", &["turn"]),
    ("turn-types", &["turn"]),
    ("livekit-protocol", &["livekit", "telemetry"]),
    ("prost", &["livekit", "telemetry"]),
    ("pbjson-types", &["livekit"]),
    ("jsonwebtoken", &["livekit"]),
    ("rusqlite", &["store"]),
    ("tokio-postgres", &["store"]),
    ("redis", &["store", "cluster"]),
    ("quinn-udp", &["shard"]),
    ("rustls", &["shard", "store", "http", "fanlight"]),
    ("mio", &["shard"]),
    ("str0m", &[]),
    ("axum", &["http"]),
    ("tokio", &["http", "store", "cluster", "record", "fanlight"]),
    ("clap", &["fanlight"]),
];

/// Every dependency that breaks a rule.
pub(crate) fn findings(root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, manifest) in manifests(root) {
        let Ok(text) = fs::read_to_string(&manifest) else {
            findings.push(format!("{}: cannot be read", manifest.display()));
            continue;
        };
        for (section, dependency) in dependencies(&text) {
            findings.extend(judge(&name, section, &dependency).map(|why| format!("crates/{name}: {why}")));
        }
    }
    findings
}

fn manifests(root: &Path) -> Vec<(String, std::path::PathBuf)> {
    let mut found = vec![("xtask".to_string(), root.join("xtask/Cargo.toml"))];
    if let Ok(entries) = fs::read_dir(root.join("crates")) {
        for entry in entries.flatten() {
            let manifest = entry.path().join("Cargo.toml");
            if manifest.is_file() {
                found.push((entry.file_name().to_string_lossy().into_owned(), manifest));
            }
        }
    }
    found.sort();
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Normal,
    Development,
}

fn dependencies(manifest: &str) -> Vec<(Section, String)> {
    let mut section = None;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            section = match header.rsplit('.').next().unwrap_or(header) {
                "dependencies" | "build-dependencies" => Some(Section::Normal),
                "dev-dependencies" => Some(Section::Development),
                _ => None,
            };
            continue;
        }
        let name: String =
            line.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        if let (Some(section), false) = (section, name.is_empty()) {
            found.push((section, name));
        }
    }
    found
}

fn judge(name: &str, section: Section, dependency: &str) -> Option<String> {
    match dependency.strip_prefix("fanlight").map(|rest| rest.trim_start_matches('-')) {
        Some(TESTING) if section == Section::Development => None,
        Some(target) => judge_own(name, target),
        None if section == Section::Development || DEVELOPMENT.contains(&name) => None,
        None => {
            let (_, owners) = RESERVED.iter().find(|(reserved, _)| *reserved == dependency)?;
            (!owners.contains(&name)).then(|| format!("only {owners:?} may name `{dependency}`"))
        }
    }
}

fn judge_own(name: &str, target: &str) -> Option<String> {
    if target.is_empty() || target == TESTING || DEVELOPMENT.contains(&target) {
        return Some(format!("nothing depends on `fanlight-{target}`"));
    }
    if SHELL.contains(&name) && SHELL.contains(&target) {
        return Some(format!("a shell never depends on a shell (`fanlight-{target}`)"));
    }
    if matches!(name, "fanlight" | "bench") {
        return None;
    }
    let Some((_, direct)) = ARROWS.iter().find(|(owner, _)| *owner == name) else {
        return Some("is not in the arrows of xtask/src/layers.rs".to_string());
    };
    (!reaches(direct, target)).then(|| format!("may not depend on `fanlight-{target}`"))
}

fn reaches(from: &[&str], target: &str) -> bool {
    from.contains(&target)
        || from.iter().any(|next| {
            ARROWS.iter().find(|(owner, _)| owner == next).is_some_and(|(_, direct)| reaches(direct, target))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_reach_through_but_never_back() {
        assert_eq!(judge("livekit", Section::Normal, "fanlight-transport"), None);
        assert!(judge("rtp", Section::Normal, "fanlight-sfu").is_some());
        assert!(judge("base", Section::Normal, "fanlight-events").is_some());
        assert!(judge("http", Section::Normal, "fanlight-shard").is_some());
        assert!(judge("control", Section::Development, "fanlight-sim").is_some());
        assert_eq!(judge("rtp", Section::Development, "fanlight-corpus"), None);
        assert!(judge("rtp", Section::Normal, "fanlight-corpus").is_some());
    }

    #[test]
    fn reserved_names_stay_with_their_owner() {
        assert_eq!(judge("transport", Section::Normal, "dimpl"), None);
        assert!(judge("sfu", Section::Normal, "dimpl").is_some());
        assert_eq!(judge("transport", Section::Development, "str0m"), None);
        assert!(judge("transport", Section::Normal, "str0m").is_some());
    }

    #[test]
    fn dependencies_are_read_from_their_sections() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\"\n[features]\nc = []\n[dev-dependencies]\nd = \"1\"\n";
        assert_eq!(
            dependencies(manifest),
            [
                (Section::Normal, "a".to_string()),
                (Section::Normal, "b".to_string()),
                (Section::Development, "d".to_string())
            ]
        );
    }
}
