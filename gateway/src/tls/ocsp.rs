//! Stapled OCSP responses (RFC 6960), as an operator's job fetches them into a file.
//!
//! Owns: the decision whether a response is worth stapling: it is one, says "good", is for this certificate, and is not
//! past its time. Never: the signature, which the client checks with the key of the authority; and never the network.
//!
//! ```text
//! OCSPResponse { status, [0] { OID basic, OCTET STRING BasicOCSPResponse } }
//! BasicOCSPResponse { ResponseData { [0] version, responder, producedAt, responses }, ... }
//! SingleResponse { CertID { algorithm, issuer name, issuer key, serial }, status, thisUpdate, [0] nextUpdate }
//! ```

use std::time::Duration;

use super::der::{self, ENUMERATED, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE};

/// Why a response is not stapled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StapleError {
    #[error("it is no OCSP response in DER")]
    Malformed,
    #[error("the responder had no answer (status {0})")]
    Unsuccessful(u8),
    #[error("it is about another certificate")]
    OtherCertificate,
    #[error("it says that the certificate is revoked or unknown")]
    NotGood,
    #[error("it is past its time")]
    Expired,
    #[error("its time has not come")]
    NotYetValid,
}

/// Judges a response for the certificate with this serial number. `now` is wall clock since the Unix epoch. Gives the time
/// until which it is good, if it has one.
pub(super) fn check(response: &[u8], serial: &[u8], now: Duration) -> Result<Option<Duration>, StapleError> {
    let malformed = StapleError::Malformed;
    let mut outer = Reader::new(response).inside(SEQUENCE).ok_or(malformed)?;
    match outer.optional(ENUMERATED).ok_or(malformed)? {
        [0] => {}
        [status] => return Err(StapleError::Unsuccessful(*status)),
        _ => return Err(malformed),
    }
    let mut singles = responses(outer).ok_or(malformed)?;
    while let Some(mut single) = singles.inside(SEQUENCE) {
        if serial_of(&mut single).ok_or(malformed)? == unsigned(serial) {
            return judge(single, now).ok_or(malformed)?;
        }
    }
    Err(StapleError::OtherCertificate)
}

fn responses(mut outer: Reader<'_>) -> Option<Reader<'_>> {
    const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
    let mut bytes = outer.inside(der::context(0))?.inside(SEQUENCE)?;
    if bytes.optional(OID)? != BASIC {
        return None;
    }
    let mut data = Reader::new(bytes.optional(OCTET_STRING)?).inside(SEQUENCE)?.inside(SEQUENCE)?;
    data.optional(der::context(0)); // version
    data.any()?; // responder
    data.time()?; // producedAt
    data.inside(SEQUENCE)
}

fn serial_of<'a>(single: &mut Reader<'a>) -> Option<&'a [u8]> {
    let mut id = single.inside(SEQUENCE)?;
    id.optional(SEQUENCE)?;
    id.optional(OCTET_STRING)?;
    id.optional(OCTET_STRING)?;
    id.optional(INTEGER).map(unsigned)
}

fn judge(mut single: Reader<'_>, now: Duration) -> Option<Result<Option<Duration>, StapleError>> {
    // good [0] IMPLICIT NULL
    if single.any()?.0 != 0x80 {
        return Some(Err(StapleError::NotGood));
    }
    let this_update = single.time()?;
    let next_update = match single.inside(der::context(0)) {
        Some(mut next) => Some(next.time()?),
        None => None,
    };
    Some(if this_update > now + CLOCK_SKEW {
        Err(StapleError::NotYetValid)
    } else if next_update.is_some_and(|next| next < now) {
        Err(StapleError::Expired)
    } else {
        Ok(next_update)
    })
}

/// A DER integer without the zeros that keep it positive.
fn unsigned(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    &integer[zeros..]
}

/// How far ahead a responder's clock may be.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let mut out = vec![tag];
        match content.len() {
            0..=0x7f => out.push(content.len() as u8),
            len => out.extend([0x82, (len >> 8) as u8, len as u8]),
        }
        out.extend(content);
        out
    }

    fn response(status: u8, good: u8, serial: &[u8], this: &str, next: Option<&str>) -> Vec<u8> {
        let time = |text: &str| element(0x18, &[text.as_bytes()]);
        let id = element(
            SEQUENCE,
            &[
                &element(SEQUENCE, &[&element(OID, &[&[0x2b, 0x0e, 3, 2, 0x1a]])]),
                &element(OCTET_STRING, &[&[1; 20]]),
                &element(OCTET_STRING, &[&[2; 20]]),
                &element(INTEGER, &[serial]),
            ],
        );
        let next = next.map(|text| element(0xa0, &[&time(text)])).unwrap_or_default();
        let single = element(SEQUENCE, &[&id, &element(good, &[]), &time(this), &next]);
        let responder = element(0xa2, &[&element(OCTET_STRING, &[&[3; 20]])]);
        let data = element(SEQUENCE, &[&responder, &time(this), &element(SEQUENCE, &[&single])]);
        let basic = element(SEQUENCE, &[&data]);
        let bytes = element(
            SEQUENCE,
            &[&element(OID, &[&[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1]]), &element(OCTET_STRING, &[&basic])],
        );
        element(SEQUENCE, &[&element(ENUMERATED, &[&[status]]), &element(0xa0, &[&bytes])])
    }

    #[test]
    fn what_is_stapled() {
        let now = Duration::from_secs(1_700_000_000); // 2023-11-14
        let serial = &[0x7f, 2, 3][..];
        let check = |bytes: &[u8]| check(bytes, serial, now);
        let (old, new) = ("20231101000000Z", "20231201000000Z");
        let good = response(0, 0x80, serial, old, Some(new));
        assert_eq!(check(&good), Ok(Some(Duration::from_secs(1_701_388_800))));
        assert_eq!(check(&response(0, 0x80, &[0, 0x7f, 2, 3], old, None)), Ok(None));
        let table = [
            (response(6, 0x80, serial, old, Some(new)), StapleError::Unsuccessful(6)),
            (response(0, 0xa1, serial, old, Some(new)), StapleError::NotGood),
            (response(0, 0x82, serial, old, Some(new)), StapleError::NotGood),
            (response(0, 0x80, &[1], old, Some(new)), StapleError::OtherCertificate),
            (response(0, 0x80, serial, old, Some("20231102000000Z")), StapleError::Expired),
            (response(0, 0x80, serial, new, None), StapleError::NotYetValid),
            (b"nonsense".to_vec(), StapleError::Malformed),
        ];
        for (bytes, expected) in table {
            assert_eq!(check(&bytes), Err(expected));
        }
        for end in 0..good.len() {
            assert!(check(&good[..end]).is_err(), "the first {end} bytes");
        }
    }
}
