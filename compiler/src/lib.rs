//! placeholder
pub mod condition;
pub mod interval;
pub mod lower;
pub mod options;
