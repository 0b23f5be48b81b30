//! Tests of body decoding: bounds, trailers, and that cutting the input changes nothing.

use super::*;
use crate::http::h1::{write_chunk_end, write_chunk_header};
use proptest::prelude::*;

/// Payload, trailers as `name: value|`, and bytes after the body; or why it was refused.
type Decoded = Result<(Vec<u8>, String, usize), Refusal>;

/// Feeds `pieces` to a decoder. `None` where the body is not complete at the end.
fn decode(mut decoder: BodyDecoder, pieces: &[&[u8]]) -> Option<Decoded> {
    let mut payload = Vec::new();
    let mut after = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && !decoder.is_done() {
            let step = match decoder.decode(rest) {
                Ok(step) => step,
                Err(refusal) => return Some(Err(refusal)),
            };
            assert!(step.consumed > 0, "each step gets on");
            assert!(step.payload.end <= step.consumed && step.consumed <= rest.len());
            assert_eq!(step.done, decoder.is_done());
            payload.extend_from_slice(&rest[step.payload]);
            rest = &rest[step.consumed..];
        }
        after += rest.len();
    }
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let trailers = decoder.trailers().iter().map(|(_, name, value)| text(name) + ": " + &text(value) + "|");
    decoder.is_done().then(|| Ok((payload, trailers.collect(), after)))
}

fn request(framing: BodyFraming) -> BodyDecoder {
    BodyDecoder::request(framing, BodyLimits::NONE).unwrap()
}

fn chunked(body: &[u8]) -> Option<Decoded> {
    decode(request(BodyFraming::Chunked), &[body])
}

fn refused(body: &[u8]) -> Reason {
    chunked(body).and_then(Result::err).map(|refusal| refusal.reason).expect("a refusal")
}

#[test]
fn lengths_rfc9112_6_3() {
    let ok = |payload: &str, after| Some(Ok((payload.as_bytes().to_vec(), String::new(), after)));
    for (framing, body, want) in [
        (BodyFraming::None, "abc", ok("", 3)),
        (BodyFraming::Length(0), "abc", ok("", 3)),
        (BodyFraming::Length(2), "abc", ok("ab", 1)),
        (BodyFraming::Length(3), "abc", ok("abc", 0)),
        (BodyFraming::Length(4), "abc", None),
        (BodyFraming::Length(u64::MAX), "abc", None),
        (BodyFraming::UntilClose, "abc", None),
    ] {
        assert_eq!(decode(request(framing), &[body.as_bytes()]), want, "{framing:?}");
    }
}

#[test]
fn one_call_takes_a_whole_small_body() {
    let mut decoder = request(BodyFraming::Chunked);
    let body = b"5\r\nabcde\r\n0\r\n\r\nGET";
    assert_eq!(decoder.decode(body), Ok(Step { payload: 3..8, consumed: 15, done: true }));
    assert_eq!(decoder.decode(b"GET"), Ok(Step { payload: 0..0, consumed: 0, done: true }));
}

#[test]
fn a_close_ends_only_what_lasts_until_close_rfc9112_8() {
    let mut decoder = BodyDecoder::response(BodyFraming::UntilClose);
    assert_eq!(decoder.decode(b"abc"), Ok(Step { payload: 0..3, consumed: 3, done: false }));
    assert_eq!((decoder.close(), decoder.is_done()), (Ok(()), true));
    assert_eq!(request(BodyFraming::None).close(), Ok(()));
    for framing in [BodyFraming::Length(1), BodyFraming::Chunked] {
        assert_eq!(request(framing).close(), Err(Refusal::new(Reason::ClientAborted)));
        let truncated = Err(Refusal { reason: Reason::UpstreamTruncated, status: 502 });
        assert_eq!(BodyDecoder::response(framing).close(), truncated);
    }
}

