//! The head of a request or response: start line and fields (RFC 9112, sections 2 to 5).

use std::io::{self, Read};

/// The longest head accepted, in bytes.
pub(super) const MAX_HEAD: usize = 8 * 1024;

/// Why there is no head.
#[derive(Debug)]
pub(super) enum HeadError {
    /// The connection ended before its first byte.
    End,
    /// It ended, or failed, in the middle.
    Io(io::Error),
    /// It is not HTTP, or too long.
    Malformed(&'static str),
}

/// A start line's three words and the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) start: [String; 3],
    pub(super) fields: Vec<(String, String)>,
}

impl Head {
    /// Reads up to the empty line. What followed in the same reads stays in `buffer`.
    pub(super) fn read(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Self, HeadError> {
        let mut piece = [0; 4096];
        loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = Self::parse(&buffer[..end]);
                buffer.drain(..end + 4);
                return head;
            }
            if buffer.len() > MAX_HEAD {
                return Err(HeadError::Malformed("the head is too long"));
            }
            match stream.read(&mut piece) {
                Ok(0) if buffer.is_empty() => return Err(HeadError::End),
                Ok(0) => return Err(HeadError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => buffer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(HeadError::Io(error)),
            }
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        let text =
            std::str::from_utf8(bytes).map_err(|_| HeadError::Malformed("the head is not text"))?;
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        let (Some(first), Some(second)) = (words.next(), words.next()) else {
            return Err(HeadError::Malformed("the first line lacks words"));
        };
        let start = [first, second, words.next().unwrap_or_default()];
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_owned(), value.trim().to_owned()))
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(HeadError::Malformed("a field without a colon"))?;
        Ok(Self { start, fields })
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body's length; `None` without the field.
    pub(super) fn content_length(&self) -> Result<Option<u64>, HeadError> {
        self.field("content-length")
            .map(|value| {
                value.parse().map_err(|_| HeadError::Malformed("Content-Length is no number"))
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_head_stays() {
        let mut buffer = Vec::new();
        let mut stream = &b"POST /upload HTTP/1.1\r\nContent-length:  3\r\n\r\nabc"[..];
        let head = Head::read(&mut stream, &mut buffer).unwrap();
        assert_eq!(head.start, ["POST", "/upload", "HTTP/1.1"]);
        assert_eq!(head.content_length().unwrap(), Some(3));
        assert_eq!(buffer, b"abc");
    }

    #[test]
    fn what_is_not_http_is_refused() {
        let read = |mut bytes: &[u8]| Head::read(&mut bytes, &mut Vec::new());
        assert!(matches!(read(b""), Err(HeadError::End)));
        assert!(matches!(read(b"GET / HT"), Err(HeadError::Io(_))));
        assert!(matches!(read(b"hello\r\n\r\n"), Err(HeadError::Malformed(_))));
        assert!(matches!(read(b"GET / HTTP/1.1\r\nx\r\n\r\n"), Err(HeadError::Malformed(_))));
        assert!(matches!(read(b"\xff \xff\r\n\r\n"), Err(HeadError::Malformed(_))));
        assert!(matches!(read(&[b'a'; 3 * MAX_HEAD]), Err(HeadError::Malformed(_))));
        let head = read(b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n").unwrap();
        assert!(matches!(head.content_length(), Err(HeadError::Malformed(_))));
    }
}
