//! The side of Redis that coturn talks to: enough of RESP2 for its `redis-statsdb` to take us for a Redis server.
//!
//! coturn opens several connections, says AUTH and SELECT on each, `SET`s and `DEL`s each status under its key, `PUBLISH`es
//! everything, and with `KEYS` at its start looks for what it left behind. Nothing is kept here: there are no keys.

use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;

/// Bytes that may wait for the rest of a command: coturn's are below 2 kB, and it sends a few at a time.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a command before AUTH: names and passwords are short, and who has not said one is a stranger.
const STRANGER_BYTES_MAX: usize = 1024;
/// Words of a command; coturn's have five at most.
const WORDS_MAX: usize = 16;
/// Commands that are answered before AUTH: coturn says AUTH first, and may have a wrong password.
const REFUSALS_MAX: u32 = 8;
/// A marker, a number and the end of the line, at the head of a command and of each word.
const HEAD_BYTES_MAX: usize = 16;

/// What a connection said that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A message on a channel.
    Published {
        /// The channel.
        channel: String,
        /// The payload.
        payload: String,
    },
    /// A status is written under its key; the same is published right after.
    Set {
        /// The key.
        key: String,
        /// The status.
        value: String,
    },
    /// A key is deleted: the allocation is gone.
    Deleted {
        /// The key.
        key: String,
    },
    /// The server looks for what an earlier process left: it has just started.
    Started,
    /// It says which database it means, last before it reports: by that, and by as whom it came, its connections are told
    /// from others'.
    Named,
}

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It is not RESP2.
    #[error("not a RESP2 command")]
    NotResp,
    /// A command is longer than anything coturn sends, or than a password before AUTH.
    #[error("a command of more than {0} bytes")]
    TooLong(usize),
    /// Somebody talks without the password.
    #[error(
        "{REFUSALS_MAX} commands without the right password; give coturn's redis-statsdb the one of the listener"
    )]
    NotAuthorised,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    password: Option<String>,
    authorised: bool,
    refusals: u32,
    buffer: Vec<u8>,
    /// Name given with AUTH, `default` without.
    pub user: String,
    /// Database given with SELECT.
    pub database: u32,
}

impl Connection {
    /// A new connection; with a password nothing but AUTH is taken before it was said.
    pub fn new(password: Option<String>) -> Self {
        Self {
            authorised: password.is_none(),
            password,
            refusals: 0,
            buffer: Vec::new(),
            user: "default".to_owned(),
            database: 0,
        }
    }

