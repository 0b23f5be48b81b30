//! The field names that the gateway itself looks at, each known by one byte.
//!
//! Owns the list of names, their canonical spelling and the lookup from the bytes of a name to
//! [`Known`]. Never looks at values. Invariant: two spellings of one name (in any case) always
//! give the same [`Known`], so decisions compare bytes of the enum and never text.
//!
//! The lookup is a table built at compile time and indexed by length and first letter, with a
//! short chain of the names that share both. Adding a name is one line in the list below.

macro_rules! known_names {
    ($($variant:ident = $text:literal),* $(,)?) => {
        /// A field name that some decision of the gateway depends on, or [`Known::Other`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum Known { $(#[doc = concat!("`", $text, "`")] $variant,)* /// Any name that is not in the list.
            Other }

        impl Known {
            /// Every listed name, in declaration order; [`Known::Other`] is not among them.
            pub const ALL: &'static [Known] = &[$(Known::$variant),*];
            const TEXT: &'static [&'static str] = &[$($text),*];
        }
    };
}

known_names! {
    // Message framing and routing.
    Host = "Host",
    ContentLength = "Content-Length",
    TransferEncoding = "Transfer-Encoding",
    // Connection-specific fields (RFC 9110 section 7.6.1) and their kin.
    Connection = "Connection",
    KeepAlive = "Keep-Alive",
    ProxyConnection = "Proxy-Connection",
    Te = "TE",
    Trailer = "Trailer",
    Upgrade = "Upgrade",
    Http2Settings = "HTTP2-Settings",
    Expect = "Expect",
    MaxForwards = "Max-Forwards",
    // What intermediaries tell each other.
    Via = "Via",
    Forwarded = "Forwarded",
    XForwardedFor = "X-Forwarded-For",
    XForwardedProto = "X-Forwarded-Proto",
    XForwardedHost = "X-Forwarded-Host",
    XForwardedPort = "X-Forwarded-Port",
    XForwardedPrefix = "X-Forwarded-Prefix",
    XForwardedPath = "X-Forwarded-Path",
    XForwardedClientCert = "X-Forwarded-Client-Cert",
    XRealIp = "X-Real-IP",
    XRequestId = "X-Request-ID",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    // Credentials and the identity that plugins hand to the upstream (Kong's names).
    Authorization = "Authorization",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthenticationInfo = "Proxy-Authentication-Info",
    WwwAuthenticate = "WWW-Authenticate",
    AuthenticationInfo = "Authentication-Info",
    Cookie = "Cookie",
    SetCookie = "Set-Cookie",
    Apikey = "apikey",
    XConsumerId = "X-Consumer-ID",
    XConsumerCustomId = "X-Consumer-Custom-ID",
    XConsumerUsername = "X-Consumer-Username",
    XConsumerGroups = "X-Consumer-Groups",
    XAuthenticatedGroups = "X-Authenticated-Groups",
    XCredentialIdentifier = "X-Credential-Identifier",
    XAnonymousConsumer = "X-Anonymous-Consumer",
    // Content and its selection.
    Accept = "Accept",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    Allow = "Allow",
    ContentType = "Content-Type",
    ContentEncoding = "Content-Encoding",
    ContentLanguage = "Content-Language",
    ContentLocation = "Content-Location",
    ContentRange = "Content-Range",
    Range = "Range",
    Location = "Location",
    Referer = "Referer",
    Origin = "Origin",
    UserAgent = "User-Agent",
    Server = "Server",
    Date = "Date",
    RetryAfter = "Retry-After",
    StrictTransportSecurity = "Strict-Transport-Security",
    // Caching and conditions.
    Age = "Age",
    CacheControl = "Cache-Control",
    Etag = "ETag",
    Expires = "Expires",
    IfMatch = "If-Match",
    IfModifiedSince = "If-Modified-Since",
    IfNoneMatch = "If-None-Match",
    IfRange = "If-Range",
    IfUnmodifiedSince = "If-Unmodified-Since",
    LastModified = "Last-Modified",
    Pragma = "Pragma",
    Vary = "Vary",
    // Cross-origin requests.
    AccessControlAllowCredentials = "Access-Control-Allow-Credentials",
    AccessControlAllowHeaders = "Access-Control-Allow-Headers",
    AccessControlAllowMethods = "Access-Control-Allow-Methods",
    AccessControlAllowOrigin = "Access-Control-Allow-Origin",
    AccessControlExposeHeaders = "Access-Control-Expose-Headers",
    AccessControlMaxAge = "Access-Control-Max-Age",
    AccessControlRequestHeaders = "Access-Control-Request-Headers",
    AccessControlRequestMethod = "Access-Control-Request-Method",
}

