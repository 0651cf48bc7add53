//! The integration tests, in one binary so that they link once.
//!
//! Each module below opens with what it proves. Real sockets use port 0; nothing here sleeps to
//! synchronise.

mod tidy;