#[test]
fn remaining_bytes_are_known_for_lengths() {
    let mut decoder = request(BodyFraming::Length(5));
    decoder.decode(b"ab").unwrap();
    assert_eq!(decoder.remaining(), Some(3));
    assert_eq!(request(BodyFraming::Chunked).remaining(), None);
    assert_eq!(request(BodyFraming::None).remaining(), Some(0));
}

#[test]
fn payload_is_bounded() {
    let limits = BodyLimits { payload: 5 };
    let too_large = Refusal { reason: Reason::BodyTooLarge, status: 413 };
    assert_eq!(BodyDecoder::request(BodyFraming::Length(6), limits).err(), Some(too_large));
    assert!(BodyDecoder::request(BodyFraming::Length(5), limits).is_ok());
    for (body, want) in [
        ("2\r\nab\r\n3\r\nabc\r\n0\r\n\r\n", None),
        ("6\r\n", Some(too_large)),
        ("2\r\nab\r\n4\r\n", Some(too_large)),
        ("7fffffffffffffff\r\n", Some(too_large)),
    ] {
        let decoder = BodyDecoder::request(BodyFraming::Chunked, limits).unwrap();
        assert_eq!(decode(decoder, &[body.as_bytes()]).and_then(Result::err), want, "{body:?}");
    }
}

#[test]
fn framing_bytes_are_bounded() {
    let extension = |len: usize| format!("1;{}\r\na\r\n", "x".repeat(len - 1));
    assert_eq!(chunked(extension(1023).as_bytes()), None, "one long extension may be");
    assert_eq!(refused(extension(1024).as_bytes()), Reason::BadChunk);
    // 1023 bytes and 5 more for each byte of payload, of which 17 are free.
    let rounds = EXCESS_BYTES as usize / (1023 + 5 - 17);
    assert_eq!(chunked(extension(1023).repeat(rounds).as_bytes()), None);
    assert_eq!(refused(extension(1023).repeat(rounds + 1).as_bytes()), Reason::BadChunk);
    // Small chunks as such are no attack, nor are signatures on large ones.
    assert_eq!(chunked("1\r\na\r\n".repeat(100_000).as_bytes()), None);
    let signed = format!("200;chunk-signature={}\r\n{}\r\n", "a".repeat(64), "b".repeat(512));
    assert_eq!(chunked(signed.repeat(1000).as_bytes()), None);
}

#[test]
fn trailers_rfc9110_6_5() {
    let body = |trailers: &str| format!("1\r\na\r\n0\r\n{trailers}\r\n");
    for (trailers, want) in [
        ("", ""),
        ("grpc-status: 0\r\nGrpc-Message:\tok \r\n", "grpc-status: 0|Grpc-Message: ok|"),
        ("ETag: \"x\"\r\n", "ETag: \"x\"|"),
        ("Content-Length: 5\r\nx: 1\r\nTransfer-Encoding: chunked\r\n", "x: 1|"),
        ("Host: b\r\nAuthorization: x\r\nCookie: x\r\nSet-Cookie: x\r\nConnection: x\r\nTE: x\r\n", ""),
        (
            "Content-Type: x\r\nCache-Control: x\r\nX-Forwarded-For: x\r\nX-Forwarded-User: x\r\nTrailer: x\r\n",
            "",
        ),
        ("content_length: 5\r\nx: 1\r\n", "x: 1|"),
    ] {
        let got = chunked(body(trailers).as_bytes());
        assert_eq!(got, Some(Ok((b"a".to_vec(), want.to_owned(), 0))), "{trailers:?}");
    }
    let limits = TrailerLimits::default();
    for (trailers, reason) in [
        ("x : 1\r\n", Reason::BadChunk),
        ("x: 1\r\n y\r\n", Reason::BadChunk),
        (" x: 1\r\n", Reason::BadChunk),
        ("x: 1\n", Reason::BareLf),
        ("x: 1\rz\r\n", Reason::BadChunk),
        ("x: \0\r\n", Reason::BadChunk),
        ("x\r\n", Reason::BadChunk),
        (&"x: y\r\n".repeat(limits.fields + 1), Reason::BadChunk),
        (&format!("x: {}\r\n", "y".repeat(limits.octets)), Reason::HeaderTooLarge),
    ] {
        assert_eq!(refused(body(trailers).as_bytes()), reason, "{trailers:?}");
    }
    assert!(chunked(body(&"x: y\r\n".repeat(limits.fields)).as_bytes()).is_some_and(|got| got.is_ok()));
}

