//! Asks a running gateway over its admin socket: the other end of [`super::admin`].
//!
//! Owns: one request, one answer, for `portcullis reload`, `status`, `ban` and their like. Never: a runtime; these
//! commands do one thing and end. HTTP/1.0, so that the answer comes unchunked and ends with the connection.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// An answer of the admin listener.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Sends `method path` to the gateway behind `socket`.
pub fn ask(socket: &Path, method: &str, path: &str) -> Result<Answer> {
    ask_with(socket, method, path, "")
}

/// As [`ask`], with a body of JSON.
pub fn ask_with(socket: &Path, method: &str, path: &str, body: &str) -> Result<Answer> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("no gateway answers at {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: admin\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer).context("the answer did not come whole")?;
    parse(&answer)
}

fn parse(answer: &str) -> Result<Answer> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("the answer is not HTTP") };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.context("the answer has no status")?;
    Ok(Answer { status, body: body.to_owned() })
}

/// A reload of a large configuration takes its time; a minute is far more.
const PATIENCE: Duration = Duration::from_secs(60);

const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\nx: y\r\n\r\nno\r\n\r\n").unwrap();
        assert_eq!(answer, Answer { status: 503, body: "no\r\n\r\n".into() });
        assert!(parse("HTTP/1.0 200 OK\r\n").is_err());
        assert!(parse("SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn nobody_there() {
        let folder = tempfile::tempdir().unwrap();
        let error = ask(&folder.path().join("admin.sock"), "GET", "/status").unwrap_err();
        assert!(error.to_string().contains("admin.sock"), "{error}");
    }
}
