//! Tests of the guard, frame by frame.

use super::super::frames::HEADER_LEN;
use super::*;

/// Bytes of one frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
    bytes.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A guard that has seen the preface, and stream 1 opened.
fn opened() -> Guard {
    let mut guard = begun();
    guard.received(&frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x82]), 0).unwrap();
    // What that explains is no part of the test.
    (guard.updates_due, guard.priorities_due) = (2, 0);
    guard
}

fn begun() -> Guard {
    let mut guard = Guard::new(Thresholds::default());
    guard.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0).unwrap();
    guard.received(&frame(kind::SETTINGS, 0, 0, &[]), 0).unwrap();
    guard
}

/// How many of `frames` in a row are borne within a window of their own, and what is said of the one after.
fn borne(guard: &mut Guard, bytes: &[u8], now_ns: u64) -> (u32, Violation) {
    for count in 0..100_000 {
        if let Err(violation) = guard.received(bytes, now_ns) {
            return (count, violation);
        }
    }
    panic!("no bound");
}

const S: u64 = 1_000_000_000;

#[test]
fn each_kind_of_frame_has_its_threshold_and_its_reason() {
    let table: [(&str, Vec<u8>, u32, Reason); 9] = [
        ("RST_STREAM", frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), 100, Reason::H2RapidReset),
        ("PING", frame(kind::PING, 0, 0, &[0; 8]), 100, Reason::H2PingFlood),
        ("SETTINGS", frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]), 50, Reason::H2SettingsFlood),
        ("DATA", frame(kind::DATA, 0, 1, &[]), 100, Reason::H2EmptyDataFlood),
        ("padding alone", frame(kind::DATA, flag::PADDED, 1, &[2, 0, 0]), 100, Reason::H2EmptyDataFlood),
        ("PRIORITY", frame(kind::PRIORITY, 0, 1, &[0; 5]), 100, Reason::H2PriorityFlood),
        ("PRIORITY_UPDATE", frame(kind::PRIORITY_UPDATE, 0, 0, &[0; 4]), 100, Reason::H2PriorityFlood),
        ("unknown", frame(0x2a, 0, 0, &[1]), 100, Reason::H2ProtocolError),
        ("GOAWAY", frame(kind::GOAWAY, 0, 0, &[0; 8]), 100, Reason::H2ProtocolError),
    ];
    for (name, bytes, limit, reason) in table {
        let mut guard = opened();
        assert_eq!(borne(&mut guard, &bytes, 2 * S), (limit, Violation::TooMuch(reason)), "{name}");
    }
}

#[test]
fn a_window_lasts_a_second() {
    let mut guard = opened();
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    for second in 1..=20 {
        for _ in 0..100 {
            guard.received(&ping, second * S).unwrap();
        }
    }
    assert!(guard.received(&ping, 20 * S + S - 1).is_err());
}

#[test]
fn what_an_honest_client_does_is_not_counted() {
    let mut guard = begun();
    let now = 2 * S;
    for stream in 0..2000 {
        let id = stream * 2 + 1;
        // A request, its priority, and leave for the response: on the connection and on the stream.
        guard.received(&frame(kind::HEADERS, flag::END_HEADERS, id, &[0x82]), now).unwrap();
        guard.received(&frame(kind::PRIORITY, 0, id, &[0; 5]), now).unwrap();
        for _ in 0..10 {
            guard.sending(&frame(kind::DATA, 0, id, &[0; 100]), now, |_| unreachable!()).unwrap();
            guard.received(&frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 100]), now).unwrap();
            guard.received(&frame(kind::WINDOW_UPDATE, 0, id, &[0, 0, 0, 100]), now).unwrap();
        }
        guard.received(&frame(kind::SETTINGS, flag::ACK, 0, &[]), now).unwrap();
        guard.received(&frame(kind::DATA, flag::END_STREAM, id, &[]), now).unwrap();
    }
}

#[test]
fn a_reader_of_small_pieces_is_not_counted() {
    let mut guard = begun();
    let now = 2 * S;
    guard.received(&frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x82]), now).unwrap();
    // Go's client gives leave for the stream and for the connection each time that 4 KiB were read of it.
    for _ in 0..1000 {
        guard.sending(&frame(kind::DATA, 0, 1, &[0; 16 * 1024]), now, |_| unreachable!()).unwrap();
        for stream in [0, 1].repeat(4) {
            guard.received(&frame(kind::WINDOW_UPDATE, 0, stream, &[0, 0, 16, 0]), now).unwrap();
        }
    }
}

