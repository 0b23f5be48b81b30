//! What is said to the upstream about the client, and what is believed of what others say about it.
//!
//! | field | from an untrusted source | from a trusted proxy |
//! |---|---|---|
//! | `X-Forwarded-For` | replaced by the source | the source is appended |
//! | `X-Forwarded-Proto`, `-Host`, `-Port` | replaced by ours | kept; ours where absent |
//! | `X-Forwarded-Prefix` | what `strip_path` takes off, else removed | kept; ours where absent |
//! | `Forwarded` | removed; ours with `forwarded_header` | kept; ours is appended with `forwarded_header` |
//! | `X-Real-IP` | the source | the client found in `real_ip_header` |
//! | `X-Forwarded-*` besides | removed | kept |
//! | the field that `real_ip_header` names | removed | kept |
//! | `X-Forwarded-Client-Cert` | removed; the client's certificate | by `forwarded_client_cert` of the listener |
//! | `X-Request-ID` | ours | kept; ours where absent |
//! | `X-Consumer-*`, `X-Credential-Identifier`, ... | removed | removed: plugins set them |
//! | `Via` | ours is appended | ours is appended |

use std::net::{IpAddr, SocketAddr};

use portcullis_config::{Config, ForwardedClientCert, ProxyHeader, RealIpHeader};

use super::downstream::{Downstream, Origin};
use crate::http::forwarded::{self, Node};
use crate::http::proxy_protocol::{Ssl, Tlvs};
use crate::http::underscores::poses_as;
use crate::http::{Head, Known, KnownSet, RequestHead, Version};
use crate::limit::CidrSet;
use crate::tls::Peer;
use crate::upstream::{Preamble, proxy_header};

/// What we call ourselves.
pub const PSEUDONYM: &str = "portcullis";
/// What `Via` says of us (RFC 9110 section 7.6.3): the version that the message came in, and a pseudonym.
pub const fn via(received: Version) -> &'static str {
    match received {
        Version::Http10 => "1.0 portcullis",
        Version::Http11 => "1.1 portcullis",
        Version::Http2 => "2.0 portcullis",
    }
}

/// What only a trusted proxy may say, besides all other names of the class `X-Forwarded-*`.
const CLAIMS: KnownSet = KnownSet::FORWARDED.and(KnownSet::of(&[Known::XRequestId]));

/// The fields of [`provenance`].
const PROVENANCE: KnownSet = KnownSet::of(&[
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedPort,
    Known::XRealIp,
    Known::Via,
]);

/// Removes what a client must not be able to claim; before any plugin looks, or adds fields of that kind. `real_ip` is the
/// field in which trusted proxies name the client: a target that reads it would believe anybody else.
pub fn strip_claims(head: &mut Head, trusted: bool, real_ip: &RealIpHeader) {
    let claims = if trusted { KnownSet::IDENTITY } else { KnownSet::IDENTITY.and(CLAIMS) };
    head.remove_set(claims);
    head.retain_other(|name| {
        let poses = name.contains(&b'_') && poses_as(name, claims);
        !poses && (trusted || !forwarded::is_forwarded_class(name))
    });
    if let RealIpHeader::Other(name) = real_ip
        && !trusted
    {
        head.remove(name);
    }
}

/// What is said of every request of a connection that says nothing about itself: made once, copied in one piece.
pub fn provenance(source: &str, https: bool, port: u16, version: Version) -> Head {
    let mut head = Head::new();
    head.append_known(Known::XForwardedFor, source);
    head.append_known(Known::XForwardedProto, if https { "https" } else { "http" });
    let mut digits = [0; 20];
    head.append_known(Known::XForwardedPort, crate::http::head::decimal(port.into(), &mut digits));
    head.append_known(Known::XRealIp, source);
    head.append_known(Known::Via, via(version));
    head
}