    /// Takes what came, appends answers to `answers`, and says what was said.
    pub fn handle_bytes(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> Result<Vec<Said>, Broken> {
        self.buffer.extend_from_slice(bytes);
        let (mut said, mut used) = (Vec::new(), 0);
        loop {
            let rest = self.buffer.get(used..).unwrap_or_default();
            let bytes_max = if self.authorised { BUFFER_BYTES_MAX } else { STRANGER_BYTES_MAX };
            let Some(command) = first_command(rest, bytes_max)? else { break };
            used += command.len();
            let Ok(Some((frame, _))) = decode(command) else { return Err(Broken::NotResp) };
            let words = words(frame).ok_or(Broken::NotResp)?;
            said.extend(self.command(&words, answers));
            if self.refusals >= REFUSALS_MAX {
                return Err(Broken::NotAuthorised);
            }
        }
        self.buffer.drain(..used);
        Ok(said)
    }

    /// True once the password was said, or when there is none.
    pub const fn is_authorised(&self) -> bool {
        self.authorised
    }

    fn command(&mut self, words: &[String], answers: &mut Vec<u8>) -> Option<Said> {
        let name = words.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        let rest = words.get(1..).unwrap_or_default();
        if name == "AUTH" {
            self.authorise(rest, answers);
            return None;
        }
        if !self.authorised {
            self.refusals += 1;
            answers.extend_from_slice(b"-NOAUTH Authentication required.\r\n");
            return None;
        }
        let (answer, said): (&[u8], Option<Said>) = match (name.as_str(), rest) {
            ("SELECT", [database]) => match database.parse() {
                Ok(database) => {
                    self.database = database;
                    (b"+OK\r\n", Some(Said::Named))
                }
                Err(_) => (b"-ERR invalid DB index\r\n", None),
            },
            ("SET", [key, value, ..]) => {
                (b"+OK\r\n", Some(Said::Set { key: key.clone(), value: value.clone() }))
            }
            ("DEL", [key, ..]) => (b":1\r\n", Some(Said::Deleted { key: key.clone() })),
            ("PUBLISH", [channel, payload]) => {
                (b":1\r\n", Some(Said::Published { channel: channel.clone(), payload: payload.clone() }))
            }
            ("KEYS", [_]) => (b"*0\r\n", Some(Said::Started)),
            ("PING", []) => (b"+PONG\r\n", None),
            ("QUIT", _) => (b"+OK\r\n", None),
            _ => (b"-ERR unknown command: this is Fanlight's listener for coturn's statistics\r\n", None),
        };
        answers.extend_from_slice(answer);
        said
    }

    fn authorise(&mut self, words: &[String], answers: &mut Vec<u8>) {
        let (user, password) = match words {
            [password] => ("default", password),
            [user, password] => (user.as_str(), password),
            _ => {
                self.refusals += u32::from(!self.authorised);
                answers.extend_from_slice(b"-ERR wrong number of arguments for 'auth' command\r\n");
                return;
            }
        };
        // coturn says AUTH '' even when it was given no password.
        if self.password.as_ref().is_some_and(|expected| !is_same(expected, password)) {
            self.refusals += u32::from(!self.authorised);
            answers.extend_from_slice(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n");
            return;
        }
        self.authorised = true;
        user.clone_into(&mut self.user);
        answers.extend_from_slice(b"+OK\r\n");
    }
}

/// In a time that does not depend on where they differ.
fn is_same(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).fold(0, |differences, (a, b)| differences | (a ^ b));
    a.len() == b.len() && differences == 0
}

/// The first command of what came, once it is whole: an array of bulk strings, as Redis's clients send them. The library
/// would follow arrays in arrays as deep as they go, on the stack.
fn first_command(bytes: &[u8], bytes_max: usize) -> Result<Option<&[u8]>, Broken> {
    let Some((words, mut at)) = head(bytes, b'*')? else { return Ok(None) };
    if words == 0 || words > WORDS_MAX {
        return Err(Broken::NotResp);
    }
    for _ in 0..words {
        let Some((len, head_len)) = head(bytes.get(at..).unwrap_or_default(), b'$')? else {
            return if bytes.len() > bytes_max { Err(Broken::TooLong(bytes_max)) } else { Ok(None) };
        };
        at = at.saturating_add(head_len).saturating_add(len).saturating_add(2);
        if at > bytes_max {
            return Err(Broken::TooLong(bytes_max));
        }
    }
    Ok(bytes.get(..at))
}

/// Reads `*3\r\n` or `$3\r\n`: the number, and the bytes of the line. `None` while the line is not whole.
fn head(bytes: &[u8], marker: u8) -> Result<Option<(usize, usize)>, Broken> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    if *first != marker {
        return Err(Broken::NotResp);
    }
    let line = rest.get(..rest.len().min(HEAD_BYTES_MAX)).unwrap_or_default();
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() == HEAD_BYTES_MAX { Err(Broken::NotResp) } else { Ok(None) };
    };
    let digits = line.get(..end).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.map(|number| Some((number, 1 + end + 2))).ok_or(Broken::NotResp)
}