impl Known {
    /// The listed name that `name` spells, in any mixture of case, or [`Known::Other`].
    ///
    /// `name` must be a token (RFC 9110 section 5.6.2), as every name in a
    /// [`Head`](super::head::Head) is: case is folded by setting one bit, which is exact for
    /// letters, digits and `-` but not for control characters.
    #[inline]
    pub fn of(name: &[u8]) -> Known {
        let Some(&first) = name.first() else { return Known::Other };
        if name.len() >= LENGTHS {
            return Known::Other;
        }
        let mut candidate = TABLE.heads[bucket(name.len(), first)];
        while candidate != NONE {
            let index = usize::from(candidate);
            // The chain holds names of this very length only.
            if folds_to(name, TABLE.folded[index].as_slice()) {
                return Known::ALL[index];
            }
            candidate = TABLE.next[index];
        }
        Known::Other
    }

    /// The canonical spelling, as written by the gateway; empty for [`Known::Other`].
    #[inline]
    pub const fn as_str(self) -> &'static str {
        let index = self as usize;
        if index < Known::TEXT.len() { Known::TEXT[index] } else { "" }
    }

    /// This name's bit in a presence set; [`Known::Other`] has one too.
    #[inline]
    pub(super) const fn bit(self) -> u128 {
        1 << (self as u8)
    }
}

/// A set of listed names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KnownSet(pub(super) u128);

impl KnownSet {
    /// Whom the gateway has found the client to be: nobody else may say so.
    pub const IDENTITY: KnownSet = KnownSet::of(&[
        Known::XConsumerId,
        Known::XConsumerCustomId,
        Known::XConsumerUsername,
        Known::XConsumerGroups,
        Known::XAuthenticatedGroups,
        Known::XCredentialIdentifier,
        Known::XAnonymousConsumer,
    ]);
    /// What proxies say of the client and of how it came, besides other names of the class `X-Forwarded-*`.
    pub const FORWARDED: KnownSet = KnownSet::of(&[
        Known::Forwarded,
        Known::XForwardedFor,
        Known::XForwardedProto,
        Known::XForwardedHost,
        Known::XForwardedPort,
        Known::XForwardedPrefix,
        Known::XForwardedPath,
        Known::XForwardedClientCert,
        Known::XRealIp,
    ]);

    /// The set of `names`; [`Known::Other`] is left out, as it names nothing.
    pub const fn of(names: &[Known]) -> KnownSet {
        let mut set = 0;
        let mut index = 0;
        while index < names.len() {
            set |= names[index].bit();
            index += 1;
        }
        KnownSet(set & !Known::Other.bit())
    }

    /// This set and another together.
    pub const fn and(self, other: KnownSet) -> KnownSet {
        KnownSet(self.0 | other.0)
    }

    /// The names of this set that are not in another.
    pub const fn without(self, other: KnownSet) -> KnownSet {
        KnownSet(self.0 & !other.0)
    }

    /// The listed names that are not in this set.
    pub const fn complement(self) -> KnownSet {
        let mut listed = KnownSet::of(Known::ALL);
        listed.0 &= !self.0;
        listed
    }

    /// Whether `known` is in the set.
    #[inline]
    pub const fn contains(self, known: Known) -> bool {
        self.0 & known.bit() != 0
    }
}

/// One more than the longest listed name.
const LENGTHS: usize = 33;
/// Columns of the table: the low five bits of the first byte, equal for both cases of a letter.
const LETTERS: usize = 32;
/// End of a chain.
const NONE: u8 = u8::MAX;
const COUNT: usize = Known::ALL.len();
// Presence sets are u128, and Other takes one bit as well.
const _: () = assert!(COUNT < 128);

