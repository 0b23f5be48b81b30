//! How far a request may go: Max-Forwards, and the ways it has been (RFC 9110 sections 7.6.2 and 7.6.3).
//!
//! Owns the reading of both fields. Never answers. Invariant: what is forwarded may go one hop less far than what came in.

use super::{Head, Known, Method, RequestHead};

/// Takes one hop off Max-Forwards. False: there is none left, and the request is to be answered here.
///
/// The field counts for OPTIONS and TRACE only; on all other methods, and where it is no number, it is left alone.
pub fn take_hop(request: &mut RequestHead) -> bool {
    if !matches!(request.method(), Method::Options | Method::Trace) {
        return true;
    }
    let left = request.head.get_known(Known::MaxForwards).and_then(number);
    match left {
        None => true,
        Some(0) => false,
        Some(left) => {
            request.head.set_number(Known::MaxForwards.as_str(), left - 1);
            true
        }
    }
}

/// How many times `pseudonym` stands in Via: as often has the request been through a gateway of that name.
pub fn times_through(head: &Head, pseudonym: &[u8]) -> usize {
    let elements = head.all_known(Known::Via).flat_map(|line| line.split(|&byte| byte == b','));
    let names = elements.filter_map(|element| {
        let mut words = element.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
        words.nth(1)
    });
    names.filter(|name| name.eq_ignore_ascii_case(pseudonym)).count()
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // More hops than fit are as good as the most that do.
    let digits = std::str::from_utf8(text).ok()?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_forwards_rfc9110_7_6_2() {
        for (method, value, onward, left) in [
            ("OPTIONS", "0", false, "0"),
            ("OPTIONS", "1", true, "0"),
            ("OPTIONS", "10", true, "9"),
            ("TRACE", "0", false, "0"),
            ("TRACE", "3", true, "2"),
            ("GET", "0", true, "0"),
            ("POST", "5", true, "5"),
            ("OPTIONS", "", true, ""),
            ("OPTIONS", "-1", true, "-1"),
            ("OPTIONS", "x", true, "x"),
            ("OPTIONS", "99999999999999999999999", true, "18446744073709551614"),
        ] {
            let mut request = RequestHead::new();
            request.set_method(method);
            request.head.append_known(Known::MaxForwards, value);
            assert_eq!(take_hop(&mut request), onward, "{method} {value}");
            assert_eq!(request.head.get_known(Known::MaxForwards), Some(left.as_bytes()), "{method} {value}");
        }
        let mut request = RequestHead::new();
        request.set_method("OPTIONS");
        assert!(take_hop(&mut request) && request.head.is_empty());
    }

    #[test]
    fn via_rfc9110_7_6_3() {
        for (lines, times) in [
            (&[][..], 0),
            (&["1.1 portcullis"][..], 1),
            (&["1.0 fred, 1.1 portcullis"], 1),
            (&["1.1 Portcullis (a comment), HTTP/2 x,1.1 portcullis", "1.1 portcullis"], 3),
            (&["1.1 portcullis.example", "portcullis", "1.1 x portcullis", ", ,"], 0),
        ] {
            let mut head = Head::new();
            lines.iter().for_each(|line| head.append_known(Known::Via, line));
            assert_eq!(times_through(&head, b"portcullis"), times, "{lines:?}");
        }
    }
}
