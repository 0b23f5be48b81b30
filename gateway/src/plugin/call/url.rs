//! The URL of a service that is called.

use portcullis_config::Fault;

/// An `http` or `https` URL in its parts (RFC 9110 section 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub https: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// What `Host` is: without the port where it is the scheme's own.
    pub authority: String,
    /// Path and query.
    pub target: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, for the diagnostics.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong =
            |what: &str| Fault::new(format!("{text:?} {what}")).hint("as in `https://id.example/keys`");
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("holds a byte that no URL does"));
        }
        let (https, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            _ => return Err(wrong("is no URL of HTTP")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if target.contains('#') {
            return Err(wrong("has a fragment"));
        }
        if authority.contains('@') {
            return Err(Fault::new("the URL holds a user name").hide_line());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let number =
                    port.parse().ok().filter(|&port| port > 0).ok_or_else(|| wrong("has no such port"))?;
                (host, Some(number))
            }
            _ => (authority, None),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let fits = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(named),
        };
        if !fits {
            return Err(wrong("has no host"));
        }
        let own = if https { 443 } else { 80 };
        let port = port.unwrap_or(own);
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            https,
            host: bare.unwrap_or(host).to_ascii_lowercase(),
            port,
            authority: if port == own { host.to_owned() } else { format!("{host}:{port}") },
            target: format!("{slash}{target}"),
        })
    }

    /// Scheme and authority, as in `https://id.example`.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        for (text, expected) in [
            ("http://a", Some((false, "a", 80, "a", "/"))),
            ("HTTPS://A.b:443/x?y=1", Some((true, "a.b", 443, "A.b", "/x?y=1"))),
            ("https://[::1]:8443?q", Some((true, "::1", 8443, "[::1]:8443", "/?q"))),
            ("http://127.0.0.1:80/", Some((false, "127.0.0.1", 80, "127.0.0.1", "/"))),
            ("a/b", None),
            ("ftp://a/", None),
            ("http://", None),
            ("http://a:0/", None),
            ("http://a:x/", None),
            ("http://u:p@a/", None),
            ("http://a/#f", None),
            ("http://a/b c", None),
            ("http://[a]/", None),
            ("http://a\r\nb/", None),
        ] {
            let url = Url::parse(text).ok();
            let found = url.as_ref().map(|u| (u.https, &*u.host, u.port, &*u.authority, &*u.target));
            assert_eq!(found, expected, "{text}");
        }
    }
}
