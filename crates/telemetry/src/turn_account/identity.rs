//! Who a TURN user name stands for.

use super::participant::is_participant_sid;
use smol_str::SmolStr;

/// How the person is found in a user name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Person {
    /// The whole name.
    Whole,
    /// What follows the first separator after a Unix time (`1795231283:alice`), as `use-auth-secret` credentials have it;
    /// a name without a time is taken whole.
    #[default]
    AfterTime,
    /// What follows the first separator.
    AfterSeparator,
    /// What stands before the first separator.
    BeforeSeparator,
}

/// Reads user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// How the person is found.
    pub person: Person,
    /// coturn's `rest-api-separator`.
    pub separator: char,
    /// Parts person and room within what is left: `room/person`; `None`: there is no room in it.
    pub room_separator: Option<char>,
}

impl Default for Identity {
    fn default() -> Self {
        Self { person: Person::default(), separator: ':', room_separator: None }
    }
}

/// A user name, read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Who {
    /// The person: equal for all of a person's credentials.
    pub person: SmolStr,
    /// The room, empty when the name says none.
    pub room: SmolStr,
}

impl Identity {
    /// Reads a user name.
    pub fn read(&self, user: &str) -> Who {
        let base = match (&self.person, user.split_once(self.separator)) {
            (Person::Whole, _) | (_, None) => user,
            (Person::AfterTime, Some((time, rest))) if is_time(time) => rest,
            (Person::AfterTime, Some(_)) => user,
            (Person::AfterSeparator, Some((_, rest))) => rest,
            (Person::BeforeSeparator, Some((first, _))) => first,
        };
        let room_separator = self.room_separator.filter(|_| !is_participant_sid(base));
        match room_separator.and_then(|separator| base.split_once(separator)) {
            Some((room, person)) => Who { person: person.into(), room: room.into() },
            None => Who { person: base.into(), room: SmolStr::default() },
        }
    }
}

fn is_time(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_person_is_what_a_rest_name_has_behind_its_time() {
        let read = |user| Identity::default().read(user).person;
        assert_eq!(read("1795231283:alice"), "alice");
        assert_eq!(read("1795231301:a:b:c"), "a:b:c");
        assert_eq!(read("ann"), "ann");
        assert_eq!(read("mallory:17"), "mallory:17");
        assert_eq!(read(""), "");
    }

    #[test]
    fn other_habits_can_be_configured() {
        let identity = |person, room_separator| Identity { person, room_separator, ..Identity::default() };
        assert_eq!(identity(Person::BeforeSeparator, None).read("alice:17").person, "alice");
        assert_eq!(identity(Person::AfterSeparator, None).read("x:alice").person, "alice");
        assert_eq!(identity(Person::Whole, None).read("17:alice").person, "17:alice");
        let who = identity(Person::AfterTime, Some('/')).read("17:room42/peer-1");
        assert_eq!((who.room.as_str(), who.person.as_str()), ("room42", "peer-1"));
        let sid = identity(Person::AfterTime, Some('_')).read("17:PA_Xy12");
        assert_eq!((sid.room.as_str(), sid.person.as_str()), ("", "PA_Xy12"), "a participant's sid is whole");
    }
}
