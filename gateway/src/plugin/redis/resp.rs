//! The protocol of Redis (RESP 2), as bytes.
//!
//! Owns reading replies and writing commands. Pure; never waits.
//!
//! **Invariant.** A reply takes no more memory than its bytes on the wire, and is at most [`REPLY_MAX`] long and
//! [`DEPTH_MAX`] deep: what a server sends is not trusted.

use portcullis_config::Secret;

/// Most octets of one reply.
pub const REPLY_MAX: usize = 64 * 1024;
/// Arrays within arrays.
const DEPTH_MAX: usize = 4;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Integer(i64),
    Status(String),
    Bytes(Vec<u8>),
    /// Its first word is the kind: `NOSCRIPT`, `MOVED`, `WRONGPASS`, ...
    Error(String),
    Array(Vec<Reply>),
}

/// Not the protocol, or more of it than is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads one reply: it and its length, or `None` while it is incomplete.
///
/// # Errors
/// See [`Malformed`].
pub fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let mut at = 0;
    match read(input, &mut at, 0)? {
        Some(reply) => Ok(Some((reply, at))),
        None if input.len() >= REPLY_MAX => Err(Malformed),
        None => Ok(None),
    }
}

fn read(input: &[u8], at: &mut usize, depth: usize) -> Result<Option<Reply>, Malformed> {
    let Some(line) = line(input, at)? else { return Ok(None) };
    let (Some(kind), rest) = (line.first(), line.get(1..).unwrap_or_default()) else { return Err(Malformed) };
    let text = || String::from_utf8_lossy(rest).into_owned();
    Ok(Some(match kind {
        b'+' => Reply::Status(text()),
        b'-' => Reply::Error(text()),
        b':' => Reply::Integer(number(rest)?),
        b'$' | b'*' if rest == b"-1" => Reply::Nil,
        b'$' => {
            let length = usize::try_from(number(rest)?).map_err(|_| Malformed)?;
            if length > REPLY_MAX {
                return Err(Malformed);
            }
            let Some(bytes) = input.get(*at..*at + length + 2) else { return Ok(None) };
            *at += length + 2;
            Reply::Bytes(bytes.strip_suffix(b"\r\n").ok_or(Malformed)?.to_vec())
        }
        b'*' => {
            let length = usize::try_from(number(rest)?).map_err(|_| Malformed)?;
            if length > REPLY_MAX || depth == DEPTH_MAX {
                return Err(Malformed);
            }
            let mut items = Vec::new();
            for _ in 0..length {
                let Some(item) = read(input, at, depth + 1)? else { return Ok(None) };
                items.push(item);
            }
            Reply::Array(items)
        }
        _ => return Err(Malformed),
    }))
}

/// A line without its end.
fn line<'a>(input: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, Malformed> {
    let rest = input.get(*at..).unwrap_or_default();
    let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    *at += end + 1;
    rest[..end].strip_suffix(b"\r").map(Some).ok_or(Malformed)
}

fn number(text: &[u8]) -> Result<i64, Malformed> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)
}

/// Writes one command.
pub fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    let header = |mark: u8, length: usize, out: &mut Vec<u8>| {
        out.push(mark);
        out.extend_from_slice(length.to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
    };
    header(b'*', words.len(), out);
    for word in words {
        header(b'$', word.len(), out);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the login, where there is a password, and says how many commands that is.
pub fn login(out: &mut Vec<u8>, username: Option<&str>, password: Option<&Secret>) -> usize {
    let Some(password) = password.map(|password| password.expose().as_bytes()) else { return 0 };
    match username {
        Some(name) => command(out, &[b"AUTH", name.as_bytes(), password]),
        None => command(out, &[b"AUTH", password]),
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_of_every_kind_are_read() {
        let bytes = |text: &str| Reply::Bytes(text.as_bytes().to_vec());
        for (text, reply) in [
            ("+OK\r\n", Reply::Status("OK".into())),
            ("-NOSCRIPT No matching script\r\n", Reply::Error("NOSCRIPT No matching script".into())),
            (":-7\r\n", Reply::Integer(-7)),
            ("$3\r\na\r\n\r\n", bytes("a\r\n")),
            ("$0\r\n\r\n", bytes("")),
            ("$-1\r\n", Reply::Nil),
            ("*0\r\n", Reply::Array(vec![])),
            (
                "*2\r\n:1\r\n*1\r\n$1\r\nx\r\n",
                Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![bytes("x")])]),
            ),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(Some((reply, text.len()))), "{text:?}");
            for cut in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..cut]), Ok(None), "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_told() {
        let deep = "*1\r\n".repeat(6) + ":1\r\n";
        for text in [
            "HTTP/1.1 400\r\n",
            "+OK\n",
            ":x\r\n",
            "$1\r\nab\r\n",
            "$99999999\r\n",
            "*99999999\r\n",
            "\r\n",
            &deep,
        ] {
            assert_eq!(parse(text.as_bytes()), Err(Malformed), "{text:?}");
        }
        assert_eq!(parse(&vec![b'+'; REPLY_MAX]), Err(Malformed), "an endless line");
    }

    proptest! {
        #[test]
        fn no_input_panics(input in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'*'), Just(b'$'), Just(b'1'), any::<u8>()], 0..64)) {
            let _ = parse(&input);
        }

        #[test]
        fn a_command_reads_as_an_array(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6)) {
            let mut out = Vec::new();
            command(&mut out, &words.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let reply = Reply::Array(words.into_iter().map(Reply::Bytes).collect());
            prop_assert_eq!(parse(&out), Ok(Some((reply, out.len()))));
        }
    }
}
