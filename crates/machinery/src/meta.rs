//! Reading and writing the `metadata` of an object held as a [`Value`](crate::Value).
