//! What a user may ask of the compiler.

/// Which rules an image reports when they match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counting {
    /// Every rule that matches, in order, as iptables counts: jumps and rules without a target
    /// too. Each costs a step of its own.
    #[default]
    Exact,
    /// Rules that decide, act, or have a stateful match; what only counts is left out.
    Deciding,
}

/// Options of [`compile`](crate::compile()).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes that the image may take, all of it. The builder trades speed for memory to stay
    /// below, and refuses when even a linear list does not fit.
    ///
    /// While it builds it has at most four times this in use, and as much as the ruleset takes,
    /// besides the ruleset itself. (A test counts.)
    pub memory_bytes_max: usize,
    /// What is counted.
    pub counting: Counting,
}

impl Default for Options {
    /// 64 MiB, counting exactly.
    fn default() -> Self {
        Options { memory_bytes_max: 64 << 20, counting: Counting::Exact }
    }
}
