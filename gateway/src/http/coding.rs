//! Content codings (RFC 9110 section 8.4): which one a client takes, and a body put into it piece by piece.
//!
//! Owns the preference of `Accept-Encoding` (section 12.5.3) and the encoders. Does no I/O: octets go in, octets come out.
//!
//! **Invariant.** What has come out after a [`flush`](Encoder::flush) is enough for a client to have all that went in.

use std::io::{self, Write};

use brotli::CompressorWriter;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A coding that is made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    Gzip,
    Brotli,
    Zstd,
}

impl ContentCoding {
    /// All of them.
    pub const ALL: [ContentCoding; 3] = [ContentCoding::Gzip, ContentCoding::Brotli, ContentCoding::Zstd];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            ContentCoding::Gzip => "gzip",
            ContentCoding::Brotli => "br",
            ContentCoding::Zstd => "zstd",
        }
    }

    /// The coding with that name, or its other one (section 8.4.1.3).
    pub fn of(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(ContentCoding::Gzip);
        }
        Self::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.as_str().as_bytes()))
    }
}

/// The first of `offered`, best first, that the client likes most. `None`: it is to be sent as it is.
pub fn preferred<'h>(
    fields: impl Iterator<Item = &'h [u8]>,
    offered: &[ContentCoding],
) -> Option<ContentCoding> {
    // In thousandths, as they are written. Index by `ContentCoding as usize`.
    let mut named: [Option<u16>; 3] = [None; 3];
    let (mut others, mut identity) = (None, None);
    for item in fields.flat_map(|field| field.split(|&byte| byte == b',')) {
        let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(quality).unwrap_or(1000);
        match ContentCoding::of(name) {
            Some(coding) => named[coding as usize] = Some(quality),
            None if name == b"*" => others = Some(quality),
            None if name.eq_ignore_ascii_case(b"identity") => identity = Some(quality),
            None => {}
        }
    }
    let quality_of = |coding: ContentCoding| named[coding as usize].or(others).unwrap_or(0);
    let mut best: Option<(ContentCoding, u16)> = None;
    for &coding in offered {
        let quality = quality_of(coding);
        if quality > best.map_or(0, |(_, quality)| quality) {
            best = Some((coding, quality));
        }
    }
    // Who would rather have it uncoded gets it so.
    best.filter(|(_, quality)| *quality >= identity.unwrap_or(0)).map(|(coding, _)| coding)
}

/// A weight (section 12.4.2) in thousandths; one that is none counts as nothing.
fn quality(parameter: &[u8]) -> Option<u16> {
    let (name, value) = (parameter.first()?, parameter.get(1..)?.trim_ascii_start());
    let value = value.strip_prefix(b"=").filter(|_| name.eq_ignore_ascii_case(&b'q'))?;
    let text = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
    let number: f32 = text.parse().unwrap_or(0.0);
    Some((number.clamp(0.0, 1.0) * 1000.0) as u16)
}

/// A body on its way into a coding.
pub struct Encoder {
    kind: Kind,
    /// Something went in that a flush would bring out.
    fresh: bool,
    ended: bool,
}

enum Kind {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Levels at which an encoder costs about as much as it saves on a fast line: quicker than the crates' own choice.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const BROTLI_WINDOW: u32 = 18;
const ZSTD_LEVEL: i32 = 3;
/// Room that brotli takes for what goes in.
const BROTLI_ROOM: usize = 4096;

impl Encoder {
    /// An encoder with nothing in it. Errors: there is no memory for one.
    pub fn new(coding: ContentCoding) -> io::Result<Self> {
        let kind = match coding {
            ContentCoding::Gzip => Kind::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            ContentCoding::Brotli => {
                let writer = CompressorWriter::new(Vec::new(), BROTLI_ROOM, BROTLI_QUALITY, BROTLI_WINDOW);
                Kind::Brotli(Box::new(writer))
            }
            ContentCoding::Zstd => Kind::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
        };
        Ok(Self { kind, fresh: false, ended: false })
    }

    /// Takes in octets of the body; gives what has come out so far, which may be nothing.
    pub fn put(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        if data.is_empty() {
            return Ok(Vec::new());
        }
        self.fresh = true;
        match &mut self.kind {
            Kind::Gzip(encoder) => encoder.write_all(data)?,
            Kind::Brotli(encoder) => encoder.write_all(data)?,
            Kind::Zstd(encoder) => encoder.write_all(data)?,
        }
        Ok(self.taken())
    }

