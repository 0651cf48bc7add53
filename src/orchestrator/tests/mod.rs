//! Claims about an orchestrator over real sockets.
