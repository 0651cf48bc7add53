//! The gRPC services: thin doors to the driver and to what is published.

pub(super) mod control;
pub(super) mod fleet;
pub(super) mod follow;
pub(super) mod gate;
pub(super) mod guard;
pub(super) mod port;
pub(super) mod rules;

mod follow_codec;
mod session;
mod status;
mod strict;