    /// Gives all that is still inside: nothing comes for a while.
    pub fn flush(&mut self) -> io::Result<Vec<u8>> {
        if !self.fresh || self.ended {
            return Ok(Vec::new());
        }
        self.fresh = false;
        match &mut self.kind {
            Kind::Gzip(encoder) => encoder.flush()?,
            Kind::Brotli(encoder) => encoder.flush()?,
            Kind::Zstd(encoder) => encoder.flush()?,
        }
        Ok(self.taken())
    }

    /// Ends the body; gives what closes it. Nothing goes in any more.
    pub fn finish(&mut self) -> io::Result<Vec<u8>> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(Vec::new());
        }
        match &mut self.kind {
            Kind::Gzip(encoder) => encoder.try_finish()?,
            Kind::Brotli(encoder) => {
                // Ending it needs it whole.
                let empty = CompressorWriter::new(Vec::new(), BROTLI_ROOM, 0, BROTLI_WINDOW);
                return Ok(std::mem::replace(&mut **encoder, empty).into_inner());
            }
            Kind::Zstd(encoder) => encoder.do_finish()?,
        }
        Ok(self.taken())
    }

    fn taken(&mut self) -> Vec<u8> {
        match &mut self.kind {
            Kind::Gzip(encoder) => std::mem::take(encoder.get_mut()),
            Kind::Brotli(encoder) => std::mem::take(encoder.get_mut()),
            Kind::Zstd(encoder) => std::mem::take(encoder.get_mut()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn chosen(accepted: &str) -> Option<ContentCoding> {
        preferred(
            [accepted.as_bytes()].into_iter(),
            &[ContentCoding::Gzip, ContentCoding::Brotli, ContentCoding::Zstd],
        )
    }

    #[test]
    fn the_client_chooses_and_order_decides_between_equals() {
        use ContentCoding::{Brotli, Gzip, Zstd};
        for (accepted, expected) in [
            ("", None),
            ("gzip", Some(Gzip)),
            ("GZIP, br", Some(Gzip)),
            ("br;q=1.0, gzip;q=0.8", Some(Brotli)),
            ("gzip;q=0, *", Some(Brotli)),
            ("*", Some(Gzip)),
            ("*;q=0", None),
            ("identity", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("zstd ; Q = 0.3", Some(Zstd)),
            ("x-gzip", Some(Gzip)),
            ("gzip;q=x", None),
            ("deflate, compress", None),
        ] {
            assert_eq!(chosen(accepted), expected, "{accepted}");
        }
    }

    fn decoded(coding: ContentCoding, coded: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            ContentCoding::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut out),
            ContentCoding::Brotli => brotli::Decompressor::new(coded, 4096).read_to_end(&mut out),
            ContentCoding::Zstd => {
                zstd::stream::read::Decoder::new(coded).and_then(|mut one| one.read_to_end(&mut out))
            }
        }
        .expect("a whole body");
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whatever the pieces and wherever it is flushed, the body comes out as it went in.
        #[test]
        fn a_body_comes_back_whole(pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..400), any::<bool>()), 0..8)) {
            for coding in ContentCoding::ALL {
                let mut encoder = Encoder::new(coding).expect("an encoder");
                let (mut coded, mut body) = (Vec::new(), Vec::new());
                for (piece, flush) in &pieces {
                    coded.extend(encoder.put(piece).expect("room"));
                    if *flush {
                        coded.extend(encoder.flush().expect("room"));
                    }
                    body.extend_from_slice(piece);
                }
                coded.extend(encoder.finish().expect("room"));
                prop_assert_eq!(decoded(coding, &coded), body);
            }
        }
    }

    #[test]
    fn what_was_flushed_can_be_read() {
        for coding in ContentCoding::ALL {
            let mut encoder = Encoder::new(coding).expect("an encoder");
            let mut coded = encoder.put(b"first line\n").expect("room");
            coded.extend(encoder.flush().expect("room"));
            let mut read = [0; 11];
            match coding {
                ContentCoding::Gzip => flate2::read::GzDecoder::new(&*coded).read_exact(&mut read),
                ContentCoding::Brotli => brotli::Decompressor::new(&*coded, 4096).read_exact(&mut read),
                ContentCoding::Zstd => {
                    zstd::stream::read::Decoder::new(&*coded).expect("a decoder").read_exact(&mut read)
                }
            }
            .unwrap_or_else(|error| panic!("{coding:?}: {error}"));
            assert_eq!(&read, b"first line\n");
        }
    }
}
