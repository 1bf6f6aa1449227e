use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const START_MS: u64 = 1_795_231_283_000;

fn dump(protocol: Protocol) -> Dump {
    let whose = Claimed { room: "demo".into(), user: "alice".into() };
    let speaker = Speaker { proven: true, whose, page: "p".into(), ..Speaker::default() };
    Dump::new(protocol, speaker, Sender { origin: "https://a.example", user_agent: "UA", now_ms: 0 })
}

/// Reads a message a quarter of a second after it was sent, by a clock that is right.
fn read(dump: &mut Dump, message: &Value) -> ClientReport {
    let said = dump.read(START_MS + 250, &message.to_string());
    said.unwrap_or_else(|error| panic!("{message}: {error}"))
}

/// The objects of a report as `getStats()` had them.
fn objects(report: &ClientReport) -> Vec<Value> {
    report.objects.iter().map(|object| serde_json::from_str(&object.json).unwrap()).collect()
}

fn connection(report: &ClientReport) -> &ConnectionEnvelope {
    report.connection.as_ref().unwrap()
}

#[test]
fn differences_become_the_objects_that_the_page_had() {
    let mut dump = dump(Protocol::V5);
    read(&mut dump, &json!([39, "PC_0", { "iceServers": [] }, START_MS]));
    // `outbound-rtp` with a reference, an object within the object, and `t` of its own in another one.
    let first = json!(["g", "PC_0", {
        "t": 1000.5,
        "0": { "type": 2, "10": 7, "79": 5, "81": "1", "96": { "none": 1.5, "cpu": 0 }, "psnrSum": [1] },
        "1": { "type": 12, "17": "cam", "106": 640, "t": 990.25 },
        "2": { "type": "compute-pressure", "cpuState": 4 },
        "3": { "type": 99, "177": true },
    }, "connected-0", 40]);
    let report = read(&mut dump, &first);
    assert_eq!(
        objects(&report),
        [
            json!({ "id": "0", "type": "outbound-rtp", "timestamp": 1000.5, "ssrc": 7, "packetsSent": 5, "mediaSourceId": "1",
                    "qualityLimitationDurations": { "none": 1.5, "cpu": 0 }, "psnrSum": [1] }),
            json!({ "id": "1", "type": "media-source", "timestamp": 990.25, "trackIdentifier": "cam", "width": 640 }),
            json!({ "id": "2", "type": "compute-pressure", "timestamp": 1000.5, "cpuState": 4 }),
            json!({ "id": "3", "type": "99", "timestamp": 1000.5, "177": true }),
        ]
    );
    assert_eq!(report.at_ns / 1_000_000, START_MS + 40);
    // A member, one of an object within, a whole array, an object that is gone and one that is new.
    let report = read(
        &mut dump,
        &json!([1, "PC_0", {
        "t": 2000, "0": { "79": 9, "96": { "none": 2.5 }, "psnrSum": [1, 2] }, "1": null, "4": { "type": 14, "4": 96 },
    }, 1000]),
    );
    assert_eq!(
        objects(&report),
        [
            json!({ "id": "0", "type": "outbound-rtp", "timestamp": 2000, "ssrc": 7, "packetsSent": 9, "mediaSourceId": "1",
                    "qualityLimitationDurations": { "none": 2.5, "cpu": 0 }, "psnrSum": [1, 2] }),
            json!({ "id": "4", "type": "codec", "timestamp": 2000, "payloadType": 96 }),
        ]
    );
    // After ten minutes all of them, but not the one that is gone.
    let report = read(&mut dump, &json!(["g", "PC_0", { "t": 3000, "0": { "79": 10 } }, 600_000]));
    let told: Vec<_> = report.objects.iter().map(|object| (object.id.as_str(), object.stats_ms)).collect();
    assert_eq!(told, [("0", 3000.0), ("2", 3000.0), ("3", 3000.0), ("4", 3000.0)]);
    assert_eq!(report.rejected_objects(), 0);
}

