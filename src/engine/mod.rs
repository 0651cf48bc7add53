//! The mind of a node and of an orchestrator, as deterministic state machines: no IO, no clock.
