//! The runtime of hipac: packets, dimensions, the forest image and its lookup.

pub mod dim;
pub mod forest;
pub mod key;
pub mod packet;

pub use dim::Dim;
pub use key::Key;
pub use packet::{CtState, InterfaceName, L4, Packet};
