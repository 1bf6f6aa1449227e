//! Why a text is not a session description we take.

use super::{
    DESCRIPTION_BYTES_MAX, FORMATS_MAX, LINE_BYTES_MAX, MEDIA_WORD_BYTES_MAX, SECTION_BYTES_MAX,
    SECTION_LINES_MAX, SECTIONS_MAX,
};

/// Why parsing refused a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Nothing, or only white space.
    #[error("session description is empty")]
    Empty,
    /// The first line is not `v=0`.
    #[error("session description does not begin with v=0")]
    Version,
    /// Longer than the limit.
    #[error("session description has {bytes} bytes, at most {DESCRIPTION_BYTES_MAX} are taken")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More m-lines than the limit.
    #[error("session description has more than {SECTIONS_MAX} m-lines")]
    TooManySections,
    /// More lines in one section than the limit.
    #[error("a section has more than {SECTION_LINES_MAX} lines (line {line})")]
    TooManyLines {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A section, or the part before the first one, longer than the limit.
    #[error("a section has more than {SECTION_BYTES_MAX} bytes (line {line})")]
    SectionTooLong {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A line longer than the limit.
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A line that is not `<letter>=<value>`, or holds a control character.
    #[error("line {line} is not of the form <type>=<value>")]
    BadLine {
        /// Number of the line, from 1.
        line: usize,
    },
    /// An m-line that is not `m=<media> <port> <proto> <format>…`, or has a word longer than the limit.
    #[error("line {line} is not an m-line with words of at most {MEDIA_WORD_BYTES_MAX} bytes")]
    BadMediaLine {
        /// Number of the line, from 1.
        line: usize,
    },
    /// An m-line with more formats than the limit.
    #[error("line {line} lists more than {FORMATS_MAX} formats")]
    TooManyFormats {
        /// Number of the line, from 1.
        line: usize,
    },
}
