//! The options that every rule may have, and how a name finds its option.

/// An option of the tool itself, under its letter.
pub(crate) type Letter = char;

/// Long names and their letters; what has no letter in the tool has one here.
pub(crate) const LONG: &[(&str, Letter)] = &[
    ("append", 'A'),
    ("delete", 'D'),
    ("check", 'C'),
    ("insert", 'I'),
    ("replace", 'R'),
    ("list", 'L'),
    ("list-rules", 'S'),
    ("flush", 'F'),
    ("zero", 'Z'),
    ("new-chain", 'N'),
    ("delete-chain", 'X'),
    ("rename-chain", 'E'),
    ("policy", 'P'),
    ("source", 's'),
    ("destination", 'd'),
    ("src", 's'),
    ("dst", 'd'),
    ("protocol", 'p'),
    ("in-interface", 'i'),
    ("jump", 'j'),
    ("table", 't'),
    ("match", 'm'),
    ("numeric", 'n'),
    ("out-interface", 'o'),
    ("verbose", 'v'),
    ("wait", 'w'),
    ("wait-interval", 'W'),
    ("exact", 'x'),
    ("fragments", 'f'),
    ("version", 'V'),
    ("help", 'h'),
    ("line-numbers", '0'),
    ("modprobe", 'M'),
    ("set-counters", 'c'),
    ("goto", 'g'),
    ("ipv4", '4'),
    ("ipv6", '6'),
];

/// What a letter wants after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Nothing.
    Nothing,
    /// A word.
    Word,
    /// A word, unless an option follows.
    MaybeWord,
}

/// What the letter wants; `None`: there is no such letter.
pub(crate) fn wants(letter: Letter) -> Option<Wants> {
    match letter {
        'A' | 'D' | 'C' | 'I' | 'R' | 'N' | 'E' | 'P' | 's' | 'd' | 'p' | 'i' | 'o' | 'j' | 'g' | 't'
        | 'm' | 'M' | 'c' | 'W' => Some(Wants::Word),
        'L' | 'S' | 'F' | 'Z' | 'X' | 'w' => Some(Wants::MaybeWord),
        'n' | 'v' | 'x' | 'f' | '4' | '6' | 'h' | 'V' | '0' => Some(Wants::Nothing),
        _ => None,
    }
}

/// Whether a letter says something about a rule, not about the command.
pub(crate) fn is_of_rule(letter: Letter) -> bool {
    matches!(letter, 's' | 'd' | 'p' | 'i' | 'o' | 'j' | 'g' | 'm' | 'f' | 'c')
}

/// The letter of a long name written out.
pub(crate) fn letter_of(name: &str) -> Option<Letter> {
    LONG.iter().find(|(long, _)| *long == name).map(|(_, letter)| *letter)
}
