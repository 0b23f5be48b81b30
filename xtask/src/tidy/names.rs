//! Words that name no concept. A type or file called by one of them is where unclaimed code collects.

use super::rust;
use super::{Finding, Source};

const BANNED: [&str; 6] = ["handler", "manager", "util", "helper", "misc", "common"];

pub fn banned(source: &Source, found: &mut Vec<Finding>) {
    for part in source.path.split('/') {
        let stem = part.strip_suffix(".rs").unwrap_or(part).to_ascii_lowercase();
        if let Some(word) = stem.split(['_', '-']).find(|w| is_banned(w)) {
            found.push(source.finding(0, "name", format!("file or folder named `{word}`: name its concept")));
        }
    }
    for keyword in ["struct", "enum", "trait", "mod", "type"] {
        for at in rust::words(&source.code, keyword) {
            let rest = source.code[at + keyword.len()..].trim_start();
            let len = rest.bytes().take_while(|b| rust::is_word_byte(*b)).count();
            let name = &rest[..len];
            if words_of(name).iter().any(|w| is_banned(w)) {
                found.push(source.finding(at, "name", format!("{keyword} `{name}`: name its concept")));
            }
        }
    }
}

fn is_banned(word: &str) -> bool {
    BANNED.iter().any(|b| word == *b || word.strip_suffix('s') == Some(b))
}

/// `UploadHandler` and `upload_handler` both give `upload`, `handler`.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().expect("starts with one").extend(c.to_lowercase());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;

    #[test]
    fn files_and_types_name_concepts() {
        assert_eq!(findings(banned, "gateway/src/http/utils.rs", "").len(), 1);
        assert_eq!(findings(banned, "gateway/src/common/mod.rs", "").len(), 1);
        let text = "struct PoolManager;\nenum Utility {}\ntrait RequestHandler {}\n";
        assert_eq!(
            findings(banned, "gateway/src/pool.rs", text),
            ["1: struct `PoolManager`: name its concept", "3: trait `RequestHandler`: name its concept"]
        );
    }
}
