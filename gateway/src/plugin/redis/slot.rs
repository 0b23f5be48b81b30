//! Where a Redis Cluster keeps a key.
//!
//! Owns the hash of a key to its slot (Redis Cluster specification, "Key distribution model") and the reading of
//! redirections. Pure.

use super::resp::Reply;

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// The slot of a key: by what stands between the first braces, if anything does.
pub fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|&byte| byte == b'}').filter(|end| *end > 0).map(|end| &rest[..end])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            },
        )
    })
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// The slot is another node's from now on.
    Moved { slot: u16, host: String, port: u16 },
    /// This one request is for another node, which must be asked for it.
    Ask { host: String, port: u16 },
}

/// The redirection that a reply is. An empty host is that of the node which said so.
pub fn redirect(reply: &Reply) -> Option<Redirect> {
    let Reply::Error(text) = reply else { return None };
    let mut words = text.split(' ');
    let (kind, slot, node) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let (host, port) = node.rsplit_once(':')?;
    let (host, port) = (host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?);
    match kind {
        "MOVED" if slot < SLOTS => Some(Redirect::Moved { slot, host, port }),
        "ASK" => Some(Redirect::Ask { host, port }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, same) in
            [("{user1000}.following", "user1000"), ("a{b}c{d}", "b"), ("foo{}{bar}", "foo{}{bar}")]
        {
            assert_eq!(slot(key.as_bytes()), crc16(same.as_bytes()) % SLOTS, "{key}");
        }
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!((slot(b"foo"), slot(b"somekey"), slot(b"foo{hash_tag}")), (12_182, 11_058, 2_515));
    }

    #[test]
    fn redirections_are_read() {
        let read = |text: &str| redirect(&Reply::Error(text.into()));
        let host = || "127.0.0.1".to_owned();
        assert_eq!(
            read("MOVED 3999 127.0.0.1:6381"),
            Some(Redirect::Moved { slot: 3999, host: host(), port: 6381 })
        );
        assert_eq!(read("ASK 3999 127.0.0.1:6381"), Some(Redirect::Ask { host: host(), port: 6381 }));
        assert_eq!(
            read("MOVED 1 2001:db8::1:6381"),
            Some(Redirect::Moved { slot: 1, host: "2001:db8::1".into(), port: 6381 })
        );
        for text in ["MOVED", "MOVED x 127.0.0.1:1", "MOVED 99999 127.0.0.1:1", "MOVED 1 127.0.0.1", "ERR no"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