#[test]
fn pings_that_measure_a_transfer_are_not_counted() {
    let mut guard = begun();
    let now = 2 * S;
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    // The estimator of grpc-go sends one for each round trip in which something came.
    for _ in 0..1000 {
        guard.sending(&frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x88]), now, |_| unreachable!()).unwrap();
        guard.received(&ping, now).unwrap();
        guard.sending(&frame(kind::DATA, 0, 1, &[0; 100]), now, |_| unreachable!()).unwrap();
        guard.received(&ping, now).unwrap();
    }
    // What was sent explains no flood later.
    for _ in 0..1000 {
        guard.sending(&frame(kind::DATA, 0, 1, &[0; 100]), now, |_| unreachable!()).unwrap();
    }
    let (count, violation) = borne(&mut guard, &ping, now);
    assert_eq!((count, violation), (PINGS_DUE_MAX + 100, Violation::TooMuch(Reason::H2PingFlood)));
}

#[test]
fn window_updates_without_data_are_a_flood() {
    for stream in [0, 1] {
        let mut guard = opened();
        let update = frame(kind::WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]);
        // Two are explained by the beginning of the connection.
        assert_eq!(borne(&mut guard, &update, 2 * S), (102, Violation::TooMuch(Reason::H2WindowUpdateFlood)));
    }
}

#[test]
fn credit_cannot_be_saved_up_for_a_flood() {
    let mut guard = opened();
    for _ in 0..100_000 {
        guard.sending(&frame(kind::DATA, 0, 1, &[0; 100]), 2 * S, |_| unreachable!()).unwrap();
    }
    let update = frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    let (count, _) = borne(&mut guard, &update, 2 * S);
    assert_eq!(count, CREDIT_MAX + 100);
}

#[test]
fn a_header_block_has_few_frames_and_few_octets() {
    let headers = frame(kind::HEADERS, 0, 1, &[0; 100]);
    let more = frame(kind::CONTINUATION, 0, 1, &[0; 10]);
    let mut guard = opened();
    guard.received(&headers, 2 * S).unwrap();
    assert!(guard.in_header_block());
    assert_eq!(borne(&mut guard, &more, 2 * S), (22, Violation::TooMuch(Reason::H2ContinuationFlood)));

    // Two continuations each: what large heads need, as many as there are.
    let mut guard = opened();
    for _ in 0..1000 {
        guard.received(&headers, 2 * S).unwrap();
        guard.received(&more, 2 * S).unwrap();
        guard.received(&frame(kind::CONTINUATION, flag::END_HEADERS, 1, &[0; 10]), 2 * S).unwrap();
        assert!(!guard.in_header_block());
    }

    let mut guard = opened();
    guard.received(&frame(kind::HEADERS, 0, 1, &[0; 16384]), 2 * S).unwrap();
    let large = frame(kind::CONTINUATION, 0, 1, &[0; 16384]);
    assert_eq!(borne(&mut guard, &large, 2 * S), (3, Violation::TooMuch(Reason::H2HeaderList)));
}

#[test]
fn mixed_floods_have_a_threshold_together() {
    let mut guard = opened();
    let mix = [
        frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(kind::PRIORITY, 0, 1, &[0; 5]),
    ];
    let mut seen = 0;
    let reason = loop {
        match guard.received(&mix[seen % 3], 2 * S) {
            Ok(()) => seen += 1,
            Err(violation) => break violation,
        }
    };
    assert_eq!((seen, reason), (100, Violation::TooMuch(Reason::H2PingFlood)));
}

#[test]
fn resets_that_the_client_provokes_count_against_it() {
    for (code, counts) in
        [(1, true), (3, true), (5, true), (6, true), (7, true), (0, false), (8, false), (2, false)]
    {
        let mut guard = opened();
        let reset = frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, code]);
        let mut faults = 0;
        let mut ended = None;
        for count in 0..300 {
            if let Err(violation) = guard.sending(&reset, 2 * S, |_| faults += 1) {
                ended = Some((count, violation));
                break;
            }
        }
        let expected = counts.then_some((100, Violation::TooMuch(Reason::H2MadeYouReset)));
        assert_eq!((ended, faults), (expected, if counts { 101 } else { 0 }), "code {code}");
    }
}

#[test]
fn small_frames_that_come_long_after_their_stream_was_reset_are_a_flood() {
    let begin = |stream| frame(kind::HEADERS, flag::END_HEADERS, stream, &[0x83]);
    let small = |stream| frame(kind::DATA, 0, stream, b"x");
    let mut guard = opened();
    guard.received(&begin(3), S).unwrap();
    guard.sending(&frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 0]), S, |_| {}).unwrap();
    // What was on its way is borne, each second anew, and a stream that goes on may have as many as it likes.
    for second in 1..4 {
        for _ in 0..LATE_MAX {
            guard.received(&[small(1), small(3), small(3)].concat(), second * S).unwrap();
        }
        guard.received(&frame(kind::DATA, 0, 1, &[0; 256]), second * S).unwrap();
    }
    let more = guard.received(&small(1), 3 * S);
    assert_eq!(more, Err(Violation::TooMuch(Reason::H2EmptyDataFlood)));
}

