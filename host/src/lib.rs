//! What a host keeps for its rules: residual matches, evaluated as the kernel does.
//!
//! No field of a packet decides `limit`, `recent` or `string`. A [`Host`](hipac_classifier::Host) is asked about
//! them; a [`State`] is what it needs in order to answer: the buckets, lists and counters of a ruleset's stateful
//! matches, and the parameters of those that look into the packet.
//!
//! ```text
//!   Ruleset ──State::new──▶ State ──ask(rule, match, packet, arrival)──▶ holds · fails · drops · not known
//!                             ▲                        │
//!                        buckets, lists          when it came, its bytes, its connection
//! ```
//!
//! Time and chance come from outside: each [`Arrival`] says when its packet came, and a seed is what draws come
//! from. So a replay is reproducible, and two states that are asked the same in the same order answer alike;
//! an oracle and an image, each with a state of its own, can be held against each other.
//!
//! What is not known is not guessed: without bytes `string` has no answer, without a seed `statistic --mode
//! random` has none, and matches about sockets, policies or other things that only the host itself knows have
//! none at all. [`Answer`] is of three values, with `None`.
//!
//! The arithmetic is the kernel's (6.18): credits in ticks of a stated [`Hz`], overflows of 32 bits included.
//! What the kernel would refuse to load, [`State::new`] refuses. Tables are bounded as the kernel bounds them.
//!
//! # Cost
//!
//! A look-up by rule and match, then a few operations; `recent` and `hashlimit` look up an address, `string` reads
//! the packet. Memory: a list of `recent` takes at most 100 addresses (see [`Options`]) of 32 stamps, a table of
//! `hashlimit` what its `--hashlimit-htable-max` allows (65,536 entries of some 100 bytes).

pub mod bpf;
mod calendar;
mod chunks;
mod clock;
mod connection;
mod counted;
mod ecn;
mod hashlimit;
mod headers6;
mod limit;
mod options;
mod play;
mod rateest;
mod recent;
mod route;
mod routing;
mod segments;
mod settings;
mod state;
#[cfg(test)]
mod testing;
mod text;
mod wire;
mod words;

pub use clock::{Hz, Time};
pub use connection::{Counters, Tracking, Tuple};
pub use hipac_classifier::Answer;
pub use play::{ImageHost, Origins};
pub use state::{Arrival, Options, Refused, State};
