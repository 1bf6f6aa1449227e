use super::*;
use crate::collector::Reason;
use crate::collector::limits::OBJECTS_MAX;
use serde_json::{Value, json};

fn envelope() -> Value {
    json!({
        "type": "connection.user-agent",
        "id": "7VWV3K8P8D1ZX5M9B6QN2R4T0A",
        "timestamp": "2022-03-01T12:34:56.123456789Z",
        "label": "WebRTC SFU Sora",
        "version": "2022.1.0",
        "node_name": "sora@127.0.0.1",
        "multistream": true,
        "simulcast": false,
        "spotlight": false,
        "role": "sendrecv",
        "channel_id": "sora",
        "session_id": "KB0N4B7HCD0WH0C5RGQ3XRMZ5C",
        "client_id": "PW9GZK5GJX2G5CMKD5M6WAMC54",
        "connection_id": "PW9GZK5GJX2G5CMKD5M6WAMC54",
        "stats": [],
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut body = envelope();
    body[member] = value;
    body
}

fn without(member: &str) -> Value {
    let mut body = envelope();
    body.as_object_mut().unwrap().remove(member);
    body
}

fn read(body: &Value) -> Result<ClientReport, BadReport> {
    parse(Kind::UserAgent, body.to_string().as_bytes())
}

#[test]
fn an_envelope_is_read() {
    let report = read(&envelope()).unwrap();
    let connection = report.connection.clone().unwrap();
    assert_eq!(report.at_ns, 1_646_138_096_123_456_789);
    assert_eq!((report.source, connection.role), (Source::SoraUserAgent, Some(Role::Sendrecv)));
    assert_eq!(
        (connection.multistream, connection.simulcast, connection.spotlight),
        (Some(true), Some(false), Some(false))
    );
    assert_eq!((connection.channel_id.as_str(), report.node_name.as_str()), ("sora", "sora@127.0.0.1"));
    assert_eq!(report.extra, r#"{"id":"7VWV3K8P8D1ZX5M9B6QN2R4T0A"}"#);
    assert!(report.objects.is_empty() && report.rejected.is_empty());
}

#[test]
fn the_webhook_has_the_same_envelope() {
    let mut body = with("type", json!("connection.rtc"));
    body["bundle_id"] = json!("B");
    body["log_written"] = json!(true);
    let report = parse(Kind::Webhook, body.to_string().as_bytes()).unwrap();
    assert_eq!(report.source, Source::SoraWebhook);
    let extra: Value = serde_json::from_str(&report.extra).unwrap();
    assert_eq!((&extra["bundle_id"], &extra["log_written"]), (&json!("B"), &json!(true)));
}

#[test]
fn a_node_says_no_connection() {
    let body = json!({
        "type": "node.erlang-vm", "timestamp": "2022-03-01T12:34:56Z", "label": "WebRTC SFU Sora",
        "version": "2021.2.0", "node_name": "sora@127.0.0.1", "role": "kept",
        "stats": [{ "type": "erlang-vm-memory", "total": 1, "ets": 2 }, {}],
    });
    let report = parse(Kind::ErlangVm, body.to_string().as_bytes()).unwrap();
    assert_eq!((report.connection.is_none(), report.objects.len()), (true, 1));
    assert_eq!(
        (report.objects[0].id.as_str(), report.objects[0].stats_ms),
        ("erlang-vm-memory", 1646138096e3)
    );
    assert_eq!(report.rejected, BTreeMap::from([(Reason::NoType, 1)]));
    assert_eq!(report.extra, r#"{"role":"kept"}"#);
    assert_eq!(report.key().connection_id, "sora@127.0.0.1");
    let error = parse(Kind::ErlangVm, b"{}").unwrap_err();
    assert!(error.kohaku().starts_with("Key: 'soraNodeErlangVMStats.soraStats.Type' Error:Field"));
}

#[test]
fn kinds_are_told_by_headers() {
    assert_eq!(Kind::from_exporter_header("connection.user-agent"), Some(Kind::UserAgent));
    assert_eq!(Kind::from_exporter_header("node.erlang-vm"), Some(Kind::ErlangVm));
    assert_eq!(Kind::from_exporter_header("connection.sora"), None);
    assert_eq!(Kind::from_webhook_header("connection.rtc"), Some(Kind::Webhook));
    assert_eq!(Kind::from_webhook_header("connection.user-agent"), None);
}

#[test]
fn broken_rules_are_said_in_kohakus_words_and_in_ours() {
    let failed = |field: &str, tag: &str| {
        let name = field.rsplit('.').next().unwrap();
        format!(
            "Key: 'soraConnectionStats.{field}' Error:Field validation for '{name}' failed on the '{tag}' tag"
        )
    };
    let long = "\u{e9}".repeat(128);
    for (body, kohaku, ours) in [
        (without("type"), failed("soraStats.Type", "required"), "type: missing or empty"),
        (with("label", json!("")), failed("soraStats.Label", "required"), "label: missing or empty"),
        (with("version", json!(null)), failed("soraStats.Version", "required"), "version: missing or empty"),
        (without("node_name"), failed("soraStats.NodeName", "required"), "node_name: missing or empty"),
        (without("timestamp"), failed("soraStats.Timestamp", "required"), "timestamp: missing or empty"),
        (
            with("timestamp", json!("0001-01-01T00:00:00Z")),
            failed("soraStats.Timestamp", "required"),
            "timestamp: missing or empty",
        ),
        (without("multistream"), failed("Multistream", "required"), "multistream: missing or empty"),
        (without("simulcast"), failed("Simulcast", "required"), "simulcast: missing or empty"),
        (with("spotlight", json!(null)), failed("Spotlight", "required"), "spotlight: missing or empty"),
        (with("role", json!("send")), failed("Role", "len"), "role: 4 characters, exactly 8 wanted"),
        (without("channel_id"), failed("ChannelID", "required"), "channel_id: missing or empty"),
        (
            with("channel_id", json!(long)),
            failed("ChannelID", "maxb"),
            "channel_id: 256 bytes, at most 255 allowed",
        ),
        (
            with("client_id", json!("c".repeat(256))),
            failed("ClientID", "maxb"),
            "client_id: 256 bytes, at most 255 allowed",
        ),
        (
            with("session_id", json!("s".repeat(25))),
            failed("SessionID", "len"),
            "session_id: 25 characters, exactly 26 wanted",
        ),
        (
            with("connection_id", json!("c".repeat(27))),
            failed("ConnectionID", "len"),
            "connection_id: 27 characters, exactly 26 wanted",
        ),
        (with("stats", json!(null)), failed("Stats", "required"), "stats: missing or empty"),
        (without("stats"), failed("Stats", "required"), "stats: missing or empty"),
    ] {
        let error = read(&body).unwrap_err();
        assert_eq!((error.kohaku().as_str(), error.to_string().as_str()), (kohaku.as_str(), ours));
    }
    let both = {
        let mut body = without("label");
        body["role"] = json!("x");
        read(&body).unwrap_err()
    };
    assert_eq!(
        both.kohaku(),
        format!("{}\n{}", failed("soraStats.Label", "required"), failed("Role", "len"))
    );
    assert_eq!(both.to_string(), "label: missing or empty; role: 1 characters, exactly 8 wanted");
}

#[test]
fn other_faults_say_what_and_where() {
    let role = read(&with("role", json!("sendsend"))).unwrap_err();
    assert_eq!(role.to_string(), r#"role: "sendsend" is not sendrecv, sendonly or recvonly"#);
    assert!(role.kohaku().contains("enum sora_connection_role: \"sendsend\" (SQLSTATE 22P02)"));
    for (body, ours) in [
        (with("label", json!(5)), "label: number found, a text wanted"),
        (with("multistream", json!("yes")), "multistream: string found, true or false wanted"),
        (with("stats", json!({})), "stats: object found, an array wanted"),
        (with("timestamp", json!(1646138096)), "timestamp: number found, a text wanted"),
    ] {
        assert_eq!(read(&body).unwrap_err().to_string(), ours);
    }
    for time in [
        "yesterday",
        "2022-03-01",
        "2022-03-01T12:34:56",
        "2022-03-01 12:34:56Z",
        "1960-01-01T00:00:00Z",
        "2300-01-01T00:00:00Z",
    ] {
        let error = read(&with("timestamp", json!(time))).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("timestamp: {time:?} is not an RFC 3339 time")),
            "{error}"
        );
        assert!(error.kohaku().starts_with("parsing time \""), "{}", error.kohaku());
    }
    let unmarshal = read(&with("label", json!(5))).unwrap_err().kohaku();
    assert_eq!(unmarshal, "Unmarshal type error: expected=string, got=number, field=label");
    for body in ["", "null", "[]", "{", r#"{"a":}"#, r#"{"a":1} x"#, "\u{0}", "5"] {
        let error = parse(Kind::UserAgent, body.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("the body is not a JSON object: "), "{body}: {error}");
        assert!(error.kohaku().starts_with("Syntax error: offset="), "{body}");
    }
}

#[test]
fn lengths_are_those_that_kohaku_counted() {
    // Ids in characters, names in bytes.
    assert!(read(&with("session_id", json!("\u{e9}".repeat(26)))).is_ok());
    assert!(read(&with("channel_id", json!("\u{e9}".repeat(127)))).is_ok());
    assert!(read(&with("channel_id", json!("c".repeat(255)))).is_ok());
}

#[test]
fn times_keep_their_nanoseconds() {
    for (text, at_ns) in [
        ("2022-03-01T12:34:56Z", 1_646_138_096_000_000_000),
        ("2022-03-01T12:34:56.123456Z", 1_646_138_096_123_456_000),
        ("2022-03-01T21:34:56.000000001+09:00", 1_646_138_096_000_000_001),
    ] {
        assert_eq!(read(&with("timestamp", json!(text))).unwrap().at_ns, at_ns);
    }
}

#[test]
fn one_bad_object_never_costs_the_others() {
    let body = with(
        "stats",
        json!([
            { "id": "a", "type": "track", "timestamp": 1.25 },
            null,
            5,
            { "id": "b", "timestamp": 1 },
            { "type": "codec", "timestamp": 1 },
            { "id": "c", "type": "codec" },
            { "id": "d", "type": "goog-vendor", "timestamp": 1646138096123.456, "priority": 179616219446525440u64 },
        ]),
    );
    let report = read(&body).unwrap();
    let kinds: Vec<_> = report.objects.iter().map(|object| object.kind.as_str()).collect();
    assert_eq!(kinds, ["track", "goog-vendor"]);
    assert_eq!(report.objects[1].stats_ms, 1_646_138_096_123.456);
    assert!(report.objects[1].json.contains("179616219446525440"));
    let rejected: Vec<_> = report.rejected.iter().map(|(reason, count)| (*reason, *count)).collect();
    assert_eq!(
        rejected,
        [(Reason::NotAnObject, 2), (Reason::NoId, 1), (Reason::NoType, 1), (Reason::NoTimestamp, 1)]
    );
    assert_eq!(report.rejected_objects(), 5);
}

#[test]
fn a_report_has_a_bounded_number_of_objects() {
    let object = json!({ "id": "a", "type": "codec", "timestamp": 1 });
    let report = read(&with("stats", Value::from(vec![object; OBJECTS_MAX + 5]))).unwrap();
    assert_eq!(report.objects.len(), OBJECTS_MAX);
    assert_eq!(report.rejected, BTreeMap::from([(Reason::TooMany, 5)]));
}

#[test]
fn what_is_no_utf8_costs_its_characters_only() {
    let mut body = with("channel_id", json!("sora?")).to_string().into_bytes();
    let place = body.iter().position(|byte| *byte == b'?').unwrap();
    body[place] = 0xff;
    let report = parse(Kind::UserAgent, &body).unwrap();
    assert_eq!(report.connection.unwrap().channel_id, "sora\u{fffd}");
}

#[test]
fn what_is_unknown_is_kept_as_long_as_there_is_room() {
    let mut body = with("a_long_one", json!("x".repeat(EXTRA_BYTES_MAX)));
    body["z"] = json!([1, { "y": null }]);
    let report = read(&body).unwrap();
    assert_eq!(report.extra, r#"{"id":"7VWV3K8P8D1ZX5M9B6QN2R4T0A","z":[1,{"y":null}]}"#);
}

#[test]
fn every_type_of_the_tables_is_taken() {
    let tables = [
        include_str!("../../../tests/data/stats/kohaku-fields.tsv"),
        include_str!("../../../tests/data/stats/w3c-stats-fields.tsv"),
    ];
    let mut objects = BTreeMap::<String, serde_json::Map<String, Value>>::new();
    for line in tables.iter().flat_map(|table| table.lines().skip(1)) {
        let mut columns = line.split('\t');
        let (kinds, field, form) =
            (columns.next().unwrap(), columns.next().unwrap(), columns.next().unwrap());
        for kind in kinds.split('|').map(|kind| kind.split('/').next().unwrap()) {
            let object = objects.entry(kind.to_owned()).or_default();
            let value = match form {
                "str" | "DOMString" | "DOMString?" => json!("text"),
                "bool" | "boolean" => json!(true),
                "f64" | "double" | "DOMHighResTimeStamp" => json!(0.125),
                "u64" | "unsigned long long" => json!(u64::MAX),
                form if form.starts_with("record") => json!({ "0": 5, "none": 0.5 }),
                _ => json!(-7),
            };
            object.entry(field).or_insert(value);
        }
    }
    let stats: Vec<Value> = objects
        .iter()
        .map(|(kind, object)| {
            let mut object = object.clone();
            object.insert("id".into(), json!(format!("{kind}-1")));
            object.insert("type".into(), json!(kind));
            object.insert("timestamp".into(), json!(1646138096123.5));
            Value::Object(object)
        })
        .collect();
    let report = read(&with("stats", Value::from(stats.clone()))).unwrap();
    assert!(report.rejected.is_empty() && report.objects.len() == stats.len() && stats.len() >= 14);
    for (object, said) in report.objects.iter().zip(&stats) {
        assert_eq!(&serde_json::from_str::<Value>(&object.json).unwrap(), said);
    }
}
