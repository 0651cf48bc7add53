//! Memory asked for ahead of its use: what a request wrote or read before it waited for an answer
//! is in no near cache any more, and to wait for one such line is a hundredth of what it costs.
//!
//! A hint and nothing else: no effect but on time, and none at all where the processor is not x86.

/// Asks for the cache line in which this begins.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    safe_arch::prefetch_t0(place);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// The same of the beginning of a text.
#[inline(always)]
pub(crate) fn prefetch_text(text: &[u8]) {
    text.first().into_iter().for_each(prefetch);
}

/// Bytes that come at once.
pub(crate) const CACHE_LINE: usize = 64;
