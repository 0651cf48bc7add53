//! Claims about ledgers.
