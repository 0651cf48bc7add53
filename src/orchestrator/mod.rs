//! Takes writes, orders them, signs and streams them.

mod key_file;
mod store;
pub mod store_error;
