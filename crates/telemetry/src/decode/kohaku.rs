//! What Sora sends to a Kohaku: an envelope that says whose stats these are, and the objects as the browser made them.
//!
//! The envelope is checked as Kohaku checks it. Of the objects only time, id and type are read; one that is not fit to be
//! stored is counted and costs none of the others.

mod bad;
mod body;

pub use bad::{BadReport, Rule};

use crate::collector::limits::EXTRA_BYTES_MAX;
use crate::collector::{ClientReport, ConnectionEnvelope, Role, Source, StatsObject};
use bad::Checks;
use body::Body;
use jiff::Timestamp;
use serde_json::value::RawValue;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Characters of session and connection ids: base32 of a UUID.
const ID_CHARACTERS: usize = 26;
/// Bytes of channel and client ids.
const NAME_BYTES_MAX: usize = 255;
/// Characters of every role.
const ROLE_CHARACTERS: usize = 8;

/// What a request's header says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `x-sora-stats-exporter-type: connection.user-agent`.
    UserAgent,
    /// `x-sora-stats-exporter-type: node.erlang-vm`.
    ErlangVm,
    /// `sora-stats-webhook-type: connection.rtc`.
    Webhook,
}

impl Kind {
    /// Of the exporter's header.
    pub fn from_exporter_header(value: &str) -> Option<Self> {
        match value {
            "connection.user-agent" => Some(Self::UserAgent),
            "node.erlang-vm" => Some(Self::ErlangVm),
            _ => None,
        }
    }

    /// Of the webhook's header.
    pub fn from_webhook_header(value: &str) -> Option<Self> {
        (value == "connection.rtc").then_some(Self::Webhook)
    }

    const fn source(self) -> Source {
        match self {
            Self::UserAgent => Source::SoraUserAgent,
            Self::ErlangVm => Source::SoraNode,
            Self::Webhook => Source::SoraWebhook,
        }
    }
}

/// Members that are read, of both forms; others are kept as they are.
const COMMON: &[&str] = &["type", "timestamp", "label", "version", "node_name", "stats"];
const CONNECTION: &[&str] = &[
    "multistream",
    "simulcast",
    "spotlight",
    "role",
    "channel_id",
    "session_id",
    "client_id",
    "connection_id",
];

/// Reads a request's body.
pub fn parse(kind: Kind, body: &[u8]) -> Result<ClientReport, BadReport> {
    let text = String::from_utf8_lossy(body);
    let body = Body::read(&text)?;
    let mut checks = Checks::new(kind == Kind::ErlangVm);
    let connection = kind != Kind::ErlangVm;
    // Wrong types first: Kohaku does not look at the rules before all members have theirs.
    body.text("type")?;
    let time = time(&body)?;
    let common = [body.text("label")?, body.text("version")?, body.text("node_name")?];
    let envelope = if connection { Some(Envelope::read(&body)?) } else { None };
    let stats = body.objects("stats")?;

    checks.required("Type", body.text("type")?.is_some_and(|text| !text.is_empty()));
    checks.required("Timestamp", time.is_some());
    for (field, value) in ["Label", "Version", "NodeName"].into_iter().zip(&common) {
        checks.required(field, value.as_ref().is_some_and(|text| !text.is_empty()));
    }
    if let Some(envelope) = &envelope {
        envelope.check(&mut checks);
    }
    checks.required("Stats", stats.is_some());
    checks.finish()?;

    let connection = envelope.map(Envelope::finish).transpose()?;
    let [label, version, node_name] = common.map(|text| SmolStr::new(text.unwrap_or_default()));
    let mut report = ClientReport {
        source: kind.source(),
        at_ns: time.unwrap_or(0),
        extra: extra(&body, connection.is_some()),
        connection,
        label,
        version,
        node_name,
        objects: Vec::new(),
        rejected: BTreeMap::new(),
    };
    let (objects, beyond) = stats.unwrap_or_default();
    report.objects.reserve(objects.len());
    for object in objects {
        take(&mut report, kind, object);
    }
    if beyond > 0 {
        report.reject(crate::collector::Reason::TooMany, beyond);
    }
    Ok(report)
}