#[test]
fn numbers_lose_no_digit() {
    let mut dump = dump(Protocol::V5);
    let message = format!(
        r#"["g","PC_0",{{"t":1.5,"0":{{"type":6,"137":179616219446525440.25,"x":1e400}}}},{START_MS}]"#
    );
    let report = dump.read(START_MS, &message).unwrap();
    let json = &report.objects[0].json;
    assert!(json.contains(r#""priority":179616219446525440.25"#) && json.contains(r#""x":1e400"#), "{json}");
}

#[test]
fn calls_and_events_are_kept_one_by_one() {
    let mut dump = dump(Protocol::V5);
    let report = read(&mut dump, &json!([39, null, { "hardwareConcurrency": 8 }, START_MS]));
    assert_eq!(
        (connection(&report).connection_id.as_str(), connection(&report).session_id.as_str()),
        ("p", "p")
    );
    assert_eq!((report.source, connection(&report).client_id.as_str()), (Source::RtcStats, "alice"));
    assert_eq!(report.extra, r#"{"clock_ms":250,"origin":"https://a.example","user_agent":"UA"}"#);
    assert_eq!((report.label.as_str(), report.version.as_str()), ("rtcstats", "5.0"));
    let time = START_MS as f64;
    assert_eq!(
        objects(&report),
        [
            json!({ "id": "000", "type": EVENT, "timestamp": START_MS, "method": "create", "value": { "hardwareConcurrency": 8 } })
        ]
    );
    assert_eq!(report.objects[0].stats_ms, time);
    let failed = json!([65, null, "NotAllowedError: no", "60-0", 5]);
    assert_eq!(
        objects(&read(&mut dump, &failed)),
        [
            json!({ "id": "001", "type": EVENT, "timestamp": START_MS + 5, "method": "navigator.mediaDevices.getUserMediaOnFailure",
                 "value": "NotAllowedError: no", "extra": ["60-0"] })
        ]
    );
    // Each peer connection counts its own; what has no number is said by name, and a number without a name stays one.
    let created = read(&mut dump, &json!([39, "PC_0", null, 0]));
    assert_eq!(
        objects(&created)[0],
        json!({ "id": "000", "type": EVENT, "timestamp": START_MS + 5, "method": "create" })
    );
    for (method, name) in
        [(json!(24), "oniceconnectionstatechange"), (json!("mine"), "mine"), (json!(999), "999")]
    {
        let report = read(&mut dump, &json!([method, "PC_0", "checking", 1]));
        assert_eq!(objects(&report)[0]["method"], name);
        assert_eq!(connection(&report).connection_id, connection(&created).connection_id);
    }
    // Two messages of one millisecond have two times.
    let times = [0, 0].map(|since| read(&mut dump, &json!([20, "PC_0", null, since])).at_ns);
    assert!(times[0] < times[1] && times[0] / 1_000_000 == times[1] / 1_000_000);
}

#[test]
fn a_long_value_is_cut_and_says_so() {
    let mut dump = dump(Protocol::V5);
    let sdp = "ä".repeat(VALUE_BYTES_MAX);
    let report = read(&mut dump, &json!([8, "PC_0", { "sdp": sdp }, START_MS]));
    let event = &objects(&report)[0];
    assert_eq!(event["value_bytes"], 2 * VALUE_BYTES_MAX + r#"{"sdp":""}"#.len());
    assert!(event["value_begins"].as_str().unwrap().starts_with(r#"{"sdp":"ää"#));
}

#[test]
fn a_connection_made_anew_is_another_one() {
    let mut dump = dump(Protocol::V5);
    let stats = |time: u64| json!(["g", "PC_0", { "t": 1, "0": { "type": 5, "80": 1 } }, time]);
    let before = read(&mut dump, &stats(START_MS));
    assert_eq!(connection(&before).connection_id, "p.PC_0");
    read(&mut dump, &json!([39, "PC_0", null, 10]));
    let after = read(&mut dump, &stats(10));
    assert_eq!(connection(&after).connection_id, format!("p.PC_0.{}", START_MS + 10));
    // What it said before does not show in it.
    read(&mut dump, &json!([36, "PC_0", null, 10]));
    let late = read(&mut dump, &json!(["g", "PC_0", { "t": 2, "0": { "80": 2 } }, 10]));
    assert_eq!((late.objects.len(), late.rejected.get(&Reason::NoType)), (0, Some(&1)));
}

#[test]
fn protocol_2_is_read_by_the_same_means() {
    let mut dump = dump(Protocol::V2);
    read(&mut dump, &json!(["create", "PC_0", { "browserType": "webkit" }, START_MS]));
    let report = read(
        &mut dump,
        &json!(["getstats", "PC_0", {
        "a": { "type": "transport", "timestamp": 0, "bytesSent": 1, "4": true }, "b": { "type": "codec", "timestamp": 7.5 }, "timestamp": 9.5,
    }, START_MS + 1000]),
    );
    assert_eq!(
        objects(&report),
        [
            json!({ "id": "a", "type": "transport", "timestamp": 9.5, "bytesSent": 1, "4": true }),
            json!({ "id": "b", "type": "codec", "timestamp": 7.5 }),
        ]
    );
    let later = START_MS + 700_000;
    let report = read(
        &mut dump,
        &json!(["getstats", "PC_0", { "a": { "timestamp": 0, "bytesSent": 2 }, "timestamp": 10.5 }, later]),
    );
    assert_eq!(
        objects(&report),
        [json!({ "id": "a", "type": "transport", "timestamp": 10.5, "bytesSent": 2, "4": true })]
    );
    assert_eq!((report.at_ns / 1_000_000, report.version.as_str()), (later, "2.0"));
    // Nothing has changed.
    let report = read(&mut dump, &json!(["getstats", "PC_0", { "timestamp": null }, later + 1]));
    assert_eq!((report.objects.len(), report.rejected_objects()), (0, 0));
}

#[test]
fn a_bad_message_costs_only_itself() {
    let mut dump = dump(Protocol::V5);
    for (message, expected) in [
        ("", BadMessage::Form),
        ("{}", BadMessage::Form),
        ("[1,2", BadMessage::Form),
        ("[39,null]", BadMessage::Form),
        (r#"[39,null,null,"1"]"#, BadMessage::Time),
        ("[39,null,null,null]", BadMessage::Time),
        ("[39,null,null,1e300]", BadMessage::Time),
        (r#"["",null,null,1795231283000]"#, BadMessage::Method),
        ("[null,null,null,0]", BadMessage::Method),
        (r#"[39,"",null,0]"#, BadMessage::Peer),
        ("[39,{},null,0]", BadMessage::Peer),
        (r#"["g","PC_0",[],0]"#, BadMessage::Stats),
        (r#"["g","PC_0",null,0]"#, BadMessage::Stats),
        (r#"["g","PC_0",{"#, BadMessage::Form),
    ] {
        assert_eq!(dump.read(START_MS, message), Err(expected), "{message}");
    }
    // One bad object costs no other, and a message without a value is one.
    let report = read(
        &mut dump,
        &json!(["g", "PC_0", { "t": 1, "0": 5, "1": { "type": 5 }, "": { "type": 5 }, "2": { "80": 1 } }, 0]),
    );
    assert_eq!(report.objects.len(), 1);
    assert_eq!(report.rejected, [(Reason::NotAnObject, 1), (Reason::NoId, 1), (Reason::NoType, 1)].into());
    assert_eq!(objects(&read(&mut dump, &json!([36, "PC_0", 3])))[0]["method"], "close");
    assert_eq!(BadMessage::ALL.map(|bad| bad.name().len() > 3), [true; 5]);
}

#[test]
fn times_are_differences_or_absolute() {
    let mut dump = dump(Protocol::V5);
    // It does not say when it began: what it says is of now.
    assert_eq!(read(&mut dump, &json!([20, "PC_0", null, 17])).at_ns / 1_000_000, START_MS + 250);
    for (said, expected) in [(START_MS, START_MS), (20, START_MS + 20), (START_MS + 5, START_MS + 5)] {
        assert_eq!(read(&mut dump, &json!([20, "PC_0", null, said])).at_ns / 1_000_000, expected);
    }
    // Its clock is set back, and nothing is before time itself.
    assert_eq!(read(&mut dump, &json!([20, "PC_0", null, -15])).at_ns / 1_000_000, START_MS - 10);
    assert_eq!(dump.read(START_MS, "[20,null,null,-9e12]"), Err(BadMessage::Time));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut dump = dump(Protocol::V5);
    let most = PEERS_MAX as u64 + 10;
    for number in 0..most {
        let name = format!("PC_{number}");
        read(&mut dump, &json!(["g", name, { "t": 1, "0": { "type": 5, "80": 1 } }, START_MS]));
    }
    assert_eq!(dump.peers.len(), PEERS_MAX);
    let forgotten = read(&mut dump, &json!(["g", "PC_0", { "t": 1, "0": { "80": 2 } }, 1]));
    assert_eq!(forgotten.rejected, [(Reason::NoType, 1)].into());
    let known = read(&mut dump, &json!(["g", "PC_70", { "t": 1, "0": { "80": 2 } }, 1]));
    assert_eq!(known.objects.len(), 1);
    let filler = "x".repeat(DUMP_BYTES_MAX / 8);
    let mut refused = 0;
    for number in 0..12 {
        let id = number.to_string();
        let report = read(&mut dump, &json!(["g", "PC_70", { "t": 1, id: { "type": 5, "x": filler } }, 1]));
        refused += report.rejected.get(&Reason::TooMany).copied().unwrap_or(0);
    }
    assert!(
        refused >= 4 && dump.size_bytes() <= DUMP_BYTES_MAX + (64 << 10),
        "{refused} {}",
        dump.size_bytes()
    );
    read(&mut dump, &json!([36, "PC_70", null, 1]));
    assert!(dump.size_bytes() < DUMP_BYTES_MAX / 8);
}

/// Writes a report as the library documents it: numbers for names and ids, what is as before left out, the common time once.
fn compressed(before: &Map<String, Value>, now: &Map<String, Value>, ids: &mut Vec<String>) -> Value {
    let common = now.values().filter_map(|object| object["timestamp"].as_u64()).max().unwrap_or(0);
    let mut delta = Map::from_iter([("t".to_owned(), common.into())]);
    for (id, object) in now {
        let place = ids.iter().position(|known| known == id).unwrap_or_else(|| {
            ids.push(id.clone());
            ids.len() - 1
        });
        let old = before.get(id);
        let mut members = Map::new();
        for (name, value) in object.as_object().unwrap() {
            let old = old.and_then(|old| old.get(name));
            let number = names_of().into_iter().find(|(_, known)| known == name).map(|(number, _)| number);
            let number = number.unwrap_or_else(|| name.clone());
            match (value, old) {
                _ if name == "id" || old == Some(value) || (name == "timestamp" && *value == common) => {}
                (Value::Object(inner), Some(old)) => {
                    let inner = inner.iter().filter(|(name, value)| old.get(name) != Some(value));
                    let inner: Map<_, _> = inner.map(|(name, value)| (name.clone(), value.clone())).collect();
                    members.insert(number, inner.into());
                }
                (Value::String(kind), _) if name == "type" && kind == "outbound-rtp" => {
                    members.insert(number, 2.into());
                }
                _ => {
                    members.insert(number, value.clone());
                }
            }
        }
        if !members.is_empty() {
            delta.insert(place.to_string(), members.into());
        }
    }
    for id in before.keys().filter(|id| !now.contains_key(*id)) {
        let place = ids.iter().position(|known| known == id).unwrap();
        delta.insert(place.to_string(), Value::Null);
    }
    delta.into()
}

fn names_of() -> Vec<(String, String)> {
    let named = ["t".to_owned()].into_iter().chain((1..200).map(|number: u32| number.to_string()));
    named.map(|number| (number.clone(), names::member(&number).into_owned())).collect()
}

/// An object that has all of its members each time; some times it is not there.
fn stats_object() -> impl Strategy<Value = Option<(u64, u64, u64, bool)>> {
    prop::option::weighted(0.8, (0..3u64, 0..3u64, 0..2u64, any::<bool>()))
}

proptest! {
    #[test]
    fn what_is_compressed_is_read_back_as_it_was(
        reports in prop::collection::vec(prop::collection::vec(stats_object(), 3), 1..6),
    ) {
        let mut dump = dump(Protocol::V5);
        let (mut before, mut ids, mut held) = (Map::new(), Vec::new(), BTreeMap::new());
        for (second, objects) in reports.into_iter().enumerate() {
            let time = 1_000 * (second as u64 + 1);
            let mut now = Map::new();
            for (place, (sent, none, list, late)) in
                objects.into_iter().enumerate().filter_map(|(place, object)| Some((place, object?)))
            {
                let kind = if place == 0 { "outbound-rtp" } else { "mine" };
                now.insert(format!("long-id-{place}"), json!({
                    "type": kind, "timestamp": time - u64::from(late), "packetsSent": sent, "weird": format!("{list}"),
                    "qualityLimitationDurations": { "none": none, "cpu": list }, "psnrSum": vec![none; list as usize],
                }));
            }
            let delta = compressed(&before, &now, &mut ids);
            let report = read(&mut dump, &json!(["g", "PC_0", delta, START_MS + time]));
            prop_assert_eq!(report.rejected_objects(), 0);
            held.retain(|place: &usize, _| now.contains_key(&ids[*place]));
            for object in objects_by_place(&report) {
                held.insert(object.0, object.1);
            }
            // What was not told again is as before, but for its time.
            for (id, object) in &now {
                let place = ids.iter().position(|known| known == id).unwrap();
                let mut expected = object.clone();
                expected["id"] = place.to_string().into();
                let mut found = held[&place].clone();
                if !delta.as_object().unwrap().contains_key(&place.to_string()) {
                    found["timestamp"] = expected["timestamp"].clone();
                }
                prop_assert_eq!(&found, &expected);
            }
            before = now;
        }
    }
}

fn objects_by_place(report: &ClientReport) -> Vec<(usize, Value)> {
    let place = |object: &Value| object["id"].as_str().unwrap().parse().unwrap();
    objects(report).into_iter().map(|object| (place(&object), object)).collect()
}
