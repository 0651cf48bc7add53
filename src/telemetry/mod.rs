//! Metrics, logs and the clock: walls that floors 3, 4 and the roof lean on.

pub(crate) mod access_log;
#[cfg(test)]
pub(crate) mod chance;
pub(crate) mod clock;
pub(crate) mod json_text;
pub(crate) mod logs;
pub(crate) mod prefetch;
pub(crate) mod request_metrics;
pub(crate) mod service;
pub(crate) mod timestamps;
