//! What the TURN server says, as telemetry takes it.

use fanlight_base::Now;
use fanlight_events::turn::TurnInput;
use fanlight_events::{Event, Fact, FactBody, TurnQuotaHit};
use fanlight_turn::Account;
use smol_str::SmolStr;

/// The event for what `node` says. A participant's user name is a credential of an hour; the record knows the person by
/// the session id.
pub(super) fn event(now: Now, node: &SmolStr, account: Account) -> Event {
    match account {
        Account::Allocation { mut name, participant, event } => {
            if let Some(participant) = participant {
                name.user = participant.as_str().into();
            }
            Event::Turn(now, TurnInput::Event { node: Some(node.clone()), name, event })
        }
        Account::QuotaHit { realm, user, participant, quota, limit } => Event::Fact(Fact {
            unix_ms: now.unix_ms(),
            room: "".into(),
            participant: participant.clone().unwrap_or_else(|| "".into()),
            track: "".into(),
            body: FactBody::TurnQuotaHit(TurnQuotaHit {
                node: node.to_string(),
                realm: realm.to_string(),
                user: participant.map_or_else(|| user.to_string(), |sid| sid.to_string()),
                quota,
                limit,
            }),
        }),
    }
}
