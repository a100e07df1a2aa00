//! Typed access to what a rule says about one extension.

use hipac_rules::{Extension, Setting, Value};

/// The settings of one match or target.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'e>(pub(crate) &'e Extension);

impl<'e> Settings<'e> {
    pub(crate) fn get(self, name: &str) -> Option<&'e Setting> {
        self.0.settings.iter().find(|s| s.option.name == name)
    }

    pub(crate) fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The option is given, with `!`.
    pub(crate) fn is_negated(self, name: &str) -> bool {
        self.get(name).is_some_and(|s| s.negated)
    }

    pub(crate) fn number(self, name: &str) -> Option<u64> {
        match self.get(name)?.value {
            Value::Number(n) => Some(n),
            _ => None,
        }
    }

    /// A number whose option's range is 32 bits wide.
    pub(crate) fn word(self, name: &str) -> Option<u32> {
        self.number(name).and_then(|n| u32::try_from(n).ok())
    }

    pub(crate) fn text(self, name: &str) -> Option<&'e str> {
        match &self.get(name)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn set(self, name: &str) -> Option<u64> {
        match self.get(name)?.value {
            Value::Set(set) => Some(set),
            _ => None,
        }
    }
}
