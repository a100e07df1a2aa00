//! Words of a packet's text: split at blanks, but for what stands between `"`.

use std::borrow::Cow;

/// The words of a text; `None` when a quote is not closed.
///
/// Within quotes, `\` makes the next character stand for itself.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = text.chars();
    // The word being read. An empty one exists when it was quoted.
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if is_quoted => word.get_or_insert_default().push(chars.next()?),
            c if c.is_whitespace() && !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (!is_quoted).then_some(words)
}

/// The word, quoted when [`split`] would not give it back otherwise.
pub(super) fn quote(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !c.is_whitespace() && c != '"';
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quoted_words_split_into_themselves(words in prop::collection::vec("[ab \t\"\\\\-]{0,6}", 0..6)) {
            let line: Vec<_> = words.iter().map(|w| quote(w)).collect();
            prop_assert_eq!(split(&line.join(" ")), Some(words));
        }
    }

    #[test]
    fn an_open_quote_is_refused() {
        for text in ["\"", "-i \"eth0", "\"a\\\"", "\"\\"] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
