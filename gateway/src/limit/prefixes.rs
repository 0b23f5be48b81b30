//! Files of IP addresses and prefixes.
//!
//! Owns the format: one address or prefix a line, `#` begins a comment. Reads line by line, so that a large file costs what
//! its prefixes need.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use portcullis_config::units::canonical;

/// Most prefixes of one file.
const PREFIXES_MAX: usize = 8_000_000;
/// Longest line, in bytes.
const LINE_MAX: usize = 4096;

/// The prefixes of a file.
///
/// # Errors
/// Says what is wrong: the file cannot be read, is too long, or has a line that is no prefix; the first one is named.
pub fn read_prefixes(file: &Path) -> Result<Vec<IpNet>, String> {
    let name = file.display();
    let mut reader = BufReader::new(File::open(file).map_err(|error| format!("{name}: {error}"))?);
    let (mut prefixes, mut line, mut number) = (Vec::new(), Vec::new(), 0u64);
    loop {
        line.clear();
        number += 1;
        if reader.read_until(b'\n', &mut line).map_err(|error| format!("{name}: {error}"))? == 0 {
            return Ok(prefixes);
        }
        if line.len() > LINE_MAX {
            return Err(format!("{name}:{number}: the line is longer than {LINE_MAX} bytes"));
        }
        let text = line.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
        if text.is_empty() {
            continue;
        }
        let word = String::from_utf8_lossy(text);
        let prefix =
            prefix(&word).ok_or_else(|| format!("{name}:{number}: \"{word}\" is no address or prefix"))?;
        if prefixes.len() == PREFIXES_MAX {
            return Err(format!("{name}: more than {PREFIXES_MAX} prefixes"));
        }
        prefixes.push(prefix);
    }
}

fn prefix(word: &str) -> Option<IpNet> {
    let net = match word.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => word.parse::<IpNet>().ok()?,
    };
    Some(canonical(net.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::CidrSet;

    #[test]
    fn files_of_prefixes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("list");
        let check = |text: &str| {
            std::fs::write(&file, text).expect("a file");
            read_prefixes(&file)
        };
        let nets = |texts: &[&str]| Ok(texts.iter().map(|text| text.parse().expect("a prefix")).collect());
        assert_eq!(
            check(
                "# ours\n192.0.2.1\n\n 10.1.2.3/8 # wide\r\n2001:db8::/32\n::ffff:192.0.2.9\n::ffff:198.18.0.9/111"
            ),
            nets(&["192.0.2.1/32", "10.0.0.0/8", "2001:db8::/32", "192.0.2.9/32", "198.18.0.0/15"])
        );
        let fault = check("192.0.2.1\n192.0.2.300\n").expect_err("no address");
        assert!(fault.ends_with(":2: \"192.0.2.300\" is no address or prefix"), "{fault}");
        assert!(check(&"x".repeat(5000)).expect_err("too long").contains("longer than"));
        assert!(read_prefixes(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_million_prefixes_are_a_set_of_bounded_size() {
        use std::fmt::Write;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("list");
        let mut text = String::new();
        // Every other /32 of 10.0.0.0/11 and a bit: nothing of it merges.
        for number in 0..1_000_000u32 {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * number);
            writeln!(text, "{address}").expect("memory");
        }
        std::fs::write(&file, text).expect("a file");
        let set = CidrSet::new(read_prefixes(&file).expect("prefixes"));
        assert_eq!(set.bytes(), 8_000_000);
        assert!(set.contains("10.0.0.2".parse().expect("an address")));
        assert!(!set.contains("10.0.0.3".parse().expect("an address")));
        assert!(set.contains(IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * 999_999))));
    }
}
