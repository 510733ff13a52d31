//! "did you mean": the nearest known word to a misspelt one.

/// The candidate that `word` most likely was meant to be, if any is near enough.
pub(crate) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(WORD_CHARS_MAX).collect();
    // A third of the letters may be wrong: "strnig" is "string", but "url" is not "sql".
    let limit = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean "X"?`, or the words there are.
pub(crate) fn remedy(word: &str, candidates: &[&str]) -> String {
    match closest(word, candidates.iter().copied()) {
        Some(candidate) => format!("did you mean \"{candidate}\"?"),
        None => format!("known here: {}", candidates.join(", ")),
    }
}

/// The distance is quadratic; no name here is longer.
const WORD_CHARS_MAX: usize = 64;

/// Edits between two words; two neighbours swapped are one edit (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j + 1] + 1).min(row[j] + 1).min(last[j] + usize::from(x != y));
            if i > 0 && j > 0 && a[i - 1] == *y && *x == b[j - 1] {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["string", "stream", "sql", "zset", "set"];
        assert_eq!(closest("strnig", words), Some("string"));
        assert_eq!(closest("Stream", words), Some("stream"));
        assert_eq!(closest("zsets", words), Some("zset"));
        assert_eq!(closest("colour", words), None);
        assert_eq!(closest("", words), None);
    }
}
