//! What is said to the upstream about the client, and what is believed of what others say about it.
//!
//! | field | from an untrusted source | from a trusted proxy |
//! |---|---|---|
//! | `X-Forwarded-For` | replaced by the source | the source is appended |
//! | `X-Forwarded-Proto`, `-Host`, `-Port` | replaced by ours | kept; ours where absent |
//! | `X-Forwarded-Prefix` | what `strip_path` takes off, else removed | kept; ours where absent |
//! | `Forwarded` | removed | kept |
//! | `X-Real-IP` | the source | the client found by walking `X-Forwarded-For` |
//! | `X-Request-ID` | ours | kept; ours where absent |
//! | `X-Consumer-*`, `X-Credential-Identifier`, ... | removed | removed: plugins set them |
//! | `Via` | ours is appended | ours is appended |

use std::net::IpAddr;
use std::str::FromStr;

use super::connection::Origin;
use crate::http::{Head, Known, KnownSet, RequestHead};
use crate::limit::CidrSet;

/// What we call ourselves.
pub const PSEUDONYM: &str = "portcullis";
/// Our entry in `Via` (RFC 9110 section 7.6.3): a pseudonym, no version.
pub const VIA: &str = "1.1 portcullis";

/// Identity fields that only plugins may set.
const IDENTITY: KnownSet = KnownSet::of(&[
    Known::XConsumerId,
    Known::XConsumerCustomId,
    Known::XConsumerUsername,
    Known::XConsumerGroups,
    Known::XAuthenticatedGroups,
    Known::XCredentialIdentifier,
    Known::XAnonymousConsumer,
]);

/// What only a trusted proxy may say.
const CLAIMS: KnownSet = KnownSet::of(&[
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedPrefix,
    Known::XForwardedPath,
    Known::Forwarded,
    Known::XRealIp,
    Known::XRequestId,
]);

/// The fields of [`provenance`].
const PROVENANCE: KnownSet = KnownSet::of(&[
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedPort,
    Known::XRealIp,
    Known::Via,
]);

/// Removes what a client must not be able to claim; before any plugin looks.
pub fn strip_claims(head: &mut Head, trusted: bool) {
    head.remove_set(IDENTITY);
    if !trusted {
        head.remove_set(CLAIMS);
    }
}

/// What is said of every request of a connection that says nothing about itself: made once, copied in one piece.
pub fn provenance(source: &str, https: bool, port: u16) -> Head {
    let mut head = Head::new();
    head.append_known(Known::XForwardedFor, source);
    head.append_known(Known::XForwardedProto, if https { "https" } else { "http" });
    let mut digits = [0; 20];
    head.append_known(Known::XForwardedPort, crate::http::head::decimal(port.into(), &mut digits));
    head.append_known(Known::XRealIp, source);
    head.append_known(Known::Via, VIA);
    head
}

/// Adds what the upstream is told; once per exchange, whatever the number of attempts.
pub fn add_provenance(request: &mut RequestHead, origin: &Origin, client: IpAddr, request_id: &[u8]) {
    let head = &mut request.head;
    if client == origin.speaker.ip() && !head.contains_any(PROVENANCE) {
        head.append_head(&origin.provenance);
    } else {
        extend_provenance(head, origin, client);
    }
    if head.get_known(Known::XRequestId).is_none() {
        head.append_known(Known::XRequestId, request_id);
    }
    if head.get_known(Known::XForwardedHost).is_none() {
        request.append_authority(Known::XForwardedHost);
    }
}

/// Adds to what a trusted proxy, or a `Via` of the client, says already.
fn extend_provenance(head: &mut Head, origin: &Origin, client: IpAddr) {
    head.append_item(Known::XForwardedFor, &origin.speaker_text);
    if head.get_known(Known::XForwardedProto).is_none() {
        head.append_known(Known::XForwardedProto, if origin.https { "https" } else { "http" });
    }
    if head.get_known(Known::XForwardedPort).is_none() {
        let mut digits = [0; 20];
        let port = crate::http::head::decimal(origin.listener_port.into(), &mut digits);
        head.append_known(Known::XForwardedPort, port);
    }
    if client == origin.speaker.ip() {
        head.set_known(Known::XRealIp, &origin.speaker_text);
    } else {
        head.set_known(Known::XRealIp, client.to_string());
    }
    head.append_item(Known::Via, VIA);
}

/// Tells the upstream which prefix of the path `strip_path` takes off, as Kong does.
pub fn add_prefix(request: &mut RequestHead, matched_len: usize) {
    if request.head.get_known(Known::XForwardedPrefix).is_none() {
        request.append_path_prefix(Known::XForwardedPrefix, matched_len);
    }
}

/// Finds the client in `X-Forwarded-For`, walking from the right over trusted proxies. The first address that is not
/// trusted is the client: all left of it is its own claim. Falls back to `X-Real-IP`, then to the source.
pub fn client_from_fields(head: &Head, source: IpAddr, trusted: &CidrSet) -> IpAddr {
    let mut client = source;
    let mut said_any = false;
    // Several lines are one list; the last line is the nearest proxy's.
    let lines: Vec<&[u8]> = head.all_known(Known::XForwardedFor).collect();
    for element in lines.iter().rev().flat_map(|line| line.rsplit(|&b| b == b',')) {
        let Some(address) = parse_address(element) else { break };
        said_any = true;
        client = address;
        if !trusted.contains(address) {
            break;
        }
    }
    if !said_any && let Some(address) = head.get_known(Known::XRealIp).and_then(parse_address) {
        return address;
    }
    client
}

/// An address as it stands in forwarding fields: bare, in brackets, or with a port.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Ok(address) = IpAddr::from_str(text) {
        return Some(address.to_canonical());
    }
    if let Ok(address) = std::net::SocketAddr::from_str(text) {
        return Some(address.ip().to_canonical());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    IpAddr::from_str(inner).ok().map(|a| a.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(lines: &[&str], real_ip: Option<&str>) -> String {
        let trusted = CidrSet::new(["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut head = Head::new();
        for line in lines {
            head.append_known(Known::XForwardedFor, line);
        }
        if let Some(text) = real_ip {
            head.append_known(Known::XRealIp, text);
        }
        client_from_fields(&head, "10.0.0.1".parse().unwrap(), &trusted).to_string()
    }

    #[test]
    fn the_first_untrusted_address_from_the_right_is_the_client() {
        let check = |lines: &[&str], expected: &str| assert_eq!(client(lines, None), expected, "{lines:?}");
        check(&[], "10.0.0.1");
        check(&["203.0.113.7"], "203.0.113.7");
        check(&["1.1.1.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7");
        check(&["1.1.1.1", "203.0.113.7", "10.9.9.9"], "203.0.113.7");
        check(&["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check(&["[2001:db8::1]:443, fd00::2"], "2001:db8::1");
        check(&["203.0.113.7:5555"], "203.0.113.7");
        check(&["::ffff:203.0.113.7"], "203.0.113.7");
    }

    #[test]
    fn what_does_not_parse_ends_the_walk() {
        assert_eq!(client(&["203.0.113.7, unknown, 10.0.0.2"], None), "10.0.0.2");
        assert_eq!(client(&["nonsense"], None), "10.0.0.1");
    }

    #[test]
    fn x_real_ip_counts_only_without_a_list() {
        assert_eq!(client(&[], Some("203.0.113.9")), "203.0.113.9");
        assert_eq!(client(&["203.0.113.7"], Some("1.1.1.1")), "203.0.113.7");
    }
}