/// A lower-case name with its length, so that all names fit one array.
#[derive(Clone, Copy)]
struct Folded {
    text: [u8; LENGTHS],
    len: u8,
}

impl Folded {
    #[inline]
    fn as_slice(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

struct Table {
    heads: [u8; LENGTHS * LETTERS],
    next: [u8; COUNT],
    folded: [Folded; COUNT],
}

static TABLE: Table = build();

#[inline]
const fn bucket(len: usize, first: u8) -> usize {
    len * LETTERS + (first & 0x1f) as usize
}

const fn build() -> Table {
    let mut table = Table {
        heads: [NONE; LENGTHS * LETTERS],
        next: [NONE; COUNT],
        folded: [Folded { text: [0; LENGTHS], len: 0 }; COUNT],
    };
    let mut index = COUNT;
    while index > 0 {
        index -= 1;
        let text = Known::TEXT[index].as_bytes();
        assert!(text.len() < LENGTHS);
        let mut at = 0;
        while at < text.len() {
            table.folded[index].text[at] = text[at].to_ascii_lowercase();
            at += 1;
        }
        table.folded[index].len = text.len() as u8;
        let slot = bucket(text.len(), text[0]);
        table.next[index] = table.heads[slot];
        table.heads[slot] = index as u8;
    }
    table
}

/// Whether `name`, with the case bit of every byte set, is `folded` (already lower case).
///
/// Compares in words; the last one overlaps the one before it, which saves a loop over bytes.
#[inline]
fn folds_to(name: &[u8], folded: &[u8]) -> bool {
    fn word(text: &[u8; 8]) -> u64 {
        u64::from_ne_bytes(*text)
    }
    fn half(text: &[u8; 4]) -> u32 {
        u32::from_ne_bytes(*text)
    }
    const CASE: u64 = 0x2020_2020_2020_2020;
    if name.len() != folded.len() {
        return false;
    }
    if let (Some(last), Some(want)) = (name.last_chunk(), folded.last_chunk()) {
        let (words, _) = name.as_chunks::<8>();
        let (wanted, _) = folded.as_chunks::<8>();
        let mut pairs = words.iter().zip(wanted);
        return word(last) | CASE == word(want) && pairs.all(|(text, want)| word(text) | CASE == word(want));
    }
    if let (Some(first), Some(want)) = (name.first_chunk(), folded.first_chunk())
        && let (Some(last), Some(want_last)) = (name.last_chunk(), folded.last_chunk())
    {
        return half(first) | CASE as u32 == half(want) && half(last) | CASE as u32 == half(want_last);
    }
    name.iter().zip(folded).all(|(byte, want)| byte | 0x20 == *want)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for &known in Known::ALL {
            let text = known.as_str();
            assert_eq!(Known::of(text.as_bytes()), known, "{text}");
            assert_eq!(Known::of(text.to_ascii_lowercase().as_bytes()), known, "{text}");
            assert_eq!(Known::of(text.to_ascii_uppercase().as_bytes()), known, "{text}");
        }
    }

    #[test]
    fn a_name_that_differs_by_one_byte_is_another() {
        for &known in Known::ALL {
            let text = known.as_str().as_bytes();
            for at in 0..text.len() {
                let mut other = text.to_vec();
                other[at] = if other[at] == b'z' { b'y' } else { b'z' };
                if !other.eq_ignore_ascii_case(text) {
                    assert_ne!(Known::of(&other), known, "{}", String::from_utf8_lossy(&other));
                }
            }
            assert_ne!(Known::of(&text[1..]), known);
            assert_ne!(Known::of(&[text, b"x"].concat()), known);
        }
    }

    #[test]
    fn names_that_are_not_listed_are_other() {
        for name in ["", "x", "x-api-version", "content_length", "hosts", &"a".repeat(32), &"a".repeat(300)] {
            assert_eq!(Known::of(name.as_bytes()), Known::Other, "{name}");
        }
        assert_eq!(Known::Other.as_str(), "");
    }
}
