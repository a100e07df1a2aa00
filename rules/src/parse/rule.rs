//! One command line: options as `getopt_long` finds them, and their values.
//!
//! An option belongs, in this order, to the tool itself, to the extension named last, to those
//! before it, and, when a protocol was named, to that protocol's match, which is then added.
//! A beginning of a name will do when only one option begins with it.

use std::ops::Range;

use smallvec::SmallVec;

use crate::model::Family;
use crate::registry::{self, Kind, OptionSpec};
use crate::value::Value;

use super::core_options::{self, LONG, Letter, Wants};
use super::draft::{Active, DraftTarget};
use super::line::{Command, Found, Line, Owner, begins_core, whole};
use super::reader::Reader;
use super::words::Word;

impl Reader<'_> {
    /// Reads a line that is a rule or another command. `None`: it asks for nothing, or for the
    /// other family.
    pub(crate) fn command_line<'l>(&mut self, line: &mut Line<'l, '_>) -> Option<Command<'l>> {
        self.counters_prefix(line);
        while let Some(word) = line.words.get(line.next)
            && !line.skipped
        {
            line.next += 1;
            self.word(line, word);
        }
        if line.skipped {
            return None;
        }
        if let Some(bang) = line.bang.take() {
            self.error(bang, "a `!` that negates nothing", None);
        }
        if line.command.is_none() {
            let span = whole(line.words);
            self.error(span, "the line has no command", Some("begin a rule with -A CHAIN".into()));
        }
        line.command.take()
    }

    /// `[packets:bytes]` before a rule.
    fn counters_prefix(&mut self, line: &mut Line<'_, '_>) {
        let Some(word) = line.words.first().filter(|w| w.text.starts_with('[')) else { return };
        line.next = 1;
        match super::parse_counters(&word.text) {
            Some(counters) => line.draft.counters = Some(counters),
            None => {
                let message = format!("`{}` are no counters", word.text);
                self.error(word.span.clone(), message, Some("write [packets:bytes]".into()));
            }
        }
    }

    fn word<'l>(&mut self, line: &mut Line<'l, '_>, word: &'l Word<'l>) {
        let text = &*word.text;
        if let Some(owner) = line.open
            && !begins_core(line, word)
        {
            line.push_opaque(owner, text);
            return;
        }
        if text == "!" {
            if line.bang.replace(word.span.clone()).is_some() {
                self.error(word.span.clone(), "two `!` one after the other", None);
            }
        } else if let Some(long) = text.strip_prefix("--").filter(|l| !l.is_empty()) {
            let (name, value) = registry::split_at(long, b'=').map_or((long, None), |(n, v)| (n, Some(v)));
            self.long_option(line, word, name, value);
        } else if text == "--" {
            // The end of options, after which nothing may stand anyway.
        } else if text.len() > 1 && text.starts_with('-') {
            self.short_options(line, word);
        } else {
            line.bang = None;
            let help = "an option begins with -; text with blanks needs double quotes";
            self.error(word.span.clone(), format!("`{text}` belongs to no option"), Some(help.into()));
        }
    }

    /// `-s1.2.3.4`, `-nv`, `-f`: letters up to the first that takes a word.
    fn short_options<'l>(&mut self, line: &mut Line<'l, '_>, word: &'l Word<'l>) {
        let text = word.text.get(1..).unwrap_or("");
        for (i, letter) in text.char_indices() {
            let Some(wants) = core_options::wants(letter).filter(|_| letter != '0') else {
                self.error(word.span.clone(), format!("there is no option -{letter}"), None);
                return;
            };
            let rest = &text[i + letter.len_utf8()..];
            if wants == Wants::Nothing {
                self.core(line, letter, word, None);
            } else {
                let attached = Some(rest).filter(|r| !r.is_empty());
                self.core(line, letter, word, attached);
                return;
            }
        }
    }

    fn long_option<'l>(
        &mut self,
        line: &mut Line<'l, '_>,
        word: &'l Word<'l>,
        name: &'l str,
        value: Option<&'l str>,
    ) {
        let mut found = line.find(name);
        if matches!(found, Found::Nothing) && self.add_protocol_match(line, name) {
            found = line.find(name);
        }
        match found {
            Found::Core(letter) => self.core(line, letter, word, value),
            Found::Option(owner, option) => self.extension_option(line, owner, option, word, value),
            Found::Ambiguous(names) => {
                line.bang = None;
                self.error(
                    word.span.clone(),
                    format!("`--{name}` may mean {names}"),
                    Some("write it out".into()),
                );
                line.skip_values();
            }
            Found::Nothing => self.unknown_option(line, word, name),
        }
    }

    /// An option that nobody has: taken by an unknown extension of the rule, or a fault.
    fn unknown_option(&mut self, line: &mut Line<'_, '_>, word: &Word<'_>, name: &str) {
        let opaque = line
            .owners
            .iter()
            .rev()
            .copied()
            .find(|o| line.active(*o).is_some_and(|a| a.known_spec().is_none()));
        if let Some(owner) = opaque {
            if line.bang.take().is_some() {
                line.push_opaque(owner, "!");
            }
            line.push_opaque(owner, &word.text);
            line.open = Some(owner);
            return;
        }
        line.bang = None;
        let help = self.nearest_option(line, name);
        self.error(word.span.clone(), format!("there is no option --{name} here"), help);
        line.skip_values();
    }

    /// A remedy for an option that nobody in the rule has.
    fn nearest_option(&self, line: &Line<'_, '_>, name: &str) -> Option<String> {
        let here = line.owners.iter().filter_map(|o| line.active(*o)?.known_spec());
        let near = here.clone().flat_map(|s| s.options).map(|o| o.name);
        let near = near.chain(LONG.iter().map(|(n, _)| *n));
        let best = near.map(|n| (registry::edit_distance(name, n), n)).min_by_key(|(distance, _)| *distance);
        if let Some((distance, near)) = best
            && distance <= 2
        {
            return Some(format!("--{near} is of a similar name"));
        }
        let family = self.family;
        let owner =
            registry::all().find(|s| s.families.has(family) && s.options.iter().any(|o| o.is_named(name)))?;
        Some(match (owner.kind, owner.protocols.first().and_then(|p| crate::names::protocol_name(*p))) {
            (Kind::Match, Some(protocol)) => {
                format!("it is an option of {}: put `-p {protocol} -m {}` before it", owner.name, owner.name)
            }
            (Kind::Match, None) => format!("put `-m {}` before it", owner.name),
            (Kind::Target, _) => format!("it is an option of the target {}", owner.name),
        })
    }

    /// Adds the match of the rule's protocol, when the option is one of its.
    fn add_protocol_match(&mut self, line: &mut Line<'_, '_>, name: &str) -> bool {
        let protocol = line.draft.ip.protocol.number;
        if line.protocol_match_added || protocol == 0 {
            return false;
        }
        let Some(spec) = registry::match_of_protocol(protocol, self.family) else { return false };
        if !spec
            .options
            .iter()
            .any(|o| o.name.starts_with(name) || o.aliases.iter().any(|a| a.starts_with(name)))
        {
            return false;
        }
        line.protocol_match_added = true;
        let span = line.words[line.next - 1].span.clone();
        line.push_match(Active::known(spec, span));
        true
    }

    fn extension_option<'l>(
        &mut self,
        line: &mut Line<'l, '_>,
        owner: Owner,
        option: &'static OptionSpec,
        word: &'l Word<'l>,
        attached: Option<&'l str>,
    ) {
        let mut negated = self.take_bang(line, option.negatable, word);
        if option.value.word_count() == 0 && attached.is_some() {
            self.error(word.span.clone(), format!("--{} takes no value", option.name), None);
        }
        let Some((texts, span)) = self.value_words(line, option, word, attached, &mut negated) else {
            return;
        };
        let left_out = texts.len() < option.value.word_count();
        let parsed = if left_out { Ok(Value::Flag) } else { option.value.parse(&texts, self.family) };
        let Some(active) = line.active_mut(owner) else { return };
        match parsed {
            Ok(value) => {
                if active.add(option, negated, value, self.family).is_err() {
                    self.error(word.span.clone(), format!("--{} is given twice", option.name), None);
                }
            }
            Err(fault) => {
                match fault.meant {
                    Some(value) => _ = active.add(option, negated, value, self.family),
                    // The option counts as given: its absence is not a second fault.
                    None => _ = active.note_given(option),
                }
                self.error(span, fault.message, fault.help);
            }
        }
    }

    /// The words of an option's value and their place; none when an optional value is left out.
    /// `None`: words are missing, which is noted.
    fn value_words<'l>(
        &mut self,
        line: &mut Line<'l, '_>,
        option: &'static OptionSpec,
        word: &'l Word<'l>,
        attached: Option<&'l str>,
        negated: &mut bool,
    ) -> Option<(Texts<'l>, Range<usize>)> {
        let count = option.value.word_count();
        let words = line.words;
        let mut texts: Texts<'l> = attached.into_iter().filter(|_| count > 0).collect();
        let mut span = word.span.clone();
        if texts.is_empty()
            && count > 0
            && let Some(bang) = old_bang(words, line.next)
        {
            line.next += 1;
            self.old_negation(word, bang, option.negatable);
            *negated = !*negated;
        }
        while texts.len() < count {
            let next = words.get(line.next);
            let next =
                next.filter(|n| !(option.value_optional && (n.text.starts_with('-') || n.text == "!")));
            let Some(next) = next else { break };
            span = if texts.is_empty() { next.span.clone() } else { span.start..next.span.end };
            texts.push(&next.text);
            line.next += 1;
        }
        if texts.len() < count && !(option.value_optional && texts.is_empty()) {
            let help = format!("write --{} {}", option.name, option.value.hint());
            self.error(word.span.clone(), format!("--{} needs a value", option.name), Some(help));
            return None;
        }
        Some((texts, span))
    }

    /// Whether a `!` stands before the option.
    fn take_bang(&mut self, line: &mut Line<'_, '_>, negatable: bool, word: &Word<'_>) -> bool {
        let Some(bang) = line.bang.take() else { return false };
        if !negatable {
            let name = &word.text;
            self.error(bang.start..word.span.end, format!("`!` cannot stand before {name}"), None);
            return false;
        }
        true
    }

    fn old_negation(&mut self, option: &Word<'_>, bang: &Word<'_>, negatable: bool) {
        if !negatable {
            self.error(bang.span.clone(), format!("`!` cannot stand with {}", option.text), None);
            return;
        }
        let help = format!("put it before the option: `! {} …`", option.text);
        self.error(
            bang.span.clone(),
            "`!` after its option, a form that the kernel's tools no longer take",
            Some(help),
        );
    }

    /// The word that belongs to an option of the tool.
    fn core_value<'l>(
        &mut self,
        line: &mut Line<'l, '_>,
        letter: Letter,
        word: &Word<'l>,
        attached: Option<&'l str>,
        negated: &mut bool,
    ) -> Option<(&'l str, Range<usize>)> {
        if let Some(text) = attached {
            let start = word.span.end.saturating_sub(text.len()).max(word.span.start);
            return Some((text, start..word.span.end));
        }
        let words = line.words;
        let negatable = matches!(letter, 's' | 'd' | 'i' | 'o' | 'p');
        if negatable && let Some(bang) = old_bang(words, line.next) {
            line.next += 1;
            self.old_negation(word, bang, true);
            *negated = !*negated;
        }
        let Some(value) = words.get(line.next) else {
            self.error(word.span.clone(), format!("{} needs a value", word.text), None);
            return None;
        };
        line.next += 1;
        Some((&value.text, value.span.clone()))
    }

    /// An option of the tool.
    fn core<'l>(
        &mut self,
        line: &mut Line<'l, '_>,
        letter: Letter,
        word: &'l Word<'l>,
        attached: Option<&'l str>,
    ) {
        line.open = None;
        let negatable = matches!(letter, 's' | 'd' | 'i' | 'o' | 'p' | 'f');
        let mut negated = self.take_bang(line, negatable, word);
        let value = match core_options::wants(letter) {
            Some(Wants::Word) => match self.core_value(line, letter, word, attached, &mut negated) {
                Some(value) => Some(value),
                None => return,
            },
            Some(Wants::MaybeWord) => line.maybe_value(attached),
            _ => None,
        };
        if core_options::is_of_rule(letter) && letter != 'm' {
            self.once(line, letter, word);
        }
        match (letter, value) {
            ('A' | 'D' | 'C' | 'I' | 'R' | 'N' | 'E' | 'P' | 'L' | 'S' | 'F' | 'Z' | 'X', value) => {
                self.command(line, letter, word, value);
            }
            ('s', Some(value)) => self.addresses(&value, negated, &mut line.draft.sources),
            ('d', Some(value)) => self.addresses(&value, negated, &mut line.draft.destinations),
            ('i', Some(value)) => line.draft.ip.in_interface = self.interface(&value, negated),
            ('o', Some(value)) => line.draft.ip.out_interface = self.interface(&value, negated),
            ('p', Some(value)) => line.draft.ip.protocol = self.protocol(&value, negated),
            ('m', Some((name, span))) => self.add_match(line, name, span),
            ('j', Some((name, span))) => self.set_target(line, name, span, false),
            ('g', Some((name, span))) => self.set_target(line, name, span, true),
            ('c', Some((packets, span))) => self.set_counters(line, packets, span),
            ('f', _) => self.fragment(line, word, negated),
            ('t', value) if line.table.is_some() => line.table = Some(value),
            ('t', _) => {
                let help = "the line *TABLE above says it";
                self.error(word.span.clone(), "-t cannot stand in a file", Some(help.into()));
            }
            ('4' | '6', _) => line.skipped |= (letter == '6') == (self.family == Family::V4),
            ('h' | 'V', _) => {
                self.error(word.span.clone(), format!("{} means nothing in a file", word.text), None)
            }
            _ => {}
        }
    }

    /// Notes that an option which may stand once stands here.
    fn once(&mut self, line: &mut Line<'_, '_>, letter: Letter, word: &Word<'_>) {
        let kind = if letter == 'g' { 'j' } else { letter };
        if !line.draft.note(kind, word.span.clone()) {
            self.error(word.span.clone(), format!("{} is given twice", word.text), None);
        }
    }

    fn command<'l>(
        &mut self,
        line: &mut Line<'l, '_>,
        letter: Letter,
        word: &Word<'l>,
        value: Option<(&'l str, Range<usize>)>,
    ) {
        if line.command.is_some() {
            self.error(word.span.clone(), "a line can have one command only", None);
            return;
        }
        let (chain, span) = match value {
            Some((chain, span)) => (Some(chain), span),
            None => (None, word.span.clone()),
        };
        let mut argument = None;
        let words = line.words;
        let takes_argument = matches!(letter, 'D' | 'I' | 'R' | 'Z' | 'L' | 'S' | 'P' | 'E');
        if let Some(next) = words.get(line.next)
            && chain.is_some()
            && takes_argument
            && !next.text.starts_with('-')
            && next.text != "!"
        {
            argument = Some((&*next.text, next.span.clone()));
            line.next += 1;
        }
        line.command = Some(Command { letter, chain, span, argument });
    }

    fn add_match(&mut self, line: &mut Line<'_, '_>, name: &str, span: Range<usize>) {
        if line.draft.matches.len() >= self.options.matches_of_rule_max {
            let message = format!("the rule has more than {} matches", self.options.matches_of_rule_max);
            self.error(span, message, Some("split it over chains".into()));
            line.next = line.words.len();
            return;
        }
        if let Some(spec) = registry::find(Kind::Match, name, self.family) {
            line.push_match(Active::known(spec, span));
            return;
        }
        let other = self.family.other();
        if registry::find(Kind::Match, name, other).is_some() {
            self.error(span.clone(), format!("match {name} is for {} only", other.name()), None);
        } else {
            let near = registry::nearest(Kind::Match, name, self.family)
                .map(|n| format!("{n} is of a similar name"));
            let help =
                near.or_else(|| Some("it is kept as it is written, and what depends on it says so".into()));
            self.warn(span.clone(), format!("hipac does not know the match {name}"), help);
        }
        line.push_match(Active::opaque(name, span));
        line.open = line.owners.last().copied();
    }

    fn set_target(&mut self, line: &mut Line<'_, '_>, name: &str, span: Range<usize>, goto: bool) {
        if name.is_empty() || name.starts_with(['-', '!']) {
            self.error(span, format!("`{name}` is no name of a target"), None);
            return;
        }
        let target = if goto { None } else { registry::find(Kind::Target, name, self.family) };
        line.owners.retain(|o| *o != Owner::Target);
        if let Some(spec) = target {
            line.draft.target = Some(DraftTarget::Extension(Active::known(spec, span)));
            line.owners.push(Owner::Target);
            return;
        }
        if let Some((name, hook)) = line.chains.find(name, self) {
            if hook.is_some() {
                self.error(span.clone(), format!("rules cannot lead to the built-in chain {name}"), None);
            }
            line.draft.target = Some(DraftTarget::Chain { name, goto, span });
            return;
        }
        let active = Active::opaque(name, span);
        line.draft.target = Some(DraftTarget::Unknown { active, goto });
        line.owners.push(Owner::Target);
        line.open = Some(Owner::Target);
    }
}

/// The words of one value.
type Texts<'l> = SmallVec<[&'l str; 2]>;

/// The `!` of an old form such as `-s ! 1.2.3.4`, where a value follows it.
fn old_bang<'l>(words: &'l [Word<'l>], at: usize) -> Option<&'l Word<'l>> {
    match words.get(at..)? {
        [bang, value, ..] if bang.text == "!" && !bang.quoted && !value.text.starts_with('-') => Some(bang),
        _ => None,
    }
}
