//! How far the survey is.

/// Goes on while the answer is true.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> bool;

/// How far it is, in one built-in chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The part of the space that was looked at, from 0 to 1.
    pub decided: f64,
}
