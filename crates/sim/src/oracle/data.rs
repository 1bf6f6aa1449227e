//! Reliable data messages: everybody else gets each one once, in the sender's order.

use super::{name, others};
use crate::outcome::Outcome;

pub(super) fn delivery(run: &Outcome, faults: &mut Vec<String>) {
    for client in &run.clients {
        if client.messages_sent != run.messages {
            faults.push(format!(
                "{} sent {} of {} messages",
                name(client),
                client.messages_sent,
                run.messages
            ));
        }
        if client.strange_messages > 0 {
            faults.push(format!("{}: {} messages nobody sent", name(client), client.strange_messages));
        }
        if let Some(stray) = client
            .messages
            .iter()
            .find(|message| message.room != client.room || message.sender == client.number)
        {
            faults.push(format!("{} got {stray:?}", name(client)));
        }
        for other in others(run, client) {
            let got: Vec<u32> = client
                .messages
                .iter()
                .filter(|message| message.sender == other.number)
                .map(|message| message.number)
                .collect();
            if !got.iter().copied().eq(0..other.messages_sent) {
                faults.push(format!(
                    "{} got messages {got:?} of {}, which sent {}",
                    name(client),
                    name(other),
                    other.messages_sent
                ));
            }
        }
    }
}
