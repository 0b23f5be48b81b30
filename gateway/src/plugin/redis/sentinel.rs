//! Redis Sentinel: who is asked which server of a group is its master now.
//!
//! Owns the questions and the reading of their answers ("Redis Sentinel client spec"). Pure.

use portcullis_config::Secret;

use super::resp::{self, Reply};

/// Processes that watch a group of servers.
pub struct Sentinels {
    /// The name of the group.
    pub master: String,
    /// Host and port of each; at least one.
    pub nodes: Vec<(String, u16)>,
    pub username: Option<String>,
    pub password: Option<Secret>,
}

impl Sentinels {
    /// Commands that ask for the master, and how many they are.
    pub fn question(&self) -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        let commands = resp::login(&mut out, self.username.as_deref(), self.password.as_ref());
        resp::command(&mut out, &[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.master.as_bytes()]);
        (out, commands + 1)
    }
}

/// Host and port of the master, if the sentinel knows one.
pub fn master(reply: &Reply) -> Option<(String, u16)> {
    let Reply::Array(items) = reply else { return None };
    let [Reply::Bytes(host), Reply::Bytes(port)] = items.as_slice() else { return None };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some((text(host)?, text(port)?.parse().ok()?))
}

/// Whether a server that was asked for its `ROLE` is a master: what a sentinel says may be old.
pub fn is_master(reply: &Reply) -> bool {
    matches!(reply, Reply::Array(items) if items.first() == Some(&Reply::Bytes(b"master".to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let bytes = |text: &str| Reply::Bytes(text.as_bytes().to_vec());
        let place = |host, port| Reply::Array(vec![bytes(host), bytes(port)]);
        assert_eq!(master(&place("10.0.0.1", "6379")), Some(("10.0.0.1".to_owned(), 6379)));
        assert_eq!(master(&place("10.0.0.1", "70000")), None);
        assert_eq!(master(&Reply::Nil), None);
        assert!(is_master(&Reply::Array(vec![bytes("master"), Reply::Integer(7), Reply::Array(Vec::new())])));
        assert!(!is_master(&Reply::Array(vec![bytes("slave"), bytes("10.0.0.1")])));
        assert!(!is_master(&Reply::Status("PONG".into())));
    }
}