fn take(report: &mut ClientReport, kind: Kind, object: &RawValue) {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
    let at_ms = (report.at_ns / 1_000_000) as f64;
    report.take(match kind {
        Kind::ErlangVm => StatsObject::parse_of_node(object.get(), at_ms),
        Kind::UserAgent | Kind::Webhook => StatsObject::parse(object.get()),
    });
}

/// `timestamp` in nanoseconds since the Unix epoch; `None` when it is not there, or Go's zero time.
fn time(body: &Body<'_>) -> Result<Option<u64>, BadReport> {
    let Some(text) = body.text("timestamp")? else { return Ok(None) };
    let wrong = || BadReport::time(&text);
    // A calendar's reader takes more than RFC 3339 does: there must be a time of day and an offset.
    if !text.contains(['T', 't']) || text.contains('[') {
        return Err(wrong());
    }
    let time: Timestamp = text.parse().map_err(|_| wrong())?;
    if text.starts_with("0001-01-01T00:00:00") {
        return Ok(None);
    }
    // Databases count in 63 bits, which is until the year 2262.
    let at_ns = u64::try_from(time.as_nanosecond()).ok().filter(|at_ns| i64::try_from(*at_ns).is_ok());
    at_ns.map(Some).ok_or_else(wrong)
}

/// Members that are not read, as far as there is room.
fn extra(body: &Body<'_>, connection: bool) -> String {
    let known = |name: &str| COMMON.contains(&name) || (connection && CONNECTION.contains(&name));
    let mut extra = String::from("{");
    for (name, value) in body.members().filter(|(name, _)| !known(name)) {
        let Ok(name) = serde_json::to_string(name) else { continue };
        if extra.len() + name.len() + value.len() + 3 > EXTRA_BYTES_MAX {
            continue;
        }
        if extra.len() > 1 {
            extra.push(',');
        }
        extra.push_str(&name);
        extra.push(':');
        extra.push_str(value);
    }
    extra.push('}');
    extra
}

/// The connection's part, as it came.
struct Envelope {
    multistream: Option<bool>,
    simulcast: Option<bool>,
    spotlight: Option<bool>,
    role: String,
    channel_id: String,
    session_id: String,
    client_id: String,
    connection_id: String,
}

impl Envelope {
    fn read(body: &Body<'_>) -> Result<Self, BadReport> {
        let text = |name| Ok::<_, BadReport>(body.text(name)?.unwrap_or_default());
        Ok(Self {
            multistream: body.boolean("multistream")?,
            simulcast: body.boolean("simulcast")?,
            spotlight: body.boolean("spotlight")?,
            role: text("role")?,
            channel_id: text("channel_id")?,
            session_id: text("session_id")?,
            client_id: text("client_id")?,
            connection_id: text("connection_id")?,
        })
    }

    fn check(&self, checks: &mut Checks) {
        checks.required("Multistream", self.multistream.is_some());
        checks.required("Simulcast", self.simulcast.is_some());
        checks.required("Spotlight", self.spotlight.is_some());
        checks.characters("Role", &self.role, ROLE_CHARACTERS);
        checks.bytes_max("ChannelID", &self.channel_id, NAME_BYTES_MAX);
        checks.characters("SessionID", &self.session_id, ID_CHARACTERS);
        checks.bytes_max("ClientID", &self.client_id, NAME_BYTES_MAX);
        checks.characters("ConnectionID", &self.connection_id, ID_CHARACTERS);
    }

    fn finish(self) -> Result<ConnectionEnvelope, BadReport> {
        let role = Role::from_name(&self.role).ok_or_else(|| BadReport::role(&self.role))?;
        Ok(ConnectionEnvelope {
            connection_id: self.connection_id.into(),
            session_id: self.session_id.into(),
            channel_id: self.channel_id.into(),
            client_id: self.client_id.into(),
            role: Some(role),
            multistream: self.multistream,
            simulcast: self.simulcast,
            spotlight: self.spotlight,
            ..ConnectionEnvelope::default()
        })
    }
}

#[cfg(test)]
mod tests;
