//! A line as words, by the rules of `iptables-restore`.
//!
//! Blanks part words. A double quote begins a quoted piece, in which a backslash takes the next
//! character as it is; the closing quote ends the word. Outside of double quotes nothing is
//! special: neither a backslash nor a single quote.

use std::borrow::Cow;
use std::ops::Range;

/// A word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    /// What it says, without quotes.
    pub(crate) text: Cow<'a, str>,
    /// Its bytes, quotes included, from the beginning of the whole text.
    pub(crate) span: Range<usize>,
    /// Part of it stood in quotes.
    pub(crate) quoted: bool,
}

/// Splits `line`, which begins at byte `offset` of the text, into `words`. Gives the place of a
/// quote that nothing closes. Costs one pass.
pub(crate) fn split<'a>(line: &'a str, offset: usize, words: &mut Vec<Word<'a>>) -> Option<usize> {
    words.clear();
    let bytes = line.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if is_blank(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && !is_blank(bytes[at]) && bytes[at] != b'"' {
            at += 1;
        }
        if at == bytes.len() || bytes[at] != b'"' {
            let text = Cow::Borrowed(&line[start..at]);
            words.push(Word { text, span: offset + start..offset + at, quoted: false });
            continue;
        }
        let quote = at;
        let (text, end, closed) = quoted(line, start, quote);
        words.push(Word { text, span: offset + start..offset + end, quoted: true });
        if !closed {
            return Some(offset + quote);
        }
        at = end;
    }
    None
}

/// Splits a line as a shell does, as far as it says words: single quotes take everything, double
/// quotes all but what a backslash protects, and a backslash outside the next character. `Err`:
/// the place of something else that a shell would do, and what it is.
pub(crate) fn split_shell<'a>(
    line: &'a str,
    offset: usize,
    words: &mut Vec<Word<'a>>,
) -> Result<(), (Range<usize>, String)> {
    words.clear();
    let mut word: Option<(usize, String, bool)> = None;
    let mut quote: Option<(usize, char)> = None;
    let mut chars = line.char_indices().peekable();
    let place = |at: usize, c: char| offset + at..offset + at + c.len_utf8();
    while let Some((at, c)) = chars.next() {
        let open = quote.map(|(_, quote)| quote);
        if open.is_none() && matches!(c, ' ' | '\t') {
            if let Some((start, text, quoted)) = word.take() {
                words.push(Word { text: text.into(), span: offset + start..offset + at, quoted });
            }
            continue;
        }
        if open.is_none() && c == '#' && word.is_none() {
            break;
        }
        let (_, text, quoted) = word.get_or_insert((at, String::new(), false));
        match (open, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => {
                quote = Some((at, c));
                *quoted = true;
            }
            (Some('"'), '\\') => match chars.next_if(|(_, next)| matches!(next, '"' | '\\' | '$' | '`')) {
                Some((_, next)) => text.push(next),
                None => text.push('\\'),
            },
            (None, '\\') => match chars.next() {
                Some((_, next)) => text.push(next),
                None => return Err((place(at, c), "the line goes on in the next one".to_owned())),
            },
            (None | Some('"'), '$' | '`') => {
                return Err((place(at, c), format!("`{c}` stands for what only a shell knows")));
            }
            (None, '|' | '&' | ';' | '<' | '>' | '(' | ')' | '*' | '?' | '~') => {
                return Err((place(at, c), format!("`{c}` is for a shell: put the word into quotes")));
            }
            _ => text.push(c),
        }
    }
    if let Some((at, c)) = quote {
        return Err((place(at, c), "a quote that nothing closes".to_owned()));
    }
    if let Some((start, text, quoted)) = word {
        words.push(Word { text: text.into(), span: offset + start..offset + line.len(), quoted });
    }
    Ok(())
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The word that begins at `start` and has its opening quote at `quote`: its text, its end, and
/// whether the quote is closed.
fn quoted(line: &str, start: usize, quote: usize) -> (Cow<'_, str>, usize, bool) {
    let body = &line[quote + 1..];
    let plain = body.find(['"', '\\']);
    if let Some(end) = plain
        && body.as_bytes()[end] == b'"'
        && start == quote
    {
        return (Cow::Borrowed(&body[..end]), quote + 1 + end + 1, true);
    }
    let mut text = line[start..quote].to_owned();
    let mut escaped = false;
    for (i, c) in body.char_indices() {
        match c {
            _ if escaped => {
                text.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (Cow::Owned(text), quote + 1 + i + 1, true),
            c => text.push(c),
        }
    }
    (Cow::Owned(text), line.len(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[&str]) {
        let mut words = Vec::new();
        split(line, 0, &mut words);
        let texts: Vec<&str> = words.iter().map(|w| &*w.text).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn words_end_at_blanks_and_closing_quotes() {
        check("-A INPUT\t -j  ACCEPT ", &["-A", "INPUT", "-j", "ACCEPT"]);
        check(r#"--comment "a b""#, &["--comment", "a b"]);
        check(r#"ab"c d"ef"#, &["abc d", "ef"]);
        check(r#""""#, &[""]);
        check(r#""a\"b\\c\'d""#, &[r#"a"b\c'd"#]);
        check(r"a\ b", &[r"a\", "b"]);
        check("'a b'", &["'a", "b'"]);
        check("", &[]);
    }

    #[test]
    fn a_quote_that_nothing_closes_is_placed() {
        let mut words = Vec::new();
        assert_eq!(split("x \"abc", 100, &mut words), Some(102));
        assert_eq!(words[1].text, "abc");
    }

    #[test]
    fn spans_cover_the_words_with_their_quotes() {
        let mut words = Vec::new();
        split("a \"b c\" d", 10, &mut words);
        let spans: Vec<_> = words.iter().map(|w| w.span.clone()).collect();
        assert_eq!(spans, [10..11, 12..17, 18..19]);
    }
}
