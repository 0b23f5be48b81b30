//! "Did you mean": the known word nearest to an unknown one.
//!
//! Invariant: a suggestion differs from what was written by at most a third of its length, so an unrelated
//! word is never offered.

/// The word of `known` nearest to `word`, when one is near enough.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let normal = |text: &str| text.to_lowercase().replace('-', "_");
    let word = normal(word);
    let scored = known.into_iter().filter(|known| known.len() <= LONGEST).filter_map(|known| {
        let candidate = normal(known);
        let allowed = (candidate.chars().count().max(word.chars().count()) / 3).max(1);
        let distance = distance(&word, &candidate);
        (distance <= allowed).then_some((distance, known))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// A hint built on [`nearest`].
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|known| format!("did you mean `{known}`?"))
}

/// No key or name worth suggesting is longer, and the distance takes time proportional to the square.
const LONGEST: usize = 64;

/// Edits between two words, a swap of neighbours counting as one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (previous[j] + usize::from(x != y)).min(previous[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_offered_and_far_ones_are_not() {
        let known = ["strip_path", "preserve_host", "paths", "hosts", "name"];
        let cases = [
            ("strip_pth", Some("strip_path")),
            ("stripPath", Some("strip_path")),
            ("strip-path", Some("strip_path")),
            ("path", Some("paths")),
            ("hsots", Some("hosts")),
            ("naem", Some("name")),
            ("upstream", None),
            ("", None),
            ("x", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "abc", 3), ("abc", "abc", 0), ("ab", "ba", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
