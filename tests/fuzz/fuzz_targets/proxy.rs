//! PROXY headers and `Forwarded`: however a header is cut it is read alike, and what is written is read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::http::forwarded::{self, Node};
use portcullis_fuzz::http::proxy_protocol::{HEADER_MAX, Parsed, parse, write_v1, write_v2};

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    for end in 0..data.len() {
        let part = parse(&data[..end]);
        assert!(part == Parsed::Partial || part == whole, "the first {end} bytes are read as {part:?}");
    }
    if let Parsed::Complete(header) = whole {
        assert!(header.len <= data.len() && header.len <= HEADER_MAX);
        if let (Some(client), Some(destination)) = (header.client, header.destination) {
            let (mut one, mut two) = (Vec::new(), Vec::new());
            write_v1(client, destination, &mut one);
            write_v2(client, destination, &header.tlvs, &mut two);
            for written in [one, two] {
                let Parsed::Complete(back) = parse(&written) else { panic!("{written:?}") };
                assert_eq!(
                    (back.len, back.client, back.destination),
                    (written.len(), Some(client), Some(destination))
                );
            }
        }
    }
    for element in forwarded::parse(data).unwrap_or_default() {
        if let (Node::Address(client), Some(host)) = (element.client, element.host) {
            let mut out = Vec::new();
            forwarded::write(client, true, &host, &mut out);
            let back = forwarded::parse(&out).expect("what is written can be read");
            assert_eq!(
                (back[0].client, back[0].host.as_deref()),
                (Node::Address(client), (!host.is_empty()).then_some(&*host))
            );
        }
    }
});
