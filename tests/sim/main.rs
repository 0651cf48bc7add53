//! Simulations: the real decisions in worlds made of seeds and virtual time.

#![allow(unreachable_pub, reason = "modules of one test binary share freely")]

mod fleet;
