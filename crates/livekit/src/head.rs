//! The head of an HTTP/1.1 request before the library for HTTP sees it: where it ends, how long its body is, and the query
//! that is too long for that library.
//!
//! A token with much metadata makes a request target that `http::Uri` does not hold (65,534 bytes); Go's `net/http`, which
//! LiveKit is served by, takes a head of 1 MiB. So a long query is taken out here and handed on beside the request.

/// Largest head, as Go's `http.DefaultMaxHeaderBytes`: 500 kB of metadata are 670 kB in a token.
pub const HEAD_BYTES_MAX: usize = 1 << 20;
/// Header fields of a request, as many as `hyper` takes.
pub const FIELDS_MAX: usize = 100;
/// A target that is longer than this goes on without its query; `http::Uri` holds 65,534 bytes.
const TARGET_BYTES_MAX: usize = 60_000;
/// Instead of keeping a connection whose body has no length that could be counted here.
const CLOSE: &[u8] = b"Connection: close\r\n\r\n";

/// How much follows a head (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// So many bytes, perhaps none.
    Bytes(u64),
    /// As the transfer coding says; the connection closes behind it.
    Coded,
}

/// A head that can be handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// To be parsed again.
    pub bytes: Vec<u8>,
    /// The query that was taken out of the target.
    pub query: Option<String>,
    /// What follows.
    pub body: BodyLength,
}

/// A head that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// 400.
    #[error("the request is not HTTP/1.1")]
    Malformed,
    /// 400: two readers would find two ends (RFC 9112 §6.3).
    #[error("the length of the body is not clear: send one Content-Length, or Transfer-Encoding alone")]
    Length,
    /// 431.
    #[error("more than {FIELDS_MAX} header fields")]
    Fields,
}

impl BadHead {
    /// Its status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::Length => 400,
            Self::Fields => 431,
        }
    }
}

/// Where the first head in `bytes` ends, behind its empty line. No line ends before `from`, so that a head that comes in
/// pieces is looked through once.
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let begin = from.saturating_sub(2);
    let lines = bytes.get(begin..)?.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    for (at, _) in lines {
        let after = begin + at + 1;
        match bytes.get(after..) {
            Some([b'\n', ..]) => return Some(after + 1),
            Some([b'\r', b'\n', ..]) => return Some(after + 2),
            _ => {}
        }
    }
    None
}

/// Empty lines before a request, which are passed over (RFC 9112 §2.2).
pub fn empty_lines(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

/// Reads a whole head.
pub fn read(mut bytes: Vec<u8>) -> Result<Head, BadHead> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(&bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() && empty_lines(&bytes) == 0 => {}
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::Fields),
        Ok(_) | Err(_) => return Err(BadHead::Malformed),
    }
    let body = body_length(request.headers)?;
    let (Some(method), Some(target)) = (request.method, request.path) else { return Err(BadHead::Malformed) };
    // The library takes one space behind the method, and nothing before it.
    let begin = method.len() + 1;
    let cut = (target.len() > TARGET_BYTES_MAX).then(|| target.find('?')).flatten();
    let cut = cut.map(|at| begin + at..begin + target.len());
    let query = cut.map(|range| {
        let query: Vec<u8> = bytes.drain(range).skip(1).collect();
        String::from_utf8(query).map_err(|_| BadHead::Malformed)
    });
    let query = query.transpose()?;
    if body == BodyLength::Coded {
        let blank = if bytes.ends_with(b"\r\n") { 2 } else { 1 };
        bytes.truncate(bytes.len().saturating_sub(blank));
        bytes.extend_from_slice(CLOSE);
    }
    Ok(Head { bytes, query, body })
}

fn body_length(fields: &[httparse::Header<'_>]) -> Result<BodyLength, BadHead> {
    let named = |name: &'static str| {
        fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let mut lengths = named("content-length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(BadHead::Length);
    }
    match (named("transfer-encoding").next(), length) {
        (Some(_), Some(_)) => Err(BadHead::Length),
        (Some(_), None) => Ok(BodyLength::Coded),
        (None, None) => Ok(BodyLength::Bytes(0)),
        (None, Some(digits)) => {
            let text = std::str::from_utf8(digits).map_err(|_| BadHead::Length)?;
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|_| is_number);
            number.map(BodyLength::Bytes).ok_or(BadHead::Length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Head, BadHead> {
        read(text.as_bytes().to_vec())
    }

    #[test]
    fn a_head_ends_at_its_empty_line_however_it_comes_in_pieces() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore";
        for pieces in 1..text.len() {
            let mut from = 0;
            let mut found = None;
            for upto in (0..=text.len()).step_by(pieces).chain([text.len()]) {
                found = found.or_else(|| end(&text[..upto], from));
                from = upto;
            }
            assert_eq!(found, Some(text.len() - 4), "in pieces of {pieces}");
        }
        assert_eq!(end(b"GET / HTTP/1.1\n\nmore", 0), Some(16));
        assert_eq!(end(b"GET / HTTP/1.1\r\nA: b\r\n\r", 0), None);
    }

    #[test]
    fn a_long_query_is_taken_out_and_all_else_stays() {
        let query = format!("access_token={}", "x".repeat(700_000));
        let head = read_text(&format!("GET /rtc?{query} HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
        assert_eq!(head.bytes, b"GET /rtc HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head.query, Some(query));
        let short = "GET /rtc?a=b HTTP/1.1\r\nHost: a\r\n\r\n";
        let expected = Head { bytes: short.into(), query: None, body: BodyLength::Bytes(0) };
        assert_eq!(read_text(short), Ok(expected));
    }

    #[test]
    fn lengths_that_two_readers_would_read_differently_are_refused() {
        let with =
            |fields: &str| read_text(&format!("POST / HTTP/1.1\r\n{fields}\r\n")).map(|head| head.body);
        assert_eq!(with("Content-Length: 17\r\n"), Ok(BodyLength::Bytes(17)));
        assert_eq!(with("Transfer-Encoding: chunked\r\n"), Ok(BodyLength::Coded));
        for bad in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length:\r\n",
        ] {
            assert_eq!(with(bad), Err(BadHead::Length), "{bad}");
        }
    }

    #[test]
    fn behind_a_body_without_a_length_the_connection_closes() {
        let head = read_text("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert_eq!(head.bytes, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn what_is_no_head_gets_its_status() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
        for (text, status) in
            [("\0\u{1} nonsense\r\n\r\n", 400), ("GET /\u{1} HTTP/1.1\r\n\r\n", 400), (&many, 431)]
        {
            assert_eq!(read_text(text).unwrap_err().status(), status, "{text:?}");
        }
    }
}
