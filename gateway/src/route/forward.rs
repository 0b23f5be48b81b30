//! The path that goes upstream.
//!
//! Owns Kong's two ways of putting service path and request path together. Never touches the query string. Invariant:
//! from normalised paths comes a path that starts with a slash and has no dot segment that the service path had not.
//!
//! `path_handling: v0`, the default, joins segments: with `s` the service path without its closing slash and `r` what
//! is left of the request path,
//!
//! | left over | forwarded |
//! |---|---|
//! | nothing, or `/` alone (unless it was left by stripping) | the service path; its closing slash is kept if nothing was stripped, else it is the request's that counts |
//! | `r` with a slash in front | `s` `r` |
//! | `r` without | `s` `/` `r` |
//!
//! `path_handling: v1` takes the service path for a mere prefix:
//!
//! | | forwarded |
//! |---|---|
//! | stripped | service path, then what is left; one slash where two would meet |
//! | not stripped | service path, then the request path without its first slash |
//!
//! The examples of Kong's documentation and of its test table are the tests below.

/// Appends to `out` the path to ask the target for. `matched_len` is [`super::Match::matched_len`]; with 0 there is
/// nothing to strip, as for routes that ask nothing of the path. An empty service path means `/`.
///
/// Stripping `/api` from `/api../x` leaves `../x`, which must not climb out of the service path: a dot segment at the
/// front of what is left is dropped (there can be no other, the request path being normalised).
pub fn upstream_path(
    service_path: &[u8],
    request_path: &[u8],
    matched_len: usize,
    strip: bool,
    out: &mut Vec<u8>,
) {
    let base = service_path.strip_suffix(b"/").unwrap_or(service_path);
    let strip = strip && matched_len > 0;
    let rest = match strip {
        true => without_dot_segment(request_path.get(matched_len..).unwrap_or_default()),
        false => request_path,
    };
    out.extend_from_slice(base);
    let closing_slash = match (strip, rest) {
        (false, b"" | b"/") => service_path.ends_with(b"/"),
        // A request for "/" alone has no closing slash of its own to keep.
        (true, b"") => {
            request_path.ends_with(b"/") && (request_path.len() > 1 || service_path.ends_with(b"/"))
        }
        (_, rest) => {
            if !rest.starts_with(b"/") {
                out.push(b'/');
            }
            return out.extend_from_slice(rest);
        }
    };
    if closing_slash || base.is_empty() {
        out.push(b'/');
    }
}

/// The same by `path_handling: v1`.
pub fn upstream_path_v1(
    service_path: &[u8],
    request_path: &[u8],
    matched_len: usize,
    strip: bool,
    out: &mut Vec<u8>,
) {
    let base = if service_path.is_empty() { b"/" } else { service_path };
    let rest = match strip && matched_len > 0 {
        true => without_dot_segment(request_path.get(matched_len..).unwrap_or_default()),
        false => request_path.strip_prefix(b"/").unwrap_or(request_path),
    };
    out.extend_from_slice(base);
    let rest = if base.ends_with(b"/") { rest.strip_prefix(b"/").unwrap_or(rest) } else { rest };
    out.extend_from_slice(rest);
}