#[test]
fn what_the_codec_answers_by_itself_is_told() {
    let mut guard = opened();
    let mut told = Vec::new();
    let sent = [
        // 431 to a header list over the limit, then an error of the stream itself.
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &[0x48]),
        frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 1]),
        frame(kind::HEADERS, flag::END_HEADERS, 3, &[0x88]),
        frame(kind::RST_STREAM, 0, 3, &[0, 0, 0, 5]),
        frame(kind::GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\x0btoo_many_continuations"),
    ];
    guard.sending(&sent.concat(), S, |fault| told.push(fault)).unwrap();
    assert_eq!(
        told,
        [
            Fault::Stream(Reason::HeaderTooLarge),
            Fault::Stream(Reason::H2ProtocolError),
            Fault::Connection(Reason::H2ContinuationFlood)
        ]
    );
}

#[test]
fn the_first_frame_is_settings_rfc9113_3_4() {
    let mut guard = Guard::new(Thresholds::default());
    guard.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0).unwrap();
    assert_eq!(
        guard.received(&frame(kind::PING, 0, 0, &[0; 8]), 0),
        Err(Violation::Forbidden(PROTOCOL_ERROR))
    );
}

#[test]
fn data_after_the_end_of_a_stream_rfc9113_5_1() {
    let closed = Err(Violation::Forbidden(STREAM_CLOSED));
    let data = |flags, stream| frame(kind::DATA, flags, stream, &[1]);
    let head = |flags: u8, stream| frame(kind::HEADERS, flag::END_HEADERS | flags, stream, &[0x82]);
    let check = |frames: &[Vec<u8>], expected| {
        assert_eq!(begun().received(&frames.concat(), S), expected, "{frames:?}");
    };
    check(&[head(flag::END_STREAM, 1), data(0, 1)], closed);
    check(&[head(0, 1), data(0, 1), data(flag::END_STREAM, 1)], Ok(()));
    check(&[head(0, 1), data(flag::END_STREAM, 1), data(0, 1)], closed);
    let trailers = |block: &[u8]| frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, block);
    check(&[head(0, 1), trailers(&[0, 1, b'x', 0]), data(0, 1)], closed);
    // RFC 9113 section 8.1: `:method` in trailers.
    check(&[head(0, 1), trailers(&[0x82])], Err(Violation::Forbidden(PROTOCOL_ERROR)));
    check(&[head(0, 1), frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), data(0, 1)], closed);
    check(&[head(0, 3), head(0, 5), data(0, 3), data(0, 5)], Ok(()));
    // The same by the dynamic table, if the client has put it there, and not of other entries.
    let opening = |block: &[u8]| frame(kind::HEADERS, flag::END_HEADERS, 1, block);
    let malformed = Err(Violation::Forbidden(PROTOCOL_ERROR));
    check(&[opening(&[0x44, 1, b'/']), trailers(&[0xbe])], malformed);
    let (open, more) = (frame(kind::HEADERS, 0, 1, &[0x44, 1]), frame(kind::CONTINUATION, 4, 1, b"/"));
    check(&[open, more, trailers(&[0xbe])], malformed);
    check(&[opening(&[0x44, 1, b'/', 0x40, 1, b'x', 1, b'1']), trailers(&[0xbe])], Ok(()));
    // A head after the end is no trailers.
    check(&[head(flag::END_STREAM, 1), head(flag::END_STREAM, 1)], closed);
    check(&[head(0, 1), trailers(&[0, 1, b'x', 0]), trailers(&[0, 1, b'x', 0])], closed);
    check(&[head(0, 1), frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), trailers(&[0, 1, b'x', 0])], closed);
    // Numbers that were left out: section 5.1.1.
    let reused = Err(Violation::Forbidden(PROTOCOL_ERROR));
    check(&[head(0, 1), head(0, 5), head(flag::END_STREAM, 3)], reused);
    check(&[head(flag::END_STREAM, 5), head(flag::END_STREAM, 3)], reused);
    // Never opened: the codec's to say.
    check(&[head(0, 1), data(0, 3)], Ok(()));
    check(&[head(0, 1), data(0, 0)], Ok(()));
}

