//! What an entry of the registry says.

use std::fmt;

use crate::meaning::{Clause, Effect, Field, L4Need, MatchMeaning, Residual};
use crate::model::{Extension, Family, Hook, Setting, TableKind};
use crate::value::Value;

use super::kind::ValueKind;

/// Match or target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// After `-m`.
    Match,
    /// After `-j`.
    Target,
}

/// The families that have an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Families {
    /// IPv4 and IPv6.
    Both,
    /// One of them.
    Only(Family),
}

impl Families {
    /// Whether `family` is among them.
    pub fn has(self, family: Family) -> bool {
        match self {
            Families::Both => true,
            Families::Only(only) => only == family,
        }
    }
}

/// How evaluation goes on after a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The target decides about the packet.
    Verdict,
    /// The next rule follows; the options say with which effect.
    Continue,
    /// Back to the caller.
    Return,
}

/// A match or target that hipac knows.
///
/// An entry is a literal that fills in what differs from [`ExtensionSpec::MATCH`] or
/// [`ExtensionSpec::TARGET`].
pub struct ExtensionSpec {
    /// Name after `-m` or `-j`, and the one printed.
    pub name: &'static str,
    /// Further names that are read.
    pub aliases: &'static [&'static str],
    /// Match or target.
    pub kind: Kind,
    /// One line that says what it does.
    pub help: &'static str,
    /// The families that have it.
    pub families: Families,
    /// The tables that may hold it; empty: all.
    pub tables: &'static [TableKind],
    /// The hooks from which it may be reached; empty: all.
    pub hooks: &'static [Hook],
    /// The protocols, one of which its rule must name by `-p`; empty: any rule.
    pub protocols: &'static [u8],
    /// Its options, in the order in which they are printed.
    pub options: &'static [OptionSpec],
    /// Laws between its options.
    pub laws: &'static [Law],
    /// Transport header wanted (a match).
    pub l4: L4Need,
    /// What no field decides, whatever the options (a match).
    pub residual: Option<Residual>,
    /// How evaluation goes on (a target).
    pub ending: Ending,
    /// The effect that it has whatever its options (a target).
    pub effect: Effect,
    /// Fields that it changes in a way that is not worked out (a target): later tests of them are
    /// answered as if it had not, and the parser says so.
    pub alters: &'static [Field],
    /// An option that begins a new group of the others, each group in canonical order.
    pub group_by: Option<&'static str>,
    /// For what is not declarative.
    pub quirks: Quirks,
}

impl fmt::Debug for ExtensionSpec {
    /// The name alone: rules hold references to entries, and their debug text shall stay short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtensionSpec({})", self.name)
    }
}

impl fmt::Debug for OptionSpec {
    /// The name alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OptionSpec({})", self.name)
    }
}

impl ExtensionSpec {
    /// A match without options that always holds.
    pub const MATCH: ExtensionSpec = ExtensionSpec {
        name: "",
        aliases: &[],
        kind: Kind::Match,
        help: "",
        families: Families::Both,
        tables: &[],
        hooks: &[],
        protocols: &[],
        options: &[],
        laws: &[],
        l4: L4Need { bytes: 0, drops_fragment_at_8: false },
        residual: None,
        ending: Ending::Continue,
        effect: Effect::None,
        alters: &[],
        quirks: Quirks::NONE,
        group_by: None,
    };

    /// A target without options or effect, after which the next rule follows.
    pub const TARGET: ExtensionSpec = ExtensionSpec { kind: Kind::Target, ..ExtensionSpec::MATCH };

    /// The option of that name or alias.
    pub fn option(&'static self, name: &str) -> Option<&'static OptionSpec> {
        self.options.iter().find(|o| o.is_named(name))
    }

    /// Whether it goes by that name.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// A law between the options of an extension. Options are named by their first name.
#[derive(Debug, Clone, Copy)]
pub enum Law {
    /// One or more of them must be given.
    AnyOf(&'static [&'static str]),
    /// At most one of them may be given.
    OneOf(&'static [&'static str]),
    /// The first wants the second.
    Needs(&'static str, &'static str),
    /// The first stands behind the second.
    Behind(&'static str, &'static str),
}

