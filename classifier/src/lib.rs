//! The runtime of hipac: packets, dimensions, the forest image and its lookup.

pub mod packet;
pub mod wire;

pub use packet::{CtState, InterfaceName, L4, Packet};
pub use wire::WireError;
