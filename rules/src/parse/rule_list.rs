//! The rules of a chain while its table is read.
//!
//! ```text
//!   all     A  B  C  D          as they were put, whatever the place: nothing moves
//!   order   1  3  0             their order, once a rule was inserted or taken out
//! ```
//!
//! Texts append, nearly all of them, and then there is no order to keep. Where there is one, an
//! insertion moves four bytes a rule. A rule taken out stays in `all` until the table is finished:
//! memory is linear in the text, not in what the edits left.

use std::collections::{HashSet, VecDeque};

use foldhash::fast::RandomState;

use crate::model::Rule;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RuleList {
    all: Vec<Rule>,
    /// `None`: as they were put, none taken out.
    order: Option<Order>,
}

#[derive(Debug)]
struct Order {
    /// Places in [`RuleList::all`].
    places: VecDeque<u32>,
    removed: HashSet<u32, RandomState>,
}

impl RuleList {
    pub(crate) fn len(&self) -> usize {
        self.order.as_ref().map_or(self.all.len(), |order| order.places.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rule at a position, from 0.
    pub(crate) fn get(&self, at: usize) -> Option<&Rule> {
        self.all.get(self.place(at)?)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Rule> {
        let place = self.place(at)?;
        self.all.get_mut(place)
    }

    fn place(&self, at: usize) -> Option<usize> {
        match &self.order {
            None => Some(at),
            Some(order) => order.places.get(at).map(|place| *place as usize),
        }
    }

    /// The rules in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// All rules in any order, and maybe some that were taken out.
    pub(crate) fn each_mut(&mut self) -> impl Iterator<Item = &mut Rule> {
        self.all.iter_mut()
    }

    /// The rule that [`insert`](Self::insert) gave this number, unless it was taken out.
    pub(crate) fn numbered(&mut self, number: u32) -> Option<&mut Rule> {
        let is_removed = self.order.as_ref().is_some_and(|order| order.removed.contains(&number));
        if is_removed { None } else { self.all.get_mut(number as usize) }
    }

    /// How many rules ever got a number.
    pub(crate) fn numbered_count(&self) -> usize {
        self.all.len()
    }

    /// Puts a rule at a position, or at the end, and gives it a number that it keeps.
    pub(crate) fn insert(&mut self, at: Option<usize>, rule: Rule) -> Option<u32> {
        let number = u32::try_from(self.all.len()).ok()?;
        match (at, &mut self.order) {
            (None, None) => {}
            (None, Some(order)) => order.places.push_back(number),
            (Some(at), _) => self.ordered().places.insert(at, number),
        }
        self.all.push(rule);
        Some(number)
    }

    /// Puts rules at the end, where `more` are expected; `false`: they are more than can be
    /// numbered.
    pub(crate) fn append(&mut self, rules: impl ExactSizeIterator<Item = Rule>, more: usize) -> bool {
        let (Ok(first), Ok(end)) =
            (u32::try_from(self.all.len()), u32::try_from(self.all.len() + rules.len()))
        else {
            return false;
        };
        if let Some(order) = &mut self.order {
            order.places.extend(first..end);
        }
        if self.all.capacity() - self.all.len() < rules.len() {
            // Growing by doubling would move megabytes, and touch twice as many.
            self.all.reserve(rules.len() + more);
        }
        self.all.extend(rules);
        true
    }

    /// Takes out the rule at a position; `false`: there is none.
    pub(crate) fn remove(&mut self, at: usize) -> bool {
        let order = self.ordered();
        let place = order.places.remove(at);
        order.removed.extend(place);
        place.is_some()
    }

    /// Takes out all rules, and says how many.
    pub(crate) fn clear(&mut self) -> usize {
        let count = self.len();
        if count > 0 {
            let order = self.ordered();
            order.removed.extend(order.places.drain(..));
        }
        count
    }

    fn ordered(&mut self) -> &mut Order {
        let count = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.order.get_or_insert_with(|| Order { places: (0..count).collect(), removed: HashSet::default() })
    }

    /// The rules in order.
    pub(crate) fn into_rules(mut self) -> Vec<Rule> {
        let Some(order) = self.order else {
            self.all.shrink_to_fit();
            return self.all;
        };
        let mut all: Vec<Option<Rule>> = self.all.into_iter().map(Some).collect();
        order.places.into_iter().filter_map(|place| all[place as usize].take()).collect()
    }
}
