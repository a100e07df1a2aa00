//! A command line while its words are read: what it has said so far, and whose option a name is.

use std::ops::Range;

use smallvec::SmallVec;

use crate::registry::OptionSpec;

use super::core_options::{self, LONG, Letter};
use super::draft::{Active, Draft, DraftTarget};
use super::reader::Chains;
use super::words::Word;

/// What a line asks for.
#[derive(Debug, Clone)]
pub(crate) struct Command<'l> {
    pub(crate) letter: Letter,
    pub(crate) chain: Option<&'l str>,
    /// Place of the chain's name, or of the command.
    pub(crate) span: Range<usize>,
    /// The second word: a rule's number, a policy, a new name.
    pub(crate) argument: Option<(&'l str, Range<usize>)>,
}

/// Whose option it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Match(usize),
    Target,
}

/// What a long name is.
pub(crate) enum Found {
    Core(Letter),
    Option(Owner, &'static OptionSpec),
    Ambiguous(String),
    Nothing,
}

/// A line while its words are read.
pub(crate) struct Line<'l, 'c> {
    pub(crate) words: &'l [Word<'l>],
    /// Where a target that the registry does not have may lead.
    pub(crate) chains: Chains<'c>,
    pub(crate) next: usize,
    pub(crate) draft: Draft,
    pub(crate) command: Option<Command<'l>>,
    /// Owners of options, the newest last.
    pub(crate) owners: SmallVec<[Owner; 4]>,
    /// The unknown extension that takes words which are nobody else's.
    pub(crate) open: Option<Owner>,
    /// An unfinished `!`.
    pub(crate) bang: Option<Range<usize>>,
    /// The other family's `-4` or `-6` stood in it.
    pub(crate) skipped: bool,
    pub(crate) protocol_match_added: bool,
    /// The place of `-t`, and what follows it; `None`: it cannot stand here, in a file.
    pub(crate) table: Option<TableOption<'l>>,
}

/// What `-t` said, if it stood in the line.
pub(crate) type TableOption<'l> = Option<(&'l str, Range<usize>)>;

impl<'l, 'c> Line<'l, 'c> {
    pub(crate) fn new(words: &'l [Word<'l>], chains: Chains<'c>) -> Line<'l, 'c> {
        Line {
            words,
            chains,
            next: 0,
            draft: Draft::default(),
            command: None,
            owners: SmallVec::new(),
            open: None,
            bang: None,
            skipped: false,
            protocol_match_added: false,
            table: None,
        }
    }

    /// A line of a shell, which names its table itself.
    pub(crate) fn of_shell(words: &'l [Word<'l>], chains: Chains<'c>) -> Line<'l, 'c> {
        Line { table: Some(None), ..Line::new(words, chains) }
    }

    pub(crate) fn push_match(&mut self, active: Active) {
        self.owners.push(Owner::Match(self.draft.matches.len()));
        self.draft.matches.push(active);
    }

    pub(crate) fn active(&self, owner: Owner) -> Option<&Active> {
        match (owner, &self.draft.target) {
            (Owner::Match(i), _) => self.draft.matches.get(i),
            (Owner::Target, Some(DraftTarget::Extension(active) | DraftTarget::Unknown { active, .. })) => {
                Some(active)
            }
            (Owner::Target, _) => None,
        }
    }

    pub(crate) fn active_mut(&mut self, owner: Owner) -> Option<&mut Active> {
        match (owner, &mut self.draft.target) {
            (Owner::Match(i), _) => self.draft.matches.get_mut(i),
            (Owner::Target, Some(DraftTarget::Extension(active) | DraftTarget::Unknown { active, .. })) => {
                Some(active)
            }
            (Owner::Target, _) => None,
        }
    }

    pub(crate) fn push_opaque(&mut self, owner: Owner, text: &str) {
        if let Some(active) = self.active_mut(owner) {
            active.words.push(text.into());
        }
    }

    /// The option of that name: written out by anybody, else the one that begins with it.
    pub(crate) fn find(&self, name: &str) -> Found {
        if let Some(letter) = core_options::letter_of(name) {
            return Found::Core(letter);
        }
        let options = || {
            self.owners
                .iter()
                .rev()
                .filter_map(|o| Some((*o, self.active(*o)?.known_spec()?)))
                .flat_map(|(owner, spec)| spec.options.iter().map(move |option| (owner, option)))
        };
        if let Some((owner, option)) = options().find(|(_, option)| option.is_named(name)) {
            return Found::Option(owner, option);
        }
        if name.is_empty() {
            return Found::Nothing;
        }
        let mut found: Vec<(&'static str, Found)> = Vec::new();
        for (long, letter) in LONG.iter().filter(|(long, _)| long.starts_with(name)) {
            let known = found.iter().any(|(_, f)| matches!(f, Found::Core(other) if other == letter));
            if !known {
                found.push((long, Found::Core(*letter)));
            }
        }
        for (owner, option) in options() {
            let names = std::iter::once(option.name).chain(option.aliases.iter().copied());
            if let Some(long) = names.into_iter().find(|n| n.starts_with(name)) {
                found.push((long, Found::Option(owner, option)));
            }
        }
        if found.len() > 1 {
            let names: Vec<String> = found.iter().map(|(long, _)| format!("--{long}")).collect();
            return Found::Ambiguous(names.join(" or "));
        }
        found.pop().map_or(Found::Nothing, |(_, found)| found)
    }

    /// A word after an option that may have one.
    pub(crate) fn maybe_value(&mut self, attached: Option<&'l str>) -> Option<(&'l str, Range<usize>)> {
        let words = self.words;
        if let Some(text) = attached {
            return Some((text, words[self.next - 1].span.clone()));
        }
        let word = words.get(self.next).filter(|w| !w.text.starts_with('-') && w.text != "!")?;
        self.next += 1;
        Some((&word.text, word.span.clone()))
    }

    /// Passes over words that belong to an option which nobody has.
    pub(crate) fn skip_values(&mut self) {
        while self.words.get(self.next).is_some_and(|w| !w.text.starts_with('-') && w.text != "!") {
            self.next += 1;
        }
    }
}

/// Whether a word (or the one after a `!`) begins an option of the tool, so that it ends the
/// words of an unknown extension.
pub(crate) fn begins_core(line: &Line<'_, '_>, word: &Word<'_>) -> bool {
    let text = if word.text == "!" {
        match line.words.get(line.next) {
            Some(next) => &*next.text,
            // A last `!` is nobody's.
            None => return true,
        }
    } else {
        &*word.text
    };
    if let Some(long) = text.strip_prefix("--") {
        return core_options::letter_of(long).is_some_and(core_options::is_of_rule);
    }
    let mut letters = text.strip_prefix('-').unwrap_or("").chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) => core_options::is_of_rule(letter),
        _ => false,
    }
}

pub(crate) fn whole(words: &[Word<'_>]) -> Range<usize> {
    match (words.first(), words.last()) {
        (Some(first), Some(last)) => first.span.start..last.span.end,
        _ => 0..0,
    }
}