/// Checks the settings of an extension once all of its rule is read, and brings them into
/// canonical form; a returned text is a fault.
pub type Finish = fn(&mut Vec<Setting>, &FinishContext<'_>) -> Result<(), String>;

/// Functions for what the declarations cannot say.
#[derive(Debug, Clone, Copy)]
pub struct Quirks {
    /// Checks and rewrites the settings.
    pub finish: Option<Finish>,
    /// Replaces the declared meaning of a match.
    pub meaning: Option<fn(&Extension, Family) -> MatchMeaning>,
    /// That meaning leaves something to ask for, with some options or values.
    pub is_partly: bool,
    /// Replaces the declared effect of a target.
    pub effect: Option<fn(&Extension) -> Effect>,
}

impl Quirks {
    /// Everything is declared.
    pub const NONE: Quirks = Quirks { finish: None, meaning: None, is_partly: false, effect: None };

    /// Only [`Quirks::finish`].
    pub const fn finish(finish: Finish) -> Quirks {
        Quirks { finish: Some(finish), ..Quirks::NONE }
    }

    /// Only [`Quirks::meaning`].
    pub const fn meaning(meaning: fn(&Extension, Family) -> MatchMeaning) -> Quirks {
        Quirks { meaning: Some(meaning), ..Quirks::NONE }
    }

    /// Only [`Quirks::meaning`], which may leave something to ask for.
    pub const fn partly(meaning: fn(&Extension, Family) -> MatchMeaning) -> Quirks {
        Quirks { is_partly: true, ..Quirks::meaning(meaning) }
    }
}

/// The setting of the option of that name.
pub(super) fn setting<'a>(settings: &'a [Setting], name: &str) -> Option<&'a Setting> {
    settings.iter().find(|s| s.option.name == name)
}

/// What a [`Quirks::finish`] may know of the rule around it.
#[derive(Debug, Clone, Copy)]
pub struct FinishContext<'a> {
    /// The rule's matches, when this is its target; else those before this one.
    pub matches: &'a [Extension],
    /// The family of the ruleset.
    pub family: Family,
    /// The protocol of the rule, when it names one without `!`; else 0.
    pub protocol: u8,
    /// The entry.
    pub spec: &'static ExtensionSpec,
}

/// One option of a match or target. Built by [`option()`] and the methods that follow it.
pub struct OptionSpec {
    /// Name without dashes, and the one printed.
    pub name: &'static str,
    /// Further names that are read.
    pub aliases: &'static [&'static str],
    /// What values it takes, and how they are printed.
    pub value: ValueKind,
    /// One line that says what it does.
    pub help: &'static str,
    /// `!` may stand before it.
    pub negatable: bool,
    /// It must be given.
    pub required: bool,
    /// It may be given more than once.
    pub repeats: bool,
    /// Its value may be left out.
    pub value_optional: bool,
    /// What holds when it is not given.
    pub when_absent: WhenAbsent,
    /// Another option of the same extension that it is short for.
    pub short_for: Option<ShortFor>,
    /// What it means.
    pub means: Means,
}

/// What holds when an option is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAbsent {
    /// Nothing does.
    None,
    /// This value does, and is never printed.
    Hidden(&'static str),
    /// This value does, and is always printed.
    Shown(&'static str),
}

/// An option that is written as another one.
#[derive(Debug, Clone, Copy)]
pub struct ShortFor {
    /// The other one's name.
    pub option: &'static str,
    /// Its value.
    pub value: fn(&Value) -> Value,
    /// `!` is added (or taken away).
    pub flips: bool,
}

/// What an option means to the evaluation.
#[derive(Debug, Clone, Copy)]
pub enum Means {
    /// Nothing: it changes neither what matches nor what later rules see.
    Nothing,
    /// The field's value is in the set that the option's value names.
    Tests(Field),
    /// One of two fields' values is.
    TestsEither(Field, Field),
    /// Clauses that a function makes of the setting.
    Clauses(fn(&Setting, Family) -> Vec<Clause>),
    /// Something that no field decides.
    Residual(Residual),
    /// A change that later rules see (targets).
    Effect(fn(&Value) -> Effect),
}

impl FinishContext<'_> {
    /// Adds a setting of an option of the entry, at its place in canonical order, unless it is
    /// there already.
    pub(super) fn add_missing(&self, settings: &mut Vec<Setting>, name: &str, value: Value) {
        let Some(option) = self.spec.option(name) else { return };
        if setting(settings, name).is_some() {
            return;
        }
        let place = |o: &OptionSpec| self.spec.options.iter().position(|other| std::ptr::eq(other, o));
        let at = settings.partition_point(|s| place(s.option) < place(option));
        settings.insert(at, Setting { option, negated: false, value });
    }
}

