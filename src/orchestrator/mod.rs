//! Takes writes, orders, signs and streams them.
