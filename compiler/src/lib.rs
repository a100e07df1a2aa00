//! placeholder
pub mod condition;
pub mod interval;