impl OptionSpec {
    /// Whether it goes by that name.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }

    /// Further names that are read.
    pub const fn or(mut self, aliases: &'static [&'static str]) -> OptionSpec {
        self.aliases = aliases;
        self
    }

    /// `!` may stand before it.
    pub const fn not(mut self) -> OptionSpec {
        self.negatable = true;
        self
    }

    /// It must be given.
    pub const fn required(mut self) -> OptionSpec {
        self.required = true;
        self
    }

    /// It may be given more than once.
    pub const fn repeats(mut self) -> OptionSpec {
        self.repeats = true;
        self
    }

    /// Its value may be left out.
    pub const fn value_optional(mut self) -> OptionSpec {
        self.value_optional = true;
        self
    }

    /// This value holds when it is not given, and is never printed.
    pub const fn hidden(mut self, value: &'static str) -> OptionSpec {
        self.when_absent = WhenAbsent::Hidden(value);
        self
    }

    /// This value holds when it is not given, and is always printed.
    pub const fn shown(mut self, value: &'static str) -> OptionSpec {
        self.when_absent = WhenAbsent::Shown(value);
        self
    }

    /// It is written as another option of the same extension.
    pub const fn short_for(mut self, option: &'static str, value: fn(&Value) -> Value) -> OptionSpec {
        self.short_for = Some(ShortFor { option, value, flips: false });
        self
    }

    /// It is written as the negation of another option of the same extension.
    pub const fn short_for_not(mut self, option: &'static str) -> OptionSpec {
        self.short_for = Some(ShortFor { option, value: Value::clone, flips: true });
        self
    }

    /// The field's value is in the set that its value names.
    pub const fn tests(mut self, field: Field) -> OptionSpec {
        self.means = Means::Tests(field);
        self
    }

    /// One of two fields' values is.
    pub const fn tests_either(mut self, one: Field, other: Field) -> OptionSpec {
        self.means = Means::TestsEither(one, other);
        self
    }

    /// It means the clauses that the function makes of it.
    pub const fn clauses(mut self, clauses: fn(&Setting, Family) -> Vec<Clause>) -> OptionSpec {
        self.means = Means::Clauses(clauses);
        self
    }

    /// No field decides it, and evaluating it changes nothing.
    pub const fn pure(mut self) -> OptionSpec {
        self.means = Means::Residual(Residual::Pure);
        self
    }

    /// No field decides it, and evaluating it changes something.
    pub const fn stateful(mut self) -> OptionSpec {
        self.means = Means::Residual(Residual::Stateful);
        self
    }

    /// It makes the target change what later rules see.
    pub const fn effect(mut self, effect: fn(&Value) -> Effect) -> OptionSpec {
        self.means = Means::Effect(effect);
        self
    }
}

/// An option that takes values of `value`, means nothing to the evaluation, and may be given
/// once, without `!`: what else there is to say follows by methods.
pub const fn option(name: &'static str, value: ValueKind, help: &'static str) -> OptionSpec {
    OptionSpec {
        name,
        aliases: &[],
        value,
        help,
        negatable: false,
        required: false,
        repeats: false,
        value_optional: false,
        when_absent: WhenAbsent::None,
        short_for: None,
        means: Means::Nothing,
    }
}

/// An option without a value.
pub const fn flag(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, ValueKind::Flag, help)
}
