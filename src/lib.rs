//! x
pub mod clock;
pub mod config;
pub mod history;
pub mod http;
pub mod live;
pub mod session;
mod sync;
pub mod wire;
pub use http::{ServeError, Server, serve};