/// The words of a command that [`first_command`] found.
fn words(frame: OwnedFrame) -> Option<Vec<String>> {
    let OwnedFrame::Array(frames) = frame else { return None };
    let word = |frame| match frame {
        OwnedFrame::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    };
    frames.into_iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
        }
        bytes
    }

    fn talk(connection: &mut Connection, words: &[&str]) -> (String, Vec<Said>) {
        let mut answers = Vec::new();
        let said = connection.handle_bytes(&command(words), &mut answers).unwrap();
        (String::from_utf8(answers).unwrap(), said)
    }

    #[test]
    fn coturns_commands_are_answered_as_redis_would() {
        let mut connection = Connection::new(None);
        assert_eq!(talk(&mut connection, &["AUTH", ""]).0, "+OK\r\n");
        assert_eq!(talk(&mut connection, &["select", "42"]).0, "+OK\r\n");
        assert_eq!(connection.database, 42);
        assert_eq!(
            talk(&mut connection, &["keys", "turn/*/allocation/*/status"]),
            ("*0\r\n".into(), vec![Said::Started])
        );
        assert_eq!(talk(&mut connection, &["set", "k", "new lifetime=600"]).0, "+OK\r\n");
        let published = Said::Published { channel: "k".into(), payload: "new lifetime=600".into() };
        assert_eq!(
            talk(&mut connection, &["publish", "k", "new lifetime=600"]),
            (":1\r\n".into(), vec![published])
        );
        assert_eq!(talk(&mut connection, &["del", "k", ""]).0, ":1\r\n");
        assert!(talk(&mut connection, &["FLUSHALL"]).0.starts_with("-ERR"));
    }

    #[test]
    fn without_the_password_nothing_is_taken() {
        let mut connection = Connection::new(Some("secret".into()));
        let (answer, said) = talk(&mut connection, &["publish", "k", "v"]);
        assert!(answer.starts_with("-NOAUTH") && said.is_empty());
        assert!(talk(&mut connection, &["AUTH", "secre"]).0.starts_with("-WRONGPASS"));
        assert!(talk(&mut connection, &["AUTH", "node1", "secret"]).0.starts_with("+OK"));
        assert_eq!(connection.user, "node1");
        assert_eq!(talk(&mut connection, &["publish", "k", "v"]).1.len(), 1);
    }

    #[test]
    fn a_command_may_come_in_any_pieces() {
        let stream =
            [command(&["AUTH", ""]), command(&["publish", "a", "1"]), command(&["publish", "b", "2"])]
                .concat();
        for size in 1..stream.len() {
            let mut connection = Connection::new(None);
            let mut answers = Vec::new();
            let said: Vec<Said> = stream
                .chunks(size)
                .flat_map(|piece| connection.handle_bytes(piece, &mut answers).unwrap())
                .collect();
            assert_eq!(
                (said.len(), answers.as_slice()),
                (2, &b"+OK\r\n:1\r\n:1\r\n"[..]),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn what_is_no_command_ends_the_connection() {
        let broken = |bytes: &[u8]| Connection::new(None).handle_bytes(bytes, &mut Vec::new());
        assert_eq!(broken(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Err(Broken::NotResp));
        assert_eq!(broken(b"+OK\r\n"), Err(Broken::NotResp));
        let endless =
            [b"*2\r\n$7\r\npublish\r\n$900000\r\n".to_vec(), vec![b'x'; BUFFER_BYTES_MAX + 1]].concat();
        assert_eq!(broken(&endless), Err(Broken::TooLong(BUFFER_BYTES_MAX)));
        assert_eq!(broken(&command(&["x"; WORDS_MAX + 1])), Err(Broken::NotResp));
        assert_eq!(broken(b"*99999999999999999999\r\n"), Err(Broken::NotResp));
        assert_eq!(broken(b"*1\r\n$18446744073709551615\r\n"), Err(Broken::NotResp));
        assert_eq!(broken(b"*-1\r\n"), Err(Broken::NotResp));
    }

    #[test]
    fn a_stranger_is_kept_a_password_s_length() {
        let mut connection = Connection::new(Some("secret".into()));
        let long = "x".repeat(STRANGER_BYTES_MAX);
        let told = connection.handle_bytes(&command(&["publish", "k", &long]), &mut Vec::new());
        assert_eq!(told, Err(Broken::TooLong(STRANGER_BYTES_MAX)));
        let mut connection = Connection::new(Some("secret".into()));
        talk(&mut connection, &["AUTH", "secret"]);
        assert_eq!(talk(&mut connection, &["publish", "k", &long]).1.len(), 1);
    }

    #[test]
    fn arrays_in_arrays_end_the_connection_whatever_their_depth() {
        // On a thread as small as the smallest that any platform gives: it would overflow if anything followed them.
        let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(|| {
            for marker in ["*1", "%1", "~1", ">1", "|1", "*-1", "_", "*"] {
                for password in [None, Some("secret".to_owned())] {
                    let bytes = format!("{marker}\r\n").repeat(16_000);
                    let mut connection = Connection::new(password);
                    assert_eq!(
                        connection.handle_bytes(bytes.as_bytes(), &mut Vec::new()),
                        Err(Broken::NotResp)
                    );
                }
            }
        });
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn a_stranger_gets_few_answers() {
        let said = |bytes: &[u8], answers: &mut Vec<u8>| {
            Connection::new(Some("secret".into())).handle_bytes(bytes, answers)
        };
        for flood in [command(&["PING"]), command(&["AUTH", "guess"]), command(&["AUTH"])] {
            let mut answers = Vec::new();
            assert_eq!(said(&flood.repeat(1_000), &mut answers), Err(Broken::NotAuthorised));
            assert_eq!(answers.iter().filter(|byte| **byte == b'\n').count(), REFUSALS_MAX as usize);
        }
    }
}