#[test]
fn a_bad_response_body_is_the_upstreams_fault() {
    let mut decoder = BodyDecoder::response(BodyFraming::Chunked);
    assert_eq!(decoder.decode(b"x"), Err(Refusal { reason: Reason::UpstreamBadResponse, status: 502 }));
}

/// A decoder that needs the whole body at once. `None` where it is malformed or not complete.
fn naive(body: &[u8]) -> Option<(Vec<u8>, String, usize)> {
    let mut payload = Vec::new();
    let mut rest = body;
    loop {
        let (line, after) = line(rest)?;
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let extension = line[digits..].trim_ascii_start();
        let blank_end = extension.is_empty() && digits < line.len();
        if blank_end || !(extension.is_empty() || extension[0] == b';') || !line.iter().all(is_plain) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        rest = after;
        if size == 0 {
            break;
        }
        payload.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    let mut trailers = String::new();
    loop {
        let (line, after) = line(rest)?;
        rest = after;
        if line.is_empty() {
            return Some((payload, trailers, rest.len()));
        }
        let text = std::str::from_utf8(line).ok()?;
        let (name, value) = text.split_once(':')?;
        if !crate::http::head::is_token(name.as_bytes()) || !value.as_bytes().iter().all(is_plain) {
            return None;
        }
        trailers += &format!("{name}: {}|", value.trim_matches([' ', '\t']));
    }
}

fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&text[..end], &text[end + 2..]))
}

fn is_plain(byte: &u8) -> bool {
    *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)
}

/// Cuts `body` after the given positions.
fn cut<'a>(body: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    at.push(0);
    at.push(body.len());
    at.sort_unstable();
    at.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect()
}

const PIECES: &[&str] = &[
    "0",
    "1",
    "3",
    "a",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r",
    "\n",
    ";",
    " ",
    "abc",
    "\0",
    "x: y",
    "0\r\n\r\n",
    ": ",
    "3\r\nabc\r\n",
    "1;x=y\r\na\r\n",
    "0\r\nx: y\r\n\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn cutting_changes_nothing(
        pieces in prop::collection::vec(0..PIECES.len(), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let body: String = pieces.iter().map(|&piece| PIECES[piece]).collect();
        let whole = chunked(body.as_bytes());
        prop_assert_eq!(decode(request(BodyFraming::Chunked), &cut(body.as_bytes(), &cuts)), whole.clone());
        let single: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        prop_assert_eq!(decode(request(BodyFraming::Chunked), &single), whole);
    }

    #[test]
    fn a_body_is_read_as_the_naive_decoder_reads_it(
        pieces in prop::collection::vec(0..PIECES.len(), 0..12),
    ) {
        let body: String = pieces.iter().map(|&piece| PIECES[piece]).collect();
        let ours = chunked(body.as_bytes()).and_then(Result::ok);
        prop_assert_eq!(ours, naive(body.as_bytes()));
    }

    #[test]
    fn what_is_encoded_is_decoded(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
        trailer in prop::option::of("[a-z]{0,8}"),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            write_chunk_header(chunk.len(), &mut body);
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        let mut trailers = Head::new();
        if let Some(value) = &trailer {
            trailers.append("x-sum", value);
        }
        write_chunk_end(trailer.is_some().then_some(&trailers), &mut body);
        let want = trailer.map_or(String::new(), |value| format!("x-sum: {value}|"));
        let got = decode(BodyDecoder::response(BodyFraming::Chunked), &cut(&body, &cuts));
        prop_assert_eq!(got, Some(Ok((chunks.concat(), want, 0))));
    }
}
