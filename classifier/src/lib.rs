//! The runtime of hipac: packets, dimensions, the forest image and its lookup.
//!
//! ```text
//!   raw bytes ─wire▶ Packet ─key▶ Key ─lookup▶ position ─evaluate▶ Decision
//!                               └──────── Image ────────┘
//! ```
//!
//! It knows neither text nor chains: an [`Image`] comes from the compiler, and a rule is a
//! number with a place to show for it.

pub mod dim;
pub mod evaluate;
pub mod forest;
pub mod image;
pub mod key;
pub mod live;
pub mod packet;
pub mod program;
pub mod sets;
pub mod wire;

pub use dim::Dim;
pub use evaluate::{Answer, Decision, Host, NoHost};
pub use image::{EntryId, Image, OriginId};
pub use key::{Key, Keys};
pub use packet::{CtState, Fact, Facts, InterfaceName, L4, Packet};
pub use wire::WireError;
