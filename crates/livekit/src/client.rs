//! What a client says of itself, and what the server has to do differently for it.

use crate::http_rules::{HttpRequest, Parameters};
use fanlight_events::ClientFacts;
use fanlight_sfu::input::Quirks;
use livekit_protocol as proto;
use proto::client_info::{Capability, Sdk};

/// Longest text kept of what a client says of itself, bytes; it ends up in the record.
const FACT_BYTES_MAX: usize = 256;
/// Most capabilities kept; LiveKit names two.
const CAPABILITIES_MAX: usize = 32;

/// A client as its join describes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Client {
    info: proto::ClientInfo,
}

impl Client {
    /// From the query of a v0 join.
    pub fn from_parameters(parameters: &Parameters) -> Self {
        let text = |name| parameters.get(name).to_owned();
        // A number that does not parse is 0, as LiveKit reads it.
        let number = |name| parameters.get(name).parse::<i32>().unwrap_or(0);
        let capability = |word: &str| Capability::from_str_name(word.trim()).map(|known| known as i32);
        let info = proto::ClientInfo {
            sdk: sdk_number(parameters.get("sdk")) as i32,
            version: text("version"),
            protocol: number("protocol"),
            os: text("os"),
            os_version: text("os_version"),
            device_model: text("device_model"),
            browser: text("browser"),
            browser_version: text("browser_version"),
            network: text("network"),
            client_protocol: number("client_protocol"),
            capabilities: parameters.get("capabilities").split(',').filter_map(capability).collect(),
            ..Default::default()
        };
        Self { info }
    }

    /// From a join request.
    pub fn from_info(info: proto::ClientInfo) -> Self {
        Self { info }
    }

    /// Fills in the address, and for clients in browsers what the `User-Agent` tells and they do not.
    #[must_use]
    pub fn augmented(mut self, request: &HttpRequest<'_>) -> Self {
        self.info.address = request.client_address();
        let in_browser = matches!(self.info.sdk(), Sdk::Js | Sdk::ReactNative | Sdk::Flutter | Sdk::Unity);
        if let Some(agent) = request.header("user-agent").filter(|_| in_browser) {
            let agent = UserAgent::parse(agent);
            if self.info.browser.is_empty() {
                self.info.browser = agent.browser.to_owned();
                self.info.browser_version = agent.browser_version.to_owned();
            }
            if self.info.os.is_empty() {
                self.info.os = agent.os.to_owned();
                self.info.os_version = agent.os_version;
            }
        }
        for text in [
            &mut self.info.version,
            &mut self.info.os,
            &mut self.info.os_version,
            &mut self.info.device_model,
            &mut self.info.browser,
            &mut self.info.browser_version,
            &mut self.info.network,
            &mut self.info.address,
        ] {
            shorten(text);
        }
        self.info.capabilities.truncate(CAPABILITIES_MAX);
        self
    }

    /// LiveKit protocol number; 0 when it gives none or a negative one.
    pub fn protocol(&self) -> u32 {
        u32::try_from(self.info.protocol).unwrap_or(0)
    }

    /// Number for features between clients.
    pub const fn client_protocol(&self) -> i32 {
        self.info.client_protocol
    }

    /// LiveKit `ClientInfo.Capability` numbers.
    pub fn capabilities(&self) -> &[i32] {
        &self.info.capabilities
    }

    /// Old Rust clients stumble over messages they do not know.
    pub fn is_rust(&self) -> bool {
        self.info.sdk() == Sdk::Rust
    }

    /// For the record.
    pub fn facts(&self) -> ClientFacts {
        let info = &self.info;
        ClientFacts {
            sdk: sdk_name(info.sdk()).to_owned(),
            version: info.version.clone(),
            protocol: self.protocol(),
            os: info.os.clone(),
            os_version: info.os_version.clone(),
            browser: info.browser.clone(),
            browser_version: info.browser_version.clone(),
            device_model: info.device_model.clone(),
            network: info.network.clone(),
            address: info.address.clone(),
        }
    }

    /// What the media plane has to know (livekit.md §1.4).
    pub fn quirks(&self) -> Quirks {
        Quirks {
            no_red: self.is_firefox() || self.is_safari(),
            requested_codec_only: self.is_firefox() && (self.is_on("linux") || self.is_on("android")),
            no_section_reuse: self.is_safari() || self.protocol() < 4,
            no_h264: self.is_firefox() && self.is_on("linux"),
        }
    }

    /// ICE-lite is for clients that know it (protocol 6), and never for Firefox.
    pub fn takes_ice_lite(&self) -> bool {
        !self.is_firefox() && self.protocol() >= 6
    }

    fn is_firefox(&self) -> bool {
        let browser = self.info.browser.to_ascii_lowercase();
        // Firefox on iOS is Safari underneath.
        browser.starts_with("firefox") && browser != "firefox ios"
    }

    fn is_safari(&self) -> bool {
        let browser = self.info.browser.to_ascii_lowercase();
        matches!(browser.as_str(), "safari" | "mobile safari" | "firefox ios" | "chrome mobile ios")
    }

    fn is_on(&self, os: &str) -> bool {
        self.info.os.eq_ignore_ascii_case(os)
    }
}

/// Static configuration told to a client, where there is one.
pub(crate) fn configuration(quirks: Quirks) -> Option<proto::ClientConfiguration> {
    quirks.no_h264.then(|| {
        let h264 = proto::Codec { mime: "video/H264".to_owned(), fmtp_line: String::new() };
        proto::ClientConfiguration {
            disabled_codecs: Some(proto::DisabledCodecs { codecs: Vec::new(), publish: vec![h264] }),
            ..Default::default()
        }
    })
}

