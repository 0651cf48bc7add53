//! Simulations: the real decisions in worlds made of seeds and virtual time.

mod fleet;