#[test]
fn frames_have_their_length_rfc9113_6() {
    let check = |kind: u8, flags: u8, length: usize, expected: bool| {
        let seen = opened().received(&frame(kind, flags, 1, &vec![0; length]), S);
        let expected = if expected { Ok(()) } else { Err(Violation::Forbidden(FRAME_SIZE_ERROR)) };
        assert_eq!(seen, expected, "type {kind} of {length}");
    };
    for (kind, flags, right) in [
        (kind::PRIORITY, 0, 5),
        (kind::RST_STREAM, 0, 4),
        (kind::WINDOW_UPDATE, 0, 4),
        (kind::SETTINGS, 0, 12),
        (kind::SETTINGS, flag::ACK, 0),
        (kind::PING, 0, 8),
        (kind::PING, flag::ACK, 8),
    ] {
        check(kind, flags, right, true);
        check(kind, flags, right + 1, false);
    }
    check(kind::GOAWAY, 0, 7, false);
    check(kind::GOAWAY, 0, 20, true);
}

#[test]
fn the_verdict_does_not_depend_on_how_bytes_are_cut() {
    let mut stream = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    stream.extend(frame(kind::SETTINGS, 0, 0, &[]));
    for _ in 0..150 {
        stream.extend(frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    }
    // The frame that is one too many, by the octet that completes it.
    let expected = 24 + 9 + 100 * 13 + 13;
    for size in [1, 2, 7, 13, 100] {
        let mut guard = Guard::new(Thresholds::default());
        let mut seen = 0;
        for piece in stream.chunks(size) {
            seen += piece.len();
            if guard.received(piece, S).is_err() {
                break;
            }
        }
        assert_eq!(seen, usize::div_ceil(expected, size) * size, "in pieces of {size}");
    }
}

#[test]
fn what_cannot_be_decoded_is_told_from_what_may_not_be_sent_rfc9113_4_3() {
    let goaway = |code: u32| frame(kind::GOAWAY, 0, 0, &[&[0; 4], &code.to_be_bytes()[..]].concat());
    let check = |received: &[Vec<u8>], code: u32, expected: Option<usize>| {
        let mut guard = opened();
        guard.received(&received.concat(), S).unwrap();
        let sent = [frame(kind::PING, flag::ACK, 0, &[0; 8]), goaway(code)].concat();
        guard.sending(&sent, S, |_| unreachable!()).unwrap();
        assert_eq!(guard.take_miscoded(), expected, "{received:?} {code}");
    };
    // Behind a PING of 17 octets, a frame header of 9 and the last stream.
    let place = Some(17 + 9 + 4);
    let head = |flags: u8, stream: u32| frame(kind::HEADERS, flags, stream, &[0xff, 0]);
    let whole = flag::END_HEADERS | flag::END_STREAM;
    check(&[head(whole, 1)], PROTOCOL_ERROR, place);
    check(&[head(0, 1), frame(kind::CONTINUATION, flag::END_HEADERS, 1, &[])], PROTOCOL_ERROR, place);
    check(&[frame(kind::PING, 0, 0, &[0; 8]), head(whole, 3)], PROTOCOL_ERROR, place);
    check(&[head(whole, 1)], STREAM_CLOSED, None);
    check(&[head(0, 1)], PROTOCOL_ERROR, None);
    for other in [
        head(whole, 2),
        head(whole | flag::PADDED, 1),
        frame(kind::DATA, 0, 5, &[0]),
        frame(kind::SETTINGS, 0, 0, &[0; 6]),
        frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(kind::PING, 0, 1, &[0; 8]),
        frame(kind::CONTINUATION, 0, 1, &[]),
    ] {
        check(&[other, head(whole, 7)], PROTOCOL_ERROR, None);
    }
}

#[test]
fn defaults_and_where_they_come_from() {
    const SOZU: &str = "Sozu, a window of one second";
    let limits = Thresholds::default();
    for (what, number, expected, source) in [
        ("RST_STREAM", limits.resets, 100, SOZU),
        ("PING", limits.pings, 100, SOZU),
        ("SETTINGS", limits.settings, 50, SOZU),
        ("empty DATA", limits.empty_data, 100, SOZU),
        ("WINDOW_UPDATE", limits.window_updates, 100, SOZU),
        ("CONTINUATION", limits.continuations, 20, SOZU),
        ("all together", limits.glitches, 100, SOZU),
        ("PRIORITY", limits.priorities, 100, "ours: as many as of any other kind"),
        ("octets of a header block", limits.header_block, 64 * 1024, "ours: twice `limits.head`"),
    ] {
        assert_eq!(number, expected, "{what} ({source})");
    }
}
