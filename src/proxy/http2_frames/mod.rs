//! Frames of HTTP/2 on their way between a connection and h2 (RFC 9113): looked at as far as h2
//! leaves something open, and left to it in all else.

pub(super) mod checked;
mod coming;
mod fields;
mod going;
pub(super) mod streams;
#[cfg(test)]
mod tests;
mod tunnels;

/// Bytes of what a client's connection begins with (RFC 9113, section 3.4).
const PREFACE: u32 = 24;
/// Bytes before the payload of a frame.
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