/// Adds what the upstream is told; once per exchange, whatever the number of attempts.
pub fn add_provenance(down: &mut Downstream, client: IpAddr, request_id: &[u8], config: &Config) {
    let (request, origin) = (&mut down.request, &down.origin);
    if config.real_ip_header == RealIpHeader::Forwarded {
        take_over_forwarded(&mut request.head);
    }
    if config.forwarded_header {
        let mut element = Vec::with_capacity(64);
        forwarded::write(origin.speaker.ip(), origin.https, request.host(), &mut element);
        request.head.append_item(Known::Forwarded, &element);
    }
    let version = request.version();
    let head = &mut request.head;
    if client == origin.speaker.ip() && version == origin.version && !head.contains_any(PROVENANCE) {
        head.append_head(&origin.provenance);
    } else {
        extend_provenance(head, origin, client, version);
    }
    if head.get_known(Known::XRequestId).is_none() {
        head.append_known(Known::XRequestId, request_id);
    }
    if head.get_known(Known::XForwardedHost).is_none() && !request.authority().is_empty() {
        request.append_authority(Known::XForwardedHost);
    }
}

/// Adds to what a trusted proxy, or a `Via` of the client, says already.
fn extend_provenance(head: &mut Head, origin: &Origin, client: IpAddr, version: Version) {
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
    head.append_item(Known::Via, via(version));
}

/// The PROXY header of connections to targets that want one, and whose they are then.
pub fn preamble(version: ProxyHeader, origin: &Origin, client: IpAddr) -> Preamble {
    if version == ProxyHeader::Off {
        return Preamble::default();
    }
    // Of a client that a field names, no port is known, and nothing of its connection.
    let own = client == origin.speaker.ip();
    let client = SocketAddr::new(client, if own { origin.speaker.port() } else { 0 });
    let header = proxy_header(version, client, origin.destination, &said(origin, own));
    Preamble { header, owner: Some(client) }
}

/// What a target is told of the client's connection: what a balancer has said, and what is known here of TLS.
fn said(origin: &Origin, own: bool) -> Tlvs {
    let told = origin.proxied.as_deref().filter(|_| own);
    let mut said = told.cloned().unwrap_or_default();
    if origin.sni.is_some() {
        said.authority.clone_from(&origin.sni);
    }
    if let Some(version) = origin.tls_version.filter(|_| own) {
        let peer = origin.peer.as_deref();
        said.ssl = Some(Ssl {
            certificate: peer.is_some(),
            verified: peer.is_some(),
            version: Some(version.into()),
            common_name: peer.and_then(|peer| peer.common_name.as_deref()).map(Into::into),
            cipher: None,
        });
        said.alpn = (origin.version == Version::Http2).then(|| "h2".into());
    }
    said
}

/// Says in the older fields what the nearest proxy says in `Forwarded`.
fn take_over_forwarded(head: &mut Head) {
    let Some(line) = head.all_known(Known::Forwarded).last() else { return };
    let Some(element) = forwarded::parse(line).and_then(|mut elements| elements.pop()) else { return };
    let usable = |value: &[u8]| value.iter().all(|byte| byte.is_ascii_graphic());
    let proto = element.proto.filter(|proto| usable(proto)).map(std::borrow::Cow::into_owned);
    let host = element.host.filter(|host| usable(host)).map(std::borrow::Cow::into_owned);
    for (known, value) in [(Known::XForwardedProto, proto), (Known::XForwardedHost, host)] {
        if let Some(value) = value.filter(|_| head.get_known(known).is_none()) {
            head.append_known(known, value);
        }
    }
}

/// Tells the upstream of the client's certificate, as the listener wants it (Envoy's `forward_client_cert_details`).
/// What an untrusted client says was removed before.
pub fn add_client_certificate(head: &mut Head, peer: Option<&Peer>, mode: ForwardedClientCert) {
    use ForwardedClientCert::{AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet};
    match (mode, peer) {
        (AlwaysForwardOnly, _) | (ForwardOnly, Some(_)) => {}
        (AppendForward, Some(peer)) => head.append_item(Known::XForwardedClientCert, peer.xfcc()),
        (SanitizeSet, Some(peer)) => head.set_known(Known::XForwardedClientCert, peer.xfcc()),
        (Sanitize, _) | (SanitizeSet | AppendForward | ForwardOnly, None) => {
            head.remove_known(Known::XForwardedClientCert);
        }
    }
}

