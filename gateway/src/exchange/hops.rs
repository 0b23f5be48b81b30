//! Requests that go no further than here, for reasons of their own (RFC 9110 sections 7.6.2, 7.6.3 and 9.3.7).

use std::borrow::Cow;

use portcullis_abi::Reason;

use super::{forward, refuse};
use crate::http::{RequestHead, hops};
use crate::plugin::{Content, Response};

/// What the gateway says that it does, when it is asked.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS";

/// Takes a hop off the request. Gives the answer to one that ends here: it has been here too often, it may go no further,
/// or it asks the server in general, which the gateway is to its clients.
pub fn take_hop(request: &mut RequestHead, via_limit: u32) -> Option<Box<Response>> {
    if via_limit > 0 && hops::times_through(&request.head, forward::PSEUDONYM.as_bytes()) > via_limit as usize
    {
        return Some(refuse::response(508, Reason::LoopDetected));
    }
    if hops::take_hop(request) && request.path() != b"*" {
        return None;
    }
    let mut response = Response::with_content(200, Content::empty());
    response.fields.push(("Allow", Cow::Borrowed(METHODS)));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Known;

    #[test]
    fn a_loop_ends_at_its_limit() {
        for (via, limit, ends) in [
            ("1.1 portcullis", 0, false),
            ("1.1 portcullis", 1, false),
            ("1.1 portcullis, 1.1 portcullis", 1, true),
            ("1.1 a, 1.1 b", 1, false),
        ] {
            let mut request = RequestHead::new();
            request.set_path("/");
            request.head.append_known(Known::Via, via);
            let answer = take_hop(&mut request, limit);
            assert_eq!(answer.map(|answer| answer.status), ends.then_some(508), "{via} {limit}");
        }
    }
}
