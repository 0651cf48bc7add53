//! Why bytes are not what they should be.
//!
//! Names the field, never the value: what a stranger sent does not go into logs.

use std::fmt;

/// Why bytes were not taken. Nothing was touched, unless the taker says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// These are not the bytes of such a message.
    Undecodable(&'static str),
    /// This field must be there.
    Missing(&'static str),
    /// This field has the wrong length, grammar or range.
    Invalid(&'static str),
    /// This field, list or message is beyond its limit.
    TooLarge(&'static str),
    /// A part of a delta does not follow the one before; what was assembled is dropped.
    OutOfOrder,
    /// The bytes end in the middle of a frame or of a delta.
    Truncated,
}

impl WireError {
    /// A stable word for metrics and reports.
    pub fn reason(&self) -> &'static str {
        match self {
            WireError::Undecodable(_) => "undecodable",
            WireError::Missing(_) => "missing",
            WireError::Invalid(_) => "invalid",
            WireError::TooLarge(_) => "too_large",
            WireError::OutOfOrder => "out_of_order",
            WireError::Truncated => "truncated",
        }
    }

    /// The field, list or message that it is about; empty where it is about the whole.
    pub fn field(&self) -> &'static str {
        match self {
            WireError::Undecodable(field)
            | WireError::Missing(field)
            | WireError::Invalid(field)
            | WireError::TooLarge(field) => field,
            WireError::OutOfOrder | WireError::Truncated => "",
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Undecodable(what) => write!(f, "the bytes are not a {what}"),
            WireError::Missing(field) => write!(f, "`{field}` is missing"),
            WireError::Invalid(field) => write!(f, "`{field}` is not valid"),
            WireError::TooLarge(field) => write!(f, "`{field}` is too large"),
            WireError::OutOfOrder => f.write_str("a part of a delta is out of order"),
            WireError::Truncated => f.write_str("the body ends too early"),
        }
    }
}

impl std::error::Error for WireError {}
