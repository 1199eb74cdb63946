//! x
pub mod clock;
pub mod history;
pub mod live;
mod sync;
pub mod wire;
