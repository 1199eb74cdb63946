//! x
pub mod clock;
pub mod live;
mod sync;
pub mod wire;
