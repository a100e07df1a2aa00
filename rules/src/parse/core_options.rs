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
    let mut places = OF_LENGTH.get(name.len()).copied().unwrap_or(0);
    while places != 0 {
        let (long, letter) = LONG[places.trailing_zeros() as usize];
        if long == name {
            return Some(letter);
        }
        places &= places - 1;
    }
    None
}

/// The places in [`LONG`] of names of each length, a bit each: most names that rules hold are of
/// extensions, and few lengths have more than three here.
const OF_LENGTH: [u64; 16] = {
    assert!(LONG.len() <= 64);
    let mut places = [0; 16];
    let mut at = 0;
    while at < LONG.len() {
        places[LONG[at].0.len()] |= 1 << at;
        at += 1;
    }
    places
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_long_name_has_its_letter() {
        for (long, letter) in LONG {
            assert_eq!(letter_of(long), Some(*letter), "{long}");
        }
        assert_eq!([letter_of(""), letter_of("dport"), letter_of(&"s".repeat(99))], [None; 3]);
    }
}