/// The little of a `User-Agent` that matters here.
struct UserAgent<'a> {
    browser: &'static str,
    browser_version: &'a str,
    os: &'static str,
    os_version: String,
}

impl<'a> UserAgent<'a> {
    fn parse(agent: &'a str) -> Self {
        // The order matters: everybody calls itself Chrome, Safari and Mozilla too.
        const BROWSERS: [(&str, &str); 9] = [
            ("FxiOS/", "Firefox iOS"),
            ("CriOS/", "Chrome Mobile iOS"),
            ("EdgiOS/", "Edge Mobile"),
            ("EdgA/", "Edge Mobile"),
            ("Edg/", "Edge"),
            ("OPR/", "Opera"),
            ("Firefox/", "Firefox"),
            ("Chrome/", "Chrome"),
            ("Version/", "Safari"),
        ];
        const SYSTEMS: [(&str, &str); 7] = [
            ("iPhone OS ", "iOS"),
            ("CPU OS ", "iOS"),
            ("Android ", "Android"),
            ("Mac OS X ", "Mac OS X"),
            ("Windows NT ", "Windows"),
            ("CrOS ", "Chrome OS"),
            ("Linux", "Linux"),
        ];
        let found = BROWSERS.iter().find_map(|(mark, name)| Some((*name, after(agent, mark)?)));
        let (browser, browser_version) = found.unwrap_or_default();
        let found = SYSTEMS.iter().find_map(|(mark, name)| Some((*name, after(agent, mark)?)));
        let (os, os_version) = found.unwrap_or_default();
        let android = agent.contains("Android");
        let os = if os.is_empty() && android { "Android" } else { os };
        Self { browser, browser_version, os, os_version: os_version.replace('_', ".") }
    }
}

/// The version that follows `mark`.
fn after<'a>(agent: &'a str, mark: &str) -> Option<&'a str> {
    let (_, rest) = agent.split_once(mark)?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(rest.len());
    rest.get(..end)
}

fn shorten(text: &mut String) {
    let mut end = text.len().min(FACT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

const SDKS: [(Sdk, &str); 16] = [
    (Sdk::Unknown, "unknown"),
    (Sdk::Js, "js"),
    (Sdk::Swift, "swift"),
    (Sdk::Android, "android"),
    (Sdk::Flutter, "flutter"),
    (Sdk::Go, "go"),
    (Sdk::Unity, "unity"),
    (Sdk::ReactNative, "reactnative"),
    (Sdk::Rust, "rust"),
    (Sdk::Python, "python"),
    (Sdk::Cpp, "cpp"),
    (Sdk::UnityWeb, "unityweb"),
    (Sdk::Node, "node"),
    (Sdk::Unreal, "unreal"),
    (Sdk::Esp32, "esp32"),
    (Sdk::Dotnet, "dotnet"),
];

fn sdk_number(word: &str) -> Sdk {
    let word = if word == "ios" { "swift" } else { word };
    SDKS.iter().find(|(_, name)| *name == word).map_or(Sdk::Unknown, |(sdk, _)| *sdk)
}

fn sdk_name(sdk: Sdk) -> &'static str {
    SDKS.iter().find(|(known, _)| *known == sdk).map_or("unknown", |(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(agent: &str) -> Client {
        let headers = [("User-Agent", agent)];
        let request = HttpRequest {
            method: "GET",
            path: "/rtc",
            query: "",
            headers: &headers,
            body: b"",
            remote: None,
        };
        let info = proto::ClientInfo { sdk: Sdk::Js as i32, protocol: 17, ..Default::default() };
        Client::from_info(info).augmented(&request)
    }

    #[test]
    fn browsers_and_systems_are_read_from_the_user_agent() {
        let cases = [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0",
                ("Firefox", "153.0", "Linux"),
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
                ("Chrome", "156.0.0.0", "Linux"),
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
                ("Safari", "17.4", "Mac OS X"),
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/125.0 Mobile/15E148 Safari/605.1.15",
                ("Firefox iOS", "125.0", "iOS"),
            ),
            (
                "Mozilla/5.0 (Android 14; Mobile; rv:125.0) Gecko/125.0 Firefox/125.0",
                ("Firefox", "125.0", "Android"),
            ),
            ("curl/8", ("", "", "")),
        ];
        for (agent, (browser, version, os)) in cases {
            let facts = client(agent).facts();
            assert_eq!(
                (facts.browser.as_str(), facts.browser_version.as_str()),
                (browser, version),
                "{agent}"
            );
            assert_eq!(facts.os, os, "{agent}");
        }
    }

    #[test]
    fn firefox_on_linux_gets_no_h264_and_no_ice_lite() {
        let firefox = client("Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0");
        let quirks = firefox.quirks();
        assert!(quirks.no_h264 && quirks.no_red && quirks.requested_codec_only && !quirks.no_section_reuse);
        assert!(!firefox.takes_ice_lite());
        let disabled = configuration(quirks).unwrap().disabled_codecs.unwrap();
        assert_eq!(disabled.publish.len(), 1);
    }

    #[test]
    fn chromium_has_no_quirks() {
        let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";
        assert_eq!(client(agent).quirks(), Quirks::default());
        assert!(client(agent).takes_ice_lite());
        assert_eq!(configuration(Quirks::default()), None);
    }

    #[test]
    fn long_facts_are_cut_between_characters() {
        let info = proto::ClientInfo { version: "ü".repeat(200), ..Default::default() };
        let request =
            HttpRequest { method: "GET", path: "/", query: "", headers: &[], body: b"", remote: None };
        let facts = Client::from_info(info).augmented(&request).facts();
        assert_eq!(facts.version.len(), 256);
    }
}
