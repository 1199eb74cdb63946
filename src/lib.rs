//! x
pub mod clock;
pub mod history;
pub mod live;
pub mod session;
mod sync;
pub mod wire;