fn without_dot_segment(rest: &[u8]) -> &[u8] {
    match rest {
        b"." | b".." => b"",
        [b'.', b'/', tail @ ..] | [b'.', b'.', b'/', tail @ ..] => tail,
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forwarded(service: &str, route: Option<&str>, strip: bool, request: &str) -> String {
        let mut out = Vec::new();
        upstream_path(service.as_bytes(), request.as_bytes(), route.map_or(0, str::len), strip, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn check(service: &str, route: &str, strip: &[bool], request: &str, expected: &str) {
        let route = (!route.is_empty()).then_some(route);
        for &strip in strip {
            let got = forwarded(service, route, strip, request);
            assert_eq!(got, expected, "service {service} route {route:?} strip {strip} request {request}");
        }
    }

    const BOTH: &[bool] = &[false, true];
    const KEEP: &[bool] = &[false];
    const STRIP: &[bool] = &[true];

    #[test]
    fn kong_documents_these() {
        check("/s", "/fv0", KEEP, "/fv0/req", "/s/fv0/req");
        check("/s", "/fv0", KEEP, "/fv0", "/s/fv0");
        check("/s", "/tv0", STRIP, "/tv0/req", "/s/req");
        check("/s", "/tv0", STRIP, "/tv0", "/s");
        check("/s", "/fv0/", KEEP, "/fv0/req", "/s/fv0/req");
        check("/s", "/fv0/", KEEP, "/fv0/", "/s/fv0/");
        check("/s", "/tv0/", STRIP, "/tv0/req", "/s/req");
        check("/s", "/tv0/", STRIP, "/tv0/", "/s/");
    }

    #[test]
    fn service_at_the_root() {
        check("/", "/", BOTH, "/", "/");
        check("", "/", BOTH, "/", "/");
        check("/", "/", BOTH, "/route/", "/route/");
        check("/", "/", BOTH, "/route/req", "/route/req");
        check("/", "/route", KEEP, "/routereq", "/routereq");
        check("/", "/route", STRIP, "/route", "/");
        check("/", "/route", STRIP, "/route/", "/");
        check("/", "/route", STRIP, "/routereq", "/req");
        check("/", "/route/", STRIP, "/route/", "/");
        check("/", "/route/", STRIP, "/route/req", "/req");
    }

    #[test]
    fn service_without_a_closing_slash() {
        check("/srv", "/rou", KEEP, "/roureq", "/srv/roureq");
        check("/srv", "/rou", STRIP, "/roureq", "/srv/req");
        check("/service", "/", BOTH, "/", "/service");
        check("/service", "/", BOTH, "/route", "/service/route");
        check("/service", "/", BOTH, "/route/", "/service/route/");
        check("/service", "/route", KEEP, "/route", "/service/route");
        check("/service", "/route", KEEP, "/route/", "/service/route/");
        check("/service", "/route", STRIP, "/route", "/service");
        check("/service", "/route", STRIP, "/route/", "/service/");
        check("/service", "/route", STRIP, "/routereq", "/service/req");
        check("/service", "/route/", KEEP, "/route/req", "/service/route/req");
        check("/service", "/route/", STRIP, "/route/", "/service/");
        check("/service", "/route/", STRIP, "/route/req", "/service/req");
    }

    #[test]
    fn service_with_a_closing_slash() {
        check("/srv/", "/rou", KEEP, "/rou", "/srv/rou");
        check("/srv/", "/rou", STRIP, "/rou", "/srv");
        check("/service/", "/", BOTH, "/", "/service/");
        check("/service/", "/", BOTH, "/route/", "/service/route/");
        check("/service/", "/route", KEEP, "/route/", "/service/route/");
        check("/service/", "/route", STRIP, "/route", "/service");
        check("/service/", "/route", STRIP, "/route/", "/service/");
        check("/service/", "/route", STRIP, "/routereq", "/service/req");
        check("/service/", "/route/", STRIP, "/route/", "/service/");
        check("/service/", "/route/", STRIP, "/route/req", "/service/req");
    }

    #[test]
    fn routes_without_paths_strip_nothing() {
        for (service, request, expected) in [
            ("/", "/", "/"),
            ("/", "/route/", "/route/"),
            ("/service", "/", "/service"),
            ("/service", "/route", "/service/route"),
            ("/service/", "/", "/service/"),
            ("/service/", "/route/", "/service/route/"),
        ] {
            check(service, "", BOTH, request, expected);
        }
    }

    #[test]
    fn what_is_left_never_climbs() {
        check("/s", "/api", STRIP, "/api../x", "/s/x");
        check("/s", "/api", STRIP, "/api..", "/s");
        check("/s", "/api", STRIP, "/api./x", "/s/x");
        check("/s", "/api", STRIP, "/api...", "/s/...");
        check("/s", "/api", STRIP, "/api.x", "/s/.x");
        check("/s", "/api", KEEP, "/api../x", "/s/api../x");
    }

    #[test]
    fn version_1_takes_the_service_path_for_a_prefix() {
        let check = |service: &str, route: &str, strip: &[bool], request: &str, expected: &str| {
            for &strip in strip {
                let mut out = Vec::new();
                upstream_path_v1(service.as_bytes(), request.as_bytes(), route.len(), strip, &mut out);
                let out = String::from_utf8(out).unwrap();
                assert_eq!(out, expected, "service {service} route {route} strip {strip} request {request}");
            }
        };
        check("/", "/", BOTH, "/route/", "/route/");
        check("/", "/route", KEEP, "/routereq", "/routereq");
        check("/", "/route", STRIP, "/route", "/");
        check("/", "/route", STRIP, "/route/", "/");
        check("/", "/route/", STRIP, "/route/req", "/req");
        check("/srv", "/rou", KEEP, "/roureq", "/srvroureq");
        check("/srv", "/rou", STRIP, "/roureq", "/srvreq");
        check("/srv/", "/rou", KEEP, "/rou", "/srv/rou");
        check("/srv/", "/rou", STRIP, "/rou", "/srv/");
        check("/service", "/", BOTH, "/", "/service");
        check("/service", "/", BOTH, "/route/", "/serviceroute/");
        check("/service", "/route", STRIP, "/route", "/service");
        check("/service", "/route", STRIP, "/route/", "/service/");
        check("/service", "/route", STRIP, "/route/req", "/service/req");
        check("/service", "/route/", STRIP, "/route/", "/service");
        check("/service", "/route/", STRIP, "/route/req", "/servicereq");
        check("/service/", "/route", STRIP, "/routereq", "/service/req");
        check("/service/", "/route/", STRIP, "/route/", "/service/");
        check("/service", "", BOTH, "/route", "/serviceroute");
        check("/service/", "", BOTH, "/", "/service/");
        check("/s/", "/api", STRIP, "/api../x", "/s/x");
    }

    proptest! {
        #[test]
        fn a_forwarded_path_is_absolute_and_below_the_service(
            service in "(/[a-c]{1,3}){0,2}/?",
            segments in prop::collection::vec("[ab.]{0,3}", 1..4),
            matched in 0usize..12,
            strip: bool,
        ) {
            let segments: Vec<&str> =
                segments.iter().map(String::as_str).filter(|s| ![".", ".."].contains(s)).collect();
            let request = format!("/{}", segments.join("/"));
            let mut out = b"kept".to_vec();
            upstream_path(service.as_bytes(), request.as_bytes(), matched.min(request.len()), strip, &mut out);
            let out = std::str::from_utf8(&out).unwrap().strip_prefix("kept").unwrap();
            prop_assert!(out.starts_with('/'));
            prop_assert!(out.starts_with(service.trim_end_matches('/')));
            prop_assert!(out.split('/').all(|s| ![".", ".."].contains(&s)), "{}", out);

            let mut out = Vec::new();
            let matched = matched.min(request.len());
            upstream_path_v1(service.as_bytes(), request.as_bytes(), matched, strip, &mut out);
            let out = std::str::from_utf8(&out).unwrap();
            prop_assert!(out.starts_with('/') && out.starts_with(&service));
            prop_assert!(out.split('/').all(|s| ![".", ".."].contains(&s)), "{}", out);
        }
    }
}
