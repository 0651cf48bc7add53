//! Which rule and which target a request goes to: no IO, no clock, seeded randomness.