/// Tells the upstream which prefix of the path `strip_path` takes off, as Kong does.
pub fn add_prefix(request: &mut RequestHead, matched_len: usize) {
    if request.head.get_known(Known::XForwardedPrefix).is_none() {
        request.append_path_prefix(Known::XForwardedPrefix, matched_len);
    }
}

/// How trusted proxies name the client.
#[derive(Clone, Copy, Debug)]
pub struct RealIp<'a> {
    pub header: &'a RealIpHeader,
    /// Whether trusted addresses are passed over.
    pub recursive: bool,
    pub trusted: &'a CidrSet,
}

impl RealIp<'_> {
    /// Finds the client, walking from the right over trusted proxies. The first address that is not trusted is the
    /// client: all left of it is its own claim. What cannot be read ends the walk. Falls back to the source.
    pub fn client(self, head: &Head, source: IpAddr) -> IpAddr {
        match self.header {
            RealIpHeader::ProxyProtocol => source,
            RealIpHeader::XForwardedFor => {
                // A list that cannot be read is not to be overruled by what may be the client's own claim.
                let found = if head.get_known(Known::XForwardedFor).is_some() {
                    self.of_lists(head.all_known(Known::XForwardedFor))
                } else {
                    head.get_known(Known::XRealIp).and_then(forwarded::address)
                };
                found.unwrap_or(source)
            }
            RealIpHeader::Other(name) => self.of_lists(head.get_all(name)).unwrap_or(source),
            RealIpHeader::Forwarded => {
                let lines: Vec<_> = head.all_known(Known::Forwarded).map(forwarded::parse).collect();
                let nodes = lines.iter().rev().flat_map(|line| match line {
                    Some(elements) => elements.iter().map(|element| element.client).rev().collect(),
                    None => vec![Node::Unknown],
                });
                let addresses = nodes.map(|node| match node {
                    Node::Address(address) => Some(address),
                    Node::Unknown | Node::Obfuscated => None,
                });
                self.walk(addresses).unwrap_or(source)
            }
        }
    }

    /// Several lines are one list; the last line is the nearest proxy's.
    fn of_lists<'h>(self, lines: impl Iterator<Item = &'h [u8]>) -> Option<IpAddr> {
        let lines: Vec<&[u8]> = lines.collect();
        let elements = lines.iter().rev().flat_map(|line| line.rsplit(|&b| b == b','));
        self.walk(elements.map(forwarded::address))
    }

    fn walk(self, addresses: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let mut client = None;
        for address in addresses {
            let Some(address) = address else { break };
            client = Some(address);
            if !self.recursive || !self.trusted.contains(address) {
                break;
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(header: &RealIpHeader, recursive: bool, fields: &[(&str, &str)]) -> String {
        let trusted = CidrSet::new(["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let mut head = Head::new();
        for (name, value) in fields {
            head.append(name, value);
        }
        let rule = RealIp { header, recursive, trusted: &trusted };
        rule.client(&head, "10.0.0.1".parse().unwrap()).to_string()
    }

    fn client(lines: &[&str], real_ip: Option<&str>) -> String {
        let lines = lines.iter().map(|line| ("X-Forwarded-For", *line));
        let fields: Vec<_> = lines.chain(real_ip.map(|text| ("X-Real-IP", text))).collect();
        find(&RealIpHeader::XForwardedFor, true, &fields)
    }

    #[test]
    fn other_fields_that_name_the_client() {
        let forwarded = |line: &str| find(&RealIpHeader::Forwarded, true, &[("Forwarded", line)]);
        assert_eq!(forwarded("for=1.1.1.1, for=203.0.113.7;proto=https, for=10.0.0.2"), "203.0.113.7");
        assert_eq!(forwarded("for=\"[2001:db8::1]:443\", for=\"[fd00::2]\""), "2001:db8::1");
        assert_eq!(forwarded("for=203.0.113.7, for=_hidden, for=10.0.0.2"), "10.0.0.2");
        assert_eq!(forwarded("for=203.0.113.7, for=\"10.0.0.2"), "10.0.0.1", "a quote without an end");
        let two = [("Forwarded", "for=203.0.113.7"), ("Forwarded", "for=10.0.0.3, for=10.0.0.2")];
        assert_eq!(find(&RealIpHeader::Forwarded, true, &two), "203.0.113.7");
        let both = [("X-Forwarded-For", "203.0.113.7"), ("CF-Connecting-IP", "203.0.113.8")];
        assert_eq!(find(&RealIpHeader::Other("cf-connecting-ip".into()), true, &both), "203.0.113.8");
        assert_eq!(find(&RealIpHeader::Other("x-real-ip".into()), true, &both), "10.0.0.1");
        assert_eq!(find(&RealIpHeader::ProxyProtocol, true, &both), "10.0.0.1");
    }

    #[test]
    fn without_recursion_the_last_address_is_the_client() {
        let fields = [("X-Forwarded-For", "1.1.1.1, 203.0.113.7, 10.0.0.2")];
        assert_eq!(find(&RealIpHeader::XForwardedFor, false, &fields), "10.0.0.2");
    }

    #[test]
    fn only_trusted_proxies_make_claims() {
        let fields = [
            ("x-forwarded-user", "root"),
            ("X-Forwarded-Groups", "admin"),
            ("X-FORWARDED-Ssl", "on"),
            ("X-Forwarded-For", "1.1.1.1"),
            ("X-Forwarded-", "nothing"),
            ("CF-Connecting-IP", "1.1.1.1"),
            ("x_real_ip", "1.1.1.1"),
            ("X_Forwarded_Email", "root@a"),
        ];
        let harmless = [
            ("X-Forwarded", "kept"),
            ("x_own", "kept"),
            ("X-Forwarders-A", "kept"),
            ("Y-Forwarded-A", "kept"),
        ];
        let left = |trusted| {
            let mut head = Head::new();
            for (name, value) in fields.iter().chain(&harmless) {
                head.append(name, value);
            }
            head.append("X-Consumer-ID", "1");
            head.append("x_consumer_username", "1");
            strip_claims(&mut head, trusted, &RealIpHeader::Other("cf-connecting-ip".into()));
            head.iter().map(|(_, name, _)| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(left(false), harmless.map(|(name, _)| name));
        assert_eq!(left(true).len(), fields.len() + harmless.len());
    }

    #[test]
    fn certificates_of_clients() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "ann");
        let peer = crate::tls::peer::fixture(&params);
        let run = |mode, peer: Option<&Peer>, said: Option<&str>| {
            let mut head = Head::new();
            if let Some(said) = said {
                head.append_known(Known::XForwardedClientCert, said);
            }
            add_client_certificate(&mut head, peer, mode);
            head.get_known(Known::XForwardedClientCert)
                .map(|value| String::from_utf8_lossy(value).into_owned())
        };
        use ForwardedClientCert::*;
        let (own, said) = (peer.xfcc().to_owned(), Some("Hash=1"));
        let table = [
            (Sanitize, None, None),
            (SanitizeSet, Some(own.clone()), None),
            (AppendForward, Some(format!("Hash=1, {own}")), None),
            (ForwardOnly, Some("Hash=1".into()), None),
            (AlwaysForwardOnly, Some("Hash=1".into()), Some("Hash=1".into())),
        ];
        for (mode, with, without) in table {
            assert_eq!(run(mode, Some(&peer), said), with, "{mode:?}");
            assert_eq!(run(mode, None, said), without, "{mode:?} without a certificate");
            assert_eq!(run(mode, None, None), None, "{mode:?}");
        }
    }

    #[test]
    fn forwarded_speaks_for_the_older_fields() {
        let mut head = Head::new();
        head.append_known(
            Known::Forwarded,
            "for=1.1.1.1;proto=http, for=10.0.0.2;proto=https;host=\"a.example\"",
        );
        head.append_known(Known::XForwardedHost, "b.example");
        take_over_forwarded(&mut head);
        assert_eq!(head.get_known(Known::XForwardedProto), Some(&b"https"[..]));
        assert_eq!(head.get_known(Known::XForwardedHost), Some(&b"b.example"[..]));
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
        assert_eq!(client(&["nonsense"], Some("1.1.1.1")), "10.0.0.1");
        assert_eq!(client(&["203.0.113.7, unknown"], Some("1.1.1.1")), "10.0.0.1");
    }
}
